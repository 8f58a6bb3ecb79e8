//! The failure detector: SWIM with TCP fallback probes, corroboration, and a hold for common losses.
//!
//! Each node is monitored by [`MONITORS`](rendezvous::MONITORS) others, which all nodes compute without communication
//! (`rendezvous`). Each pings all its targets at once, about twice a second. The silence of a target starts with the first ping
//! that it does not ack. Course of a detection at the default interval of 200 ms, in time of silence:
//!
//! ```text
//! ping ──0.2 s──► TCP fallback probe of the gossip port
//!   ▲               │   refused, twice: the process has ended ───────────────────────────────► gone: Refused
//!   │               │   accepted: stopped, perhaps ── no ack for 5 s ────────────────────────► gone: Unresponsive
//!   │               ▼
//!   │     ──0.4 s──► indirect probes by three others, each interval by three more
//!   └───────────────┤   one gets an ack: only the direct path is broken
//!                   ▼
//!         ──0.6 s──► suspect; survey: a ping to each member without a recent sign of life
//!                   │   no ack for 1.2 s, no frame for 1 s, no TCP accept ───────────────────► gone: Silent
//!                   │   no ack for 3 s, although it sends; 5 s if TCP accepts ───────────────► gone: Unreachable
//!                   │   no other prober for 1.8 s, or more than half of all peers silent ────► held
//! ```
//!
//! No node is declared gone on the evidence of one node, except by a refusal of its own host: another node has to fail to
//! reach it as well. So an isolated node declares no peer gone. It holds its peers: their instances are answered as stale
//! for a bounded time. The survey (`survey`) shows whether the loss is one of many.
//!
//! A node that declares a peer gone broadcasts it. All others accept the broadcast unless it contradicts recent evidence:
//! a node that had an ack from the peer just now, or has just seen it return, monitors the peer itself. The peer refutes
//! by sending frames. A peer returns when a frame arrives that was sent after its loss, when it acks a later ping, or as a
//! new run. A background ping of one random member a second finds a dead peer whose dead broadcasts were lost.
//!
//! A peer known only from gossip becomes a member with the first sign of life, since gossip lists dead nodes as well.
//!
//! The detector's own clock does not advance while this process is stalled, so that a stalled node blames no peer. A node
//! sleeps until [`Liveness::due`]. Work is bounded: each peer has at most one entry in an agenda ordered by time, and a tick
//! processes at most [`MAX_PROBES_PER_TICK`] entries. At rest, neither work nor messages grow with the cluster. Memory is
//! bounded by [`MAX_PEERS`].

mod action;
mod indirect_probe;
mod pause;
mod peer;
mod probe;
mod reachability;
mod rendezvous;
mod reports;
mod runs;
mod survey;
mod timing;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

pub use self::action::{Action, Dead, IndirectProbeResult, TcpProbeResult};

use self::{
    indirect_probe::IndirectProbe,
    peer::Peer,
    survey::Survey,
    timing::{BOOTING, DOUBTED, HELD_PING, IN_FLIGHT, RESTART_ABORTED, Timing},
};
use crate::model::{
    member::{Cause, PeerId, Reach},
    name::Label,
};

/// Largest number of known peers, those that are gone included. chitchat's own digest holds some 4,000.
pub const MAX_PEERS: usize = 4096;

/// Largest number of peers probed in one tick, each by at most one ping, one TCP probe and three indirect probes; and of pings
/// of a survey in one tick.
pub const MAX_PROBES_PER_TICK: usize = 128;

/// Largest number of dead broadcasts in progress, and of indirect probes for other nodes. The excess is dropped: other
/// nodes broadcast and probe as well.
const MAX_PENDING: usize = 64;

/// Transmissions of each dead broadcast and refutation, within half a second. At 20 % loss, one node of 15,000 misses all.
const TRANSMISSIONS: u32 = 6;

