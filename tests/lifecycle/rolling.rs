//! Rolling restart and rolling upgrade of 20 agents.

use nix::sys::signal::Signal;

use super::scene::{SECOND, Scene};
use crate::support::{installed, skip, wait::until};

const SIZE: u8 = 20;

#[test]
fn rolling_restart_of_20_agents_changes_no_answer() {
    if !skip::namespaces("a rolling restart of 20 agents") {
        return;
    }
    let mut scene = Scene::start(SIZE);
    let observer = scene.observe();
    observer.run_for(SECOND);
    for at in 0..usize::from(SIZE) {
        scene.restart(at, SECOND / 2);
    }
    observer.run_for(SECOND);
    let report = observer.finish();
    let names: Vec<String> = scene.cluster.hosts.iter().map(|host| host.node.clone()).collect();
    let away: Vec<&str> = names.iter().map(String::as_str).collect();
    report.print("rolling restart, 20 nodes", &away);
    scene.print_removals();
    report.assert_right(&away);
}

#[test]
fn rolling_upgrade_of_20_agents_changes_no_answer() {
    if !skip::namespaces("a rolling upgrade of 20 agents") {
        return;
    }
    let scene = Scene::start(SIZE);
    let observer = scene.observe();
    observer.run_for(SECOND);
    for host in &scene.cluster.hosts {
        let program = scene.programs.install(&host.node);
        host.agent().signal(Signal::SIGUSR2);
        until("the agent runs the new program", || installed::runs(host.agent().pid(), &program));
        until("the agent answers", || host.ask("web").is_some());
    }
    observer.run_for(2 * SECOND);
    let report = observer.finish();
    report.print("rolling upgrade, 20 nodes", &[]);
    scene.print_removals();
    report.assert_right(&[]);
}
