//! Commands: the changes of the store, as the log has them, and their outcomes.
//!
//! A command is deterministic: it has no clock and draws no random number. A task proposes what depends on time
//! ([`Command::Expire`], [`Command::EndLockDelay`]). Commands are in logs on disk: fields and variants are only added at
//! the end.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    entry::KeyEntry,
    key::{Key, KeyRange, Revision},
    lease::{LeaseId, LifetimeId},
    query::{Range, RangeAnswer},
    session::{Session, SessionId},
};

/// Largest number of operations in Consul's transaction, as in Consul from 1.14 on: Vault tests for it.
pub const MAX_OPERATIONS: usize = 128;
/// Largest number of requests in a branch of etcd's transaction, as in etcd.
pub const MAX_REQUESTS: usize = 128;

/// A change of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Consul's operations: all of them or none. A single write is a list of one.
    Operate(Vec<Operation>),
    /// etcd's transaction. A single put or delete is a transaction without conditions.
    Transact(Transaction),
    /// Grants a lease.
    GrantLease {
        /// Id of the lease.
        id: LeaseId,
        /// Time to live in seconds.
        ttl: u64,
    },
    /// Ends a lease and deletes its keys.
    RevokeLease(LeaseId),
    /// Creates a session.
    CreateSession(Box<Session>),
    /// Ends a session, at a client's request or since its node or a check failed. Succeeds if there is none.
    DestroySession(SessionId),
    /// Ends a lease or a session whose time to live is over. Succeeds if there is none.
    Expire(LifetimeId),
    /// Records the time that a lease or a session has left, so that a new leader does not start its time to live from the
    /// beginning. A renewal after the record proposes another with the whole time to live.
    RecordRemaining {
        /// The lease or the session.
        id: LifetimeId,
        /// Time left.
        remaining: Duration,
    },
    /// Ends the lock delay of a key, if it is the one that began at this revision.
    EndLockDelay {
        /// The key.
        key: Key,
        /// Revision at which the delay began.
        began: Revision,
    },
    /// Drops the history before a revision.
    Compact(Revision),
    /// Sets the limit of octets that all voters apply, whatever their configuration is. The leader proposes its own.
    SetMaxOctets(u64),
    /// Sets the id of the cluster, unless it has one.
    Found {
        /// The id, not 0.
        cluster: u64,
    },
}

/// One of Consul's operations on a key or a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Sets a value. Keeps the lock and the lease of the key.
    Set {
        /// The key.
        key: Key,
        /// The value.
        value: Bytes,
        /// Flags of the client.
        flags: u64,
    },
    /// Sets a value if the key was last modified at this index; 0: if there is no such key.
    CompareAndSet {
        /// The key.
        key: Key,
        /// The value.
        value: Bytes,
        /// Flags of the client.
        flags: u64,
        /// Expected [`Entry::modified`](super::entry::Entry::modified), or 0.
        index: u64,
    },
    /// Sets a value and locks the key for a session. Fails if another session holds the key, or during its lock delay. Sets
    /// the value again if the session holds the key already.
    Lock {
        /// The key.
        key: Key,
        /// The value.
        value: Bytes,
        /// Flags of the client.
        flags: u64,
        /// The session that acquires the lock.
        session: SessionId,
    },
    /// Sets a value and releases the lock. Fails if the session does not hold the key.
    Unlock {
        /// The key.
        key: Key,
        /// The value.
        value: Bytes,
        /// Flags of the client.
        flags: u64,
        /// The session that releases the lock.
        session: SessionId,
    },
    /// Deletes a key; succeeds if there is none.
    Delete(Key),
    /// Deletes a key if it was last modified at this index; 0: never deletes and succeeds if there is no such key.
    CompareAndDelete {
        /// The key.
        key: Key,
        /// Expected [`Entry::modified`](super::entry::Entry::modified).
        index: u64,
    },
    /// Deletes all keys that begin with these octets.
    DeletePrefix(Bytes),
    /// Reads a key. Fails if there is none, as in Consul's transaction.
    Get(Key),
    /// Reads all keys that begin with these octets.
    GetPrefix(Bytes),
    /// Fails unless the key was last modified at this index.
    CheckIndex {
        /// The key.
        key: Key,
        /// Expected [`Entry::modified`](super::entry::Entry::modified).
        index: u64,
    },
    /// Fails unless this session holds the key.
    CheckSession {
        /// The key.
        key: Key,
        /// The expected holder.
        session: SessionId,
    },
    /// Fails if there is such a key.
    CheckNotExists(Key),
    /// Ends a session; succeeds if there is none.
    DestroySession(SessionId),
    /// Reads a key. One that does not exist is read as an entry without a value.
    GetOrEmpty(Key),
}

impl Operation {
    /// Reports whether the operation returns what it reads.
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Get(_) | Self::GetOrEmpty(_) | Self::GetPrefix(_))
    }
}

/// etcd's transaction: conditions, and requests for both outcomes. Requests see the effects of those before them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// All of them must hold for `success`.
    pub conditions: Vec<Condition>,
    /// Requests if all conditions hold.
    pub success: Vec<TransactionRequest>,
    /// Requests otherwise.
    pub failure: Vec<TransactionRequest>,
}

