//! Signals that `muster lock` passes on to its command.

use std::io;

use nix::sys::signal::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT and SIGTERM as they arrive.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> Number {
        tokio::select! {
            _ = self.interrupt.recv() => Number::SIGINT,
            _ = self.terminate.recv() => Number::SIGTERM,
        }
    }
}
