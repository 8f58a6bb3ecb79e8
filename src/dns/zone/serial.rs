//! Serial of the generated SOA. It increases with every change and never decreases, also across restarts and clock changes
//! (RFC 1912 §2.2; secondaries compare by RFC 1982).
//!
//! Serials are issued below a persisted ceiling, so that one write covers many changes. A restart resumes at the later of the
//! ceiling and the clock.

/// Serials reserved by one write. At 1000 changes per second, a ceiling is stored every half minute.
pub const RESERVE: u32 = 1 << 16;

/// Issues serials.
#[derive(Debug)]
pub struct Serial {
    current: u32,
    ceiling: u32,
}

impl Serial {
    /// Resumes at the later of the stored ceiling and the clock (Unix time in seconds).
    pub fn resume(stored: Option<u32>, now: u32) -> Self {
        let current = stored.unwrap_or(0).max(now);
        Self { current, ceiling: current }
    }

    /// Returns the last issued serial, to be stored at shutdown.
    pub fn current(&self) -> u32 {
        self.current
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
}
