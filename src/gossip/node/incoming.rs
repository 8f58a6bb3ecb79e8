//! Incoming data: messages of peers, and state replicated by gossip.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use super::{End, Task};
use tracing::warn;

use crate::{
    gossip::{
        anti_entropy::{Entry, Peer},
        key_rotation,
        link::Inbound,
        liveness::{Dead, PeerState},
        message::{Identity, KeyringOutcome, Message, Push},
        peer_replica::{Change, SkipError},
        rejected::Rejected,
    },
    model::{
        member::{INCARNATIONS, PeerId, Reach},
        name::Label,
    },
};

impl Task {
    /// Processes an event from the network.
    pub(super) fn receive(&mut self, inbound: Inbound) -> Option<End> {
        let now = self.now();
        match inbound {
            Inbound::Message { from, octets } => {
                self.liveness.heard(&from.id, now);
                // The transport has decoded the message before, so this cannot fail.
                return Message::decode(&octets).ok().and_then(|message| self.take(&from, message));
            }
            Inbound::Introduced { peer, at } => {
                if peer.id.name == self.settings.own.id.name {
                    return self.name_conflict(peer);
                }
                self.liveness.learn(&peer.id, peer.address, now);
                self.liveness.heard(&peer.id, now);
                self.cluster.talk_to(peer.address);
                self.finish_joins(&peer, at);
            }
            Inbound::TcpProbed { peer, result } => self.liveness.tcp_probed(&peer, result, now),
        }
        None
    }

    fn take(&mut self, from: &Identity, message: Message<'_>) -> Option<End> {
        let now = self.now();
        match message {
            Message::Gossip(octets) => {
                // A full queue drops the message; the next round repairs the loss.
                let _ = self.to_chitchat.try_send((from.address, octets.to_vec()));
            }
            Message::Push(push) => self.take_push(from, &push),
            Message::Ping { sequence } => self.outbox.send([from.address], &Message::Ack { sequence }),
            Message::Ack { sequence } => self.liveness.acked(&from.id, sequence, now),
            Message::IndirectProbe { sequence, target } => {
                self.liveness.indirect_probe(&from.id, from.address, &target, sequence, now);
            }
            Message::IndirectResult { sequence, target, result } => {
                self.liveness.indirect_result(&from.id, &target, sequence, result, now);
            }
            Message::Dead { peer, cause } => self.liveness.dead(&Dead { id: peer, cause }, now),
            Message::Conflict { holder } if self.is_namesake(&holder) => return Some(End::NameTaken(holder)),
            Message::Keyring { sequence, change } => {
                let outcome = key_rotation::apply(&self.outputs.keyring, &change, &from.id.name);
                let outcome = match &outcome {
                    Ok(keys) => KeyringOutcome::Ring(keys.clone()),
                    Err(why) => KeyringOutcome::Refused(why),
                };
                self.outbox.send([from.address], &Message::KeyringDone { sequence, outcome });
            }
            Message::KeyringDone { sequence, outcome } => {
                let outcome = match outcome {
                    KeyringOutcome::Ring(keys) => Ok(keys),
                    KeyringOutcome::Refused(why) => Err(why.to_owned()),
                };
                self.rotations.answered(sequence, &from.id, outcome);
            }
            // Hello and Welcome concern the transport only; this conflict concerns another name.
            Message::Hello(_) | Message::Welcome(_) | Message::Conflict { .. } => {}
        }
        None
    }

    fn take_push(&mut self, from: &Identity, push: &Push<'_>) {
        let incarnation = push.generation % INCARNATIONS;
        let id = &from.id;
        if push.generation - incarnation != id.generation {
            return;
        }
        // A peer that gossip has not delivered yet is skipped: gossip will deliver this change as well.
        let Some(known) = self.replicas.get_mut(id).filter(|known| known.incarnation == incarnation) else { return };
        let rejected = &self.inputs.rejected;
        let changes = push.changes.iter().map(|c| Change { key: c.key, version: c.version, value: c.value });
        known.replica.pushed(changes, |key, why| skipped(rejected, &id.name, key, &why));
        if known.replica.left {
            self.liveness.left(id, self.now());
        }
        self.take_events_of(id);
        self.dirty.insert(id.name.clone());
    }

