//! Rotation of keys while a node is away: refused, or forced and caught up with.

use std::{fs, process::Output, time::Instant};

use nix::sys::signal::Signal;

use crate::{
    from, names,
    support::{
        cluster::{Cluster, Host, Watch, keygen, wait_until_gone},
        skip,
        wait::until,
    },
};

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|octets| String::from_utf8_lossy(octets).into_owned()).concat()
}

/// Keys of `muster keyring list` without their ids: "5 of 5" nodes with the key, and of those that use it.
fn keys(host: &Host) -> Vec<String> {
    // Its exit status is 1 while a member does not answer.
    let listed = text(&host.muster(&["keyring", "list"]));
    let words = listed.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let keys = words.filter(|words| words[0].len() == 8 && words[0].bytes().all(|octet| octet.is_ascii_hexdigit()));
    keys.map(|words| words[1..].join(" ")).collect()
}

/// Asserts that a command is refused without a change, and that the reason names `missing`.
#[track_caller]
fn is_refused(host: &Host, arguments: &[&str], missing: &str) {
    let refused = host.muster(&[&["keyring"], arguments].concat());
    let shown = text(&refused);
    assert_eq!(refused.status.code(), Some(1), "{shown}");
    assert!(shown.contains("Refused: no node has changed its keys.") && shown.contains(missing), "{shown}");
}

/// Removes the old key, and asserts that the cluster is whole with the new one alone.
fn remove_old_key(cluster: &Cluster, old: &str) {
    cluster.hosts[1].output_of(&["keyring", "remove", old]);
    cluster.converge();
    for host in &cluster.hosts {
        assert_eq!(keys(host), ["5 of 5 5 of 5"], "{}", host.node);
        until("all members are alive", || host.members().values().all(|state| state == "alive"));
    }
}

#[test]
fn rotation_during_a_split_is_refused_and_a_forced_one_is_caught_up_with() {
    if !skip::namespaces("key rotation during a split") {
        return;
    }
    let cluster = Cluster::start(5);
    let (few, many) = cluster.hosts.split_at(1);
    let (away, operator) = (&few[0], &many[0]);
    let many_watched = Watch::start(many, names(&["web-n2", "web-n3", "web-n4", "web-n5"]));
    away.namespace.drop_incoming(&[&from(many)]);
    many.iter().for_each(|host| host.namespace.drop_incoming(&[&from(few)]));
    let (old, new) = (cluster.key.clone(), keygen());
    // Before the split is noticed, and afterwards.
    is_refused(operator, &["install", &new], "n1: ");
    wait_until_gone("web-n1", many);
    is_refused(operator, &["install", &new], "n1: not asked: gone");
    is_refused(away, &["install", &new], "n3: not asked: unreachable, held");
    let shown = operator.output_of(&["keyring", "install", &new, "--force"]);
    assert!(
        shown.contains("the nodes that answered: key installed") && shown.contains("n1: not asked: gone"),
        "{shown}"
    );
    is_refused(operator, &["use", &new], "n1: not asked: gone");
    operator.output_of(&["keyring", "use", &new, "--force"]);
    is_refused(operator, &["remove", &old], "n1: not asked: gone");
    assert_eq!(keys(operator).len(), 2);
    cluster.hosts.iter().for_each(|host| host.namespace.drop_incoming(&[]));
    let healed = Instant::now();
    cluster.converge();
    until("the node that was away uses the new key", || keys(operator).contains(&"5 of 5 5 of 5".to_owned()));
    println!("caught up {:?} after the split", healed.elapsed());
    assert!(away.agent().log().contains("gossip keys taken over"), "{}", away.agent().log());
    until("the new key is on disk", || {
        fs::read_to_string(away.agent().path("data/keyring")).is_ok_and(|stored| stored.contains(&new))
    });
    remove_old_key(&cluster, &old);
    many_watched.finish();
}

#[test]
fn node_that_was_down_during_a_rotation_returns_by_itself() {
    if !skip::namespaces("a node that was down during a key rotation") {
        return;
    }
    let mut cluster = Cluster::start(5);
    let (old, new) = (cluster.key.clone(), keygen());
    let watch = Watch::start(&cluster.hosts[..4], names(&["web-n1", "web-n2", "web-n3", "web-n4"]));
    cluster.hosts[4].agent().signal(Signal::SIGKILL);
    wait_until_gone("web-n5", &cluster.hosts[..4]);
    for step in ["install", "use"] {
        is_refused(&cluster.hosts[0], &[step, &new], "n5: ");
        cluster.hosts[0].output_of(&["keyring", step, &new, "--force"]);
    }
    // Its key file has the old key.
    let started = Instant::now();
    cluster.hosts[4].start_again();
    until("it is answered", || cluster.hosts[0].instances("web").contains("web-n5"));
    until("it uses the new key", || keys(&cluster.hosts[0]).contains(&"5 of 5 5 of 5".to_owned()));
    println!("back with the new key {:?} after the start", started.elapsed());
    // The next start has the new key from the disk.
    cluster.hosts[4].agent().signal(Signal::SIGKILL);
    cluster.hosts[4].start_again();
    cluster.converge();
    remove_old_key(&cluster, &old);

    // A node that misses the removal cannot return. Both sides log why.
    cluster.hosts[4].agent().signal(Signal::SIGKILL);
    wait_until_gone("web-n5", &cluster.hosts[..4]);
    let newer = keygen();
    for arguments in [["install", &newer], ["use", &newer], ["remove", &new]] {
        is_refused(&cluster.hosts[0], &arguments, "n5: not asked: gone");
        cluster.hosts[0].output_of(&["keyring", arguments[0], arguments[1], "--force"]);
    }
    cluster.hosts[4].start_again();
    let hint = "frames sealed with an unknown key: a node missed a rotation";
    until("the cluster logs it", || cluster.hosts[..4].iter().any(|host| host.agent().log().contains(hint)));
    until("the node logs it", || cluster.hosts[4].agent().log().contains(hint));
    // As the message says.
    fs::write(cluster.hosts[4].agent().path("key"), format!("{newer}\n")).unwrap();
    cluster.hosts[4].agent().signal(Signal::SIGKILL);
    cluster.hosts[4].start_again();
    cluster.converge();
    watch.finish();
}
