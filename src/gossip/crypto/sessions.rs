//! Sessions of other processes: their derived keys and replay windows.
//!
//! Only [`Sessions::admit`] adds entries, and it is called only for authenticated frames bound to this session. So an
//! attacker without a key can neither grow the table nor evict entries.

use std::{collections::HashMap, mem};

use ring::aead::LessSafeKey;

use super::{KeyId, Session};

/// Largest number of remembered sessions: twice the number of nodes that chitchat's digest can hold, some 4,000. One
/// session takes less than a kilobyte.
pub const MAX_SESSIONS: usize = 2 * GENERATION;
/// Length of the replay window: late frames within this distance of the highest counter are accepted. A session counts
/// its frames to all receivers together, so this covers one round of pushes to 2,048 nodes.
pub const WINDOW: u64 = (BLOCKS as u64 - 1) * 64;

const GENERATION: usize = 4096;
const BLOCKS: usize = 33;

/// Two generations of sessions. A session in use moves to the young generation. When that is full it becomes the old one,
/// and the previous old generation is dropped: its sessions were not used while [`GENERATION`] others were.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    young: HashMap<Session, Box<SessionState>>,
    old: HashMap<Session, Box<SessionState>>,
}

#[derive(Debug, Default)]
struct SessionState {
    /// Id of the key last used for the session, and the session key derived from it.
    key: Option<(KeyId, LessSafeKey)>,
    window: Window,
}

impl Sessions {
    /// Returns the key of a session if it was derived from the key with this id.
    pub(super) fn key(&self, session: Session, id: KeyId) -> Option<&LessSafeKey> {
        let known = self.young.get(&session).or_else(|| self.old.get(&session))?;
        known.key.as_ref().filter(|(of, _)| *of == id).map(|(_, key)| key)
    }

    /// Records a counter of a session, and the session's key if it was newly derived. Returns false for a replay and for a
    /// counter behind the window.
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

    /// Drops all derived keys, so that no trace of a removed key is left, nor of one whose id now belongs to another key.
    /// Replay windows are kept.
    pub(super) fn forget_keys(&mut self) {
        for known in self.young.values_mut().chain(self.old.values_mut()) {
            known.key = None;
        }
    }

    /// Reports whether the old generation will be dropped soon.
    pub(super) fn are_crowded(&self) -> bool {
        !self.old.is_empty() && self.young.len() >= GENERATION / 4 * 3
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

/// Replay window of a session: a bit for each of the last [`WINDOW`] counters, in a ring of blocks that is cleared ahead
/// of the highest counter (RFC 6479).
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
    /// Accepts each counter once; 0 is invalid.
    fn admit(&mut self, counter: u64) -> bool {
        let block = |counter: u64| counter / 64;
        if counter == 0 || self.highest.saturating_sub(counter) >= WINDOW {
            return false;
        }
        for passed in (block(self.highest)..block(counter)).take(BLOCKS) {
            self.seen[index(passed + 1)] = 0;
        }
        self.highest = self.highest.max(counter);
        let (block, bit) = (&mut self.seen[index(block(counter))], 1 << (counter % 64));
        let first = *block & bit == 0;
        *block |= bit;
        first
    }
}

/// Index of a block in the ring.
fn index(block: u64) -> usize {
    (block % BLOCKS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replay_window_accepts_each_counter_once() {
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
    fn replay_window_agrees_with_a_set() {
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
