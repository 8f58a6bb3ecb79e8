//! Changes of peers' reachability, and their effects on monitoring and on held peers.

use std::{net::SocketAddr, time::Duration};

use super::{
    Liveness, MAX_PEERS,
    peer::Peer,
    rendezvous::{self, MONITORS, score},
    timing::{LOST_TOGETHER, NEVER},
};
use crate::model::{
    member::{Cause, PeerId, Reach},
    name::Label,
};

/// Extent of a loss.
#[derive(Debug)]
enum Loss {
    /// One peer, or a minority.
    Single,
    /// Too many peers are quiet to decide yet.
    Unclear,
    /// More than half of all peers; holds their names.
    Together(Vec<Label>),
}

/// Outcome of declaring a peer gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LossOutcome {
    /// The peer is gone.
    Gone,
    /// The peer is held.
    Held,
    /// Undecided: try again shortly.
    Unclear,
}

impl Liveness {
    /// Adds an unknown peer.
    pub(super) fn add_peer(
        &mut self,
        id: &PeerId,
        address: SocketAddr,
        reach: Option<Reach>,
        now: Duration,
        at: Duration,
    ) {
        let peer = Peer::new(id, address, rendezvous::key(&id.name), now, at);
        self.agenda.insert((peer.due, id.name.clone()));
        self.peers.insert(id.name.clone(), peer);
        if let Some(reach) = reach {
            self.set_reach(&id.name, reach, now, at);
        }
    }

    /// Reports whether another peer can be added. If the table is full, removes the older half of the peers that are gone
    /// or no members yet: many at once, so that a flood of names does not scan the table each time.
    pub(super) fn make_room(&mut self) -> bool {
        if self.peers.len() < MAX_PEERS {
            return true;
        }
        let gone = self.peers.iter().filter(|(_, peer)| matches!(peer.reach, None | Some(Reach::Gone(_))));
        let mut gone: Vec<(Duration, Label)> = gone.map(|(name, peer)| (peer.reach_since, name.clone())).collect();
        gone.sort();
        gone.truncate(gone.len().div_ceil(2));
        for (_, name) in &gone {
            self.drop_peer(name);
        }
        !gone.is_empty()
    }

    /// Removes a peer, as if it had never been known.
    pub(super) fn evict(&mut self, name: &Label, now: Duration, at: Duration) {
        if self.peers.get(name).is_some_and(|peer| peer.reach.is_some()) {
            self.set_reach(name, Reach::Gone(Cause::Left), now, at);
        }
        self.drop_peer(name);
    }

    /// Removes a peer that is no member.
    fn drop_peer(&mut self, name: &Label) {
        if let Some(peer) = self.peers.remove(name) {
            self.agenda.remove(&(peer.due, name.clone()));
            self.changed |= peer.reach.is_some();
        }
        self.indirect_probes.retain(|indirect_probe| indirect_probe.target != *name);
    }

