//! etcdctl on a store of three voters. `tests/etcd` has its other commands and its errors, on a store in memory.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::Receiver,
};

use nix::sys::signal::{Signal, kill};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::support::{
    process::{self, Finish},
    run, skip,
    voters::Voters,
    wait::DEADLINE,
};

/// Returns a command on these endpoints. Words of `arguments` are separated by spaces.
fn etcdctl(endpoints: &[SocketAddr], arguments: &str) -> Command {
    let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
    let mut command = process::command("etcdctl");
    command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", endpoints.join(",")));
    command.args(arguments.split_whitespace());
    command
}

/// Runs a command and returns what it prints.
#[track_caller]
fn print(endpoints: &[SocketAddr], arguments: &str) -> String {
    let output = etcdctl(endpoints, arguments).finish();
    let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).trim().to_owned());
    assert!(output.status.success(), "etcdctl {arguments}: {text:?}");
    // `endpoint health` prints to standard error.
    if text[0].is_empty() { text[1].clone() } else { text[0].clone() }
}

/// Command that keeps running, and its lines.
struct Running {
    program: process::Owned,
    lines: Receiver<String>,
}

impl Running {
    fn start(endpoints: &[SocketAddr], arguments: &str) -> Self {
        let mut child = etcdctl(endpoints, arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = process::lines(child.stdout.take().unwrap());
        Self { program: process::Owned(child), lines }
    }

    #[track_caller]
    fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("a line in time")
    }

    /// Ends the command as Ctrl-C does.
    fn interrupt(&self) {
        kill(process::pid(&self.program.0), Signal::SIGINT).unwrap();
    }
}

/// Returns the second word: the id of a granted lease.
fn second_word(text: &str) -> String {
    text.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn etcdctl_reads_and_writes_through_all_voters() {
    if !skip::tool("etcdctl_reads_and_writes_through_all_voters", "etcdctl", "etcd-client") {
        return;
    }
    let voters = Voters::start();
    let all = [0, 1, 2].map(|at| voters.etcd(at));
    // Each command runs on the next voter.
    let steps = [
        ("put a/1 one", "OK"),
        ("get a/1", "a/1\none"),
        ("put a/2 two", "OK"),
        ("get --prefix a/", "a/1\none\na/2\ntwo"),
        ("put b three", "OK"),
        ("get a/1 b --keys-only", "a/1\n\na/2"),
        ("put a/1 again --prev-kv", "OK\na/1\none"),
        ("get a/1 --rev=2", "a/1\none"),
        ("get --from-key a/2", "a/2\ntwo\nb\nthree"),
        ("compact 4", "compacted revision 4"),
        ("del a/2 --prev-kv", "1\na/2\ntwo"),
        ("get --prefix a/", "a/1\nagain"),
        ("lock l echo held", "held"),
        ("alarm list", ""),
        ("put a/1 last", "OK"),
        ("get a/1 --consistency=l", "a/1\nlast"),
    ];
    for (at, (arguments, expected)) in steps.iter().enumerate() {
        assert_eq!(print(&all[at % 3..][..1], arguments), *expected, "etcdctl {arguments}");
    }
    let transaction = "value(\"a/1\") = \"last\"\n\nput a/3 three\nget a/3\n\nget a/1\n\n";
    let output = etcdctl(&all[..1], "txn").finish_with(transaction);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "SUCCESS\n\nOK\n\na/3\nthree");
    let output = etcdctl(&all[1..2], "txn").finish_with(&transaction.replace("last", "other"));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "FAILURE\n\na/1\nlast");

    let members = print(&all[..1], "member list");
    assert!((0..3).all(|at| members.contains(&format!(", started, host-{at}, "))), "{members}");
    let health = print(&all, "endpoint health");
    assert_eq!(health.matches("is healthy: successfully committed proposal").count(), 3, "{health}");
    assert!(print(&all[..1], "endpoint health --cluster").contains("is healthy"));
    let status = print(&all, "endpoint status");
    assert_eq!((status.lines().count(), status.matches(", 3.5.21, ").count()), (3, 3), "{status}");
    assert!(print(&all[..1], "endpoint status --cluster").contains(", 3.5.21, "));
    let hashes = print(&all, "endpoint hashkv");
    let hashes: Vec<&str> = hashes.lines().map(|line| line.split(", ").nth(1).unwrap()).collect();
    assert_eq!(hashes, [hashes[0]; 3]);
    let folder = run::temp_dir();
    let file = folder.path().join("snapshot");
    assert!(print(&all[..1], &format!("snapshot save {}", file.display())).contains("Snapshot saved at"));
    assert_eq!(fs::metadata(file).unwrap().len() % 512, 32);
}

