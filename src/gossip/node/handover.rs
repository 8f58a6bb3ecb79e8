//! State handed from one start of the node to the next, and the end of a start: when the cluster's state is complete.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;

use super::{ReplicaState, Task, alone, publish::freshness};
use crate::{
    gossip::{known_peer::KnownPeer, peer_replica::Replica},
    model::{
        announcement::{Announcements, Node},
        catalog::{Freshness, NodeView, View},
        external_node::ExternalNodes,
        name::Label,
    },
};

/// Number of known peers that a new start gossips with at once.
const FIRST_PARTNERS: usize = 3;

/// The view of a node before its first message: its own instances and external nodes, and those of the peers that it knows.
pub fn initial_view(
    node: &Arc<Node>,
    announcements: &Announcements,
    external: &ExternalNodes,
    known: &[KnownPeer],
    continues: bool,
) -> View {
    let mut view = alone(node, announcements, external);
    let freshest = freshest(continues);
    for peer in known {
        let Some(freshness) = freshness(peer.reach) else { continue };
        let node = Arc::new(peer.facts.node(&peer.id.name, peer.node_checks.clone()));
        let (announcements, external) = (peer.announcements.clone(), peer.external.clone());
        let known = NodeView { node, announcements, external, freshness: freshness.max(freshest) };
        view.insert(peer.id.name.clone(), Arc::new(known));
    }
    view
}

/// Returns the serials of the generated zones before the first message: a run that goes on has the primary that it had.
pub fn initial_zone_serials(known: &[KnownPeer], continues: bool) -> Arc<BTreeMap<Label, u32>> {
    let live = known.iter().filter(|peer| continues && freshness(peer.reach) == Some(Freshness::Live));
    Arc::new(live.filter_map(|peer| Some((peer.id.name.clone(), peer.zone_serial?))).collect())
}

/// Freshness of known peers before their first message.
fn freshest(continues: bool) -> Freshness {
    if continues { Freshness::Live } else { Freshness::LastKnown }
}

impl Task {
    /// Returns the peers whose record is known.
    pub(super) fn snapshot(&self) -> Vec<KnownPeer> {
        let known = |peer: &crate::gossip::liveness::PeerState| {
            let known = self.replicas.get(&peer.id)?;
            Some(KnownPeer {
                id: peer.id.clone(),
                incarnation: known.incarnation,
                address: peer.address,
                reach: peer.reach,
                version: known.replica.version(),
                facts: known.replica.facts.clone()?,
                announcements: known.replica.announcements.clone(),
                external: known.replica.external.clone(),
                node_checks: known.replica.node_checks.clone(),
                serial: self.ceilings.of(&peer.id.name),
                zone_serial: known.replica.zone_serial,
            })
        };
        self.peer_states.values().filter_map(known).collect()
    }

    /// Restores the known peers, and gossips with some of them.
    pub(super) fn restore(&mut self) {
        let now = self.now();
        let continues = self.settings.continues;
        for peer in std::mem::take(&mut self.settings.known) {
            let KnownPeer {
                id,
                incarnation,
                address,
                reach,
                version,
                facts,
                announcements,
                external,
                node_checks,
                serial,
                zone_serial,
            } = peer;
            serial.into_iter().for_each(|serial| self.ceilings.note(&id, serial));
            self.liveness.restore(&id, address, reach, continues, now);
            self.cluster.resume(&id, incarnation, address, version);
            let shown = Some(freshest(continues));
            let replica = Replica::known(facts, announcements, external, node_checks, zone_serial, version);
            self.replicas
                .insert(id, ReplicaState { incarnation, replica, shown, awaited: version, ..Default::default() });
        }
        self.peer_states = self.liveness.peers().map(|peer| (peer.id.name.clone(), peer)).collect();
        self.missing.note(&BTreeMap::new(), &self.peer_states, Instant::now());
        self.note_connection();
        self.dirty.extend(self.peer_states.keys().cloned());
        let reachable = self.peer_states.values().filter(|peer| peer.reach.is_live());
        let reachable: Vec<_> = reachable.map(|peer| peer.address).collect();
        // Any message makes peers learn this start's session.
        self.ping(reachable.iter().copied(), 0);
        let mut rng = fastrand::Rng::with_seed(self.settings.seed.wrapping_add(2));
        for address in rng.choose_multiple(reachable, FIRST_PARTNERS) {
            self.cluster.talk_to(address);
        }
    }

    /// Publishes that the cluster's state is complete, once: a peer is alive, and each peer that gossip lists is alive with
    /// its complete state, known to be gone, or does not answer.
    pub(super) fn publish_synced(&mut self) {
        if !*self.outputs.synced.borrow() && self.is_synced() {
            self.outputs.synced.send_replace(true);
        }
    }

    fn is_synced(&mut self) -> bool {
        let now = self.now();
        let mut alive = self.peer_states.values().filter(|peer| peer.reach.is_live());
        let complete = |known: &ReplicaState| known.shown == Some(Freshness::Live) && known.replica.is_complete();
        let mut alive = alive.by_ref().map(|peer| self.replicas.get(&peer.id).is_some_and(complete)).peekable();
        alive.peek().is_some() && alive.all(|complete| complete) && !self.liveness.awaits_answers(now)
    }
}
