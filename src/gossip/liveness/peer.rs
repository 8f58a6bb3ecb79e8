//! One peer: what speaks for it, what speaks against it, and what follows. Times here are of the detector's own clock,
//! which stands still while this process does.

use std::{net::SocketAddr, time::Duration};

use super::timing::{GONE_PING, Timing};
use crate::model::member::{Cause, PeerId, Reach};

/// Knocks in a row that must come to nothing before a host counts as silent: one may be lost.
const KNOCKS: u32 = 2;

/// Evidence about one peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) generation: u64,
    pub(super) address: SocketAddr,
    /// Its name as a number, see `rendezvous`.
    pub(super) key: u64,
    /// `None`: only mentioned. Nobody knows whether it still lives, so it is no member yet.
    pub(super) reach: Option<Reach>,
    /// When it came to stand so, by the caller's clock.
    pub(super) since: Duration,
    /// The same by ours.
    pub(super) stood: Duration,
    /// When it was last taken back, or first taken in.
    pub(super) returned: Option<Duration>,
    /// Somebody claims its name from elsewhere.
    pub(super) rival: Option<Rival>,

    /// The highest heartbeat known.
    pub(super) heartbeat: u64,
    /// When it first and last stirred without a long pause between: its heartbeat rose, or a frame came from it.
    pub(super) pulse: Option<(Duration, Duration)>,
    /// When it was first mentioned.
    met: Duration,
    /// When it answered us.
    pub(super) acked: Option<Duration>,
    /// When it last answered anybody who told us; where it was not asked, when there was a sign of it.
    pub(super) answered: Duration,

    /// How many members come before us among its monitors.
    pub(super) ahead: usize,
    /// Watched by us beside its monitors, since then: nothing was heard of it, or the others say what we cannot believe.
    pub(super) doubted: Option<Duration>,
    /// Somebody asked us to reach it: since when, and until when.
    pub(super) errand: Option<(Duration, Duration)>,
    /// The last ping.
    pub(super) pinged: Option<Duration>,
    pub(super) knock: TcpProbe,
    /// The questions about it that are under way.
    pub(super) inquiry: Option<Inquiry>,
    /// When it is looked at next: its place in the agenda.
    pub(super) due: Duration,
}

/// Another node with a peer's name.
#[derive(Debug)]
pub(super) struct Rival {
    pub(super) generation: u64,
    pub(super) address: SocketAddr,
    /// When we heard of it, by the caller's clock. A peer that answers what was sent later lives beside it.
    pub(super) since: Duration,
    /// That was found, and told.
    pub(super) told: bool,
}

/// What knocking brought.
#[derive(Debug, Default)]
pub(super) struct TcpProbe {
    pub(super) at: Option<Duration>,
    /// The last time that anybody found its host taking connections.
    pub(super) accepted: Option<Duration>,
    /// Knocks in a row without anything coming back.
    pub(super) silent: u32,
    /// Refusals in a row.
    pub(super) refused: u32,
    /// It was refused, and lived: something on the way refuses. Never believed again.
    pub(super) misled: bool,
}

/// Questions to others about a peer.
#[derive(Debug)]
pub(super) struct Inquiry {
    /// The sequence of the first question. Answers to older ones do not count.
    pub(super) first: u64,
    pub(super) asked: Duration,
    /// Somebody could not reach it either.
    pub(super) corroborated: bool,
}

/// A verdict that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) cause: Cause,
    /// Somebody else says so too. Else the fault may be ours, and nobody is gone because of it.
    pub(super) corroborated: bool,
}

impl Peer {
    pub(super) fn new(id: &PeerId, address: SocketAddr, key: u64, now: Duration, at: Duration) -> Self {
        Self {
            generation: id.generation,
            address,
            key,
            reach: None,
            since: now,
            stood: at,
            returned: None,
            rival: None,
            heartbeat: 0,
            pulse: None,
            met: at,
            acked: None,
            answered: at,
            ahead: 0,
            doubted: None,
            errand: None,
            pinged: None,
            knock: TcpProbe::default(),
            inquiry: None,
            due: at,
        }
    }

