//! Changes of one command, and the bookkeeping that a change of a key entails.

use std::{collections::BTreeMap, sync::Arc};

use super::{State, entry_octets};
use crate::store::{
    entry::{Attributes, Entry, KeyEntry},
    key::{Key, Revision},
    watch::Change,
};

/// Changes of the command that is being applied. They share one revision, and a key has at most one change.
#[derive(Debug)]
pub(super) struct Batch {
    revision: Revision,
    /// In the order in which the keys were first changed.
    changes: Vec<Change>,
    /// Positions in `changes`.
    positions: BTreeMap<Key, usize>,
    sessions_changed: bool,
}

impl Batch {
    /// Returns a batch without changes for this revision.
    pub(super) fn new(revision: Revision) -> Self {
        Self { revision, changes: vec![], positions: BTreeMap::new(), sessions_changed: false }
    }

    /// Revision of the changes.
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// Notes that a session was created or ended.
    pub(super) fn note_session_change(&mut self) {
        self.sessions_changed = true;
    }

    /// Reports whether the command has a revision.
    pub(super) fn has_changes(&self) -> bool {
        self.sessions_changed || !self.changes.is_empty()
    }

    /// The changes, without those of keys that the command both created and deleted.
    pub(super) fn into_changes(self) -> Vec<Change> {
        let mut changes = self.changes;
        changes.retain(|change| change.entry.is_some() || change.previous.is_some());
        changes
    }

    fn note(&mut self, key: &Key, entry: Option<Arc<Entry>>, previous: Option<Arc<Entry>>) {
        if let Some(position) = self.positions.get(key) {
            self.changes[*position].entry = entry;
        } else {
            self.positions.insert(key.clone(), self.changes.len());
            self.changes.push(Change { revision: self.revision, key: key.clone(), entry, previous });
        }
    }
}

impl State {
    /// Attributes of a key; the default ones if there is no such key.
    pub(super) fn attributes(&self, key: &Key) -> Attributes {
        self.keys.get(key).map(|entry| entry.attributes()).unwrap_or_default()
    }

    /// Stores an entry. Sets its revisions and its version.
    pub(super) fn store(&mut self, batch: &mut Batch, key: &Key, mut entry: Entry) -> KeyEntry {
        entry.modified = batch.revision;
        match self.keys.get(key) {
            Some(previous) => {
                entry.created = previous.created;
                entry.version = previous.version + u64::from(previous.modified < batch.revision);
            }
            None => {
                entry.created = batch.revision;
                entry.version = 1;
            }
        }
        let entry = Arc::new(entry);
        let key = self.keys.get_key_value(key).map_or_else(|| key.clone(), |(stored, _)| stored.clone());
        self.replace(batch, &key, Some(entry.clone()));
        KeyEntry { key, entry }
    }

    /// Replaces or deletes the entry of a key. Keeps the keys of leases and sessions, the totals and the history.
    pub(super) fn replace(&mut self, batch: &mut Batch, key: &Key, entry: Option<Arc<Entry>>) {
        let previous = match &entry {
            Some(entry) => self.keys.insert(key.clone(), entry.clone()),
            None => self.keys.remove(key),
        };
        if let Some(previous) = &previous {
            self.octets -= entry_octets(key, previous);
            self.detach(key, previous);
        }
        match &entry {
            Some(entry) => {
                self.octets += entry_octets(key, entry);
                self.attach(key, entry);
                self.history.remove_tombstone(key);
            }
            None if previous.is_none() => return,
            None => self.history.add_tombstone(key.clone(), batch.revision),
        }
        batch.note(key, entry, previous);
    }

    /// Adds a key to those of its lease and its session. Returns false if it names one that does not exist.
    pub(super) fn attach(&mut self, key: &Key, entry: &Entry) -> bool {
        let mut attached = true;
        let Attributes { lease, session, .. } = entry.attributes();
        if let Some(id) = &lease {
            attached &= self.leases.get_mut(id).map(|lease| lease.keys.insert(key.clone())).is_some();
        }
        if let Some(id) = &session {
            attached &= self.sessions.get_mut(id).map(|session| session.keys.insert(key.clone())).is_some();
        }
        attached
    }

    fn detach(&mut self, key: &Key, entry: &Entry) {
        let Attributes { lease, session, .. } = entry.attributes();
        if let Some(lease) = lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(key);
        }
        if let Some(session) = session.and_then(|id| self.sessions.get_mut(&id)) {
            session.keys.remove(key);
        }
    }
}