    /// Applies the state that gossip has delivered since the last call.
    pub(super) async fn read(&mut self) {
        let now = self.now();
        let peers = self.cluster.read().await;
        if self.replicas.len() > peers.len() {
            let kept: BTreeSet<&PeerId> = peers.iter().map(|peer| &peer.id).collect();
            // Keeps held and returning peers although chitchat has removed them.
            let peer_states = &self.peer_states;
            self.replicas
                .retain(|id, _| kept.contains(id) || peer_states.get(&id.name).is_some_and(|peer| peer.id == *id));
        }
        for peer in peers {
            self.read_peer(peer, now);
        }
    }

    /// Gossips with a live peer that chitchat has forgotten. chitchat removes nodes after minutes of silence and does not
    /// search for them; one exchange brings back all nodes on the peer's side.
    pub(super) fn reconnect(&self) {
        let now = self.now();
        let forgotten = |peer: &&PeerState| {
            let listed = self.replicas.get(&peer.id).map_or(Duration::ZERO, |known| known.listed);
            matches!(peer.reach, Reach::Alive | Reach::Suspect) && now >= listed + self.settings.interval
        };
        let forgotten: Vec<SocketAddr> = self.peer_states.values().filter(forgotten).map(|peer| peer.address).collect();
        if !forgotten.is_empty() {
            // Takes turns, since one of them may be unreachable from here.
            let turn = now.as_millis() / self.settings.interval.as_millis().max(1);
            self.cluster.talk_to(forgotten[(turn % forgotten.len() as u128) as usize]);
        }
    }

    fn is_namesake(&self, other: &Identity) -> bool {
        let own = &self.settings.own;
        other.id.name == own.id.name && other.id != own.id
    }

    /// Handles another node with this node's name. The node with the lower generation keeps the name and notifies the other.
    fn name_conflict(&mut self, other: Identity) -> Option<End> {
        let own = &self.settings.own;
        if other.address == own.address || other.id == own.id {
            return None;
        }
        if other.id.generation < own.id.generation {
            return Some(End::NameTaken(other));
        }
        if self.namesake.replace(other.id.generation) != Some(other.id.generation) {
            warn!(node = %own.id.name, there = %other.address, "name conflict: another node claims this node's name; notifying it");
        }
        self.outbox.send([other.address], &Message::Conflict { holder: own.clone() });
        None
    }

    fn read_peer(&mut self, peer: Peer, now: Duration) {
        let Peer { id, incarnation, address, heartbeat, update } = peer;
        let heartbeat = (incarnation << HEARTBEAT_BITS) + heartbeat;
        let known = self.replicas.entry(id.clone()).or_default();
        known.listed = now;
        let rises = known.heartbeat.is_some_and(|before| heartbeat > before);
        known.heartbeat = known.heartbeat.max(Some(heartbeat));
        if id.name == self.settings.own.id.name {
            // A node that has ended stays in gossip for a while but needs no notification.
            if rises && id.generation > self.settings.own.id.generation {
                self.name_conflict(Identity { id, address });
            }
            return;
        }
        // Ended nodes stay in gossip for a long time. A node that was refused a name must not take over the name while its
        // holder is unreachable.
        let claims = |peer: &PeerState| peer.id.generation < id.generation && peer.address != address;
        if rises || !self.peer_states.get(&id.name).is_some_and(claims) {
            self.liveness.learn(&id, address, now);
        }
        if incarnation < known.incarnation {
            return;
        }
        self.liveness.heartbeat(&id, heartbeat, now);
        let Some(update) = update else { return };
        let restarted = incarnation > known.incarnation;
        known.incarnation = incarnation;
        let rejected = &self.inputs.rejected;
        let changes = update.entries.iter().map(Entry::as_change);
        known.replica.gossiped(update.version, update.whole || restarted, changes, |key, why| {
            skipped(rejected, &id.name, key, &why);
        });
        if known.replica.left {
            self.liveness.left(&id, now);
        }
        self.take_events_of(&id);
        self.dirty.insert(id.name);
    }
}

/// Bits of a heartbeat within one start of gossip: 2^40 suffices for ten thousand a second for three years.
const HEARTBEAT_BITS: u32 = 40;

fn skipped(rejected: &Rejected, node: &Label, key: &str, why: &SkipError) {
    rejected.record(node.as_str(), &format!("{key}: {why}"));
}
