//! Another node with this node's name, and peers that know a higher generation of this node.
//!
//! Peers that have an ack of the holder report a conflict to the other node. A newcomer asks the holder directly, and ends
//! even without its answer if the reports go on. A node that the cluster knows ends only by the outcome of that exchange:
//! both nodes send their [`Claim`], and the one of the lower generation decides.

use std::{net::SocketAddr, time::Duration};

use tracing::warn;

use super::{End, Task};
use crate::{
    gossip::{
        claim::Claim,
        liveness::PeerState,
        message::{Identity, Message},
    },
    model::member::{MAX_GENERATION, PeerId},
};

/// Time with live peers after which the cluster knows this node.
const ESTABLISHED: Duration = Duration::from_secs(5);
/// Interval between claims to one node.
const CLAIM_INTERVAL: Duration = Duration::from_millis(500);
/// Time of reported conflicts without an answer of the holder after which a newcomer ends: with a higher generation than
/// the holder's, and with a lower one. Of two newcomers, one ends first.
const UNANSWERED_CLAIM: [Duration; 2] = [Duration::from_secs(1), Duration::from_millis(2500)];

/// State of name conflicts.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Time since when a peer is alive.
    connected: Option<Duration>,
    /// Generation and time of the last claim.
    claimed: Option<(u64, Duration)>,
    /// Holder of the name by the reports of peers, and time of the first report.
    reported: Option<(PeerId, Duration)>,
    /// Generation of the node against which this one has decided to keep the name.
    keeps_against: Option<u64>,
    /// Run that was last logged as a newcomer with a taken name.
    logged: Option<PeerId>,
}

impl Task {
    /// Records whether a peer is alive.
    pub(super) fn note_connection(&mut self) {
        let now = self.now();
        let alive = |peer: &PeerState| peer.reach.is_live();
        let connected = self.peer_states.values().any(alive);
        self.names.connected = connected.then(|| self.names.connected.unwrap_or(now));
    }

    /// Handles the introduction of a node with this node's name.
    pub(super) fn meet_namesake(&mut self, other: &Identity) {
        if self.is_namesake(other) {
            self.log_conflict(&other.id, self.settings.own.address, other.address);
            self.claim(other);
        }
    }

    /// Claims this node's name from another node that gossip lists.
    pub(super) fn claim_name(&mut self, other: &Identity) {
        if self.is_namesake(other) {
            self.claim(other);
        }
    }

    /// Handles a report by `from` that `holder` keeps this node's name.
    pub(super) fn take_conflict(&mut self, from: &Identity, holder: Identity) -> Option<End> {
        if !self.is_namesake(&holder) {
            return None;
        }
        // The holder itself has decided.
        if from.id == holder.id && holder.id.generation < self.settings.own.id.generation {
            return Some(End::NameTaken(holder));
        }
        let now = self.now();
        self.liveness.doubted_by_peer(now);
        self.claim(&holder);
        let reported = self.names.reported.take().filter(|(id, _)| *id == holder.id);
        let (_, since) = reported.unwrap_or((holder.id.clone(), now));
        self.names.reported = Some((holder.id.clone(), since));
        let [higher, lower] = UNANSWERED_CLAIM;
        let wait = if holder.id.generation < self.settings.own.id.generation { higher } else { lower };
        (!self.is_established() && now >= since + wait).then_some(End::NameTaken(holder))
    }

    /// Handles the claim of another node to this node's name.
    pub(super) fn take_claim(&mut self, from: &Identity, theirs: &Claim) -> Option<End> {
        if !self.is_namesake(from) {
            return None;
        }
        if from.id.generation < self.settings.own.id.generation {
            // The other one decides.
            self.claim(from);
            return None;
        }
        let decided = self.names.keeps_against == Some(from.id.generation);
        if !decided && !self.own_claim().keeps_against(theirs) {
            return Some(End::NameTaken(from.clone()));
        }
        self.names.keeps_against = Some(from.id.generation);
        self.outbox.send([from.address], &Message::Conflict { holder: self.settings.own.clone() });
        None
    }

    /// Handles a peer's report that it knows `known` as the last run of this node.
    pub(super) fn take_outdated(&mut self, known: &PeerId) -> Option<End> {
        let own = &self.settings.own.id;
        let above = known.generation;
        let is_valid = known.name == own.name && above >= own.generation && above < MAX_GENERATION;
        is_valid.then_some(End::Superseded { above })
    }

    /// Logs a name conflict, once for each newcomer.
    pub(super) fn log_conflict(&mut self, newcomer: &PeerId, here: SocketAddr, there: SocketAddr) {
        if self.names.logged.as_ref() != Some(newcomer) {
            self.names.logged = Some(newcomer.clone());
            let node = &newcomer.name;
            warn!(%node, %here, %there, "name conflict between two nodes: the one that the cluster knows keeps the name");
        }
    }

    fn is_namesake(&self, other: &Identity) -> bool {
        let own = &self.settings.own;
        other.id.name == own.id.name && other.id != own.id && other.address != own.address
    }

    fn is_established(&self) -> bool {
        self.own_claim().known_for >= ESTABLISHED
    }

    fn own_claim(&self) -> Claim {
        let (now, age) = (self.now(), self.settings.age);
        let known_for = self.names.connected.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        // A run that goes on was known before.
        let before = if self.settings.continues && !known_for.is_zero() { age } else { Duration::ZERO };
        Claim { known_for: before + known_for, uptime: age + now }
    }

    fn claim(&mut self, other: &Identity) {
        let now = self.now();
        let recent = |(generation, at): (u64, Duration)| generation == other.id.generation && now < at + CLAIM_INTERVAL;
        if !self.names.claimed.is_some_and(recent) {
            self.names.claimed = Some((other.id.generation, now));
            self.outbox.send([other.address], &Message::Claim(self.own_claim()));
        }
    }
}
