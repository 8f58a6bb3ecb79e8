//! Who is there: the failure detector.
//!
//! Gossip tells a node's heartbeat to all others, which is cheap and slow: silence means something only after a second or
//! two. So each node is also watched by [`MONITORS`](rendezvous::MONITORS) others, which all nodes know without asking
//! (`rendezvous`). What follows when a watched peer stops answering, at the default interval of 200 ms:
//!
//! ```text
//! pings ──0.4 s──► knock: a TCP connection to its port
//!   ▲               │   refused, twice: the process has ended ───────────────────────────────► gone: Refused
//!   │               │   accepted: stopped, perhaps ── nothing else for 5 s ──────────────────► gone: Hung
//!   │               ▼
//!   │     ──0.6 s──► ask three others, each interval three more
//!   └───────────────┤   one reaches it: only our way to it is broken
//!                   │   none does, no answer for 1.4 s, no heartbeat for 1 s, no knock taken ► gone: Silent
//!                   │   none does for 3 s, though its heartbeats come ───────────────────────► gone: Deaf
//!                   │   nobody there to ask for 2 s, or more than half of all peers silent ──► held
//! ```
//!
//! Nobody is gone on the word of one: a refusal is the word of the peer's own host; everything else needs a second node
//! that cannot reach the peer either. So a node that is cut off declares nobody gone. It holds them: their instances are
//! answered as stale for a bounded time.
//!
//! Who finds a peer gone announces it, and everybody takes it, except from news that contradict their own: whoever had an
//! answer of that peer just now, or has just taken it back, watches it himself. The one concerned refutes by being heard.
//! A peer comes back when a frame of it arrives that was not under way at the verdict, when it acks a ping sent after it,
//! when its heartbeat goes on rising, or as a new run.
//!
//! A peer that was only ever mentioned is no member until there is a sign of life: gossip mentions the dead as well.
//!
//! The clock that things are waited for with stands still while this process does not tick, so that a node that was
//! stalled blames nobody for it. Work is bounded: each peer has one place in an agenda ordered by time, and a tick takes
//! at most [`MAX_LOOKS`] from it. Messages per node do not grow with the cluster. Memory is bounded by [`MAX_PEERS`].

mod action;
mod indirect_probe;
mod membership;
mod peer;
mod probe;
mod rendezvous;
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

pub use self::action::{Action, Finding, TcpProbeResult, Verdict};

use self::{
    indirect_probe::IndirectProbe,
    membership::Judgement,
    peer::{Peer, Rival},
    timing::{HELD_PING, IN_FLIGHT, Timing},
};
use crate::model::{
    member::{Cause, PeerId, Reach},
    name::Label,
};

/// Peers that are known at once, those that are gone included. Chitchat's own digest holds some 4,000.
pub const MAX_PEERS: usize = 4096;

/// Peers that one tick looks at. Each look makes one ping, one knock and three questions at most.
pub const MAX_LOOKS: usize = 128;

/// Verdicts that are being repeated, and requests of others that are under way. What is more is dropped: others have
/// the same news, and who asked us asked others too.
const MAX_PENDING: usize = 64;

/// How often a verdict, or our word against one, is sent: three may get lost.
const TIMES: u32 = 4;

/// What the operator may set.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The gossip interval, from which most times follow.
    pub interval: Duration,
    /// How long peers are held that were lost together.
    pub hold: Duration,
}

/// A peer as [`Liveness::peers`] shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerState {
    /// Which run of which node.
    pub id: PeerId,
    /// Where it gossips.
    pub address: SocketAddr,
    /// How it stands.
    pub reach: Reach,
    /// When it came to stand so, by the clock that the caller passes as `now`.
    pub since: Duration,
}

