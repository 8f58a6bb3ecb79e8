//! Reads of the system clock.
//!
//! Core modules take the time as an argument; every other module reads Unix time here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Returns the Unix time; zero if the system clock is set before 1970.
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Returns the Unix time in whole seconds.
pub fn unix_seconds() -> u64 {
    unix_now().as_secs()
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
