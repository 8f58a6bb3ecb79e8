//! A network for nodes of one process, in place of `gossip::transport`, with delay, partitions and loss. Like the
//! transport, it introduces two runs to each other before it delivers other messages.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use muster::{
    gossip::{
        link::{self, Inbound, Outbound},
        liveness::TcpProbeResult,
        message::{Identity, Message},
    },
    model::{member::PeerId, name::Label},
};
use tokio::{sync::mpsc, time::sleep};

/// Latency between two hosts.
const DELAY: Duration = Duration::from_millis(1);
/// Octets of the longest message that is sent as a datagram.
const DATAGRAM: usize = 1200;
/// Time until TCP repeats what was lost.
const REPEATED: Duration = Duration::from_millis(200);
/// Timeout of a TCP probe.
const NO_ANSWER: Duration = Duration::from_millis(300);

/// Selects messages to lose.
pub(crate) type Loss = fn(&Message<'_>) -> bool;

/// All hosts and the links between them. Clones share the network.
#[derive(Clone, Default)]
pub(crate) struct Network(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The process on each host; `None`: the host is up without a process.
    hosts: BTreeMap<SocketAddr, Option<Process>>,
    /// Hosts whose sockets stay open without a process.
    kept: BTreeSet<SocketAddr>,
    /// Links that are cut, by direction.
    cuts: BTreeSet<(SocketAddr, SocketAddr)>,
    /// Runs that know each other.
    introduced: BTreeSet<(PeerId, PeerId)>,
    loss: Option<Loss>,
    /// Hosts that lose a share of their datagrams in both directions, in percent.
    lossy: BTreeMap<SocketAddr, u8>,
    random: Option<fastrand::Rng>,
    /// Number of messages from a host to itself.
    to_itself: usize,
    /// Generation in each node's last push.
    pushed: BTreeMap<Label, u64>,
}

struct Process {
    identity: Identity,
    inbound: mpsc::Sender<Inbound>,
}

impl Network {
    /// Starts a process on its host.
    pub(crate) fn attach(&self, identity: Identity, side: link::Network) {
        let link::Network { outbound, inbound } = side;
        let process = Process { identity: identity.clone(), inbound };
        let mut state = self.lock();
        // A new start has a session of its own.
        state.introduced.retain(|(a, b)| *a != identity.id && *b != identity.id);
        state.hosts.insert(identity.address, Some(process));
        drop(state);
        tokio::spawn(self.clone().carry(identity, outbound));
    }

    /// Keeps the sockets of a host open from now on, even without a process.
    pub(crate) fn keep_open(&self, address: SocketAddr) {
        self.lock().kept.insert(address);
    }

    /// Ends a process; its port is closed afterwards, unless it is kept open.
    pub(crate) fn detach(&self, identity: &Identity) {
        let mut state = self.lock();
        if state.runs(identity) && !state.kept.contains(&identity.address) {
            state.hosts.insert(identity.address, None);
        }
    }

    /// Cuts the link in one direction.
    pub(crate) fn cut(&self, from: SocketAddr, to: SocketAddr) {
        self.lock().cuts.insert((from, to));
    }

    /// Restores all links.
    pub(crate) fn heal(&self) {
        self.lock().cuts.clear();
    }

    /// Selects the messages to lose from now on.
    pub(crate) fn lose(&self, loss: Option<Loss>) {
        self.lock().loss = loss;
    }

    /// Loses this share of the datagrams from and to a host, in percent. Large messages are sent by TCP, which repeats them.
    pub(crate) fn lose_at(&self, address: SocketAddr, percent: u8) {
        let mut state = self.lock();
        state.lossy.insert(address, percent);
        state.random = Some(fastrand::Rng::with_seed(1));
    }

    /// Delivers a message with a forged sender.
    pub(crate) async fn forge(&self, from: &Identity, to: SocketAddr, message: &Message<'_>) {
        let mut octets = Vec::new();
        message.encode(&mut octets).unwrap();
        self.clone().pass(from.clone(), Outbound::Message { to, octets: octets.into() }).await;
    }

    /// Number of messages that hosts have sent to themselves.
    pub(crate) fn sent_to_itself(&self) -> usize {
        self.lock().to_itself
    }

    /// Generation in a node's last push, which includes the number of gossip starts.
    pub(crate) fn pushed(&self, by: &Label) -> u64 {
        self.lock().pushed[by]
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    async fn carry(self, from: Identity, mut outbound: mpsc::Receiver<Outbound>) {
        while let Some(sent) = outbound.recv().await {
            if !self.lock().runs(&from) {
                return;
            }
            tokio::spawn(self.clone().pass(from.clone(), sent));
        }
        self.detach(&from);
    }

    async fn pass(self, from: Identity, sent: Outbound) {
        if let Outbound::Message { octets, .. } = &sent
            && let Ok(Message::Push(push)) = Message::decode(octets)
        {
            self.lock().pushed.insert(from.id.name.clone(), push.generation);
        }
        match sent {
            Outbound::Message { to, octets } => {
                self.lock().to_itself += usize::from(to == from.address);
                if self.lock().is_cut(from.address, to) || self.lock().loses(&octets) {
                    return;
                }
                if self.lock().loses_between(from.address, to) {
                    if octets.len() <= DATAGRAM {
                        return;
                    }
                    sleep(REPEATED).await;
                }
                sleep(DELAY).await;
                if self.introduce(&from, to).await {
                    self.lock().deliver(to, Inbound::Message { from, octets: octets.to_vec() });
                }
            }
            Outbound::Stream { to, mut messages } => {
                while let Some(octets) = messages.recv().await {
                    sleep(DELAY).await;
                    if self.lock().is_cut(from.address, to) || self.lock().loses(&octets) {
                        return;
                    }
                    self.lock().deliver(to, Inbound::Message { from: from.clone(), octets });
                }
            }
            Outbound::TcpProbe { peer, address } => {
                let result = self.lock().tcp_probe(from.address, address);
                sleep(if result == TcpProbeResult::Silent { NO_ANSWER } else { 2 * DELAY }).await;
                self.lock().deliver(from.address, Inbound::TcpProbed { peer, result });
            }
        }
    }

    /// Introduces two runs to each other. Returns whether a message that was sent before reaches its receiver.
    async fn introduce(&self, from: &Identity, to: SocketAddr) -> bool {
        let there = {
            let state = self.lock();
            let Some(there) = state.process(to).map(|process| process.identity.clone()) else { return false };
            if state.introduced.contains(&(from.id.clone(), there.id.clone())) {
                return true;
            }
            if state.is_cut(from.address, to) || state.is_cut(to, from.address) {
                return false;
            }
            there
        };
        // The welcomes of both sides.
        sleep(2 * DELAY).await;
        let mut state = self.lock();
        if !state.runs(from) || !state.runs(&there) {
            return false;
        }
        let pair = (from.id.clone(), there.id.clone());
        if state.introduced.contains(&pair) {
            return true;
        }
        // A frame sealed for the previous run is lost.
        let sent_to_another = state.introduced.iter().any(|(a, b)| *a == from.id && b.name == there.id.name);
        state.introduced.insert((pair.1.clone(), pair.0.clone()));
        state.introduced.insert(pair);
        state.deliver(from.address, Inbound::Introduced { peer: there.clone(), at: to });
        state.deliver(to, Inbound::Introduced { peer: from.clone(), at: from.address });
        !sent_to_another
    }
}

impl State {
    fn process(&self, at: SocketAddr) -> Option<&Process> {
        self.hosts.get(&at)?.as_ref()
    }

    fn runs(&self, identity: &Identity) -> bool {
        self.process(identity.address).is_some_and(|process| process.identity == *identity)
    }

    fn is_cut(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.cuts.contains(&(from, to))
    }

    fn loses(&self, octets: &[u8]) -> bool {
        self.loss.is_some_and(|loss| loss(&Message::decode(octets).unwrap()))
    }

    fn loses_between(&mut self, from: SocketAddr, to: SocketAddr) -> bool {
        let share = [from, to].iter().filter_map(|at| self.lossy.get(at)).max().copied().unwrap_or(0);
        self.random.as_mut().is_some_and(|random| random.u8(0..100) < share)
    }

    fn tcp_probe(&self, from: SocketAddr, to: SocketAddr) -> TcpProbeResult {
        if self.is_cut(from, to) || self.is_cut(to, from) {
            return TcpProbeResult::Silent;
        }
        match self.hosts.get(&to) {
            Some(Some(_)) => TcpProbeResult::Accepted,
            Some(None) => TcpProbeResult::Refused,
            None => TcpProbeResult::Silent,
        }
    }

    fn deliver(&self, to: SocketAddr, what: Inbound) {
        if let Some(process) = self.process(to) {
            let _ = process.inbound.try_send(what);
        }
    }
}
