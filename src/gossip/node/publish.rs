//! Outputs of the node: the view for answers, the membership, and log messages about peers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use tracing::{info, warn};

use super::{ReplicaState, Task};
use crate::{
    clock::unix_now,
    gossip::liveness::PeerState,
    model::{
        catalog::{Freshness, NodeView},
        member::{Cause, Member, Membership, PeerId, Reach},
        name::Label,
    },
};

impl Task {
    /// Time since the node's start.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Updates the view with all changes.
    pub(super) fn update_view(&mut self) {
        if self.liveness.changed() {
            self.update_peer_states();
        }
        if self.dirty.is_empty() {
            return;
        }
        let mut touched = false;
        for name in std::mem::take(&mut self.dirty) {
            self.note_zone_serial(&name);
            let now = self.node_view(&name).map(Arc::new);
            let before = match &now {
                Some(view) => self.view.insert(name.clone(), view.clone()),
                None => self.view.remove(&name),
            };
            touched |= now.is_some() || before.is_some();
            self.views.change(&name, before.as_deref(), now.as_deref());
        }
        if touched {
            self.changed = true;
            self.outputs.view.send_replace(self.view.clone());
        }
    }

    /// Takes over peer states. Publishes the membership first, so that every node in the view is a member.
    fn update_peer_states(&mut self) {
        let now: BTreeMap<Label, PeerState> = self.liveness.peers().map(|peer| (peer.id.name.clone(), peer)).collect();
        for (name, peer) in &now {
            let before = self.peer_states.get(name);
            if let Some(before) = before.filter(|before| before.id != peer.id) {
                let shown = self.view.get(name).map(|view| view.freshness);
                follow(&mut self.replicas, &before.id, &peer.id, shown);
            }
            if before.is_none_or(|before| before.id != peer.id || before.reach != peer.reach) {
                log_state(peer);
                self.dirty.insert(name.clone());
            }
        }
        self.dirty.extend(self.peer_states.keys().filter(|name| !now.contains_key(*name)).cloned());
        self.missing.note(&self.peer_states, &now, Instant::now());
        self.peer_states = now;
        self.note_connection();
        self.update_offers();
        self.views.note();
        self.changed = true;
        self.publish_membership();
    }

    /// Returns a node's part of the view; `None` if it has none.
    fn node_view(&self, name: &Label) -> Option<NodeView> {
        if *name == self.settings.own.id.name {
            let node = self.settings.node.clone();
            let (announcements, external) = (self.published.clone(), self.published_external.clone());
            return Some(NodeView { node, announcements, external, freshness: Freshness::Live });
        }
        let peer = self.peer_states.get(name)?;
        let known = self.replicas.get(&peer.id)?;
        let (replica, freshness) = (&known.replica, freshness(peer.reach)?.max(known.shown?));
        let node = replica.facts.as_ref()?.node(name, replica.node_checks.clone());
        let known = self.view.get(name).map(|view| view.node.clone());
        let node = known.filter(|known| **known == node).unwrap_or_else(|| Arc::new(node));
        let (announcements, external) = (replica.announcements.clone(), replica.external.clone());
        Some(NodeView { node, announcements, external, freshness })
    }