/// The failure detector of one node. `now` is everywhere the time since some fixed moment, by a clock that never goes
/// back; what is wrong or unknown in an input is ignored.
#[derive(Debug)]
pub struct Liveness {
    own: PeerId,
    /// Our name as a number.
    key: u64,
    timing: Timing,
    hold: Duration,
    random: fastrand::Rng,
    peers: BTreeMap<Label, Peer>,
    /// When each peer is looked at next.
    agenda: BTreeSet<(Duration, Label)>,
    /// The members, in no order: to choose from.
    members: Vec<Label>,
    /// How many are held.
    held: usize,
    partitioned: Option<Duration>,
    /// When peers were last held, or came back from it, by our own clock.
    united: Duration,
    errands: Vec<IndirectProbe>,
    /// Verdicts of ours that are still repeated.
    rumours: Vec<Repeat<Verdict>>,
    refute: Option<Repeat<()>>,
    actions: Vec<Action>,
    changed: bool,
    /// The last tick, and how long we were stalled altogether: together our own clock.
    ticked: Option<Duration>,
    stalled: Duration,
}

/// Something that is sent several times.
#[derive(Debug)]
struct Repeat<T> {
    what: T,
    next: Duration,
    left: u32,
}

impl Liveness {
    /// Knows nobody yet. `random` chooses whom to ask and spreads pings.
    pub fn new(own: PeerId, settings: Settings, random: fastrand::Rng) -> Self {
        Self {
            key: rendezvous::key(&own.name),
            own,
            timing: Timing::new(settings.interval),
            hold: settings.hold,
            random,
            peers: BTreeMap::new(),
            agenda: BTreeSet::new(),
            members: vec![],
            held: 0,
            partitioned: None,
            united: Duration::ZERO,
            errands: vec![],
            rumours: vec![],
            refute: None,
            actions: vec![],
            changed: false,
            ticked: None,
            stalled: Duration::ZERO,
        }
    }

    /// Gossip mentions this run of a node. A new name is no member before there is a sign of life. A higher generation
    /// takes the place of a lower one at the same address, or where that one is gone or held; elsewhere it is ignored
    /// as long as the other lives. That one is asked whether it does: a node may have crashed and moved before anybody
    /// noticed. If it answers, see [`Action::Conflict`]. Lower generations are ignored.
    pub fn learn(&mut self, id: &PeerId, address: SocketAddr, now: Duration) {
        let at = self.wake(now);
        if id.name == self.own.name {
            return;
        }
        let Some(known) = self.peers.get_mut(&id.name) else {
            if self.make_room() {
                self.meet(id, address, None, now, at);
            }
            return;
        };
        if id.generation <= known.generation {
            return;
        }
        if known.is_live() && known.address != address {
            let rival = known.rival.as_ref();
            if rival.is_none_or(|rival| (rival.generation, rival.address) != (id.generation, address)) {
                // As the ping has it, in whole microseconds.
                let since = Duration::from_micros(sequence(now));
                known.rival = Some(Rival { generation: id.generation, address, since, told: false });
                self.ping(&id.name, now, at);
            }
            return;
        }
        let reach = known.reach.map(|_| Reach::Alive);
        self.forget(&id.name, now, at);
        self.meet(id, address, reach, now, at);
    }

    /// Gossip has a heartbeat of this run.
    pub fn heartbeat(&mut self, id: &PeerId, heartbeat: u64, now: Duration) {
        let at = self.wake(now);
        let timing = self.timing;
        let Some(peer) = self.run(id) else { return };
        if heartbeat <= peer.heartbeat {
            return;
        }
        peer.heartbeat = heartbeat;
        let rising = peer.stir(at, &timing);
        match peer.reach {
            // One that is deaf has heartbeats.
            Some(Reach::Alive | Reach::Suspect | Reach::Gone(Cause::Left | Cause::Deaf)) => {}
            None | Some(Reach::Held | Reach::Gone(_)) if rising => self.welcome(&id.name, now, at),
            None | Some(Reach::Held | Reach::Gone(_)) => {}
        }
    }

    /// A frame came from this run itself, not long after it was sent.
    pub fn heard(&mut self, id: &PeerId, now: Duration) {
        let at = self.wake(now);
        let timing = self.timing;
        let Some(peer) = self.run(id) else { return };
        peer.stir(at, &timing);
        let returns = match peer.reach {
            Some(Reach::Alive | Reach::Suspect | Reach::Gone(Cause::Left | Cause::Deaf)) => false,
            Some(Reach::Gone(_)) => now >= peer.since + IN_FLIGHT,
            None | Some(Reach::Held) => true,
        };
        // One that was deaf and speaks may hear again: only its ack tells.
        let asks =
            peer.reach == Some(Reach::Gone(Cause::Deaf)) && peer.pinged.is_none_or(|pinged| at >= pinged + HELD_PING);
        if returns {
            self.welcome(&id.name, now, at);
        }
        if asks {
            self.ping(&id.name, now, at);
        }
    }

