//! How much of the cluster's state this node lacks, by the digests of its peers.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use chitchat::ChitchatId;

use super::envelope::Versions;

/// Live runs with the versions up to which their changes are known, in ascending order.
type Known = Vec<(ChitchatId, u64)>;

/// Number of changes that a peer has and this node lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Gossip address of the peer.
    pub at: SocketAddr,
    /// Number of changes of live runs; an upper bound, since later changes of a key replace earlier ones.
    pub changes: u64,
}

/// Largest number of peers of which comparisons are kept: excess ones are compared again soon.
const MAX_PEERS: usize = 64;

/// Comparisons with the digests of peers. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Lag(Arc<State>);

#[derive(Default)]
struct State {
    known: ArcSwap<Known>,
    missing: Mutex<BTreeMap<SocketAddr, u64>>,
}

impl Lag {
    /// Sets the live runs and their versions.
    pub(super) fn set_known(&self, known: Known) {
        self.0.known.store(Arc::new(known));
    }

    /// The live runs and their versions, in ascending order.
    pub(super) fn known(&self) -> Arc<Known> {
        self.0.known.load_full()
    }

    /// Compares a peer's digest. Before the first live run is known, each run of the digest counts.
    pub(super) fn compare(&self, at: SocketAddr, digest: &[Versions]) {
        let known = self.0.known.load();
        let missing = |entry: &Versions| match known.binary_search_by(|(id, _)| id.cmp(&entry.id)) {
            Ok(at) => entry.max.saturating_sub(known[at].1),
            Err(_) if known.is_empty() => entry.max,
            Err(_) => 0,
        };
        let changes = digest.iter().map(missing).sum();
        let mut kept = self.missing();
        if kept.len() < MAX_PEERS || kept.contains_key(&at) {
            kept.insert(at, changes);
        }
    }

    /// Takes the comparisons since the last call, each peer's last one, in descending order of changes.
    pub(super) fn take(&self) -> Vec<Missing> {
        let kept = std::mem::take(&mut *self.missing());
        let mut all: Vec<Missing> = kept.into_iter().map(|(at, changes)| Missing { at, changes }).collect();
        all.sort_by_key(|missing| std::cmp::Reverse(missing.changes));
        all
    }

    fn missing(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, u64>> {
        self.0.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> ChitchatId {
        ChitchatId::new(name, 1, ([10, 0, 0, 1], 7946).into())
    }

    #[test]
    fn missing_changes_are_those_of_live_runs() {
        let at = SocketAddr::from(([10, 0, 0, 2], 7946));
        let entry = |(name, max): (&str, u64)| Versions { id: id(name), heartbeat: 1, collected: 0, max };
        let digest: Vec<_> = [("a", 10), ("b", 20), ("dead", 300)].map(entry).into();
        let lag = Lag::default();
        assert_eq!(lag.take(), []);
        // First contact.
        lag.compare(at, &digest);
        assert_eq!(lag.take(), [Missing { at, changes: 330 }]);
        assert_eq!(lag.take(), []);
        // A run that the peer does not know, and one of which more is known.
        lag.set_known(vec![(id("a"), 11), (id("b"), 5), (id("c"), 7)]);
        lag.compare(at, &digest);
        assert_eq!(lag.take(), [Missing { at, changes: 15 }]);
    }

    #[test]
    fn peers_that_have_most_come_first() {
        let lag = Lag::default();
        let peer = |number| SocketAddr::from(([10, 0, 0, number], 7946));
        for (number, max) in [(1, 5), (2, 30), (3, 20), (2, 10)] {
            lag.compare(peer(number), &[Versions { id: id("a"), heartbeat: 1, collected: 0, max }]);
        }
        let expected = [(3, 20), (2, 10), (1, 5)].map(|(number, changes)| Missing { at: peer(number), changes });
        assert_eq!(lag.take(), expected);
        for number in 0..=255 {
            lag.compare(peer(number), &[]);
        }
        assert_eq!(lag.take().len(), MAX_PEERS);
    }
}
