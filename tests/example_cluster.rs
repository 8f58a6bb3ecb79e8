//! `examples/cluster/run`, the script that starts three agents on one machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{
    process::{self, Finish},
    run, skip, wait,
};
use tempfile::TempDir;

const NODES: [&str; 3] = ["host-a", "host-b", "host-c"];

/// Copy of the example in a temporary folder, with unique loopback addresses.
struct Example(TempDir);

impl Example {
    fn new() -> Self {
        let folder = run::temp_dir();
        let id = std::process::id();
        let network = format!("127.{}.{}.", 1 + id % 99, id / 99 % 250);
        let (from, to) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"), folder.path().join("examples"));
        assert!(process::command("cp").arg("-r").args([&from, &to]).finish().status.success());
        for node in NODES {
            let path = to.join("cluster").join(node).join("muster.yaml");
            fs::write(&path, fs::read_to_string(&path).unwrap().replace("127.0.1.", &network)).unwrap();
        }
        Self(folder)
    }

    fn command(&self) -> Command {
        let mut command = process::command("bash");
        command.arg(self.0.path().join("examples/cluster/run")).env("MUSTER", env!("CARGO_BIN_EXE_muster"));
        command
    }

    /// Starts the cluster and waits until all agents answer.
    fn start(&self) -> Child {
        let mut script = self.command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = process::lines(script.stderr.take().unwrap());
        for _ in NODES {
            wait::until("an agent answers", || log.recv_timeout(wait::DEADLINE).unwrap().contains("INFO answering"));
        }
        script
    }

    fn pid(&self, node: &str) -> Option<Pid> {
        let text = fs::read_to_string(self.0.path().join(format!("target/cluster/{node}.pid"))).ok()?;
        Some(Pid::from_raw(text.trim().parse().unwrap()))
    }

    fn pids(&self) -> Vec<Pid> {
        NODES.iter().filter_map(|node| self.pid(node)).collect()
    }

    /// Asserts that another start is refused with the ids of these processes.
    #[track_caller]
    fn assert_refused(&self, pids: &[Pid]) {
        let output = self.command().finish();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("A cluster is running already"), "{text}");
        assert_eq!(text.matches(" is process ").count(), pids.len(), "{text}");
        for pid in pids {
            assert!(text.contains(&format!("is process {pid}\n")), "{pid}: {text}");
        }
    }
}

/// Reports whether a process runs; a zombie does not.
fn is_running(pid: Pid) -> bool {
    Path::new(&format!("/proc/{pid}/exe")).exists()
}

#[test]
fn second_start_is_refused_and_keeps_the_pid_files() {
    if !skip::tool("second_start_is_refused_and_keeps_the_pid_files", "flock", "util-linux") {
        return;
    }
    let example = Example::new();
    let key = || fs::metadata(example.0.path().join("target/cluster/gossip.key")).unwrap();
    let mut script = example.start();
    let pids = example.pids();
    assert_eq!(pids.len(), 3);
    assert_eq!(key().permissions().mode() & 0o777, 0o600);
    example.assert_refused(&pids);
    assert_eq!(example.pids(), pids);
    // After a kill of the script and of one agent, the other agents are still reported.
    process::kill_now(&mut script);
    kill(pids[1], Signal::SIGKILL).unwrap();
    wait::until("host-b ends", || !is_running(pids[1]));
    example.assert_refused(&[pids[0], pids[2]]);
    for pid in [pids[0], pids[2]] {
        assert!(is_running(pid));
        kill(pid, Signal::SIGTERM).unwrap();
        wait::until("the agent ends", || !is_running(pid));
    }
    // Pid files of ended processes do not prevent a start.
    assert_eq!(example.pids(), pids);
    let mut script = example.start();
    let next = example.pids();
    assert!(next.len() == 3 && next.iter().all(|pid| !pids.contains(pid)), "{next:?}");
    process::terminate(&mut script);
    assert_eq!(example.pids(), []);
    assert!(next.iter().all(|pid| !is_running(*pid)), "SIGTERM ends the agents");
}
