//! Latency histogram that many threads may add to.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::{counter::Writers, family::Observed};

/// Upper bounds of the buckets in microseconds, from an answer out of memory to common client timeouts.
const BOUNDS: [u64; 19] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// Histogram of durations.
#[derive(Debug, Default)]
pub(super) struct Latency {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Latency {
    /// Adds `count` observations of the same duration.
    pub(super) fn add(&self, writers: Writers, duration: Duration, count: u64) {
        let micros = duration.as_micros();
        let at = BOUNDS.iter().position(|bound| micros <= u128::from(*bound)).unwrap_or(BOUNDS.len());
        writers.add(&self.buckets[at], count);
        // The sum is bounded by uptime times threads: 64 bits last for centuries.
        writers.add(&self.nanoseconds, (duration.as_nanos() as u64).saturating_mul(count));
    }

    /// Returns the current histogram.
    pub(super) fn observed(&self) -> Observed {
        Self::sum([self])
    }

    /// Returns the sum of several histograms.
    pub(super) fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Observed {
        let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
        let mut observed = Observed { count: 0, sum: 0.0, buckets: bounds.map(|bound| (bound, 0)).collect() };
        for latency in all {
            for ((_, total), count) in observed.buckets.iter_mut().zip(&latency.buckets) {
                *total += count.load(Ordering::Relaxed);
            }
            observed.sum += latency.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
        }
        // Computed from the loaded buckets, so both agree even if another thread adds meanwhile.
        observed.count = observed.buckets.iter().map(|(_, count)| count).sum();
        observed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_counts_in_the_first_bucket_with_a_bound_not_below_it() {
        let latency = Latency::default();
        for (micros, count) in [(0, 1), (10, 1), (11, 2), (10_000_000, 1), (10_000_001, 3)] {
            latency.add(Writers::Many, Duration::from_micros(micros), count);
        }
        let observed = latency.observed();
        let filled: Vec<_> = observed.buckets.iter().filter(|(_, count)| *count > 0).copied().collect();
        assert_eq!(filled, [(1e-5, 2), (2.5e-5, 2), (10.0, 1), (f64::INFINITY, 3)]);
        assert_eq!(observed.count, 8);
        assert!((observed.sum - 40.000_035).abs() < 1e-6, "{}", observed.sum);
    }
}
