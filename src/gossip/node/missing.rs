//! Members that are gone and did not leave, for keyring commands.
//!
//! The failure detector forgets a member that is gone after ten minutes. A change of keys has to count such a member for
//! longer: it would return with keys that no other node accepts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use tokio::time::Instant;

use super::Task;
use crate::{
    gossip::{
        key_rotation::KnownMembers,
        liveness::PeerState,
        message::{Identity, MAX_UNREACHABLE},
    },
    model::{
        member::{Cause, PeerId, Reach},
        name::Label,
    },
};

/// Time for which a member is remembered that did not leave: a host may be in repair for a day.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
/// Largest number of remembered members, that of the largest cluster.
const MAX_REMEMBERED: usize = 4096;

/// Members that are gone and did not leave.
#[derive(Debug)]
pub(super) struct Missing {
    /// Members that the failure detector has forgotten, with the time when it did.
    forgotten: BTreeMap<Label, (PeerId, Instant)>,
    /// Addresses of peers of the previous run that no known member has.
    not_met: BTreeSet<SocketAddr>,
    started: Instant,
}

impl Missing {
    /// `remembered`: addresses of the peers of the previous run.
    pub(super) fn new(remembered: &[SocketAddr], own: SocketAddr, now: Instant) -> Self {
        let not_met = remembered.iter().copied().filter(|address| *address != own).take(MAX_REMEMBERED).collect();
        Self { forgotten: BTreeMap::new(), not_met, started: now }
    }

    /// Records the members that the failure detector knows now.
    pub(super) fn note(
        &mut self,
        before: &BTreeMap<Label, PeerState>,
        members: &BTreeMap<Label, PeerState>,
        now: Instant,
    ) {
        for peer in members.values() {
            self.forgotten.remove(&peer.id.name);
            self.not_met.remove(&peer.address);
        }
        for (name, peer) in before {
            if !members.contains_key(name) && !has_left(peer) && self.forgotten.len() < MAX_REMEMBERED {
                self.forgotten.insert(name.clone(), (peer.id.clone(), now));
            }
        }
    }

    /// Forgets a member. Returns its last run if it was remembered.
    pub(super) fn forget(&mut self, name: &Label) -> Option<PeerId> {
        self.forgotten.remove(name).map(|(id, _)| id)
    }

    fn names(&self, now: Instant) -> impl Iterator<Item = &Label> {
        let is_recent = move |since: &Instant| now.saturating_duration_since(*since) < REMEMBERED;
        self.forgotten.iter().filter(move |(_, (_, since))| is_recent(since)).map(|(name, _)| name)
    }

    fn addresses(&self, now: Instant) -> impl Iterator<Item = &SocketAddr> {
        let is_recent = now.saturating_duration_since(self.started) < REMEMBERED;
        self.not_met.iter().filter(move |_| is_recent)
    }
}

impl Task {
    /// Returns all members that a keyring command has to reach.
    pub(super) fn known_members(&self) -> KnownMembers {
        let now = Instant::now();
        let mut known = KnownMembers::default();
        for peer in self.peer_states.values() {
            let why = match peer.reach {
                Reach::Alive | Reach::Suspect => {
                    known.reachable.push(Identity { id: peer.id.clone(), address: peer.address });
                    continue;
                }
                Reach::Gone(Cause::Forgotten) => continue,
                Reach::Gone(Cause::Left) => {
                    known.left.insert(peer.id.name.clone());
                    continue;
                }
                Reach::Held => "not asked: unreachable, held".to_owned(),
                Reach::Restarting => "not asked: restarting".to_owned(),
                Reach::Gone(cause) => format!("not asked: gone ({})", cause.as_str()),
            };
            known.unreachable.insert(peer.id.name.to_string(), why);
        }
        for name in self.missing.names(now) {
            let why = "not asked: gone, and not removed by force-leave".to_owned();
            known.unreachable.insert(name.to_string(), why);
        }
        for address in self.missing.addresses(now) {
            let why = "not asked: a peer before the last start, not met since".to_owned();
            known.unreachable.insert(address.to_string(), why);
        }
        known
    }

    /// Names of members that this node cannot reach, for the node that carries out a keyring command.
    pub(super) fn unreachable(&self) -> Vec<Label> {
        let is_lost = |peer: &&PeerState| !peer.reach.is_live() && !has_left(peer);
        let known = self.peer_states.values().filter(is_lost).map(|peer| &peer.id.name);
        known.chain(self.missing.names(Instant::now())).take(MAX_UNREACHABLE).cloned().collect()
    }
}

/// Reports whether a member left or was removed by an operator.
fn has_left(peer: &PeerState) -> bool {
    matches!(peer.reach, Reach::Gone(Cause::Left | Cause::Forgotten))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(peers: &[(&str, Reach)]) -> BTreeMap<Label, PeerState> {
        let state = |(at, (name, reach)): (usize, &(&str, Reach))| {
            let name = Label::parse(name).unwrap();
            let address = SocketAddr::from(([10, 0, 0, u8::try_from(at).unwrap() + 1], 7946));
            let id = PeerId { name: name.clone(), generation: 1 };
            (name, PeerState { id, address, reach: *reach, since: Duration::ZERO })
        };
        peers.iter().enumerate().map(state).collect()
    }

    #[test]
    fn member_that_did_not_leave_is_remembered_for_a_day() {
        let now = Instant::now();
        let remembered = ["10.0.0.1:7946", "10.0.0.9:7946", "10.0.0.8:7946"].map(|address| address.parse().unwrap());
        let mut missing = Missing::new(&remembered, "10.0.0.8:7946".parse().unwrap(), now);
        let gone = Reach::Gone;
        let before = members(&[
            ("a", Reach::Alive),
            ("b", gone(Cause::Silent)),
            ("c", gone(Cause::Left)),
            ("d", gone(Cause::Forgotten)),
            ("e", gone(Cause::Expired)),
        ]);
        let shown = |missing: &Missing, now| missing.names(now).map(Label::to_string).collect::<Vec<_>>().join(" ");
        missing.note(&members(&[]), &before, now);
        assert_eq!(shown(&missing, now), "");
        missing.note(&before, &members(&[("a", Reach::Alive)]), now);
        assert_eq!(shown(&missing, now), "b e");
        let addresses: Vec<String> = missing.addresses(now).map(SocketAddr::to_string).collect();
        assert_eq!(addresses, ["10.0.0.9:7946"]);
        // It returns.
        missing.note(&members(&[]), &members(&[("a", Reach::Alive), ("e", Reach::Alive)]), now);
        assert_eq!(shown(&missing, now), "b");
        assert_eq!(shown(&missing, now + REMEMBERED), "");
        assert_eq!(missing.addresses(now + REMEMBERED).count(), 0);
        assert_eq!(missing.forget(&Label::parse("b").unwrap()).map(|id| id.generation), Some(1));
        assert_eq!(shown(&missing, now), "");
    }
}
