//! Watches: the changes of a range, in order, without gap or repetition.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    entry::Entry,
    key::{Key, KeyRange, Revision},
};

/// A watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Keys that are watched.
    pub range: KeyRange,
    /// First revision to deliver; `None`: changes from now on.
    pub from: Option<Revision>,
}

/// Message of a watch to its client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchMessage {
    /// The watch has begun; the first message. Holds the revision of the store.
    Began(Revision),
    /// Changes of one or more whole revisions, in order.
    Changes {
        /// Revision up to which all changes of the range were sent.
        revision: Revision,
        /// The changes.
        changes: Vec<Change>,
    },
    /// Nothing has changed up to this revision. Sent from time to time.
    Progress(Revision),
    /// The history does not reach back to the next revision of the watch; the last message. Holds the first one that is kept.
    Compacted(Revision),
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Revision of the change.
    pub revision: Revision,
    /// The key.
    pub key: Key,
    /// What is stored under the key now; `None`: the key was deleted.
    pub entry: Option<Arc<Entry>>,
    /// What was stored before.
    pub previous: Option<Arc<Entry>>,
}

impl Change {
    /// Octets of the key and of both values.
    pub(super) fn octets(&self) -> usize {
        let value = |entry: &Option<Arc<Entry>>| entry.as_ref().map_or(0, |entry| entry.value.len());
        self.key.octets().len() + value(&self.entry) + value(&self.previous)
    }
}
