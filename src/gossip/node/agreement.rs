//! Agreement of the states of nodes, and exchanges where they differ.
//!
//! Pings and acks carry a hash of the sender's state. As long as all hashes agree, nothing is exchanged. A lasting
//! difference starts exchanges: up to three in each gossip interval, first with the nodes that differ, until all agree.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use tokio::time::Instant;

use super::Task;
use crate::{
    gossip::{
        liveness::PeerState,
        message::{Identity, Message},
    },
    model::{
        member::{PeerId, Reach},
        name::Label,
    },
};

/// Largest number of exchanges that a node starts in one gossip interval.
const EXCHANGES: usize = 3;
/// Part of the gossip interval for which a difference has to last: a push arrives at all nodes within some milliseconds.
const GRACE: u32 = 4;
/// Time in gossip intervals after which the hash of a node that no longer sends one is forgotten.
const FORGOTTEN: u32 = 10;
/// Time that exchanges may take. If a difference lasts longer, the nodes disagree about which runs are alive.
const UNRESOLVED: Duration = Duration::from_secs(2);
/// Time that a run has to be gone before it is reported as gone: by then, it has not answered a further ping.
const CONFIRMED: Duration = Duration::from_secs(6);
/// Largest number of runs that are reported as gone to a node with a different state.
const REPORTED: usize = 16;

/// The own hash, and the nodes with another one.
#[derive(Debug)]
pub(super) struct Agreement {
    own: u64,
    /// Time of the last change of the own hash.
    changed: Instant,
    differing: BTreeMap<Label, Difference>,
    /// Time of the next exchanges.
    next: Instant,
    /// Time of the next reports about runs that are gone.
    next_report: Instant,
    random: fastrand::Rng,
}

/// A node with another hash.
#[derive(Debug)]
struct Difference {
    /// Its hash; `None` if a push from it shows that an earlier one was lost.
    state: Option<u64>,
    /// Time of the first message that shows the difference, and of the last one.
    since: Instant,
    heard: Instant,
    /// Time of the last exchange.
    asked: Option<Instant>,
}

impl Difference {
    /// Reports whether the difference calls for an exchange, rather than for the arrival of a push.
    fn lasts(&self, changed: Instant, now: Instant, interval: Duration) -> bool {
        let grace = interval / GRACE;
        let settled = self.heard >= changed + grace || now >= self.since + interval;
        let is_certain = self.state.is_none() || settled && now >= self.since + grace;
        is_certain && self.asked.is_none_or(|asked| self.heard > asked)
    }
}

impl Agreement {
    pub(super) fn new(own: u64, random: fastrand::Rng, now: Instant) -> Self {
        Self { own, changed: now, differing: BTreeMap::new(), next: now, next_report: now, random }
    }

    /// Takes over the own hash.
    pub(super) fn update(&mut self, own: u64, now: Instant) {
        if self.own != own {
            (self.own, self.changed) = (own, now);
            self.differing.retain(|_, difference| difference.state != Some(own));
        }
    }

    /// Records the hash of a node.
    pub(super) fn heard(&mut self, node: &Label, state: u64, now: Instant) {
        if state == self.own {
            self.differing.remove(node);
        } else {
            self.note(node, Some(state), now);
        }
    }

    /// Records that a push of a node was lost: a later one has arrived.
    pub(super) fn missed(&mut self, node: &Label, now: Instant) {
        self.note(node, None, now);
    }

    /// Reports whether a node differs.
    pub(super) fn is_pending(&self) -> bool {
        !self.differing.is_empty()
    }

    fn note(&mut self, node: &Label, state: Option<u64>, now: Instant) {
        if let Some(known) = self.differing.get_mut(node) {
            (known.state, known.heard) = (state, now);
        } else {
            self.differing.insert(node.clone(), Difference { state, since: now, heard: now, asked: None });
        }
    }

