//! Evidence about one peer and the conclusions from it. Times without a note are of the detector's own clock, which does
//! not advance while this process is stalled.

use std::{net::SocketAddr, time::Duration};

use super::{
    rendezvous::MONITORS,
    timing::{GONE_PING, IN_FLIGHT, Timing},
};
use crate::model::member::{Cause, PeerId, Reach};

/// Consecutive TCP probes without any reaction after which a host counts as silent: one probe may be lost.
const SILENT_TCP_PROBES: u32 = 2;

/// Evidence about one peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) generation: u64,
    pub(super) address: SocketAddr,
    /// Hash of the name, see `rendezvous`.
    pub(super) key: u64,
    /// Reachability. `None`: known from gossip only, without a sign of life, so it is no member yet.
    pub(super) reach: Option<Reach>,
    /// Time of the last change of `reach`, by the caller's clock.
    pub(super) since: Duration,
    /// Time of the last change of `reach`.
    pub(super) reach_since: Duration,
    /// Time when it last became alive again after it was gone or held.
    pub(super) rejoined: Option<Duration>,
    /// True if this run has announced a restart.
    pub(super) restart_announced: bool,
    /// True if it is known from a former run of this node only, without a sign of life since.
    pub(super) is_restored: bool,
    /// Announced pause.
    pub(super) pause: Option<Pause>,
    /// Another node that claims this peer's name.
    pub(super) claimant: Option<Claimant>,
    /// Time when another run was last told that this one is known.
    pub(super) outdated_reported: Option<Duration>,

    /// First and last frame without a long pause between.
    pub(super) activity: Option<(Duration, Duration)>,
    /// Time when gossip first listed it.
    pub(super) learned: Duration,
    /// Time of its last ack to this node.
    pub(super) acked: Option<Duration>,
    /// Time of its last known ack to any node, at first that of its addition.
    pub(super) answered: Duration,
    /// Begin of its silence: time of the first ping of a member since then that is unanswered.
    pub(super) unanswered: Option<Duration>,

    /// Number of members that precede this node among the peer's monitors.
    pub(super) monitors_ahead: usize,
    /// Start and end of the indirect probes on behalf of other nodes.
    pub(super) indirect_probe: Option<(Duration, Duration)>,
    /// Time of the last ping.
    pub(super) pinged: Option<Duration>,
    pub(super) tcp_probe: TcpProbe,
    /// Indirect probes requested from other nodes.
    pub(super) indirect_round: Option<IndirectRound>,
    /// Time of the next probe, its position in the agenda; [`NEVER`](super::timing::NEVER) if none is planned.
    pub(super) due: Duration,
}

/// Another node with a peer's name.
#[derive(Debug)]
pub(super) struct Claimant {
    pub(super) generation: u64,
    pub(super) address: SocketAddr,
    /// Time of its last claim, by the caller's clock. A peer that acks a later ping is alive beside it.
    pub(super) since: Duration,
    /// True if the conflict was reported since then.
    pub(super) reported: bool,
}

/// A pause of a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause {
    /// Time of the announcement, by the caller's clock.
    pub(super) since: Duration,
    /// Time at which the pause counts as silence, by the own clock.
    pub(super) until: Duration,
}

/// Results of TCP probes.
#[derive(Debug, Default)]
pub(super) struct TcpProbe {
    pub(super) at: Option<Duration>,
    /// Time when any node last found its host accepting connections.
    pub(super) accepted: Option<Duration>,
    /// Consecutive probes without any reaction.
    pub(super) silent: u32,
    /// Consecutive refusals.
    pub(super) refused: u32,
    /// True if a refusal was wrong: a device on the path refuses connections. Refusals are ignored from then on.
    pub(super) unreliable: bool,
}

/// A series of indirect probes of one peer.
#[derive(Debug)]
pub(super) struct IndirectRound {
    /// Sequence number of the first request. Results of older requests are ignored.
    pub(super) first: u64,
    pub(super) asked: Duration,
    /// True if another node failed to reach the peer as well.
    pub(super) corroborated: bool,
}

