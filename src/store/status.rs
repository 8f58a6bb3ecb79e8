//! State of the store's cluster, and changes of its voters.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::key::Revision;

/// State of the store's cluster, as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Random id of the store's cluster; 0: not founded, or unknown.
    pub cluster_id: u64,
    /// Raft id of the voter that answered; 0: none.
    pub member_id: u64,
    /// Name of the voter that answered.
    pub node: String,
    /// Name of the leader; `None`: there is none, or it is unknown.
    pub leader: Option<String>,
    /// Term of the election.
    pub term: u64,
    /// Revision of the state of the voter that answered.
    pub revision: Revision,
    /// Index of the last entry in the log.
    pub last_log: u64,
    /// Index of the last entry that was applied.
    pub applied: u64,
    /// Number of keys.
    pub keys: u64,
    /// Octets of keys, values, sessions and leases.
    pub octets: u64,
    /// Limit of `octets`.
    pub max_octets: u64,
    /// The voters and learners.
    pub members: Vec<MemberStatus>,
    /// Error and remedy if the voter of the node that was asked has failed; no other node knows.
    #[serde(skip)]
    pub failure: Option<String>,
    /// Names of the voters as the node that was asked last heard of them, or as its configuration names them.
    #[serde(skip)]
    pub known_voters: Vec<String>,
}

/// State of one voter or learner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Raft id.
    pub id: u64,
    /// Name of the node.
    pub node: String,
    /// True for a voter, false for a learner.
    pub is_voter: bool,
    /// Number of log entries that the member lacks; `None` if only the leader knows, or if it does not know yet.
    pub lag: Option<u64>,
    /// Time since the member last replied to the leader; `None` if only the leader knows.
    pub unreached: Option<Duration>,
}

/// A change of the set of voters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MembershipChange {
    /// Adds the node of this name: as a learner until it has the log, then as a voter.
    Add(String),
    /// Removes the node of this name.
    Remove(String),
}
