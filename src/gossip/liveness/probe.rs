//! Probing one peer on a tick: direct, TCP fallback and indirect probes, and declaring it gone.

use std::time::Duration;

use super::{
    Liveness, MAX_PENDING, Repeat, TRANSMISSIONS,
    action::{Action, Dead},
    peer::{Conclusion, IndirectRound},
    reachability::LossOutcome,
    sequence,
    timing::{GONE_PING, NEVER, PING_SPREAD, REMEMBER, UNANSWERED},
};
use crate::model::{
    member::{Cause, PeerId, Reach},
    name::Label,
};

/// Number of nodes that probe indirectly at a time, SWIM's k.
const INDIRECT_PROBES: usize = 3;

impl Liveness {
    /// Probes one peer and schedules its next probe.
    pub(super) fn probe(&mut self, name: &Label, now: Duration, at: Duration) {
        let Some(reach) = self.peers.get(name).map(|peer| peer.reach) else { return };
        let next = match reach {
            Some(Reach::Alive | Reach::Suspect) => self.probe_member(name, now, at),
            None | Some(Reach::Held | Reach::Restarting | Reach::Gone(_)) => self.probe_non_member(name, now, at),
        };
        if let Some(mut next) = next {
            self.run_indirect_probes(name, now, at);
            if self.peers.get(name).is_some_and(|peer| peer.indirect_probe.is_some()) {
                next = next.min(at + self.timing.step);
            }
            self.schedule(name, next.max(at + self.timing.step / 2));
        }
    }

    /// Returns the time of the next probe; `None` if the peer is no member any more and was scheduled as such.
    fn probe_member(&mut self, name: &Label, now: Duration, at: Duration) -> Option<Duration> {
        let (timing, round) = (self.timing, self.round);
        let peer = self.peers.get(name)?;
        if !peer.is_watched() {
            return Some(NEVER);
        }
        let wants_ping = if peer.has_acked() {
            peer.is_due(round, at)
        } else {
            peer.pinged_before(peer.retry(&timing), at, &timing)
        };
        let wants_tcp_probe = peer.wants_tcp_probe(at, &timing);
        let silence = peer.silence(at, &timing);
        let asked = |round: &IndirectRound| at + timing.step / 2 >= round.asked + timing.interval;
        let wants_indirect_probe = silence >= timing.indirect_probe && peer.indirect_round.as_ref().is_none_or(asked);
        let pauses = peer.is_paused(at);
        let suspicious = silence >= timing.suspect && peer.reach == Some(Reach::Alive) && !pauses;
        let conclusion = peer.conclusion(at, &timing).filter(|_| !pauses);
        if wants_ping {
            self.ping_member(name, now, at);
        }
        if wants_tcp_probe {
            self.tcp_probe(name, at);
        }
        if wants_indirect_probe {
            self.request_indirect_probes(name, now, at);
        }
        let surveyed = (!suspicious && conclusion.is_none()) || self.is_surveyed(name, at);
        let settled = match conclusion {
            None => false,
            // The evidence about the other members is old.
            Some(_) if !surveyed && silence < timing.uncorroborated => false,
            Some(Conclusion { cause, corroborated: true }) => {
                self.declare_gone(name, cause, now, at) != LossOutcome::Unclear
            }
            // No other node can confirm it. If that is because all are silent, they are held.
            Some(Conclusion { corroborated: false, .. }) => self.hold_if_together(name, now, at),
        };
        if settled {
            return None;
        }
        if suspicious {
            self.set_reach(name, Reach::Suspect, now, at);
        }
        let peer = self.peers.get(name)?;
        Some(match peer.unanswered {
            _ if silence + timing.step >= timing.tcp_probe => at + timing.step,
            None if peer.has_acked() => return Some(self.next_ping(name)),
            _ => peer.pinged.unwrap_or(at) + peer.retry(&timing),
        })
    }

    /// Returns the time of the next ping of a member that has acked the last one. The targets are pinged together, so that
    /// the node wakes once for all.
    fn next_ping(&mut self, name: &Label) -> Duration {
        let Some(peer) = self.peers.get(name).filter(|peer| peer.is_target()) else { return NEVER };
        let last = peer.pinged.unwrap_or(peer.answered);
        if self.round <= last {
            let spread = 1.0 - PING_SPREAD + 2.0 * PING_SPREAD * self.random.f64();
            self.round = last + self.timing.ping(self.members.len()).mul_f64(spread);
        }
        self.round
    }

    /// Plans the next ping of a member that has just acked, instead of the repetition of the last one.
    pub(super) fn rest(&mut self, name: &Label) {
        if self.peers.get(name).is_some_and(|peer| peer.reach == Some(Reach::Alive) && peer.has_acked()) {
            let next = self.next_ping(name);
            self.schedule(name, next);
        }
    }

    /// Pings a member, and monitors it until it answers.
    pub(super) fn watch(&mut self, name: &Label, now: Duration, at: Duration) {
        self.ping_member(name, now, at);
        self.schedule(name, at + self.timing.retry);
    }

    /// Pings a member. Its silence starts unless it answers.
    fn ping_member(&mut self, name: &Label, now: Duration, at: Duration) {
        self.ping(name, now, at);
        if let Some(peer) = self.peers.get_mut(name) {
            peer.unanswered.get_or_insert(at);
        }
    }