    /// This run acked a ping with this sequence. Also counts as [`heard`](Self::heard).
    pub fn acked(&mut self, id: &PeerId, sequence: u64, now: Duration) {
        let at = self.wake(now);
        // A sequence is the time of its ping: see `sequence`.
        let sent = Duration::from_micros(sequence);
        let timing = self.timing;
        let Some(peer) = self.run(id).filter(|_| sent <= now) else { return };
        match peer.reach {
            Some(Reach::Gone(Cause::Left)) => return,
            Some(Reach::Gone(_)) if !peer.lives_since(sent) => return,
            _ => {}
        }
        peer.stir(at, &timing);
        peer.acked = Some(at);
        peer.answer(at);
        if let Some(rival) = peer.rival.as_mut().filter(|rival| !rival.told && sent >= rival.since) {
            rival.told = true;
            let newcomer = PeerId { name: id.name.clone(), generation: rival.generation };
            let (from, address) = (rival.address, peer.address);
            self.actions.push(Action::Conflict { incumbent: id.clone(), address, newcomer, from });
        }
        self.answered(&id.name, now, at);
        self.fulfil(&id.name, Finding::Answers);
    }

    /// `by`, whom we asked, tells what it found of `target`.
    pub fn told(&mut self, by: &PeerId, target: &PeerId, sequence: u64, finding: Finding, now: Duration) {
        let at = self.wake(now);
        if by.name == target.name || !self.run(by).is_some_and(|by| by.is_live()) {
            return;
        }
        let Some(peer) = self.run(target).filter(|peer| peer.is_live()) else { return };
        let Some(inquiry) = peer.inquiry.as_mut().filter(|inquiry| sequence >= inquiry.first) else { return };
        match finding {
            Finding::Answers => {
                peer.answer(at);
                self.answered(&target.name, now, at);
            }
            Finding::Listens => {
                inquiry.corroborated = true;
                peer.knock.accepted = Some(at);
            }
            Finding::Nothing => inquiry.corroborated = true,
        }
    }

    /// How knocking at this run's port went.
    pub fn knocked(&mut self, id: &PeerId, knock: TcpProbeResult, now: Duration) {
        let at = self.wake(now);
        let timing = self.timing;
        let Some(peer) = self.run(id) else { return };
        match knock {
            TcpProbeResult::Accepted => {
                peer.knock.accepted = Some(at);
                peer.knock.silent = 0;
                peer.knock.refused = 0;
            }
            TcpProbeResult::Silent => {
                peer.knock.silent += 1;
                peer.knock.refused = 0;
            }
            TcpProbeResult::Refused => {
                let doubtful = peer.is_live() && peer.silence(at) < timing.knock;
                if peer.knock.misled || doubtful || matches!(peer.reach, None | Some(Reach::Gone(_))) {
                    return;
                }
                peer.knock.refused += 1;
                if peer.knock.refused < 2 {
                    self.knock(&id.name, at);
                } else {
                    self.find(&id.name, Cause::Refused, now, at);
                }
            }
        }
    }

    /// Another node announces a verdict.
    pub fn verdict(&mut self, verdict: &Verdict, now: Duration) {
        let at = self.wake(now);
        let Verdict { subject, cause } = verdict;
        if *subject == self.own {
            // Whoever has the verdict takes no frame for an answer that was under way when it came.
            let next = at + 2 * IN_FLIGHT;
            self.refute.get_or_insert(Repeat { what: (), next, left: TIMES });
            return;
        }
        let timing = self.timing;
        let Some(peer) = self.run(subject) else { return };
        match (peer.reach, cause) {
            (_, Cause::Left) => return self.left(subject, now),
            // Who lives for us is not forgotten on an order that was given elsewhere.
            (Some(Reach::Held | Reach::Gone(_)), Cause::Dismissed) if peer.reach != Some(Reach::Gone(Cause::Left)) => {
                return self.stand(&subject.name, Reach::Gone(Cause::Dismissed), now, at);
            }
            (_, Cause::Dismissed) => return,
            (None | Some(Reach::Gone(_)), _) | (_, Cause::Expired) => return,
            _ => {}
        }
        let recent = |time: Option<Duration>, within| time.is_some_and(|time| at.saturating_sub(time) < within);
        // A refusal is found at once, other causes after a second and more: such news is old if it answers us still, as
        // when a split heals just after the verdict.
        let answers = if *cause == Cause::Refused { timing.again } else { timing.knock };
        let contradicted = recent(peer.acked, answers) || recent(peer.returned, timing.fading);
        if !contradicted && self.judge(&subject.name, *cause, now, at) != Judgement::Unclear {
            return;
        }
        if let Some(peer) = self.run(subject).filter(|peer| peer.is_live()) {
            peer.doubted = Some(at);
            self.schedule(&subject.name, at);
        }
    }