    /// Whether it counts as one that watches and is watched.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.reach, Some(Reach::Alive | Reach::Suspect))
    }

    /// When it last did something that we know of.
    pub(super) fn stirred(&self) -> Duration {
        self.pulse.map_or(self.met, |(_, last)| last)
    }

    /// When there was any sign of it.
    pub(super) fn sign(&self) -> Duration {
        self.stirred().max(self.answered)
    }

    /// It stirs. Returns whether it has done so for long enough to be no echo: heartbeats from before its end go round
    /// for some more intervals, and come in again when a network heals, but do not go on rising.
    pub(super) fn stir(&mut self, at: Duration, timing: &Timing) -> bool {
        let first = match self.pulse {
            Some((first, last)) if at.saturating_sub(last) < timing.overlooked => first,
            _ => at,
        };
        self.pulse = Some((first, at));
        at.saturating_sub(first) >= timing.fading
    }

    /// It answered us or somebody who told us.
    pub(super) fn answer(&mut self, at: Duration) {
        self.answered = at;
        self.inquiry = None;
        self.knock.silent = 0;
        self.knock.refused = 0;
    }

    /// Watching it begins. What was missing before counts, so that nobody waits twice.
    pub(super) fn watch(&mut self) {
        self.answered = self.sign();
    }

    /// Whether a ping is due: an answer to the last one makes the next one wait longer.
    pub(super) fn wants_ping(&self, at: Duration, timing: &Timing) -> bool {
        let Some(pinged) = self.pinged else { return true };
        let pause = if self.acked.is_some_and(|acked| acked >= pinged) { timing.ping } else { timing.again };
        // As exact as the ticks are.
        at + timing.look / 2 >= pinged + pause
    }

    /// Whether to knock, while nothing else answers.
    pub(super) fn wants_knock(&self, at: Duration, timing: &Timing) -> bool {
        self.silence(at) >= timing.knock
            && self.knock.at.is_none_or(|last| at + timing.look / 2 >= last + timing.knock_again)
    }

    /// For how long it has answered nobody.
    pub(super) fn silence(&self, at: Duration) -> Duration {
        at.saturating_sub(self.answered)
    }

    /// The verdict that the evidence suffices for.
    pub(super) fn verdict(&self, at: Duration, timing: &Timing) -> Option<Due> {
        let silence = self.silence(at);
        let corroborated = self.inquiry.as_ref().is_some_and(|inquiry| inquiry.corroborated);
        let least = if corroborated { timing.silent } else { timing.alone };
        if silence < least {
            return None;
        }
        // One that is heard long after its last answer is deaf rather than silent. It hears nobody, so it holds its peers
        // and speaks seldom.
        let deaf = self.stirred() >= self.answered + timing.silent;
        if at.saturating_sub(self.stirred()) < if deaf { timing.overlooked } else { timing.fading } {
            // Where it has only just begun to stir again, it was stopped: its answers come as well.
            let awake = self.pulse.map_or(Duration::ZERO, |(first, _)| at.saturating_sub(first));
            let enough = silence >= timing.deaf && awake >= timing.fading;
            return enough.then_some(Due { cause: Cause::Deaf, corroborated });
        }
        if self.knock.accepted.is_some_and(|accepted| at.saturating_sub(accepted) < timing.fading) {
            return (silence >= timing.hung).then_some(Due { cause: Cause::Hung, corroborated });
        }
        (self.knock.silent >= KNOCKS || self.knock.misled).then_some(Due { cause: Cause::Silent, corroborated })
    }

    /// Whether an ack, to a ping of the time `sent` on the caller's clock, was of the time after it was lost.
    pub(super) fn lives_since(&self, sent: Duration) -> bool {
        sent >= self.since
    }

    /// How long it takes until a peer that is not a member is pinged again.
    pub(super) fn patience(&self, at: Duration, timing: &Timing) -> Duration {
        let new = self.reach.is_none() && at.saturating_sub(self.stood) < timing.fading;
        match self.reach {
            Some(Reach::Held) => super::timing::HELD_PING,
            _ if new => timing.again,
            _ => GONE_PING,
        }
    }
}
