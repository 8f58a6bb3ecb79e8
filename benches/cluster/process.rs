//! Measured process: started, stopped, and killed on drop.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Running process whose output goes to a file.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    /// Octets of the log read so far.
    read: usize,
}

impl Process {
    /// Starts the process. Its output is appended to `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).unwrap();
        let read = file.metadata().unwrap().len() as usize;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Self { child, log: log.to_owned(), read }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Waits for its exit.
    pub(crate) fn wait(&mut self) {
        self.child.wait().unwrap();
    }

    /// Returns the output since the last call.
    pub(crate) fn news(&mut self) -> String {
        let log = fs::read(&self.log).unwrap();
        let news = String::from_utf8_lossy(&log[self.read..]).into_owned();
        self.read = log.len();
        news
    }

    /// Returns user and system time, counted in hundredths of a second.
    pub(crate) fn cpu(&self) -> Duration {
        cpu(&self.child.id().to_string())
    }

    /// Returns the resident memory in KB: private, and shared, which is mostly the program's text.
    pub(crate) fn memory(&self) -> (u64, u64) {
        memory(&self.child.id().to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the CPU time of a process; `self` is valid.
pub(crate) fn cpu(pid: &str) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name in brackets may contain blanks; user and system time are fields 14 and 15 (proc_pid_stat(5)).
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// Returns the resident memory of a process in KB: private, shared.
pub(crate) fn memory(pid: &str) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    (of("RssAnon:"), of("RssFile:"))
}
