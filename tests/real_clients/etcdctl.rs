//! etcdctl on a store of three voters. `tests/etcd` has its other commands and its errors, on a store in memory.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use crate::support::{
    certificates::Authority,
    etcdctl::{Etcdctl, is_installed},
    run,
    voters::Voters,
};

/// Returns the second word: the id of a granted lease.
fn second_word(text: &str) -> String {
    text.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn etcdctl_reads_and_writes_through_all_voters() {
    if !is_installed("etcdctl_reads_and_writes_through_all_voters") {
        return;
    }
    let voters = Voters::start();
    let addresses = [0, 1, 2].map(|at| voters.etcd(at));
    let each = addresses.map(|address| Etcdctl::on(&[address]));
    let (all, first) = (Etcdctl::on(&addresses), &each[0]);
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
        each[at % 3].expect(&[(arguments, expected)]);
    }
    let transaction = "value(\"a/1\") = \"last\"\n\nput a/3 three\nget a/3\n\nget a/1\n\n";
    assert_eq!(first.run_with("txn", transaction), "SUCCESS\n\nOK\n\na/3\nthree");
    assert_eq!(each[1].run_with("txn", &transaction.replace("last", "other")), "FAILURE\n\na/1\nlast");

    let members = first.run("member list");
    assert!((0..3).all(|at| members.contains(&format!(", started, host-{at}, "))), "{members}");
    let health = all.run("endpoint health");
    assert_eq!(health.matches("is healthy: successfully committed proposal").count(), 3, "{health}");
    assert!(first.run("endpoint health --cluster").contains("is healthy"));
    let status = all.run("endpoint status");
    assert_eq!((status.lines().count(), status.matches(", 3.5.21, ").count()), (3, 3), "{status}");
    assert!(first.run("endpoint status --cluster").contains(", 3.5.21, "));
    let hashes = all.run("endpoint hashkv");
    let hashes: Vec<&str> = hashes.lines().map(|line| line.split(", ").nth(1).unwrap()).collect();
    assert_eq!(hashes, [hashes[0]; 3]);
    let folder = run::temp_dir();
    let file = folder.path().join("snapshot");
    assert!(first.run(&format!("snapshot save {}", file.display())).contains("Snapshot saved at"));
    assert_eq!(fs::metadata(file).unwrap().len() % 512, 32);
}

#[test]
fn etcdctl_keeps_leases_locks_and_watches_without_the_leader() {
    if !is_installed("etcdctl_keeps_leases_locks_and_watches_without_the_leader") {
        return;
    }
    let mut voters = Voters::start();
    let leader = voters.wait_for_leader();
    // Commands run on the voters that stay.
    let addresses: Vec<SocketAddr> = (0..3).filter(|at| *at != leader).map(|at| voters.etcd(at)).collect();
    let (stay, one, other) = (Etcdctl::on(&addresses), Etcdctl::on(&addresses[..1]), Etcdctl::on(&addresses[1..]));
    let lease = second_word(&stay.run("lease grant 60"));
    assert_eq!(stay.run(&format!("put leased v --lease={lease}")), "OK");
    let watch = one.start("watch --prefix w/ --rev=1");
    let holder = one.start("lock l");
    let key = holder.line();
    assert!(key.starts_with("l/"), "{key}");
    let waiting = other.start("lock l");
    let campaign = one.start("elect e one");
    let elected = campaign.line();
    assert!(elected.starts_with("e/"), "{elected}");
    assert_eq!(campaign.line(), "one");
    assert_eq!(stay.run("put w/1 1"), "OK");
    assert_eq!(watch.lines(), ["PUT", "w/1", "1"]);

    voters.kill(leader);
    assert_eq!(stay.run("put w/2 2 --command-timeout=20s"), "OK");
    assert_eq!(watch.lines(), ["PUT", "w/2", "2"]);
    let left = stay.run(&format!("lease timetolive {lease} --keys"));
    assert!(left.contains("granted with TTL(60s)") && left.ends_with("attached keys([leased])"), "{left}");
    assert_eq!(stay.run(&format!("lease keep-alive --once {lease}")), format!("lease {lease} keepalived with TTL(60)"));
    waiting.assert_silent(Duration::from_millis(300));
    assert!(stay.run("get --prefix l/ --keys-only").contains(&key), "the lock of {key} is lost");
    holder.interrupt();
    assert!(waiting.line().starts_with("l/"));
    let observer = other.start("elect --listen e");
    assert_eq!((observer.line(), observer.line()), (elected, "one".to_owned()));
    let _next = other.start("elect e two");
    campaign.interrupt();
    assert!(observer.line().starts_with("e/"));
    assert_eq!(observer.line(), "two");
    assert_eq!(stay.run(&format!("lease revoke {lease}")), format!("lease {lease} revoked"));
    assert_eq!(stay.run("get leased"), "");
}

#[test]
fn etcdctl_checks_the_certificate() {
    if !is_installed("etcdctl_checks_the_certificate") {
        return;
    }
    let authority = Authority::generate();
    let certify = |folder: &Path| authority.certify(folder, &["127.0.0.1"]);
    let voters = Voters::start_with(", certificate: cert.pem, key: key.pem", certify);
    let ca = voters.agent(0).path("ca.pem");
    let each = [0, 1, 2].map(|at| Etcdctl::with_tls(&[voters.etcd(at)], Some(&ca)));
    each[0].expect(&[("put k v", "OK")]);
    each[1].expect(&[("get k", "k\nv")]);
    each[2].expect(&[("lock l echo held", "held")]);
    each[0].expect_part(&[("endpoint status", ", 3.5.21, ")]);
    Etcdctl::with_tls(&[voters.etcd(0)], None).expect_part(&[("put k w --command-timeout=2s", "Error")]);
    each[0].expect(&[("get k", "k\nv")]);
}
