//! The test harness itself: signals, limits, skip messages, and the resources that a killed run leaves.
//!
//! Some tests start this test binary again for one of its scenes. A scene does nothing in an ordinary run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use support::{
    agent::Agent,
    namespaces::Namespace,
    process::{self, Finish, finish_within},
    run, skip, wait,
};

/// Environment variable with the scene to run and its folder: `NAME=FOLDER`.
const SCENE: &str = "MUSTER_TEST_SCENE";

/// The folder of a scene; `None`: the scene is not requested.
fn scene(name: &str) -> Option<PathBuf> {
    let value = env::var(SCENE).ok()?;
    value.strip_prefix(name)?.strip_prefix('=').map(PathBuf::from)
}

/// Returns a command that runs one scene of this binary by a shell command that ends in `"$@"`.
fn start_scene(shell: &str, name: &str, folder: &Path) -> Command {
    let mut command = process::command("sh");
    command.args(["-c", shell, "sh"]).arg(env::current_exe().unwrap()).args(["--exact", name, "--test-threads=1"]);
    command.env(SCENE, format!("{name}={}", folder.display())).env_remove(skip::REQUIRE);
    command
}

#[track_caller]
fn assert_scene_succeeds(shell: &str, name: &str) {
    let folder = run::temp_dir();
    let output = start_scene(shell, name, folder.path()).finish();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Returns the mask of the standard signals, below 32, that a process ignores.
fn ignored_signals(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & 0x7fff_ffff
}

#[test]
fn children_of_a_run_under_nohup_ignore_no_signal() {
    let shell = "trap '' HUP INT QUIT USR1 PIPE && exec \"$@\"";
    assert_scene_succeeds(shell, "scene_child_status");
    assert_scene_succeeds(shell, "scene_agent_handles_sighup");
}

#[test]
fn scene_child_status() {
    if scene("scene_child_status").is_none() {
        return;
    }
    let output = process::command("cat").arg("/proc/self/status").finish();
    assert_eq!(ignored_signals(&String::from_utf8(output.stdout).unwrap()), 0);
    let trap = "trap 'exit 7' HUP; kill -HUP $$; exit 1";
    assert_eq!(process::command("sh").args(["-c", trap]).finish().status.code(), Some(7), "a shell can trap SIGHUP");
}

/// The agent inherits ignored signals, as from a service manager that ignores them.
#[test]
fn scene_agent_handles_sighup() {
    if scene("scene_agent_handles_sighup").is_none() {
        return;
    }
    let mut agent = Agent::start_with_ignored_signals(&["HUP", "INT", "TERM"]);
    agent.signal(Signal::SIGHUP);
    agent.wait_for_log("SIGHUP");
    agent.signal(Signal::SIGINT);
    assert_eq!(agent.wait().code(), Some(0), "{}", agent.log());
}

#[test]
fn command_that_does_not_end_is_killed_with_its_children() {
    let mut command = process::command("sh");
    command.args(["-c", "echo begun; sleep 1000 & echo $!; wait"]);
    let error = finish_within(&mut command, "", Duration::from_millis(500)).unwrap_err();
    assert!(error.contains("did not end within 500ms") && error.contains("begun"), "{error}");
    let pid = error.trim_end().lines().last().unwrap().to_owned();
    wait::until("the child ends", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.is_empty() || status.contains("State:\tZ")
    });
}

#[test]
fn command_whose_child_keeps_the_output_open_does_not_block() {
    let mut command = process::command("sh");
    command.args(["-c", "sleep 1000 & echo done"]);
    let error = finish_within(&mut command, "", Duration::from_millis(500)).unwrap_err();
    assert!(error.contains("did not end") && error.contains("done"), "{error}");
}

#[test]
fn skip_messages_reach_a_log_of_both_streams() {
    let folder = run::temp_dir();
    let log = folder.path().join("log");
    fs::write(&log, "an earlier line\n").unwrap();
    for shell in ["exec \"$@\" >>\"$LOG\" 2>&1", "exec \"$@\" >\"$LOG\" 2>&1"] {
        let status = start_scene(shell, "scene_skipped", folder.path()).env("LOG", &log).finish().status;
        assert!(status.success());
        let text = fs::read_to_string(&log).unwrap();
        assert!(text.contains("skipped: scene_skipped: muster-none is not installed"), "{shell}: {text}");
        assert!(text.contains("running 1 test") && text.contains("1 passed"), "{shell}: {text}");
        assert_eq!(text.contains("an earlier line"), shell.contains(">>"), "{shell}: {text}");
        assert!(!text.contains('\0'), "{shell}: {text:?}");
    }
}

#[test]
fn scene_skipped() {
    if scene("scene_skipped").is_some() {
        assert!(!skip::tool("scene_skipped", "muster-none", "none"));
    }
}

/// Resources that a run leaves behind: the file `left` in its folder has the names.
#[test]
fn next_run_removes_the_leftovers_of_a_killed_run() {
    let test = "next_run_removes_the_leftovers_of_a_killed_run";
    let has_namespaces = skip::namespaces(test);
    let folder = run::temp_dir();
    let left = folder.path().join("left");
    let mut killed = start_scene("exec \"$@\"", "scene_killed", folder.path());
    let mut killed = killed.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait::until("the scene writes its paths", || left.exists());
    process::kill_now(&mut killed);
    let text = fs::read_to_string(&left).unwrap();
    let left: Vec<&Path> = text.lines().map(Path::new).collect();
    assert_eq!(left.len(), 3 + usize::from(has_namespaces), "{text}");
    for path in &left {
        assert!(path.exists(), "{} was removed with the killed run", path.display());
    }
    assert_scene_succeeds("exec \"$@\"", "scene_next_run");
    for path in &left {
        assert!(!path.exists(), "{} still exists", path.display());
    }
}

#[test]
fn scene_killed() {
    let Some(folder) = scene("scene_killed") else { return };
    let agent = Agent::start();
    let mut grandparent =
        process::command("sh").args(["-c", "sleep 1000 & echo $!; wait"]).stdout(Stdio::piped()).spawn().unwrap();
    let grandchild = process::lines(grandparent.stdout.take().unwrap()).recv_timeout(wait::DEADLINE).unwrap();
    let mut left = vec![agent.path("")];
    // The link is gone when the process has ended, even before the process is reaped.
    left.extend([agent.pid().to_string(), grandchild].map(|pid| Path::new("/proc").join(pid).join("exe")));
    let namespace = skip::namespaces("scene_killed").then(Namespace::new);
    left.extend(namespace.iter().map(|namespace| Path::new("/run/netns").join(namespace.name())));
    let text: String = left.iter().map(|path| format!("{}\n", path.display())).collect();
    fs::write(folder.join("written"), text).unwrap();
    fs::rename(folder.join("written"), folder.join("left")).unwrap();
    // Waits until this process is killed.
    let _ = process::wait(&mut grandparent);
}

#[test]
fn scene_next_run() {
    if scene("scene_next_run").is_some() {
        run::name();
    }
}

/// Outside of `support`, tests start processes and create temporary folders only with the harness.
#[test]
fn tests_use_the_harness_for_processes_and_folders() {
    fn check(folder: &Path, files: &mut usize) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("support") {
                check(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("harness.rs") {
                let text = fs::read_to_string(&path).unwrap();
                *files += 1;
                for word in ["Command::new(", "tempdir()", "TempDir::new("] {
                    assert!(!text.contains(word), "{} uses {word} instead of tests/support", path.display());
                }
            }
        }
    }
    let mut files = 0;
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), &mut files);
    assert!(files > 40, "only {files} files were found");
}
