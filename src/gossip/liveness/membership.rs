//! How peers come to stand where they stand, and what follows for who watches whom and for what is held.

use std::{net::SocketAddr, time::Duration};

use super::{
    Liveness, MAX_PEERS,
    peer::Peer,
    rendezvous::{self, MONITORS, score},
    timing::LOST_TOGETHER,
};
use crate::model::{
    member::{Cause, PeerId, Reach},
    name::Label,
};

/// Whether a peer was lost alone.
#[derive(Debug)]
enum Loss {
    /// It was.
    Single,
    /// So many are quiet just now that it takes some more moments to see.
    Unclear,
    /// More than half of all peers were lost, these.
    Together(Vec<Label>),
}

/// What became of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The peer is gone.
    Gone,
    /// It is held.
    Held,
    /// To be asked again in a moment.
    Unclear,
}

impl Liveness {
    /// A peer that is not known yet.
    pub(super) fn meet(&mut self, id: &PeerId, address: SocketAddr, reach: Option<Reach>, now: Duration, at: Duration) {
        let peer = Peer::new(id, address, rendezvous::key(&id.name), now, at);
        self.agenda.insert((peer.due, id.name.clone()));
        self.peers.insert(id.name.clone(), peer);
        if let Some(reach) = reach {
            self.stand(&id.name, reach, now, at);
        }
    }

    /// Whether another peer may be met. Where there is no room, the older half of those that are gone or were only
    /// mentioned makes some: many at once, so that a flood of names does not go through all of them each time.
    pub(super) fn make_room(&mut self) -> bool {
        if self.peers.len() < MAX_PEERS {
            return true;
        }
        let gone = self.peers.iter().filter(|(_, peer)| matches!(peer.reach, None | Some(Reach::Gone(_))));
        let mut gone: Vec<(Duration, Label)> = gone.map(|(name, peer)| (peer.stood, name.clone())).collect();
        gone.sort();
        gone.truncate(gone.len().div_ceil(2));
        for (_, name) in &gone {
            self.drop_peer(name);
        }
        !gone.is_empty()
    }

    /// As if it had never been there.
    pub(super) fn forget(&mut self, name: &Label, now: Duration, at: Duration) {
        if self.peers.get(name).is_some_and(|peer| peer.reach.is_some()) {
            self.stand(name, Reach::Gone(Cause::Left), now, at);
        }
        self.drop_peer(name);
    }

    /// One that is no member.
    fn drop_peer(&mut self, name: &Label) {
        if let Some(peer) = self.peers.remove(name) {
            self.agenda.remove(&(peer.due, name.clone()));
            self.changed |= peer.reach.is_some();
        }
        self.errands.retain(|errand| errand.target != *name);
    }

