//! Repeats pushes of small changes: a datagram may be lost, and anti-entropy may be busy with the state of a node that has
//! just started.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Task,
    outgoing::{PUSH, change_of},
};
use crate::gossip::anti_entropy::Entry;

/// Transmissions of a change: at 20 % loss, 1 of 600 is lost in all of them.
const TRANSMISSIONS: u32 = 4;

/// Changes that are pushed again, at most as many as fit one push; others are left to anti-entropy.
#[derive(Default)]
pub(super) struct Repeats {
    /// Newest change of each key, with the number of transmissions left.
    pending: Vec<(Entry, u32)>,
    /// Time of the next transmission.
    due: Option<Instant>,
}

impl Repeats {
    /// Adds changes that have been pushed just now.
    fn add(&mut self, entries: &[Entry], now: Instant, interval: Duration) {
        self.pending.retain(|(known, _)| entries.iter().all(|entry| entry.key != known.key));
        let len = |entry: &Entry| change_of(entry).encoded_len();
        let mut octets: usize = self.pending.iter().map(|(entry, _)| len(entry)).sum();
        octets += entries.iter().map(len).sum::<usize>();
        if octets <= PUSH {
            self.pending.extend(entries.iter().map(|entry| (entry.clone(), TRANSMISSIONS - 1)));
            self.due.get_or_insert(now + interval);
        }
    }

    /// Reports whether a transmission is due at some time.
    pub(super) fn is_pending(&self) -> bool {
        self.due.is_some()
    }

    /// Takes the changes to push now, in ascending order of versions.
    fn take_due(&mut self, now: Instant, interval: Duration) -> Vec<Entry> {
        if self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        let entries = self.pending.iter().map(|(entry, _)| entry.clone()).collect();
        self.pending.iter_mut().for_each(|(_, left)| *left -= 1);
        self.pending.retain(|(_, left)| *left > 0);
        self.due = (!self.pending.is_empty()).then(|| now + interval);
        entries
    }
}

impl Task {
    /// Pushes changes to all reachable peers, and again in the next gossip intervals.
    pub(super) fn push_repeatedly(&mut self, entries: &[Entry]) {
        self.push(entries);
        self.repeats.add(entries, Instant::now(), self.settings.interval);
    }

    /// Repeats pushes that are due.
    pub(super) fn repeat_pushes(&mut self) {
        let entries = self.repeats.take_due(Instant::now(), self.settings.interval);
        self.push(&entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(200);

    fn entry(key: &str, version: u64, value: &str) -> Entry {
        Entry { key: key.to_owned(), version, value: Some(value.to_owned()) }
    }

    #[tokio::test(start_paused = true)]
    async fn change_is_repeated_a_bounded_number_of_times() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let (a, b) = (entry("a", 1, "x"), entry("b", 2, "y"));
        repeats.add(std::slice::from_ref(&a), start, INTERVAL);
        repeats.add(std::slice::from_ref(&b), start, INTERVAL);
        assert_eq!(repeats.take_due(start + INTERVAL / 2, INTERVAL), []);
        for round in 1..TRANSMISSIONS {
            assert_eq!(repeats.take_due(start + round * INTERVAL, INTERVAL), [a.clone(), b.clone()], "{round}");
        }
        assert_eq!(repeats.take_due(start + 9 * INTERVAL, INTERVAL), []);
    }

    #[tokio::test(start_paused = true)]
    async fn newest_change_of_a_key_replaces_the_former_one() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        repeats.add(&[entry("a", 1, "x"), entry("b", 2, "x")], start, INTERVAL);
        repeats.add(&[entry("a", 3, "y")], start, INTERVAL);
        let expected = [entry("b", 2, "x"), entry("a", 3, "y")];
        assert_eq!(repeats.take_due(start + INTERVAL, INTERVAL), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn bulk_is_left_to_anti_entropy() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        repeats.add(&[entry("a", 1, &"x".repeat(PUSH / 2))], start, INTERVAL);
        repeats.add(&[entry("b", 2, &"x".repeat(PUSH / 2))], start, INTERVAL);
        let keys: Vec<_> = repeats.take_due(start + INTERVAL, INTERVAL).into_iter().map(|entry| entry.key).collect();
        assert_eq!(keys, ["a"]);
    }
}
