//! Detection of forwarding loops: an upstream that forwards our questions back to us.
//!
//! The resolver queries an upstream for a name with a secret. If a question for that name arrives, the upstream forwards to
//! this agent, directly or through other servers.

use std::{
    collections::HashSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::dns::message::query::LookupName;

/// Zone of the test names. It is reserved for private use, so no public name exists there, and unlike `test` and `invalid`
/// forwarders pass it on.
const ZONE: &[u8] = b"\x08internal\0";
/// Prefix of the first label.
const PREFIX: &[u8] = b"muster-loop-";
/// Hexadecimal digits of a number.
const DIGITS: usize = 16;

/// Test questions sent, and those that came back.
pub struct LoopDetector {
    /// Random per process, so that test names cannot be guessed.
    secret: u64,
    asked: AtomicU64,
    returned: Mutex<HashSet<u64>>,
}

impl LoopDetector {
    /// Returns a detector without questions; `secret` is random.
    pub fn new(secret: u64) -> Self {
        Self { secret, asked: AtomicU64::new(0), returned: Mutex::default() }
    }

    /// Returns the number of a new test question and its name in wire form.
    pub fn draw(&self) -> (u64, Box<[u8]>) {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let label = format!("muster-loop-{:0DIGITS$x}{number:0DIGITS$x}", self.secret);
        let name = [&[label.len() as u8], label.as_bytes(), ZONE].concat();
        (number, name.into())
    }

    /// Records that this question came back.
    pub fn record(&self, number: u64) {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
    }

    /// Reports whether this question came back, and forgets it.
    pub fn take(&self, number: u64) -> bool {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).remove(&number)
    }

    /// Returns the number of a test question by its name.
    pub fn number(&self, name: &LookupName) -> Option<u64> {
        if name.count() != 2 {
            return None;
        }
        let digits = name.label(0).strip_prefix(PREFIX).filter(|digits| digits.len() == 2 * DIGITS)?;
        let (secret, number) = std::str::from_utf8(digits).ok()?.split_at_checked(DIGITS)?;
        let parse = |digits| u64::from_str_radix(digits, 16).ok();
        // Bounds the record of questions to those that were sent.
        parse(number)
            .filter(|number| parse(secret) == Some(self.secret) && *number < self.asked.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returned_question_is_reported_once() {
        let (loop_detector, others) = (LoopDetector::new(7), LoopDetector::new(8));
        let (number, name) = loop_detector.draw();
        let name = LookupName::from_wire(&name).unwrap();
        assert!(!loop_detector.take(number));
        assert_eq!(loop_detector.number(&name), Some(number));
        loop_detector.record(number);
        assert!(loop_detector.take(number));
        assert!(!loop_detector.take(number), "forgotten");
        let (_, foreign) = others.draw();
        assert_eq!(loop_detector.number(&LookupName::from_wire(&foreign).unwrap()), None, "another agent's");
        let never_asked = b"\x2cmuster-loop-00000000000000070000000000000009\x08internal\0";
        assert_eq!(loop_detector.number(&LookupName::from_wire(never_asked).unwrap()), None);
    }
}