    /// Probes a peer that is no member, in case it joins or returns.
    fn probe_non_member(&mut self, name: &Label, now: Duration, at: Duration) -> Option<Duration> {
        let peer = self.peers.get_mut(name)?;
        let age = at.saturating_sub(peer.reach_since);
        match peer.reach {
            Some(Reach::Held) if age >= self.hold => {
                self.set_reach(name, Reach::Gone(Cause::Expired), now, at);
                return None;
            }
            // Most peers are back, so this peer is no longer held with them.
            Some(Reach::Held) if self.partitioned.is_none() && at >= self.last_held + self.timing.settle => {
                self.set_reach(name, Reach::Gone(Cause::Silent), now, at);
                return None;
            }
            Some(Reach::Restarting) if age >= self.restart_hold => {
                self.set_reach(name, Reach::Gone(Cause::NotReturned), now, at);
                return None;
            }
            Some(Reach::Held | Reach::Restarting) => {}
            _ if age >= REMEMBER => {
                self.evict(name, now, at);
                return None;
            }
            Some(Reach::Gone(Cause::Left)) => return Some(peer.reach_since + REMEMBER),
            _ => {}
        }
        let pause = peer.retry_pause(at, &self.timing);
        // The agent of a held peer may have ended meanwhile. If the peer was restored, gossip may still report that it restarts.
        let held = peer.reach == Some(Reach::Held);
        let restored = held && self.starting.is_some() && age < UNANSWERED;
        let wants_tcp_probe = held && !restored && peer.tcp_probe.at.is_none_or(|probed| at >= probed + GONE_PING);
        // Time of the next decision, if it precedes the next ping.
        let decides = match peer.reach {
            Some(Reach::Held) if restored => peer.reach_since + self.hold.min(UNANSWERED),
            Some(Reach::Held) => peer.reach_since + self.hold,
            Some(Reach::Restarting) => peer.reach_since + self.restart_hold,
            None | Some(_) => Duration::MAX,
        };
        self.ping(name, now, at);
        if wants_tcp_probe {
            self.tcp_probe(name, at);
        }
        // Jitter keeps the nodes from pinging at once.
        Some((at + pause.mul_f64(0.9 + 0.2 * self.random.f64())).min(decides))
    }

    pub(super) fn ping(&mut self, name: &Label, now: Duration, at: Duration) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        peer.pinged = Some(at);
        let to = PeerId { name: name.clone(), generation: peer.generation };
        self.actions.push(Action::Ping { to, address: peer.address, sequence: sequence(now) });
    }

    pub(super) fn tcp_probe(&mut self, name: &Label, at: Duration) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        peer.tcp_probe.at = Some(at);
        let id = PeerId { name: name.clone(), generation: peer.generation };
        self.actions.push(Action::TcpProbe { peer: id, address: peer.address });
    }

    /// Asks some random members for an indirect probe that are not silent themselves. A bounded number of draws suffices
    /// while most members answer; otherwise the next round draws others.
    fn request_indirect_probes(&mut self, name: &Label, now: Duration, at: Duration) {
        let Some(generation) = self.peers.get(name).map(|peer| peer.generation) else { return };
        let mut chosen: Vec<usize> = vec![];
        for _ in 0..4 * INDIRECT_PROBES {
            let draw = self.random.usize(..self.members.len().max(1));
            let Some(member) = self.members.get(draw).filter(|member| *member != name) else { continue };
            let Some(peer) = self.peers.get(member) else { continue };
            if chosen.contains(&draw) || peer.unanswered_for(at) >= self.timing.retry {
                continue;
            }
            let by = PeerId { name: member.clone(), generation: peer.generation };
            let target = PeerId { name: name.clone(), generation };
            let (address, sequence) = (peer.address, sequence(now));
            self.actions.push(Action::IndirectProbe { by, address, target, sequence });
            chosen.push(draw);
            if chosen.len() == INDIRECT_PROBES {
                break;
            }
        }
        let Some(peer) = self.peers.get_mut(name).filter(|_| !chosen.is_empty()) else { return };
        match &mut peer.indirect_round {
            Some(round) => round.asked = at,
            None => peer.indirect_round = Some(IndirectRound { first: sequence(now), asked: at, corroborated: false }),
        }
    }

    /// Declares a peer gone by this node's evidence, and broadcasts it if the peer is gone.
    pub(super) fn declare_gone(&mut self, name: &Label, cause: Cause, now: Duration, at: Duration) -> LossOutcome {
        let outcome = self.apply_loss(name, cause, now, at);
        let Some(generation) = self.peers.get(name).map(|peer| peer.generation) else { return outcome };
        if outcome != LossOutcome::Gone {
            return outcome;
        }
        self.broadcast_dead(Dead { id: PeerId { name: name.clone(), generation }, cause }, at);
        outcome
    }

    /// Broadcasts that a peer is dead, several times.
    pub(super) fn broadcast_dead(&mut self, dead: Dead, at: Duration) {
        self.actions.push(Action::BroadcastDead(dead.clone()));
        if self.dead_broadcasts.len() < MAX_PENDING {
            let next = at + self.timing.retry;
            self.dead_broadcasts.push(Repeat { payload: dead, next, left: TRANSMISSIONS - 1 });
        }
    }

    /// Repeats broadcasts that are due and still valid.
    pub(super) fn repeat(&mut self, at: Duration) {
        let (peers, actions, again) = (&self.peers, &mut self.actions, self.timing.retry);
        self.dead_broadcasts.retain_mut(|broadcast| {
            let Dead { id, cause } = &broadcast.payload;
            let still = peers
                .get(&id.name)
                .is_some_and(|peer| peer.generation == id.generation && peer.reach == Some(Reach::Gone(*cause)));
            if still && at >= broadcast.next {
                actions.push(Action::BroadcastDead(broadcast.payload.clone()));
                broadcast.next = at + again;
                broadcast.left -= 1;
            }
            still && broadcast.left > 0
        });
        if let Some(refute) = self.refute.as_mut().filter(|refute| at >= refute.next) {
            self.actions.push(Action::Refute);
            refute.next = at + again;
            refute.left -= 1;
        }
        self.refute.take_if(|refute| refute.left == 0);
    }
}
