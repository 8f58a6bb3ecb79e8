//! What a tick does about one peer: ping it, knock at it, ask others, judge.

use std::time::Duration;

use super::{
    Liveness, MAX_PENDING, Repeat, TIMES,
    action::{Action, Verdict},
    membership::Judgement,
    peer::{Due, Inquiry},
    rendezvous::MONITORS,
    sequence,
    timing::{GONE_PING, REMEMBER},
};
use crate::model::{
    member::{Cause, PeerId, Reach},
    name::Label,
};

/// Peers that are asked at a time.
const ASKED: usize = 3;

impl Liveness {
    /// Looks at one peer, and says when to look again.
    pub(super) fn look(&mut self, name: &Label, now: Duration, at: Duration) {
        let Some(reach) = self.peers.get(name).map(|peer| peer.reach) else { return };
        let next = match reach {
            Some(Reach::Alive | Reach::Suspect) => self.look_at_member(name, now, at),
            None | Some(Reach::Held | Reach::Gone(_)) => self.look_for_lost(name, now, at),
        };
        if let Some(mut next) = next {
            self.run_errands(name, now, at);
            if self.peers.get(name).is_some_and(|peer| peer.errand.is_some()) {
                next = next.min(at + self.timing.look);
            }
            self.schedule(name, next.max(at + self.timing.look / 2));
        }
    }

    /// `None`: it is a member no longer, and was given its place in the agenda.
    fn look_at_member(&mut self, name: &Label, now: Duration, at: Duration) -> Option<Duration> {
        let timing = self.timing;
        let peer = self.peers.get_mut(name)?;
        let silence = at.saturating_sub(peer.sign());
        if peer.doubted.is_some_and(|doubted| at >= doubted + timing.overlooked) && peer.silence(at) < timing.knock {
            peer.doubted = None;
        }
        if peer.ahead >= MONITORS && peer.doubted.is_none() {
            if silence < timing.overlooked {
                return Some(peer.sign() + timing.overlooked);
            }
            peer.doubted = Some(at);
            peer.watch();
        }
        let wants_ping = peer.wants_ping(at, &timing);
        let wants_knock = peer.wants_knock(at, &timing);
        let silence = peer.silence(at);
        let wants_help = silence >= timing.ask
            && peer.inquiry.as_ref().is_none_or(|inquiry| at + timing.look / 2 >= inquiry.asked + timing.ping);
        let suspicious = silence >= timing.suspect && peer.reach == Some(Reach::Alive);
        let due = peer.verdict(at, &timing);
        if wants_ping {
            self.ping(name, now, at);
        }
        if wants_knock {
            self.knock(name, at);
        }
        if wants_help {
            self.ask(name, now, at);
        }
        let settled = match due {
            None => false,
            Some(Due { cause, corroborated: true }) => self.find(name, cause, now, at) != Judgement::Unclear,
            // Nobody can be asked. If that is because they are all silent, they are held.
            Some(Due { corroborated: false, .. }) => self.hold_if_together(name, now, at),
        };
        if settled {
            return None;
        }
        if suspicious {
            self.stand(name, Reach::Suspect, now, at);
        }
        let peer = self.peers.get(name)?;
        let pinged = peer.pinged.unwrap_or(at);
        Some(match peer.acked {
            _ if silence + timing.look >= timing.knock => at + timing.look,
            Some(acked) if acked >= pinged => pinged + timing.ping,
            _ => pinged + timing.again,
        })
    }

    /// Those that are no members: perhaps they come, or come back.
    fn look_for_lost(&mut self, name: &Label, now: Duration, at: Duration) -> Option<Duration> {
        let peer = self.peers.get_mut(name)?;
        let age = at.saturating_sub(peer.stood);
        match peer.reach {
            Some(Reach::Held) if age >= self.hold => {
                self.stand(name, Reach::Gone(Cause::Expired), now, at);
                return None;
            }
            // The others are back: what it was held for is over.
            Some(Reach::Held) if self.partitioned.is_none() && at >= self.united + self.timing.settle => {
                self.stand(name, Reach::Gone(Cause::Silent), now, at);
                return None;
            }
            Some(Reach::Held) => {}
            _ if age >= REMEMBER => {
                self.forget(name, now, at);
                return None;
            }
            Some(Reach::Gone(Cause::Left)) => return Some(peer.stood + REMEMBER),
            _ => {}
        }
        let pause = peer.patience(at, &self.timing);
        // The agent of a peer that is held may have ended meanwhile.
        let held = peer.reach == Some(Reach::Held);
        let wants_knock = held && peer.knock.at.is_none_or(|knocked| at >= knocked + GONE_PING);
        self.ping(name, now, at);
        if wants_knock {
            self.knock(name, at);
        }
        // A little uneven, so that not all nodes ping at once.
        Some(at + pause.mul_f64(0.9 + 0.2 * self.random.f64()))
    }

