//! Start times of a check's probes.
//!
//! Every check has a random phase in its interval, drawn once, so that checks loaded together do not fire together. The
//! first probe does not wait for the phase: it starts within [`START_WINDOW`], so that a service is not missing for an
//! interval after a restart. The second starts at the first phase point at least half an interval later; all others follow
//! at the interval.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::model::service::MIN_INTERVAL;

/// First probes start within this time after loading, or within the interval if that is shorter.
pub(super) const START_WINDOW: Duration = Duration::from_secs(1);

/// Start times of one check's probes. They do not drift: a late start does not move the next ones.
#[derive(Debug)]
pub(super) struct Ticks {
    interval: Duration,
    due: Instant,
    /// Second start; `None` once taken.
    second: Option<Instant>,
    /// Due time of the start whose probe has not ended.
    running: Option<Instant>,
}

impl Ticks {
    /// Returns the start times of a check loaded at `loaded`; `phase` is from 0 to 1.
    pub(super) fn new(loaded: Instant, interval: Duration, phase: f64) -> Self {
        let interval = interval.max(MIN_INTERVAL);
        let phase = phase.clamp(0.0, 1.0);
        let first = loaded + interval.min(START_WINDOW).mul_f64(phase);
        let mut second = loaded + interval.mul_f64(phase);
        while second < first + interval / 2 {
            second += interval;
        }
        Self { interval, due: first, second: Some(second), running: None }
    }

    /// Returns the start times that another run of the check had left: the next start, and the one after it if that is not
    /// an interval later.
    pub(super) fn resumed(interval: Duration, (next, second): (Instant, Option<Instant>)) -> Self {
        Self { interval: interval.max(MIN_INTERVAL), due: next, second, running: None }
    }

    /// Returns the start times that are left, for [`resumed`](Self::resumed). The start of a probe that has not ended is one.
    pub(super) fn left(&self) -> (Instant, Option<Instant>) {
        match self.running {
            Some(running) => (running, Some(self.due)),
            None => (self.due, self.second),
        }
    }

    /// Records that the probe has ended.
    pub(super) fn ended(&mut self) {
        self.running = None;
    }

    /// Waits for the next start and returns its due time.
    ///
    /// A start that was missed while a probe was running is made up for at once; of several missed starts only one is.
    pub(super) async fn next(&mut self) -> Instant {
        sleep_until(self.due).await;
        let due = self.due;
        self.due = self.second.take().unwrap_or(due + self.interval);
        let now = Instant::now();
        if self.due <= now {
            let missed = (now - self.due).as_nanos() / self.interval.as_nanos() + 1;
            self.due += self.interval.saturating_mul(u32::try_from(missed).unwrap_or(u32::MAX));
        }
        self.running = Some(due);
        due
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns starts in milliseconds since loading. Probes take the times in `busy`, whose last value repeats.
    async fn starts(interval: Duration, phase: f64, busy: &[Duration], count: usize) -> Vec<u128> {
        let loaded = Instant::now();
        let mut ticks = Ticks::new(loaded, interval, phase);
        let mut starts = Vec::new();
        for probe in 0..count {
            ticks.next().await;
            starts.push(loaded.elapsed().as_millis());
            sleep(busy[probe.min(busy.len() - 1)]).await;
        }
        starts
    }

    #[tokio::test(start_paused = true)]
    async fn first_start_is_soon_and_later_starts_keep_their_phase() {
        let ms = Duration::from_millis;
        // interval, phase, duration of probes, starts
        let cases: &[(Duration, f64, &[Duration], &[u128])] = &[
            (10 * SECOND, 0.0, &[ms(1)], &[0, 10_000, 20_000, 30_000]),
            (10 * SECOND, 0.3, &[ms(1)], &[300, 13_000, 23_000, 33_000]),
            (10 * SECOND, 0.9, &[ms(1)], &[900, 9_000, 19_000, 29_000]),
            (ms(500), 0.5, &[ms(1)], &[250, 750, 1_250, 1_750]),
            // a probe as long as the interval leaves no gap
            (2 * SECOND, 0.0, &[2 * SECOND], &[0, 2_000, 4_000, 6_000]),
            // after a probe of three intervals: one start at once, the next on its phase
            (2 * SECOND, 0.0, &[ms(1), ms(6_500), ms(1)], &[0, 2_000, 8_500, 10_000, 12_000]),
        ];
        for (interval, phase, busy, expected) in cases {
            // Timers count whole milliseconds and never fire early.
            let got = starts(*interval, *phase, busy, expected.len()).await;
            let close = got.iter().zip(*expected).all(|(got, expected)| (*expected..=expected + 2).contains(got));
            assert!(close, "{interval:?} at {phase}: {got:?}, expected {expected:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn resumed_starts_keep_their_phase() {
        let (loaded, interval) = (Instant::now(), 10 * SECOND);
        let at = |ticks: &Ticks| {
            let (next, second) = ticks.left();
            ((next - loaded).as_secs(), second.map(|second| (second - loaded).as_secs()))
        };
        let mut ticks = Ticks::new(loaded, interval, 0.0);
        assert_eq!(at(&ticks), (0, Some(10)));
        ticks.next().await;
        assert_eq!(at(&ticks), (0, Some(10)), "the interrupted probe is repeated");
        ticks.ended();
        assert_eq!(at(&ticks), (10, None));
        ticks.next().await;
        sleep(35 * SECOND).await;
        // The probe of second 10 was interrupted: it starts at once, and the next one at its phase.
        let mut ticks = Ticks::resumed(interval, ticks.left());
        let mut starts = Vec::new();
        for _ in 0..3 {
            ticks.next().await;
            starts.push(loaded.elapsed().as_secs());
            ticks.ended();
        }
        assert_eq!(starts, [45, 50, 60]);
    }

    #[tokio::test(start_paused = true)]
    async fn checks_loaded_together_are_spread_over_the_interval() {
        let interval = 10 * SECOND;
        let loaded = Instant::now();
        let mut random = fastrand::Rng::with_seed(7);
        let mut per_tenth = [0; 10];
        for _ in 0..1000 {
            let ticks = Ticks::new(loaded, interval, random.f64());
            assert!(ticks.due - loaded < START_WINDOW);
            let second = ticks.second.unwrap();
            let gap = second - ticks.due;
            assert!(interval / 2 <= gap && gap <= interval + interval / 2, "{gap:?}");
            let phase = (second - loaded).as_millis() % interval.as_millis();
            per_tenth[usize::try_from(phase).unwrap() / 1000] += 1;
        }
        assert!(per_tenth.iter().all(|n| (60..140).contains(n)), "{per_tenth:?}");
    }
}
