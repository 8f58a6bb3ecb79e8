//! What Consul's API reads of a client's octets for the store: paths of keys, transactions and sessions. The fuzz target `consul`
//! begins here.

use axum::http::Uri;
use serde_json::Value;

use super::consul::{
    kv,
    session::{self, Bounds},
    txn,
};
use crate::store::command::Operation;

/// Returns the operations of a transaction that can be carried out; `None` if the body is refused.
pub fn transaction(body: &[u8]) -> Option<Vec<Operation>> {
    txn::operations(body).ok().map(|read| read.operations)
}

/// Returns the bounds of a new session; `None` if the body is refused.
pub fn session(body: &[u8]) -> Option<Bounds> {
    session::bounds(&serde_json::from_slice::<Value>(body).ok()?).ok()
}

/// Returns the key in a path; `None` if the path is refused.
pub fn key(path: &str) -> Option<String> {
    kv::key_text(&path.parse::<Uri>().ok()?).ok()
}
