//! JSON of `/v1/muster/store`: the voters of the store and their state.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /v1/muster/store`: the store, as its leader sees it, or the voter that answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "StoreStatus")]
#[serde(rename_all = "PascalCase", default)]
pub struct Status {
    /// Id of the store's cluster, in hexadecimal digits; empty: the store is not founded, or no voter can be reached.
    #[serde(rename = "ClusterID")]
    pub cluster_id: String,
    /// Node that answered.
    pub node: String,
    /// Node of the leader; null: there is none, or it is unknown.
    pub leader: Option<String>,
    /// Number of the last election.
    pub term: u64,
    /// Index of the last change of the store.
    pub revision: u64,
    /// Index of the last entry in the log.
    pub last_log: u64,
    /// Index of the last entry that was applied.
    pub applied: u64,
    /// Number of keys.
    pub keys: u64,
    /// Octets of keys, values and history.
    pub octets: u64,
    /// Number of octets from which writes are refused.
    pub max_octets: u64,
    /// Voters and learners.
    pub members: Vec<Member>,
}

/// A voter or a learner of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "StoreMember")]
#[serde(rename_all = "PascalCase", default)]
pub struct Member {
    /// Id of the member, in hexadecimal digits: a node that lost its disk has another one.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name of the node.
    pub node: String,
    /// False for a learner, which receives the log and does not vote.
    pub voter: bool,
    /// Number of entries that the member lacks; null: only the leader knows.
    pub lag: Option<u64>,
    /// Milliseconds since the member last replied to the leader; null: unknown.
    #[serde(rename = "UnreachedMilliseconds")]
    pub unreached: Option<u64>,
}
