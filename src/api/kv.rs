//! JSON of the key/value API, of sessions and of transactions: the keys of Consul, in Consul's order.

use data_encoding::BASE64;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Largest value in octets, as in Consul.
pub const MAX_VALUE: usize = 512 * 1024;
/// Consul's name of the behavior that releases the locks of an ended session.
pub const RELEASE: &str = "release";
/// Consul's name of the behavior that deletes the locked keys of an ended session.
pub const DELETE: &str = "delete";

/// Response header of an export: the number of keys in the store that begin with the prefix. The JSON has fewer if some are not
/// UTF-8, which only etcd's API can write.
pub const KEY_COUNT: &str = "x-muster-key-count";

/// A key with its value, in `GET /v1/kv/{key}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct KeyValue {
    /// Number of times that the key was locked.
    pub lock_index: u64,
    /// The key.
    pub key: String,
    /// Number that a client stored with the value.
    pub flags: u64,
    /// Value in base64; null: the value is empty.
    pub value: Option<String>,
    /// Id of the session that holds the key as a lock; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Index of the key's creation.
    pub create_index: u64,
    /// Index of the last change of the key.
    pub modify_index: u64,
}

impl KeyValue {
    /// Returns the octets of the value; `None` if it is not base64.
    pub fn octets(&self) -> Option<Vec<u8>> {
        BASE64.decode(self.value.as_deref().unwrap_or_default().as_bytes()).ok()
    }
}

/// A key in an export: `GET /v1/muster/store/export/{prefix}`, and the format of `consul kv export`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Exported {
    /// The key.
    pub key: String,
    /// Number that a client stored with the value.
    pub flags: u64,
    /// Value in base64.
    pub value: String,
}

/// A session, in `GET /v1/session/list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Session {
    /// Id of the session: a UUID.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name for people; may be empty.
    pub name: String,
    /// Node of the session.
    pub node: String,
    /// Nanoseconds for which a lock cannot be acquired after the session ended while it held the lock.
    pub lock_delay: u64,
    /// [`RELEASE`] or [`DELETE`].
    pub behavior: String,
    /// Time to live without a renewal, such as `30s`; empty: the session does not expire.
    #[serde(rename = "TTL")]
    pub ttl: String,
    /// Checks of the node that end the session when they are critical.
    pub node_checks: Vec<String>,
    /// Checks of services of the node that end the session when they are critical; null: none.
    pub service_checks: Option<Vec<ServiceCheck>>,
    /// Index of the session's creation.
    pub create_index: u64,
    /// Index of the session's creation: sessions do not change.
    pub modify_index: u64,
}

/// A check of a service, in a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceCheck {
    /// Id of the check.
    #[serde(rename = "ID")]
    pub id: String,
    /// Always empty.
    pub namespace: String,
}

/// Body of `PUT /v1/session/create`; all fields are optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct NewSession {
    /// Name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Node of the session; default: the node of the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Such as `15s`, the default; at most 60 s. A number counts nanoseconds, or seconds if it is below 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_delay: Option<String>,
    /// [`RELEASE`], the default, or [`DELETE`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behavior: Option<String>,
    /// Time to live without a renewal: 10 s to 24 h, such as `30s`; default: the session does not expire.
    #[serde(rename = "TTL", skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// Checks of the node or of its services; default: `serfHealth`, which is the node itself; `[]`: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checks: Option<Vec<String>>,
    /// Checks of the node, in place of the default of `Checks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_checks: Option<Vec<String>>,
    /// Checks of services of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_checks: Option<Vec<ServiceCheck>>,
}

/// `PUT /v1/session/create`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct SessionCreated {
    /// Id of the session.
    #[serde(rename = "ID")]
    pub id: String,
}

/// Element of the body of `PUT /v1/txn`: one of both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct TxnOperation {
    /// An operation on a key or a prefix.
    #[serde(rename = "KV", skip_serializing_if = "Option::is_none")]
    pub kv: Option<KeyOperation>,
    /// An operation on a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionOperation>,
}

/// An operation on a key or a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct KeyOperation {
    /// `set`, `cas`, `lock`, `unlock`, `get`, `get-tree`, `check-index`, `check-session`, `check-not-exists`, `delete`,
    /// `delete-tree` or `delete-cas`.
    pub verb: String,
    /// The key, or the prefix.
    pub key: String,
    /// Value in base64; null: empty.
    pub value: Option<String>,
    /// Number to store with the value.
    pub flags: u64,
    /// Expected `ModifyIndex`.
    pub index: u64,
    /// Id of the session.
    pub session: String,
}

/// An operation on a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct SessionOperation {
    /// `delete`.
    pub verb: String,
    /// The session.
    pub session: SessionCreated,
}

/// `PUT /v1/txn`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct TxnAnswer {
    /// Read and written keys; null if an operation failed.
    pub results: Option<Vec<TxnResult>>,
    /// Operations that failed: none was applied. Null if there are none.
    pub errors: Option<Vec<TxnError>>,
}

/// Result of an operation of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct TxnResult {
    /// The key. A transaction that only writes returns no values.
    #[serde(rename = "KV")]
    pub kv: KeyValue,
}

/// A failed operation of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct TxnError {
    /// Index of the operation, from 0.
    pub op_index: usize,
    /// Reason of the failure.
    pub what: String,
}