    pub(super) fn ping(&mut self, name: &Label, now: Duration, at: Duration) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        peer.pinged = Some(at);
        let to = PeerId { name: name.clone(), generation: peer.generation };
        self.actions.push(Action::Ping { to, address: peer.address, sequence: sequence(now) });
    }

    pub(super) fn knock(&mut self, name: &Label, at: Duration) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        peer.knock.at = Some(at);
        let id = PeerId { name: name.clone(), generation: peer.generation };
        self.actions.push(Action::Knock { peer: id, address: peer.address });
    }

    /// Asks some members that are heard themselves. A few draws find them where most are; where most are silent, the
    /// next time brings others.
    fn ask(&mut self, name: &Label, now: Duration, at: Duration) {
        let Some(generation) = self.peers.get(name).map(|peer| peer.generation) else { return };
        let mut chosen: Vec<usize> = vec![];
        for _ in 0..4 * ASKED {
            let draw = self.random.usize(..self.members.len().max(1));
            let Some(member) = self.members.get(draw).filter(|member| *member != name) else { continue };
            let Some(peer) = self.peers.get(member) else { continue };
            if chosen.contains(&draw) || at.saturating_sub(peer.sign()) >= self.timing.ask {
                continue;
            }
            let by = PeerId { name: member.clone(), generation: peer.generation };
            let target = PeerId { name: name.clone(), generation };
            let (address, sequence) = (peer.address, sequence(now));
            self.actions.push(Action::Ask { by, address, target, sequence });
            chosen.push(draw);
            if chosen.len() == ASKED {
                break;
            }
        }
        let Some(peer) = self.peers.get_mut(name).filter(|_| !chosen.is_empty()) else { return };
        match &mut peer.inquiry {
            Some(inquiry) => inquiry.asked = at,
            None => peer.inquiry = Some(Inquiry { first: sequence(now), asked: at, corroborated: false }),
        }
    }

    /// A verdict of our own. If the peer is gone, everybody is told.
    pub(super) fn find(&mut self, name: &Label, cause: Cause, now: Duration, at: Duration) -> Judgement {
        let judgement = self.judge(name, cause, now, at);
        let Some(generation) = self.peers.get(name).map(|peer| peer.generation) else { return judgement };
        if judgement != Judgement::Gone {
            return judgement;
        }
        self.announce(Verdict { subject: PeerId { name: name.clone(), generation }, cause }, at);
        judgement
    }

    /// Tells everybody, several times.
    pub(super) fn announce(&mut self, verdict: Verdict, at: Duration) {
        self.actions.push(Action::Announce(verdict.clone()));
        if self.rumours.len() < MAX_PENDING {
            let next = at + self.timing.again;
            self.rumours.push(Repeat { what: verdict, next, left: TIMES - 1 });
        }
    }

    /// Says again what may have been lost, and is still true.
    pub(super) fn repeat(&mut self, at: Duration) {
        let (peers, actions, again) = (&self.peers, &mut self.actions, self.timing.again);
        self.rumours.retain_mut(|rumour| {
            let Verdict { subject, cause } = &rumour.what;
            let still = peers
                .get(&subject.name)
                .is_some_and(|peer| peer.generation == subject.generation && peer.reach == Some(Reach::Gone(*cause)));
            if still && at >= rumour.next {
                actions.push(Action::Announce(rumour.what.clone()));
                rumour.next = at + again;
                rumour.left -= 1;
            }
            still && rumour.left > 0
        });
        if let Some(refute) = self.refute.as_mut().filter(|refute| at >= refute.next) {
            self.actions.push(Action::Refute);
            refute.next = at + again;
            refute.left -= 1;
        }
        self.refute.take_if(|refute| refute.left == 0);
    }
}
