//! Measured times and their quantiles.

use std::{fmt, time::Duration};

/// Measured times, and the number of timeouts.
#[derive(Default)]
pub(crate) struct Times {
    times: Vec<Duration>,
    missed: usize,
}

impl Times {
    /// Adds a time; `None` for a timeout.
    pub(crate) fn take(&mut self, time: Option<Duration>) {
        match time {
            Some(time) => self.times.push(time),
            None => self.missed += 1,
        }
    }

    /// Formats these quantiles (nearest rank), with one unit for all.
    pub(crate) fn show(&self, quantiles: &[f64]) -> String {
        let mut times = self.times.clone();
        times.sort();
        let at = |quantile: f64| times.get((times.len() as f64 * quantile).ceil() as usize - 1).copied();
        let shown: Vec<Duration> =
            if times.is_empty() { vec![] } else { quantiles.iter().filter_map(|quantile| at(*quantile)).collect() };
        let missed = if self.missed > 0 { format!(" ({} never)", self.missed) } else { String::new() };
        let Some(longest) = shown.last() else { return format!("-{missed}") };
        let (unit, factor, places) = if *longest >= Duration::from_secs(1) { ("s", 1.0, 2) } else { ("ms", 1e3, 0) };
        let shown: Vec<String> = shown.iter().map(|time| format!("{:.places$}", time.as_secs_f64() * factor)).collect();
        format!("{} {unit}{missed}", shown.join(" / "))
    }
}

impl fmt::Debug for Times {
    /// Formats all times in milliseconds, in order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for time in &self.times {
            write!(f, "{:.0} ", time.as_secs_f64() * 1e3)?;
        }
        write!(f, "ms, {} never", self.missed)
    }
}
