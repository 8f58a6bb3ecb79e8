//! Dynamic zones: updates by nsupdate, their replication, and what clients see when nodes stop.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

#[path = "updates/clients.rs"]
mod clients;

use std::{fs, thread};

use nix::sys::signal::Signal;
use support::{
    agent::Agent,
    dynamic::{ACME, Cluster, KEY, OTHER, dig, nsupdate, update, write_keys},
    http,
    process::{self, Finish},
    program::free,
    run,
    secondary::{self, Setup, Software},
    skip, wait,
};

fn has_tools(test: &str) -> bool {
    skip::tool(test, "dig", "bind9-dnsutils") && skip::tool(test, "nsupdate", "bind9-dnsutils")
}

fn serial(cluster: &Cluster, at: usize) -> u32 {
    dig(cluster.server(at), "+short SOA dyn.test").split_whitespace().nth(2).unwrap().parse().unwrap()
}

/// One voter, and a node without a log: the "one owner" of a cluster that wants dynamic zones and no full store.
#[test]
fn update_at_any_node_is_answered_by_all() {
    if !has_tools("update_at_any_node_is_answered_by_all") {
        return;
    }
    let cluster = Cluster::start(1, 2, "");
    cluster.wait_for_answers("SOA dyn.test", "host-0.node.service.local. hostmaster.dyn.test. 1 60 10 604800 5\n");
    cluster.wait_for_answers("NS dyn.test", "host-0.node.service.local.\n");
    update(cluster.server(0), "zone dyn.test\nupdate add www.dyn.test 60 A 192.0.2.1");
    // The node that was asked has the update at once.
    assert_eq!(dig(cluster.server(0), "+short A www.dyn.test"), "192.0.2.1\n");
    cluster.wait_for_answers("A www.dyn.test", "192.0.2.1\n");
    // nsupdate finds the zone by SOA queries; over TCP; at the node that keeps no log.
    assert_eq!(nsupdate(cluster.server(1), Some(KEY), &["-v"], "update add a.b.dyn.test 60 TXT hello"), "ok");
    assert_eq!(dig(cluster.server(1), "+short TXT a.b.dyn.test"), "\"hello\"\n");
    cluster.wait_for_answers("TXT a.b.dyn.test", "\"hello\"\n");
    assert_eq!([serial(&cluster, 0), serial(&cluster, 1)], [3, 3]);
    // A name between others exists without records.
    assert!(dig(cluster.server(0), "A b.dyn.test").contains("status: NOERROR"));
    update(cluster.server(1), "update delete www.dyn.test A");
    cluster.wait_for_answers("A www.dyn.test", "");
    assert!(dig(cluster.server(0), "A www.dyn.test").contains("status: NXDOMAIN"));
    update(cluster.server(1), "update add 1.2.0.192.in-addr.arpa 60 PTR www.dyn.test");
    cluster.wait_for_answers("-x 192.0.2.1", "www.dyn.test.\n");
    let http = format!("http://{}", cluster.agent(1).http());
    let explained = process::muster().args(["explain", "a.b.dyn.test", "--http-addr", &http]).finish();
    let explained = String::from_utf8(explained.stdout).unwrap();
    assert!(explained.contains("an update of the dynamic zone dyn.test. defines this name"), "{explained}");
    // An update without an effect does not change the serial.
    update(cluster.server(0), "update add a.b.dyn.test 60 TXT hello");
    assert_eq!(serial(&cluster, 0), 4);
    let metrics = http::ask(cluster.agent(1).http(), "GET", "/metrics", "").body;
    for (zone, changed) in [("dyn.test.", 2), ("2.0.192.in-addr.arpa.", 1)] {
        let expected = format!("muster_zone_updates_total{{zone=\"{zone}\",outcome=\"changed\"}} {changed}\n");
        assert!(metrics.contains(&expected), "{expected}: {metrics}");
    }
    assert!(!cluster.agent(0).log().contains(KEY.secret));
}

