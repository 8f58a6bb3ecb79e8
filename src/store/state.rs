//! State of the store: keys, leases, sessions and lock delays, and the history of keys.
//!
//! [`State::apply`] is the only way to change a state, and deterministic: voters that apply the same commands have the same
//! state. A clone shares structure and costs a few pointers, so that a reader keeps a snapshot, and a command works on a
//! clone that replaces the state if the command succeeds.

mod batch;
mod budget;
mod history;
mod operation;
mod read;
mod snapshot;
#[cfg(test)]
mod tests;
mod transaction;

use std::{sync::Arc, time::Duration};

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

pub use self::snapshot::SnapshotError;
use self::{batch::Batch, history::History};
use super::{
    command::{Command, Done, Outcome, Refusal},
    entry::{Attributes, Entry},
    key::{Key, Revision},
    lease::{self, LeaseId, LifetimeId},
    query::Totals,
    session::{MAX_LOCK_DELAY, Session, SessionId},
    watch::Change,
};

/// Revision of an empty store, as in etcd: a client that has seen index 1 of an absent key sees a greater one once the key
/// exists.
pub const FIRST_REVISION: Revision = Revision(1);
/// Octets that a key, a lease or a session occupies besides its key and value: an estimate of its fields, its place in the
/// maps and its allocations.
pub const ENTRY_OCTETS: u64 = 256;

/// State of the store.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Id of the cluster; 0 before its foundation.
    cluster_id: u64,
    revision: Revision,
    keys: OrdMap<Key, Arc<Entry>>,
    leases: OrdMap<LeaseId, LeaseState>,
    sessions: OrdMap<SessionId, SessionState>,
    lifetimes: OrdMap<LifetimeId, Lifetime>,
    lock_delays: OrdMap<Key, LockDelay>,
    history: History,
    /// Revision of the last creation or end of a session.
    sessions_changed: Revision,
    /// The same for the sessions of one node.
    node_sessions_changed: OrdMap<String, Revision>,
    /// Number of lifetimes that have begun, and of records of their times left.
    grants: u64,
    /// Octets of keys and values, with [`ENTRY_OCTETS`] for each key, lease and session.
    octets: u64,
    /// Limit of octets that the voters agreed on.
    agreed_max_octets: Option<u64>,
    /// Limit of octets in the configuration of this voter.
    configured_max_octets: u64,
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LeaseState {
    /// Time to live in seconds.
    ttl: u64,
    /// Keys that end with the lease.
    keys: OrdSet<Key>,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SessionState {
    session: Arc<Session>,
    /// Keys that the session holds.
    keys: OrdSet<Key>,
}

/// Time to live of a lease or a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetime {
    /// Time to live without a renewal.
    pub ttl: Duration,
    /// Time left when it was last recorded; `None`: the whole time to live.
    pub remaining: Option<Duration>,
    /// Number of the grant, or of the last record of the time left: [`State::grants`] at that time.
    pub grant: u64,
}

/// Time after the end of a session in which a key that it held cannot be locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockDelay {
    /// Revision at which the session ended.
    pub began: Revision,
    /// Length of the delay.
    pub delay: Duration,
}

impl State {
    /// Returns an empty state that holds up to this number of octets.
    pub fn new(max_octets: u64) -> Self {
        Self {
            cluster_id: 0,
            revision: FIRST_REVISION,
            keys: OrdMap::new(),
            leases: OrdMap::new(),
            sessions: OrdMap::new(),
            lifetimes: OrdMap::new(),
            lock_delays: OrdMap::new(),
            history: History::new(FIRST_REVISION),
            sessions_changed: FIRST_REVISION,
            node_sessions_changed: OrdMap::new(),
            grants: 0,
            octets: 0,
            agreed_max_octets: None,
            configured_max_octets: max_octets,
        }
    }

    /// Sets the limit of octets, as long as the voters have not agreed on one by [`Command::SetMaxOctets`].
    pub fn set_max_octets(&mut self, max_octets: u64) {
        self.configured_max_octets = max_octets;
    }

    /// Limit of octets of keys and values.
    pub fn max_octets(&self) -> u64 {
        self.agreed_max_octets.unwrap_or(self.configured_max_octets)
    }

    /// Limit of octets that the voters agreed on; `None`: they have not.
    pub fn agreed_max_octets(&self) -> Option<u64> {
        self.agreed_max_octets
    }

