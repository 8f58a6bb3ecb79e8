//! Flap damping and slow start. Both are off unless a service file enables them.
//!
//! Damping follows route flap damping (RFC 2439 §4.2): each fall adds to a penalty, which halves every half-life. An
//! instance is withheld above one threshold and released below another, so a flapping instance stays withheld. Slow start
//! ramps up the weight of an instance after its recovery. Times are arguments, measured from an arbitrary start.

use std::time::Duration;

/// Number of steps of a slow start: more steps would only add gossip.
const STEPS: u32 = 10;
/// Maximum penalty as a multiple of `hold_at`: it bounds how long an instance stays withheld.
const MAX_PENALTY: f64 = 4.0;

/// `damping:` of a service file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Damping {
    /// Half-life of the penalty; never zero.
    pub half_life: Duration,
    /// Number of falls in quick succession after which the instance is withheld, at least 1. A fall counts 1 and decays.
    pub hold_at: u32,
    /// Penalty below which it is released, in tenths of a fall: at least 1, less than ten times `hold_at`.
    pub release_below: u32,
}

/// Penalty for recent falls of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Penalty {
    /// Penalty at the time of the last fall. Each fall adds 1.
    pub value: f64,
    /// Time of the last fall.
    pub at: Duration,
    /// True while the instance is withheld.
    pub held: bool,
}

impl Penalty {
    /// Returns the penalty at `now`.
    fn value(&self, damping: &Damping, now: Duration) -> f64 {
        let lives = now.saturating_sub(self.at).as_secs_f64() / damping.half_life.as_secs_f64();
        self.value * 0.5_f64.powf(lives)
    }

    /// Adds a fall.
    pub fn fall(&mut self, damping: &Damping, now: Duration) {
        let hold_at = f64::from(damping.hold_at);
        // Half a fall of tolerance: earlier falls have decayed a little when the last one arrives.
        let value = (self.value(damping, now) + 1.0).min(MAX_PENALTY * hold_at);
        *self = Self { value, at: now, held: self.held || value > hold_at - 0.5 };
    }

    /// Reports whether the instance is withheld.
    pub fn is_held(&mut self, damping: &Damping, now: Duration) -> bool {
        self.held &= self.value(damping, now) >= Self::release(damping);
        self.held
    }

    /// Returns how long it stays withheld without further falls.
    pub fn held_for(&self, damping: &Damping, now: Duration) -> Duration {
        let lives = (self.value(damping, now) / Self::release(damping)).log2().max(0.0);
        damping.half_life.mul_f64(lives)
    }

    fn release(damping: &Damping) -> f64 {
        f64::from(damping.release_below) / 10.0
    }
}

/// Returns the weight of an instance that recovered `up` ago, and the time of the next step, both counted from the
/// recovery; `None`: the instance has its full weight.
pub fn warming(weight: u16, slow_start: Duration, up: Duration) -> Option<(u16, Duration)> {
    if up >= slow_start || weight < 2 {
        return None;
    }
    let step = slow_start / STEPS;
    let done = (up.as_nanos() / step.as_nanos().max(1)) as u32;
    let reached = u32::from(weight) * (done + 1) / (STEPS + 1);
    Some((reached.clamp(1, u32::from(weight)) as u16, step * (done + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn flapping_instance_is_withheld_until_the_penalty_decays() {
        let damping = Damping { half_life: 60 * SECOND, hold_at: 3, release_below: 10 };
        // Seconds of the falls, then whether the instance is withheld at given seconds.
        let cases = [
            (vec![], vec![(0, false)]),
            (vec![0, 10], vec![(10, false)]),
            (vec![0, 10, 20], vec![(20, true), (104, true), (110, false)]),
            (vec![0, 100, 200, 300, 400], vec![(400, false)]),
            (vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 9], vec![(9, true), (190, true), (210, false)]),
        ];
        for (falls, expected) in cases {
            let mut penalty = Penalty::default();
            for fall in &falls {
                penalty.fall(&damping, *fall * SECOND);
            }
            for (second, held) in expected {
                let now = second * SECOND;
                let mut then = penalty;
                assert_eq!(then.is_held(&damping, now), held, "{falls:?} at {second}");
                let end = now + penalty.held_for(&damping, now) + SECOND / 10;
                assert!(!then.is_held(&damping, end), "{falls:?} after {end:?}");
            }
        }
        // The time until the release is bounded.
        let mut penalty = Penalty::default();
        (0..10_000).for_each(|second| penalty.fall(&damping, second * SECOND));
        assert!(penalty.held_for(&damping, 10_000 * SECOND) < 4 * 60 * SECOND);
    }

    #[test]
    fn weight_ramps_up_in_steps_and_is_at_least_one() {
        let grown = |weight, up: u64| warming(weight, 100 * SECOND, Duration::from_secs(up));
        let cases = [
            (110, 0, Some((10, 10))),
            (110, 9, Some((10, 10))),
            (110, 10, Some((20, 20))),
            (110, 99, Some((100, 100))),
            (110, 100, None),
            (10, 0, Some((1, 10))),
            (10, 50, Some((5, 60))),
            (1, 0, None),
            (0, 0, None),
            (u16::MAX, 99, Some((59577, 100))),
        ];
        for (weight, up, expected) in cases {
            let expected = expected.map(|(weight, next)| (weight, next * SECOND));
            assert_eq!(grown(weight, up), expected, "{weight} after {up}");
        }
    }
}
