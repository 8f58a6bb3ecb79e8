//! Debounce of file events: the changed files, and the time at which to read each of them.
//!
//! Pure and bounded: any number of events of a file is one mark.
//!
//! Each file has its own debounce. A file is read once it has had no event for [`Pace::settle`], so not between two writes
//! of one edit. The wait is [`Pace::longest`] for a file that is still open for writing, or gone (many tools delete and
//! create). A file that never stops changing is read [`Pace::longest`] after its first event.

use std::{
    collections::{HashMap, HashSet},
    ffi::{OsStr, OsString},
    time::{Duration, Instant},
};

/// Debounce times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Wait after the last event of a closed file; also the minimum interval of scans.
    pub(super) settle: Duration,
    /// Wait after the first event of a file that keeps changing, and after the last event of a deleted one.
    pub(super) longest: Duration,
}

/// State of a file after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// Written; more writes may follow.
    Written,
    /// Complete: closed by its writer, renamed to this name, linked.
    Complete,
    /// Another change, such as new permissions.
    Touched,
    /// Deleted, or renamed to another name.
    Gone,
}

/// Marks of changed files and of the folder.
#[derive(Debug)]
pub(super) struct Pending {
    pace: Pace,
    /// Maximum number of names. Beyond it the whole folder is scanned.
    max_names: usize,
    files: HashMap<OsString, Mark>,
    folder: Option<Mark>,
    rearm: bool,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    first: Instant,
    last: Instant,
    sign: Sign,
}

/// Files to scan.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Files to read even if their metadata are unchanged.
    pub(super) named: HashSet<OsString>,
    /// Files to leave unread: their debounce is running.
    pub(super) held: HashSet<OsString>,
    /// Scan all files, and read those whose metadata changed.
    pub(super) scan: bool,
    /// Read every file even if its metadata are unchanged.
    pub(super) reread: bool,
    /// Renew the inotify watches.
    pub(super) rearm: bool,
}

impl Work {
    /// Reports whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty() && !self.scan
    }
}

impl Pending {
    /// Creates an empty set with room for `max_names` names.
    pub(super) fn new(pace: Pace, max_names: usize) -> Self {
        Self { pace, max_names, files: HashMap::new(), folder: None, rearm: false }
    }

    /// Reports whether nothing is marked.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.folder.is_none()
    }

    /// Marks one file.
    pub(super) fn file(&mut self, name: &OsStr, sign: Sign, now: Instant) {
        if let Some(mark) = self.files.get_mut(name) {
            mark.update(sign, now);
        } else if self.files.len() < self.max_names {
            self.files.insert(name.to_owned(), Mark { first: now, last: now, sign });
        } else {
            self.folder(Sign::Touched, now);
        }
    }

    /// Marks the folder as a whole after an event on it or on a link target.
    pub(super) fn folder(&mut self, sign: Sign, now: Instant) {
        // A vanished folder needs no longer debounce: its contents have a grace period.
        let sign = if sign == Sign::Gone { Sign::Complete } else { sign };
        match &mut self.folder {
            Some(mark) => mark.update(sign, now),
            None => self.folder = Some(Mark { first: now, last: now, sign }),
        }
    }

    /// Marks the folder after an event that makes inotify watches stale.
    pub(super) fn rearm(&mut self, sign: Sign, now: Instant) {
        self.folder(sign, now);
        self.rearm = true;
    }

    /// Takes the marks that are due. Also returns when to call again if other marks remain.
    pub(super) fn take(&mut self, now: Instant) -> (Work, Option<Instant>) {
        let pace = self.pace;
        let mut work = Work::default();
        let mut next: Option<Instant> = None;
        if let Some(mark) = self.folder {
            if mark.due(pace) <= now {
                work.scan = true;
                work.rearm = std::mem::take(&mut self.rearm);
                self.folder = None;
            } else {
                next = Some(mark.due(pace));
            }
        }
        self.files.retain(|name, mark| {
            let due = mark.due(pace);
            if due <= now {
                work.named.insert(name.clone());
                return false;
            }
            work.held.insert(name.clone());
            next = Some(next.map_or(due, |next| next.min(due)));
            true
        });
        // The next event can bring the due time of a file forward to `settle` from now.
        (work, next.map(|next| next.min(now + pace.settle)))
    }
}