    /// Id of the cluster; 0 before its foundation.
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    /// Revision of the last change; [`FIRST_REVISION`] if there was none.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// First revision whose changes are kept. Reads at this revision and later ones are possible.
    pub fn compacted(&self) -> Revision {
        self.history.first()
    }

    /// Returns the size of the store.
    pub fn totals(&self) -> Totals {
        Totals {
            keys: self.keys.len() as u64,
            sessions: self.sessions.len() as u64,
            leases: self.leases.len() as u64,
            octets: self.octets,
            history_octets: self.history.octets(),
            compacted: self.compacted(),
        }
    }

    /// Changes after a revision, in order, as far as the history has them.
    pub fn changes(&self, after: Revision) -> impl Iterator<Item = &Change> {
        self.history.changes(after)
    }

    /// The sessions, in the order of their ids.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values().map(|state| &*state.session)
    }

    /// Leases, and sessions with a time to live.
    pub fn lifetimes(&self) -> impl Iterator<Item = (LifetimeId, Lifetime)> {
        self.lifetimes.iter().map(|(id, lifetime)| (*id, *lifetime))
    }

    /// Time to live of a lease or a session; `None` if there is none.
    pub fn lifetime(&self, id: LifetimeId) -> Option<Lifetime> {
        self.lifetimes.get(&id).copied()
    }

    /// Number of lifetimes that have begun, and of records of their times left.
    pub fn grants(&self) -> u64 {
        self.grants
    }

    /// Lock delays that are not over.
    pub fn lock_delays(&self) -> impl Iterator<Item = (&Key, LockDelay)> {
        self.lock_delays.iter().map(|(key, delay)| (key, *delay))
    }

    /// Lifetimes as a map that can be compared with that of a later state.
    pub(super) fn lifetime_map(&self) -> &OrdMap<LifetimeId, Lifetime> {
        &self.lifetimes
    }

    /// Lock delays as a map that can be compared with that of a later state.
    pub(super) fn lock_delay_map(&self) -> &OrdMap<Key, LockDelay> {
        &self.lock_delays
    }

    /// Applies a command. A command that is refused or fails changes nothing. All changes of a command have one revision.
    /// The state keeps the octets of the command: a slice of a larger buffer would keep that in memory.
    pub fn apply(&mut self, command: Command) -> Outcome {
        let mut next = self.clone();
        let mut batch = Batch::new(self.revision.next());
        let result = next.execute(self, &mut batch, command).and_then(|done| {
            let grows = next.octets > self.octets;
            if grows && next.octets > next.max_octets() { Err(Refusal::NoSpace) } else { Ok(done) }
        });
        if !matches!(result, Err(_) | Ok(Done::Failed(_))) {
            // Drops the state before, so that the history is not shared with it and changes in place.
            *self = next;
            if batch.has_changes() {
                self.revision = batch.revision();
                self.history.append(self.revision, batch.into_changes());
            }
            self.history.trim(self.max_octets(), self.octets);
        }
        Outcome { revision: self.revision, result }
    }

    /// Carries out a command on this state, a clone of the state `before`.
    fn execute(&mut self, before: &Self, batch: &mut Batch, command: Command) -> Result<Done, Refusal> {
        match command {
            Command::Operate(operations) => return self.operate(batch, operations),
            Command::Transact(transaction) => {
                return self.transact(before, batch, transaction).map(Done::Transacted);
            }
            Command::GrantLease { id, ttl } => self.grant_lease(id, ttl)?,
            Command::RevokeLease(id) if !self.leases.contains_key(&id) => return Err(Refusal::NoLease(id)),
            Command::RevokeLease(id) | Command::Expire(LifetimeId::Lease(id)) => self.end_lease(batch, id),
            Command::CreateSession(session) => self.create_session(batch, *session)?,
            Command::DestroySession(id) | Command::Expire(LifetimeId::Session(id)) => self.end_session(batch, id),
            Command::RecordRemaining { id, remaining } => {
                if let Some(lifetime) = self.lifetimes.get_mut(&id) {
                    self.grants += 1;
                    lifetime.grant = self.grants;
                    lifetime.remaining = (remaining < lifetime.ttl).then_some(remaining);
                }
            }
            Command::EndLockDelay { key, began } => {
                if self.lock_delays.get(&key).is_some_and(|delay| delay.began == began) {
                    self.lock_delays.remove(&key);
                }
            }
            Command::Compact(revision) => self.compact(revision)?,
            Command::SetMaxOctets(max_octets) => self.agreed_max_octets = Some(max_octets),
            Command::Found { cluster } if self.cluster_id == 0 => self.cluster_id = cluster,
            Command::Found { .. } => {}
        }
        Ok(Done::Applied)
    }

    fn grant_lease(&mut self, id: LeaseId, ttl: u64) -> Result<(), Refusal> {
        if self.leases.contains_key(&id) {
            return Err(Refusal::LeaseExists(id));
        }
        let ttl = ttl.clamp(lease::MIN_TTL, lease::MAX_TTL);
        self.leases.insert(id, LeaseState { ttl, keys: OrdSet::new() });
        self.begin_lifetime(LifetimeId::Lease(id), Duration::from_secs(ttl));
        self.octets += ENTRY_OCTETS;
        Ok(())
    }

    fn begin_lifetime(&mut self, id: LifetimeId, ttl: Duration) {
        self.grants += 1;
        self.lifetimes.insert(id, Lifetime { ttl, remaining: None, grant: self.grants });
    }

    fn create_session(&mut self, batch: &mut Batch, session: Session) -> Result<(), Refusal> {
        let id = session.id;
        if self.sessions.contains_key(&id) {
            return Err(Refusal::SessionExists(id));
        }
        if let Some(ttl) = session.ttl {
            self.begin_lifetime(LifetimeId::Session(id), ttl);
        }
        self.note_session_change(batch, &session.node);
        let session = Arc::new(Session { created: batch.revision(), ..session });
        self.octets += session_octets(&session);
        self.sessions.insert(id, SessionState { session, keys: OrdSet::new() });
        Ok(())
    }

    fn note_session_change(&mut self, batch: &mut Batch, node: &str) {
        batch.note_session_change();
        self.sessions_changed = batch.revision();
        self.node_sessions_changed.insert(node.to_owned(), batch.revision());
    }

    /// Ends a lease, if there is one, and deletes its keys.
    fn end_lease(&mut self, batch: &mut Batch, id: LeaseId) {
        let Some(lease) = self.leases.remove(&id) else { return };
        self.lifetimes.remove(&LifetimeId::Lease(id));
        self.octets -= ENTRY_OCTETS;
        for key in &lease.keys {
            self.replace(batch, key, None);
        }
    }

    /// Ends a session, if there is one. Its locks are released or deleted, and their lock delays begin.
    fn end_session(&mut self, batch: &mut Batch, id: SessionId) {
        let Some(SessionState { session, keys }) = self.sessions.remove(&id) else { return };
        self.lifetimes.remove(&LifetimeId::Session(id));
        self.octets -= session_octets(&session);
        self.note_session_change(batch, &session.node);
        let delay = session.lock_delay.min(MAX_LOCK_DELAY);
        for key in &keys {
            match session.behavior {
                super::session::Behavior::Release => {
                    let Some(entry) = self.keys.get(key).cloned() else { continue };
                    let attributes = Attributes { session: None, ..entry.attributes() };
                    self.store(batch, key, Entry::new(entry.value.clone(), attributes));
                }
                super::session::Behavior::Delete => self.replace(batch, key, None),
            }
            if !delay.is_zero() {
                self.lock_delays.insert(key.clone(), LockDelay { began: batch.revision(), delay });
            }
        }
    }

    fn compact(&mut self, revision: Revision) -> Result<(), Refusal> {
        if revision > self.revision {
            return Err(Refusal::Future(self.revision));
        }
        if revision <= self.compacted() {
            return Err(Refusal::Compacted(self.compacted()));
        }
        self.history.compact(revision);
        Ok(())
    }
}

/// Octets that a session occupies.
fn session_octets(session: &Session) -> u64 {
    let texts = session.node_checks.iter().chain(&session.service_checks);
    let octets: usize = session.name.len() + session.node.len() + texts.map(String::len).sum::<usize>();
    ENTRY_OCTETS + octets as u64
}

/// Octets that a key with its value occupies.
fn entry_octets(key: &Key, entry: &Entry) -> u64 {
    ENTRY_OCTETS + (key.octets().len() + entry.value.len()) as u64
}
