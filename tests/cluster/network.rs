//! A network for nodes of one process, in the place of `gossip::wire`: it delays, it can be cut, and it can lose what a
//! test says. As the wire does, it introduces two runs to each other before anything else passes between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use muster::{
    gossip::{
        channel::{self, Inbound, Outbound},
        liveness::TcpProbeResult,
        message::{Identity, Message},
    },
    model::{member::PeerId, name::Label},
};
use tokio::{sync::mpsc, time::sleep};

/// From one host to another.
const DELAY: Duration = Duration::from_millis(1);
/// How long a knock waits for an answer that does not come.
const NO_ANSWER: Duration = Duration::from_millis(300);

/// Which messages get lost.
pub(crate) type Loss = fn(&Message<'_>) -> bool;

/// All hosts, and what lies between them. Clones are the same network.
#[derive(Clone, Default)]
pub(crate) struct Network(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Who runs where; `None`: the host is up and nothing runs.
    hosts: BTreeMap<SocketAddr, Option<Process>>,
    /// From where to where nothing passes.
    cuts: BTreeSet<(SocketAddr, SocketAddr)>,
    /// Which run knows which.
    met: BTreeSet<(PeerId, PeerId)>,
    loss: Option<Loss>,
    /// The generation that each node's last push named.
    pushed: BTreeMap<Label, u64>,
}

struct Process {
    identity: Identity,
    inbound: mpsc::Sender<Inbound>,
}

impl Network {
    /// A process starts on its host.
    pub(crate) fn attach(&self, identity: Identity, side: channel::Network) {
        let channel::Network { outbound, inbound } = side;
        let process = Process { identity: identity.clone(), inbound };
        self.lock().hosts.insert(identity.address, Some(process));
        tokio::spawn(self.clone().carry(identity, outbound));
    }

    /// A process ends: nothing listens there any more.
    pub(crate) fn detach(&self, identity: &Identity) {
        let mut state = self.lock();
        if state.runs(identity) {
            state.hosts.insert(identity.address, None);
        }
    }

    /// From now on nothing passes from there to there.
    pub(crate) fn cut(&self, from: SocketAddr, to: SocketAddr) {
        self.lock().cuts.insert((from, to));
    }

    /// Everything passes everywhere.
    pub(crate) fn heal(&self) {
        self.lock().cuts.clear();
    }

    /// What gets lost from now on.
    pub(crate) fn lose(&self, loss: Option<Loss>) {
        self.lock().loss = loss;
    }

    /// Hands a process a message that another one is made to have sent.
    pub(crate) async fn forge(&self, from: &Identity, to: SocketAddr, message: &Message<'_>) {
        let mut octets = Vec::new();
        message.encode(&mut octets).unwrap();
        self.clone().pass(from.clone(), Outbound::Message { to, octets: octets.into() }).await;
    }

    /// The generation that a node's last push named: how often its gossip was started is in it.
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
                if self.lock().is_cut(from.address, to) || self.lock().loses(&octets) {
                    return;
                }
                sleep(DELAY).await;
                if self.introduce(&from, to).await {
                    self.lock().deliver(to, Inbound::Message { from, octets: octets.to_vec() });
                }
            }
            Outbound::Knock { peer, address } => {
                let answer = self.lock().knock(from.address, address);
                sleep(if answer == TcpProbeResult::Silent { NO_ANSWER } else { 2 * DELAY }).await;
                self.lock().deliver(from.address, Inbound::Knocked { peer, answer });
            }
        }
    }

    /// Sees to it that two runs know each other; whether a message that was sent before reaches its receiver.
    async fn introduce(&self, from: &Identity, to: SocketAddr) -> bool {
        let there = {
            let state = self.lock();
            let Some(there) = state.process(to).map(|process| process.identity.clone()) else { return false };
            if state.met.contains(&(from.id.clone(), there.id.clone())) {
                return true;
            }
            if state.is_cut(from.address, to) || state.is_cut(to, from.address) {
                return false;
            }
            there
        };
        // The welcome, and our own.
        sleep(2 * DELAY).await;
        let mut state = self.lock();
        if !state.runs(from) || !state.runs(&there) {
            return false;
        }
        let pair = (from.id.clone(), there.id.clone());
        if state.met.contains(&pair) {
            return true;
        }
        // What was sealed for the run before is lost.
        let sent_to_another = state.met.iter().any(|(a, b)| *a == from.id && b.name == there.id.name);
        state.met.insert((pair.1.clone(), pair.0.clone()));
        state.met.insert(pair);
        state.deliver(from.address, Inbound::Met { peer: there.clone(), at: to });
        state.deliver(to, Inbound::Met { peer: from.clone(), at: from.address });
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

    fn knock(&self, from: SocketAddr, to: SocketAddr) -> TcpProbeResult {
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
