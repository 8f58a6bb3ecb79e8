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
    errno::Errno,
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

/// Pause between two checks whether a process group is empty.
const POLL: Duration = Duration::from_millis(50);

/// A running command, which is killed on drop.
pub(super) struct Program {
    child: Child,
    /// Process group of the command; `None` on a terminal. Its id is not given to another one as long as it has a process.
    group: Option<Pid>,
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
        let child = command.spawn()?;
        let group = id(&child).filter(|_| has_group);
        Ok(Self { child, group })
    }

    /// Waits for the end of the program.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Passes on a signal that this process got.
    pub(super) fn pass_on(&self, signal: Signal) {
        // A terminal sends SIGINT to the whole group.
        if self.group.is_some() || signal != Signal::SIGINT {
            self.send(signal);
        }
    }

    /// Ends the program and the processes of its group: with SIGTERM, and with SIGKILL those that have not ended after the grace
    /// period.
    pub(super) async fn end(&mut self, grace: Duration) {
        self.send(Signal::SIGTERM);
        if timeout(grace, self.ended()).await.is_err() {
            self.send(Signal::SIGKILL);
            let _ = self.child.wait().await;
        }
    }

    /// Waits until the program has ended and its group is empty.
    async fn ended(&mut self) {
        let _ = self.child.wait().await;
        while self.group.is_some_and(|group| killpg(group, None) != Err(Errno::ESRCH)) {
            sleep(POLL).await;
        }
    }

    fn send(&self, signal: Signal) {
        let _ = match (self.group, id(&self.child)) {
            (Some(group), _) => killpg(group, signal),
            (None, Some(pid)) => kill(pid, signal),
            // A process that was waited for has no id any more: the id may belong to another one.
            (None, None) => Ok(()),
        };
    }
}

/// Returns the id of a child that was not waited for.
fn id(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw)
}
