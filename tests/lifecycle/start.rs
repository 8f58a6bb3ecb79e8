//! Start of an agent: in a running cluster, without data, after a power cut, alone.

use std::{fs, thread};

use nix::sys::signal::Signal;

use super::scene::{SECOND, Scene, client};
use crate::support::{cluster::Setup, observer::Observer, run, skip, wait::until};

/// The first answer of a new node is complete: before it knows the cluster, it answers nothing about it.
#[test]
fn first_answers_of_a_new_node_are_complete() {
    if !skip::namespaces("the start of a node in a running cluster") {
        return;
    }
    let mut scene = Scene::start(3);
    for _ in 0..5 {
        let stopped = scene.cluster.hosts[2].take_agent();
        drop(stopped);
        // Clients query before the agent runs. Its own services may be missing until it has started.
        let questions = scene.questions(2, Some(2)).split_off(1);
        let observer = Observer::start([client(&scene.cluster.hosts[2], questions)]);
        scene.start_agent(2, Setup::default());
        scene.cluster.converge();
        observer.run_for(SECOND);
        let report = observer.finish();
        report.print("start without data in a running cluster, 3 nodes", &["n3"]);
        report.assert_right(&["n3"]);
    }
}

/// A new node does not remove anything from the answers of others.
#[test]
fn start_of_a_node_changes_no_answer_on_others() {
    if !skip::namespaces("the start of another node") {
        return;
    }
    let mut scene = Scene::start(3);
    let observer = scene.observe_except(Some(2), |at| at != 2);
    scene.cluster.hosts[2].agent().signal(Signal::SIGKILL);
    scene.cluster.hosts[2].start_again();
    scene.cluster.converge();
    observer.run_for(SECOND);
    let report = observer.finish();
    report.print("start of a node, 3 nodes", &[]);
    report.assert_right(&[]);
}

/// Waits until the last known view is on disk.
fn wait_for_saved_state(scene: &Scene) {
    for host in &scene.cluster.hosts {
        let state = host.agent().path("data/state");
        until("the last known view is on disk", || {
            let saved = fs::read(&state).unwrap_or_default();
            let contains = |name: &str| saved.windows(name.len()).any(|octets| octets == name.as_bytes());
            scene.cluster.hosts.iter().all(|other| other.node == host.node || contains(&format!("only-{}", other.node)))
        });
    }
}

#[test]
fn boot_of_all_nodes_after_a_power_cut_answers_what_they_last_knew() {
    for (size, name) in [(3, "3 nodes"), (20, "20 nodes")] {
        if !skip::namespaces("a power cut") {
            return;
        }
        let mut scene = Scene::start(size);
        wait_for_saved_state(&scene);
        for host in &scene.cluster.hosts {
            host.agent().signal(Signal::SIGKILL);
        }
        for host in &mut scene.cluster.hosts {
            host.agent_mut().wait();
        }
        let observer = scene.observe();
        for host in &mut scene.cluster.hosts {
            host.start_again();
        }
        for host in &mut scene.cluster.hosts {
            host.agent_mut().wait_until_answering();
        }
        scene.cluster.converge();
        observer.run_for(SECOND);
        let report = observer.finish();
        let names: Vec<String> = scene.cluster.hosts.iter().map(|host| host.node.clone()).collect();
        let away: Vec<&str> = names.iter().map(String::as_str).collect();
        report.print(&format!("boot of all after a power cut, {name}"), &away);
        report.assert_right(&away);
    }
}

