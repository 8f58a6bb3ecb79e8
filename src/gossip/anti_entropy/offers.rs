//! Which states chitchat offers: incoming digests are changed so that it does not offer what the peer cannot use.
//!
//! chitchat keeps the state of a dead run for a while, and offers it to every peer whose digest lacks the run, before all
//! other changes. A peer that has dropped the run discards it. Such states fill messages for minutes after restarts, and
//! changes of live nodes wait. So the digest that chitchat sees states that the peer has these runs already.
//!
//! The same place bounds the number of runs, since chitchat's task ends when its own digest exceeds a datagram.

use std::{collections::HashSet, sync::Arc};

use arc_swap::ArcSwap;
use chitchat::{ChitchatId, Serializable};

use super::envelope::{MAX_RUNS, Versions};

/// Longest own digest in octets, encoded: some 4,000 nodes. The rest of a message is for changes.
const MAX_DIGEST: usize = 60_000;
/// Octets of an entry's three counters.
const COUNTERS: usize = 24;

/// When a run's state is offered to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Whenever the peer lacks changes: the run is alive.
    Always,
    /// If the peer lists the run in its digest: the run may return. Other peers have dropped it.
    IfListed,
    /// As [`IfListed`](Self::IfListed), and this node keeps the state: it expects the run back, with the same state.
    Kept,
    /// Never: the run has ended.
    Never,
}

/// Runs that chitchat lists, each with its offer, in ascending order.
pub(super) type Offers = Arc<ArcSwap<Vec<(ChitchatId, Offer)>>>;

/// State of a node's incoming digests.
pub(super) struct Digests {
    offers: Offers,
    /// Runs from digests that `offers` does not list yet.
    admitted: HashSet<ChitchatId>,
    /// Octets by which the own digest may grow.
    room: usize,
}

impl Digests {
    pub(super) fn new(offers: Offers) -> Self {
        Self { offers, admitted: HashSet::new(), room: MAX_DIGEST }
    }

    /// Records the encoded length of the own digest, to be called while no incoming digest is under way to chitchat.
    pub(super) fn measured(&mut self, len: usize) {
        self.room = MAX_DIGEST.saturating_sub(len);
    }

    /// Prepares an incoming digest for chitchat. Returns whether it was changed, and the number of runs left out.
    pub(super) fn prepare(&mut self, digest: &mut Vec<Versions>) -> (bool, usize) {
        let offers = self.offers.load();
        let before = digest.len();
        self.admit(digest, &offers);
        let left_out = before - digest.len();
        (hide(digest, &offers) || left_out > 0, left_out)
    }

    /// Leaves out new runs for which the own digest has no room.
    fn admit(&mut self, digest: &mut Vec<Versions>, offers: &[(ChitchatId, Offer)]) {
        let Self { admitted, room, .. } = self;
        let lists = |run: &ChitchatId| offers.binary_search_by(|(listed, _)| listed.cmp(run)).is_ok();
        if !admitted.is_empty() {
            admitted.retain(|run| !lists(run));
        }
        digest.retain(|Versions { id, .. }| {
            if lists(id) || admitted.contains(id) {
                return true;
            }
            let len = id.serialized_len() + COUNTERS;
            let fits = *room >= len && offers.len() + admitted.len() < MAX_RUNS;
            if fits {
                *room -= len;
                admitted.insert(id.clone());
            }
            fits
        });
    }
}