    /// Returns the nodes to exchange states with now: those that differ first, then others among `live`. Empty while all
    /// agree.
    fn take_due<'a>(
        &mut self,
        live: &'a BTreeMap<Label, PeerState>,
        now: Instant,
        interval: Duration,
    ) -> Vec<&'a PeerState> {
        if self.differing.is_empty() {
            return Vec::new();
        }
        let peer = |name: &Label| live.get(name).filter(|peer| peer.reach.is_live());
        self.differing.retain(|name, known| now < known.heard + FORGOTTEN * interval && peer(name).is_some());
        if now < self.next {
            return Vec::new();
        }
        let lasting = self.differing.iter().filter(|(_, known)| known.lasts(self.changed, now, interval));
        let lasting: Vec<&PeerState> = lasting.filter_map(|(name, _)| peer(name)).collect();
        let mut chosen = self.random.choose_multiple(lasting, EXCHANGES);
        if chosen.is_empty() {
            return chosen;
        }
        for peer in &chosen {
            if let Some(known) = self.differing.get_mut(&peer.id.name) {
                known.asked = Some(now);
            }
        }
        let is_other = |peer: &&PeerState| peer.reach.is_live() && !chosen.iter().any(|known| known.id == peer.id);
        let others = self.random.choose_multiple(live.values().filter(is_other), EXCHANGES - chosen.len());
        chosen.extend(others);
        self.next = now + interval;
        chosen
    }

    /// Returns the nodes that still differ after [`UNRESOLVED`], at most once in that time.
    fn take_unresolved(&mut self, now: Instant) -> Vec<Label> {
        let is_unresolved = |known: &Difference| now >= known.since + UNRESOLVED;
        if now < self.next_report || !self.differing.values().any(is_unresolved) {
            return Vec::new();
        }
        self.next_report = now + UNRESOLVED;
        self.differing.iter().filter(|(_, known)| is_unresolved(known)).map(|(name, _)| name.clone()).collect()
    }
}

impl Task {
    /// Sends a ping with the hash of the own state.
    pub(super) fn ping(&self, to: impl IntoIterator<Item = SocketAddr>, sequence: u64) {
        self.outbox.send(to, &Message::Ping { sequence, state: self.cluster.state() });
    }

    /// Answers a ping, and compares the states.
    pub(super) fn take_ping(&mut self, from: &Identity, sequence: u64, state: u64) {
        self.outbox.send([from.address], &Message::Ack { sequence, state: self.cluster.state() });
        self.compare_states(&from.id, state);
    }

    /// Compares a peer's state with the own one.
    pub(super) fn compare_states(&mut self, peer: &PeerId, state: u64) {
        let now = Instant::now();
        self.agreement.update(self.cluster.state(), now);
        self.agreement.heard(&peer.name, state, now);
    }

    /// Starts exchanges with nodes whose state differs, if due.
    pub(super) fn exchange(&mut self) {
        let now = Instant::now();
        self.agreement.update(self.cluster.state(), now);
        for peer in self.agreement.take_due(&self.peer_states, now, self.settings.interval) {
            self.cluster.talk_to(peer.address);
        }
        let unresolved = self.agreement.take_unresolved(now);
        if !unresolved.is_empty() {
            self.liveness.verify_members(self.now());
            self.report_gone(&unresolved);
        }
    }

