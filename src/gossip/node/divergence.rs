//! Detecting divergent views: each node publishes the digest of its view and compares it with the digests of its peers.
//!
//! The comparison is for operators only; no decision depends on it. A digest spreads by gossip alone, after it has settled
//! and at a limited rate, so that a change on one node does not cause traffic from all others.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::Task;
use crate::{
    model::{
        catalog::{NodeView, View},
        member::PeerId,
        name::Label,
        view_digest::Digest,
    },
    record::Record,
};

/// Time that a digest has to be stable before it is published: changes come in bursts.
const SETTLE_TIME: Duration = Duration::from_secs(2);
/// Shortest interval between published digests.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(5);
/// Interval between comparisons.
const COMPARE_INTERVAL: Duration = Duration::from_secs(1);
/// Time that a peer's digest may differ after the own one changed: the peer's digest has to settle, waits for its
/// interval, and spreads by gossip for a second or two.
const CONVERGENCE_TIME: Duration = Duration::from_secs(10);

/// The own digest and its comparison with the digests of peers.
pub(super) struct ViewDigests {
    digest: Digest,
    /// Time of the last change.
    changed: Instant,
    /// Last published digest, with the time of its publication.
    published: Option<(u64, Instant)>,
    compared: Instant,
    /// True if a comparison may have another result than the last one.
    stale: bool,
    /// Peers whose digest differs, each since the difference was seen or the own digest changed.
    differing: HashMap<PeerId, Instant>,
    /// Number of peers reported as divergent by the last comparison.
    divergent: usize,
}

impl ViewDigests {
    pub(super) fn new(view: &View, now: Instant) -> Self {
        let mut digest = Digest::default();
        for (name, part) in view {
            digest.change(name, None, Some(part));
        }
        Self {
            digest,
            changed: now,
            published: None,
            compared: now,
            stale: true,
            differing: HashMap::new(),
            divergent: 0,
        }
    }

    /// Applies a change of one node's part of the view.
    pub(super) fn change(&mut self, name: &Label, before: Option<&NodeView>, after: Option<&NodeView>) {
        let known = self.digest;
        self.digest.change(name, before, after);
        if self.digest != known {
            self.changed = Instant::now();
            self.stale = true;
            self.differing.clear();
        }
    }

    /// Records that the digest of a peer, or the set of live peers, may have changed.
    pub(super) fn note(&mut self) {
        self.stale = true;
    }

    /// The own digest.
    pub(super) fn own(&self) -> u64 {
        self.digest.value()
    }

    /// Time since when a peer's digest differs; `None` if it does not, or within the convergence time.
    pub(super) fn differs(&self, peer: &PeerId) -> Option<Instant> {
        self.differing.get(peer).copied().filter(|since| since.elapsed() >= CONVERGENCE_TIME)
    }

    /// Returns the digest if it is due for publication, and records it as published.
    fn take_due(&mut self, now: Instant) -> Option<u64> {
        let own = self.own();
        let unchanged_or_early =
            self.published.is_some_and(|(published, at)| published == own || now < at + PUBLISH_INTERVAL);
        if unchanged_or_early || now < self.changed + SETTLE_TIME {
            return None;
        }
        self.published = Some((own, now));
        Some(own)
    }
}

impl Task {
    /// Publishes the own digest if due, and compares it with the digests of live peers.
    pub(super) async fn compare_views(&mut self) {
        let now = Instant::now();
        if let Some(digest) = self.views.take_due(now) {
            let (key, value) = Record::View(digest).encode();
            self.cluster.publish(&[(key, Some(value))]).await;
        }
        if !self.views.stale || now < self.views.compared + COMPARE_INTERVAL {
            return;
        }
        self.views.compared = now;
        let own = self.views.own();
        let live = self.peer_states.values().filter(|peer| peer.reach.is_live());
        let digests = live.filter_map(|peer| Some((&peer.id, self.replicas.get(&peer.id)?.replica.view?)));
        let mut differing = HashMap::new();
        for (id, _) in digests.filter(|(_, view)| *view != own) {
            differing.insert(id.clone(), self.views.differing.get(id).copied().unwrap_or(now));
        }
        // A difference counts only once it has lasted.
        self.views.stale = !differing.is_empty();
        self.views.differing = differing;
        let divergent = self.views.differing.keys().filter(|id| self.views.differs(id).is_some()).count();
        if std::mem::replace(&mut self.views.divergent, divergent) != divergent {
            self.changed = true;
        }
    }
}
