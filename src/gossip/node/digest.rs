//! Whether nodes know the same: each tells the digest of its view, and sees whose differs.
//!
//! Nothing is decided from it. A digest goes by gossip alone, once it has settled and not more often than nodes need to be
//! compared, so that a change of one node does not make all others talk.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::Task;
use crate::{
    model::{
        catalog::{NodeView, View},
        digest::Digest,
        member::{PeerId, Reach},
        name::Label,
    },
    record::Record,
};

/// How long a digest has to stand before it is told: changes come in bursts.
const SETTLES: Duration = Duration::from_secs(2);
/// From telling one digest to telling the next.
const TELL_AGAIN: Duration = Duration::from_secs(5);
/// From one comparison to the next.
const COMPARE_AGAIN: Duration = Duration::from_secs(1);
/// How long a peer's digest may differ, after ours has changed too: it settles, waits for its turn, and travels with gossip
/// for a second or two.
const DIFFERS: Duration = Duration::from_secs(10);

/// Our digest, and how those of peers compare with it.
pub(super) struct ViewDigests {
    digest: Digest,
    /// When it changed last.
    changed: Instant,
    /// What was told last, and when.
    told: Option<(u64, Instant)>,
    compared: Instant,
    /// Whose differs, and since when: since it was seen, or since ours changed last.
    differing: HashMap<PeerId, Instant>,
    /// Those whose digest has differed for long, when it was last looked.
    marked: usize,
}

impl ViewDigests {
    pub(super) fn new(view: &View, now: Instant) -> Self {
        let mut digest = Digest::default();
        for (name, part) in view {
            digest.change(name, None, Some(part));
        }
        Self { digest, changed: now, told: None, compared: now, differing: HashMap::new(), marked: 0 }
    }

    /// Takes over a change of one node's part of the view.
    pub(super) fn change(&mut self, name: &Label, before: Option<&NodeView>, after: Option<&NodeView>) {
        let known = self.digest;
        self.digest.change(name, before, after);
        if self.digest != known {
            self.changed = Instant::now();
            self.differing.clear();
        }
    }

    /// Our digest.
    pub(super) fn own(&self) -> u64 {
        self.digest.value()
    }

    /// Since when a peer's digest differs, where that is for longer than news take.
    pub(super) fn differs(&self, peer: &PeerId) -> Option<Instant> {
        self.differing.get(peer).copied().filter(|since| since.elapsed() >= DIFFERS)
    }

    /// What is to be told now; it counts as told.
    fn take_due(&mut self, now: Instant) -> Option<u64> {
        let own = self.own();
        let waits = self.told.is_some_and(|(told, at)| told == own || now < at + TELL_AGAIN);
        if waits || now < self.changed + SETTLES {
            return None;
        }
        self.told = Some((own, now));
        Some(own)
    }
}

impl Task {
    /// Tells our digest when it is due, and compares those of peers with it.
    pub(super) async fn compare_views(&mut self) {
        let now = Instant::now();
        if let Some(digest) = self.views.take_due(now) {
            let (key, value) = Record::View(digest).encode();
            self.cluster.publish(&[(key, Some(value))]).await;
        }
        if now < self.views.compared + COMPARE_AGAIN {
            return;
        }
        self.views.compared = now;
        let own = self.views.own();
        let there = self.standings.values().filter(|peer| matches!(peer.reach, Reach::Alive | Reach::Suspect));
        let told = there.filter_map(|peer| Some((&peer.id, self.replicas.get(&peer.id)?.replica.view?)));
        let mut differing = HashMap::new();
        for (id, _) in told.filter(|(_, view)| *view != own) {
            differing.insert(id.clone(), self.views.differing.get(id).copied().unwrap_or(now));
        }
        self.views.differing = differing;
        let marked = self.views.differing.keys().filter(|id| self.views.differs(id).is_some()).count();
        if std::mem::replace(&mut self.views.marked, marked) != marked {
            self.changed = true;
        }
    }
}
