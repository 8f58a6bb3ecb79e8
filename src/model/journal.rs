//! Journal of recent events: bounded and numbered. A client that reconnects soon misses no event; after a longer absence it
//! learns how many events it missed.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::event::Event;

/// Number of events kept: the flips of a large cluster in an outage, in a few megabytes.
pub const KEPT: usize = 4096;

/// A numbered event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Sequence number. Grows by one with each event and is higher after a restart.
    pub sequence: u64,
    /// Time of the event, since 1970.
    pub at: Duration,
    /// The event itself.
    pub event: Event,
}

/// The last [`KEPT`] events.
#[derive(Clone, Debug)]
pub struct Journal {
    begin: u64,
    next: u64,
    kept: VecDeque<Arc<Entry>>,
}

/// Events after a given sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Events between the given number and `entries` that are no longer kept.
    pub missed: Missed,
    /// Entries in order.
    pub entries: Vec<Arc<Entry>>,
    /// Last sequence number covered: the number to pass next time.
    pub last: u64,
}

/// Number of events that a client has missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// None.
    Nothing,
    /// Number of missed events.
    These(u64),
    /// Unknown: the sequence number is from another run of the agent, or from another agent.
    Unknown,
}

impl Journal {
    /// Returns an empty journal. Sequence numbers begin above `begin`, which has to grow with every start.
    pub fn new(begin: u64) -> Self {
        Self { begin, next: begin + 1, kept: VecDeque::new() }
    }

    /// Adds an event.
    pub fn add(&mut self, at: Duration, event: Event) {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::new(Entry { sequence: self.next, at, event }));
        self.next += 1;
    }

    /// Returns the sequence number of the last event; without events, a number below that of the first.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// Returns at most `most` events after sequence number `seen`; 0 is before all events.
    pub fn after(&self, seen: u64, most: usize) -> Batch {
        let oldest = self.next - self.kept.len() as u64;
        let missed = match seen {
            0 => Missed::Nothing,
            _ if seen < self.begin || seen >= self.next => Missed::Unknown,
            _ => match oldest.saturating_sub(seen + 1) {
                0 => Missed::Nothing,
                these => Missed::These(these),
            },
        };
        let from = if missed == Missed::Unknown { oldest } else { oldest.max(seen + 1) };
        let known = usize::try_from(from - oldest).unwrap_or(usize::MAX);
        let entries: Vec<Arc<Entry>> = self.kept.iter().skip(known).take(most).cloned().collect();
        let last = entries.last().map_or(self.last(), |entry| entry.sequence);
        Batch { missed, entries, last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::Kind;

    #[test]
    fn a_client_gets_kept_events_and_the_number_of_missed_ones() {
        let begin = 1000;
        let kept = KEPT as u64;
        // Number of events, last one seen, number missed, first and last one returned.
        let cases = [
            (0, 1000, Missed::Nothing, None),
            (0, 0, Missed::Nothing, None),
            (3, 0, Missed::Nothing, Some((1001, 1003))),
            (3, 1000, Missed::Nothing, Some((1001, 1003))),
            (3, 1001, Missed::Nothing, Some((1002, 1003))),
            (3, 1003, Missed::Nothing, None),
            (3, 1004, Missed::Unknown, Some((1001, 1003))),
            (3, u64::MAX, Missed::Unknown, Some((1001, 1003))),
            (3, 999, Missed::Unknown, Some((1001, 1003))),
            (kept, 1000, Missed::Nothing, Some((1001, 1000 + kept))),
            (kept + 5, 1000, Missed::These(5), Some((1006, 1005 + kept))),
            (kept + 5, 1003, Missed::These(2), Some((1006, 1005 + kept))),
            (kept + 5, 1005, Missed::Nothing, Some((1006, 1005 + kept))),
            (kept + 5, 0, Missed::Nothing, Some((1006, 1005 + kept))),
        ];
        for (happened, seen, missed, expected) in cases {
            let mut journal = Journal::new(begin);
            for number in 0..happened {
                journal.add(Duration::from_secs(number), Event::new(Kind::PartitionBegan, "x"));
            }
            let batch = journal.after(seen, usize::MAX);
            let ends = batch.entries.first().zip(batch.entries.last()).map(|(a, b)| (a.sequence, b.sequence));
            assert_eq!((batch.missed, ends), (missed, expected), "{happened} events, {seen} seen");
            assert_eq!(journal.last(), begin + happened);
            assert_eq!(batch.last, journal.last());
            let some = journal.after(seen, 2);
            assert!(some.entries.len() <= 2 && batch.entries.starts_with(&some.entries));
            assert_eq!(some.last, expected.map_or(begin + happened, |(first, last)| last.min(first + 1)));
        }
    }
}
