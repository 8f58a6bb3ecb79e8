//! Rate limit of warnings about conditions that last or that clients cause, so that they cannot flood the log.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Minimum time between two lines.
const INTERVAL: Duration = Duration::from_secs(60);

/// Permits one log line per minute. Each call site has its own limiter.
#[derive(Debug, Default)]
pub struct LogLimiter {
    last: Mutex<Option<Instant>>,
}

impl LogLimiter {
    /// Reports whether a line may be logged now, and if so starts the next interval.
    pub fn is_due(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= INTERVAL);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_is_due_per_interval() {
        let limiter = LogLimiter::default();
        assert!(limiter.is_due());
        assert!(!limiter.is_due());
        tokio::time::advance(INTERVAL - Duration::from_millis(1)).await;
        assert!(!limiter.is_due());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(limiter.is_due());
        assert!(!limiter.is_due());
    }
}
