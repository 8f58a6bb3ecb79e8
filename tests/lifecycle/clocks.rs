//! Nodes whose clock is wrong.

use std::{fs, time::Instant};

use nix::sys::signal::Signal;

use super::{
    clock_shim::ClockShim,
    scene::{SECOND, Scene},
};
use crate::support::{cluster::Setup, skip, wait::until};

const YEAR: i64 = 365 * 24 * 60 * 60;

fn can_run(test: &str) -> bool {
    skip::namespaces(test) && skip::tool(test, "gcc", "gcc")
}

/// The generation of the new run comes from the clock, and nothing on disk is above it.
#[test]
fn node_without_data_and_with_a_clock_behind_returns_within_3_s() {
    if !can_run("a node without data and with a clock behind") {
        return;
    }
    let shim = ClockShim::compile();
    let mut scene = Scene::start(3);
    for offset in [-60, -30 * YEAR] {
        let observer = scene.observe_except(Some(2), |at| at != 2);
        let crashed = scene.cluster.hosts[2].take_agent();
        crashed.signal(Signal::SIGKILL);
        drop(crashed);
        let begun = Instant::now();
        scene.start_agent(2, Setup { environment: shim.environment(offset), ..Setup::default() });
        scene.cluster.converge();
        let back = begun.elapsed();
        println!("clock off by {offset} s, without data: back after {back:?}");
        assert!(back < 3 * SECOND, "{offset} s: {back:?}");
        let report = observer.finish();
        report.print(&format!("start without data, clock off by {offset} s, 3 nodes"), &[]);
        report.assert_right(&[]);
        for host in &scene.cluster.hosts {
            until("all are alive", || host.members().values().all(|state| state == "alive"));
        }
    }
}

#[test]
fn planned_restart_with_a_clock_behind_changes_no_answer() {
    if !can_run("a planned restart with a clock behind") {
        return;
    }
    let shim = ClockShim::compile();
    let mut scene = Scene::start(3);
    let kept = crate::support::run::temp_dir();
    let observer = scene.observe();
    scene.announce_restart_and_stop(2);
    let mut stopped = scene.cluster.hosts[2].take_agent();
    stopped.wait();
    let data = kept.path().join("data");
    fs::rename(stopped.path("data"), &data).unwrap();
    drop(stopped);
    scene.start_agent(2, Setup { environment: shim.environment(-30 * YEAR), data: Some(data), ..Setup::default() });
    scene.cluster.converge();
    observer.run_for(2 * SECOND);
    let report = observer.finish();
    report.print("planned restart, clock 30 years back, 3 nodes", &["n3"]);
    report.assert_right(&["n3"]);
}

/// Of two running nodes with one name, the one that the cluster knows stays, whatever the clocks say.
#[test]
fn known_node_keeps_its_name_whatever_the_clocks_say() {
    if !can_run("two nodes with one name and different clocks") {
        return;
    }
    let shim = ClockShim::compile();
    let scene = Scene::start(3);
    let observer = scene.observe();
    for (number, offset) in [(4, -YEAR), (5, 0), (6, YEAR)] {
        let mut second = scene.cluster.connect(number);
        second.node = "n3".to_owned();
        // It joins after its start, so that it ends only once it meets the cluster.
        let environment = shim.environment(offset);
        second.start(Setup { key: scene.cluster.key.clone(), environment, ..Setup::default() });
        second.muster(&["join", "10.77.0.1"]);
        let mut ended = second.take_agent();
        assert_eq!(ended.wait().code(), Some(2), "clock off by {offset} s: {}", ended.log());
        assert!(ended.log().contains("the name n3 belongs to another node"), "{}", ended.log());
    }
    observer.run_for(2 * SECOND);
    let report = observer.finish();
    report.print("3 newcomers with a taken name, 3 nodes", &[]);
    report.assert_right(&[]);
    for host in &scene.cluster.hosts {
        assert!(host.output_of(&["members"]).contains("10.77.0.3:7946"));
    }
}

/// `muster status` of a node that its peers consider gone exits with 1.
#[test]
fn node_that_peers_consider_gone_reports_a_problem() {
    if !skip::namespaces("a node that its peers consider gone") {
        return;
    }
    let scene = Scene::start(3);
    let mute = &scene.cluster.hosts[2];
    // Its packets do not arrive, those of others do.
    for host in scene.cluster.others(2) {
        host.namespace.drop_incoming(&[&format!("ip saddr {}", mute.address)]);
    }
    until("`muster status` exits with 1", || mute.muster(&["status"]).status.code() == Some(1));
    for host in scene.cluster.others(2) {
        host.namespace.drop_incoming(&[]);
    }
    until("`muster status` exits with 0", || mute.muster(&["status"]).status.success());
}