/// A condition of etcd's transaction: every key of the range must compare so. An absent key has version, revisions and lease 0,
/// and no value: a comparison of its value fails. A span without keys holds, except for a comparison of values, as in etcd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Keys that are compared.
    pub range: KeyRange,
    /// Field of the key, and the value to compare with.
    pub target: Target,
    /// Expected order of the field to the value.
    pub comparison: Comparison,
}

/// Field of a key in a condition, with the value to compare with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// [`Entry::version`](super::entry::Entry::version).
    Version(i64),
    /// [`Entry::created`](super::entry::Entry::created).
    Created(i64),
    /// [`Entry::modified`](super::entry::Entry::modified).
    Modified(i64),
    /// [`Entry::value`](super::entry::Entry::value).
    Value(Bytes),
    /// [`Attributes::lease`](super::entry::Attributes::lease).
    Lease(i64),
}

/// Expected order of the field of a key to the given value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
    /// The field is greater.
    Greater,
    /// The field is less.
    Less,
}

/// A request of etcd's transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransactionRequest {
    /// Reads a range.
    Range(Range),
    /// Writes a key.
    Put(Put),
    /// Deletes the keys of a range.
    Delete {
        /// Keys to delete.
        range: KeyRange,
        /// True if the response has the deleted entries.
        with_previous: bool,
    },
    /// A transaction within the transaction.
    Transact(Box<Transaction>),
}

/// A write of etcd. Keeps the flags and the lock of the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// The key.
    pub key: Key,
    /// The value; `None` keeps that of the key, which must exist.
    pub value: Option<Bytes>,
    /// Lease of the key.
    pub lease: PutLease,
    /// True if the response has the former entry.
    pub with_previous: bool,
}

/// Lease of a written key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PutLease {
    /// The key has no lease.
    Detach,
    /// The key ends with this lease.
    Attach(LeaseId),
    /// The key, which must exist, keeps its lease.
    Keep,
}

/// Outcome of a command: the revision of the store after it, and the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Revision of the store after the command.
    pub revision: Revision,
    /// The result.
    pub result: Result<Done, Refusal>,
}

/// Result of a command that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    /// Consul's operations: the written and read entries, in order. Deletions and checks have none.
    Operated(Vec<KeyEntry>),
    /// Consul's operations, none of which was applied: the failed ones.
    Failed(Vec<OperationFailure>),
    /// etcd's transaction.
    Transacted(TransactionOutcome),
    /// Every other command.
    Applied,
}

/// A failed operation of Consul's transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationFailure {
    /// Index of the operation in the command.
    pub index: usize,
    /// Reason of the failure.
    pub reason: OperationFailureReason,
}

/// Reasons why one of Consul's operations fails. A plain write over the API answers `false` for all but
/// [`Self::InvalidSession`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum OperationFailureReason {
    /// The key was modified at another index, or exists, or does not exist; holds the index found.
    #[error("current modify index is {0}")]
    Index(u64),
    /// Another session holds the key.
    #[error("lock is already held by session {0}")]
    Held(SessionId),
    /// The lock delay of the key is not over.
    #[error("lock cannot be acquired during its lock delay")]
    LockDelay,
    /// The session of an unlock or of a check does not hold the key.
    #[error("lock isn't held by this session")]
    NotHeld,
    /// There is no such session.
    #[error("invalid session {0}")]
    InvalidSession(SessionId),
    /// There is no such key.
    #[error("key {0} doesn't exist")]
    Missing(Key),
    /// There is such a key.
    #[error("key {0} exists")]
    Exists(Key),
}

/// Outcome of etcd's transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionOutcome {
    /// True if all conditions held.
    pub succeeded: bool,
    /// Responses to the requests of the branch that was taken.
    pub responses: Vec<TransactionResponse>,
}

/// Response to a request of etcd's transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransactionResponse {
    /// To a read.
    Range(RangeAnswer),
    /// To a write: the former entry, if asked for.
    Put(Option<KeyEntry>),
    /// To a deletion.
    Delete {
        /// Number of deleted keys.
        deleted: u64,
        /// The deleted entries, if asked for.
        previous: Vec<KeyEntry>,
    },
    /// To a transaction.
    Transact(TransactionOutcome),
}

/// Reasons why a command changes nothing. The APIs translate them; the texts are for logs and commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Refusal {
    /// The store is full.
    #[error("the store is full: delete keys, or raise store.max_size on all voters and restart their agents")]
    NoSpace,
    /// The revision was compacted; holds the first one that is kept.
    #[error("the revision was compacted: the history begins at revision {0}")]
    Compacted(Revision),
    /// The revision is in the future; holds the current one.
    #[error("the revision is in the future: the store is at revision {0}")]
    Future(Revision),
    /// There is no such lease.
    #[error("no lease {0}")]
    NoLease(LeaseId),
    /// There is such a lease.
    #[error("lease {0} exists")]
    LeaseExists(LeaseId),
    /// There is such a session.
    #[error("session {0} exists")]
    SessionExists(SessionId),
    /// A write that keeps the value or the lease of a key that does not exist.
    #[error("no key {0}")]
    NoKey(Key),
    /// A transaction writes a key twice.
    #[error("the transaction writes key {0} twice")]
    DuplicateKey(Key),
    /// The results of a transaction exceed 4 MiB, or its ranges visit more than 100,000 keys.
    #[error("the results of the transaction exceed 4 MiB or 100,000 keys: split it")]
    TooLarge,
}
