//! The failure detector: SWIM with TCP fallback probes, corroboration, and a hold for common losses.
//!
//! Gossip spreads heartbeats, which is cheap but slow: silence is significant only after a second or two. So each node is
//! also monitored by [`MONITORS`](rendezvous::MONITORS) others, which all nodes compute without communication
//! (`rendezvous`). Course of a detection at the default interval of 200 ms:
//!
//! ```text
//! pings ──0.4 s──► TCP fallback probe of the gossip port
//!   ▲               │   refused, twice: the process has ended ───────────────────────────────► gone: Refused
//!   │               │   accepted: stopped, perhaps ── no ack for 5 s ────────────────────────► gone: Unresponsive
//!   │               ▼
//!   │     ──0.6 s──► indirect probes by three others, each interval by three more
//!   └───────────────┤   one gets an ack: only the direct path is broken
//!                   │   none, no ack for 1.4 s, no heartbeat for 1 s, no TCP accept ─────────► gone: Silent
//!                   │   none for 3 s, although heartbeats arrive; 5 s if TCP accepts ─────────► gone: Unreachable
//!                   │   no other prober for 2 s, or more than half of all peers silent ──────► held
//! ```
//!
//! No node is declared gone on the evidence of one node, except by a refusal of its own host: another node has to fail to
//! reach it as well. So an isolated node declares no peer gone. It holds its peers: their instances are answered as stale
//! for a bounded time.
//!
//! A node that declares a peer gone broadcasts it. All others accept the broadcast unless it contradicts recent evidence:
//! a node that had an ack from the peer just now, or has just seen it return, monitors the peer itself. The peer refutes
//! by sending frames. A peer returns when a frame arrives that was sent after its loss, when it acks a later ping, when its
//! heartbeat keeps rising, or as a new run.
//!
//! A peer known only from gossip becomes a member with the first sign of life, since gossip lists dead nodes as well.
//!
//! The detector's own clock does not advance while this process is stalled, so that a stalled node blames no peer. Work is
//! bounded: each peer has one entry in an agenda ordered by time, and a tick processes at most [`MAX_PROBES_PER_TICK`]
//! entries. The number of messages per node does not grow with the cluster. Memory is bounded by [`MAX_PEERS`].

mod action;
mod indirect_probe;
mod pause;
mod peer;
mod probe;
mod reachability;
mod rendezvous;
mod reports;
mod runs;
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
    timing::{BOOTING, DOUBTED, HELD_PING, IN_FLIGHT, RESTART_ABORTED, Timing},
};
use crate::model::{
    member::{Cause, PeerId, Reach},
    name::Label,
};

/// Largest number of known peers, those that are gone included. chitchat's own digest holds some 4,000.
pub const MAX_PEERS: usize = 4096;

/// Largest number of peers probed in one tick, each by at most one ping, one TCP probe and three indirect probes.
pub const MAX_PROBES_PER_TICK: usize = 128;

/// Largest number of dead broadcasts in progress, and of indirect probes for other nodes. The excess is dropped: other
/// nodes broadcast and probe as well.
const MAX_PENDING: usize = 64;

/// Transmissions of each dead broadcast and refutation: three may get lost.
const TRANSMISSIONS: u32 = 4;

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
    /// Time of the last tick, and the total time of stalls: both determine the own clock.
    ticked: Option<Duration>,
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
            ticked: None,
            stalled: Duration::ZERO,
        }
    }

    /// Records a gossiped heartbeat of this run.
    pub fn heartbeat(&mut self, id: &PeerId, heartbeat: u64, now: Duration) {
        let at = self.advance_clock(now);
        let timing = self.timing;
        let Some(peer) = self.run(id) else { return };
        if heartbeat <= peer.heartbeat {
            return;
        }
        peer.heartbeat = heartbeat;
        let rising = peer.note_activity(at, &timing);
        match peer.reach {
            // Heartbeats of an unreachable peer keep arriving; only an ack proves that it receives.
            Some(Reach::Alive | Reach::Suspect | Reach::Gone(Cause::Left | Cause::Unreachable)) => {}
            None | Some(Reach::Held | Reach::Gone(_)) if rising => self.mark_alive(&id.name, now, at),
            None | Some(Reach::Held | Reach::Restarting | Reach::Gone(_)) => {}
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
                let doubtful = peer.is_live() && peer.silence(at) < timing.tcp_probe;
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

    /// Advances time. To be called four times per gossip interval.
    pub fn tick(&mut self, now: Duration) {
        let at = self.advance_clock(now);
        self.ticked = Some(now);
        for _ in 0..MAX_PROBES_PER_TICK {
            let Some((_, name)) = self.agenda.first().filter(|(due, _)| *due <= at).cloned() else { break };
            self.probe(&name, now, at);
        }
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
        let gap = now.saturating_sub(*self.ticked.get_or_insert(now));
        if gap > self.timing.stall {
            self.stalled += gap;
            self.ticked = Some(now);
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
