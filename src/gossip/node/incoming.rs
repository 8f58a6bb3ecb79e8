//! What arrives: messages of peers, and what gossip has brought.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use super::{End, Task};
use tracing::warn;

use crate::{
    gossip::{
        anti_entropy::{Entry, Peer},
        channel::Inbound,
        key_rotation,
        liveness::{PeerState, Verdict},
        message::{Identity, KeyringOutcome, Message, Push},
        rejected::Rejected,
        replica::{Change, Skipped},
    },
    model::{
        member::{INCARNATIONS, PeerId, Reach},
        name::Label,
    },
};

impl Task {
    pub(super) fn receive(&mut self, inbound: Inbound) -> Option<End> {
        let now = self.now();
        match inbound {
            Inbound::Message { from, octets } => {
                self.liveness.heard(&from.id, now);
                // The wire has read it before: it can be read.
                return Message::decode(&octets).ok().and_then(|message| self.take(&from, message));
            }
            Inbound::Met { peer, at } => {
                if peer.id.name == self.settings.own.id.name {
                    return self.met_namesake(peer);
                }
                self.liveness.learn(&peer.id, peer.address, now);
                self.liveness.heard(&peer.id, now);
                self.cluster.talk_to(peer.address);
                self.joined(&peer, at);
            }
            Inbound::Knocked { peer, answer } => self.liveness.knocked(&peer, answer, now),
        }
        None
    }

    fn take(&mut self, from: &Identity, message: Message<'_>) -> Option<End> {
        let now = self.now();
        match message {
            Message::Gossip(octets) => {
                // chitchat is behind: the next round brings what is lost here.
                let _ = self.to_cluster.try_send((from.address, octets.to_vec()));
            }
            Message::Push(push) => self.take_push(from, &push),
            Message::Ping { sequence } => self.outbox.send([from.address], &Message::Ack { sequence }),
            Message::Ack { sequence } => self.liveness.acked(&from.id, sequence, now),
            Message::Ask { sequence, target } => self.liveness.asked(&from.id, from.address, &target, sequence, now),
            Message::Tell { sequence, target, finding } => {
                self.liveness.told(&from.id, &target, sequence, finding, now);
            }
            Message::Verdict { peer, cause } => self.liveness.verdict(&Verdict { subject: peer, cause }, now),
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
            // Between wires; and a conflict that is not ours.
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
        // Whom gossip has not brought yet, it will bring with all of this.
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

    /// Takes what gossip has brought since the last time.
    pub(super) async fn read(&mut self) {
        let now = self.now();
        let peers = self.cluster.read().await;
        if self.replicas.len() > peers.len() {
            let kept: BTreeSet<&PeerId> = peers.iter().map(|peer| &peer.id).collect();
            // A peer that is held or comes back is worth more than what gossip keeps.
            let standings = &self.standings;
            self.replicas
                .retain(|id, _| kept.contains(id) || standings.get(&id.name).is_some_and(|peer| peer.id == *id));
        }
        for peer in peers {
            self.read_peer(peer, now);
        }
    }

    /// Gossip forgets whom it has not heard of for minutes, and finds nobody by itself. Where such a one is there again,
    /// one of them is talked to: with its answer come all others that are with it.
    pub(super) fn reconnect(&self) {
        let now = self.now();
        let forgotten = |peer: &&PeerState| {
            let listed = self.replicas.get(&peer.id).map_or(Duration::ZERO, |known| known.listed);
            matches!(peer.reach, Reach::Alive | Reach::Suspect) && now >= listed + self.settings.interval
        };
        let forgotten: Vec<SocketAddr> = self.standings.values().filter(forgotten).map(|peer| peer.address).collect();
        if !forgotten.is_empty() {
            // Each in turn, since one may be out of our reach.
            let turn = now.as_millis() / self.settings.interval.as_millis().max(1);
            self.cluster.talk_to(forgotten[(turn % forgotten.len() as u128) as usize]);
        }
    }

    fn is_namesake(&self, other: &Identity) -> bool {
        let own = &self.settings.own;
        other.id.name == own.id.name && other.id != own.id
    }

    /// Another node has our name. Who was there first keeps it, and tells the other.
    fn met_namesake(&mut self, other: Identity) -> Option<End> {
        let own = &self.settings.own;
        if other.address == own.address || other.id == own.id {
            return None;
        }
        if other.id.generation < own.id.generation {
            return Some(End::NameTaken(other));
        }
        if self.namesake.replace(other.id.generation) != Some(other.id.generation) {
            warn!(node = %own.id.name, there = %other.address, "another node has this node's name: it is told to stop");
        }
        self.outbox.send([other.address], &Message::Conflict { holder: own.clone() });
        None
    }

    fn read_peer(&mut self, peer: Peer, now: Duration) {
        let Peer { id, incarnation, address, heartbeat, moved } = peer;
        let heartbeat = (incarnation << HEARTBEAT_BITS) + heartbeat;
        let known = self.replicas.entry(id.clone()).or_default();
        known.listed = now;
        let rises = known.heartbeat.is_some_and(|before| heartbeat > before);
        known.heartbeat = known.heartbeat.max(Some(heartbeat));
        if id.name == self.settings.own.id.name {
            // One that has ended needs not be told, for as long as gossip mentions it.
            if rises && id.generation > self.settings.own.id.generation {
                self.met_namesake(Identity { id, address });
            }
            return;
        }
        // Gossip mentions the dead for long. One that claims a name from elsewhere and does not live was turned away: it
        // must not take the place of who has the name, whenever that one is out of reach for a while.
        let claims = |peer: &PeerState| peer.id.generation < id.generation && peer.address != address;
        if rises || !self.standings.get(&id.name).is_some_and(claims) {
            self.liveness.learn(&id, address, now);
        }
        if incarnation < known.incarnation {
            return;
        }
        self.liveness.heartbeat(&id, heartbeat, now);
        let Some(moved) = moved else { return };
        let anew = incarnation > known.incarnation;
        known.incarnation = incarnation;
        let rejected = &self.inputs.rejected;
        let changes = moved.entries.iter().map(Entry::as_change);
        known.replica.gossiped(moved.version, moved.whole || anew, changes, |key, why| {
            skipped(rejected, &id.name, key, &why);
        });
        if known.replica.left {
            self.liveness.left(&id, now);
        }
        self.take_events_of(&id);
        self.dirty.insert(id.name);
    }
}

/// Heartbeats of one start of gossip stay below 2^40: ten thousand a second for three years.
const HEARTBEAT_BITS: u32 = 40;

fn skipped(rejected: &Rejected, node: &Label, key: &str, why: &Skipped) {
    rejected.record(node.as_str(), &format!("{key}: {why}"));
}
