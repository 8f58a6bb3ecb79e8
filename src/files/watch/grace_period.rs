//! What is in service while a folder is gone.
//!
//! Pure. A file that is deleted is withdrawn at once: somebody meant it. A whole folder that vanishes is more often a
//! deploy tool that removes and creates it, or a mount that is late, and must not withdraw every service of the node
//! for an instant. So what it held stays for [`GRACE`]; what comes back within that time replaces it file by file,
//! and the rest is withdrawn at its end. The same goes for a folder that is another one than before and empty: that
//! is what is seen between `mkdir` and the first copied file, and where a mount point has lost its mount.
//!
//! A folder that is replaced by another with files in it is taken as it is, at once.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use super::symlinks::Identity;
use crate::files::contents::FileText;

/// How long the files of a folder that has vanished stay in service: what a deploy takes to write it again, and short
/// enough for someone who removed it on purpose to see that it works.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// A folder's files.
pub(super) type Files = imbl::OrdMap<PathBuf, Arc<FileText>>;

/// What was seen of the folder.
pub(super) enum Seen {
    /// It was listed.
    Files(Files, Option<Identity>),
    /// There is none.
    Missing,
    /// It is there and cannot be listed.
    Unreadable,
}

/// What is in service, and for how long if the folder is gone.
pub(super) struct GracePeriod {
    length: Duration,
    shown: Files,
    folder: Option<Identity>,
    until: Option<Instant>,
}

impl GracePeriod {
    /// Nothing is in service; vanished files will stay for `length`.
    pub(super) fn new(length: Duration) -> Self {
        Self { length, shown: Files::new(), folder: None, until: None }
    }

    /// When files will be withdrawn; `None` while none are kept.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// How long files are kept.
    pub(super) fn length(&self) -> Duration {
        self.length
    }

    /// What is in service after the folder was `seen` at `now`.
    pub(super) fn show(&mut self, seen: Seen, now: Instant) -> &Files {
        let (files, listed) = match seen {
            // Nobody has deleted anything.
            Seen::Unreadable => return &self.shown,
            Seen::Missing => (Files::new(), None),
            Seen::Files(files, folder) => (files, Some(folder)),
        };
        if self.until.is_none() {
            let replaced_by_nothing = match listed {
                None => true,
                Some(folder) => files.is_empty() && folder != self.folder,
            };
            if replaced_by_nothing && !self.shown.is_empty() {
                self.until = Some(now + self.length);
            }
        }
        match self.until {
            Some(until) if now < until && self.shown.keys().any(|path| !files.contains_key(path)) => {
                self.shown = files.union(self.shown.clone());
            }
            _ => {
                self.until = None;
                self.shown = files;
            }
        }
        if let Some(folder) = listed {
            self.folder = folder;
        }
        &self.shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(5);

    /// One step of a story: after so many seconds, what was seen, what is then in service.
    struct Step(u64, See, &'static str);

    enum See {
        /// `a1 b1`: files with their content; the folder's identity.
        Files(&'static str, u64),
        Missing,
        Unreadable,
    }

    fn files(text: &str) -> Files {
        text.split_whitespace()
            .map(|file| (PathBuf::from(&file[..1]), Arc::new(Ok(file.as_bytes()[1..].into()))))
            .collect()
    }

    #[test]
    fn what_a_vanished_folder_held_is_kept_for_a_while() {
        use See::*;
        let cases: &[(&str, &[Step])] = &[
            (
                "files are deleted at once, also the last",
                &[Step(0, Files("a1 b1", 1), "a1 b1"), Step(1, Files("b1", 1), "b1"), Step(2, Files("", 1), "")],
            ),
            (
                "a folder that is gone for good",
                &[
                    Step(0, Files("a1 b1", 1), "a1 b1"),
                    Step(1, Missing, "a1 b1"),
                    Step(5, Missing, "a1 b1"),
                    Step(6, Missing, ""),
                    Step(7, Missing, ""),
                    Step(8, Files("b2", 2), "b2"),
                ],
            ),
            (
                "a folder that comes back, file by file",
                &[
                    Step(0, Files("a1 b1", 1), "a1 b1"),
                    Step(1, Missing, "a1 b1"),
                    Step(2, Files("", 2), "a1 b1"),
                    Step(3, Files("a2 c2", 2), "a2 b1 c2"),
                    Step(4, Files("a2 b2 c2", 2), "a2 b2 c2"),
                    Step(5, Files("b2", 2), "b2"),
                ],
            ),
            (
                "a folder that comes back without a file",
                &[
                    Step(0, Files("a1 b1", 1), "a1 b1"),
                    Step(1, Missing, "a1 b1"),
                    Step(2, Files("a1", 2), "a1 b1"),
                    Step(6, Files("a1", 2), "a1"),
                ],
            ),
            (
                "vanished again within the time: the first time counts",
                &[
                    Step(0, Files("a1 b1", 1), "a1 b1"),
                    Step(1, Missing, "a1 b1"),
                    Step(2, Files("a1", 2), "a1 b1"),
                    Step(5, Missing, "a1 b1"),
                    Step(6, Missing, ""),
                ],
            ),
            ("replaced by another", &[Step(0, Files("a1 b1", 1), "a1 b1"), Step(1, Files("b2", 2), "b2")]),
            (
                "replaced by an empty one",
                &[
                    Step(0, Files("a1 b1", 1), "a1 b1"),
                    Step(1, Files("", 2), "a1 b1"),
                    Step(2, Files("", 2), "a1 b1"),
                    Step(6, Files("", 2), ""),
                ],
            ),
            (
                "unreadable for long",
                &[
                    Step(0, Files("a1 b1", 1), "a1 b1"),
                    Step(1, Unreadable, "a1 b1"),
                    Step(60, Unreadable, "a1 b1"),
                    Step(61, Files("b2", 1), "b2"),
                ],
            ),
            ("never there", &[Step(0, Missing, ""), Step(1, Files("", 1), ""), Step(2, Files("a1", 1), "a1")]),
        ];
        let start = Instant::now();
        for (case, steps) in cases {
            let mut grace = GracePeriod::new(LENGTH);
            for Step(second, see, expected) in *steps {
                let seen = match see {
                    Files(text, identity) => Seen::Files(files(text), Some(Identity::of_test(*identity))),
                    Missing => Seen::Missing,
                    Unreadable => Seen::Unreadable,
                };
                let shown = grace.show(seen, start + Duration::from_secs(*second));
                assert_eq!(shown, &files(expected), "{case}, second {second}");
            }
        }
    }

    #[test]
    fn the_end_is_known_while_files_are_kept_and_only_then() {
        let start = Instant::now();
        let mut grace = GracePeriod::new(LENGTH);
        grace.show(Seen::Files(files("a1"), Some(Identity::of_test(1))), start);
        assert_eq!(grace.until(), None);
        grace.show(Seen::Missing, start);
        assert_eq!(grace.until(), Some(start + LENGTH));
        grace.show(Seen::Files(files("a2"), Some(Identity::of_test(2))), start);
        assert_eq!(grace.until(), None, "all are back");
        grace.show(Seen::Missing, start);
        grace.show(Seen::Missing, start + LENGTH);
        assert_eq!(grace.until(), None, "withdrawn");
    }
}
