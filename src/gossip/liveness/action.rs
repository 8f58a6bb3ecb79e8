//! The words that pass between the detector and the one who has sockets: what to send, and what was found.

use std::net::SocketAddr;

use crate::model::member::{Cause, PeerId};

/// What is to be done now. Nothing is repeated by whoever does it: what gets lost is asked for again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a ping. Its ack names this run of this node and the sequence: [`Liveness::acked`](super::Liveness::acked).
    Ping {
        /// Whom. The ack counts only if it is of this very run.
        to: PeerId,
        /// Where.
        address: SocketAddr,
        /// To be echoed.
        sequence: u64,
    },
    /// Open a TCP connection to the port where it gossips, close it, and tell how that went:
    /// [`Liveness::knocked`](super::Liveness::knocked).
    Knock {
        /// Whose port.
        peer: PeerId,
        /// Where.
        address: SocketAddr,
    },
    /// Ask another node to find `target`: its [`Liveness::asked`](super::Liveness::asked).
    Ask {
        /// Whom to ask.
        by: PeerId,
        /// Where that is.
        address: SocketAddr,
        /// Whom it shall find.
        target: PeerId,
        /// To be echoed.
        sequence: u64,
    },
    /// Answer one who asked: its [`Liveness::told`](super::Liveness::told).
    Tell {
        /// Who asked.
        to: PeerId,
        /// Where that is.
        address: SocketAddr,
        /// Whom it asked for.
        target: PeerId,
        /// As it was asked.
        sequence: u64,
        /// What we found.
        finding: Finding,
    },
    /// Send to every peer, the one concerned included: their [`Liveness::verdict`](super::Liveness::verdict).
    Announce(Verdict),
    /// Somebody says that we are gone: send any frame to every peer, so that they hear us.
    Refute,
    /// Two nodes have one name, and the one that was there first still answers: it stays until it is gone. Said once for
    /// each newcomer.
    Conflict {
        /// Who has the name.
        incumbent: PeerId,
        /// Where.
        address: SocketAddr,
        /// Who claims it.
        newcomer: PeerId,
        /// From where.
        from: SocketAddr,
    },
}

/// That a peer is gone, as one node found and all others take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which run of which node.
    pub subject: PeerId,
    /// Why.
    pub cause: Cause,
}

/// How a TCP connection to a peer's port went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpProbeResult {
    /// The host answers that nothing listens there: the process has ended.
    Refused,
    /// The host took the connection: the process exists, but may be stopped.
    Accepted,
    /// Nothing came back in time, some 300 ms, or the attempt failed in any other way.
    Silent,
}

/// What a node found that was asked to reach another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It answers pings.
    Answers,
    /// It answers no ping, but its host takes connections.
    Listens,
    /// It answers nothing.
    Nothing,
}
