//! What happened last: a bounded list of events with numbers, so that whoever was away for a moment misses nothing, and
//! whoever was away for long is told how much.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::event::Event;

/// Events that are kept: the flips of a large cluster on a bad day, in some megabytes.
pub const KEPT: usize = 4096;

/// An event that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Grows by one with each event, and with every start.
    pub sequence: u64,
    /// When, as time since 1970.
    pub at: Duration,
    /// What.
    pub event: Event,
}

/// The last [`KEPT`] events.
#[derive(Clone, Debug)]
pub struct Journal {
    begin: u64,
    next: u64,
    kept: VecDeque<Arc<Entry>>,
}

/// What there is for somebody who has seen a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// What came before these and is not there any more.
    pub missed: Missed,
    /// In their order.
    pub entries: Vec<Arc<Entry>>,
    /// Up to which number these are all: what has been seen afterwards.
    pub last: u64,
}

/// Events that somebody has not seen and never will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// None.
    Nothing,
    /// So many.
    These(u64),
    /// What was seen is of another run of the agent, or of another agent: nobody knows how many.
    Unknown,
}

impl Journal {
    /// Nothing has happened yet. The numbers begin above `begin`, which has to grow with every start.
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

    /// The number of the last event; what no event of this run has, where there was none.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// At most `most` events that came after the one of that number; 0 is before all.
    pub fn after(&self, seen: u64, most: usize) -> News {
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
        News { missed, entries, last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::Kind;

    #[test]
    fn who_was_away_gets_what_is_kept_and_hears_of_the_rest() {
        let begin = 1000;
        let kept = KEPT as u64;
        // Events that happened, what was seen, what was missed, the first and the last that come.
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
            let news = journal.after(seen, usize::MAX);
            let ends = news.entries.first().zip(news.entries.last()).map(|(a, b)| (a.sequence, b.sequence));
            assert_eq!((news.missed, ends), (missed, expected), "{happened} happened, {seen} was seen");
            assert_eq!(journal.last(), begin + happened);
            assert_eq!(news.last, journal.last());
            let some = journal.after(seen, 2);
            assert!(some.entries.len() <= 2 && news.entries.starts_with(&some.entries));
            assert_eq!(some.last, expected.map_or(begin + happened, |(first, last)| last.min(first + 1)));
        }
    }
}
