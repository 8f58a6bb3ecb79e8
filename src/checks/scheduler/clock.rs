//! Clock of timers, comparable across restarts of the agent.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::uptime;

/// Clock of timers, as the uptime of the host.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    began: Instant,
    /// Uptime at `began`.
    uptime: Duration,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { began: Instant::now(), uptime: uptime() }
    }

    pub(super) fn now(&self) -> Duration {
        self.uptime + self.began.elapsed()
    }

    /// Returns an uptime as an instant; the start of the clock if the instant cannot be expressed.
    pub(super) fn instant(&self, at: Duration) -> Instant {
        match at.checked_sub(self.uptime) {
            Some(later) => self.began + later,
            None => self.began.checked_sub(self.uptime - at).unwrap_or(self.began),
        }
    }

    /// Returns an instant as an uptime.
    pub(super) fn uptime(&self, at: Instant) -> Duration {
        let later = at.saturating_duration_since(self.began);
        (self.uptime + later).saturating_sub(self.began.saturating_duration_since(at))
    }
}
