//! Planned restart: SIGUSR1 and SIGTERM.

use std::{
    fs,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::scene::{SECOND, Scene};
use crate::support::{
    cluster::{Setup, wait_until_gone},
    http, skip,
    wait::until,
};

/// Shorter than a drain, whose wait is at least the default TTL.
const NO_DRAIN: Duration = Duration::from_secs(4);

#[test]
fn planned_restart_changes_no_answer() {
    if !skip::namespaces("a planned restart") {
        return;
    }
    let mut scene = Scene::start(3);
    for away in [0, 1, 5] {
        let observer = scene.observe();
        observer.run_for(SECOND);
        scene.restart(1, away * SECOND);
        observer.run_for(2 * SECOND);
        let report = observer.finish();
        report.print(&format!("planned restart, away for {away} s, 3 nodes"), &["n2"]);
        report.assert_right(&["n2"]);
    }
}

/// Answers of a node that is restarting are marked as stale.
#[test]
fn instances_of_a_restarting_node_are_answered_as_stale() {
    if !skip::namespaces("a node that is restarting") {
        return;
    }
    let mut scene = Scene::start(3);
    scene.announce_restart_and_stop(1);
    scene.cluster.hosts[1].agent_mut().wait();
    for host in scene.cluster.others(1) {
        until("the answer is marked as stale", || host.error("only-n2") == Some(3));
        assert_eq!(host.error("only-n1"), None);
    }
    scene.cluster.hosts[1].start_again();
    scene.cluster.converge();
    for host in &scene.cluster.hosts {
        until("the answer is live", || host.ask("only-n2").is_some() && host.error("only-n2").is_none());
    }
}

#[test]
fn restart_signals_in_either_order_do_not_drain() {
    if !skip::namespaces("signals of a restart in either order") {
        return;
    }
    let mut scene = Scene::start(3);
    let observer = scene.observe();
    for round in 0..12 {
        let mut signals = [Signal::SIGUSR1, Signal::SIGTERM];
        if round % 2 == 1 {
            signals.reverse();
        }
        let begun = Instant::now();
        let host = &mut scene.cluster.hosts[1];
        for signal in signals {
            host.agent().signal(signal);
        }
        assert_eq!(host.agent_mut().wait().code(), Some(0));
        let took = begun.elapsed();
        assert!(took < NO_DRAIN, "{signals:?}: ended after {took:?}: {}", host.agent().log_of_latest_start());
        host.start_again();
        host.agent_mut().wait_until_answering();
    }
    scene.cluster.converge();
    let report = observer.finish();
    report.print("12 planned restarts, signals in either order, 3 nodes", &["n2"]);
    report.assert_right(&["n2"]);
}

#[test]
fn node_away_for_longer_than_the_restart_hold_is_removed_and_returns() {
    if !skip::namespaces("a node away for longer than restart_hold") {
        return;
    }
    let setup = |_| Setup { gossip: ", restart_hold: 3s", ..Setup::default() };
    let mut scene = Scene::start_with(3, setup);
    let observer = scene.observe_except(Some(1), |at| at != 1);
    scene.announce_restart_and_stop(1);
    scene.cluster.hosts[1].agent_mut().wait();
    let gone = wait_until_gone("web-n2", scene.cluster.others(1));
    println!("away for longer than a restart_hold of 3 s: gone after {gone:?}");
    let within = Duration::from_millis(2500)..Duration::from_secs(6);
    assert!(gone.iter().all(|took| within.contains(took)), "{gone:?}");
    for host in scene.cluster.others(1) {
        until("its own service is gone", || host.instances("only-n2").is_empty());
    }
    scene.cluster.hosts[1].start_again();
    let back = scene.cluster.converge();
    println!("back after {back:?}");
    let report = observer.finish();
    report.print("planned restart, away for longer than restart_hold, 3 nodes", &[]);
    report.assert_right(&[]);
}

/// A host that dies during its restart stays in answers for no longer than the hold.
#[test]
fn crash_during_a_planned_restart_is_bounded_by_the_restart_hold() {
    if !skip::namespaces("a crash during a planned restart") {
        return;
    }
    let setup = |_| Setup { gossip: ", restart_hold: 2s", ..Setup::default() };
    let scene = Scene::start_with(3, setup);
    scene.cluster.hosts[1].agent().signal(Signal::SIGUSR1);
    scene.cluster.hosts[1].agent().signal(Signal::SIGKILL);
    let gone = wait_until_gone("web-n2", scene.cluster.others(1));
    println!("crash after SIGUSR1: gone after {gone:?}");
    assert!(gone.iter().all(|took| *took < 6 * SECOND), "{gone:?}");
}

#[test]
fn service_file_that_became_invalid_keeps_its_content_over_a_restart() {
    if !skip::namespaces("an invalid service file at a restart") {
        return;
    }
    let mut scene = Scene::start(3);
    let path = scene.cluster.hosts[1].agent().path("services.d/only.yaml");
    fs::write(path, "service: only-n2\nport: [not a port\n").unwrap();
    scene.cluster.hosts[1].agent_mut().wait_for_log("the last valid content of this file stays in use");
    let observer = scene.observe();
    scene.restart(1, SECOND);
    observer.run_for(2 * SECOND);
    let report = observer.finish();
    report.print("planned restart with an invalid service file, 3 nodes", &["n2"]);
    report.assert_right(&["n2"]);
    let status = scene.cluster.hosts[1].muster(&["status"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("only.yaml:"), "the problem is not shown");
}

/// Gossip of the former run still arrives after a restart.
#[test]
fn restart_rejects_no_gossip_and_claims_no_partition() {
    if !skip::namespaces("events after a restart") {
        return;
    }
    let mut scene = Scene::start(3);
    for _ in 0..3 {
        scene.restart(1, SECOND);
    }
    // Longer than the interval at which rejected gossip is logged.
    std::thread::sleep(12 * SECOND);
    for host in &scene.cluster.hosts {
        assert!(!host.rejected().contains_key("own"), "{}: {:?}", host.node, host.rejected());
        let log = host.agent().log();
        assert!(!log.contains("rejected") && !log.contains("partition"), "{}: {log}", host.node);
        let agent = host.agent();
        let events = host.namespace.enter(|| http::get(agent, "muster/events?follow=false")).body;
        assert!(events.contains("file-reload") && !events.contains("rejected"), "{}: {events}", host.node);
    }
}
