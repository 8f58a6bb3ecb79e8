//! Requests to other nodes whose replies may be longer than a message: answers to queries, and changes that a watch delivers, are
//! sent in parts.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::{
    sync::mpsc::{self, error::SendError},
    time::timeout,
};

use crate::store::{
    message::PeerRequest,
    peers::{PeerError, Peers, ReplyStream},
};

/// Octets of a part: far below the limit of a message, so that other requests are not delayed.
const PART: usize = 1 << 20;

/// Sends a request and returns the reply.
pub(super) async fn exchange(
    peers: &Peers,
    node: &str,
    request: &PeerRequest,
    limit: Duration,
) -> Result<Bytes, PeerError> {
    if !is_answered_in_parts(request) {
        return peers.call(node, request.encode(), limit).await;
    }
    let received = async {
        let mut parts = peers.stream(node, request.encode()).await?;
        receive_in_parts(&mut parts).await.ok_or(PeerError::Lost)
    };
    timeout(limit, received).await.unwrap_or(Err(PeerError::TimedOut))
}

/// Reports whether a reply is sent by [`send_in_parts`].
fn is_answered_in_parts(request: &PeerRequest) -> bool {
    matches!(request, PeerRequest::Read { .. })
}

/// Sends a reply in parts, the length of the whole first. Fails if the other node no longer waits.
pub(super) async fn send_in_parts(parts: &mpsc::Sender<Bytes>, mut reply: Bytes) -> Result<(), SendError<Bytes>> {
    let head = (reply.len() as u64).to_be_bytes();
    parts.send(Bytes::copy_from_slice(&head)).await?;
    while !reply.is_empty() {
        let part = reply.split_to(reply.len().min(PART));
        parts.send(part).await?;
    }
    Ok(())
}

/// Receives a reply that was sent by [`send_in_parts`]; `None` if the stream has ended.
pub(super) async fn receive_in_parts(parts: &mut ReplyStream) -> Option<Bytes> {
    let head = parts.recv().await?;
    let len = u64::from_be_bytes(head.as_ref().try_into().ok()?);
    let mut reply = BytesMut::new();
    // The announced length is untrusted: no buffer is reserved for it.
    while (reply.len() as u64) < len {
        reply.extend_from_slice(&parts.recv().await?);
    }
    Some(reply.freeze())
}
