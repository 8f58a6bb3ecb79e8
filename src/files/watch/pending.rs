//! What events have named and nobody has looked at yet, and when to look.
//!
//! Pure, and bounded: an event only marks its subject here, so any number of events is one set of marks.
//!
//! Each file waits for itself. A look comes as soon as the file was quiet for a moment, so that it is not read
//! between two writes of one edit; later, if it is being written (no close was seen) or is gone (many tools delete and
//! create); but never later than [`Pace::longest`] after the event, so that a file that never comes to rest is read.

use std::{
    collections::{HashMap, HashSet},
    ffi::{OsStr, OsString},
    time::{Duration, Instant},
};

/// How long to wait before a look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// After the last event of a file that is closed; also from one look to the next.
    pub(super) settle: Duration,
    /// After the first event of a file that is not at rest, and after the last of one that is gone.
    pub(super) longest: Duration,
}

/// What an event says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// Written, and perhaps not for the last time.
    Written,
    /// Complete: closed by its writer, renamed to this name, linked.
    Complete,
    /// Something that says neither, such as new permissions.
    Touched,
    /// Deleted, or renamed to another name.
    Gone,
}

/// The marks.
#[derive(Debug)]
pub(super) struct Pending {
    pace: Pace,
    /// More names than these are not remembered: the folder as a whole is looked at instead.
    most: usize,
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

/// What to look at.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Files to read, whatever their metadata say.
    pub(super) named: HashSet<OsString>,
    /// Files to leave as they are for now.
    pub(super) held: HashSet<OsString>,
    /// Look at every file's metadata, and read those that differ.
    pub(super) scan: bool,
    /// Read every file, whatever its metadata say.
    pub(super) distrust: bool,
    /// Ask the kernel anew to be told of events.
    pub(super) rearm: bool,
}

impl Work {
    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty() && !self.scan
    }
}

impl Pending {
    /// No marks, and room for `most` names.
    pub(super) fn new(pace: Pace, most: usize) -> Self {
        Self { pace, most, files: HashMap::new(), folder: None, rearm: false }
    }

    /// Whether nothing is marked.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.folder.is_none()
    }

    /// Marks one file.
    pub(super) fn file(&mut self, name: &OsStr, sign: Sign, now: Instant) {
        if let Some(mark) = self.files.get_mut(name) {
            mark.update(sign, now);
        } else if self.files.len() < self.most {
            self.files.insert(name.to_owned(), Mark { first: now, last: now, sign });
        } else {
            self.folder(Sign::Touched, now);
        }
    }

    /// Marks the folder as a whole, because of an event of it or of what its links lead to.
    pub(super) fn folder(&mut self, sign: Sign, now: Instant) {
        // A folder that is gone needs no second thoughts: its contents are kept for longer than a moment anyway.
        let sign = if sign == Sign::Gone { Sign::Complete } else { sign };
        match &mut self.folder {
            Some(mark) => mark.update(sign, now),
            None => self.folder = Some(Mark { first: now, last: now, sign }),
        }
    }

    /// The same for an event after which the kernel may not tell of all others.
    pub(super) fn rearm(&mut self, sign: Sign, now: Instant) {
        self.folder(sign, now);
        self.rearm = true;
    }

    /// What is due, its marks removed; and when to come again, if there are others.
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
        // The next event can bring a file's time forward, to a moment's rest after now.
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
    fn a_file_is_due_when_it_rests_and_never_later_than_the_longest_wait() {
        type Events = &'static [(u64, Sign)];
        let cases: &[(&str, Events, u64)] = &[
            ("renamed over", &[(0, Complete)], 25),
            ("written and closed", &[(0, Written), (1, Complete)], 26),
            ("chmod", &[(0, Touched)], 25),
            ("two edits in a row", &[(0, Complete), (20, Complete)], 45),
            ("being written", &[(0, Written), (60, Written)], 100),
            ("being written, chmod", &[(0, Written), (1, Touched)], 100),
            ("closed late", &[(0, Written), (60, Complete)], 85),
            ("never at rest", &[(0, Complete), (20, Complete), (40, Complete), (60, Complete), (80, Complete)], 100),
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
    fn the_next_look_is_when_something_is_due_but_not_later_than_a_moment() {
        let start = Instant::now();
        let mut pending = Pending::new(PACE, 10);
        pending.file(OsStr::new("open.yaml"), Written, start);
        pending.file(OsStr::new("whole.yaml"), Complete, start + ms(10));
        assert_eq!(pending.take(start + ms(20)).1, Some(start + ms(35)));
        let (work, next) = pending.take(start + ms(35));
        assert_eq!((names(&work.named), names(&work.held)), (vec!["whole.yaml"], vec!["open.yaml"]));
        assert_eq!(next, Some(start + ms(60)), "an event could end its waiting");
        assert_eq!(pending.take(start + ms(90)).1, Some(start + ms(100)));
    }

    #[test]
    fn events_of_the_folder_wait_for_a_moment_and_ask_to_rearm_once() {
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
    fn more_names_than_there_is_room_for_become_a_look_at_the_folder() {
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