/// Conclusion that a peer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conclusion {
    pub(super) cause: Cause,
    /// True if another node confirms it. Otherwise the fault may be this node's, and the peer is not declared gone.
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
            reach_since: at,
            rejoined: None,
            restart_announced: false,
            is_restored: false,
            pause: None,
            claimant: None,
            outdated_reported: None,
            activity: None,
            learned: at,
            acked: None,
            answered: at,
            unanswered: None,
            monitors_ahead: 0,
            indirect_probe: None,
            pinged: None,
            tcp_probe: TcpProbe::default(),
            indirect_round: None,
            due: at,
        }
    }

    /// Reports whether it pauses.
    pub(super) fn is_paused(&self, at: Duration) -> bool {
        self.pause.is_some_and(|pause| at < pause.until)
    }

    /// Ends a pause with an ack for a ping that was sent after its announcement had arrived everywhere.
    pub(super) fn end_pause(&mut self, sent: Duration) {
        self.pause.take_if(|pause| sent >= pause.since + IN_FLIGHT);
    }

    /// Reports whether it is assigned to this node, if it is a member.
    pub(super) fn is_target(&self) -> bool {
        self.monitors_ahead < MONITORS
    }

    /// Reports whether this node monitors it, if it is a member: until it answers if other nodes are assigned.
    pub(super) fn is_watched(&self) -> bool {
        self.is_target() || self.unanswered.is_some()
    }

    /// Reports whether it is a member without an unanswered ping.
    pub(super) fn may_be_watched(&self) -> bool {
        self.is_live() && self.unanswered.is_none()
    }

    /// Reports whether it takes part in monitoring.
    pub(super) fn is_live(&self) -> bool {
        self.reach.is_some_and(Reach::is_live)
    }

    /// Time of its last activity.
    pub(super) fn last_activity(&self) -> Duration {
        self.activity.map_or(self.learned, |(_, last)| last)
    }

    /// Time of its last sign of life.
    pub(super) fn last_seen(&self) -> Duration {
        self.last_activity().max(self.answered)
    }

    /// Records a frame.
    pub(super) fn note_activity(&mut self, at: Duration, timing: &Timing) {
        let first = match self.activity {
            Some((first, last)) if at.saturating_sub(last) < timing.inactive => first,
            _ => at,
        };
        self.activity = Some((first, at));
    }

    /// Records an ack to this node or to another one.
    pub(super) fn note_answer(&mut self, at: Duration) {
        self.answered = at;
        self.unanswered = None;
        self.indirect_round = None;
        self.tcp_probe.silent = 0;
        self.tcp_probe.refused = 0;
    }

    /// Reports whether the last ping was acked, if there was one.
    pub(super) fn has_acked(&self) -> bool {
        self.acked.is_some_and(|acked| self.pinged.is_none_or(|pinged| acked >= pinged))
    }

    /// Reports whether the ping of this round is due.
    pub(super) fn is_due(&self, round: Duration, at: Duration) -> bool {
        at >= round && self.pinged.is_none_or(|pinged| pinged < round)
    }

    /// Reports whether this time has passed since the last ping. Half a step of tolerance for the granularity of ticks.
    pub(super) fn pinged_before(&self, pause: Duration, at: Duration, timing: &Timing) -> bool {
        self.pinged.is_none_or(|pinged| at + timing.step / 2 >= pinged + pause)
    }

    /// Interval between unanswered pings.
    pub(super) fn retry(&self, timing: &Timing) -> Duration {
        if self.is_target() { timing.retry } else { timing.interval }
    }

    /// Reports whether a TCP probe is due.
    pub(super) fn wants_tcp_probe(&self, at: Duration, timing: &Timing) -> bool {
        self.silence(at, timing) >= timing.tcp_probe
            && self.tcp_probe.at.is_none_or(|last| at + timing.step / 2 >= last + timing.tcp_probe_again)
    }

    /// Time since the first unanswered ping.
    pub(super) fn unanswered_for(&self, at: Duration) -> Duration {
        self.unanswered.map_or(Duration::ZERO, |since| at.saturating_sub(since))
    }

    /// Time without any sign of life since the first unanswered ping.
    pub(super) fn quiet_for(&self, at: Duration) -> Duration {
        self.unanswered_for(at).min(at.saturating_sub(self.last_seen()))
    }

    /// Silence that this node acts upon: the monitors of the peer come first.
    pub(super) fn silence(&self, at: Duration, timing: &Timing) -> Duration {
        let precedence = if self.is_target() { Duration::ZERO } else { timing.precedence };
        self.unanswered_for(at).saturating_sub(precedence)
    }

    /// Returns the conclusion that the evidence permits, if any.
    pub(super) fn conclusion(&self, at: Duration, timing: &Timing) -> Option<Conclusion> {
        let silence = self.silence(at, timing);
        let corroborated = self.indirect_round.as_ref().is_some_and(|round| round.corroborated);
        let least = if corroborated { timing.silent } else { timing.uncorroborated };
        if silence < least {
            return None;
        }
        let accepts = self.tcp_probe.accepted.is_some_and(|accepted| at.saturating_sub(accepted) < timing.fading);
        // A peer with activity long after its last ack receives nothing, so it holds its own peers and rarely sends. It is
        // unreachable, not silent.
        let one_way = self.unanswered.is_some_and(|since| self.last_activity() >= since + timing.silent);
        if at.saturating_sub(self.last_activity()) < if one_way { timing.inactive } else { timing.fading } {
            // Activity that has just resumed means that the process was stopped; its acks will follow.
            let awake = self.activity.map_or(Duration::ZERO, |(first, _)| at.saturating_sub(first));
            // Connections arrive, so the path is whole: the agent is overloaded.
            let least = if accepts { timing.unresponsive } else { timing.unreachable };
            let enough = silence >= least && awake >= timing.fading;
            return enough.then_some(Conclusion { cause: Cause::Unreachable, corroborated });
        }
        if accepts {
            return (silence >= timing.unresponsive).then_some(Conclusion { cause: Cause::Unresponsive, corroborated });
        }
        (self.tcp_probe.silent >= SILENT_TCP_PROBES || self.tcp_probe.unreliable)
            .then_some(Conclusion { cause: Cause::Silent, corroborated })
    }

    /// Reports whether an ack proves life after the last change of `reach`: its ping was sent later, by the caller's clock.
    pub(super) fn acked_since(&self, sent: Duration) -> bool {
        sent >= self.since
    }

    /// Pause before the next ping to a peer that is not a member.
    pub(super) fn retry_pause(&self, at: Duration, timing: &Timing) -> Duration {
        let new = self.reach.is_none() && at.saturating_sub(self.reach_since) < timing.fading;
        match self.reach {
            Some(Reach::Held | Reach::Restarting) => super::timing::HELD_PING,
            _ if new => timing.retry,
            _ => GONE_PING,
        }
    }
}
