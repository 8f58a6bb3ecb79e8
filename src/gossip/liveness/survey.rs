//! Pings of members that other nodes monitor: surveys, and background pings.
//!
//! A node has evidence about its own targets only. When one of them becomes suspect, the node surveys the others: it pings
//! each member without a recent sign of life once, and watches those that do not answer. So it can tell the loss of a
//! single peer from its own isolation, without any cost at rest. A member that was not pinged does not count as silent.
//!
//! A background ping of one member after another finds a dead member whose dead broadcast was lost.

use std::time::Duration;

use super::{
    Liveness, MAX_PROBES_PER_TICK,
    peer::Peer,
    rendezvous::MONITORS,
    timing::{SURVEY_INTERVAL, VERIFY_INTERVAL},
};
use crate::model::name::Label;

/// State of surveys and background pings.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Earliest time of the next survey, if one was requested.
    requested: Option<Duration>,
    /// Members that the current survey has not visited yet.
    pending: Vec<Label>,
    /// Times of the start and of the last pings of the last survey.
    started: Option<Duration>,
    pinged: Option<Duration>,
    /// Time of the last survey on demand.
    verified: Option<Duration>,
    /// Members that the current round of background pings has not visited yet.
    round: Vec<Label>,
    /// Time of the next background ping.
    visit: Option<Duration>,
}

impl Liveness {
    /// Starts a survey: to be called if this node may have missed the loss of a peer. At most one in five seconds has an
    /// effect.
    pub fn verify_members(&mut self, now: Duration) {
        let at = self.advance_clock(now);
        if self.survey.verified.is_none_or(|verified| at >= verified + VERIFY_INTERVAL) {
            self.survey.verified = Some(at);
            self.request_survey(at);
        }
    }

    fn request_survey(&mut self, at: Duration) {
        let earliest = self.survey.started.map_or(at, |started| at.max(started + SURVEY_INTERVAL));
        self.survey.requested.get_or_insert(earliest);
    }

    /// Reports whether a survey since the begin of this peer's silence is complete; requests one if there was none.
    pub(super) fn is_surveyed(&mut self, name: &Label, at: Duration) -> bool {
        let Some(since) = self.peers.get(name).and_then(|peer| peer.unanswered) else { return true };
        match self.survey.pinged {
            Some(pinged) if pinged >= since => self.survey.pending.is_empty() && at >= pinged + self.timing.missing,
            _ if !self.survey.pending.is_empty() => false,
            _ => {
                self.request_survey(at);
                false
            }
        }
    }

    /// Continues a survey, by a bounded number of pings, and sends a background ping if it is time.
    pub(super) fn run_survey(&mut self, now: Duration, at: Duration) {
        if self.survey.pending.is_empty() && self.survey.requested.take_if(|earliest| at >= *earliest).is_some() {
            self.survey.pending.clone_from(&self.members);
            (self.survey.started, self.survey.pinged) = (Some(at), Some(at));
        }
        let mut pings = 0;
        while pings < MAX_PROBES_PER_TICK {
            let Some(name) = self.survey.pending.pop() else { break };
            let silent = |peer: &&Peer| at.saturating_sub(peer.last_seen()) >= self.timing.recent;
            if self.peers.get(&name).filter(silent).is_some_and(Peer::may_be_watched) {
                self.watch(&name, now, at);
                pings += 1;
            }
        }
        if pings > 0 {
            self.survey.pinged = Some(at);
        }
        self.visit(now, at);
    }

    /// Sends a background ping if it is time.
    fn visit(&mut self, now: Duration, at: Duration) {
        let spread = 0.5 + self.random.f64();
        let next = self.timing.visit.mul_f64(spread);
        if at < *self.survey.visit.get_or_insert(at + next) {
            return;
        }
        self.survey.visit = Some(at + next);
        if self.survey.round.is_empty() {
            self.survey.round.clone_from(&self.members);
            self.random.shuffle(&mut self.survey.round);
        }
        let visited = |peer: &Peer| !peer.is_target() && peer.may_be_watched();
        // A bounded search: targets are few.
        for _ in 0..MAX_PROBES_PER_TICK {
            let Some(name) = self.survey.round.pop() else { return };
            if self.peers.get(&name).is_some_and(visited) {
                return self.watch(&name, now, at);
            }
        }
    }

    /// Time of the next work of a survey, or of the next background ping where nodes have peers that they do not monitor.
    pub(super) fn survey_due(&self) -> Option<Duration> {
        let survey = &self.survey;
        let next = if survey.pending.is_empty() { survey.requested } else { survey.pinged };
        let visit = survey.visit.filter(|_| self.members.len() > MONITORS);
        [next, visit].into_iter().flatten().min()
    }
}
