//! etcdctl, the client of etcd's own project, over gRPC.

use std::time::Duration;

use muster::model::token::{KeyAccess, KeyGrant, Permissions, Scope, Token, Tokens};
use tokio::runtime::{Builder, Runtime};

use crate::{
    store::TestStore,
    support::{
        etcdctl::{Etcdctl, is_installed},
        run as runs,
    },
};

/// A store with a client; its API runs on threads of its own.
struct Scene {
    etcdctl: Etcdctl,
    store: TestStore,
    _runtime: Runtime,
}

/// Starts a store whose API needs one of these tokens, if there are any. Skips `test` if etcdctl is not installed.
fn scene(test: &str, tokens: Option<Tokens>) -> Option<Scene> {
    if !is_installed(test) {
        return None;
    }
    let runtime = Builder::new_multi_thread().enable_all().worker_threads(2).build().unwrap();
    let store = runtime.block_on(TestStore::with(tokens));
    Some(Scene { etcdctl: Etcdctl::on(&[store.address]), store, _runtime: runtime })
}

#[test]
fn keys_are_written_read_and_deleted() {
    let Some(scene) = scene("keys_are_written_read_and_deleted", None) else { return };
    let Scene { etcdctl, .. } = &scene;
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
    etcdctl.expect(&steps);
    let json = etcdctl.run("get b --write-out=json");
    let header = r#""header":{"cluster_id":42,"member_id":7,"revision":6,"raft_term":3}"#;
    assert!(json.contains(header), "{json}");
}

#[test]
fn errors_have_the_texts_of_etcd() {
    let Some(scene) = scene("errors_have_the_texts_of_etcd", None) else { return };
    let Scene { etcdctl, store, .. } = &scene;
    etcdctl.expect(&[("put k v", "OK"), ("put k w", "OK"), ("compact 3", "compacted revision 3")]);
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
    etcdctl.expect_part(&cases);
    store.set_headless(true);
    let text = etcdctl.run("put k v --command-timeout=1s");
    assert!(text.contains("etcdserver: no leader") || text.contains("deadline exceeded"), "{text}");
}

#[test]
fn transaction_takes_one_branch() {
    let Some(scene) = scene("transaction_takes_one_branch", None) else { return };
    let Scene { etcdctl, .. } = &scene;
    etcdctl.expect(&[("put k v", "OK")]);
    let transaction = "value(\"k\") = \"v\"\nversion(\"other\") = \"0\"\n\nput other 1\nget k\n\nget other\n\n";
    assert_eq!(etcdctl.run_with("txn", transaction), "SUCCESS\n\nOK\n\nk\nv");
    assert_eq!(etcdctl.run_with("txn", transaction), "FAILURE\n\nother\n1");
    let twice = "\nput k 1\nput k 2\n\n\n";
    let text = etcdctl.run_with("txn", twice);
    assert!(text.contains("etcdserver: duplicate key given in txn request"), "{text}");
}

#[test]
fn watch_sees_each_change_once_across_lost_voters() {
    let Some(scene) = scene("watch_sees_each_change_once_across_lost_voters", None) else { return };
    let Scene { etcdctl, store, .. } = &scene;
    etcdctl.expect(&[("put w/0 0", "OK")]);
    let watch = etcdctl.start("watch --prefix w/ --rev=2");
    for line in ["PUT", "w/0", "0"] {
        assert_eq!(watch.line(), line);
    }
    for number in 1..10 {
        if number % 3 == 0 {
            store.lose_voter();
        }
        etcdctl.expect(&[(&format!("put w/{number} {number}"), "OK")]);
    }
    for number in 1..10 {
        for line in ["PUT".to_owned(), format!("w/{number}"), number.to_string()] {
            assert_eq!(watch.line(), line);
        }
    }
    etcdctl.expect(&[("del w/9", "1"), ("compact 5", "compacted revision 5")]);
    assert_eq!((watch.line(), watch.line()), ("DELETE".to_owned(), "w/9".to_owned()));
    let text = etcdctl.run("watch w/0 --rev=2");
    assert!(text.contains("required revision has been compacted"), "{text}");
}

#[test]
fn keys_end_with_their_lease() {
    let Some(scene) = scene("keys_end_with_their_lease", None) else { return };
    let Scene { etcdctl, .. } = &scene;
    let granted = etcdctl.run("lease grant 100");
    let id = granted.split(' ').nth(1).unwrap().to_owned();
    assert_eq!(granted, format!("lease {id} granted with TTL(100s)"));
    etcdctl.expect(&[(&format!("put k v --lease={id}"), "OK")]);
    let left = etcdctl.run(&format!("lease timetolive {id} --keys"));
    assert!(left.contains("granted with TTL(100s), remaining(") && left.ends_with("attached keys([k])"), "{left}");
    assert_eq!(etcdctl.run("lease list"), format!("found 1 leases\n{id}"));
    let kept = etcdctl.run(&format!("lease keep-alive --once {id}"));
    assert_eq!(kept, format!("lease {id} keepalived with TTL(100)"));
    let revoked = etcdctl.run(&format!("lease revoke {id}"));
    assert_eq!(revoked, format!("lease {id} revoked"));
    let gone = format!("lease {id} already expired");
    etcdctl.expect(&[("get k", ""), (&format!("lease timetolive {id}"), &gone)]);
    let short = etcdctl.run("lease grant 2");
    let watch = etcdctl.start("watch short --rev=1");
    etcdctl.expect(&[(&format!("put short v --lease={}", short.split(' ').nth(1).unwrap()), "OK")]);
    let lines = [watch.line(), watch.line(), watch.line(), watch.line()];
    assert_eq!(lines, ["PUT", "short", "v", "DELETE"]);
}