/// Settings of the failure detector.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Gossip interval, from which most times follow.
    pub interval: Duration,
    /// Time that peers lost together are held.
    pub hold: Duration,
    /// Time that a peer that announced a restart is expected back.
    pub restart_hold: Duration,
}

/// State of a peer, as returned by [`Liveness::peers`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerState {
    /// Run of the node.
    pub id: PeerId,
    /// Gossip address.
    pub address: SocketAddr,
    /// Reachability.
    pub reach: Reach,
    /// Time of the last change of `reach`, by the clock of `now`.
    pub since: Duration,
}

/// The failure detector of one node. `now` is the time since a fixed moment by a monotonic clock, in all methods. Unknown
/// and invalid inputs are ignored.
#[derive(Debug)]
pub struct Liveness {
    own: PeerId,
    /// Hash of the own name.
    key: u64,
    timing: Timing,
    hold: Duration,
    restart_hold: Duration,
    random: fastrand::Rng,
    peers: BTreeMap<Label, Peer>,
    /// Time of the next pings of the targets that have acked the last ones.
    round: Duration,
    /// Time of each peer's next probe.
    agenda: BTreeSet<(Duration, Label)>,
    /// Live members in no order, for random selection.
    members: Vec<Label>,
    /// Number of held peers.
    held: usize,
    partitioned: Option<Duration>,
    /// Time until which a partition is not reported, since restored peers have not had time to respond.
    starting: Option<Duration>,
    /// Time when peers were last held or returned from a hold, by the own clock.
    last_held: Duration,
    indirect_probes: Vec<IndirectProbe>,
    /// Own dead broadcasts that are still repeated.
    dead_broadcasts: Vec<Repeat<Dead>>,
    refute: Option<Repeat<()>>,
    /// First and last time of current reports by peers against this node, by the caller's clock.
    doubted: Option<(Duration, Duration)>,
    actions: Vec<Action>,
    changed: bool,
    survey: Survey,
    /// Time of the last tick, and of the last call, by the caller's clock.
    ticked: Duration,
    called: Option<Duration>,
    /// Total time of stalls, which the own clock excludes.
    stalled: Duration,
}

/// A message that is sent several times.
#[derive(Debug)]
struct Repeat<T> {
    payload: T,
    next: Duration,
    left: u32,
}

impl Liveness {
    /// Creates a detector without peers. `random` selects nodes for indirect probes and spreads pings.
    pub fn new(own: PeerId, settings: Settings, random: fastrand::Rng) -> Self {
        Self {
            key: rendezvous::key(&own.name),
            own,
            timing: Timing::new(settings.interval),
            hold: settings.hold,
            restart_hold: settings.restart_hold,
            random,
            peers: BTreeMap::new(),
            round: Duration::ZERO,
            agenda: BTreeSet::new(),
            members: vec![],
            held: 0,
            partitioned: None,
            starting: None,
            last_held: Duration::ZERO,
            indirect_probes: vec![],
            dead_broadcasts: vec![],
            refute: None,
            doubted: None,
            actions: vec![],
            changed: false,
            survey: Survey::default(),
            ticked: Duration::ZERO,
            called: None,
            stalled: Duration::ZERO,
        }
    }

    /// Records a frame received from this run, shortly after it was sent.
    pub fn heard(&mut self, id: &PeerId, now: Duration) {
        let at = self.advance_clock(now);
        let timing = self.timing;
        let Some(peer) = self.run(id) else { return };
        peer.note_activity(at, &timing);
        let returns = match peer.reach {
            Some(Reach::Alive | Reach::Suspect | Reach::Gone(Cause::Left | Cause::Unreachable)) => false,
            Some(Reach::Gone(_)) => now >= peer.since + IN_FLIGHT,
            Some(Reach::Restarting) => now >= peer.since + RESTART_ABORTED,
            None | Some(Reach::Held) => true,
        };
        // An unreachable peer that sends may receive again; only an ack proves that.
        let asks = peer.reach == Some(Reach::Gone(Cause::Unreachable))
            && peer.pinged.is_none_or(|pinged| at >= pinged + HELD_PING);
        if returns {
            self.mark_alive(&id.name, now, at);
        }
        if asks {
            self.ping(&id.name, now, at);
        }
    }