    /// Publishes the membership if it changed.
    pub(super) fn publish_membership(&mut self) {
        let rejected = self.inputs.rejected.counts();
        if !std::mem::take(&mut self.changed) && rejected == self.outputs.members.borrow().rejected {
            return;
        }
        let (now, today) = (self.now(), unix_now());
        let at = |since: Duration| today.saturating_sub(now.saturating_sub(since));
        let before = self.outputs.members.borrow().clone();
        let own = Member {
            id: self.settings.own.id.clone(),
            address: self.settings.own.address,
            datacenter: Some(self.settings.node.datacenter.clone()),
            zone: self.settings.node.zone.clone(),
            version: Some(self.settings.version.clone()),
            reach: Reach::Alive,
            since: at(Duration::ZERO),
            instances: self.published.len(),
            ttl: Some(self.settings.ttl),
            view: Some(self.views.own()),
            differs: None,
        };
        let mut members = vec![own];
        let mut reached = BTreeSet::new();
        for peer in self.peer_states.values() {
            let replica = self.replicas.get(&peer.id).map(|known| &known.replica);
            let facts = replica.and_then(|replica| replica.facts.as_ref());
            if peer.reach == Reach::Alive {
                reached.insert(peer.address);
            }
            members.push(Member {
                id: peer.id.clone(),
                address: peer.address,
                datacenter: facts.map(|facts| facts.datacenter.clone()),
                zone: facts.and_then(|facts| facts.zone.clone()),
                version: facts.map(|facts| facts.version.clone()),
                reach: peer.reach,
                since: at(peer.since),
                instances: replica.map_or(0, |replica| replica.announcements.len()),
                ttl: facts.and_then(|facts| facts.ttl),
                view: replica.and_then(|replica| replica.view),
                differs: self.views.differs(&peer.id).map(|since| at(now.saturating_sub(since.elapsed()))),
            });
        }
        members.sort_by(|a, b| a.id.cmp(&b.id));
        for member in &mut members {
            let known = before.members.binary_search_by(|known| known.id.cmp(&member.id)).ok();
            let known = known.map(|at| &before.members[at]).filter(|known| known.reach == member.reach);
            member.since = steady(known.map(|known| known.since), member.since);
        }
        let partitioned = self.liveness.partitioned().map(|since| steady(before.partitioned, at(since)));
        let doubted = self.liveness.doubted().map(|since| steady(before.doubted, at(since)));
        match (before.partitioned, partitioned) {
            (None, Some(_)) => warn!("partition: more than half of the other nodes are unreachable together"),
            (Some(_), None) => info!("partition has ended"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        let sealed = self.outputs.keyring.borrow().is_some();
        self.outputs.members.send_replace(Arc::new(Membership { members, partitioned, doubted, rejected, sealed }));
        self.outputs.peers.send_if_modified(|known| {
            let changed = *known != reached;
            if changed {
                *known = reached;
            }
            changed
        });
    }
}

/// Freshness of a peer's instances; `None` if the view has none of them.
pub(super) fn freshness(reach: Reach) -> Option<Freshness> {
    match reach {
        Reach::Alive | Reach::Suspect => Some(Freshness::Live),
        Reach::Held | Reach::Restarting => Some(Freshness::LastKnown),
        Reach::Gone(Cause::Left | Cause::Forgotten) => None,
        Reach::Gone(_) => Some(Freshness::Gone),
    }
}

/// Returns the earlier value of a recomputed time since 1970 if both are within a second. Reading two clocks one after the
/// other makes recomputed values differ slightly; without this, an unchanged time would look changed.
fn steady(before: Option<Duration>, again: Duration) -> Duration {
    before.filter(|before| before.abs_diff(again) < Duration::from_secs(1)).unwrap_or(again)
}

/// Puts the state of a node's former run below that of its new run, shown as last known at best: what was not answered
/// before is not answered until the new run has announced it.
fn follow(replicas: &mut HashMap<PeerId, ReplicaState>, former: &PeerId, new: &PeerId, shown: Option<Freshness>) {
    let former = replicas.get(former).map(|known| known.replica.clone());
    let known = replicas.entry(new.clone()).or_default();
    if let Some(former) = former
        && !known.replica.is_complete()
    {
        known.replica.follow(&former);
        known.shown = shown.map(|shown| shown.max(Freshness::LastKnown));
    }
}

/// Logs a peer's state.
fn log_state(peer: &PeerState) {
    let (node, address) = (&peer.id.name, peer.address);
    match peer.reach {
        Reach::Alive => info!(%node, %address, "node is alive"),
        Reach::Suspect => info!(%node, %address, "node is suspect: no answer to direct probes; probing it indirectly"),
        Reach::Held => {
            warn!(%node, %address, "node is unreachable, with too many others: holding its last known instances");
        }
        Reach::Restarting => info!(%node, %address, "node is restarting: answering its last known instances"),
        Reach::Gone(cause) => {
            let reason = cause.as_str();
            if cause == Cause::Forgotten {
                info!(%node, %address, reason, "node was {reason}");
                return;
            }
            info!(%node, %address, reason, "node is gone: {reason}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recomputed_times_within_a_second_are_equal() {
        let cases = [
            (None, 5_000, 5_000),
            (Some(5_000), 5_001, 5_000),
            (Some(5_001), 5_000, 5_001),
            (Some(5_000), 6_000, 6_000),
        ];
        for (before, again, expected) in cases {
            let got = steady(before.map(Duration::from_millis), Duration::from_millis(again));
            assert_eq!(got.as_millis(), expected, "{before:?} {again}");
        }
    }
}
