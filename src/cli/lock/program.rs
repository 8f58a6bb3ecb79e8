//! The command that runs while a lock is held.
//!
//! Without a terminal, the command has a process group of its own, so that signals reach all its processes. On a terminal it
//! stays in the group of this process, which can read the terminal and gets its SIGINT from the kernel.

use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    process::ExitStatus,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// A running command, which is killed on drop.
pub(super) struct Program {
    child: Child,
    has_group: bool,
}

impl Program {
    /// Starts a program with its arguments.
    pub(super) fn start(command: &[OsString]) -> io::Result<Self> {
        let [program, arguments @ ..] = command else { return Err(io::ErrorKind::InvalidInput.into()) };
        let has_group = !io::stdin().is_terminal();
        let mut command = Command::new(program);
        command.args(arguments).kill_on_drop(true);
        if has_group {
            command.process_group(0);
        }
        Ok(Self { child: command.spawn()?, has_group })
    }

    /// Waits for the end of the program.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Passes on a signal that this process got.
    pub(super) fn pass_on(&self, signal: Signal) {
        // A terminal sends SIGINT to the whole group.
        if self.has_group || signal != Signal::SIGINT {
            self.send(signal);
        }
    }

    /// Ends the program: with SIGTERM, and with SIGKILL if it has not ended after the grace period.
    pub(super) async fn end(&mut self, grace: Duration) {
        self.send(Signal::SIGTERM);
        if timeout(grace, self.child.wait()).await.is_err() {
            self.send(Signal::SIGKILL);
            let _ = self.child.wait().await;
        }
    }

    fn send(&self, signal: Signal) {
        // A process that was waited for has no id any more: the id may belong to another one.
        let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw) else { return };
        let _ = if self.has_group { killpg(pid, signal) } else { kill(pid, signal) };
    }
}