#[test]
fn updates_are_refused_with_the_code_of_their_fault() {
    if !has_tools("updates_are_refused_with_the_code_of_their_fault") {
        return;
    }
    let cluster = Cluster::start(1, 1, "");
    update(
        cluster.server(0),
        "update add www.dyn.test 60 A 192.0.2.1\nupdate add alias.dyn.test 60 CNAME www.dyn.test.",
    );
    let add = "update add x.dyn.test 60 A 192.0.2.9";
    let with = |prerequisite: &str| format!("prereq {prerequisite}\nupdate add y.dyn.test 60 A 192.0.2.9");
    let cases = [
        (None, "zone dyn.test\n", add, "REFUSED"),
        (Some(OTHER), "", add, "REFUSED"),
        (Some(ACME), "", add, "REFUSED"),
        (Some(ACME), "", "update add _acme-challenge.dyn.test 60 CNAME www.dyn.test.", "REFUSED"),
        (Some(ACME), "", "update add _acme-challenge.dyn.test 60 TXT token", "ok"),
        (Some(ACME), "", "update add _acme-challenge.www.dyn.test 60 TXT token", "ok"),
        (Some(ACME), "", "update delete _acme-challenge.dyn.test", "ok"),
        (Some(ACME), "", "update delete www.dyn.test", "REFUSED"),
        (Some(KEY), "zone service.local\n", "update add x.service.local 60 A 192.0.2.9", "REFUSED"),
        (Some(KEY), "zone nowhere.test\n", "update add x.nowhere.test 60 A 192.0.2.9", "NOTAUTH"),
        (Some(KEY), "zone dyn.test\n", "update add x.other.test 60 A 192.0.2.9", "NOTZONE"),
        (Some(KEY), "", &with("nxdomain www.dyn.test"), "YXDOMAIN"),
        (Some(KEY), "", &with("yxdomain none.dyn.test"), "NXDOMAIN"),
        (Some(KEY), "", &with("nxrrset www.dyn.test A"), "YXRRSET"),
        (Some(KEY), "", &with("yxrrset www.dyn.test TXT"), "NXRRSET"),
        (Some(KEY), "", &with("yxrrset www.dyn.test A 192.0.2.2"), "NXRRSET"),
        (Some(KEY), "", &with("yxrrset www.dyn.test A 192.0.2.1"), "ok"),
        // As in BIND: records that exclude each other are left out without an error.
        (Some(KEY), "", "update add alias.dyn.test 60 A 192.0.2.9", "ok"),
        (Some(KEY), "", "update delete dyn.test SOA", "ok"),
    ];
    for (key, zone, commands, expected) in cases {
        for options in [&[][..], &["-v"]] {
            let found = nsupdate(cluster.server(0), key, options, &format!("{zone}{commands}"));
            assert_eq!(found, expected, "{key:?} {commands}");
        }
    }
    assert_eq!(dig(cluster.server(0), "+short A x.dyn.test"), "");
    assert_eq!(dig(cluster.server(0), "+short A y.dyn.test"), "192.0.2.9\n");
    assert_eq!(dig(cluster.server(0), "+short A alias.dyn.test"), "www.dyn.test.\n192.0.2.1\n");
    let wrong = secondary::Key { secret: OTHER.secret, ..KEY };
    let found = nsupdate(cluster.server(0), Some(wrong), &[], &format!("zone dyn.test\n{add}"));
    assert!(found.contains("NOTAUTH(BADSIG)"), "{found}");
    let log = cluster.agent(0).log();
    for reason in ["it is not signed with a TSIG key", "the key may not change CNAME of _acme-challenge.dyn.test."] {
        assert!(log.contains(reason), "{reason}: {log}");
    }
}

/// An operator makes a static zone dynamic: its file is the content until the first update, and not read again.
#[test]
fn zone_file_is_the_first_content() {
    if !has_tools("zone_file_is_the_first_content") {
        return;
    }
    let mut cluster = Cluster::start(1, 2, "");
    let file = "$TTL 300\n@ SOA ns hostmaster 2026113000 60 10 604800 5\n@ NS ns\nns A 192.0.2.1\n*.w TXT \"any\"\n";
    // At the node that keeps no log.
    fs::write(cluster.agent(1).path("zones/dyn.test.zone"), file).unwrap();
    cluster.wait_for_answers("SOA dyn.test", "ns.dyn.test. hostmaster.dyn.test. 2026113000 60 10 604800 5\n");
    cluster.wait_for_answers("TXT a.w.dyn.test", "\"any\"\n");
    assert!(cluster.agent(1).log().contains("zone file is the first content of the dynamic zone"));
    update(cluster.server(0), "update delete ns.dyn.test A\nupdate add ns.dyn.test 300 A 192.0.2.2");
    cluster.wait_for_answers("A ns.dyn.test", "192.0.2.2\n");
    assert_eq!(serial(&cluster, 1), 2_026_113_001);
    // The other zone was updated before.
    update(cluster.server(0), "update add 1.2.0.192.in-addr.arpa 60 PTR www.dyn.test");
    fs::write(cluster.agent(1).path("zones/2.0.192.in-addr.arpa.zone"), file).unwrap();
    fs::write(cluster.agent(1).path("zones/dyn.test.zone"), file.replace("3000 60", "3009 60")).unwrap();
    cluster.agent_mut(1).wait_for_log("zone file is not used: the zone is in `dns.dynamic`, and has content");
    cluster.agent(1).signal(Signal::SIGTERM);
    cluster.agent_mut(1).start_again();
    cluster.agent_mut(1).wait_until_answering();
    cluster.wait_for_answers("A ns.dyn.test", "192.0.2.2\n");
    assert_eq!(dig(cluster.server(1), "+short -x 192.0.2.1"), "www.dyn.test.\n");
    assert_eq!(serial(&cluster, 1), 2_026_113_001);
}

