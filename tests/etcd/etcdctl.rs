//! etcdctl, the client of etcd's own project, over gRPC.

use std::{process::Stdio, time::Duration};

use muster::model::token::{Scope, Token, Tokens};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::{
    store::TestStore,
    support::{process, run as runs, skip},
};

/// Time limit of a command, and of a line.
const LIMIT: Duration = Duration::from_secs(30);

/// Runs `test` with a store, unless etcdctl is missing.
fn with_store(test: &str, scene: impl AsyncFnOnce(TestStore)) {
    if skip::tool(test, "etcdctl", "etcd-client") {
        // The first command of a process starts a runtime of its own, which cannot end within another one.
        drop(process::command("etcdctl"));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build().unwrap();
        runtime.block_on(async { scene(TestStore::start().await).await });
    }
}

fn etcdctl(store: &TestStore, arguments: &str) -> Command {
    let mut command = Command::from(process::command("etcdctl"));
    command.env("ETCDCTL_API", "3").arg(format!("--endpoints=http://{}", store.address));
    // Words in quotes are one argument; no test needs more.
    for (index, part) in arguments.split('"').enumerate() {
        if index % 2 == 1 {
            command.arg(part);
        } else {
            command.args(part.split_whitespace());
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs a command with this input. Returns what it prints; errors begin with `Error`.
async fn run_with(store: &TestStore, arguments: &str, input: &str) -> String {
    let mut child = etcdctl(store, arguments).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = timeout(LIMIT, child.wait_with_output()).await.unwrap_or_else(|_| panic!("etcdctl {arguments} hangs"));
    let output = output.unwrap();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).trim().to_owned();
    if output.status.success() { text(&output.stdout) } else { text(&output.stderr) }
}

async fn run(store: &TestStore, arguments: &str) -> String {
    run_with(store, arguments, "").await
}

/// Runs commands one after the other and compares what they print.
async fn expect(store: &TestStore, steps: &[(&str, &str)]) {
    for (arguments, expected) in steps {
        assert_eq!(run(store, arguments).await, *expected, "etcdctl {arguments}");
    }
}

/// A command that keeps running, and its lines.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(store: &TestStore, arguments: &str) -> Self {
        let mut child = etcdctl(store, arguments).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn line(&mut self) -> String {
        timeout(LIMIT, self.lines.next_line()).await.expect("a line in time").unwrap().expect("a line")
    }
}

#[test]
fn keys_are_written_read_and_deleted() {
    with_store("keys_are_written_read_and_deleted", async |store: TestStore| {
        let steps = [
            ("put a/1 one", "OK"),
            ("put a/2 two", "OK"),
            ("put b three", "OK"),
            ("get a/1", "a/1\none"),
            ("get a/1 --print-value-only", "one"),
            ("get --prefix a/", "a/1\none\na/2\ntwo"),
            ("get --prefix a/ --keys-only --order=DESCEND --sort-by=KEY", "a/2\n\na/1"),
            ("get --prefix a/ --limit=1", "a/1\none"),
            ("get --from-key a/2", "a/2\ntwo\nb\nthree"),
            ("get a/1 b", "a/1\none\na/2\ntwo"),
            ("put a/1 again --prev-kv", "OK\na/1\none"),
            ("get a/1 --rev=2", "a/1\none"),
            ("get a/1 --consistency=s", "a/1\nagain"),
            ("del --prefix a/ --prev-kv", "2\na/1\nagain\na/2\ntwo"),
            ("get --prefix a/", ""),
            ("del absent", "0"),
        ];
        expect(&store, &steps).await;
        let json = run(&store, "get b --write-out=json").await;
        let header = r#""header":{"cluster_id":42,"member_id":7,"revision":6,"raft_term":3}"#;
        assert!(json.contains(header), "{json}");
    });
}

#[test]
fn errors_have_the_texts_of_etcd() {
    with_store("errors_have_the_texts_of_etcd", async |store: TestStore| {
        expect(&store, &[("put k v", "OK"), ("put k w", "OK"), ("compact 3", "compacted revision 3")]).await;
        let cases = [
            ("get k --rev=1", "etcdserver: mvcc: required revision has been compacted"),
            ("get k --rev=9", "etcdserver: mvcc: required revision is a future revision"),
            ("compact 3", "etcdserver: mvcc: required revision has been compacted"),
            ("put k v --lease=1234", "etcdserver: requested lease not found"),
            ("put absent --ignore-value", "etcdserver: key not found"),
            ("lease revoke 1234", "etcdserver: requested lease not found"),
            ("auth enable", "Unimplemented"),
            ("member add other --peer-urls=http://127.0.0.1:1", "muster store add"),
        ];
        for (arguments, expected) in cases {
            let text = run(&store, arguments).await;
            assert!(text.contains(expected), "{arguments}: {text}");
        }
        store.set_headless(true);
        let text = run(&store, "put k v --command-timeout=1s").await;
        assert!(text.contains("etcdserver: no leader") || text.contains("deadline exceeded"), "{text}");
    });
}

#[test]
fn transaction_takes_one_branch() {
    with_store("transaction_takes_one_branch", async |store: TestStore| {
        expect(&store, &[("put k v", "OK")]).await;
        let transaction = "value(\"k\") = \"v\"\nversion(\"other\") = \"0\"\n\nput other 1\nget k\n\nget other\n\n";
        assert_eq!(run_with(&store, "txn", transaction).await, "SUCCESS\n\nOK\n\nk\nv");
        assert_eq!(run_with(&store, "txn", transaction).await, "FAILURE\n\nother\n1");
        let twice = "\nput k 1\nput k 2\n\n\n";
        let text = run_with(&store, "txn", twice).await;
        assert!(text.contains("etcdserver: duplicate key given in txn request"), "{text}");
    });
}

#[test]
fn watch_sees_each_change_once_across_lost_voters() {
    with_store("watch_sees_each_change_once_across_lost_voters", async |store: TestStore| {
        expect(&store, &[("put w/0 0", "OK")]).await;
        let mut watch = Running::start(&store, "watch --prefix w/ --rev=2");
        for line in ["PUT", "w/0", "0"] {
            assert_eq!(watch.line().await, line);
        }
        for number in 1..10 {
            if number % 3 == 0 {
                store.lose_voter();
            }
            expect(&store, &[(&format!("put w/{number} {number}"), "OK")]).await;
        }
        for number in 1..10 {
            for line in ["PUT".to_owned(), format!("w/{number}"), number.to_string()] {
                assert_eq!(watch.line().await, line);
            }
        }
        expect(&store, &[("del w/9", "1"), ("compact 5", "compacted revision 5")]).await;
        assert_eq!((watch.line().await, watch.line().await), ("DELETE".to_owned(), "w/9".to_owned()));
        let text = run(&store, "watch w/0 --rev=2").await;
        assert!(text.contains("required revision has been compacted"), "{text}");
    });
}

#[test]
fn keys_end_with_their_lease() {
    with_store("keys_end_with_their_lease", async |store: TestStore| {
        let granted = run(&store, "lease grant 100").await;
        let id = granted.split(' ').nth(1).unwrap().to_owned();
        assert_eq!(granted, format!("lease {id} granted with TTL(100s)"));
        expect(&store, &[(&format!("put k v --lease={id}"), "OK")]).await;
        let left = run(&store, &format!("lease timetolive {id} --keys")).await;
        assert!(left.contains("granted with TTL(100s), remaining(") && left.ends_with("attached keys([k])"), "{left}");
        assert_eq!(run(&store, "lease list").await, format!("found 1 leases\n{id}"));
        let kept = run(&store, &format!("lease keep-alive --once {id}")).await;
        assert_eq!(kept, format!("lease {id} keepalived with TTL(100)"));
        let revoked = run(&store, &format!("lease revoke {id}")).await;
        assert_eq!(revoked, format!("lease {id} revoked"));
        let gone = format!("lease {id} already expired");
        expect(&store, &[("get k", ""), (&format!("lease timetolive {id}"), &gone)]).await;
        let short = run(&store, "lease grant 2").await;
        let mut watch = Running::start(&store, "watch short --rev=1");
        expect(&store, &[(&format!("put short v --lease={}", short.split(' ').nth(1).unwrap()), "OK")]).await;
        let lines = [watch.line().await, watch.line().await, watch.line().await, watch.line().await];
        assert_eq!(lines, ["PUT", "short", "v", "DELETE"]);
    });
}

#[test]
fn lock_passes_to_the_next_when_its_holder_ends() {
    with_store("lock_passes_to_the_next_when_its_holder_ends", async |store: TestStore| {
        let mut first = Running::start(&store, "lock l");
        assert!(first.line().await.starts_with("l/"));
        let mut second = Running::start(&store, "lock l");
        tokio::select! {
            line = second.line() => panic!("two holders: {line}"),
            () = tokio::time::sleep(Duration::from_millis(300)) => {}
        }
        let pid = nix::unistd::Pid::from_raw(i32::try_from(first.child.id().unwrap()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        let holder = second.line().await;
        assert_eq!(run(&store, "get --prefix l/ --keys-only").await, holder);
    });
}

#[test]
fn leader_is_elected_on_an_empty_store_and_observed() {
    with_store("leader_is_elected_on_an_empty_store_and_observed", async |store: TestStore| {
        let mut first = Running::start(&store, "elect e one");
        assert!(first.line().await.starts_with("e/"));
        assert_eq!(first.line().await, "one");
        let mut observer = Running::start(&store, "elect --listen e");
        assert!(observer.line().await.starts_with("e/"));
        assert_eq!(observer.line().await, "one");
        let _second = Running::start(&store, "elect e two");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(first.child.id().unwrap()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        assert!(observer.line().await.starts_with("e/"));
        assert_eq!(observer.line().await, "two");
    });
}

#[test]
fn cluster_is_described() {
    with_store("cluster_is_described", async |store: TestStore| {
        let address = store.address;
        let members = run(&store, "member list").await;
        assert_eq!(members, format!("7, started, node-1, , http://{address}, false"));
        let status = run(&store, "endpoint status").await;
        assert!(status.starts_with(&format!("http://{address}, 7, 3.5.21,")) && status.contains("true"), "{status}");
        assert!(run(&store, "endpoint hashkv").await.contains(", "));
        expect(&store, &[("alarm list", ""), ("put k v", "OK")]).await;
        assert!(run(&store, "defrag").await.starts_with("Finished defragmenting"));
        let folder = runs::temp_dir();
        let file = folder.path().join("snapshot");
        let saved = run(&store, &format!("snapshot save {}", file.display())).await;
        assert!(saved.contains("Snapshot saved at"), "{saved}");
        assert_eq!(std::fs::metadata(file).unwrap().len(), 512 + 32);
        store.set_headless(true);
        assert!(run(&store, "endpoint health --command-timeout=2s").await.contains("unhealthy"));
    });
}

#[test]
fn password_of_a_user_is_a_token() {
    with_store("password_of_a_user_is_a_token", async |_: TestStore| {
        let tokens = vec![
            Token::new("deploy", Scope::Operate, "correct-horse-battery"),
            Token::new("prometheus", Scope::Read, "staple-correct-horse"),
        ];
        let store = TestStore::with(Some(Tokens::new(tokens))).await;
        let steps =
            [("put k v --user=any:correct-horse-battery", "OK"), ("get k --user=any:correct-horse-battery", "k\nv")];
        expect(&store, &steps).await;
        let cases = [
            ("get k", "etcdserver: user name is empty"),
            ("get k --user=any:wrong", "etcdserver: authentication failed, invalid user ID or password"),
            ("get k --user=any:staple-correct-horse", "etcdserver: permission denied"),
        ];
        for (arguments, expected) in cases {
            let text = run(&store, arguments).await;
            assert!(text.contains(expected), "{arguments}: {text}");
        }
    });
}
