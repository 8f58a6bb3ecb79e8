//! The serial of the generated SOA: it grows with every change and never goes back, whatever the clock does and however
//! often the process restarts (RFC 1912 §2.2; secondaries compare by RFC 1982).
//!
//! Serials are handed out below a ceiling that was stored before; a process that starts goes on from the stored ceiling
//! or from the clock, whichever is later. So one write covers many changes.

/// Serials that are reserved at once. At a thousand changes a second a ceiling is stored every half minute.
pub const RESERVE: u32 = 1 << 16;

/// Hands out serials.
#[derive(Debug)]
pub struct Serial {
    current: u32,
    ceiling: u32,
}

impl Serial {
    /// Goes on from the ceiling that was stored, or from the clock (seconds since 1970) where that is later.
    pub fn resume(stored: Option<u32>, now: u32) -> Self {
        let current = stored.unwrap_or(0).max(now);
        Self { current, ceiling: current }
    }

    /// The last one that was handed out: all that has to be stored at a stop.
    pub fn current(&self) -> u32 {
        self.current
    }

    /// The next serial. Where it returns a ceiling, that has to be stored: from then on, not later than in
    /// [`RESERVE`]` / 2` changes.
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
    fn a_restart_goes_on_above_everything_that_was_handed_out() {
        let mut stored = None;
        let mut last = 0;
        // The clock stands still, then goes back.
        for now in [1_800_000_000, 1_800_000_000, 1_700_000_000] {
            let mut serial = Serial::resume(stored, now);
            for _ in 0..100_000 {
                let (next, ceiling) = serial.advance();
                assert!(next > last, "{next} after {last}");
                assert!(ceiling.or(stored).unwrap() >= next, "{next} above what was stored");
                stored = ceiling.or(stored);
                last = next;
            }
        }
    }

    #[test]
    fn few_ceilings_are_stored() {
        let mut serial = Serial::resume(None, 1);
        let stores = (0..1_000_000).filter(|_| serial.advance().1.is_some()).count();
        assert!(stores <= 32, "{stores}");
    }
}
