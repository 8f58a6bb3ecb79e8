//! Inputs and outputs of the failure detector: actions to carry out and probe results.

use std::net::SocketAddr;

use crate::model::member::{Cause, PeerId};

/// An action for the caller to carry out. The caller does not retry; the detector repeats what gets lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a ping. Report its ack by [`Liveness::acked`](super::Liveness::acked).
    Ping {
        /// Run to ping. Only an ack of this run counts.
        to: PeerId,
        /// Gossip address of the peer.
        address: SocketAddr,
        /// Sequence number to be echoed.
        sequence: u64,
    },
    /// Connect to a gossip port by TCP, close the connection, and report the result by
    /// [`Liveness::tcp_probed`](super::Liveness::tcp_probed).
    TcpProbe {
        /// Run to probe.
        peer: PeerId,
        /// Gossip address of the peer.
        address: SocketAddr,
    },
    /// Ask another node to probe `target`: its [`Liveness::indirect_probe`](super::Liveness::indirect_probe).
    IndirectProbe {
        /// Run of the node that probes.
        by: PeerId,
        /// Gossip address of that node.
        address: SocketAddr,
        /// Run to probe.
        target: PeerId,
        /// Sequence number to be echoed.
        sequence: u64,
    },
    /// Answer a request for an indirect probe: the requester's
    /// [`Liveness::indirect_result`](super::Liveness::indirect_result).
    IndirectResult {
        /// Run of the requester.
        to: PeerId,
        /// Gossip address of the requester.
        address: SocketAddr,
        /// Probed run.
        target: PeerId,
        /// Sequence number of the request.
        sequence: u64,
        /// Result of the probe.
        result: IndirectProbeResult,
    },
    /// Send to every peer, the dead one included: their [`Liveness::dead`](super::Liveness::dead).
    BroadcastDead(Dead),
    /// Send any frame to every peer, to refute a report that this node is dead.
    Refute,
    /// Report to the newcomer that two nodes have one name while the known one still answers. The known one keeps the name
    /// until it is gone. Emitted at most once a second for each name.
    Conflict {
        /// Run that keeps the name.
        incumbent: PeerId,
        /// Gossip address of the incumbent.
        address: SocketAddr,
        /// Run that claims the name.
        newcomer: PeerId,
        /// Gossip address of the newcomer.
        from: SocketAddr,
    },
    /// Report to a node that its run is older than the known one, or has left.
    Outdated {
        /// Gossip address of the node.
        to: SocketAddr,
        /// Known run of this name.
        known: PeerId,
    },
}

/// Report that a peer is gone, detected by one node and broadcast to all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Run that is gone.
    pub id: PeerId,
    /// Reason why it is gone.
    pub cause: Cause,
}

/// Result of a TCP probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpProbeResult {
    /// The host refused the connection: the process has ended.
    Refused,
    /// The host accepted the connection: the process exists but may be stopped.
    Accepted,
    /// No answer within some 300 ms, or any other error.
    Silent,
}

/// Result of an indirect probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndirectProbeResult {
    /// The target acked a ping.
    Acked,
    /// The target acked no ping, but its host accepts TCP connections.
    TcpOnly,
    /// The target did not react.
    Unreachable,
}
