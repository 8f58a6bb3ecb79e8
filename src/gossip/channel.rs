//! What lies between a node and the network: two channels.
//!
//! On this side messages are plain octets and senders are known by name; the other side is [`wire`](super::transport), which
//! seals and opens and owns the sockets, or a test's network, which loses, delays and cuts.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::mpsc;
use tracing::debug;

use super::message::{Identity, Message};
use crate::model::member::PeerId;

/// Messages on their way out: one to each of 500 nodes, some times over. Beyond it they are lost, as on a network.
const OUTBOX: usize = 8192;
/// Messages on their way in.
const INBOX: usize = 8192;
/// Messages on their way to chitchat: a round has a handful, and each costs it up to a millisecond. Where more wait, they
/// are stale: what is lost comes with the next round.
const GOSSIP: usize = 32;

/// From the node to the network.
#[derive(Clone, Debug)]
pub enum Outbound {
    /// An encoded [`Message`].
    Message {
        /// Where the receiver gossips.
        to: SocketAddr,
        /// The message.
        octets: Arc<[u8]>,
    },
    /// Try whether anything listens there.
    Knock {
        /// Whose agent.
        peer: PeerId,
        /// Where it gossips.
        address: SocketAddr,
    },
}

/// From the network to the node.
#[derive(Clone, Debug)]
pub enum Inbound {
    /// An encoded [`Message`], and who proved to have sent it.
    Message {
        /// The sender.
        from: Identity,
        /// The message.
        octets: Vec<u8>,
    },
    /// A node has introduced itself.
    Met {
        /// Who it is.
        peer: Identity,
        /// Where we reached it, or it us.
        at: SocketAddr,
    },
    /// What came of a knock.
    Knocked {
        /// Whose agent.
        peer: PeerId,
        /// What its host said.
        answer: super::liveness::TcpProbeResult,
    },
}

/// The way out.
#[derive(Clone, Debug)]
pub struct Outbox(mpsc::Sender<Outbound>);

/// chitchat's messages on their way in: from which address, and the octets.
pub type Inbox = mpsc::Receiver<(SocketAddr, Vec<u8>)>;

/// The ends of a link.
#[derive(Debug)]
pub struct Link {
    /// What the node sends.
    pub outbox: Outbox,
    /// What the node receives.
    pub inbound: mpsc::Receiver<Inbound>,
}

/// The other ends.
#[derive(Debug)]
pub struct Network {
    /// What the node sent.
    pub outbound: mpsc::Receiver<Outbound>,
    /// What it shall receive.
    pub inbound: mpsc::Sender<Inbound>,
}

/// A link and the network's side of it.
pub fn pair() -> (Link, Network) {
    let (outbox, outbound) = mpsc::channel(OUTBOX);
    let (sender, inbound) = mpsc::channel(INBOX);
    (Link { outbox: Outbox(outbox), inbound }, Network { outbound, inbound: sender })
}

/// A channel for chitchat's messages.
pub fn gossip() -> (mpsc::Sender<(SocketAddr, Vec<u8>)>, Inbox) {
    mpsc::channel(GOSSIP)
}

impl Outbox {
    /// Sends a message to each of these addresses. What does not fit the channel is lost.
    pub fn send(&self, to: impl IntoIterator<Item = SocketAddr>, message: &Message<'_>) {
        let mut octets = Vec::new();
        if let Err(error) = message.encode(&mut octets) {
            debug!(%error, "gossip: a message that nobody would take");
            return;
        }
        let octets: Arc<[u8]> = octets.into();
        for to in to {
            let _ = self.0.try_send(Outbound::Message { to, octets: octets.clone() });
        }
    }

    /// Sends a message of chitchat.
    pub fn gossip(&self, to: SocketAddr, octets: &[u8]) {
        self.send([to], &Message::Gossip(octets));
    }

    /// Tries whether anything listens there.
    pub fn knock(&self, peer: PeerId, address: SocketAddr) {
        let _ = self.0.try_send(Outbound::Knock { peer, address });
    }
}
