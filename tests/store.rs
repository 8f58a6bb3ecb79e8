//! The store in a cluster of agents: keys on every node, crashes and restarts of voters, upgrades, and discovery without the store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{
    agent::Agent,
    cluster::{Cluster, Host, Setup},
    http::{Answer, ask, try_ask},
    skip,
    wait::until,
};

const A: u16 = 1;
/// The API of every host, within its namespace.
const API: ([u8; 4], u16) = ([127, 0, 0, 1], 8500);

fn on(host: &Host, method: &str, path: &str, body: &str) -> Option<Answer> {
    host.namespace.enter(|| try_ask(API.into(), method, path, body))
}

fn value(host: &Host, key: &str) -> Option<String> {
    let answer = on(host, "GET", &format!("/v1/kv/{key}?raw"), "")?;
    (answer.status == 200).then_some(answer.body)
}

/// Sets a key, again while there is no leader.
fn set(host: &Host, key: &str, to: &str) {
    until(&format!("{key} is set on {}", host.node), || {
        on(host, "PUT", &format!("/v1/kv/{key}"), to)
            .is_some_and(|answer| answer.status == 200 && answer.body == "true")
    });
}

/// Starts hosts whose configuration names these voters.
fn cluster(hosts: u8, voters: &str) -> Cluster {
    let mut cluster = Cluster::without_agents(hosts);
    for at in 0..usize::from(hosts) {
        cluster.start_agent(at, Setup { lines: format!("store: {{voters: [{voters}]}}\n"), ..Setup::default() });
    }
    cluster
}

/// Position of the host that leads the store.
fn leader(cluster: &Cluster) -> usize {
    let mut found = None;
    until("the store has a leader", || {
        let leader = cluster.hosts.iter().find_map(|host| {
            let answer = on(host, "GET", "/v1/status/leader", "")?;
            let leader: String = serde_json::from_str(&answer.body).ok()?;
            Some(leader.split(':').next()?.to_owned())
        });
        found = leader.and_then(|leader| cluster.hosts.iter().position(|host| host.address.to_string() == leader));
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn keys_survive_crashes_and_restarts_of_voters() {
    if !skip::namespaces("the store in a cluster") {
        return;
    }
    let mut cluster = cluster(4, "n1, n2, n3");
    set(&cluster.hosts[3], "color", "red");
    for host in &cluster.hosts {
        until("every host reads the key", || value(host, "color").as_deref() == Some("red"));
    }
    // A crash of the leader, while another host writes.
    let first = leader(&cluster);
    cluster.hosts[first].agent().signal(Signal::SIGKILL);
    cluster.hosts[first].agent_mut().wait();
    let began = Instant::now();
    set(&cluster.hosts[3], "after-crash", "1");
    println!("writes go on {:?} after the crash of the leader", began.elapsed());
    cluster.hosts[first].start_again();
    cluster.hosts[first].agent_mut().wait_until_answering();
    until("the crashed voter reads what it missed", || {
        value(&cluster.hosts[first], "after-crash").as_deref() == Some("1")
    });
    // All voters restart at once.
    for at in 0..3 {
        cluster.hosts[at].agent().signal(Signal::SIGKILL);
        cluster.hosts[at].agent_mut().wait();
    }
    for at in 0..3 {
        cluster.hosts[at].start_again();
    }
    until("keys are read after a restart of all voters", || {
        value(&cluster.hosts[3], "color").as_deref() == Some("red")
    });
    cluster.converge();
}

#[test]
fn reload_and_upgrade_keep_the_store() {
    let mut agent = Agent::start_with("store: {voters: [host-a]}\n", &[], |_| {});
    until("the store takes a key", || ask(agent.http(), "PUT", "/v1/kv/key", "kept").body == "true");
    let term = || metric(&agent, "muster_store_term");
    until("the metrics have the term", || term().is_some());
    let before = term();
    // A reload that starts all stages again leaves the store alone.
    let path = agent.path("muster.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}zone: here\n")).unwrap();
    assert_eq!(ask(agent.http(), "PUT", "/v1/agent/reload", "").status, 200);
    until("the API answers after the reload", || {
        try_ask(agent.http(), "GET", "/v1/kv/key?raw", "").is_some_and(|answer| answer.body == "kept")
    });
    assert_eq!(term(), before);
    agent.signal(Signal::SIGUSR2);
    agent.wait_for_log("upgraded in place");
    until("the key is read after the upgrade", || {
        try_ask(agent.http(), "GET", "/v1/kv/key?raw", "").is_some_and(|answer| answer.body == "kept")
    });
}

#[test]
fn discovery_is_as_before_without_any_voter() {
    let config = "store: {voters: [far-a, far-b, far-c], etcd: {listen: [127.0.0.1:0]}}\n";
    let agent = Agent::start_with(config, &[], |_| {});
    // Writes and reads wait for a voter meanwhile.
    let waiting: Vec<_> =
        ["PUT", "GET", "DELETE"].map(|method| support::http::begin(agent.http(), method, "/v1/kv/key", "", "")).into();
    agent.write_service("web.yaml", "service: web\nport: 80\n");
    agent.wait_for_answers("web.service.local.", A, &["A 10.0.0.7"]);
    let body = r#"{"Name": "api", "Port": 81}"#;
    assert_eq!(ask(agent.http(), "PUT", "/v1/agent/service/register", body).status, 200);
    agent.wait_for_answers("api.service.local.", A, &["A 10.0.0.7"]);
    let health: Value = ask(agent.http(), "GET", "/v1/health/service/api?passing", "").json();
    assert_eq!(health.as_array().unwrap().len(), 1);
    let began = Instant::now();
    for pending in waiting {
        let answer = pending.answer();
        assert_eq!(answer.status, 500, "{}", answer.body);
        assert!(answer.body.starts_with("No cluster leader"), "{}", answer.body);
    }
    assert!(began.elapsed() < Duration::from_secs(30), "requests end by themselves");
    assert_eq!(ask(agent.http(), "GET", "/v1/status/leader", "").json(), Value::from(""));
}

/// Returns the value of a metric of this node.
fn metric(agent: &Agent, name: &str) -> Option<String> {
    let metrics = ask(agent.http(), "GET", "/v1/agent/metrics?format=prometheus", "").body;
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned))
}

