//! Serial of the generated SOA. It increases with every change and never decreases, also across restarts, clock changes and the
//! loss of the data directory (RFC 1912 §2.2; secondaries compare by RFC 1982).
//!
//! Serials are issued below a persisted ceiling, so that one write covers many changes. A restart resumes at the later of the
//! ceiling and the clock. Peers keep the ceiling as well, and hand it to the next run of the node: a run that lost its data
//! continues above it.

pub use crate::model::zone_serial::{RESERVE, is_later};

/// Issues serials.
#[derive(Debug)]
pub struct Serial {
    current: u32,
    ceiling: u32,
    /// Ceilings of former runs from here on are not in the data directory.
    unknown: u32,
}

impl Serial {
    /// Resumes at the later of the stored ceiling and the clock (Unix time in seconds), and reserves serials: the new
    /// [`ceiling`](Self::ceiling) has to be stored.
    pub fn resume(stored: Option<u32>, now: u32) -> Self {
        let current = stored.filter(|stored| is_later(*stored, now)).unwrap_or(now);
        let ceiling = current.wrapping_add(RESERVE);
        // The ceilings of former runs are below the new one, unless the stored one is lost or that of a backup.
        let unknown = if stored.is_some() { ceiling } else { current };
        Self { current, ceiling, unknown }
    }

    /// Returns the last issued serial, to be stored at shutdown.
    pub fn current(&self) -> u32 {
        self.current
    }

    /// Returns the bound that no issued serial exceeds.
    pub fn ceiling(&self) -> u32 {
        self.ceiling
    }

    /// Returns the next serial, and a new ceiling that must be stored within [`RESERVE`]` / 2` changes, if any.
    pub fn advance(&mut self) -> (u32, Option<u32>) {
        self.current = self.current.wrapping_add(1);
        let left = self.ceiling.wrapping_sub(self.current) as i32;
        if left >= (RESERVE / 2) as i32 {
            return (self.current, None);
        }
        self.ceiling = self.current.wrapping_add(RESERVE);
        (self.current, Some(self.ceiling))
    }

    /// Continues above a serial that secondaries may have seen from another node. Returns whether it was later than the own one.
    pub fn continue_above(&mut self, seen: u32) -> bool {
        let is_behind = is_later(seen, self.current);
        if is_behind {
            self.current = seen;
        }
        is_behind
    }

    /// Continues at the ceiling of a former run if the data directory did not have it. Returns whether it did not.
    pub fn continue_from(&mut self, former: u32) -> bool {
        if is_later(self.unknown, former) {
            return false;
        }
        self.unknown = former.wrapping_add(1);
        if is_later(former, self.current) {
            self.current = former;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_resumes_above_all_issued_serials() {
        let mut stored = None;
        let mut last = 0;
        // The clock stops, then goes backwards.
        for now in [1_800_000_000, 1_800_000_000, 1_700_000_000] {
            let mut serial = Serial::resume(stored, now);
            stored = Some(serial.ceiling());
            for _ in 0..100_000 {
                let (next, ceiling) = serial.advance();
                assert!(next > last, "{next} after {last}");
                assert!(ceiling.or(stored).unwrap() >= next, "{next} exceeds the stored ceiling");
                stored = ceiling.or(stored);
                last = next;
            }
        }
    }

    #[test]
    fn ceilings_are_stored_rarely() {
        let mut serial = Serial::resume(None, 1);
        let stores = (0..1_000_000).filter(|_| serial.advance().1.is_some()).count();
        assert!(stores <= 32, "{stores}");
    }

    #[test]
    fn serials_are_compared_around_their_end() {
        let cases = [
            (1, 0, true),
            (0, 1, false),
            (7, 7, false),
            (0, u32::MAX, true),
            (u32::MAX, 0, false),
            ((1 << 31) - 1, 0, true),
            (1 << 31, 0, false),
        ];
        for (a, b, expected) in cases {
            assert_eq!(is_later(a, b), expected, "{a} {b}");
        }
    }

    /// A run issues serials, loses its data or not, and its peers hand the ceiling to the next run.
    #[test]
    fn run_without_data_continues_above_the_ceiling_of_the_former_run() {
        // Also across the end of the numbers.
        for start in [1_800_000_000, u32::MAX - 100_000, u32::MAX - 10] {
            for (changes, behind) in [(1, 60), (1, 30 * 365 * 86_400), (100_000, 0), (100_000, 60)] {
                let mut first = Serial::resume(None, start);
                let last = (0..changes).map(|_| first.advance().0).last().unwrap();
                let ceiling = first.ceiling();

                let mut lost = Serial::resume(None, start.wrapping_sub(behind));
                assert!(lost.continue_from(ceiling), "{start} {changes} {behind}");
                let (next, stored) = lost.advance();
                assert!(is_later(next, last), "{next} after {last}");
                assert_eq!(stored, Some(lost.ceiling()), "the new ceiling is stored at once");
                assert!(is_later(lost.ceiling(), ceiling));
                // The other peers know the same ceiling, or an earlier one.
                assert!(!lost.continue_from(ceiling) && !lost.continue_from(ceiling.wrapping_sub(RESERVE)));
                assert_eq!(lost.advance().0, next.wrapping_add(1));

                // With its data, a run does not skip the serials that are left, whether it was stopped or crashed.
                for stored in [first.current(), first.ceiling()] {
                    let mut next_run = Serial::resume(Some(stored), start.wrapping_sub(behind));
                    assert!(!next_run.continue_from(ceiling), "{start} {changes} {behind}");
                    assert_eq!(next_run.advance().0, stored.wrapping_add(1));
                }
            }
        }
        // A backup of the data directory is older than what the peers know.
        let mut backup = Serial::resume(Some(1_700_000_000), 1_700_000_000);
        assert!(backup.continue_from(1_800_000_000));
        assert_eq!(backup.advance().0, 1_800_000_001);
    }
}