#[test]
fn etcdctl_keeps_leases_locks_and_watches_without_the_leader() {
    if !skip::tool("etcdctl_keeps_leases_locks_and_watches_without_the_leader", "etcdctl", "etcd-client") {
        return;
    }
    let mut voters = Voters::start();
    let leader = voters.wait_for_leader();
    // Commands run on the voters that stay.
    let stay: Vec<SocketAddr> = (0..3).filter(|at| *at != leader).map(|at| voters.etcd(at)).collect();
    let lease = second_word(&print(&stay, "lease grant 60"));
    assert_eq!(print(&stay, &format!("put leased v --lease={lease}")), "OK");
    let watch = Running::start(&stay[..1], "watch --prefix w/ --rev=1");
    let holder = Running::start(&stay[..1], "lock l");
    let key = holder.line();
    assert!(key.starts_with("l/"), "{key}");
    let waiting = Running::start(&stay[1..], "lock l");
    let campaign = Running::start(&stay[..1], "elect e one");
    let elected = campaign.line();
    assert!(elected.starts_with("e/"), "{elected}");
    assert_eq!(campaign.line(), "one");
    assert_eq!(print(&stay, "put w/1 1"), "OK");
    assert_eq!([watch.line(), watch.line(), watch.line()], ["PUT", "w/1", "1"]);

    voters.kill(leader);
    assert_eq!(print(&stay, "put w/2 2 --command-timeout=20s"), "OK");
    assert_eq!([watch.line(), watch.line(), watch.line()], ["PUT", "w/2", "2"]);
    let left = print(&stay, &format!("lease timetolive {lease} --keys"));
    assert!(left.contains("granted with TTL(60s)") && left.ends_with("attached keys([leased])"), "{left}");
    assert_eq!(
        print(&stay, &format!("lease keep-alive --once {lease}")),
        format!("lease {lease} keepalived with TTL(60)")
    );
    assert!(waiting.lines.try_recv().is_err(), "two holders");
    assert!(print(&stay, "get --prefix l/ --keys-only").contains(&key), "the lock of {key} is lost");
    holder.interrupt();
    assert!(waiting.line().starts_with("l/"));
    let observer = Running::start(&stay[1..], "elect --listen e");
    assert_eq!((observer.line(), observer.line()), (elected, "one".to_owned()));
    let _next = Running::start(&stay[1..], "elect e two");
    campaign.interrupt();
    assert!(observer.line().starts_with("e/"));
    assert_eq!(observer.line(), "two");
    assert_eq!(print(&stay, &format!("lease revoke {lease}")), format!("lease {lease} revoked"));
    assert_eq!(print(&stay, "get leased"), "");
}

/// Writes a certificate for 127.0.0.1, its key, and the certificate of its authority.
fn certify(folder: &Path, authority: &CertifiedIssuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
}

#[test]
fn etcdctl_checks_the_certificate() {
    if !skip::tool("etcdctl_checks_the_certificate", "etcdctl", "etcd-client") {
        return;
    }
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let voters = Voters::start_with(", certificate: cert.pem, key: key.pem", |folder| certify(folder, &authority));
    let ca = format!("--cacert={}", voters.agent(0).path("ca.pem").display());
    let run = |at: usize, arguments: &str| {
        let mut command = process::command("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints=https://{}", voters.etcd(at)));
        command.args(arguments.split_whitespace()).finish()
    };
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).trim().to_owned();
    for (at, arguments, expected) in [(0, "put k v", "OK"), (1, "get k", "k\nv"), (2, "lock l echo held", "held")] {
        let output = run(at, &format!("{ca} {arguments}"));
        assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
    }
    let output = run(0, &format!("{ca} endpoint status"));
    assert!(text(&output.stdout).contains(", 3.5.21, "), "{}", text(&output.stderr));
    let refused = run(0, "put k w --command-timeout=2s");
    assert!(!refused.status.success(), "{}", text(&refused.stdout));
    assert_eq!(text(&run(0, &format!("{ca} get k")).stdout), "k\nv");
}