#[test]
fn full_store_is_logged_until_it_has_room() {
    let mut agent = Agent::start_with("store: {voters: [host-a], max_size: 16MiB}\n", &[], |_| {});
    until("the store takes a key", || ask(agent.http(), "PUT", "/v1/kv/key", "kept").body == "true");
    let large = "x".repeat(500_000);
    let put = |at: usize| ask(agent.http(), "PUT", &format!("/v1/kv/large/{at}"), &large).status;
    let refused = (0..64).map(put).filter(|status| *status == 507).count();
    assert!(refused > 1, "{refused} writes were refused");
    agent.wait_for_log("store: full");
    assert_eq!(ask(agent.http(), "DELETE", "/v1/kv/large?recurse", "").body, "true");
    agent.wait_for_log("store: no longer full");
    assert_eq!(ask(agent.http(), "PUT", "/v1/kv/large/again", &large).body, "true");
    assert_eq!(agent.log().matches("store: full").count(), 1, "{}", agent.log());
}

#[test]
fn voter_that_cannot_open_its_log_has_a_metric_and_returns_by_itself() {
    let agent = Agent::start_with("store: {voters: [host-a]}\n", &[], |folder| {
        std::fs::create_dir_all(folder.join("data/store")).unwrap();
        std::fs::write(folder.join("data/store/id"), "damaged").unwrap();
    });
    let failed = || metric(&agent, "muster_store_failed");
    until("the failure in the metrics", || failed().as_deref() == Some("1"));
    assert_eq!(metric(&agent, "muster_store_has_leader"), None);
    std::fs::remove_dir_all(agent.path("data/store")).unwrap();
    until("the voter returns", || failed().as_deref() == Some("0"));
    assert_eq!(metric(&agent, "muster_store_has_leader").as_deref(), Some("1"));
}

/// A mistaken `store.voters` on a new node: its clients would use another store.
#[test]
fn node_that_joins_a_cluster_with_a_store_founds_no_second_one() {
    let start = |node: &str, join: &str| {
        Agent::start_as(&[], &[], |folder| {
            let config = format!(
                "node: {node}\nadvertise: 127.0.0.1\ndata_dir: data\nservices_dir: services.d\nzones_dir: zones\n\
                 dns: {{listen: [127.0.0.1:0]}}\nhttp: {{listen: [127.0.0.1:0]}}\nresolver: {{allow: []}}\n\
                 gossip: {{listen: 127.0.0.1:0, join: [{join}]}}\nstore: {{voters: [{node}]}}\n"
            );
            std::fs::write(folder.join("muster.yaml"), config).unwrap();
        })
    };
    let first = start("host-a", "");
    until("a store", || ask(first.http(), "PUT", "/v1/kv/key", "of the first").status == 200);
    let seed = format!("\"{}\"", first.gossip());
    for node in ["host-b", "host-c", "host-d"] {
        let agent = start(node, &seed);
        until("the refusal", || agent.log().contains("not founding a second store"));
        assert!(!agent.log().contains("founding the cluster"), "{}", agent.log());
    }
}
