//! Reports of nodes about themselves and about others: leaves, restarts, losses.

use std::time::Duration;

use super::{
    Liveness, Repeat, TRANSMISSIONS,
    action::Dead,
    reachability::LossOutcome,
    timing::{IN_FLIGHT, LATE_REPORT},
};
use crate::model::{
    member::{Cause, PeerId, Reach},
    name::Label,
};

impl Liveness {
    /// Handles a dead broadcast by another node.
    pub fn dead(&mut self, dead: &Dead, now: Duration) {
        let at = self.advance_clock(now);
        let Dead { id, cause } = dead;
        if *id == self.own {
            self.doubted_by_peer(now);
            // Peers ignore frames that were in flight when the broadcast arrived, so the refutation waits.
            let next = at + 2 * IN_FLIGHT;
            self.refute.get_or_insert(Repeat { payload: (), next, left: TRANSMISSIONS });
            return;
        }
        let timing = self.timing;
        let Some(peer) = self.run(id) else { return };
        match (peer.reach, cause) {
            (_, Cause::Left) => return self.left(id, now),
            (Some(Reach::Gone(Cause::Forgotten)), Cause::Forgotten) => return,
            // A peer that is alive here is not forgotten by a command given elsewhere.
            (Some(Reach::Held | Reach::Restarting | Reach::Gone(_)), Cause::Forgotten) => {
                return self.set_reach(&id.name, Reach::Gone(Cause::Forgotten), now, at);
            }
            (_, Cause::Forgotten) => return,
            // A node that restarts does not respond.
            (None | Some(Reach::Restarting | Reach::Gone(_)), _) | (_, Cause::Expired) => return,
            (_, cause) if peer.is_paused(at) && *cause != Cause::Refused => return,
            _ => {}
        }
        let recent = |time: Option<Duration>, within| time.is_some_and(|time| at.saturating_sub(time) < within);
        // A refusal is detected at once, other causes after a second or more. A recent ack contradicts the latter, as when
        // a split heals just after the broadcast.
        let answers = if *cause == Cause::Refused { timing.retry } else { timing.missing };
        let contradicted = recent(peer.acked, answers) || recent(peer.rejoined, timing.fading);
        if !contradicted && self.apply_loss(&id.name, *cause, now, at) != LossOutcome::Unclear {
            return;
        }
        if self.run(id).is_some_and(|peer| peer.is_live() && peer.unanswered.is_none()) {
            self.watch(&id.name, now, at);
        }
    }

    /// Forgets a peer that is gone, held or restarting, or has left, here and on all nodes, by an operator's command. The peer
    /// becomes a member again with the next sign of life.
    ///
    /// # Errors
    /// Returns the reachability of a live peer, or `None` if there is no such member.
    pub fn forget(&mut self, name: &Label, now: Duration) -> Result<(), Option<Reach>> {
        let at = self.advance_clock(now);
        let Some(peer) = self.peers.get(name) else { return Err(None) };
        match peer.reach {
            None => Err(None),
            Some(reach @ (Reach::Alive | Reach::Suspect)) => Err(Some(reach)),
            Some(Reach::Held | Reach::Restarting | Reach::Gone(_)) => {
                let id = PeerId { name: name.clone(), generation: peer.generation };
                self.set_reach(name, Reach::Gone(Cause::Forgotten), now, at);
                self.broadcast_dead(Dead { id, cause: Cause::Forgotten }, at);
                Ok(())
            }
        }
    }

    /// Records that this run leaves.
    pub fn left(&mut self, id: &PeerId, now: Duration) {
        let at = self.advance_clock(now);
        let Some(peer) = self.run(id) else { return };
        match peer.reach {
            None => self.evict(&id.name, now, at),
            // The report of the leave may arrive again after an operator removed the node.
            Some(Reach::Gone(Cause::Left | Cause::Forgotten)) => {}
            Some(_) => self.set_reach(&id.name, Reach::Gone(Cause::Left), now, at),
        }
    }

    /// Records that this run restarts: the node is expected back as a new run. It may have been found gone before the
    /// report arrived.
    pub fn restarts(&mut self, id: &PeerId, now: Duration) {
        let at = self.advance_clock(now);
        let Some(peer) = self.run(id).filter(|peer| !peer.restart_announced) else { return };
        peer.restart_announced = true;
        let expected = match peer.reach {
            Some(Reach::Alive | Reach::Suspect | Reach::Held) => true,
            Some(Reach::Gone(Cause::Refused | Cause::Silent)) => at < peer.reach_since + LATE_REPORT,
            None | Some(Reach::Restarting | Reach::Gone(_)) => false,
        };
        if expected {
            self.set_reach(&id.name, Reach::Restarting, now, at);
        }
    }

    /// Records that a peer considers this node gone, or another node the holder of its name.
    pub fn doubted_by_peer(&mut self, now: Duration) {
        let (since, _) = *self.doubted.get_or_insert((now, now));
        self.doubted = Some((since, now));
        self.changed = true;
    }

    /// Time since when peers consider this node gone, if they do.
    pub fn doubted(&self) -> Option<Duration> {
        self.doubted.map(|(since, _)| since)
    }
}
