//! Requests that change the course of the whole agent. Signals and the HTTP API send them; the daemon carries them out.

use tokio::sync::oneshot;

use crate::diagnostic::Diagnostic;

/// A request to the daemon.
#[derive(Debug)]
pub enum Control {
    /// End the agent.
    Stop(Stop),
    /// Read the configuration and all files again.
    Reload {
        /// The outcome. The sender of a signal does not wait for it.
        done: Option<oneshot::Sender<Reloaded>>,
    },
    /// Execute the binary that is now at the path of this one.
    Upgrade,
}

/// Ways to end the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Leave the cluster at once.
    Leave,
    /// Withdraw the node's instances from answers, wait until no cache holds one, then leave the cluster.
    Drain,
    /// Announce a restart: peers go on answering the node's instances as last known.
    Restart,
}

/// Outcome of a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Problems of the configuration. If one is an error, the configuration was refused and the former one stays active.
    pub configuration: Vec<Diagnostic>,
    /// Problems of service, zone and token files. Each invalid file keeps its last valid content.
    pub files: Vec<Diagnostic>,
}

impl Reloaded {
    /// Reports whether the configuration was refused.
    pub fn is_refused(&self) -> bool {
        self.configuration.iter().any(Diagnostic::is_error)
    }
}
