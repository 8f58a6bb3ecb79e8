//! Sessions: holders of locks, which end with their node, their checks or their time to live (Consul).

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::key::Revision;

/// Shortest time to live of a session, as in Consul.
pub const MIN_TTL: Duration = Duration::from_secs(10);
/// Longest time to live of a session, as in Consul.
pub const MAX_TTL: Duration = Duration::from_secs(86_400);
/// Delay after the end of a session before its locks can be acquired, unless the session states another, as in Consul.
pub const DEFAULT_LOCK_DELAY: Duration = Duration::from_secs(15);
/// Longest lock delay, as in Consul.
pub const MAX_LOCK_DELAY: Duration = Duration::from_secs(60);

/// Id of a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub Uuid);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What becomes of the keys that a session holds when the session ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Behavior {
    /// The locks are released.
    #[default]
    Release,
    /// The keys are deleted.
    Delete,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Id of the session.
    pub id: SessionId,
    /// Name for people; may be empty.
    pub name: String,
    /// Node that the session belongs to.
    pub node: String,
    /// True if the session ends when its node fails (Consul's `serfHealth`).
    pub ends_with_node: bool,
    /// Ids of checks of the node; the session ends when one of them is critical. Without `serfHealth`.
    pub node_checks: Vec<String>,
    /// Ids of checks of services of the node; the session ends when one of them is critical.
    pub service_checks: Vec<String>,
    /// Time for which a lock cannot be acquired after the session ended while it held the lock.
    pub lock_delay: Duration,
    /// What becomes of the keys that the session holds.
    pub behavior: Behavior,
    /// Time to live without a renewal; `None`: the session does not expire.
    pub ttl: Option<Duration>,
    /// Revision at which the session was created; [`State::apply`](super::state::State::apply) sets it.
    pub created: Revision,
}
