//! Snapshots: a state as a stream of octets.
//!
//! A snapshot is [`MAGIC`], the number of the format, and records. Each record is its length (four octets, little-endian) and
//! its postcard encoding. The last one has a digest of all octets before it, which detects damage; it is no protection
//! against forgery. Records are only added at the end of [`Record`].
//!
//! The history is stored as what each change replaced: what a change stored follows from the next change of the key, or from
//! the key itself. So each value is stored once, and a decoded state shares keys and values as the original does.

use std::{
    collections::BTreeMap,
    hash::Hasher,
    io::{self, Read, Write},
    sync::Arc,
};

use imbl::OrdSet;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use thiserror::Error;

use super::{
    ENTRY_OCTETS, FIRST_REVISION, LeaseState, Lifetime, LockDelay, SessionState, State, entry_octets,
    history::{History, MAX_REVISIONS},
    session_octets,
};
use crate::store::{
    entry::Entry,
    entry::KeyEntry,
    key::{Key, MAX_KEY, MAX_VALUE, Revision},
    lease::{LeaseId, LifetimeId},
    session::Session,
    watch::Change,
};

/// Beginning of every snapshot.
const MAGIC: &[u8; 8] = b"MUSTERKV";
/// Number of this format.
const FORMAT: u32 = 1;
/// Longest record in octets: an entry of the greatest size with its counters.
const MAX_RECORD: usize = MAX_KEY + MAX_VALUE + 64 * 1024;

