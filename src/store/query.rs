//! Queries of the store's state, and their answers.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    entry::KeyEntry,
    key::{Key, KeyRange, Revision},
    lease::LeaseId,
    session::{Session, SessionId},
};

/// A query of the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// Entries of a range (etcd).
    Range(Range),
    /// One key (Consul).
    Key(Key),
    /// Entries of all keys that begin with these octets (Consul).
    Prefix(Bytes),
    /// Keys that begin with `prefix`, each up to and with the first `separator` behind it, without repetition (Consul).
    Keys {
        /// Beginning of the keys.
        prefix: Bytes,
        /// Octets at which keys are cut; empty: keys are whole.
        separator: Bytes,
    },
    /// One session.
    Session(SessionId),
    /// All sessions, or those of one node.
    Sessions {
        /// Name of the node; `None`: all sessions.
        node: Option<String>,
    },
    /// One lease, and the keys that end with it.
    Lease(LeaseId),
    /// Ids of all leases.
    Leases,
    /// Number of keys, sessions and leases, and octets.
    Totals,
    /// Number of keys that each session holds.
    HeldKeys,
    /// Keys that one session holds.
    KeysOf(SessionId),
}

/// Entries of a range, as etcd's clients select them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Keys to read.
    pub range: KeyRange,
    /// Revision to read at; `None`: the current one.
    pub revision: Option<Revision>,
    /// Largest number of entries in the answer; 0: all.
    pub limit: u64,
    /// Order of the entries.
    pub sort: Option<Sort>,
    /// True if values are left out.
    pub keys_only: bool,
    /// True if only the number of entries is wanted.
    pub count_only: bool,
    /// Entries outside these bounds are left out.
    pub bounds: RevisionBounds,
}

impl Range {
    /// Returns a query for all entries of a range.
    pub fn all(range: KeyRange) -> Self {
        Self {
            range,
            revision: None,
            limit: 0,
            sort: None,
            keys_only: false,
            count_only: false,
            bounds: RevisionBounds::default(),
        }
    }
}

/// Bounds on the revisions of entries; 0: no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionBounds {
    /// Least [`Entry::modified`](super::entry::Entry::modified).
    pub min_modified: u64,
    /// Greatest `modified`.
    pub max_modified: u64,
    /// Least [`Entry::created`](super::entry::Entry::created).
    pub min_created: u64,
    /// Greatest `created`.
    pub max_created: u64,
}

/// Order of entries; equal ones are in the order of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sort {
    /// Field to sort by.
    pub by: SortBy,
    /// True for the greatest first.
    pub descending: bool,
}

/// Field that entries are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SortBy {
    /// The key.
    Key,
    /// The number of changes.
    Version,
    /// The revision of creation.
    Created,
    /// The revision of the last change.
    Modified,
    /// The value.
    Value,
}

/// Answer to a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Index of what was asked for: the revision of its last change, a deletion included; at least 1. Greater than that of an
    /// earlier answer if and only if the part of the state that the query covers has changed. For a query of etcd, the
    /// revision of the store.
    pub index: u64,
    /// Revision of the store.
    pub revision: Revision,
    /// The content.
    pub content: Content,
    /// The leader, as the member that answered knows.
    pub contact: Contact,
}

/// Contact of a member with its leader. That of the leader itself is the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// False if the member knows no leader: its state may be old.
    pub has_leader: bool,
    /// Time since the last message of the leader.
    pub silence: Duration,
}

impl Default for Contact {
    fn default() -> Self {
        Self { has_leader: true, silence: Duration::ZERO }
    }
}

/// Content of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// To [`Query::Range`].
    Range(RangeAnswer),
    /// To [`Query::Key`] and [`Query::Prefix`].
    Entries(Vec<KeyEntry>),
    /// To [`Query::Keys`] and [`Query::KeysOf`].
    Keys(Vec<Bytes>),
    /// To [`Query::Session`] and [`Query::Sessions`].
    Sessions(Vec<Session>),
    /// To [`Query::Lease`]; `None` if there is no such lease.
    Lease(Option<LeaseAnswer>),
    /// To [`Query::Leases`].
    Leases(Vec<LeaseId>),
    /// To [`Query::Totals`].
    Totals(Totals),
    /// To [`Query::HeldKeys`].
    HeldKeys(Vec<HeldKeys>),
}

impl Content {
    /// Octets of its keys and values.
    pub fn octets(&self) -> usize {
        match self {
            Self::Range(RangeAnswer { entries, .. }) | Self::Entries(entries) => {
                entries.iter().map(|entry| entry.key.octets().len() + entry.entry.value.len()).sum()
            }
            Self::Keys(keys) => keys.iter().map(Bytes::len).sum(),
            _ => 0,
        }
    }
}

/// Keys that a session holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldKeys {
    /// The session.
    pub session: SessionId,
    /// Number of the keys.
    pub keys: u64,
}

/// Entries of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeAnswer {
    /// The entries.
    pub entries: Vec<KeyEntry>,
    /// True if the limit left entries out.
    pub more: bool,
    /// Number of entries in the range, regardless of the limit.
    pub count: u64,
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseAnswer {
    /// Time to live in seconds, as granted.
    pub ttl: u64,
    /// Seconds left; the leader sets it.
    pub remaining: u64,
    /// Keys that end with the lease.
    pub keys: Vec<Key>,
}

/// Size of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Number of keys.
    pub keys: u64,
    /// Number of sessions.
    pub sessions: u64,
    /// Number of leases.
    pub leases: u64,
    /// Octets of keys and values.
    pub octets: u64,
    /// Octets of the history.
    pub history_octets: u64,
    /// First revision that the history has.
    pub compacted: Revision,
}

/// Demands on the state that a query reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consistency {
    /// The answer reflects every write that was acknowledged before the query.
    Linearizable,
    /// The state of any voter, which may be behind.
    Stale,
}

/// A query that waits until the index of its answer differs from the one that the client has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// Index that the client has seen.
    pub index: u64,
    /// Longest wait.
    pub limit: Duration,
}