    /// Records an ack by this run for a ping with this sequence number. Also counts as [`heard`](Self::heard).
    pub fn acked(&mut self, id: &PeerId, sequence: u64, now: Duration) {
        let at = self.advance_clock(now);
        // A sequence number is the time of its ping: see `sequence`.
        let sent = Duration::from_micros(sequence);
        if self.doubted.take_if(|(_, last)| sent <= now && sent >= *last + DOUBTED).is_some() {
            self.changed = true;
        }
        let timing = self.timing;
        let Some(peer) = self.run(id).filter(|_| sent <= now) else { return };
        match peer.reach {
            Some(Reach::Gone(Cause::Left)) => return,
            Some(Reach::Gone(_)) if !peer.acked_since(sent) => return,
            Some(Reach::Restarting) if now < peer.since + RESTART_ABORTED => return,
            _ => {}
        }
        peer.note_activity(at, &timing);
        peer.acked = Some(at);
        peer.end_pause(sent);
        peer.note_answer(at);
        if let Some(claimant) = peer.claimant.as_mut().filter(|claimant| !claimant.reported && sent >= claimant.since) {
            claimant.reported = true;
            let newcomer = PeerId { name: id.name.clone(), generation: claimant.generation };
            let (from, address) = (claimant.address, peer.address);
            self.actions.push(Action::Conflict { incumbent: id.clone(), address, newcomer, from });
        }
        self.answered(&id.name, now, at);
        self.finish_indirect_probe(&id.name, IndirectProbeResult::Acked);
        self.rest(&id.name);
    }

    /// Records the result of an indirect probe of `target` by `by`.
    pub fn indirect_result(
        &mut self,
        by: &PeerId,
        target: &PeerId,
        sequence: u64,
        result: IndirectProbeResult,
        now: Duration,
    ) {
        let at = self.advance_clock(now);
        if by.name == target.name || !self.run(by).is_some_and(|by| by.is_live()) {
            return;
        }
        let Some(peer) = self.run(target).filter(|peer| peer.is_live()) else { return };
        let Some(round) = peer.indirect_round.as_mut().filter(|round| sequence >= round.first) else { return };
        match result {
            IndirectProbeResult::Acked => {
                peer.note_answer(at);
                self.answered(&target.name, now, at);
            }
            IndirectProbeResult::TcpOnly => {
                round.corroborated = true;
                peer.tcp_probe.accepted = Some(at);
            }
            IndirectProbeResult::Unreachable => round.corroborated = true,
        }
    }

    /// Records the result of a TCP probe of this run.
    pub fn tcp_probed(&mut self, id: &PeerId, result: TcpProbeResult, now: Duration) {
        let at = self.advance_clock(now);
        let (timing, alone) = (self.timing, self.members.is_empty());
        let Some(peer) = self.run(id) else { return };
        match result {
            TcpProbeResult::Accepted => {
                peer.tcp_probe.accepted = Some(at);
                peer.tcp_probe.silent = 0;
                peer.tcp_probe.refused = 0;
            }
            TcpProbeResult::Silent => {
                peer.tcp_probe.silent += 1;
                peer.tcp_probe.refused = 0;
            }
            TcpProbeResult::Refused => {
                // Hosts that boot together start their agents within moments. A node that no peer has answered yet cannot know.
                if peer.is_restored && (alone || at < peer.learned + BOOTING) {
                    peer.tcp_probe.at = None;
                    return;
                }
                let doubtful = peer.is_live() && peer.unanswered_for(at) < timing.tcp_probe;
                let settled = matches!(peer.reach, None | Some(Reach::Restarting | Reach::Gone(_)));
                if peer.tcp_probe.unreliable || doubtful || settled {
                    return;
                }
                peer.tcp_probe.refused += 1;
                if peer.tcp_probe.refused < 2 {
                    self.tcp_probe(&id.name, at);
                } else {
                    self.declare_gone(&id.name, Cause::Refused, now, at);
                }
            }
        }
    }