    /// Reports the runs that are gone to these nodes, those that were lost last first: a broadcast may have been lost. Each
    /// of the runs receives the report as well, and refutes it if it lives.
    fn report_gone(&self, to: &[Label]) {
        let now = self.now();
        let peers = to.iter().filter_map(|name| self.peer_states.get(name));
        let to: Vec<SocketAddr> = peers.map(|peer| peer.address).collect();
        let gone = |peer: &PeerState| match peer.reach {
            Reach::Gone(cause) if now >= peer.since + CONFIRMED => {
                Some((peer.since, peer.address, peer.id.clone(), cause))
            }
            _ => None,
        };
        let mut gone: Vec<_> = self.peer_states.values().filter_map(gone).collect();
        gone.sort_by_key(|(since, ..)| std::cmp::Reverse(*since));
        for (_, address, peer, cause) in gone.into_iter().take(REPORTED) {
            self.outbox.send(to.iter().copied().chain([address]), &Message::Dead { peer, cause });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::label;

    const INTERVAL: Duration = Duration::from_millis(200);

    fn peers(names: &[&str]) -> BTreeMap<Label, PeerState> {
        let state = |name: &&str| {
            let (id, address) = (PeerId { name: label(name), generation: 1 }, ([10, 0, 0, 1], 7946).into());
            (label(name), PeerState { id, address, reach: Reach::Alive, since: Duration::ZERO })
        };
        names.iter().map(state).collect()
    }

    /// An agreement with the hash 1 for longer than an interval, and the time.
    fn settled() -> (Agreement, Instant) {
        let start = Instant::now();
        (Agreement::new(1, fastrand::Rng::with_seed(1), start), start + 2 * INTERVAL)
    }

    fn due(agreement: &mut Agreement, live: &BTreeMap<Label, PeerState>, now: Instant) -> Vec<String> {
        agreement.take_due(live, now, INTERVAL).into_iter().map(|peer| peer.id.name.to_string()).collect()
    }

    #[test]
    fn lasting_difference_starts_exchanges_once_an_interval_until_hashes_agree() {
        let (mut agreement, now) = settled();
        let live = peers(&["a", "b", "c", "d", "e"]);
        assert_eq!(due(&mut agreement, &live, now), [""; 0]);
        agreement.heard(&label("d"), 2, now);
        assert_eq!(due(&mut agreement, &live, now), [""; 0]);
        let later = now + INTERVAL / GRACE;
        let chosen = due(&mut agreement, &live, later);
        assert_eq!((chosen.len(), chosen[0].as_str()), (EXCHANGES, "d"));
        // Its next hash decides whether another exchange is necessary.
        assert_eq!(due(&mut agreement, &live, later + INTERVAL), [""; 0]);
        agreement.heard(&label("d"), 2, later + INTERVAL);
        assert_eq!(due(&mut agreement, &live, later + INTERVAL)[0], "d");
        agreement.heard(&label("d"), 1, later + 2 * INTERVAL);
        assert_eq!(due(&mut agreement, &live, later + 9 * INTERVAL), [""; 0]);
    }

    #[test]
    fn difference_that_a_push_explains_starts_no_exchange() {
        let (mut agreement, now) = settled();
        let live = peers(&["a", "b"]);
        // The peer has received a push that arrives here a moment later.
        agreement.heard(&label("a"), 2, now);
        agreement.update(2, now + INTERVAL / 10);
        // The ping was sent before the push arrived there.
        agreement.heard(&label("b"), 1, now + INTERVAL / 8);
        assert_eq!(due(&mut agreement, &live, now + INTERVAL / 2), [""; 0]);
        agreement.heard(&label("b"), 2, now + INTERVAL);
        assert_eq!(due(&mut agreement, &live, now + 9 * INTERVAL), [""; 0]);
    }

    #[test]
    fn lost_push_starts_an_exchange_at_once() {
        let (mut agreement, now) = settled();
        let live = peers(&["a"]);
        agreement.missed(&label("a"), now);
        assert_eq!(due(&mut agreement, &live, now), ["a"]);
    }

    #[test]
    fn constant_changes_do_not_prevent_exchanges() {
        let (mut agreement, now) = settled();
        let live = peers(&["a"]);
        for step in 0..10 {
            let at = now + step * INTERVAL / 10;
            agreement.update(100 + u64::from(step), at);
            agreement.heard(&label("a"), 2, at);
        }
        assert_eq!(due(&mut agreement, &live, now + INTERVAL), ["a"]);
    }

    #[test]
    fn peers_that_are_not_live_and_old_hashes_count_for_nothing() {
        let (mut agreement, now) = settled();
        agreement.heard(&label("a"), 2, now);
        agreement.heard(&label("gone"), 2, now + 8 * INTERVAL);
        assert_eq!(due(&mut agreement, &peers(&["a"]), now + FORGOTTEN * INTERVAL), [""; 0]);
        assert!(agreement.differing.is_empty());
    }

    #[test]
    fn unresolved_difference_is_reported_once_in_two_seconds() {
        let (mut agreement, now) = settled();
        agreement.heard(&label("a"), 2, now);
        agreement.heard(&label("a"), 3, now + UNRESOLVED / 2);
        assert_eq!(agreement.take_unresolved(now + UNRESOLVED / 2), []);
        assert_eq!(agreement.take_unresolved(now + UNRESOLVED), [label("a")]);
        assert_eq!(agreement.take_unresolved(now + UNRESOLVED), []);
        assert_eq!(agreement.take_unresolved(now + 2 * UNRESOLVED), [label("a")]);
    }
}