#[test]
fn lock_passes_to_the_next_when_its_holder_ends() {
    let Some(scene) = scene("lock_passes_to_the_next_when_its_holder_ends", None) else { return };
    let Scene { etcdctl, .. } = &scene;
    let first = etcdctl.start("lock l");
    assert!(first.line().starts_with("l/"));
    let second = etcdctl.start("lock l");
    second.assert_silent(Duration::from_millis(300));
    first.interrupt();
    let holder = second.line();
    assert_eq!(etcdctl.run("get --prefix l/ --keys-only"), holder);
}

#[test]
fn leader_is_elected_on_an_empty_store_and_observed() {
    let Some(scene) = scene("leader_is_elected_on_an_empty_store_and_observed", None) else { return };
    let Scene { etcdctl, .. } = &scene;
    let first = etcdctl.start("elect e one");
    assert!(first.line().starts_with("e/"));
    assert_eq!(first.line(), "one");
    let observer = etcdctl.start("elect --listen e");
    assert!(observer.line().starts_with("e/"));
    assert_eq!(observer.line(), "one");
    let _second = etcdctl.start("elect e two");
    first.interrupt();
    assert!(observer.line().starts_with("e/"));
    assert_eq!(observer.line(), "two");
}

#[test]
fn cluster_is_described() {
    let Some(scene) = scene("cluster_is_described", None) else { return };
    let Scene { etcdctl, store, .. } = &scene;
    let address = store.address;
    let members = etcdctl.run("member list");
    assert_eq!(members, format!("7, started, node-1, , http://{address}, false"));
    let status = etcdctl.run("endpoint status");
    assert!(status.starts_with(&format!("http://{address}, 7, 3.5.21,")) && status.contains("true"), "{status}");
    assert!(etcdctl.run("endpoint hashkv").contains(", "));
    etcdctl.expect(&[("alarm list", ""), ("put k v", "OK")]);
    assert!(etcdctl.run("defrag").starts_with("Finished defragmenting"));
    let folder = runs::temp_dir();
    let file = folder.path().join("snapshot");
    let saved = etcdctl.run(&format!("snapshot save {}", file.display()));
    assert!(saved.contains("Snapshot saved at"), "{saved}");
    assert_eq!(std::fs::metadata(file).unwrap().len(), 512 + 32);
    store.set_headless(true);
    assert!(etcdctl.run("endpoint health --command-timeout=2s").contains("unhealthy"));
}

#[test]
fn more_changes_than_fit_a_message_are_watched_in_order() {
    let Some(scene) = scene("more_changes_than_fit_a_message_are_watched_in_order", None) else { return };
    let Scene { etcdctl, .. } = &scene;
    let numbers = 0..300;
    let puts: String = numbers.clone().map(|number| format!("put w/{number} {number}\n")).collect();
    // A transaction takes 128 requests, and each command one transaction.
    for puts in puts.lines().collect::<Vec<_>>().chunks(100) {
        let text = etcdctl.run_with("txn", &format!("\n{}\n\n\n", puts.join("\n")));
        assert!(text.starts_with("SUCCESS"), "{text}");
    }
    let watch = etcdctl.start("watch --prefix w/ --rev=2");
    for number in numbers {
        assert_eq!(watch.lines(), ["PUT".to_owned(), format!("w/{number}"), number.to_string()]);
    }
}

#[test]
fn password_of_a_user_is_a_token() {
    let app = Permissions { scope: None, keys: vec![KeyGrant::new("app/", KeyAccess::Write)] };
    let tokens = vec![
        Token::new("deploy", Scope::Operate, "correct-horse-battery"),
        Token::new("prometheus", Scope::Read, "staple-correct-horse"),
        Token::new("app", app, "battery-staple-horse"),
    ];
    let tokens = Some(Tokens::new(tokens));
    let Some(scene) = scene("password_of_a_user_is_a_token", tokens) else { return };
    let Scene { etcdctl, .. } = &scene;
    let steps = [
        ("put k v --user=any:correct-horse-battery", "OK"),
        ("get k --user=any:correct-horse-battery", "k\nv"),
        ("put app/k v --user=any:battery-staple-horse", "OK"),
        ("get --prefix app/ --user=any:battery-staple-horse", "app/k\nv"),
        ("lock app/lock echo held --user=any:battery-staple-horse", "held"),
    ];
    etcdctl.expect(&steps);
    let cases = [
        ("get k", "etcdserver: user name is empty"),
        ("get k --user=any:wrong", "etcdserver: authentication failed, invalid user ID or password"),
        ("get k --user=any:staple-correct-horse", "etcdserver: permission denied"),
        ("get k --user=any:battery-staple-horse", "etcdserver: permission denied"),
        ("watch k --user=any:battery-staple-horse", "etcdserver: permission denied"),
        ("lock lock echo held --user=any:battery-staple-horse", "etcdserver: permission denied"),
        ("member list --user=any:battery-staple-horse", "node-1"),
        ("snapshot save /dev/null --user=any:battery-staple-horse", "etcdserver: permission denied"),
    ];
    etcdctl.expect_part(&cases);
}