    /// Returns the time by the caller's clock at which [`tick`](Self::tick) next has work, at least 50 ms (at the default
    /// interval) after the last tick, so that nearby work is done together. `None` while there is nothing to wait for. Every
    /// input may change it.
    pub fn due(&self) -> Option<Duration> {
        let broadcasts = self.dead_broadcasts.iter().map(|broadcast| broadcast.next);
        let others = [
            self.agenda.first().map(|(due, _)| *due),
            self.survey_due(),
            self.refute.as_ref().map(|refute| refute.next),
            self.starting,
        ];
        let own = others.into_iter().flatten().chain(broadcasts).min()?;
        Some((own + self.stalled).max(self.ticked + self.timing.step))
    }

    /// Does the work that is due. To be called at the time that [`due`](Self::due) returns; earlier or more frequent calls do
    /// no harm. A call that is late by more than three gossip intervals is taken for a stall of this process.
    pub fn tick(&mut self, now: Duration) {
        let at = self.advance_clock(now);
        self.ticked = now;
        for _ in 0..MAX_PROBES_PER_TICK {
            let Some((_, name)) = self.agenda.first().filter(|(due, _)| *due <= at).cloned() else { break };
            self.probe(&name, now, at);
        }
        self.run_survey(now, at);
        self.repeat(at);
        if self.starting.take_if(|until| at >= *until).is_some() {
            self.changed |= self.partitioned.is_some();
        }
    }

    /// Takes the actions to carry out.
    pub fn actions(&mut self) -> impl Iterator<Item = Action> + '_ {
        self.actions.drain(..)
    }

    /// Returns all members and the remembered peers that are gone, sorted by name, without this node.
    pub fn peers(&self) -> impl Iterator<Item = PeerState> + '_ {
        self.peers.iter().filter_map(|(name, peer)| {
            let id = PeerId { name: name.clone(), generation: peer.generation };
            Some(PeerState { id, address: peer.address, reach: peer.reach?, since: peer.since })
        })
    }

    /// Returns the reachability of a run; `None` if another run of its node counts, or no run is known. The inner `None` means
    /// that the run is known from gossip only, without a sign of life.
    pub fn reach(&self, id: &PeerId) -> Option<Option<Reach>> {
        self.peers.get(&id.name).filter(|peer| peer.generation == id.generation).map(|peer| peer.reach)
    }

    /// Reports whether [`peers`](Self::peers), [`partitioned`](Self::partitioned) or [`doubted`](Self::doubted) changed since the last call.
    pub fn changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Time since when more than half of the peers are held, if they are and have had the time to respond.
    pub fn partitioned(&self) -> Option<Duration> {
        self.partitioned.filter(|_| self.starting.is_none())
    }

    /// Returns the own clock, which excludes stalls, so that a stall does not count as waiting.
    fn advance_clock(&mut self, now: Duration) -> Duration {
        let called = self.called.replace(now).unwrap_or(now);
        // Sleep until the next work is no stall.
        let late = self.due().map_or(Duration::ZERO, |due| now.saturating_sub(due.max(called)));
        if late > self.timing.stall {
            self.stalled += late;
        }
        now.saturating_sub(self.stalled)
    }

    /// Returns the peer if its current run is this one.
    fn run(&mut self, id: &PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(&id.name).filter(|peer| peer.generation == id.generation)
    }
}

/// Sequence number of a message sent now: its time in microseconds. An echo identifies its request this way, without
/// stored state.
fn sequence(now: Duration) -> u64 {
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
