//! Incoming data: messages of peers, and state replicated by gossip.

use std::{collections::BTreeSet, time::Duration};

use super::{End, ReplicaState, Task};

use crate::{
    gossip::{
        anti_entropy::{Entry, Offer, Part, Peer, starts_exchange},
        key_rotation,
        link::Inbound,
        liveness::{Dead, PeerState},
        message::{Identity, Message, Push},
        peer_replica::{Change, SkipError},
        rejected::Rejected,
    },
    model::{
        catalog::Freshness,
        member::{Cause, INCARNATIONS, PeerId, Reach},
        name::Label,
    },
    record::Key,
};
use tokio::time::Instant;

impl Task {
    /// Processes an event from the network.
    pub(super) fn receive(&mut self, inbound: Inbound) -> Option<End> {
        let now = self.now();
        match inbound {
            Inbound::Message { from, octets } => {
                self.liveness.contacted(&from.id, from.address, now);
                self.liveness.heard(&from.id, now);
                // The transport has decoded the message before, so this cannot fail.
                return Message::decode(&octets).ok().and_then(|message| self.take(&from, message));
            }
            Inbound::Introduced { peer, at } => {
                if peer.id.name == self.settings.own.id.name {
                    self.meet_namesake(&peer);
                    return None;
                }
                self.liveness.learn(&peer.id, peer.address, now);
                self.liveness.contacted(&peer.id, peer.address, now);
                self.liveness.heard(&peer.id, now);
                self.hand_over_ceiling(&peer);
                // A transfer under way delivers the same state.
                if !self.bulk.is_under_way() {
                    self.cluster.talk_to(peer.address);
                }
                self.finish_joins(&peer, at);
            }
            Inbound::TcpProbed { peer, result } => self.liveness.tcp_probed(&peer, result, now),
        }
        None
    }

