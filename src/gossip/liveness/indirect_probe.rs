//! Reaching a peer on somebody's behalf, whose own way to it may be broken.

use std::{net::SocketAddr, time::Duration};

use super::{
    Liveness, MAX_PENDING,
    action::{Action, Finding},
};
use crate::model::{member::PeerId, name::Label};

/// One request that is under way.
#[derive(Debug)]
pub(super) struct IndirectProbe {
    asker: PeerId,
    address: SocketAddr,
    pub(super) target: Label,
    generation: u64,
    sequence: u64,
    /// When we say that we could not.
    until: Duration,
}

impl Liveness {
    /// Another node, at `address`, asks us to reach `target`. What follows is an [`Action::Tell`] within two intervals.
    /// About a run that we do not know there is nothing to tell.
    pub fn asked(&mut self, by: &PeerId, address: SocketAddr, target: &PeerId, sequence: u64, now: Duration) {
        let at = self.wake(now);
        if *target == self.own {
            let (to, target) = (by.clone(), target.clone());
            self.actions.push(Action::Tell { to, address, target, sequence, finding: Finding::Answers });
            return;
        }
        let until = at + self.timing.errand;
        let Some(peer) = self.run(target) else { return };
        let since = peer.errand.map_or(at, |(since, _)| since);
        // Who asks again has the answer to the first question coming.
        let known = self.errands.iter().any(|errand| errand.asker.name == by.name && errand.target == target.name);
        if known || self.errands.len() >= MAX_PENDING {
            return;
        }
        self.errands.push(IndirectProbe {
            asker: by.clone(),
            address,
            target: target.name.clone(),
            generation: target.generation,
            sequence,
            until,
        });
        if let Some(peer) = self.run(target) {
            peer.errand = Some((since, until));
        }
        self.schedule(&target.name, at);
    }

    /// Tells everybody who asked for this peer.
    pub(super) fn fulfil(&mut self, name: &Label, finding: Finding) {
        self.tell(name, Duration::MAX, finding);
        if let Some(peer) = self.peers.get_mut(name) {
            peer.errand = None;
        }
    }

    /// Goes on with the errands to this peer: tells those whose time is over what there is to tell.
    pub(super) fn run_errands(&mut self, name: &Label, now: Duration, at: Duration) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        let Some((since, until)) = peer.errand else { return };
        let listens = peer.knock.accepted.is_some_and(|accepted| accepted >= since);
        // Several times: a stopped agent must not be taken for a dead host because of one lost packet.
        let last = peer.knock.at.map_or(since, |knocked| knocked.max(since));
        let wants_knock = !listens && at + self.timing.look / 2 >= last + self.timing.again;
        let wants_ping = peer.wants_ping(at, &self.timing);
        if until <= at {
            peer.errand = None;
        }
        self.tell(name, at, if listens { Finding::Listens } else { Finding::Nothing });
        if until > at {
            if wants_ping {
                self.ping(name, now, at);
            }
            if wants_knock {
                self.knock(name, at);
            }
        }
    }

    /// Tells those whose time is over by `at`.
    fn tell(&mut self, name: &Label, at: Duration, finding: Finding) {
        let actions = &mut self.actions;
        self.errands.retain(|errand| {
            if errand.target != *name || errand.until > at {
                return true;
            }
            let (to, address, sequence) = (errand.asker.clone(), errand.address, errand.sequence);
            let target = PeerId { name: name.clone(), generation: errand.generation };
            actions.push(Action::Tell { to, address, target, sequence, finding });
            false
        });
    }
}
