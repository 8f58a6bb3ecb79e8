//! Metrics of watched folders: reloads, and files with problems.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{Family, counter::Writers};

/// Watched folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// Service files.
    Services,
    /// Zone files.
    Zones,
    /// Tokens of the HTTP API.
    Tokens,
    /// TSIG keys.
    Keys,
    /// Keys of signed zones.
    DnssecKeys,
}

const FOLDERS: [&str; 5] = ["services", "zones", "tokens", "keys", "dnssec_keys"];
/// Outcomes of a reload.
const OUTCOMES: [&str; 2] = ["good", "problems"];
/// Severities of problems.
const SEVERITIES: [&str; 2] = ["error", "warning"];

#[derive(Debug, Default)]
struct Counts {
    reloads: [AtomicU64; OUTCOMES.len()],
    problems: [AtomicU64; SEVERITIES.len()],
}

/// Metrics of all folders of an agent.
#[derive(Clone, Debug, Default)]
pub struct Folders(Arc<[Counts; FOLDERS.len()]>);

/// Handle for one folder.
#[derive(Clone, Debug)]
pub struct Watched(Folders, Folder);

impl Folders {
    /// Returns the handle for one folder.
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
                "Number of reads of a folder, at the start and after changes, by outcome",
                each("outcome", &OUTCOMES, |counts| &counts.reloads),
            ),
            Family::gauges(
                "muster_files_with_problems",
                "Number of files with problems; after an error, the last valid content of the file stays in use",
                each("severity", &SEVERITIES, |counts| &counts.problems),
            ),
        ]
    }
}

impl Watched {
    /// Records a read with the numbers of files with errors, and of other files with warnings.
    pub fn read(&self, errors: usize, warnings: usize) {
        let counts = &self.0.0[self.1 as usize];
        Writers::Many.add(&counts.reloads[usize::from(errors > 0)], 1);
        for (number, files) in counts.problems.iter().zip([errors, warnings]) {
            number.store(files as u64, Ordering::Relaxed);
        }
    }
}