    fn take(&mut self, from: &Identity, message: Message<'_>) -> Option<End> {
        let now = self.now();
        match message {
            // Every peer that meets this node starts an exchange, and each would send the state that a transfer delivers.
            Message::Gossip(octets) if self.bulk.is_under_way() && starts_exchange(octets) => {}
            Message::Gossip(octets) => {
                // A full queue drops the message; the next round repairs the loss.
                let _ = self.to_chitchat.try_send((from.address, octets.to_vec()));
            }
            Message::Push(push) => self.take_push(from, &push),
            Message::Ping { sequence, state } => self.take_ping(from, sequence, state),
            Message::Ack { sequence, state } => {
                self.liveness.acked(&from.id, sequence, now);
                self.compare_states(&from.id, state);
            }
            Message::IndirectProbe { sequence, target } => {
                self.liveness.indirect_probe(&from.id, from.address, &target, sequence, now);
            }
            Message::IndirectResult { sequence, target, result } => {
                self.liveness.indirect_result(&from.id, &target, sequence, result, now);
            }
            Message::Dead { peer, cause } => {
                if cause == Cause::Forgotten {
                    self.missing.forget(&peer.name);
                }
                self.liveness.dead(&Dead { id: peer, cause }, now);
            }
            Message::Conflict { holder } => return self.take_conflict(from, holder),
            Message::Claim(claim) => return self.take_claim(from, &claim),
            Message::Outdated { known } => return self.take_outdated(&known),
            Message::Pause => self.liveness.pauses(&from.id, now),
            Message::Keyring { sequence, change } => self.take_key_change(from, sequence, &change),
            Message::KeyringDone { sequence, outcome } => self.take_key_outcome(from, sequence, outcome),
            Message::Keys(ring) => key_rotation::catch_up(&self.outputs.keyring, &ring, &from.id.name),
            Message::BulkRequest { transfer, known } => self.serve_bulk(from, transfer, known),
            Message::BulkPart { transfer, part, last, content } => {
                self.bulk.take_part(from, transfer, part, Part { content: content.to_vec(), last });
            }
            Message::BulkBusy { transfer } => self.bulk.refused(from, transfer),
            Message::Serial(serial) => self.take_former_ceiling(serial),
            // These concern the transport only.
            Message::Hello(_) | Message::Welcome(_) => {}
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
        let mut changes: Vec<Change<'_>> = changes.collect();
        if !self.cluster.apply(id, incarnation, from.address, &changes) {
            self.agreement.missed(&id.name, Instant::now());
            // Events are delivered in their order: the exchange delivers the lost ones first.
            changes.retain(|change| !matches!(Key::parse(change.key), Ok(Key::Event(_))));
        }
        known.replica.pushed(changes, &mut self.lists, |key, why| skipped(rejected, &id.name, key, &why));
        self.take_announced_end(id);
        self.take_events_of(id);
        self.take_ceiling_of(id);
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
        let grown = peers.iter().any(|peer| peer.update.is_some());
        for peer in peers {
            self.read_peer(peer, now);
        }
        self.delivering = self.replicas.values().any(|known| known.replica.is_arriving_again());
        self.update_offers();
        self.request_bulk().await;
        if grown {
            self.ticks.recount = true;
            self.views.note();
            // A bulk transfer delivers more at once.
            if !self.bulk.is_under_way() {
                self.cluster.talk_on();
            }
        }
    }

    /// Determines which runs are offered to peers and belong to the own state.
    pub(super) fn update_offers(&mut self) {
        let Self { cluster, replicas, liveness, .. } = self;
        cluster.offer(|id, incarnation| offer(replicas.get(id), liveness.reach(id), incarnation));
    }

    fn read_peer(&mut self, peer: Peer, now: Duration) {
        let Peer { id, incarnation, address, version, heartbeat, update } = peer;
        let heartbeat = (incarnation << HEARTBEAT_BITS) + heartbeat;
        let known = self.replicas.entry(id.clone()).or_default();
        let rises = known.heartbeat.is_some_and(|before| heartbeat > before);
        known.heartbeat = known.heartbeat.max(Some(heartbeat));
        if id.name == self.settings.own.id.name {
            // A node that has ended stays in gossip for a while. A former run of this node is no other node.
            if rises && id.generation > self.settings.own.id.generation {
                self.claim_name(&Identity { id, address });
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
        if incarnation > known.incarnation {
            known.replica.restart();
            (known.incarnation, known.awaited) = (incarnation, 0);
        }
        let updated = update.is_some();
        if let Some(update) = update {
            let rejected = &self.inputs.rejected;
            let changes = update.entries.iter().map(Entry::as_change);
            known.replica.gossiped(update.version, update.whole, changes, &mut self.lists, |key, why| {
                skipped(rejected, &id.name, key, &why);
            });
            known.updated = now;
            if update.whole {
                known.redelivered = now;
            }
        }
        if known.advance(version, now, self.settings.interval) || updated {
            self.dirty.insert(id.name.clone());
        }
        if updated {
            self.take_announced_end(&id);
            self.take_events_of(&id);
            self.take_ceiling_of(&id);
        }
    }

    /// Informs the failure detector of a leave or a restart that a peer has announced.
    fn take_announced_end(&mut self, id: &PeerId) {
        let now = self.now();
        let Some(ReplicaState { replica, .. }) = self.replicas.get(id) else { return };
        match (replica.left, replica.restarts) {
            (true, _) => self.liveness.left(id, now),
            (false, true) => self.liveness.restarts(id, now),
            (false, false) => {}
        }
    }
}

/// When a run's state is offered to peers. Dead runs stay in gossip for minutes.
fn offer(known: Option<&ReplicaState>, reach: Option<Option<Reach>>, incarnation: u64) -> Offer {
    if known.is_none_or(|known| known.incarnation != incarnation) {
        return Offer::Never;
    }
    match reach {
        Some(Some(Reach::Alive | Reach::Suspect)) => Offer::Always,
        Some(Some(Reach::Held)) => Offer::Kept,
        // It may be alive elsewhere, or return.
        Some(None | Some(Reach::Restarting)) => Offer::IfListed,
        None | Some(Some(Reach::Gone(_))) => Offer::Never,
    }
}

impl ReplicaState {
    /// Completes a delivery that is over, `version` being that of gossip's state. Returns whether the view changes.
    fn advance(&mut self, version: u64, now: Duration, interval: Duration) -> bool {
        let over = || now >= self.updated + REDELIVERY_PAUSE * interval || now >= self.redelivered + LONGEST_REDELIVERY;
        let ends = self.replica.is_arriving_again() && over();
        if ends {
            self.replica.complete();
        }
        let complete = self.replica.is_complete() && version >= self.awaited;
        let before = self.shown;
        if complete {
            self.shown = Some(Freshness::Live);
        }
        ends || self.shown != before
    }
}

/// Pause in the changes of a node, in gossip intervals, after which a whole delivery of its state is over.
const REDELIVERY_PAUSE: u32 = 5;

/// Longest time of a whole delivery of a node's state: it ends even if the node changes all the time.
const LONGEST_REDELIVERY: Duration = Duration::from_secs(10);

/// Bits of a heartbeat within one start of gossip: 2^40 suffices for ten thousand a second for three years.
const HEARTBEAT_BITS: u32 = 40;

fn skipped(rejected: &Rejected, node: &Label, key: &str, why: &SkipError) {
    rejected.record(node.as_str(), &format!("{key}: {why}"));
}
