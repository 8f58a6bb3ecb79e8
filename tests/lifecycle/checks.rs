//! Checks over a restart: stored results, deadlines of TTL checks, and checks of the node.

use std::{fs, thread};

use serde_json::{Value, json};

use super::scene::{SECOND, SRV, Scene};
use crate::support::{
    backend::Backend,
    cluster::{Host, SERVICE, Setup},
    http,
    observer::{Observer, Question},
    skip,
    wait::until,
};

/// Sends a PUT request for a path below `/v1/` to the host's API; it must succeed.
#[track_caller]
pub(crate) fn put(host: &Host, path: &str, body: &Value) {
    let agent = host.agent();
    host.namespace.enter(|| http::put(agent, path, body));
}

/// Registers an instance with a TTL check, and reports it as passing.
pub(crate) fn register_passing(host: &Host, service: &str, ttl: &str) {
    put(host, "agent/service/register", &json!({"Name": service, "Port": 9, "Check": {"TTL": ttl}}));
    put(host, &format!("agent/check/pass/service:{service}"), &Value::Null);
}

/// Question for a service that the host's files define with the port 9.
fn question(service: &str, host: &Host) -> Question {
    let target = format!("{service}-{}.{service}.service.local.", host.node);
    Question::new(&format!("{service}.service.local."), SRV, [format!("SRV 1 10 9 {target}")])
}

/// A check starts as critical and runs every 10 s: without its stored result, the service would be missing for as long.
#[test]
fn passing_check_stays_passing_over_a_planned_restart() {
    if !skip::namespaces("a check over a planned restart") {
        return;
    }
    let mut scene = Scene::start(3);
    let host = &scene.cluster.hosts[1];
    let backend = host.namespace.enter(|| Backend::start(&["backend"]).remove(0));
    let check = format!("{{http: \"http://{}/\", interval: 10s, initial: critical}}", backend.address());
    host.agent().write_service("checked.yaml", &format!("service: checked\nport: 9\nchecks: [{check}]\n"));
    until("all hosts answer the checked service", || {
        scene.cluster.hosts.iter().all(|host| !host.instances("checked").is_empty())
    });
    let hosts = &scene.cluster.hosts;
    let clients = hosts.iter().map(|host| super::scene::client(host, vec![question("checked", &hosts[1])]));
    let observer = Observer::start(clients.collect::<Vec<_>>());
    scene.restart(1, SECOND);
    observer.run_for(12 * SECOND);
    let report = observer.finish();
    report.print("planned restart of a node with an http check, 3 nodes", &["n2"]);
    report.assert_right(&["n2"]);
}

/// The probe does not end, so that the result stays the one of the former process.
#[test]
fn explain_names_a_result_from_before_a_restart() {
    if !skip::namespaces("a result from before a restart") {
        return;
    }
    let mut scene = Scene::start(2);
    let host = &scene.cluster.hosts[1];
    let hangs = host.agent().path("hangs");
    let script = format!("[ ! -e {} ] || exec sleep 60", hangs.display());
    let check = format!("{{exec: [/bin/sh, -c, \"{script}\"], interval: 30s, timeout: 30s, initial: critical}}");
    host.agent().write_service("checked.yaml", &format!("service: checked\nport: 9\nchecks: [{check}]\n"));
    until("the service is answered", || !host.instances("checked").is_empty());
    fs::write(hangs, "").unwrap();
    scene.restart(1, SECOND / 10);
    let explained = scene.cluster.hosts[1].output_of(&["explain", "checked"]);
    assert!(explained.contains("before the restart"), "{explained}");
}

/// The result of a changed check is not that of the former one.
#[test]
fn changed_check_starts_at_its_initial_state_after_a_restart() {
    if !skip::namespaces("a changed check at a restart") {
        return;
    }
    let mut scene = Scene::start(2);
    let host = &scene.cluster.hosts[1];
    let backend = host.namespace.enter(|| Backend::start(&["backend"]).remove(0));
    let file = |path: &str| {
        let check = format!("{{http: \"http://{}{path}\", interval: 60s, initial: critical}}", backend.address());
        format!("service: checked\nport: 9\nchecks: [{check}]\n")
    };
    host.agent().write_service("checked.yaml", &file("/"));
    until("the service is answered", || !host.instances("checked").is_empty());
    scene.announce_restart_and_stop(1);
    let host = &mut scene.cluster.hosts[1];
    host.agent_mut().wait();
    // Nothing listens at this port.
    let changed = "service: checked\nport: 9\nchecks: [{tcp: 127.0.0.1:1, interval: 60s, initial: critical}]\n";
    host.agent().write_service("checked.yaml", changed);
    host.start_again();
    host.agent_mut().wait_until_answering();
    for _ in 0..50 {
        assert!(host.instances("checked").is_empty(), "the former result is used for another check");
        thread::sleep(SECOND / 50);
    }
}

