//! Our own questions, should they come back to us: an upstream that asks us what we ask it.
//!
//! A resolver that suspects an upstream asks it for a name that nobody else can know. If that name arrives here as a
//! question, the upstream's way leads back to us, perhaps by way of others.

use std::{
    collections::HashSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::dns::message::query::LookupName;

/// Below it nothing exists in the world (it is reserved for private use), and forwarders pass it on, as they may not do
/// with `test` and `invalid`.
const ZONE: &[u8] = b"\x08internal\0";
/// What the first label begins with.
const PREFIX: &[u8] = b"muster-loop-";
/// Hexadecimal digits of a number.
const DIGITS: usize = 16;

/// The questions that went out, and which of them came back.
pub struct LoopDetector {
    /// Drawn at start: others cannot guess what we ask.
    secret: u64,
    asked: AtomicU64,
    heard: Mutex<HashSet<u64>>,
}

impl LoopDetector {
    /// None asked so far; `secret` is drawn at random.
    pub fn new(secret: u64) -> Self {
        Self { secret, asked: AtomicU64::new(0), heard: Mutex::default() }
    }

    /// The number of a question that was not asked before, and its name in wire form.
    pub fn draw(&self) -> (u64, Box<[u8]>) {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let label = format!("muster-loop-{:0DIGITS$x}{number:0DIGITS$x}", self.secret);
        let name = [&[label.len() as u8], label.as_bytes(), ZONE].concat();
        (number, name.into())
    }

    /// Whether this is one of ours; it is remembered.
    pub fn hear(&self, name: &LookupName) -> bool {
        let number = self.number(name);
        if let Some(number) = number {
            self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
        }
        number.is_some()
    }

    /// Whether this question came back; asked once.
    pub fn take(&self, number: u64) -> bool {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).remove(&number)
    }

    fn number(&self, name: &LookupName) -> Option<u64> {
        if name.count() != 2 {
            return None;
        }
        let digits = name.label(0).strip_prefix(PREFIX).filter(|digits| digits.len() == 2 * DIGITS)?;
        let (secret, number) = std::str::from_utf8(digits).ok()?.split_at_checked(DIGITS)?;
        let parse = |digits| u64::from_str_radix(digits, 16).ok();
        // No more can be remembered than was asked.
        parse(number)
            .filter(|number| parse(secret) == Some(self.secret) && *number < self.asked.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_is_heard_once() {
        let (echoes, others) = (LoopDetector::new(7), LoopDetector::new(8));
        let (number, name) = echoes.draw();
        let name = LookupName::from_wire(&name).unwrap();
        assert!(!echoes.take(number));
        assert!(echoes.hear(&name));
        assert!(echoes.take(number));
        assert!(!echoes.take(number), "asked once");
        let (_, foreign) = others.draw();
        assert!(!echoes.hear(&LookupName::from_wire(&foreign).unwrap()), "another agent's");
        let never_asked = b"\x2cmuster-loop-00000000000000070000000000000009\x08internal\0";
        assert!(!echoes.hear(&LookupName::from_wire(never_asked).unwrap()));
    }
}
