//! History of keys: the changes of recent revisions, and the revisions at which absent keys were deleted.

use std::cmp::Ordering;

use imbl::{OrdMap, Vector};

use crate::store::{
    key::{Key, KeyRange, Revision},
    watch::Change,
};

/// Number of revisions that are kept: enough for a watch that reconnects, and for reads of the recent past.
pub(super) const MAX_REVISIONS: u64 = 50_000;
/// Share of the octets of the store that the history may occupy: one part in this number.
const SHARE: u64 = 4;
/// Octets that a change or a tombstone occupies besides its key and its previous value.
const CHANGE_OCTETS: u64 = 128;
/// Number of tombstones at which the older half is dropped. A prefix query reads all within its prefix.
pub(super) const MAX_TOMBSTONES: usize = 20_000;

/// History of keys.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct History {
    /// Changes from revision `first` to revision `last`, in order; none for a revision that changed sessions only.
    changes: Vector<Change>,
    first: Revision,
    last: Revision,
    /// Octets of the changes. A value counts at the change that replaced it.
    octets: u64,
    /// Revisions at which absent keys were deleted.
    tombstones: OrdMap<Key, Revision>,
    /// Octets of the tombstones.
    tombstone_octets: u64,
    /// Greatest revision of a tombstone that was dropped. An absent key was last changed at this revision or before.
    forgotten: Revision,
}

impl History {
    /// Returns a history that begins with this revision, at which nothing changed.
    pub(super) fn new(first: Revision) -> Self {
        Self {
            changes: Vector::new(),
            first,
            last: first,
            octets: 0,
            tombstones: OrdMap::new(),
            tombstone_octets: 0,
            forgotten: first,
        }
    }

    /// First revision whose changes are kept.
    pub(super) fn first(&self) -> Revision {
        self.first
    }

    /// Octets of the changes and the tombstones.
    pub(super) fn octets(&self) -> u64 {
        self.octets + self.tombstone_octets
    }

    /// Adds the changes of revisions up to this one, which follow the last one.
    pub(super) fn append(&mut self, last: Revision, changes: Vec<Change>) {
        self.octets += changes.iter().map(change_octets).sum::<u64>();
        self.changes.extend(changes);
        self.last = last;
    }

    /// Changes after a revision, in order.
    pub(super) fn changes(&self, after: Revision) -> impl DoubleEndedIterator<Item = &Change> {
        let side = |change: &Change| if change.revision <= after { Ordering::Less } else { Ordering::Greater };
        let start = self.changes.binary_search_by(side).unwrap_or_else(|start| start);
        (start..self.changes.len()).filter_map(|at| self.changes.get(at))
    }

    /// Sets the changes from the first revision up to this one, and the greatest dropped tombstone, as a snapshot has them.
    pub(super) fn restore(&mut self, changes: Vec<Change>, last: Revision, forgotten: Revision) {
        self.forgotten = forgotten;
        self.append(last, changes);
    }

    /// Drops the changes before a revision.
    pub(super) fn compact(&mut self, first: Revision) {
        while self.first < first.min(self.last) {
            self.drop_first();
        }
    }

    /// Drops what exceeds the limits of the history in a store with this number of octets. Keeps the last revision, which
    /// watches have not yet seen.
    pub(super) fn trim(&mut self, max_octets: u64, octets: u64) {
        let room = (max_octets / SHARE).min(max_octets.saturating_sub(octets));
        while self.first < self.last && (self.last.0 - self.first.0 >= MAX_REVISIONS || self.octets > room) {
            self.drop_first();
        }
        if self.tombstones.len() > MAX_TOMBSTONES || self.tombstone_octets > max_octets / SHARE {
            self.drop_tombstones();
        }
    }

    fn drop_first(&mut self) {
        while let Some(change) = self.changes.front().filter(|change| change.revision == self.first) {
            self.octets -= change_octets(change);
            self.changes.pop_front();
        }
        self.first = self.first.next();
    }

    /// Drops the older half of the tombstones. Together, since the index of every absent key rises.
    fn drop_tombstones(&mut self) {
        let mut revisions: Vec<_> = self.tombstones.values().copied().collect();
        let middle = revisions.len() / 2;
        let (_, last, _) = revisions.select_nth_unstable(middle);
        self.forgotten = *last;
        for (key, revision) in std::mem::take(&mut self.tombstones) {
            if revision > self.forgotten {
                self.tombstones.insert(key, revision);
            } else {
                self.tombstone_octets -= tombstone_octets(&key);
            }
        }
    }

    /// Notes the deletion of a key.
    pub(super) fn add_tombstone(&mut self, key: Key, revision: Revision) {
        let octets = tombstone_octets(&key);
        if self.tombstones.insert(key, revision).is_none() {
            self.tombstone_octets += octets;
        }
    }

    /// Forgets the deletion of a key that exists again.
    pub(super) fn remove_tombstone(&mut self, key: &Key) {
        if self.tombstones.remove(key).is_some() {
            self.tombstone_octets -= tombstone_octets(key);
        }
    }

    /// Absent keys with the revisions at which they were deleted.
    pub(super) fn tombstones(&self) -> &OrdMap<Key, Revision> {
        &self.tombstones
    }

    /// Greatest revision of a tombstone that was dropped.
    pub(super) fn forgotten(&self) -> Revision {
        self.forgotten
    }

    /// Revision of the last deletion within a range; it may be later if the deletion was long ago.
    pub(super) fn deleted(&self, range: &KeyRange) -> Revision {
        let within = self.tombstones.range(range.bounds()).map(|(_, revision)| *revision);
        within.max().unwrap_or_default().max(self.forgotten)
    }
}

fn change_octets(change: &Change) -> u64 {
    let previous = change.previous.as_ref().map_or(0, |entry| entry.value.len());
    CHANGE_OCTETS + (change.key.octets().len() + previous) as u64
}

fn tombstone_octets(key: &Key) -> u64 {
    CHANGE_OCTETS + key.octets().len() as u64
}