/// Changes a digest so that chitchat offers no run that it should not. Returns whether it was changed.
fn hide(digest: &mut Vec<Versions>, offers: &[(ChitchatId, Offer)]) -> bool {
    let mut changed = false;
    let mut absent = Vec::new();
    let mut listed = digest.iter_mut().peekable();
    for (run, offer) in offers {
        while listed.next_if(|entry| entry.id < *run).is_some() {}
        match (listed.next_if(|entry| entry.id == *run), offer) {
            (_, Offer::Always) | (Some(_), Offer::IfListed | Offer::Kept) => {}
            // The heartbeat stays: a run that is wrongly taken for dead returns by it.
            (Some(entry), Offer::Never) => entry.max = u64::MAX,
            (None, Offer::IfListed | Offer::Kept | Offer::Never) => {
                absent.push(Versions { id: run.clone(), heartbeat: 0, collected: 0, max: u64::MAX });
                continue;
            }
        }
        changed |= *offer == Offer::Never;
    }
    changed |= !absent.is_empty();
    digest.append(&mut absent);
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, generation: u64) -> ChitchatId {
        ChitchatId::new(name, generation, ([10, 0, 0, 1], 7946).into())
    }

    fn entry(name: &str, max: u64) -> Versions {
        Versions { id: run(name, 1), heartbeat: 7, collected: 0, max }
    }

    fn digests(offers: Vec<(ChitchatId, Offer)>) -> Digests {
        Digests::new(Arc::new(ArcSwap::from_pointee(offers)))
    }

    /// Versions in the prepared digest, by name: chitchat offers what is above.
    fn prepared(offers: &[(&str, Offer)], digest: &[(&str, u64)]) -> (bool, Vec<(String, u64, u64)>) {
        let mut digests = digests(offers.iter().map(|(name, offer)| (run(name, 1), *offer)).collect());
        let mut digest: Vec<Versions> = digest.iter().map(|(name, max)| entry(name, *max)).collect();
        let (changed, left_out) = digests.prepare(&mut digest);
        assert_eq!(left_out, 0);
        digest.sort_by(|a, b| a.id.cmp(&b.id));
        (changed, digest.iter().map(|entry| (entry.id.node_id.to_string(), entry.heartbeat, entry.max)).collect())
    }

    #[test]
    fn dead_runs_are_never_offered_and_returning_ones_only_to_peers_that_list_them() {
        const ALL: u64 = u64::MAX;
        // The version in the digest, and the heartbeat and version that chitchat sees.
        let cases = [
            (Offer::Always, None, None),
            (Offer::Always, Some(3), Some((7, 3))),
            (Offer::IfListed, None, Some((0, ALL))),
            (Offer::IfListed, Some(3), Some((7, 3))),
            (Offer::Kept, None, Some((0, ALL))),
            (Offer::Kept, Some(3), Some((7, 3))),
            (Offer::Never, None, Some((0, ALL))),
            (Offer::Never, Some(3), Some((7, ALL))),
        ];
        for (offer, listed, expected) in cases {
            let offers = [("a", Offer::Always), ("m", offer), ("z", Offer::Always)];
            let mut digest = vec![("a", 1), ("other", 2), ("z", 4)];
            let mut want = vec![("a", 7, 1), ("other", 7, 2), ("z", 7, 4)];
            digest.extend(listed.map(|max| ("m", max)));
            want.extend(expected.map(|(heartbeat, max)| ("m", heartbeat, max)));
            digest.sort_unstable();
            want.sort_unstable();
            let want: Vec<_> =
                want.into_iter().map(|(name, heartbeat, max)| (name.to_owned(), heartbeat, max)).collect();
            let changed = expected.is_some_and(|(_, max)| max == ALL);
            assert_eq!(prepared(&offers, &digest), (changed, want), "{offer:?} {listed:?}");
        }
    }

    #[test]
    fn new_runs_are_admitted_while_the_own_digest_has_room() {
        let mut digests = digests(vec![(run("known", 1), Offer::Always)]);
        let known = entry("known", 1);
        let of = |generation| Versions { id: run("new", generation), ..entry("new", 1) };
        let len = run("new", 1).serialized_len() + COUNTERS;
        digests.measured(MAX_DIGEST - 2 * len);
        let mut digest = vec![known.clone(), of(1), of(2), of(3)];
        assert_eq!(digests.prepare(&mut digest), (true, 1));
        assert_eq!(digest, [known.clone(), of(1), of(2)]);
        // Admitted runs need no more room until the own digest includes them.
        let mut digest = vec![of(1), of(2), of(3)];
        assert_eq!(digests.prepare(&mut digest), (true, 1));
        assert_eq!(digest, [of(1), of(2)]);
        digests.measured(MAX_DIGEST - len);
        let mut digest = vec![known.clone(), of(3)];
        assert_eq!(digests.prepare(&mut digest), (false, 0));
        assert_eq!(digest, [known, of(3)]);
    }

    #[test]
    fn number_of_runs_is_bounded() {
        let offers = (1..MAX_RUNS as u64).map(|generation| (run("known", generation), Offer::Never)).collect();
        let mut digests = digests(offers);
        let mut digest = vec![entry("new", 1), Versions { id: run("new", 2), ..entry("new", 1) }];
        assert_eq!(digests.prepare(&mut digest).1, 1);
        assert!(digest.iter().any(|listed| listed.id == run("new", 1)));
    }
}
