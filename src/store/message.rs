//! Messages between nodes: what a node asks of another, and the replies.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    command::{Command, Outcome},
    error::StoreError,
    lease::LifetimeId,
    query::{Answer, Consistency, Query, Wait},
    status::{MembershipChange, Status},
    watch::Watch,
};

/// A request of one node to another. New variants are added at the end: a node of an earlier version refuses them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PeerRequest {
    /// Describes the node: [`Description`].
    Describe,
    /// Describes the node, which first makes an id for itself if it has none, so that it can become a member: [`Description`].
    Prepare,
    /// A message of Raft to the member with this id. The reply is Raft's.
    Raft {
        /// Id of the member.
        to: u64,
        /// The message, encoded.
        octets: Bytes,
    },
    /// Applies a command: `Result<Outcome, PeerRefusal>`.
    Write(Command),
    /// Answers a query: `Result<Answer, PeerRefusal>`.
    Read {
        /// The query.
        query: Query,
        /// Demands on the answer.
        consistency: Consistency,
        /// Waits for a change first.
        wait: Option<Wait>,
    },
    /// Renews a lease or a session: `Result<Option<Duration>, PeerRefusal>`.
    Renew(LifetimeId),
    /// State of the store's cluster: `Result<Status, PeerRefusal>`.
    Status,
    /// Changes the voters: `Result<(), PeerRefusal>`.
    Membership(MembershipChange),
    /// Watches a range: a stream of [`WatchMessage`](super::watch::WatchMessage)s.
    Watch(Watch),
    /// Asks a voter to become the leader, since the leader of this term stops: [`TakeOverReply`].
    TakeOver {
        /// The term.
        term: u64,
    },
    /// Asks the leader whether a member was removed from the cluster: `Result<bool, PeerRefusal>`.
    IsRemoved {
        /// Random id of the store's cluster that the member belongs to.
        cluster: u64,
        /// Id of the member.
        id: u64,
    },
    /// State of the store's cluster as a voter sees it that need not be the leader: `Result<Status, PeerRefusal>`.
    View,
}

impl PeerRequest {
    /// Encodes the request.
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// Decodes a request; `None` if it is damaged or of a later version.
    pub fn decode(octets: &[u8]) -> Option<Self> {
        decode(octets)
    }
}

/// Encodes a message.
pub fn encode<T: Serialize>(message: &T) -> Bytes {
    // Fails only for types that postcard cannot encode, none of which is in a message.
    postcard::to_stdvec(message).map(Bytes::from).unwrap_or_default()
}

/// Decodes a message; `None` if it is damaged or of a later version.
pub fn decode<T: DeserializeOwned>(octets: &[u8]) -> Option<T> {
    postcard::from_bytes(octets).ok()
}

/// State of the store on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Raft id of the node, if its disk has one.
    pub id: Option<u64>,
    /// True if the node holds a log with votes or entries.
    pub has_log: bool,
    /// Members as of the node's log.
    pub members: Vec<KnownMember>,
}

/// A member of the store's cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownMember {
    /// Raft id.
    pub id: u64,
    /// Name of the node.
    pub node: String,
    /// True for a voter, false for a learner.
    pub is_voter: bool,
}

/// Reasons why a node does not carry out a request of another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerRefusal {
    /// The node is not the leader and has done nothing; holds the name of the leader that it knows.
    NotLeader(Option<String>),
    /// The node stops, lets another one lead, and has done nothing.
    Stopping,
    /// The request failed.
    Failed(StoreError),
}

/// Outcome of a write that was forwarded.
pub type WriteReply = Result<Outcome, PeerRefusal>;
/// Outcome of a query that was forwarded.
pub type ReadReply = Result<Answer, PeerRefusal>;
/// Outcome of a renewal that was forwarded.
pub type RenewReply = Result<Option<Duration>, PeerRefusal>;
/// Outcome of a request for the status.
pub type StatusReply = Result<Status, PeerRefusal>;
/// Answer of a voter that is asked to become the leader: it has begun an election, or why it does not.
pub type TakeOverReply = Result<(), PeerRefusal>;
/// Answer of the leader to a member that asks whether it was removed.
pub type RemovedReply = Result<bool, PeerRefusal>;
/// Outcome of a change of the voters.
pub type MembershipReply = Result<(), PeerRefusal>;