impl Mark {
    fn update(&mut self, sign: Sign, now: Instant) {
        self.last = now;
        if sign != Sign::Touched {
            self.sign = sign;
        }
    }

    fn due(self, pace: Pace) -> Instant {
        let latest = self.first + pace.longest;
        match self.sign {
            Sign::Written => latest,
            Sign::Complete | Sign::Touched => latest.min(self.last + pace.settle),
            Sign::Gone => self.last + pace.longest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Sign::*, *};

    const PACE: Pace = Pace { settle: Duration::from_millis(25), longest: Duration::from_millis(100) };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn names(names: &HashSet<OsString>) -> Vec<&str> {
        let mut names: Vec<_> = names.iter().filter_map(|name| name.to_str()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn file_is_due_after_its_debounce() {
        type Events = &'static [(u64, Sign)];
        let cases: &[(&str, Events, u64)] = &[
            ("renamed over", &[(0, Complete)], 25),
            ("written and closed", &[(0, Written), (1, Complete)], 26),
            ("chmod", &[(0, Touched)], 25),
            ("two edits in a row", &[(0, Complete), (20, Complete)], 45),
            ("being written", &[(0, Written), (60, Written)], 100),
            ("being written, chmod", &[(0, Written), (1, Touched)], 100),
            ("closed late", &[(0, Written), (60, Complete)], 85),
            ("keeps changing", &[(0, Complete), (20, Complete), (40, Complete), (60, Complete), (80, Complete)], 100),
            ("deleted", &[(0, Gone)], 100),
            ("deleted and created", &[(0, Gone), (30, Written), (31, Complete)], 56),
            ("written, then deleted", &[(0, Written), (90, Gone)], 190),
        ];
        let start = Instant::now();
        for (case, events, due) in cases {
            let mut pending = Pending::new(PACE, 10);
            for (at, sign) in *events {
                pending.file(OsStr::new("web.yaml"), *sign, start + ms(*at));
            }
            let (early, _) = pending.take(start + ms(due - 1));
            assert_eq!((names(&early.named), names(&early.held)), (vec![], vec!["web.yaml"]), "{case}");
            let (work, next) = pending.take(start + ms(*due));
            assert_eq!((names(&work.named), names(&work.held)), (vec!["web.yaml"], vec![]), "{case}");
            assert!(next.is_none() && pending.is_empty() && !work.scan, "{case}");
        }
    }

    #[test]
    fn next_call_is_at_most_one_settle_time_away() {
        let start = Instant::now();
        let mut pending = Pending::new(PACE, 10);
        pending.file(OsStr::new("open.yaml"), Written, start);
        pending.file(OsStr::new("whole.yaml"), Complete, start + ms(10));
        assert_eq!(pending.take(start + ms(20)).1, Some(start + ms(35)));
        let (work, next) = pending.take(start + ms(35));
        assert_eq!((names(&work.named), names(&work.held)), (vec!["whole.yaml"], vec!["open.yaml"]));
        assert_eq!(next, Some(start + ms(60)), "an event could end its debounce");
        assert_eq!(pending.take(start + ms(90)).1, Some(start + ms(100)));
    }

    #[test]
    fn folder_events_are_debounced_and_rearm_once() {
        let start = Instant::now();
        let mut pending = Pending::new(PACE, 10);
        pending.rearm(Gone, start);
        pending.folder(Complete, start + ms(10));
        assert!(pending.take(start + ms(34)).0.is_empty());
        let (work, next) = pending.take(start + ms(35));
        assert!(work.scan && work.rearm && next.is_none());
        pending.folder(Complete, start + ms(40));
        let (work, _) = pending.take(start + ms(65));
        assert!(work.scan && !work.rearm);
    }

    #[test]
    fn names_beyond_the_bound_become_a_folder_scan() {
        let start = Instant::now();
        let mut pending = Pending::new(PACE, 2);
        for name in ["a.yaml", "b.yaml", "c.yaml", "d.yaml"] {
            pending.file(OsStr::new(name), Complete, start);
        }
        let (work, _) = pending.take(start + ms(25));
        assert_eq!(names(&work.named), ["a.yaml", "b.yaml"]);
        assert!(work.scan && pending.is_empty());
    }
}