    /// An operator wants a peer forgotten that is gone or held: so it is, here and everywhere. It is one again as soon as it
    /// gives a sign of life.
    ///
    /// # Errors
    /// How it stands, where it lives; `None` where it is no member.
    pub fn dismiss(&mut self, name: &Label, now: Duration) -> Result<(), Option<Reach>> {
        let at = self.wake(now);
        let Some(peer) = self.peers.get(name) else { return Err(None) };
        match peer.reach {
            None => Err(None),
            Some(reach @ (Reach::Alive | Reach::Suspect)) => Err(Some(reach)),
            Some(Reach::Gone(Cause::Left)) => Ok(()),
            Some(Reach::Held | Reach::Gone(_)) => {
                let subject = PeerId { name: name.clone(), generation: peer.generation };
                self.stand(name, Reach::Gone(Cause::Dismissed), now, at);
                self.announce(Verdict { subject, cause: Cause::Dismissed }, at);
                Ok(())
            }
        }
    }

    /// This run says that it leaves.
    pub fn left(&mut self, id: &PeerId, now: Duration) {
        let at = self.wake(now);
        let Some(peer) = self.run(id) else { return };
        match peer.reach {
            None => self.forget(&id.name, now, at),
            Some(Reach::Gone(Cause::Left)) => {}
            Some(_) => self.stand(&id.name, Reach::Gone(Cause::Left), now, at),
        }
    }

    /// Time passes: to be called four times in an interval.
    pub fn tick(&mut self, now: Duration) {
        let at = self.wake(now);
        self.ticked = Some(now);
        for _ in 0..MAX_LOOKS {
            let Some((_, name)) = self.agenda.first().filter(|(due, _)| *due <= at).cloned() else { break };
            self.look(&name, now, at);
        }
        self.repeat(at);
    }

    /// What is to be done, and is now taken as done.
    pub fn actions(&mut self) -> impl Iterator<Item = Action> + '_ {
        self.actions.drain(..)
    }

    /// All members, and those that are gone and remembered, sorted by name; not ourselves.
    pub fn peers(&self) -> impl Iterator<Item = PeerState> + '_ {
        self.peers.iter().filter_map(|(name, peer)| {
            let id = PeerId { name: name.clone(), generation: peer.generation };
            Some(PeerState { id, address: peer.address, reach: peer.reach?, since: peer.since })
        })
    }

    /// Whether [`peers`](Self::peers) or [`partitioned`](Self::partitioned) differ from when this was last asked.
    pub fn changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Since when more than half of the peers are held; `None`: they are not.
    pub fn partitioned(&self) -> Option<Duration> {
        self.partitioned
    }

    /// Our own clock, which leaves out stalls: who was stalled has not waited.
    fn wake(&mut self, now: Duration) -> Duration {
        let gap = now.saturating_sub(*self.ticked.get_or_insert(now));
        if gap > self.timing.stall {
            self.stalled += gap;
            self.ticked = Some(now);
        }
        now.saturating_sub(self.stalled)
    }

    /// The peer, if this is its run.
    fn run(&mut self, id: &PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(&id.name).filter(|peer| peer.generation == id.generation)
    }
}

/// The sequence of what is sent now: its time in microseconds. So an echo tells what it answers, and nothing has to be
/// kept for it.
fn sequence(now: Duration) -> u64 {
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