    /// Makes a peer a live member.
    pub(super) fn mark_alive(&mut self, name: &Label, now: Duration, at: Duration) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        if peer.reach == Some(Reach::Gone(Cause::Refused)) {
            peer.tcp_probe.unreliable = true;
        }
        peer.note_answer(at);
        peer.is_restored = false;
        peer.rejoined = peer.reach.map(|_| at);
        self.set_reach(name, Reach::Alive, now, at);
    }

    /// Records an ack to this or another node: a suspect or lost peer is alive again.
    pub(super) fn answered(&mut self, name: &Label, now: Duration, at: Duration) {
        match self.peers.get(name).map(|peer| peer.reach) {
            Some(Some(Reach::Suspect)) => self.set_reach(name, Reach::Alive, now, at),
            Some(None | Some(Reach::Held | Reach::Restarting | Reach::Gone(_))) => self.mark_alive(name, now, at),
            Some(Some(Reach::Alive)) | None => {}
        }
    }

    /// Declares a peer gone for `cause`. If more than half of all peers are lost together, holds all of them instead.
    pub(super) fn apply_loss(&mut self, name: &Label, cause: Cause, now: Duration, at: Duration) -> LossOutcome {
        // A refusal comes from the peer's own host and is no fault of this node.
        if cause != Cause::Refused {
            match self.lost_together(name, at) {
                Loss::Together(lost) => {
                    self.hold(&lost, now, at);
                    return LossOutcome::Held;
                }
                Loss::Unclear => return LossOutcome::Unclear,
                Loss::Single => {}
            }
        }
        self.set_reach(name, Reach::Gone(cause), now, at);
        LossOutcome::Gone
    }

    /// Determines the extent of a loss that includes this peer.
    fn lost_together(&self, name: &Label, at: Duration) -> Loss {
        let (mut all, mut quiet, mut lost) = (0, 0, vec![]);
        for (other, peer) in &self.peers {
            let pause = match peer.reach {
                Some(Reach::Alive | Reach::Suspect) if peer.is_paused(at) => Duration::ZERO,
                Some(Reach::Alive | Reach::Suspect) => peer.quiet_for(at),
                Some(Reach::Held) => Duration::MAX,
                Some(Reach::Gone(Cause::Silent | Cause::Unresponsive | Cause::Unreachable))
                    if at.saturating_sub(peer.reach_since) < LOST_TOGETHER =>
                {
                    Duration::MAX
                }
                None | Some(Reach::Restarting | Reach::Gone(_)) => continue,
            };
            all += 1;
            quiet += usize::from(pause >= self.timing.quiet || other == name);
            if pause >= self.timing.missing || other == name {
                lost.push(other.clone());
            }
        }
        // The wait is bounded: afterwards the number of lost peers decides alone.
        let waits = self.peers.get(name).is_some_and(|peer| peer.unanswered_for(at) < self.timing.uncorroborated);
        match () {
            () if lost.len() * 2 > all => Loss::Together(lost),
            () if quiet * 2 > all && waits => Loss::Unclear,
            () => Loss::Single,
        }
    }

    /// Holds this peer and all that were lost with it, if these are more than half of all.
    pub(super) fn hold_if_together(&mut self, name: &Label, now: Duration, at: Duration) -> bool {
        let Loss::Together(lost) = self.lost_together(name, at) else { return false };
        self.hold(&lost, now, at);
        true
    }

    fn hold(&mut self, lost: &[Label], now: Duration, at: Duration) {
        for name in lost {
            if self.peers.get(name).is_some_and(|peer| peer.reach != Some(Reach::Held)) {
                self.set_reach(name, Reach::Held, now, at);
            }
        }
    }

    /// Changes a peer's reachability. No other function does.
    pub(super) fn set_reach(&mut self, name: &Label, reach: Reach, now: Duration, at: Duration) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        let (was_live, was_held) = (peer.is_live(), peer.reach == Some(Reach::Held));
        (peer.reach, peer.since, peer.reach_since) = (Some(reach), now, at);
        let is_live = peer.is_live();
        if !is_live {
            // Evidence from before the change must not count afterwards.
            peer.activity = None;
            peer.unanswered = None;
            peer.indirect_round = None;
            (peer.tcp_probe.refused, peer.tcp_probe.silent) = (0, 0);
        }
        self.held = self.held + usize::from(reach == Reach::Held) - usize::from(was_held);
        match (was_live, is_live) {
            (false, true) => self.member_added(name),
            (true, false) => self.member_removed(name, at),
            _ => {}
        }
        let due = match reach {
            Reach::Suspect => at + self.timing.step,
            // Random phase, for many peers that join at once.
            Reach::Alive => at + self.phase(),
            Reach::Held | Reach::Restarting | Reach::Gone(_) => at + self.timing.interval,
        };
        self.schedule(name, due);
        if self.partitioned.is_some() || reach == Reach::Held {
            self.last_held = at;
        }
        self.partitioned = (self.held > self.members.len()).then(|| self.partitioned.unwrap_or(now));
        self.changed = true;
    }

    /// Updates the monitor assignment for a new member.
    fn member_added(&mut self, name: &Label) {
        let Some(key) = self.peers.get(name).map(|peer| peer.key) else { return };
        let mut before_us = 0;
        for other in &self.members {
            let Some(other) = self.peers.get_mut(other) else { continue };
            before_us += usize::from(score(other.key, key) > score(self.key, key));
            if score(key, other.key) > score(self.key, other.key) {
                // Silence that has begun is watched to its end by this node.
                other.monitors_ahead += 1;
            }
        }
        if let Some(peer) = self.peers.get_mut(name) {
            peer.monitors_ahead = before_us;
        }
        self.members.push(name.clone());
    }

    /// Updates the monitor assignment for a member that is gone.
    fn member_removed(&mut self, name: &Label, at: Duration) {
        let Some(key) = self.peers.get(name).map(|peer| peer.key) else { return };
        self.members.retain(|member| member != name);
        let mut taken_over = vec![];
        for member in &self.members {
            let Some(other) = self.peers.get_mut(member) else { continue };
            if score(key, other.key) > score(self.key, other.key) {
                other.monitors_ahead -= 1;
                if other.monitors_ahead == MONITORS - 1 {
                    taken_over.push(member.clone());
                }
            }
        }
        for name in taken_over {
            let due = self.peers.get(&name).map_or(NEVER, |peer| peer.due);
            let phase = self.phase();
            self.schedule(&name, due.min(at + phase));
        }
    }

    /// Random part of a ping interval.
    fn phase(&mut self) -> Duration {
        self.timing.ping(self.members.len()).mul_f64(self.random.f64())
    }

    /// Schedules the next probe of a peer.
    pub(super) fn schedule(&mut self, name: &Label, due: Duration) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        let mut entry = (peer.due, name.clone());
        peer.due = due;
        self.agenda.remove(&entry);
        if due < NEVER {
            entry.0 = due;
            self.agenda.insert(entry);
        }
    }
}
