//! Signals that end a command, or that it handles itself.

use std::{future::pending, io};

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

/// Waits for SIGINT or SIGTERM.
pub(super) async fn interrupted() {
    match Signals::listen() {
        Ok(mut signals) => {
            signals.next().await;
        }
        // Without handlers, the signals end the program by default.
        Err(_) => pending().await,
    }
}
