//! Runs of peers: which run of a name counts, and which other ones make themselves known.

use std::{net::SocketAddr, time::Duration};

use super::{
    Liveness,
    action::Action,
    peer::{Claimant, Peer},
    sequence,
    timing::{CONFLICT_INTERVAL, RESTART_ABORTED, STARTING, UNANSWERED},
};
use crate::model::member::{Cause, PeerId, Reach};

impl Liveness {
    /// Adds a peer that an earlier start of this node knew. If this run `continues`, the peer is as it was; a live one
    /// counts as just heard. Otherwise a live one is held until it responds.
    pub fn restore(&mut self, id: &PeerId, address: SocketAddr, reach: Reach, continues: bool, now: Duration) {
        let at = self.advance_clock(now);
        if id.name == self.own.name || self.peers.contains_key(&id.name) || !self.make_room() {
            return;
        }
        let reach = match reach {
            Reach::Alive | Reach::Suspect if !continues => Reach::Held,
            _ => reach,
        };
        self.add_peer(id, address, Some(reach), now, at);
        if !continues {
            self.starting = Some(at + STARTING);
            if let Some(peer) = self.run(id) {
                peer.is_restored = true;
            }
        }
        if reach == Reach::Held {
            self.schedule(&id.name, at);
        }
    }

    /// Reports whether a peer is known that is not alive and has not had the time to answer a ping.
    pub fn awaits_answers(&mut self, now: Duration) -> bool {
        let at = self.advance_clock(now);
        let waiting = |peer: &Peer| matches!(peer.reach, None | Some(Reach::Held)) && at < peer.learned + UNANSWERED;
        self.peers.values().any(waiting)
    }

    /// Records a run of a node that gossip lists. An unknown node becomes a member with its first sign of life. A higher
    /// generation replaces a lower one at the same address, or one that is gone, held or restarting; otherwise it is ignored while
    /// the lower one is alive. The lower one is pinged, since it may have crashed and moved unnoticed; if it acks, see
    /// [`Action::Conflict`]. Lower generations are ignored: gossip lists them for some time.
    pub fn learn(&mut self, id: &PeerId, address: SocketAddr, now: Duration) {
        let at = self.advance_clock(now);
        if id.name == self.own.name {
            return;
        }
        let Some(known) = self.peers.get_mut(&id.name) else {
            if self.make_room() {
                self.add_peer(id, address, None, now, at);
            }
            return;
        };
        if id.generation <= known.generation {
            return;
        }
        if known.is_live() && known.address != address {
            return self.challenge(id, address, now, at);
        }
        let reach = known.reach.map(|_| Reach::Alive);
        self.evict(&id.name, now, at);
        self.add_peer(id, address, reach, now, at);
    }

    /// Handles direct contact with a node, which may be of another run than the known one. While the known run answers at
    /// another address, see [`Action::Conflict`]. Otherwise a higher generation replaces it, and a lower one is told
    /// ([`Action::Outdated`]), so that it steps above the known one.
    pub fn contacted(&mut self, id: &PeerId, address: SocketAddr, now: Duration) {
        let at = self.advance_clock(now);
        let timing = self.timing;
        let Some(known) = self.peers.get_mut(&id.name) else { return };
        if id.generation == known.generation {
            let has_left = known.reach == Some(Reach::Gone(Cause::Left));
            if !has_left || now < known.since + RESTART_ABORTED {
                return;
            }
        } else if known.is_live() && known.address != address {
            return self.challenge(id, address, now, at);
        } else if id.generation > known.generation {
            return self.learn(id, address, now);
        }
        if known.outdated_reported.is_none_or(|reported| at >= reported + timing.interval) {
            known.outdated_reported = Some(at);
            let known = PeerId { name: id.name.clone(), generation: known.generation };
            self.actions.push(Action::Outdated { to: address, known });
        }
    }

    /// Pings the live run of a name that another node claims.
    fn challenge(&mut self, id: &PeerId, address: SocketAddr, now: Duration, at: Duration) {
        let Some(known) = self.peers.get_mut(&id.name) else { return };
        let claimant = known.claimant.as_ref();
        let claimant = claimant.filter(|claimant| (claimant.generation, claimant.address) == (id.generation, address));
        if claimant.is_none_or(|claimant| now >= claimant.since + CONFLICT_INTERVAL) {
            // Truncated to microseconds like the ping's sequence number.
            let since = Duration::from_micros(sequence(now));
            known.claimant = Some(Claimant { generation: id.generation, address, since, reported: false });
            self.ping(&id.name, now, at);
        }
    }
}
