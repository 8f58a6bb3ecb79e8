//! A process that is measured: started, stopped, killed, and ended with its owner.

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

/// A running process whose output goes to a file.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    /// Octets of the log that were read.
    read: usize,
}

impl Process {
    /// Starts it. What it writes is appended to `log`.
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

    /// Waits for its end.
    pub(crate) fn wait(&mut self) {
        self.child.wait().unwrap();
    }

    /// What it wrote since this was last asked.
    pub(crate) fn news(&mut self) -> String {
        let log = fs::read(&self.log).unwrap();
        let news = String::from_utf8_lossy(&log[self.read..]).into_owned();
        self.read = log.len();
        news
    }

    /// CPU time, its own and the kernel's for it; the kernel tells it in hundredths of a second.
    pub(crate) fn cpu(&self) -> Duration {
        cpu(&self.child.id().to_string())
    }

    /// Resident memory in KB: its own, and what it shares with others, which is mostly the program's text.
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

/// CPU time of a process, `self` included.
pub(crate) fn cpu(pid: &str) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name in brackets may hold blanks; user and system time are the 14th and 15th field (proc_pid_stat(5)).
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// Resident memory of a process in KB: its own, and what it shares.
pub(crate) fn memory(pid: &str) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    (of("RssAnon:"), of("RssFile:"))
}
