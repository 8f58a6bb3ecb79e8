//! JSON of `/v1/muster/store`: the voters of the store and their state, leases, and keys without values.

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
    /// Octets of keys, values, sessions and leases.
    pub octets: u64,
    /// Number of octets from which writes are refused.
    pub max_octets: u64,
    /// Voters and learners.
    pub members: Vec<Member>,
    /// Error and remedy if the voter on the agent's own node has failed; null: it runs, or the node has none.
    pub failure: Option<String>,
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

/// `GET /v1/muster/store/key/{key}`: a key without its value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "StoreKey")]
#[serde(rename_all = "PascalCase", default)]
pub struct KeyState {
    /// The key.
    pub key: String,
    /// Length of the value in octets.
    pub octets: u64,
    /// Number that a client stored with the value.
    pub flags: u64,
    /// Number of times that the key was locked.
    pub lock_index: u64,
    /// Id of the session that holds the key as a lock; null: none.
    pub session: Option<String>,
    /// Id of the lease with which the key ends, in hexadecimal digits; null: none.
    pub lease: Option<String>,
    /// Number of changes since the key was created, from 1.
    pub version: u64,
    /// Index of the key's creation.
    pub create_index: u64,
    /// Index of the last change of the key.
    pub modify_index: u64,
}

/// `GET /v1/muster/store/leases`: leases of etcd's API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "StoreLeases")]
#[serde(rename_all = "PascalCase", default)]
pub struct Leases {
    /// Number of all leases.
    pub total: u64,
    /// The first leases by id, at most 256.
    pub leases: Vec<Lease>,
}

/// A lease of etcd's API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "StoreLease")]
#[serde(rename_all = "PascalCase", default)]
pub struct Lease {
    /// Id of the lease in hexadecimal digits.
    #[serde(rename = "ID")]
    pub id: String,
    /// Time to live in seconds, as granted.
    #[serde(rename = "TTLSeconds")]
    pub ttl: u64,
    /// Seconds until the lease ends unless it is renewed.
    #[serde(rename = "RemainingSeconds")]
    pub remaining: u64,
    /// Number of keys that end with the lease.
    pub keys: u64,
}

/// Element of `GET /v1/muster/store/sessions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "StoreSessionKeys")]
#[serde(rename_all = "PascalCase", default)]
pub struct SessionKeys {
    /// Id of the session.
    #[serde(rename = "ID")]
    pub id: String,
    /// Number of keys that the session holds as locks.
    pub keys: u64,
}
