//! A cluster in virtual time: frames with a latency of about a millisecond and loss, gossip between nodes whose knowledge
//! differs, host crashes, stopped processes and partitions. Runs with the same seed are identical. Each detector is called
//! when it asks for it.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, VecDeque},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use super::*;

mod scenarios;

const INTERVAL: Duration = Duration::from_millis(200);
const HOLD: Duration = Duration::from_secs(60);
const RESTART_HOLD: Duration = Duration::from_secs(30);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// State of a process and its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    /// SIGSTOP: the kernel accepts connections and queues frames.
    Stopped,
    /// The process has ended: the kernel refuses connections.
    Killed,
    /// The host is down.
    Crashed,
}

#[derive(Clone, Debug)]
enum Frame {
    Ping(PeerId, u64),
    Ack(u64),
    IndirectProbe(PeerId, u64),
    IndirectResult(PeerId, u64, IndirectProbeResult),
    Dead(Dead),
    Restart,
    Pause,
    Hello,
    /// What the sender knows; whether it requests a reply.
    Gossip(Rc<Knowledge>, bool),
}

/// What a node knows by gossip about all nodes.
#[derive(Clone, Debug, PartialEq)]
struct Knowledge {
    /// Generation of each node.
    known: Vec<u64>,
    /// Last generation of each node that has announced a restart.
    restarts: Vec<u64>,
}

enum Event {
    Tick(usize),
    Gossip(usize),
    Frame { from: PeerId, to: usize, frame: Frame },
    TcpProbed { by: usize, peer: PeerId, result: TcpProbeResult },
}

/// Ordered by time, then by insertion.
struct Scheduled {
    at: Duration,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

struct Node {
    liveness: Liveness,
    id: PeerId,
    state: State,
    knowledge: Knowledge,
    /// Time of the next tick.
    tick_at: Option<Duration>,
    /// Frames queued while it was stopped.
    inbox: VecDeque<(PeerId, Frame)>,
    /// Last known reachability of each node.
    seen: Vec<Option<Reach>>,
}

impl Node {
    fn new(liveness: Liveness, id: PeerId, size: usize) -> Self {
        let knowledge = Knowledge { known: vec![1; size], restarts: vec![0; size] };
        let (inbox, seen) = (VecDeque::new(), vec![None; size]);
        Self { liveness, id, state: State::Up, knowledge, tick_at: None, inbox, seen }
    }

    fn learn_restart(&mut self, of: usize, generation: u64, now: Duration) {
        if generation > self.knowledge.restarts[of] {
            self.knowledge.restarts[of] = generation;
            self.liveness.restarts(&PeerId { name: name(of), generation }, now);
        }
    }
}

/// Change of one node's reachability as seen by another.
#[derive(Clone, Copy, Debug)]
struct Change {
    at: Duration,
    observer: usize,
    id: usize,
    reach: Reach,
}

struct Cluster {
    now: Duration,
    nodes: Vec<Node>,
    queue: BinaryHeap<Reverse<Scheduled>>,
    next: u64,
    random: fastrand::Rng,
    /// Share of frames that are lost in each direction.
    loss: f64,
    /// True if the link from one node to another is cut.
    cut: Vec<Vec<bool>>,
    /// True if dead broadcasts to this node are lost.
    misses_broadcasts: Vec<bool>,
    changes: Vec<Change>,
    sent: Sent,
}

/// Work of the detectors, without gossip.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    pings: u64,
    tcp_probes: u64,
    asks: u64,
    others: u64,
    /// Number of ticks.
    ticks: u64,
    /// Largest number of actions in one tick.
    burst: usize,
}

fn name(index: usize) -> Label {
    Label::parse(&format!("host-{index}")).unwrap()
}

fn index(name: &Label) -> usize {
    name.as_str().strip_prefix("host-").unwrap().parse().unwrap()
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, u8::try_from(index >> 8).unwrap(), (index & 255) as u8], 7946))
}

