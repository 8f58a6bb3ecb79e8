//! Times that were measured, and what of them is shown.

use std::{fmt, time::Duration};

/// Measured times, and how often what was waited for did not happen.
#[derive(Default)]
pub(crate) struct Times {
    times: Vec<Duration>,
    missed: usize,
}

impl Times {
    /// Takes in one; `None`: it did not happen in time.
    pub(crate) fn take(&mut self, time: Option<Duration>) {
        match time {
            Some(time) => self.times.push(time),
            None => self.missed += 1,
        }
    }

    /// These quantiles, the smallest value that so large a part does not exceed, with one unit for all.
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
    /// All of them in milliseconds, in their order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for time in &self.times {
            write!(f, "{:.0} ", time.as_secs_f64() * 1e3)?;
        }
        write!(f, "ms, {} never", self.missed)
    }
}