/// An update that arrives right behind the start does not keep the records of the file out.
#[test]
fn update_follows_the_zone_file_of_its_node() {
    if !has_tools("update_follows_the_zone_file_of_its_node") {
        return;
    }
    let config = "dns: {listen: [127.0.0.1:0], keys_dir: tsig, dynamic: [{zone: dyn.test, keys: [{key: ddns}]}]}\n\
                  store: {voters: [host-a]}\n";
    let agent = Agent::start_with(config, &[], |folder| {
        write_keys(folder);
        let file = "$TTL 300\n@ SOA ns hostmaster 7 60 10 604800 5\n@ NS ns\nns A 192.0.2.1\nwww A 192.0.2.2\n";
        fs::write(folder.join("zones/dyn.test.zone"), file).unwrap();
    });
    let commands = "zone dyn.test\nprereq yxrrset www.dyn.test A 192.0.2.2\nupdate add new.dyn.test 60 A 192.0.2.3";
    wait::until_equal("the update", "ok", || nsupdate(agent.address(), Some(KEY), &[], commands));
    let answers = ["A www.dyn.test", "A new.dyn.test", "SOA dyn.test"]
        .map(|question| dig(agent.address(), &format!("+short {question}")));
    assert_eq!(answers, ["192.0.2.2\n", "192.0.2.3\n", "ns.dyn.test. hostmaster.dyn.test. 8 60 10 604800 5\n"]);
}

/// An update of many records needs TCP, and more than one read.
#[test]
fn long_update_is_one_change() {
    if !has_tools("long_update_is_one_change") {
        return;
    }
    let cluster = Cluster::start(1, 1, "");
    let commands: String =
        (0..1000).map(|at| format!("update add h{at}.dyn.test 60 A 192.0.2.{}\n", at % 250)).collect();
    update(cluster.server(0), &commands);
    assert_eq!(dig(cluster.server(0), "+short A h999.dyn.test"), "192.0.2.249\n");
    assert_eq!(serial(&cluster, 0), 2);
}

/// What was acknowledged survives a kill of all nodes right behind the reply, and is in the first answer.
#[test]
fn acknowledged_updates_survive_a_kill() {
    if !has_tools("acknowledged_updates_survive_a_kill") {
        return;
    }
    let mut cluster = Cluster::start(1, 1, "");
    for round in 0..3 {
        let expected: Vec<String> = (0..=round).map(|at| format!("\"{at}\"")).collect();
        update(cluster.server(0), &format!("update add kept.dyn.test 60 TXT {round}"));
        cluster.agent(0).signal(Signal::SIGKILL);
        cluster.agent_mut(0).start_again();
        cluster.agent_mut(0).wait_until_answering();
        let found = || {
            let answer = dig(cluster.server(0), "+short TXT kept.dyn.test");
            let mut lines: Vec<String> = answer.lines().map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        // A store that takes too long on a busy machine is logged.
        if cluster.agent(0).log_of_latest_start().contains("the store does not answer within") {
            wait::until_equal("the records", &expected, found);
        } else {
            assert_eq!(found(), expected, "the first answer");
        }
    }
}

/// A reload, which starts the servers again, keeps the zones and applies changed permissions.
#[test]
fn reload_keeps_the_zones_and_changes_permissions() {
    if !has_tools("reload_keeps_the_zones_and_changes_permissions") {
        return;
    }
    let mut cluster = Cluster::start(1, 1, "");
    update(cluster.server(0), "update add www.dyn.test 60 A 192.0.2.1");
    let denied = "zone dyn.test\nupdate add x.dyn.test 60 TXT text";
    assert_eq!(nsupdate(cluster.server(0), Some(ACME), &[], denied), "REFUSED");
    let path = cluster.agent(0).path("muster.yaml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, config.replace("_acme-challenge.**", "\"**\"")).unwrap();
    cluster.agent(0).signal(Signal::SIGHUP);
    cluster.agent_mut(0).wait_for_log("the changed configuration is active");
    assert_eq!(dig(cluster.server(0), "+short A www.dyn.test"), "192.0.2.1\n");
    wait::until_equal("an update", "ok", || nsupdate(cluster.server(0), Some(ACME), &[], denied));
    assert_eq!(serial(&cluster, 0), 3);
}

