//! Takes the place of the crate `base2histogram` (see `[patch.crates-io]` in ../../Cargo.toml).
//!
//! The library of the store's log counts the durations of its writes in five histograms of that crate, which builds tables for
//! every resolution, 22 MiB of memory, for the smallest one. muster does not read these histograms: it measures writes itself.
//! This crate has the part of the interface that the library uses, with one counter for each power of two.

/// Counters: one for 0, and one for each number of significant bits.
const COUNTERS: usize = u64::BITS as usize + 1;

/// Distribution of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counters: [u64; COUNTERS],
}

/// Percentiles of a distribution. Each is the largest value of the percentile's power of two; 0 of an empty distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PercentileStats {
    /// Half of the values are at most this.
    pub p50: u64,
    /// 90 % of the values are at most this.
    pub p90: u64,
    /// 99 % of the values are at most this.
    pub p99: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counters: [0; COUNTERS] }
    }
}

impl Histogram {
    /// Returns an empty distribution.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value.
    pub fn record(&mut self, value: u64) {
        let bits = (u64::BITS - value.leading_zeros()) as usize;
        self.counters[bits] += 1;
    }

    /// Returns the percentiles.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats { p50: self.percentile(50), p90: self.percentile(90), p99: self.percentile(99) }
    }

    fn percentile(&self, percent: u64) -> u64 {
        let rank = (self.counters.iter().sum::<u64>() * percent).div_ceil(100);
        let mut below = 0;
        let reached = self.counters.iter().position(|count| {
            below += count;
            below >= rank
        });
        match reached {
            Some(bits) if bits > 0 => u64::MAX >> (u64::BITS as usize - bits),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_power_of_two() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.percentile_stats(), PercentileStats { p50: 0, p90: 0, p99: 0 });
        (1..=1000).for_each(|value| histogram.record(value));
        assert_eq!(histogram.percentile_stats(), PercentileStats { p50: 511, p90: 1023, p99: 1023 });
        histogram.record(u64::MAX);
        assert_eq!(histogram.percentile(100), u64::MAX);
    }
}
