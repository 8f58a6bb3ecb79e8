//! Times at which the primaries of a zone are asked, and the end of a copy (RFC 1035 §3.3.13, RFC 1996 §4).
//!
//! A round asks the primaries one after the other, until one confirms the copy or sends a newer version. Times are since an arbitrary
//! point, on a clock that never goes back.

use std::time::Duration;

use fastrand::Rng;

/// Shortest refresh and retry, as in Knot: an SOA of another server must not cause a storm of queries.
const MIN_INTERVAL: Duration = Duration::from_secs(2);
/// Longest refresh, retry and expire: those of BIND.
const MAX_REFRESH: Duration = Duration::from_secs(28 * 86_400);
/// Longest retry, as in BIND.
const MAX_RETRY: Duration = Duration::from_secs(14 * 86_400);
/// Longest expire, as in BIND.
const MAX_EXPIRE: Duration = Duration::from_secs(168 * 86_400);
/// Pauses between rounds without a copy: the first one, and the longest one, to which it doubles.
const WITHOUT_COPY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// Pause after a transfer that exceeds the limits of a zone: it costs much, and will most likely fail again.
const TOO_LARGE: Duration = Duration::from_secs(600);
/// Shortest pause between two rounds that NOTIFY causes.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// Times of an SOA, within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Interval of the rounds while a primary answers.
    pub refresh: Duration,
    /// Interval of the rounds while no primary answers.
    pub retry: Duration,
    /// Time after which an unconfirmed copy is not answered any more.
    pub expire: Duration,
}

impl Timers {
    /// Returns the times in the RDATA of an SOA; `None` if it is malformed.
    pub fn of_soa(rdata: &[u8]) -> Option<Self> {
        let numbers = rdata.get(rdata.len().checked_sub(16)?..)?;
        let mut seconds = numbers
            .chunks_exact(4)
            .map(|octets| Duration::from_secs(octets.iter().fold(0, |n, octet| n << 8 | u64::from(*octet))));
        let (refresh, retry, expire) = (seconds.next()?, seconds.next()?, seconds.next()?);
        let refresh = refresh.clamp(MIN_INTERVAL, MAX_REFRESH);
        let retry = retry.clamp(MIN_INTERVAL, MAX_RETRY);
        // A copy must outlive one failed round.
        Some(Self { refresh, retry, expire: expire.clamp(refresh + retry, MAX_EXPIRE.max(refresh + retry)) })
    }
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the primary with this index.
    Ask(usize),
    /// Wait until this time.
    Wait(Duration),
    /// The copy has expired: stop answering from it.
    Expire,
}

/// State of the schedule of one zone.
#[derive(Debug)]
pub struct Schedule {
    primaries: usize,
    /// Times of the copy; `None` without one.
    timers: Option<Timers>,
    /// Time of the last confirmation by a primary.
    confirmed: Duration,
    /// Time of the next round.
    due: Duration,
    /// Primaries that are still to be asked in this round.
    round: Vec<usize>,
    /// Rounds without success.
    failures: u32,
    rng: Rng,
}

impl Schedule {
    /// Returns a schedule whose first round is now. `copy` has the times of a stored copy, and the time since its last confirmation.
    pub fn new(primaries: usize, copy: Option<(Timers, Duration)>, now: Duration, rng: Rng) -> Self {
        let confirmed = now.saturating_sub(copy.map(|(_, age)| age).unwrap_or_default());
        // The clock may have begun after the confirmation.
        let elapsed = copy.map_or(Duration::ZERO, |(_, age)| age.saturating_sub(now - confirmed));
        let timers = copy.map(|(timers, _)| Timers { expire: timers.expire.saturating_sub(elapsed), ..timers });
        Self { primaries, timers, confirmed, due: now, round: Vec::new(), failures: 0, rng }
    }

