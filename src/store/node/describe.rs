//! Asks nodes about their part in the store.

use std::time::Duration;

use crate::store::{
    message::{Description, PeerRequest, decode},
    peers::Peers,
};

/// Time limit for a description of a node.
const DESCRIBE: Duration = Duration::from_secs(1);

/// Asks a node for its description; `None` if it cannot be reached or has no store.
pub(super) async fn describe(peers: &Peers, node: &str, request: &PeerRequest) -> Option<Description> {
    let reply = peers.call(node, request.encode(), DESCRIBE).await.ok()?;
    decode(&reply)
}
