//! Leases: keys that are attached to a lease end with it (etcd).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::session::SessionId;

/// Shortest time to live of a lease in seconds: longer than an election. A shorter one is raised to it, as in etcd.
pub const MIN_TTL: u64 = 2;
/// Longest time to live of a lease in seconds, as in etcd: some 285 years.
pub const MAX_TTL: u64 = 9_000_000_000;

/// Id of a lease, as etcd's clients see it: greater than 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseId(pub i64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A lease or a session with a time to live: both end unless they are renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LifetimeId {
    /// A lease.
    Lease(LeaseId),
    /// A session.
    Session(SessionId),
}
