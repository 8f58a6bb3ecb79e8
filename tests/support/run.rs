//! Test run: one process of one test binary. Its name marks everything that could outlive it: the environment of its
//! child processes, its network namespaces and its temporary folders. The next run removes the leftovers of runs whose
//! process has ended.

use std::{
    env, fs,
    path::Path,
    process::{self, Command},
    sync::LazyLock,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::wait;

/// Environment variable with the name of the run.
pub const VARIABLE: &str = "MUSTER_TEST_RUN";
/// Prefix of every name.
const PREFIX: &str = "muster-run-";

static NAME: LazyLock<String> = LazyLock::new(|| {
    remove_leftovers();
    let pid = process::id();
    format!("{PREFIX}{pid}-{}", start_time(pid).expect("the start time of this process"))
});

/// Returns the name of this run: `muster-run-PID-START`. Process ids are reused; with the start time the name is unique
/// until reboot. The first call removes the leftovers of killed runs.
pub fn name() -> &'static str {
    &NAME
}

/// Creates a temporary folder of this run.
pub fn temp_dir() -> TempDir {
    tempfile::Builder::new().prefix(&format!("{}-", name())).tempdir().unwrap()
}

/// Returns the start time of a process in clock ticks since boot (proc_pid_stat(5)); `None` if it has ended.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    if fields[0] == "Z" { None } else { fields[19].parse().ok() }
}

/// Reports whether a name, with any suffix, belongs to a run whose process has ended.
fn is_left_over(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let mut numbers = rest.split('-').map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(start))) = (numbers.next(), numbers.next()) else { return false };
    u32::try_from(pid).is_ok_and(|pid| start_time(pid) != Some(start))
}

/// Returns the names of leftovers in a folder.
fn left_over_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_left_over(name)).collect()
}

/// Returns running processes that killed runs have started.
fn left_over_processes() -> Vec<Pid> {
    let is_left_over = |pid: i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|octet| *octet == 0).filter_map(|entry| str::from_utf8(entry).ok());
        variables
            .any(|entry| entry.strip_prefix(VARIABLE).and_then(|rest| rest.strip_prefix('=')).is_some_and(is_left_over))
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_left_over(*pid)).map(Pid::from_raw).collect()
}

/// Removes the leftovers of killed runs. Several test binaries may do so at once, so a failed removal is ignored.
fn remove_leftovers() {
    for pid in left_over_processes() {
        let _ = kill(pid, Signal::SIGKILL);
    }
    wait::until("processes of killed runs end", || left_over_processes().is_empty());
    for name in left_over_in(Path::new("/run/netns")) {
        let _ = Command::new("ip").args(["netns", "del", &name]).output();
    }
    let folder = env::temp_dir();
    for name in left_over_in(&folder) {
        let _ = fs::remove_dir_all(folder.join(name));
    }
}
