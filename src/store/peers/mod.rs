//! Requests between nodes by name, over one connection per direction and pair of nodes.
//!
//! ```text
//! Peers::call, stream ─► client: a task per node ─► sealed stream ─► server: a task per connection ─► Incoming
//! ```
//!
//! Many requests share a connection: replies arrive in any order, and a slow reply delays no other. A stream of replies has a
//! window, so that a slow receiver stops only its own stream. The module knows nothing of the content. Both sides send
//! something each second and close a connection that is silent for longer than [`SILENCE`](super::sealed_stream::SILENCE).

mod client;
mod message;
mod server;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use thiserror::Error;
use tokio::{sync::watch, time::timeout};

use self::client::Node;
pub use self::{
    client::ReplyStream,
    server::{Incoming, Responder, serve},
};
use super::sealed_stream::MAX_MESSAGE;
use crate::model::keyring::Keyring;

/// Longest body of a request or a reply in octets.
pub const MAX_BODY: usize = MAX_MESSAGE - message::HEAD;
/// Largest number of open calls of one node to another. Further ones wait at the caller: a write takes about as long as an
/// fsync, so this many need several of them.
pub const MAX_CALLS: usize = 4096;
/// Largest number of open streams of one node to another: each is a waiting client of the forwarding node.
pub const MAX_STREAMS: usize = 16_384;
/// Replies of a stream that are sent ahead of its receiver.
const WINDOW: u8 = 64;
/// Time after which a side that has sent nothing sends a sign of life: a third of the silence that ends a connection.
const KEEPALIVE: Duration = Duration::from_secs(1);
/// Octets that are collected for one system call.
const BATCH: usize = 128 << 10;

/// Addresses of the nodes by name.
pub type Addresses = BTreeMap<String, SocketAddr>;

/// Connections to other nodes. Clones share them; they end with the last clone.
#[derive(Clone, Debug)]
pub struct Peers {
    shared: Arc<Shared>,
}

/// What the tasks of all nodes need.
#[derive(Debug)]
struct Shared {
    context: Context,
    nodes: Mutex<HashMap<String, Arc<Node>>>,
}

/// Identity of this node, and where to find the others.
#[derive(Clone, Debug)]
struct Context {
    own: String,
    keyring: watch::Receiver<Option<Keyring>>,
    addresses: watch::Receiver<Arc<Addresses>>,
}

impl Peers {
    /// Returns the connections of the node `own`. A connection is made when a request needs it.
    pub fn new(
        own: String,
        keyring: watch::Receiver<Option<Keyring>>,
        addresses: watch::Receiver<Arc<Addresses>>,
    ) -> Self {
        Self { shared: Arc::new(Shared { context: Context { own, keyring, addresses }, nodes: Mutex::default() }) }
    }

    /// Sends a request to a node and waits for the reply, at most for `limit`. A dropped call is cancelled. For requests that
    /// wait for long, such as blocking queries, use [`stream`](Self::stream): they must not use up [`MAX_CALLS`].
    ///
    /// # Errors
    /// The reason why there is no reply.
    pub async fn call(&self, node: &str, body: Bytes, limit: Duration) -> Result<Bytes, PeerError> {
        let node = self.node(node, &body)?;
        timeout(limit, node.call(body)).await.unwrap_or(Err(PeerError::TimedOut))
    }

    /// Sends a request to a node and returns the replies once the node has accepted it.
    ///
    /// # Errors
    /// The reason why there is no stream.
    pub async fn stream(&self, node: &str, body: Bytes) -> Result<ReplyStream, PeerError> {
        self.node(node, &body)?.stream(body).await
    }

    /// Returns the names of the nodes that have an address.
    pub fn known(&self) -> Vec<String> {
        self.shared.context.addresses.borrow().keys().cloned().collect()
    }

    /// Returns once a node has an address.
    pub async fn any_known(&self) {
        let mut addresses = self.shared.context.addresses.clone();
        // An error: the agent stops.
        let _ = addresses.wait_for(|addresses| !addresses.is_empty()).await;
    }

    /// Returns the node that this request is for.
    fn node(&self, name: &str, body: &Bytes) -> Result<Arc<Node>, PeerError> {
        if body.len() > MAX_BODY {
            return Err(PeerError::TooLong(body.len()));
        }
        let mut nodes = self.shared.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = nodes.get(name) {
            return Ok(node.clone());
        }
        // Only names with an address get a task, so callers cannot start any number of them.
        if !self.shared.context.addresses.borrow().contains_key(name) {
            return Err(PeerError::Unreachable);
        }
        let node = Arc::new(Node::start(name.to_owned(), self.shared.context.clone()));
        nodes.insert(name.to_owned(), node.clone());
        Ok(node)
    }
}

/// Reasons why a request to a node fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PeerError {
    /// There is no connection to the node: the request was not sent.
    #[error("the node cannot be reached")]
    Unreachable,
    /// The connection was lost: the node may or may not have carried out the request.
    #[error("the connection to the node was lost before it replied")]
    Lost,
    /// There was no reply in time: the node may or may not have carried out the request.
    #[error("the node did not reply in time")]
    TimedOut,
    /// The node has too many requests: it did not carry out this one.
    #[error("the node is overloaded")]
    Overloaded,
    /// The node dropped the request without a reply.
    #[error("the node did not reply to the request")]
    Unanswered,
    /// The body exceeds [`MAX_BODY`]; holds its length.
    #[error("request of {0} octets exceeds the limit of {MAX_BODY}")]
    TooLong(usize),
}