/// The deadline of a TTL check runs on while the agent is away.
#[test]
fn ttl_check_that_expired_while_the_agent_was_away_is_critical() {
    if !skip::namespaces("a TTL check over a restart") {
        return;
    }
    let mut scene = Scene::start_with(3, |_| Setup::default());
    register_passing(&scene.cluster.hosts[1], "short", "4s");
    register_passing(&scene.cluster.hosts[1], "long", "60s");
    for service in ["short", "long"] {
        until("all hosts answer it", || scene.cluster.hosts.iter().all(|host| !host.instances(service).is_empty()));
    }
    scene.announce_restart_and_stop(1);
    scene.cluster.hosts[1].agent_mut().wait();
    thread::sleep(5 * SECOND);
    let host = &mut scene.cluster.hosts[1];
    host.start_again();
    host.agent_mut().wait_until_answering();
    for _ in 0..50 {
        assert!(host.instances("short").is_empty(), "the expired check is passing");
        assert!(!host.instances("long").is_empty(), "the check that has not expired is critical");
        thread::sleep(SECOND / 50);
    }
    let explained = host.muster(&["explain", "short"]);
    assert!(String::from_utf8_lossy(&explained.stdout).contains("critical"));
}

/// Explanations on a peer, and every answer of a peer over restarts of the node, with its checks critical and passing.
#[test]
fn checks_of_a_node_decide_about_its_instances_on_all_peers_over_restarts() {
    if !skip::namespaces("checks of a node") {
        return;
    }
    let mut scene = Scene::start(2);
    let broken = scene.cluster.hosts[1].agent().path("broken");
    let probe = format!("if [ -e {} ]; then echo stale file handle; exit 2; fi", broken.display());
    let of_file = format!("{{exec: [/bin/sh, -c, \"{probe}\"], interval: 1s, fall: 1, rise: 1}}");
    scene.edit_config(1, &[("allow_exec: true", &format!("allow_exec: true, node: {of_file}"))]);
    let host = &scene.cluster.hosts[1];
    let observer = scene.observe();
    host.output_of(&["reload"]);
    put(host, "agent/check/register", &json!({"Name": "Disk", "TTL": "10m", "Status": "passing"}));
    let peer_knows = |scene: &Scene, checks: [&str; 2]| {
        let explained = scene.cluster.hosts[0].output_of(&["explain", "n2.node"]);
        explained.contains(&format!("checks of the node:\n    {}\n    {}\n", checks[0], checks[1]))
    };
    until("both checks pass", || peer_knows(&scene, ["passing exec /bin/sh", "passing Disk"]));
    observer.run_for(2 * SECOND);
    let report = observer.finish();
    report.print("reload with a new check of the node, and registration of one", &[]);
    report.assert_right(&[]);

    for is_registered in [true, false] {
        let turn = |scene: &Scene, is_critical: bool| match (is_registered, is_critical) {
            (true, true) => put(&scene.cluster.hosts[1], "agent/check/fail/Disk?note=100+%25+used", &Value::Null),
            (true, false) => put(&scene.cluster.hosts[1], "agent/check/pass/Disk", &Value::Null),
            (false, true) => fs::write(&broken, "").unwrap(),
            (false, false) => fs::remove_file(&broken).unwrap(),
        };
        let (reason, checks) = match is_registered {
            true => ("Disk: 100 % used", ["passing exec /bin/sh", "critical Disk: 100 % used"]),
            false => (
                "exec /bin/sh: exit 2: stale file handle",
                ["critical exec /bin/sh: exit 2: stale file handle", "passing Disk"],
            ),
        };
        turn(&scene, true);
        let peer = &scene.cluster.hosts[0];
        until("the peer answers no instance of the node", || {
            peer.instances(SERVICE) == [peer.instance()].into() && peer.instances("only-n2").is_empty()
        });
        for (service, id) in [(SERVICE, "web-n2"), ("only-n2", "one")] {
            let explained = peer.output_of(&["explain", service]);
            let lines = [
                format!("- {service}/{id} on n2: node-critical"),
                format!("on a node with a critical check: {reason}"),
            ];
            assert!(lines.iter().all(|line| explained.contains(line)), "{explained}");
        }
        until("the peer knows the checks", || peer_knows(&scene, checks));

        let target = format!("SRV 1 10 80 {}.{SERVICE}.service.local.", peer.instance());
        let web = Question::new(&format!("{SERVICE}.service.local."), SRV, [target]);
        let only = Question::new("only-n2.service.local.", SRV, []);
        let observer = Observer::start([super::scene::client(peer, vec![web, only])]);
        scene.announce_restart_and_stop(1);
        let host = &mut scene.cluster.hosts[1];
        host.agent_mut().wait();
        thread::sleep(SECOND);
        host.start_again();
        host.agent_mut().wait_until_answering();
        until("the peer has the node back", || scene.cluster.hosts[0].members()["n2"] == "alive");
        observer.run_for(3 * SECOND);
        let report = observer.finish();
        report.print(&format!("restart of a node with a critical check, registered: {is_registered}"), &[]);
        report.assert_right(&[]);
        assert_eq!(scene.cluster.hosts[1].instances(SERVICE), [scene.cluster.hosts[0].instance()].into());

        turn(&scene, false);
        scene.cluster.converge();
        until("the peer answers the node's own service", || !scene.cluster.hosts[0].instances("only-n2").is_empty());
        let observer = scene.observe();
        scene.restart(1, SECOND);
        observer.run_for(3 * SECOND);
        let report = observer.finish();
        report.print(&format!("restart of a node with passing checks, registered: {is_registered}"), &["n2"]);
        report.assert_right(&["n2"]);
        assert!(peer_knows(&scene, ["passing exec /bin/sh", "passing Disk"]));
    }
}
