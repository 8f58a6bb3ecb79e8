//! Grace period: the files that stay in use while their folder is missing.
//!
//! Pure. A deleted file is withdrawn at once: the deletion is deliberate. A vanished folder is more often one that a
//! deployment tool replaces, or a late mount, and must not withdraw every service of the node. So its files stay in use for
//! [`GRACE`]. Files that return in that time replace them one by one; the rest is withdrawn at the end. An empty folder with
//! a new identity is treated alike: it is seen between `mkdir` and the first copied file, and on a lost mount.
//!
//! A folder that is replaced by another with files takes effect at once.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use super::symlinks::Identity;
use crate::files::contents::FileText;

/// Grace period of a vanished folder: long enough for a deployment to write it again, short enough to see a deliberate
/// removal take effect.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// Files of a folder by path.
pub(super) type Files = imbl::OrdMap<PathBuf, Arc<FileText>>;

/// Result of a folder scan.
pub(super) enum Seen {
    /// The files, and the identity of the folder.
    Files(Files, Option<Identity>),
    /// No folder.
    Missing,
    /// The folder exists and cannot be listed.
    Unreadable,
}

/// Files in use, and until when if the folder is gone.
pub(super) struct GracePeriod {
    length: Duration,
    in_use: Files,
    folder: Option<Identity>,
    until: Option<Instant>,
}

impl GracePeriod {
    /// Creates a state without files and with a grace period of `length`.
    pub(super) fn new(length: Duration) -> Self {
        Self { length, in_use: Files::new(), folder: None, until: None }
    }

    /// Returns the end of the running grace period.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Length of the grace period.
    pub(super) fn length(&self) -> Duration {
        self.length
    }

    /// Updates the files in use after the scan `seen` at `now`.
    pub(super) fn update(&mut self, seen: Seen, now: Instant) -> &Files {
        let (files, listed) = match seen {
            // No file was deleted.
            Seen::Unreadable => return &self.in_use,
            Seen::Missing => (Files::new(), None),
            Seen::Files(files, folder) => (files, Some(folder)),
        };
        if self.until.is_none() {
            let replaced_by_nothing = match listed {
                None => true,
                Some(folder) => files.is_empty() && folder != self.folder,
            };
            if replaced_by_nothing && !self.in_use.is_empty() {
                self.until = Some(now + self.length);
            }
        }
        match self.until {
            Some(until) if now < until && self.in_use.keys().any(|path| !files.contains_key(path)) => {
                self.in_use = files.union(self.in_use.clone());
            }
            _ => {
                self.until = None;
                self.in_use = files;
            }
        }
        if let Some(folder) = listed {
            self.folder = folder;
        }
        &self.in_use
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(5);

    /// One step of a case: seconds since the start, the scan, and the expected files.
    struct Step(u64, Scan, &'static str);

    enum Scan {
        /// `a1 b1`: names and contents; then the identity of the folder.
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
    fn files_of_a_vanished_folder_have_a_grace_period() {
        use Scan::*;
        let cases: &[(&str, &[Step])] = &[
            (
                "files are deleted at once, also the last",
                &[Step(0, Files("a1 b1", 1), "a1 b1"), Step(1, Files("b1", 1), "b1"), Step(2, Files("", 1), "")],
            ),
            (
                "a folder that does not return",
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
                "vanished again during the grace period: the first time counts",
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
            for Step(second, scan, expected) in *steps {
                let seen = match scan {
                    Files(text, identity) => Seen::Files(files(text), Some(Identity::of_test(*identity))),
                    Missing => Seen::Missing,
                    Unreadable => Seen::Unreadable,
                };
                let in_use = grace.update(seen, start + Duration::from_secs(*second));
                assert_eq!(in_use, &files(expected), "{case}, second {second}");
            }
        }
    }

    #[test]
    fn end_is_known_only_during_the_grace_period() {
        let start = Instant::now();
        let mut grace = GracePeriod::new(LENGTH);
        grace.update(Seen::Files(files("a1"), Some(Identity::of_test(1))), start);
        assert_eq!(grace.until(), None);
        grace.update(Seen::Missing, start);
        assert_eq!(grace.until(), Some(start + LENGTH));
        grace.update(Seen::Files(files("a2"), Some(Identity::of_test(2))), start);
        assert_eq!(grace.until(), None, "all are back");
        grace.update(Seen::Missing, start);
        grace.update(Seen::Missing, start + LENGTH);
        assert_eq!(grace.until(), None, "withdrawn");
    }
}