    /// A member again, or for the first time.
    pub(super) fn welcome(&mut self, name: &Label, now: Duration, at: Duration) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        if peer.reach == Some(Reach::Gone(Cause::Refused)) {
            peer.knock.misled = true;
        }
        peer.answer(at);
        peer.returned = peer.reach.map(|_| at);
        self.stand(name, Reach::Alive, now, at);
    }

    /// It answered us or somebody: if it was no member, or suspected, it is a member in good standing.
    pub(super) fn answered(&mut self, name: &Label, now: Duration, at: Duration) {
        match self.peers.get(name).map(|peer| peer.reach) {
            Some(Some(Reach::Suspect)) => self.stand(name, Reach::Alive, now, at),
            Some(None | Some(Reach::Held | Reach::Gone(_))) => self.welcome(name, now, at),
            Some(Some(Reach::Alive)) | None => {}
        }
    }

    /// A verdict that is due for `cause`. Whoever is lost together with more than half of all is held instead, with
    /// those.
    pub(super) fn judge(&mut self, name: &Label, cause: Cause, now: Duration, at: Duration) -> Judgement {
        // The word of its own host is no fault of ours.
        if cause != Cause::Refused {
            match self.lost_together(name, at) {
                Loss::Together(lost) => {
                    self.hold(&lost, now, at);
                    return Judgement::Held;
                }
                Loss::Unclear => return Judgement::Unclear,
                Loss::Single => {}
            }
        }
        self.stand(name, Reach::Gone(cause), now, at);
        Judgement::Gone
    }

    /// Whether more than half of all peers are lost, this one included.
    fn lost_together(&self, name: &Label, at: Duration) -> Loss {
        let (mut all, mut quiet, mut lost) = (0, 0, vec![]);
        for (other, peer) in &self.peers {
            let pause = match peer.reach {
                Some(Reach::Alive | Reach::Suspect) => at.saturating_sub(peer.sign()),
                Some(Reach::Held) => Duration::MAX,
                Some(Reach::Gone(Cause::Silent | Cause::Hung | Cause::Deaf))
                    if at.saturating_sub(peer.stood) < LOST_TOGETHER =>
                {
                    Duration::MAX
                }
                None | Some(Reach::Gone(_)) => continue,
            };
            all += 1;
            quiet += usize::from(pause >= self.timing.quiet || other == name);
            if pause >= self.timing.missing || other == name {
                lost.push(other.clone());
            }
        }
        // Waiting has an end: there the surer count decides alone.
        let waits = self.peers.get(name).is_some_and(|peer| at.saturating_sub(peer.sign()) < self.timing.alone);
        match () {
            () if lost.len() * 2 > all => Loss::Together(lost),
            () if quiet * 2 > all && waits => Loss::Unclear,
            () => Loss::Single,
        }
    }

    /// Holds this one and all that were lost with it, if that is more than half of all.
    pub(super) fn hold_if_together(&mut self, name: &Label, now: Duration, at: Duration) -> bool {
        let Loss::Together(lost) = self.lost_together(name, at) else { return false };
        self.hold(&lost, now, at);
        true
    }

    fn hold(&mut self, lost: &[Label], now: Duration, at: Duration) {
        for name in lost {
            if self.peers.get(name).is_some_and(|peer| peer.reach != Some(Reach::Held)) {
                self.stand(name, Reach::Held, now, at);
            }
        }
    }

    /// The one place where a peer's standing changes.
    pub(super) fn stand(&mut self, name: &Label, reach: Reach, now: Duration, at: Duration) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        let (was_live, was_held) = (peer.is_live(), peer.reach == Some(Reach::Held));
        (peer.reach, peer.since, peer.stood) = (Some(reach), now, at);
        let is_live = peer.is_live();
        if !is_live {
            // What rises or refuses from now on is news.
            peer.pulse = None;
            peer.doubted = None;
            peer.inquiry = None;
            (peer.knock.refused, peer.knock.silent) = (0, 0);
        }
        self.held = self.held + usize::from(reach == Reach::Held) - usize::from(was_held);
        match (was_live, is_live) {
            (false, true) => self.join(name, at),
            (true, false) => self.part(name, at),
            _ => {}
        }
        let due = match reach {
            Reach::Suspect => at + self.timing.look,
            // Not all at once, where many come at once.
            Reach::Alive => at + self.timing.ping.mul_f64(self.random.f64()),
            Reach::Held | Reach::Gone(_) => at + self.timing.ping,
        };
        self.schedule(name, due);
        if self.partitioned.is_some() || reach == Reach::Held {
            self.united = at;
        }
        self.partitioned = (self.held > self.members.len()).then(|| self.partitioned.unwrap_or(now));
        self.changed = true;
    }

    /// One more that watches and is watched.
    fn join(&mut self, name: &Label, at: Duration) {
        let Some(key) = self.peers.get(name).map(|peer| peer.key) else { return };
        let mut before_us = 0;
        for other in &self.members {
            let Some(other) = self.peers.get_mut(other) else { continue };
            before_us += usize::from(score(other.key, key) > score(self.key, key));
            if score(key, other.key) > score(self.key, other.key) {
                other.ahead += 1;
                if other.ahead == MONITORS {
                    // What we are in the middle of is brought to its end.
                    other.doubted = Some(at);
                }
            }
        }
        if let Some(peer) = self.peers.get_mut(name) {
            peer.ahead = before_us;
            peer.watch();
        }
        self.members.push(name.clone());
    }

    /// One less.
    fn part(&mut self, name: &Label, at: Duration) {
        let Some(key) = self.peers.get(name).map(|peer| peer.key) else { return };
        self.members.retain(|member| member != name);
        let mut taken_over = vec![];
        for member in &self.members {
            let Some(other) = self.peers.get_mut(member) else { continue };
            if score(key, other.key) > score(self.key, other.key) {
                other.ahead -= 1;
                if other.ahead == MONITORS - 1 {
                    other.watch();
                    taken_over.push(member.clone());
                }
            }
        }
        for name in taken_over {
            let phase = self.timing.ping.mul_f64(self.random.f64());
            self.schedule(&name, at + phase);
        }
    }

    /// When to look at it next.
    pub(super) fn schedule(&mut self, name: &Label, due: Duration) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        let mut place = (peer.due, name.clone());
        peer.due = due;
        self.agenda.remove(&place);
        place.0 = due;
        self.agenda.insert(place);
    }
}
