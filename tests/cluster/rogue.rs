//! A peer that gossips invalid state.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use muster::{
    gossip::{
        anti_entropy::{Cluster as Gossip, Settings},
        link::{self, Inbound},
        message::{Identity, Message},
    },
    model::member::{INCARNATIONS, PeerId},
};
use tokio::task::JoinHandle;

use crate::{network::Network, support::label};

/// Its gossip address.
pub(crate) const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 66, 6)), 7946);

/// Runs beside the nodes of a cluster until it is dropped.
pub(crate) struct Rogue {
    pub(crate) identity: Identity,
    network: Network,
    _gossip: Gossip,
    running: JoinHandle<()>,
}

impl Rogue {
    /// Joins through an address, with these records.
    pub(crate) async fn join(network: &Network, through: SocketAddr, records: &[(String, String)]) -> Self {
        let identity = Identity { id: PeerId { name: label("r"), generation: INCARNATIONS }, address: ADDRESS };
        let (link, side) = link::pair();
        network.attach(identity.clone(), side);
        let (to_gossip, inbox) = link::gossip();
        let settings = Settings {
            id: identity.id.clone(),
            incarnation: 0,
            address: identity.address,
            cluster: "service.local.".to_owned(),
        };
        let gossip =
            Gossip::start(settings, records.to_vec(), link.outbox.clone(), inbox, Arc::default()).await.unwrap();
        gossip.talk_to(through);
        let mut inbound = link.inbound;
        let running = tokio::spawn(async move {
            while let Some(arrived) = inbound.recv().await {
                let Inbound::Message { from, octets } = arrived else { continue };
                match Message::decode(&octets).unwrap() {
                    Message::Gossip(octets) => drop(to_gossip.try_send((from.address, octets.to_vec()))),
                    Message::Ping { sequence, state } => {
                        link.outbox.send([from.address], &Message::Ack { sequence, state });
                    }
                    _ => {}
                }
            }
        });
        Self { identity, network: network.clone(), _gossip: gossip, running }
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.network.detach(&self.identity);
        self.running.abort();
    }
}
