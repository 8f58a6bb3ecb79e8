//! Files that are read again when they change: how often, and how many have problems.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{Family, writers::Writers};

/// The folders that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// Service files.
    Services,
    /// Zone files.
    Zones,
    /// Files with tokens for the HTTP API.
    Tokens,
}

const FOLDERS: [&str; 3] = ["services", "zones", "tokens"];
/// How a reload ended, and what problems do to a file.
const OUTCOMES: [&str; 2] = ["good", "problems"];
const SEVERITIES: [&str; 2] = ["error", "warning"];

#[derive(Debug, Default)]
struct Counts {
    reloads: [AtomicU64; OUTCOMES.len()],
    problems: [AtomicU64; SEVERITIES.len()],
}

/// All folders of an agent.
#[derive(Clone, Debug, Default)]
pub struct Folders(Arc<[Counts; FOLDERS.len()]>);

/// One of them, for who reads it.
#[derive(Clone, Debug)]
pub struct Watched(Folders, Folder);

impl Folders {
    /// One of them.
    pub fn of(&self, folder: Folder) -> Watched {
        Watched(self.clone(), folder)
    }

    pub(super) fn families(&self) -> [Family; 2] {
        let each = |label: &'static str, words: &'static [&'static str], numbers: fn(&Counts) -> &[AtomicU64]| {
            FOLDERS.iter().zip(self.0.iter()).flat_map(move |(folder, counts)| {
                let each = words.iter().zip(numbers(counts));
                each.map(move |(word, number)| ([("folder", *folder), (label, *word)], number.load(Ordering::Relaxed)))
            })
        };
        [
            Family::counters(
                "muster_reloads",
                "How often a folder was read, at the start and when something changed, by outcome",
                each("outcome", &OUTCOMES, |counts| &counts.reloads),
            ),
            Family::gauges(
                "muster_files_with_problems",
                "Files with problems: an error keeps what the file last said well, a warning is taken as it is",
                each("severity", &SEVERITIES, |counts| &counts.problems),
            ),
        ]
    }
}

impl Watched {
    /// The folder was read: so many of its files cannot be used, and so many others can, with a warning.
    pub fn read(&self, errors: usize, warnings: usize) {
        let counts = &self.0.0[self.1 as usize];
        Writers::Many.add(&counts.reloads[usize::from(errors > 0)], 1);
        for (number, files) in counts.problems.iter().zip([errors, warnings]) {
            number.store(files as u64, Ordering::Relaxed);
        }
    }
}