/// Reasons why a snapshot cannot be read.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// Reading failed, or the snapshot ends early.
    #[error("cannot read the snapshot: {0}")]
    Io(#[from] io::Error),
    /// The file is no snapshot.
    #[error("not a snapshot of muster's store")]
    NotSnapshot,
    /// The snapshot is from a newer version; holds the number of its format.
    #[error("the snapshot has format {0}, this version reads format {FORMAT}: use a newer muster")]
    Format(u32),
    /// A record is too long; holds its length.
    #[error("the snapshot is damaged: a record has {0} octets, the limit is {MAX_RECORD}")]
    TooLong(u32),
    /// A record cannot be decoded.
    #[error("the snapshot is damaged: {0}")]
    Record(#[from] postcard::Error),
    /// Records contradict each other; holds the contradiction.
    #[error("the snapshot is damaged: {0}")]
    Inconsistent(&'static str),
    /// The digest differs from that of the octets.
    #[error("the snapshot is damaged: its digest is wrong")]
    Digest,
}

use SnapshotError::Inconsistent;

/// A record of a snapshot. Keys follow the leases and sessions that they name.
#[derive(Debug, Serialize, Deserialize)]
enum Record {
    /// The first record.
    Head(Head),
    Lease {
        id: LeaseId,
        ttl: u64,
    },
    Session(Session),
    Lifetime {
        id: LifetimeId,
        lifetime: Lifetime,
    },
    LockDelay {
        key: Key,
        delay: LockDelay,
    },
    /// Revision at which the sessions of a node last changed.
    NodeSessions {
        node: String,
        changed: Revision,
    },
    Key(KeyEntry),
    Tombstone {
        key: Key,
        deleted: Revision,
    },
    /// A change of the history, in order; with the entry that it replaced.
    Replaced {
        revision: Revision,
        key: Key,
        previous: Option<Arc<Entry>>,
    },
    /// The last record: the digest of all octets before it.
    End(u64),
}

/// Counters of the state.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Head {
    revision: Revision,
    compacted: Revision,
    forgotten: Revision,
    sessions_changed: Revision,
    grants: u64,
    agreed_max_octets: Option<u64>,
    cluster_id: u64,
}

impl State {
    /// Writes the state, record by record.
    ///
    /// # Errors
    /// Fails if the octets cannot be written.
    pub fn encode(&self, to: &mut impl Write) -> io::Result<()> {
        let mut encoder = Encoder { to, digest: SipHasher13::new(), buffer: vec![] };
        encoder.write(MAGIC)?;
        encoder.write(&FORMAT.to_le_bytes())?;
        encoder.record(&Record::Head(Head {
            revision: self.revision,
            compacted: self.compacted(),
            forgotten: self.history.forgotten(),
            sessions_changed: self.sessions_changed,
            grants: self.grants,
            agreed_max_octets: self.agreed_max_octets,
            cluster_id: self.cluster_id,
        }))?;
        for (id, lease) in &self.leases {
            encoder.record(&Record::Lease { id: *id, ttl: lease.ttl })?;
        }
        for session in self.sessions() {
            encoder.record(&Record::Session(session.clone()))?;
        }
        for (id, lifetime) in self.lifetimes() {
            encoder.record(&Record::Lifetime { id, lifetime })?;
        }
        for (key, delay) in self.lock_delays() {
            encoder.record(&Record::LockDelay { key: key.clone(), delay })?;
        }
        for (node, changed) in &self.node_sessions_changed {
            encoder.record(&Record::NodeSessions { node: node.clone(), changed: *changed })?;
        }
        for (key, entry) in &self.keys {
            encoder.record(&Record::Key(KeyEntry { key: key.clone(), entry: entry.clone() }))?;
        }
        for (key, deleted) in self.history.tombstones() {
            encoder.record(&Record::Tombstone { key: key.clone(), deleted: *deleted })?;
        }
        for Change { revision, key, previous, .. } in self.changes(Revision(0)) {
            let replaced = Record::Replaced { revision: *revision, key: key.clone(), previous: previous.clone() };
            encoder.record(&replaced)?;
        }
        let digest = encoder.digest.finish();
        encoder.record(&Record::End(digest))
    }

    /// Reads a state that [`State::encode`] wrote, and nothing behind it. The limit of octets is as for [`State::new`].
    ///
    /// # Errors
    /// Fails if the octets cannot be read, are of a newer format, or are damaged.
    pub fn decode(from: &mut impl Read, max_octets: u64) -> Result<Self, SnapshotError> {
        let mut decoder = Decoder { from, digest: SipHasher13::new(), buffer: vec![] };
        if decoder.array()? != *MAGIC {
            return Err(SnapshotError::NotSnapshot);
        }
        let format = u32::from_le_bytes(decoder.array()?);
        if format != FORMAT {
            return Err(SnapshotError::Format(format));
        }
        let Record::Head(head) = decoder.record()? else {
            return Err(Inconsistent("its first record is not the head"));
        };
        let mut restoring = Restoring::new(head, max_octets)?;
        loop {
            let digest = decoder.digest.finish();
            match decoder.record()? {
                Record::End(expected) if expected == digest => return Ok(restoring.finish()),
                Record::End(_) => return Err(SnapshotError::Digest),
                record => restoring.add(record)?,
            }
        }
    }
}

/// A state that is being read.
#[derive(Debug)]
struct Restoring {
    head: Head,
    state: State,
    /// Changes, each with what it replaced.
    changes: Vec<Change>,
}

impl Restoring {
    fn new(head: Head, max_octets: u64) -> Result<Self, SnapshotError> {
        let Head { revision, compacted, .. } = head;
        let in_order = FIRST_REVISION <= compacted && compacted <= revision;
        if !in_order || revision.0 - compacted.0 >= MAX_REVISIONS {
            return Err(Inconsistent("its history is longer than possible"));
        }
        if i64::try_from(revision.0).is_err() {
            return Err(Inconsistent("its revision is not one of etcd's"));
        }
        let mut state = State::new(max_octets);
        state.revision = revision;
        state.history = History::new(compacted);
        state.sessions_changed = head.sessions_changed;
        state.grants = head.grants;
        state.agreed_max_octets = head.agreed_max_octets;
        state.cluster_id = head.cluster_id;
        Ok(Self { head, state, changes: vec![] })
    }

    fn add(&mut self, record: Record) -> Result<(), SnapshotError> {
        let state = &mut self.state;
        let is_new = match record {
            Record::Head(_) | Record::End(_) => false,
            Record::Lease { id, ttl } => {
                state.octets += ENTRY_OCTETS;
                state.leases.insert(id, LeaseState { ttl, keys: OrdSet::new() }).is_none()
            }
            Record::Session(session) => {
                state.octets += session_octets(&session);
                let session = Arc::new(session);
                state.sessions.insert(session.id, SessionState { session, keys: OrdSet::new() }).is_none()
            }
            Record::Lifetime { id, lifetime } => state.lifetimes.insert(id, lifetime).is_none(),
            Record::LockDelay { key, delay } => state.lock_delays.insert(key, delay).is_none(),
            Record::NodeSessions { node, changed } => state.node_sessions_changed.insert(node, changed).is_none(),
            Record::Key(KeyEntry { key, entry }) => {
                if !state.attach(&key, &entry) {
                    return Err(Inconsistent("a key names a lease or a session that does not exist"));
                }
                state.octets += entry_octets(&key, &entry);
                state.keys.insert(key, entry).is_none()
            }
            Record::Tombstone { key, deleted } => {
                state.history.add_tombstone(key, deleted);
                true
            }
            Record::Replaced { revision, key, previous } => {
                let least = self.changes.last().map_or(self.head.compacted, |last| last.revision);
                if revision < least || revision > self.head.revision {
                    return Err(Inconsistent("a change is not within the history"));
                }
                self.changes.push(Change { revision, key, entry: None, previous });
                true
            }
        };
        if is_new { Ok(()) } else { Err(Inconsistent("a record is repeated")) }
    }

    fn finish(mut self) -> State {
        let mut current: BTreeMap<Key, Option<Arc<Entry>>> = BTreeMap::new();
        for change in self.changes.iter_mut().rev() {
            if let Some((key, _)) = self.state.keys.get_key_value(&change.key) {
                change.key = key.clone();
            }
            let before = change.previous.clone();
            let stored = current.insert(change.key.clone(), before);
            change.entry = stored.unwrap_or_else(|| self.state.keys.get(&change.key).cloned());
        }
        self.state.history.restore(self.changes, self.head.revision, self.head.forgotten);
        self.state
    }
}

/// Writes records.
struct Encoder<'a, W> {
    to: &'a mut W,
    digest: SipHasher13,
    buffer: Vec<u8>,
}