/// After `gossip.hold` without a peer, only own instances are answered.
#[test]
fn boot_alone_answers_what_it_last_knew_for_the_hold() {
    if !skip::namespaces("a boot alone") {
        return;
    }
    let mut scene = Scene::start_with(3, |_| Setup { gossip: ", hold: 10s", ..Setup::default() });
    wait_for_saved_state(&scene);
    for host in &scene.cluster.hosts {
        host.agent().signal(Signal::SIGKILL);
    }
    for host in &mut scene.cluster.hosts {
        host.agent_mut().wait();
    }
    let observer = scene.observe_except(None, |at| at == 1);
    scene.cluster.hosts[1].start_again();
    scene.cluster.hosts[1].agent_mut().wait_until_answering();
    let host = &scene.cluster.hosts[1];
    assert_eq!(host.error("only-n1"), Some(3), "answers from disk are marked as stale");
    assert_eq!(host.error("only-n2"), None, "own answers are live");
    observer.run_for(3 * SECOND);
    let report = observer.finish();
    report.print("boot alone after a power cut, 3 nodes", &["n2"]);
    report.assert_right(&["n2"]);
    until("the hold ends", || host.ask("only-n1").is_some_and(|answer| answer.answers.is_empty()));
    assert!(!host.instances("only-n2").is_empty());
}

/// A damaged file in `data_dir` costs what it held, and no more.
#[test]
fn damaged_state_keeps_no_agent_from_answering() {
    if !skip::namespaces("damaged state") {
        return;
    }
    let mut scene = Scene::start(3);
    wait_for_saved_state(&scene);
    let observer = scene.observe_except(Some(1), |at| at != 1);
    let data = scene.cluster.hosts[1].agent().path("data");
    let names: Vec<String> = fs::read_dir(&data)
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().any(|name| name == "state"), "{names:?}");
    for damage in ["empty", "noise", "half"] {
        scene.announce_restart_and_stop(1);
        scene.cluster.hosts[1].agent_mut().wait();
        for name in &names {
            let path = data.join(name);
            let octets = fs::read(&path).unwrap_or_default();
            let damaged = match damage {
                "empty" => Vec::new(),
                "noise" => octets.iter().map(|octet| octet ^ 0xa5).collect(),
                _ => octets[..octets.len() / 2].to_vec(),
            };
            fs::write(path, damaged).unwrap();
        }
        scene.cluster.hosts[1].start_again();
        scene.cluster.hosts[1].agent_mut().wait_until_answering();
        println!("all files of data_dir {damage}: converged after {:?}", scene.cluster.converge());
    }
    let report = observer.finish();
    report.print("3 planned restarts with damaged files, 3 nodes", &[]);
    report.assert_right(&[]);
}

/// The data directory cannot be written: the agent answers, says so, and writes as soon as it can.
#[test]
fn full_disk_keeps_no_agent_from_answering() {
    if !skip::namespaces("a full disk") || !skip::tool("a full disk", "mount", "mount") {
        return;
    }
    let mut scene = Scene::start(2);
    let small = Mounted::tmpfs(64 * 1024);
    let filler = small.path().join("filler");
    // The files of the agent find no space.
    let _ = fs::write(&filler, vec![0; 1 << 20]);
    scene.announce_restart_and_stop(1);
    scene.cluster.hosts[1].agent_mut().wait();
    scene.edit_config(1, &[("data_dir: data", &format!("data_dir: {}", small.path().join("data").display()))]);
    scene.cluster.hosts[1].start_again();
    scene.cluster.hosts[1].agent_mut().wait_until_answering();
    scene.cluster.converge();
    let host = &scene.cluster.hosts[1];
    let problem = || {
        let status = host.muster(&["status"]);
        (status.status.code(), String::from_utf8_lossy(&status.stdout).contains("cannot be written"))
    };
    until("`muster status` shows the problem", || problem() == (Some(1), true));
    fs::remove_file(filler).unwrap();
    until("the agent writes once there is space", || problem() == (Some(0), false));
    assert!(small.path().join("data/state").exists());
}

/// File system of a limited size, unmounted on drop.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn tmpfs(octets: usize) -> Self {
        let folder = run::temp_dir();
        let mut mount = crate::support::process::command("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={octets}"), "tmpfs"]).arg(folder.path());
        assert!(crate::support::process::Finish::finish(&mut mount).status.success());
        Self(folder)
    }

    fn path(&self) -> &std::path::Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The agent may still have a file open.
        let _ = crate::support::process::command("umount").arg("--lazy").arg(self.0.path()).status();
        thread::sleep(SECOND / 10);
    }
}