impl Cluster {
    /// Creates a cluster in which all nodes know each other and have run for two seconds.
    fn new(size: usize, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let settings = Settings { interval: INTERVAL, hold: HOLD, restart_hold: RESTART_HOLD };
        let node = |i| {
            let id = PeerId { name: name(i), generation: 1 };
            let liveness = Liveness::new(id.clone(), settings, random.fork());
            Node::new(liveness, id, size)
        };
        let mut cluster = Self {
            now: Duration::ZERO,
            nodes: (0..size).map(node).collect(),
            queue: BinaryHeap::new(),
            next: 0,
            random: fastrand::Rng::with_seed(seed ^ 0xabcd),
            loss: 0.0,
            cut: vec![vec![false; size]; size],
            misses_broadcasts: vec![false; size],
            changes: vec![],
            sent: Sent::default(),
        };
        for i in 0..size {
            for other in (0..size).filter(|other| *other != i) {
                let id = PeerId { name: name(other), generation: 1 };
                cluster.nodes[i].liveness.learn(&id, address(other), Duration::ZERO);
            }
            let gossip = ms(cluster.random.u64(0..200));
            cluster.schedule(gossip, Event::Gossip(i));
            cluster.schedule_tick(i);
        }
        cluster.run(ms(2000));
        for i in 0..size {
            let alive = cluster.nodes[i].seen.iter().filter(|reach| **reach == Some(Reach::Alive)).count();
            assert_eq!(alive, size - 1, "{:?}", cluster.nodes[i].seen);
        }
        cluster.changes.clear();
        cluster.sent = Sent::default();
        cluster
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.queue.push(Reverse(Scheduled { at: self.now + after, number: self.next, event }));
        self.next += 1;
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.queue.peek().is_some_and(|Reverse(next)| next.at <= until) {
            let Some(Reverse(Scheduled { at, event, .. })) = self.queue.pop() else { break };
            self.now = at;
            self.step(event);
        }
        self.now = until;
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Tick(i) => {
                let node = &mut self.nodes[i];
                if node.state == State::Up && node.tick_at.take_if(|at| *at == self.now).is_some() {
                    self.sent.ticks += 1;
                    node.liveness.tick(self.now);
                    self.perform(i);
                }
            }
            Event::Gossip(i) => {
                self.schedule(INTERVAL, Event::Gossip(i));
                if self.nodes[i].state == State::Up {
                    self.gossip(i);
                }
            }
            Event::Frame { from, to, frame } => match self.nodes[to].state {
                State::Up => self.receive(&from, to, frame),
                State::Stopped => self.nodes[to].inbox.push_back((from, frame)),
                State::Killed | State::Crashed => {}
            },
            Event::TcpProbed { by, peer, result } => {
                if self.nodes[by].state == State::Up {
                    self.nodes[by].liveness.tcp_probed(&peer, result, self.now);
                    self.perform(by);
                }
            }
        }
    }

    fn lost(&mut self, from: usize, to: usize) -> bool {
        self.cut[from][to] || self.random.f64() < self.loss
    }

    fn send(&mut self, from: usize, to: usize, frame: Frame) {
        if from != to && !self.lost(from, to) {
            let delay = Duration::from_micros(self.random.u64(500..1500));
            self.schedule(delay, Event::Frame { from: self.nodes[from].id.clone(), to, frame });
        }
    }

    fn broadcast(&mut self, from: usize, frame: &Frame) {
        for to in 0..self.nodes.len() {
            self.send(from, to, frame.clone());
        }
    }

    fn gossip(&mut self, i: usize) {
        let knowledge = Rc::new(self.nodes[i].knowledge.clone());
        let seen = &self.nodes[i].seen;
        let live: Vec<usize> = (0..seen.len()).filter(|n| seen[*n] == Some(Reach::Alive)).collect();
        let others: Vec<usize> = (0..seen.len()).filter(|n| *n != i && seen[*n] != Some(Reach::Alive)).collect();
        let mut chosen = self.random.choose_multiple(live, 3);
        // chitchat gossips with dead nodes now and then.
        if !others.is_empty() && self.random.u32(..4) == 0 {
            chosen.extend(self.random.choice(&others));
        }
        // Nodes that agree exchange nothing.
        chosen.retain(|to| self.nodes[*to].knowledge != *knowledge);
        for to in chosen {
            self.send(i, to, Frame::Gossip(knowledge.clone(), true));
        }
    }

    fn receive(&mut self, from: &PeerId, to: usize, frame: Frame) {
        let now = self.now;
        let sender = index(&from.name);
        let node = &mut self.nodes[to];
        node.liveness.learn(from, address(sender), now);
        node.liveness.heard(from, now);
        match frame {
            Frame::Ping(target, sequence) => {
                if target == node.id {
                    self.sent.others += 1;
                    self.send(to, sender, Frame::Ack(sequence));
                }
            }
            Frame::Ack(sequence) => node.liveness.acked(from, sequence, now),
            Frame::IndirectProbe(target, sequence) => {
                node.liveness.indirect_probe(from, address(sender), &target, sequence, now);
            }
            Frame::IndirectResult(target, sequence, result) => {
                node.liveness.indirect_result(from, &target, sequence, result, now);
            }
            Frame::Dead(_) if self.misses_broadcasts[to] => {}
            Frame::Dead(dead) => node.liveness.dead(&dead, now),
            Frame::Restart => node.learn_restart(sender, from.generation, now),
            Frame::Pause => node.liveness.pauses(from, now),
            Frame::Hello => {}
            Frame::Gossip(knowledge, more) => {
                let Knowledge { known, restarts } = &*knowledge;
                for (i, generation) in restarts.iter().enumerate() {
                    node.learn_restart(i, *generation, now);
                }
                for (i, generation) in known.iter().enumerate() {
                    if i == to || *generation <= node.knowledge.known[i] {
                        continue;
                    }
                    node.knowledge.known[i] = *generation;
                    node.liveness.learn(&PeerId { name: name(i), generation: *generation }, address(i), now);
                }
                if more {
                    let knowledge = Rc::new(node.knowledge.clone());
                    self.send(to, sender, Frame::Gossip(knowledge, false));
                }
            }
        }
        self.perform(to);
    }

    /// Carries out the actions of a node's detector and records its view of the others.
    fn perform(&mut self, i: usize) {
        let actions: Vec<Action> = self.nodes[i].liveness.actions().collect();
        self.sent.burst = self.sent.burst.max(actions.len());
        for action in actions {
            match action {
                Action::Ping { to, sequence, .. } => {
                    self.sent.pings += 1;
                    let peer = index(&to.name);
                    self.send(i, peer, Frame::Ping(to, sequence));
                }
                Action::TcpProbe { peer, .. } => {
                    self.sent.tcp_probes += 1;
                    let to = index(&peer.name);
                    let lost = self.lost(i, to) || self.lost(to, i);
                    let (after, result) = match self.nodes[to].state {
                        State::Crashed => (ms(300), TcpProbeResult::Silent),
                        _ if lost => (ms(300), TcpProbeResult::Silent),
                        State::Killed => (ms(2), TcpProbeResult::Refused),
                        State::Up | State::Stopped => (ms(2), TcpProbeResult::Accepted),
                    };
                    self.schedule(after, Event::TcpProbed { by: i, peer, result });
                }
                Action::IndirectProbe { by, target, sequence, .. } => {
                    self.sent.asks += 1;
                    self.send(i, index(&by.name), Frame::IndirectProbe(target, sequence));
                }
                Action::IndirectResult { to, target, sequence, result, .. } => {
                    self.sent.asks += 1;
                    self.send(i, index(&to.name), Frame::IndirectResult(target, sequence, result));
                }
                Action::BroadcastDead(dead) => {
                    self.sent.others += self.nodes.len() as u64 - 1;
                    self.broadcast(i, &Frame::Dead(dead));
                }
                Action::Refute => {
                    self.sent.others += self.nodes.len() as u64 - 1;
                    self.broadcast(i, &Frame::Hello);
                }
                Action::Conflict { .. } => panic!("no node changes its address in the simulation"),
                Action::Outdated { .. } => panic!("generations only grow in the simulation"),
            }
        }
        self.schedule_tick(i);
        let node = &mut self.nodes[i];
        if node.liveness.changed() {
            for PeerState { id, reach, .. } in node.liveness.peers() {
                let id = index(&id.name);
                if node.seen[id].replace(reach) != Some(reach) {
                    self.changes.push(Change { at: self.now, observer: i, id, reach });
                }
            }
        }
    }

    /// Schedules the tick that a node's detector asks for.
    fn schedule_tick(&mut self, i: usize) {
        let due = self.nodes[i].liveness.due().map(|due| due.max(self.now));
        if let Some(at) = due.filter(|due| Some(*due) != self.nodes[i].tick_at) {
            self.nodes[i].tick_at = Some(at);
            self.schedule(at - self.now, Event::Tick(i));
        }
    }

    // --- Events ---

    fn set(&mut self, i: usize, state: State) {
        self.nodes[i].state = state;
        if state == State::Up {
            while let Some((from, frame)) = self.nodes[i].inbox.pop_front() {
                self.receive(&from, i, frame);
            }
            self.nodes[i].tick_at = None;
            self.schedule_tick(i);
        }
    }

    /// Sends the announcement of a restart to every node.
    fn announce_restart(&mut self, i: usize) {
        self.nodes[i].knowledge.restarts[i] = self.nodes[i].id.generation;
        self.broadcast(i, &Frame::Restart);
    }

    /// Sends the announcement of a pause to every node.
    fn announce_pause(&mut self, i: usize) {
        self.broadcast(i, &Frame::Pause);
    }

    /// Starts a new run of a killed node, with the stored names and addresses.
    fn restart(&mut self, i: usize) {
        self.restart_with(i, Liveness::learn);
    }

    /// Starts a new run of a node with the peers that its former run knew.
    fn restore(&mut self, i: usize) {
        let seen = self.nodes[i].seen.clone();
        self.restart_with(i, |liveness, id, address, now| {
            let reach = seen[index(&id.name)].unwrap_or(Reach::Alive);
            liveness.restore(id, address, reach, false, now);
        });
    }

    fn restart_with(&mut self, i: usize, add: impl Fn(&mut Liveness, &PeerId, SocketAddr, Duration)) {
        let generation = self.nodes[i].id.generation + 1;
        let id = PeerId { name: name(i), generation };
        let settings = Settings { interval: INTERVAL, hold: HOLD, restart_hold: RESTART_HOLD };
        let mut liveness = Liveness::new(id.clone(), settings, self.random.fork());
        for other in (0..self.nodes.len()).filter(|other| *other != i) {
            add(&mut liveness, &self.nodes[other].id, address(other), self.now);
        }
        let size = self.nodes.len();
        self.nodes[i] = Node::new(liveness, id, size);
        self.nodes[i].knowledge.known[i] = generation;
        self.schedule_tick(i);
    }

    fn cut(&mut self, from: &[usize], to: &[usize], cut: bool) {
        for from in from {
            for to in to {
                self.cut[*from][*to] = cut;
            }
        }
    }

    fn split(&mut self, a: &[usize], b: &[usize], cut: bool) {
        self.cut(a, b, cut);
        self.cut(b, a, cut);
    }

    // --- Results ---

    /// Time when the last survivor declared `id` gone, and the cause; panics if one has not.
    fn gone(&self, id: usize, since: Duration) -> (Duration, Cause) {
        let mut last = (Duration::ZERO, Cause::Expired);
        for observer in 0..self.nodes.len() {
            if observer == id || self.nodes[observer].state != State::Up {
                continue;
            }
            let Some(Reach::Gone(cause)) = self.nodes[observer].seen[id] else {
                panic!("{observer} sees {id} as {:?}", self.nodes[observer].seen[id]);
            };
            let mut changes = self.changes.iter().rev();
            let change = changes.find(|change| change.observer == observer && change.id == id).unwrap();
            last = last.max_by_time((change.at - since, cause));
        }
        last
    }

    /// Number of changes to this reachability.
    fn count(&self, reach: impl Fn(&Change) -> bool) -> usize {
        self.changes.iter().filter(|change| reach(change)).count()
    }

    fn removals(&self) -> usize {
        self.count(|change| matches!(change.reach, Reach::Gone(_)))
    }

    fn held(&self) -> usize {
        self.count(|change| change.reach == Reach::Held)
    }

    fn suspicions(&self) -> usize {
        self.count(|change| change.reach == Reach::Suspect)
    }

    #[track_caller]
    fn assert_all_alive(&self, context: &str) {
        for (observer, node) in self.nodes.iter().enumerate() {
            for (id, reach) in node.seen.iter().enumerate().filter(|(id, _)| *id != observer) {
                assert_eq!(*reach, Some(Reach::Alive), "{context}: {observer} sees {id}");
            }
        }
    }
}

trait MaxByTime {
    fn max_by_time(self, other: Self) -> Self;
}

impl MaxByTime for (Duration, Cause) {
    fn max_by_time(self, other: Self) -> Self {
        if other.0 >= self.0 { other } else { self }
    }
}