impl<W: Write> Encoder<'_, W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.digest.write(octets);
        self.to.write_all(octets)
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        self.buffer.clear();
        let buffer = postcard::to_extend(record, std::mem::take(&mut self.buffer)).map_err(io::Error::other)?;
        let len = u32::try_from(buffer.len()).ok().filter(|len| *len as usize <= MAX_RECORD);
        let len = len.ok_or_else(|| io::Error::other("a record of the snapshot is too long"))?;
        self.write(&len.to_le_bytes())?;
        self.write(&buffer)?;
        self.buffer = buffer;
        Ok(())
    }
}

/// Reads records.
struct Decoder<'a, R> {
    from: &'a mut R,
    digest: SipHasher13,
    buffer: Vec<u8>,
}

impl<R: Read> Decoder<'_, R> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut octets = [0; N];
        self.from.read_exact(&mut octets)?;
        self.digest.write(&octets);
        Ok(octets)
    }

    fn record(&mut self) -> Result<Record, SnapshotError> {
        let len = u32::from_le_bytes(self.array()?);
        if len as usize > MAX_RECORD {
            return Err(SnapshotError::TooLong(len));
        }
        self.buffer.clear();
        // Memory grows with the octets that arrive, not with the length that is claimed.
        let read = self.from.take(u64::from(len)).read_to_end(&mut self.buffer)?;
        if read < len as usize {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.digest.write(&self.buffer);
        Ok(postcard::from_bytes(&self.buffer)?)
    }
}
