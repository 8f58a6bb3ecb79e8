//! What a node knows of one peer, handed over from one start of the node to the next.

use std::{net::SocketAddr, sync::Arc};

use super::peer_replica::Facts;
use crate::model::{
    announcement::{Announcements, HealthReport},
    external_node::ExternalNodes,
    member::{PeerId, Reach},
};

/// A peer as known at the end of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPeer {
    /// Run of the peer.
    pub id: PeerId,
    /// Number of earlier gossip starts within the run.
    pub incarnation: u64,
    /// Gossip address.
    pub address: SocketAddr,
    /// Reachability.
    pub reach: Reach,
    /// Version up to which gossip had delivered the peer's state; zero if the state was incomplete.
    pub version: u64,
    /// The peer's record of itself.
    pub facts: Facts,
    /// Instances that the peer announced.
    pub announcements: Announcements,
    /// External nodes that the peer announced.
    pub external: ExternalNodes,
    /// Results of the checks of the peer as a whole.
    pub node_checks: Option<Arc<HealthReport>>,
    /// Bound that the SOA serials of the node do not exceed; `None` if not announced.
    pub serial: Option<u32>,
    /// Serial of the generated zones that the peer announced; `None` if it serves no transfers.
    pub zone_serial: Option<u32>,
}
