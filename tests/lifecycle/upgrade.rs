//! Upgrade in place: SIGUSR2 executes the program that is now at the agent's path.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;

use super::scene::{SECOND, Scene};
use crate::support::{cluster::Host, installed, skip, wait::until};

/// Ports of an agent: DNS, the API, gossip.
const PORTS: [u16; 3] = [53, 8500, 7946];

/// Returns the inode numbers of a process's sockets that have one of [`PORTS`] and no peer.
fn listening_sockets(pid: u32) -> BTreeSet<u64> {
    let own = PathBuf::from(format!("/proc/{pid}"));
    let descriptors = fs::read_dir(own.join("fd")).unwrap().flatten();
    let links = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    let open: BTreeSet<u64> =
        links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect();
    let tables = ["udp", "tcp"].map(|table| fs::read_to_string(own.join("net").join(table)).unwrap());
    let bound = tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(|line| {
        // Local address, remote address, …, inode (proc_net_tcp(5)).
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = u16::from_str_radix(fields[1].rsplit(':').next()?, 16).ok()?;
        (PORTS.contains(&port) && fields[2].ends_with(":0000")).then(|| fields[9].parse().ok())?
    });
    bound.filter(|inode| open.contains(inode)).collect()
}

/// Upgrades the agent of a host and waits until it runs the new program.
fn upgrade(scene: &Scene, host: &Host) {
    let program = scene.programs.install(&host.node);
    let pid = host.agent().pid();
    assert!(!installed::runs(pid, &program));
    host.agent().signal(Signal::SIGUSR2);
    until("the agent runs the new program", || installed::runs(pid, &program));
    until("the agent answers", || host.ask("web").is_some());
}

#[test]
fn upgrade_changes_no_answer_and_keeps_process_and_sockets() {
    if !skip::namespaces("an upgrade in place") {
        return;
    }
    let scene = Scene::start(3);
    let host = &scene.cluster.hosts[1];
    let sockets = listening_sockets(host.agent().pid());
    // DNS and gossip over UDP and TCP, and the API.
    assert!(sockets.len() >= 5, "{sockets:?}");
    let generation = generation(host);
    let observer = scene.observe();
    observer.run_for(SECOND);
    for _ in 0..3 {
        upgrade(&scene, host);
        observer.run_for(SECOND);
    }
    let report = observer.finish();
    report.print("3 upgrades in place, 3 nodes", &[]);
    report.assert_right(&[]);
    assert_eq!(listening_sockets(host.agent().pid()), sockets);
    assert_eq!(self::generation(host), generation, "the run is the same");
    for host in &scene.cluster.hosts {
        assert!(host.members().values().all(|state| state == "alive"), "{:?}", host.members());
        assert!(!host.rejected().contains_key("own"), "{:?}", host.rejected());
    }
}

/// Returns the generation that `muster status` shows.
fn generation(host: &Host) -> String {
    let status = host.output_of(&["status"]);
    let (_, generation) = status.split_once("generation ").unwrap();
    generation.lines().next().unwrap().to_owned()
}

/// Two requests during one upgrade are one upgrade or two, and lose nothing.
#[test]
fn upgrades_back_to_back_lose_no_query() {
    if !skip::namespaces("upgrades back to back") {
        return;
    }
    let scene = Scene::start(3);
    let host = &scene.cluster.hosts[1];
    let observer = scene.observe();
    for _ in 0..10 {
        let program = scene.programs.install(&host.node);
        host.agent().signal(Signal::SIGUSR2);
        host.agent().signal(Signal::SIGUSR2);
        until("the agent runs the new program", || installed::runs(host.agent().pid(), &program));
    }
    observer.run_for(2 * SECOND);
    let report = observer.finish();
    report.print("10 upgrades back to back, 3 nodes", &[]);
    report.assert_right(&[]);
}

/// Registrations, check results and drains are part of the state.
#[test]
fn upgrade_keeps_registrations_results_and_drains() {
    if !skip::namespaces("an upgrade with registrations") {
        return;
    }
    let scene = Scene::start(3);
    let host = &scene.cluster.hosts[1];
    super::checks::register_passing(host, "api", "60s");
    host.output_of(&["drain", "one", "--no-wait"]);
    until("all hosts answer the registration and omit the drained instance", || {
        scene.cluster.hosts.iter().all(|host| !host.instances("api").is_empty() && host.instances("only-n2").is_empty())
    });
    upgrade(&scene, host);
    for _ in 0..200 {
        for host in &scene.cluster.hosts {
            let answered = host.ask("api").is_none_or(|answer| answer.answers.len() == 1);
            assert!(answered, "{} omits the registration", host.node);
            assert!(host.instances("only-n2").is_empty(), "{} answers the drained instance", host.node);
        }
    }
}

/// Asserts that the agent refuses an upgrade, goes on, and says why: `expected` is in the log and in `muster status`.
fn assert_refused(scene: &mut Scene, case: &str, expected: &str) {
    let observer = scene.observe();
    let host = &mut scene.cluster.hosts[1];
    let (pid, sockets) = (host.agent().pid(), listening_sockets(host.agent().pid()));
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    host.agent().signal(Signal::SIGUSR2);
    until(&format!("{case}: the log says why"), || {
        let log = host.agent().log();
        log.lines().any(|line| line.contains("upgrade") && line.contains(expected))
    });
    observer.run_for(SECOND);
    let report = observer.finish();
    report.print(&format!("upgrade refused: {case}, 3 nodes"), &[]);
    report.assert_right(&[]);
    let host = &scene.cluster.hosts[1];
    assert_eq!(listening_sockets(pid), sockets, "{case}");
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().replace(" (deleted)", "");
    let running = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert_eq!(name(&running), name(&program), "{case}");
    let status = host.muster(&["status"]);
    let text = String::from_utf8_lossy(&status.stdout);
    assert!(text.lines().any(|line| line.contains("upgrade") && line.contains(expected)), "{case}: {text}");
    assert_eq!(status.status.code(), Some(1), "{case}: {text}");
}

#[test]
fn upgrade_to_a_program_that_cannot_start_is_refused() {
    if !skip::namespaces("an upgrade that is refused") {
        return;
    }
    let mut scene = Scene::start(3);
    let program = scene.programs.install_content("n2", b"#!/bin/sh\necho 'missing library' >&2\nexit 1\n");
    assert_refused(&mut scene, "a program that exits with 1", "missing library");
    scene.programs.install_truncated("n2");
    assert_refused(&mut scene, "a truncated program", program.to_str().unwrap());
    scene.programs.remove("n2");
    assert_refused(&mut scene, "a missing program", program.to_str().unwrap());
    scene.programs.install("n2");
    let config = scene.cluster.hosts[1].agent().path("muster.yaml");
    let valid = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{valid}ttl: never\n")).unwrap();
    assert_refused(&mut scene, "an invalid configuration", "muster.yaml:");
    fs::write(&config, valid).unwrap();
    // With all mended, the upgrade succeeds and `status` is clean again.
    let host = &scene.cluster.hosts[1];
    upgrade(&scene, host);
    until("`muster status` shows no problem", || host.muster(&["status"]).status.success());
}
