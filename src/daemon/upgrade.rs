//! Upgrade in place: executes the binary that is now at the path of this one. The process keeps its id and its sockets.
//!
//! A rehearsal comes first: a child process of the new binary reads the configuration and the handed-over state. Only if it
//! succeeds does this process stop its stages and call execve(2).

use std::{
    env,
    ffi::{OsStr, OsString},
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt, process::CommandExt},
    },
    path::{self, Path, PathBuf},
    process::{self, ExitStatus, Stdio},
    time::Duration,
};

use nix::sys::signal::{SigSet, Signal, raise};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
    time::timeout,
};

use super::handover::{self, Handover, REHEARSAL};
use crate::printable::blanked;

/// Time limit of a rehearsal: a large state on a busy host takes seconds.
const REHEARSAL_TIMEOUT: Duration = Duration::from_secs(60);
/// The running program, whatever is at its path.
const RUNNING: &str = "/proc/self/exe";
/// Octets of the new binary's output in an error.
const MAX_OUTPUT: u64 = 2000;
/// Output of a successful rehearsal.
pub const REHEARSED: &str = "muster can start";
/// Signals that the agent handles. They are blocked until the new image handles them: their default action ends a process.
pub const HANDLED_SIGNALS: [Signal; 5] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];

/// The running program: its path, at which an upgrade puts the new binary, and its arguments.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    /// True if the files of the agent end with the process.
    is_temporary: bool,
}

/// The reason why the running agent goes on.
#[derive(Debug, Error)]
pub enum UpgradeError {
    /// The binary cannot be executed.
    #[error("cannot execute {}: {error}", path.display())]
    Execute {
        /// Path of the binary.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The new binary cannot start with the files of this agent.
    #[error("{} cannot start ({status}): {output}", path.display())]
    Rehearsal {
        /// Path of the binary.
        path: PathBuf,
        /// Its exit status.
        status: ExitStatus,
        /// The end of its output.
        output: String,
    },
    /// The new binary does not end its rehearsal.
    #[error("{}: the check of its start timed out after {REHEARSAL_TIMEOUT:?}", .0.display())]
    Timeout(PathBuf),
    /// The files of the agent are temporary.
    #[error("an agent in development mode cannot upgrade: its files are temporary")]
    Temporary,
    /// The state cannot be handed over.
    #[error("cannot hand over the state: {0}")]
    State(#[from] io::Error),
}

impl Program {
    /// This program, as it was started with these arguments; the first one is its name. `is_temporary` is true if its files
    /// end with the process.
    pub fn current(mut arguments: impl Iterator<Item = OsString>, is_temporary: bool) -> Self {
        let name = arguments.next().unwrap_or_default();
        // Unknown without /proc.
        let running = env::current_exe().map(without_deleted).unwrap_or_else(|_| PathBuf::from(&name));
        // A name with a slash may be a symbolic link that an upgrade changes. Another program may have taken the path already.
        let named = path::absolute(&name).ok().filter(|_| name.as_encoded_bytes().contains(&b'/'));
        let named = named.filter(|path| *path == running || is_same_file(path, Path::new(RUNNING)));
        Self { path: named.unwrap_or(running), arguments: arguments.collect(), is_temporary }
    }

    /// Path of the binary.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that the binary at the path can start with this handover.
    pub(super) async fn rehearse(&self, state: &OwnedFd) -> Result<(), UpgradeError> {
        if self.is_temporary {
            return Err(UpgradeError::Temporary);
        }
        let execute = |error| UpgradeError::Execute { path: self.path.clone(), error };
        // A descriptor of its own, so that no later child inherits it.
        let state = state.try_clone()?;
        handover::inherit(&state)?;
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).env(REHEARSAL, state.as_raw_fd().to_string()).kill_on_drop(true);
        // Neither a notification nor a log line may look as if it came from this process.
        command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(execute)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let ended = async {
            let (said, output) = tokio::join!(first_octets(stdout), first_octets(stderr));
            Ok::<_, io::Error>((child.wait().await?, said, output))
        };
        let ended = timeout(REHEARSAL_TIMEOUT, ended).await.map_err(|_| UpgradeError::Timeout(self.path.clone()))?;
        let (status, said, output) = ended.map_err(execute)?;
        // Another program may exit with 0, too.
        if status.success() && said.trim() == REHEARSED {
            return Ok(());
        }
        let output = if output.trim().is_empty() { "no output".to_owned() } else { output.trim().to_owned() };
        Err(UpgradeError::Rehearsal { path: self.path.clone(), status, output })
    }

    /// Executes the binary at the path in place of this image, which gets the `pending` signals. Returns only if that fails;
    /// then the handover is as before.
    pub fn execute(&self, handover: &Handover, pending: &[Signal]) -> UpgradeError {
        let signals: SigSet = HANDLED_SIGNALS.into_iter().collect();
        let execute = || {
            let file = handover.write()?;
            let (variable, value) = handover.pass(&file)?;
            signals.thread_block()?;
            // A blocked signal of this thread survives execve(2).
            pending.iter().try_for_each(|signal| raise(*signal))?;
            let mut command = process::Command::new(&self.path);
            // The sockets of the service manager's store are handed over by this process now.
            for passed in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
                command.env_remove(passed);
            }
            Err::<(), _>(command.args(&self.arguments).env(variable, value).exec())
        };
        let outcome = execute();
        handover.keep();
        // An error would leave the signals blocked; unblocking valid signals does not fail.
        let _ = signals.thread_unblock();
        let error = outcome.err().unwrap_or_else(|| io::Error::other("execve returned"));
        UpgradeError::Execute { path: self.path.clone(), error }
    }
}

/// Reads the first octets of a child's output, in which control characters become spaces, and closes it.
async fn first_octets(output: Option<impl AsyncRead + Unpin>) -> String {
    let mut octets = Vec::new();
    if let Some(output) = output {
        // An error ends the output, as its end does.
        let _ = output.take(MAX_OUTPUT).read_to_end(&mut octets).await;
    }
    blanked(&String::from_utf8_lossy(&octets))
}

/// Removes the suffix by which the kernel marks the path of a file that was replaced (proc_pid_exe(5)).
fn without_deleted(path: PathBuf) -> PathBuf {
    match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(octets) => PathBuf::from(OsStr::from_bytes(octets)),
        None => path,
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|known| (known.dev(), known.ino())).ok();
    identity(one).is_some_and(|one| Some(one) == identity(other))
}