/// Without a majority, updates get SERVFAIL and answers go on, also after a restart.
#[test]
fn split_cluster_answers_and_refuses_updates() {
    if !has_tools("split_cluster_answers_and_refuses_updates") {
        return;
    }
    let mut cluster = Cluster::start(3, 4, "");
    update(cluster.server(3), "update add www.dyn.test 60 A 192.0.2.1");
    cluster.wait_for_answers("A www.dyn.test", "192.0.2.1\n");
    for at in [3, 2] {
        let copy = cluster.agent(at).path("data/dynamic-zones");
        wait::until("the copy", || fs::read_to_string(&copy).is_ok_and(|text| text.contains("/www\n")));
    }
    for at in [0, 1] {
        cluster.agent(at).signal(Signal::SIGKILL);
        cluster.agent_mut(at).wait();
    }
    for at in [2, 3] {
        assert_eq!(
            nsupdate(cluster.server(at), Some(KEY), &["-v"], "update add x.dyn.test 60 A 192.0.2.2"),
            "SERVFAIL"
        );
        assert_eq!(dig(cluster.server(at), "+short A www.dyn.test"), "192.0.2.1\n");
    }
    assert!(cluster.agent(3).log().contains("update failed"));
    // The last voter ends as well, and a node restarts that keeps no log.
    cluster.agent(2).signal(Signal::SIGKILL);
    cluster.agent_mut(2).wait();
    cluster.agent(3).signal(Signal::SIGKILL);
    cluster.agent_mut(3).start_again();
    cluster.agent_mut(3).wait_until_answering();
    assert_eq!(dig(cluster.server(3), "+short A www.dyn.test"), "192.0.2.1\n");
    // The voters return: updates do, too.
    for at in [0, 1, 2] {
        cluster.agent_mut(at).start_again();
        cluster.agent_mut(at).wait_until_answering();
    }
    cluster.wait_for_leader();
    wait::until_equal("an update", "ok", || {
        nsupdate(cluster.server(3), Some(KEY), &["-v"], "update add back.dyn.test 60 A 192.0.2.3")
    });
    cluster.wait_for_answers("A back.dyn.test", "192.0.2.3\n");
}

