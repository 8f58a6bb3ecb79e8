//! Reads of the system clock.
//!
//! Core modules take the time as an argument; every other module reads Unix time here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::model::check_results::Moment;

/// Returns the Unix time; zero if the system clock is set before 1970.
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Returns the Unix time in whole seconds.
pub fn unix_seconds() -> u64 {
    unix_now().as_secs()
}

/// Returns the monotonic clock of the host, on which all timers of the agent run. It starts at the host's boot. Where a test
/// has paused the timers, their time counts.
pub fn uptime() -> Duration {
    let ahead = Instant::now().into_std().saturating_duration_since(std::time::Instant::now());
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32) + ahead
}

/// Returns the current moment.
pub fn moment() -> Moment {
    Moment { unix: unix_now(), uptime: uptime() }
}

/// Monotonic Unix time: the system clock at the start plus the time elapsed since then.
///
/// A step of the system clock changes neither timeouts nor expiries that use this clock.
#[derive(Clone, Copy, Debug)]
pub struct SteadyClock {
    started: Duration,
    at: Instant,
}

impl SteadyClock {
    /// Reads the system clock.
    pub fn start() -> Self {
        Self { started: unix_now(), at: Instant::now() }
    }

    /// Returns the Unix time, unaffected by steps since the start.
    pub fn now(&self) -> Duration {
        self.started + self.at.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn steady_clock_advances_with_elapsed_time() {
        let clock = SteadyClock::start();
        let before = clock.now();
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(clock.now() - before, Duration::from_secs(90));
    }
}
