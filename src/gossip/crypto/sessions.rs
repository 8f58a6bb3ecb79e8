//! What is remembered of other processes' sessions: their keys, ready for use, and which counters were let through.
//!
//! Only [`Sessions::admit`] remembers, and it is called only for frames that were opened and are bound to us, so that a
//! stranger makes nothing grow and pushes nothing out.

use std::{collections::HashMap, mem};

use ring::aead::LessSafeKey;

use super::{KeyId, Session};

/// Sessions remembered at most: twice as many as nodes whose digest chitchat can send at all, some 4,000. With all its
/// parts one takes less than a kilobyte.
pub const MAX_SESSIONS: usize = 2 * GENERATION;
/// Counters back from the highest one within which a late frame is let through. A session counts its frames to all
/// receivers together, so that this is one round of pushes to 2,048 nodes.
pub const WINDOW: u64 = (BLOCKS as u64 - 1) * 64;

const GENERATION: usize = 4096;
const BLOCKS: usize = 33;

/// Two generations of sessions. Whichever is used joins the young one; when that is full it becomes the old one, and what
/// was old until then has not been used for at least [`GENERATION`] others and goes.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    young: HashMap<Session, Box<Known>>,
    old: HashMap<Session, Box<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// The last one that it sealed with.
    key: Option<(KeyId, LessSafeKey)>,
    window: Window,
}

impl Sessions {
    /// The key of a session, if it is remembered and was last derived from the key with this id.
    pub(super) fn key(&self, session: Session, id: KeyId) -> Option<&LessSafeKey> {
        let known = self.young.get(&session).or_else(|| self.old.get(&session))?;
        known.key.as_ref().filter(|(of, _)| *of == id).map(|(_, key)| key)
    }

    /// Remembers a session and its key, if it was derived anew. False if this counter was let through before, or if
    /// that is not known any more.
    pub(super) fn admit(&mut self, session: Session, key: Option<(KeyId, LessSafeKey)>, counter: u64) -> bool {
        if !self.young.contains_key(&session) {
            let known = self.old.remove(&session).unwrap_or_default();
            if self.young.len() >= GENERATION {
                self.old = mem::take(&mut self.young);
            }
            self.young.insert(session, known);
        }
        self.young.get_mut(&session).is_some_and(|known| {
            known.key = key.or(known.key.take());
            known.window.admit(counter)
        })
    }

    /// Derives all keys anew when they are next needed, so that nothing of a removed key is left, and nothing of one whose
    /// id another key has now. What was let through stays known.
    pub(super) fn forget_keys(&mut self) {
        for known in self.young.values_mut().chain(self.old.values_mut()) {
            known.key = None;
        }
    }

    /// Whether the old generation goes soon.
    pub(super) fn are_crowded(&self) -> bool {
        !self.old.is_empty() && self.young.len() >= GENERATION / 4 * 3
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

/// Which counters of a session were let through: a bit for each of the last [`WINDOW`], in a ring of blocks that is
/// cleared ahead of the highest one (RFC 6479).
#[derive(Debug)]
struct Window {
    highest: u64,
    seen: [u64; BLOCKS],
}

impl Default for Window {
    fn default() -> Self {
        Self { highest: 0, seen: [0; BLOCKS] }
    }
}

impl Window {
    /// True once for each counter. 0 is none.
    fn admit(&mut self, counter: u64) -> bool {
        let block = |counter: u64| counter / 64;
        if counter == 0 || self.highest.saturating_sub(counter) >= WINDOW {
            return false;
        }
        for passed in (block(self.highest)..block(counter)).take(BLOCKS) {
            self.seen[place(passed + 1)] = 0;
        }
        self.highest = self.highest.max(counter);
        let (block, bit) = (&mut self.seen[place(block(counter))], 1 << (counter % 64));
        let first = *block & bit == 0;
        *block |= bit;
        first
    }
}

/// Where a block stands in the ring.
fn place(block: u64) -> usize {
    (block % BLOCKS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_lets_each_counter_through_once() {
        const FAR: u64 = 1 << 40;
        let cases: &[(&str, &[(u64, bool)])] = &[
            ("zero is no counter", &[(0, false), (1, true)]),
            ("in order", &[(1, true), (2, true), (3, true), (3, false), (1, false)]),
            ("out of order", &[(5, true), (1, true), (4, true), (4, false), (2, true), (5, false)]),
            ("the first one may be any", &[(FAR, true), (FAR - WINDOW + 1, true), (FAR - WINDOW, false)]),
            ("the window's edge", &[(WINDOW, true), (1, true), (WINDOW + 1, true), (1, false), (2, true)]),
            ("a jump within it", &[(1, true), (WINDOW, true), (1, false), (2, true), (WINDOW - 1, true)]),
            ("a jump over it", &[(7, true), (7 + 3 * WINDOW, true), (7, false), (8 + 2 * WINDOW, true)]),
            ("a jump by the ring's length", &[(7, true), (7 + 64 * 33, true), (8 + 64, true), (7, false)]),
            ("the last one", &[(u64::MAX, true), (u64::MAX, false), (u64::MAX - WINDOW + 1, true), (1, false)]),
        ];
        for (what, steps) in cases {
            let mut window = Window::default();
            for (at, (counter, expected)) in steps.iter().enumerate() {
                assert_eq!(window.admit(*counter), *expected, "{what}: step {at}, counter {counter}");
            }
        }
    }

    #[test]
    fn a_window_agrees_with_a_set() {
        let mut rng = fastrand::Rng::with_seed(3);
        let (mut window, mut seen, mut highest) = (Window::default(), std::collections::HashSet::new(), 0_u64);
        for _ in 0..100_000 {
            let counter = match rng.u8(0..40) {
                0 => highest + rng.u64(1..3 * WINDOW),
                1..20 => highest + rng.u64(1..4),
                _ => highest.saturating_sub(rng.u64(0..WINDOW + 100)),
            };
            let expected = counter > 0 && counter + WINDOW > highest && seen.insert(counter);
            assert_eq!(window.admit(counter), expected, "{counter}, highest {highest}");
            highest = highest.max(counter);
        }
    }
}