    /// Returns the next step at a time.
    pub fn next(&mut self, now: Duration) -> Step {
        if self.expiry().is_some_and(|expiry| now >= expiry) {
            self.timers = None;
            (self.failures, self.due) = (0, now);
            return Step::Expire;
        }
        if let Some(primary) = self.round.first() {
            return Step::Ask(*primary);
        }
        if now >= self.due {
            self.round = (0..self.primaries).collect();
            return Step::Ask(0);
        }
        Step::Wait(self.expiry().map_or(self.due, |expiry| expiry.min(self.due)))
    }

    /// Returns the time at which the copy expires; `None` without one.
    pub fn expiry(&self) -> Option<Duration> {
        self.timers.map(|timers| self.confirmed + timers.expire)
    }

    /// Ends the round: a primary has confirmed the copy, or sent a newer one with these times.
    pub fn confirm(&mut self, timers: Timers, now: Duration) {
        self.timers = Some(timers);
        (self.confirmed, self.failures) = (now, 0);
        self.round.clear();
        self.due = now + self.spread(timers.refresh);
    }

    /// The primary did not help: the next one is asked. After the last one, the round has failed. Returns whether it has.
    pub fn fail(&mut self, now: Duration) -> bool {
        if !self.round.is_empty() {
            self.round.remove(0);
        }
        if !self.round.is_empty() {
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        let pause = match self.timers {
            Some(timers) => timers.retry,
            None => (WITHOUT_COPY[0] * (1 << (self.failures - 1).min(6))).min(WITHOUT_COPY[1]),
        };
        self.due = now + self.spread(pause);
        true
    }

    /// Puts the next round off, since the zone is too large. NOTIFY still begins one.
    pub fn put_off(&mut self, now: Duration) {
        self.due = self.due.max(now + TOO_LARGE);
    }

    /// Begins a round with the primary that sent NOTIFY, if it is known. One that is under way goes on with this primary.
    pub fn notify(&mut self, primary: Option<usize>, now: Duration) {
        let primary = primary.unwrap_or_default().min(self.primaries.saturating_sub(1));
        self.round = std::iter::once(primary).chain((0..self.primaries).filter(|other| *other != primary)).collect();
        self.due = now;
    }

    /// Pause before a round that NOTIFY causes.
    pub fn pause() -> Duration {
        MIN_PAUSE
    }

    /// Returns up to a quarter less than an interval, as BIND does: secondaries do not ask at the same time.
    fn spread(&mut self, interval: Duration) -> Duration {
        interval.mul_f64(1.0 - self.rng.f64() / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    fn timers(refresh: u64, retry: u64, expire: u64) -> Timers {
        Timers { refresh: seconds(refresh), retry: seconds(retry), expire: seconds(expire) }
    }

    fn schedule(primaries: usize, copy: Option<(Timers, Duration)>, now: Duration) -> Schedule {
        Schedule::new(primaries, copy, now, Rng::with_seed(21))
    }

    /// Waits for the step after a wait, and returns the time.
    #[track_caller]
    fn waits(schedule: &mut Schedule, now: Duration, least: u64, most: u64) -> Duration {
        let Step::Wait(until) = schedule.next(now) else { panic!("no wait: {schedule:?}") };
        assert!((now + seconds(least)..=now + seconds(most)).contains(&until), "{until:?} after {now:?}");
        until
    }

    #[test]
    fn zone_that_is_too_large_is_put_off_until_notify() {
        let mut schedule = Schedule::new(1, None, Duration::ZERO, Rng::with_seed(7));
        assert_eq!(schedule.next(SECOND), Step::Ask(0));
        assert!(schedule.fail(SECOND));
        schedule.put_off(SECOND);
        assert_eq!(schedule.next(SECOND), Step::Wait(SECOND + TOO_LARGE));
        schedule.notify(Some(0), 2 * SECOND);
        assert_eq!(schedule.next(2 * SECOND), Step::Ask(0));
    }

    #[test]
    fn primaries_are_asked_in_order_until_one_confirms() {
        let mut schedule = schedule(3, None, SECOND);
        assert_eq!(schedule.next(SECOND), Step::Ask(0));
        assert!(!schedule.fail(SECOND));
        assert_eq!(schedule.next(SECOND), Step::Ask(1));
        schedule.confirm(timers(100, 10, 1000), SECOND);
        let due = waits(&mut schedule, SECOND, 75, 100);
        assert_eq!(schedule.next(due), Step::Ask(0));
        assert!(!schedule.fail(due) && !schedule.fail(due) && schedule.fail(due));
        waits(&mut schedule, due, 7, 10);
    }

    #[test]
    fn copy_expires_unless_it_is_confirmed() {
        let mut schedule = schedule(1, None, SECOND);
        schedule.confirm(timers(100, 10, 130), SECOND);
        let mut now = SECOND;
        let mut rounds = 0;
        loop {
            match schedule.next(now) {
                Step::Ask(_) => {
                    rounds += 1;
                    assert!(schedule.fail(now));
                }
                Step::Wait(until) => now = until,
                Step::Expire => break,
            }
        }
        assert_eq!(now, seconds(131));
        assert!((4..=7).contains(&rounds), "{rounds}");
        // Without a copy, primaries are asked more often at first.
        for most in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(schedule.next(now), Step::Ask(0));
            assert!(schedule.fail(now));
            now = waits(&mut schedule, now, most * 3 / 4, most);
        }
    }

    #[test]
    fn age_of_a_stored_copy_counts() {
        let cases = [(0, 1000), (400, 600), (999, 1)];
        for (age, left) in cases {
            // The clock begins at the start.
            let mut schedule = schedule(1, Some((timers(5000, 5000, 1000), seconds(age))), Duration::ZERO);
            assert_eq!(schedule.next(Duration::ZERO), Step::Ask(0), "asked at once");
            assert!(schedule.fail(Duration::ZERO));
            assert_eq!(schedule.next(Duration::ZERO), Step::Wait(seconds(left)), "{age}");
            assert_eq!(schedule.next(seconds(left)), Step::Expire, "{age}");
        }
        let mut schedule = schedule(1, Some((timers(50, 50, 1000), seconds(1000))), Duration::ZERO);
        assert_eq!(schedule.next(Duration::ZERO), Step::Expire);
        assert_eq!(schedule.next(Duration::ZERO), Step::Ask(0));
    }

    #[test]
    fn notify_begins_a_round_with_its_primary() {
        let mut schedule = schedule(3, None, SECOND);
        schedule.confirm(timers(100, 10, 1000), SECOND);
        schedule.notify(Some(1), seconds(2));
        let asked: Vec<Step> = (0..3)
            .map(|_| {
                let step = schedule.next(seconds(2));
                schedule.fail(seconds(2));
                step
            })
            .collect();
        assert_eq!(asked, [Step::Ask(1), Step::Ask(0), Step::Ask(2)]);
        schedule.notify(None, seconds(3));
        assert_eq!(schedule.next(seconds(3)), Step::Ask(0));
    }

    #[test]
    fn times_of_an_soa_are_bounded() {
        let rdata = |numbers: [u32; 5]| -> Vec<u8> {
            b"\0\0".iter().copied().chain(numbers.iter().flat_map(|number| number.to_be_bytes())).collect()
        };
        let cases = [
            ([1, 60, 10, 600, 5], Some(timers(60, 10, 600))),
            ([1, 0, 0, 0, 0], Some(timers(2, 2, 4))),
            ([1, 3600, 600, 60, 5], Some(timers(3600, 600, 4200))),
            ([1, u32::MAX, u32::MAX, u32::MAX, 0], Some(timers(28 * 86_400, 14 * 86_400, 168 * 86_400))),
        ];
        for (numbers, expected) in cases {
            assert_eq!(Timers::of_soa(&rdata(numbers)), expected, "{numbers:?}");
        }
        assert_eq!(Timers::of_soa(b"short"), None);
    }
}
