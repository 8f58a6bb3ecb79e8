//! Stop and crash.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::scene::{SECOND, Scene};
use crate::support::{cluster::wait_until_gone, skip, wait::until};

/// Clients of a drained node see none of its instances, while its agent still answers.
#[test]
fn stop_drains_the_node() {
    if !skip::namespaces("a stop") {
        return;
    }
    let mut scene = Scene::start(3);
    let observer = scene.observe_except(Some(1), |at| at != 1);
    let begun = Instant::now();
    scene.cluster.hosts[1].agent().signal(Signal::SIGTERM);
    let gone = wait_until_gone("web-n2", &scene.cluster.hosts);
    assert_eq!(scene.cluster.hosts[1].agent_mut().wait().code(), Some(0));
    let took = begun.elapsed();
    // Answers with the default TTL of 5 s may be in caches.
    assert!(took >= 5 * SECOND, "stopped after {took:?}");
    let report = observer.finish();
    report.print("stop with a drain, 3 nodes", &[]);
    report.assert_right(&[]);
    println!("stop: gone after {gone:?}, ended after {took:?}");
}

#[test]
fn crashed_agent_is_removed_within_2_s_and_returns_when_started() {
    if !skip::namespaces("a crash") {
        return;
    }
    let mut scene = Scene::start(3);
    let observer = scene.observe_except(Some(1), |at| at != 1);
    for _ in 0..2 {
        scene.cluster.hosts[1].agent().signal(Signal::SIGKILL);
        let gone = wait_until_gone("web-n2", scene.cluster.others(1));
        assert!(gone.iter().all(|took| *took < 2 * SECOND), "{gone:?}");
        scene.cluster.hosts[1].start_again();
        let back = scene.cluster.converge();
        println!("crash: gone after {gone:?}, back after {back:?}");
        assert!(back < 3 * SECOND, "{back:?}");
    }
    let report = observer.finish();
    report.print("2 crashes, 3 nodes", &[]);
    report.assert_right(&[]);
}

/// A supervisor that starts a crashed agent at once.
#[test]
fn agent_started_at_once_after_a_crash_answers_only_complete_views() {
    if !skip::namespaces("a crash and a start at once") {
        return;
    }
    let mut scene = Scene::start(3);
    // The crashed agent itself has no view, or a complete one: the instances of others are never missing.
    let observer = scene.observe_except(Some(1), |_| true);
    observer.run_for(SECOND);
    scene.cluster.hosts[1].agent().signal(Signal::SIGKILL);
    scene.cluster.hosts[1].start_again();
    scene.cluster.converge();
    for host in &scene.cluster.hosts {
        until("its own service is answered", || !host.instances("only-n2").is_empty());
    }
    observer.run_for(Duration::from_secs(2));
    let report = observer.finish();
    report.print("crash and start at once, 3 nodes", &["n2"]);
    report.assert_right(&["n2"]);
}
