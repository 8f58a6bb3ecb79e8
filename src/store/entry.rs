//! What is stored under a key.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    key::{Key, Revision},
    lease::LeaseId,
    session::SessionId,
};

/// What is stored under a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// Number that the client keeps with the value; Consul's `Flags`.
    pub flags: u64,
    /// Session that holds the key as a lock; Consul's `Session`.
    pub session: Option<SessionId>,
    /// Number of times that the key was locked; Consul's `LockIndex`.
    pub lock_index: u64,
    /// Lease with which the key ends; etcd's `lease`.
    pub lease: Option<LeaseId>,
    /// Revision at which the key was created.
    pub created: Revision,
    /// Revision of the last change of the key.
    pub modified: Revision,
    /// Number of changes since the key was created, from 1; etcd's `version`.
    pub version: u64,
}

/// A key with its entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEntry {
    /// The key.
    pub key: Key,
    /// What is stored under it.
    pub entry: Arc<Entry>,
}
