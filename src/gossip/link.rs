//! Channels between a node and the network.
//!
//! On the node's side messages are plain octets and senders are known by name. On the other side is the
//! [`transport`](super::transport), which encrypts, decrypts and owns the sockets, or a test network, which drops, delays
//! and partitions.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::mpsc;
use tracing::debug;

use super::message::{Identity, Message};
use crate::model::member::PeerId;

/// Capacity of the outbound queue: several messages to each of 500 nodes. Excess messages are dropped.
const OUTBOX: usize = 8192;
/// Capacity of the inbound queue.
const INBOX: usize = 8192;
/// Capacity of chitchat's inbound queue: a round has a handful of messages, each costs up to a millisecond. In a longer
/// queue messages are stale; the next round repairs the loss.
const GOSSIP: usize = 32;

/// A request from the node to the network.
#[derive(Debug)]
pub enum Outbound {
    /// An encoded [`Message`].
    Message {
        /// Gossip address of the receiver.
        to: SocketAddr,
        /// The message.
        octets: Arc<[u8]>,
    },
    /// Encoded [`Message`]s over one connection, in order, until the sender of the channel is gone. The network closes the
    /// channel if it cannot send them.
    Stream {
        /// Gossip address of the receiver.
        to: SocketAddr,
        /// The messages.
        messages: mpsc::Receiver<Vec<u8>>,
    },
    /// Probe a gossip port by TCP.
    TcpProbe {
        /// Probed run of a node.
        peer: PeerId,
        /// Gossip address of the peer.
        address: SocketAddr,
    },
}

/// An event from the network to the node.
#[derive(Clone, Debug)]
pub enum Inbound {
    /// An encoded [`Message`] and its authenticated sender.
    Message {
        /// The sender.
        from: Identity,
        /// The message.
        octets: Vec<u8>,
    },
    /// A node has introduced itself.
    Introduced {
        /// The node's identity.
        peer: Identity,
        /// Source address of the introduction.
        at: SocketAddr,
    },
    /// Result of a TCP probe.
    TcpProbed {
        /// Probed run of a node.
        peer: PeerId,
        /// Result of the connection attempt.
        result: super::liveness::TcpProbeResult,
    },
}

/// Sending half of the node's channel.
#[derive(Clone, Debug)]
pub struct Outbox(mpsc::Sender<Outbound>);

/// Messages for chitchat, each with the sender's gossip address.
pub type Inbox = mpsc::Receiver<(SocketAddr, Vec<u8>)>;

/// The node's end of the channels.
#[derive(Debug)]
pub struct Link {
    /// Requests to the network.
    pub outbox: Outbox,
    /// Events from the network.
    pub inbound: mpsc::Receiver<Inbound>,
}

/// The network's end of the channels.
#[derive(Debug)]
pub struct Network {
    /// Requests from the node.
    pub outbound: mpsc::Receiver<Outbound>,
    /// Events for the node.
    pub inbound: mpsc::Sender<Inbound>,
}

/// Creates both ends of the channels.
pub fn pair() -> (Link, Network) {
    let (outbox, outbound) = mpsc::channel(OUTBOX);
    let (sender, inbound) = mpsc::channel(INBOX);
    (Link { outbox: Outbox(outbox), inbound }, Network { outbound, inbound: sender })
}

/// Creates the channel for chitchat's messages.
pub fn gossip() -> (mpsc::Sender<(SocketAddr, Vec<u8>)>, Inbox) {
    mpsc::channel(GOSSIP)
}

impl Outbox {
    /// Sends a message to each address. Drops it where the queue is full.
    pub fn send(&self, to: impl IntoIterator<Item = SocketAddr>, message: &Message<'_>) {
        let mut octets = Vec::new();
        if let Err(error) = message.encode(&mut octets) {
            debug!(%error, "gossip: cannot encode a message");
            return;
        }
        let octets: Arc<[u8]> = octets.into();
        for to in to {
            let _ = self.0.try_send(Outbound::Message { to, octets: octets.clone() });
        }
    }

    /// Sends a chitchat message.
    pub fn gossip(&self, to: SocketAddr, octets: &[u8]) {
        self.send([to], &Message::Gossip(octets));
    }

    /// Sends messages over one connection. Closes the channel at once if the queue is full.
    pub fn stream(&self, to: SocketAddr, messages: mpsc::Receiver<Vec<u8>>) {
        let _ = self.0.try_send(Outbound::Stream { to, messages });
    }

    /// Requests a TCP probe.
    pub fn tcp_probe(&self, peer: PeerId, address: SocketAddr) {
        let _ = self.0.try_send(Outbound::TcpProbe { peer, address });
    }
}