/// Nodes that update the same name at the same time: each update is applied, in one order, and exactly one of those that exclude
/// each other.
#[test]
fn concurrent_updates_of_a_name_are_ordered() {
    const ROUNDS: usize = 10;
    if !has_tools("concurrent_updates_of_a_name_are_ordered") {
        return;
    }
    let cluster = Cluster::start(3, 3, "");
    let outcomes: Vec<Vec<String>> = thread::scope(|scope| {
        let update = |at: usize| {
            let server = cluster.server(at);
            scope.spawn(move || {
                let rounds = (0..ROUNDS).map(|round| {
                    let first = format!("prereq nxdomain r{round}.dyn.test\nupdate add r{round}.dyn.test 60 TXT {at}");
                    let won = nsupdate(server, Some(KEY), &["-v"], &first);
                    let all = format!("update add all.dyn.test 60 TXT {at}-{round}");
                    assert_eq!(nsupdate(server, Some(KEY), &["-v"], &all), "ok");
                    won
                });
                rounds.collect::<Vec<String>>()
            })
        };
        let running: Vec<_> = (0..3).map(update).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for round in 0..ROUNDS {
        let seen: Vec<&str> = outcomes.iter().map(|outcomes| outcomes[round].as_str()).collect();
        assert_eq!(seen.iter().filter(|outcome| **outcome == "ok").count(), 1, "{seen:?}");
        assert_eq!(seen.iter().filter(|outcome| **outcome == "YXDOMAIN").count(), 2, "{seen:?}");
        let winner = seen.iter().position(|outcome| *outcome == "ok").unwrap();
        cluster.wait_for_answers(&format!("TXT r{round}.dyn.test"), &format!("\"{winner}\"\n"));
    }
    for at in 0..3 {
        wait::until_equal("all records", &(3 * ROUNDS), || {
            dig(cluster.server(at), "+tcp +short TXT all.dyn.test").lines().count()
        });
        wait::until_equal("the serial", &(1 + 4 * ROUNDS as u32), || serial(&cluster, at));
    }
}

/// A secondary of all nodes follows a dynamic zone by NOTIFY and IXFR.
#[test]
fn secondary_copies_a_dynamic_zone() {
    let test = "secondary_copies_a_dynamic_zone";
    if !has_tools(test) || !skip::tool(test, "named", "bind9") {
        return;
    }
    let (copy, folder) = (free(), run::temp_dir());
    let cluster = Cluster::start(1, 2, &format!(", transfer: {{allow: [loopback], notify: [\"{copy}\"]}}"));
    let primaries = [cluster.server(1), cluster.server(0)];
    let setup = Setup { listen: copy, primaries: &primaries, zones: &["dyn.test"], key: None };
    let mut bind = secondary::start(Software::Bind, &setup, folder.path());
    bind.wait_for("the SOA", &true, || dig(copy, "+short SOA dyn.test").contains(" 1 60 "));
    for (round, at) in [0, 1, 0, 1].into_iter().enumerate() {
        update(cluster.server(at), &format!("update add h{round}.dyn.test 60 A 192.0.2.{round}"));
        bind.wait_for("the record", &format!("192.0.2.{round}\n"), || {
            dig(copy, &format!("+short A h{round}.dyn.test"))
        });
    }
    update(cluster.server(0), "update delete h0.dyn.test");
    bind.wait_for("the deletion", &String::new(), || dig(copy, "+short A h0.dyn.test"));
    let logs = cluster.agent(0).log() + &cluster.agent(1).log();
    assert!(logs.contains("form=Incremental"), "{logs}");
}

#[test]
fn configuration_of_dynamic_zones_is_checked() {
    let folder = run::temp_dir();
    let path = folder.path().join("muster.yaml");
    let check = |dns: &str, rest: &str| {
        let text = format!("node: host-a\nadvertise: 127.0.0.1\ndata_dir: data\ndns: {{{dns}}}\n{rest}");
        fs::write(&path, text).unwrap();
        let output = process::muster().arg("validate").arg(&path).finish();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let store = "store: {voters: [host-a]}\n";
    let cases = [
        ("dynamic: [{zone: dyn.test, keys: [{key: a}]}]", store, "`dynamic` without `dns.keys_dir`"),
        ("keys_dir: tsig, dynamic: [{zone: dyn.test, keys: [{key: a}]}]", "", "`dynamic` without `store`"),
        (
            "keys_dir: tsig, dynamic: [{zone: service.local, keys: [{key: a}]}]",
            store,
            "has the names of services and nodes",
        ),
        (
            "keys_dir: tsig, dynamic: [{zone: a.test, keys: [{key: a}]}, {zone: A.test, keys: [{key: a}]}]",
            store,
            "duplicate zone `a.test.`",
        ),
        ("keys_dir: tsig, dynamic: [{zone: a.test, keys: []}]", store, "expected at least one key"),
        (
            "keys_dir: tsig, dynamic: [{zone: a.test, keys: [{key: a, types: [WHAT]}]}]",
            store,
            "`WHAT` is not a record type",
        ),
        (
            "keys_dir: tsig, dynamic: [{zone: a.test, keys: [{key: a, names: [b.a.test.]}]}]",
            store,
            "relative to the zone",
        ),
        ("keys_dir: tsig, dynamic: [{zone: a.test, key: a}]", store, "unknown key `key`"),
        ("keys_dir: tsig, dynamic: [{zone: a.test, keys: [{key: a}]}]", store, "no file has the TSIG key `a.`"),
    ];
    fs::create_dir(folder.path().join("tsig")).unwrap();
    for (dns, rest, expected) in cases {
        let printed = check(dns, rest);
        assert!(printed.contains(expected), "{dns}: {printed}");
    }
}
