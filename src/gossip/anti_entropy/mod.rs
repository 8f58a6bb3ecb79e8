//! Anti-entropy by chitchat (Scuttlebutt reconciliation): replicates every node's state to all nodes.
//!
//! This is the only module that uses chitchat. It offers four operations: change own keys, gossip with an address, apply
//! pushed changes of peers, and read the changes since the last read. The owner decides when to gossip: nodes whose
//! [states](Cluster::state) have the same hash need no exchange. [`liveness`](super::liveness) detects failures; chitchat's
//! own failure detector only removes runs that have ended.
//!
//! chitchat's task can end while the process lives, for example when a digest exceeds a datagram or a peer's key starts
//! with a character outside ASCII. [`Cluster::ended`] reports it; the owner then starts another with a new generation.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState, ProtocolVersion, spawn_chitchat,
};
use tokio::sync::{Notify, mpsc};

pub use self::{
    bulk::{BulkState, Part},
    envelope::starts_exchange,
    lag::Missing,
    offers::Offer,
    state_stream::StateError,
};
use self::{
    envelope::Envelope,
    shared::Shared,
    transport::{Envelopes, Parts, Prepared},
};
use super::{
    link::{Inbox, Outbox},
    peer_replica::Change,
    rejected::Rejected,
};
use crate::{
    metrics::GossipKeys,
    model::{
        member::{INCARNATIONS, PeerId},
        name::Label,
    },
};

mod bulk;
mod codec;
mod envelope;
mod lag;
mod offers;
mod shared;
mod state_hash;
mod state_stream;
mod stream;
mod transport;

/// Interval of chitchat's own rounds, and of [`Cluster::keep_alive`]. They remove dead runs and old tombstones; exchanges
/// start on request only.
pub const HOUSEKEEPING: Duration = Duration::from_secs(5);
/// phi above which chitchat takes a run for dead: the node keeps live runs alive, so three missed rounds suffice.
const PHI: f64 = 3.0;
/// Heartbeats that the mean interval is computed from.
const WINDOW: usize = 4;
/// Longest pause between heartbeats that counts as an interval; longer pauses are outages.
const LONGEST_INTERVAL: Duration = HOUSEKEEPING.saturating_mul(3);
/// Time that chitchat keeps the state of a run that it takes for dead; half of it in the digest. Every restart of an agent
/// leaves one behind. A run counts as dead until its third heartbeat, so half of this time exceeds three rounds. A node
/// that returns later transfers its whole state again.
const DEAD_NODE_GRACE: Duration = Duration::from_secs(150);
/// Capacity of the queue of local messages. Excess pushes are left to exchanges.
const LOCAL: usize = 256;
/// Time that the tombstone of a deleted key is kept. A node that was cut off for longer receives the whole state.
const TOMBSTONE_GRACE: Duration = Duration::from_secs(600);

/// Settings of a cluster.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Run of this node.
    pub id: PeerId,
    /// Number of earlier gossip starts within this run; below [`INCARNATIONS`].
    pub incarnation: u64,
    /// Advertised gossip address.
    pub address: SocketAddr,
    /// Cluster name. Nodes with different names ignore each other.
    pub cluster: String,
}

/// State of one run of another node.
#[derive(Debug)]
pub struct Peer {
    /// Run of the node.
    pub id: PeerId,
    /// Number of earlier gossip starts within the run; versions start at one in each.
    pub incarnation: u64,
    /// Advertised gossip address.
    pub address: SocketAddr,
    /// Version up to which the node's changes are known.
    pub version: u64,
    /// Heartbeat counter, which increases while the node lives.
    pub heartbeat: u64,
    /// Changes since the last read, if any.
    pub update: Option<Update>,
}

/// Changes of a node's keys.
#[derive(Debug)]
pub struct Update {
    /// Version up to which all changes of the node are known.
    pub version: u64,
    /// True if the entries are the node's complete state: keys without an entry are deleted.
    pub whole: bool,
    /// Changed keys in ascending order of version.
    pub entries: Vec<Entry>,
}

/// One key of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Key.
    pub key: String,
    /// Version of the last change.
    pub version: u64,
    /// Value; `None` if the key is deleted.
    pub value: Option<String>,
}

impl Entry {
    /// Borrows the entry as a change.
    pub fn as_change(&self) -> Change<'_> {
        Change { key: &self.key, version: self.version, value: self.value.as_deref() }
    }
}

/// A running chitchat.
pub struct Cluster {
    handle: ChitchatHandle,
    own: ChitchatId,
    /// Name of the cluster.
    name: String,
    read: HashMap<ChitchatId, Versions>,
    /// Versions up to which nodes were read by an earlier start.
    resumed: HashMap<ChitchatId, u64>,
    /// Runs that the last read returned, in ascending order.
    listed: Vec<Listed>,
    /// Parts of the own run and of the live runs in the hash of the state.
    state: [u64; 2],
    local: mpsc::Sender<Prepared>,
    shared: Arc<Shared>,
}

/// A run that chitchat lists.
struct Listed {
    run: ChitchatId,
    id: PeerId,
    /// Number of earlier gossip starts within the run.
    incarnation: u64,
    /// Version at the last read.
    version: u64,
    /// Version including pushes that are under way to chitchat.
    pushed: u64,
}

/// Versions up to which a node's state was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Versions {
    max: u64,
    collected: u64,
}

impl Cluster {
    /// Starts to gossip over the link, with the node's own keys. Counts invalid messages as rejected.
    ///
    /// # Errors
    /// Fails if the two loopback sockets of chitchat's codec cannot be opened.
    pub async fn start(
        settings: Settings,
        own: Vec<(String, String)>,
        outbox: Outbox,
        inbox: Inbox,
        rejected: Arc<Rejected>,
    ) -> anyhow::Result<Self> {
        let id = chitchat_id(&settings.id, settings.incarnation, settings.address);
        let config = ChitchatConfig {
            chitchat_id: id.clone(),
            cluster_id: settings.cluster.clone(),
            gossip_interval: HOUSEKEEPING,
            // The transport has an address of its own.
            listen_addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            // `join` retries and resolves seeds, without a limit.
            seed_nodes: Vec::new(),
            failure_detector_config: FailureDetectorConfig {
                phi_threshold: PHI,
                sampling_window_size: WINDOW,
                max_interval: LONGEST_INTERVAL,
                initial_interval: HOUSEKEEPING,
                dead_node_grace_period: DEAD_NODE_GRACE,
            },
            marked_for_deletion_grace_period: TOMBSTONE_GRACE,
            catchup_callback: None,
            // chitchat sends the whole state of all live nodes to a watcher whenever a key changes. There is no watcher,
            // and at 100,000 instances the copy would dominate the cost: the predicate excludes every node.
            extra_liveness_predicate: Some(Box::new(|_| false)),
            protocol_version: ProtocolVersion::V1,
        };
        let shared = Arc::new(Shared::default());
        let (local, messages) = mpsc::channel(LOCAL);
        let parts = Parts { own: id.clone(), outbox, inbox, local: messages, shared: shared.clone(), rejected };
        let handle = spawn_chitchat(config, own, &Envelopes::new(parts)).await?;
        let version = handle.with_chitchat(|chitchat| chitchat.self_node_state().max_version()).await;
        Ok(Self {
            handle,
            state: [state_hash::of_run(&id, version), 0],
            own: id,
            name: settings.cluster,
            read: HashMap::new(),
            resumed: HashMap::new(),
            listed: Vec::new(),
            local,
            shared,
        })
    }

    /// Skips a node's changes up to a version that an earlier start has read.
    pub fn resume(&mut self, id: &PeerId, incarnation: u64, address: SocketAddr, version: u64) {
        self.resumed.insert(chitchat_id(id, incarnation, address), version);
    }

    /// Returns a notifier for changes and new runs. chitchat forgets runs without a notification: read every
    /// [`HOUSEKEEPING`], too.
    pub fn news(&self) -> Arc<Notify> {
        self.shared.news.clone()
    }

    /// Hash of the known state, as of the last read, [`publish`](Self::publish) and [`offer`](Self::offer): that of this run
    /// and of the runs that are offered to everyone. A node with the same hash has nothing to exchange.
    pub fn state(&self) -> u64 {
        let [own, live] = self.state;
        own.wrapping_add(live)
    }

    /// Waits until chitchat's task has ended and returns the reason.
    pub fn ended(&self) -> impl Future<Output = String> + use<> {
        let watcher = self.handle.termination_watcher();
        async move { watcher.await.err().map_or_else(|| "it was stopped".to_owned(), |error| error.to_string()) }
    }

    /// Starts a gossip exchange with the node at an address.
    pub fn talk_to(&self, address: SocketAddr) {
        if self.shared.request(address) {
            // Fails only if the task has ended, which `ended` reports.
            let _ = self.handle.gossip(address);
        }
    }

    /// Starts another exchange with each node whose last message was so full that it may have more changes.
    pub fn talk_on(&self) {
        self.shared.take_more().into_iter().for_each(|address| self.talk_to(address));
    }

    /// Applies pushed changes of a peer's run, in ascending order of version, if they continue the known ones. Otherwise
    /// returns false: earlier changes were lost, and an exchange delivers all.
    pub fn apply(&mut self, id: &PeerId, incarnation: u64, address: SocketAddr, changes: &[Change<'_>]) -> bool {
        let run = chitchat_id(id, incarnation, address);
        let Ok(at) = self.listed.binary_search_by(|listed| listed.run.cmp(&run)) else { return false };
        let known = self.listed[at].pushed;
        let news = &changes[changes.partition_point(|change| change.version <= known)..];
        let Some(last) = news.last() else { return true };
        if !continues(known, news) {
            return false;
        }
        let octets = envelope::changes_of(&run, known, news);
        // chitchat does not survive every key.
        if Envelope::read(&octets).is_ok() && self.send_local(octets, true) {
            self.listed[at].pushed = last.version;
        }
        true
    }

    /// Keeps live and held runs alive for chitchat, which removes runs without heartbeats. To be called
    /// every [`HOUSEKEEPING`]. Dead runs get no heartbeat.
    pub async fn keep_alive(&self) {
        let offers = self.shared.offers.load();
        let chitchat = self.handle.chitchat();
        let chitchat = chitchat.lock().await;
        let is_kept = |offer| matches!(offer, Ok(Offer::Always | Offer::Kept));
        let runs = chitchat.node_states().iter().map(|(run, state)| {
            let offer = offers.binary_search_by(|(listed, _)| listed.cmp(run)).map(|at| offers[at].1);
            let heartbeat = u64::from(state.heartbeat());
            (run.clone(), if is_kept(offer) { heartbeat + 1 } else { 0 })
        });
        let octets = envelope::heartbeats(runs, &self.name);
        self.send_local(octets, false);
    }

    /// Sends a message to the own chitchat. Returns false if the queue is full.
    fn send_local(&self, octets: Vec<u8>, informs: bool) -> bool {
        let from = self.own.gossip_advertise_addr;
        self.local.try_send(Prepared { from, octets, informs }).is_ok()
    }

    /// Changes own keys in the given order; `None` deletes a key. Returns the changes with their versions, without those
    /// that had no effect.
    pub async fn publish(&mut self, changes: &[(String, Option<String>)]) -> Vec<Entry> {
        let chitchat = self.handle.chitchat();
        let mut chitchat = chitchat.lock().await;
        let own = chitchat.self_node_state();
        let mut published = Vec::with_capacity(changes.len());
        for (key, value) in changes {
            let before = own.max_version();
            match value {
                Some(value) => own.set(key, value),
                None if own.contains_key(key) => own.delete(key),
                None => {}
            }
            let version = own.max_version();
            if version > before {
                published.push(Entry { key: key.clone(), version, value: value.clone() });
            }
        }
        self.state[0] = state_hash::of_run(&self.own, own.max_version());
        published
    }

    /// Determines which runs are offered to peers, from the next message on: those that the last [`read`](Self::read)
    /// returned, each given with its number of earlier gossip starts.
    pub fn offer(&mut self, offer: impl Fn(&PeerId, u64) -> Offer) {
        let mut live = Vec::with_capacity(self.listed.len());
        let mut hash: u64 = 0;
        let offers = self.listed.iter().map(|Listed { run, id, incarnation, version, .. }| {
            let offer = offer(id, *incarnation);
            if offer == Offer::Always {
                hash = hash.wrapping_add(state_hash::of_run(run, *version));
                live.push((run.clone(), *version));
            }
            (run.clone(), offer)
        });
        let offers = offers.collect();
        self.state[1] = hash;
        self.shared.lag.set_known(live);
        self.shared.offers.store(Arc::new(offers));
    }

    /// Returns the numbers of changes that peers have and this node lacks, by the digests that have arrived since the last
    /// call, in descending order.
    pub fn take_missing(&self) -> Vec<Missing> {
        self.shared.lag.take()
    }

    /// Returns access to the state for a bulk transfer.
    pub fn bulk_state(&self) -> BulkState {
        let Shared { offers, news, .. } = &*self.shared;
        BulkState { chitchat: self.handle.chitchat(), offers: offers.clone(), news: news.clone() }
    }

    /// Returns all other nodes, each with its changes since the last read. The cost is that of the changes and of one
    /// version check per node.
    pub async fn read(&mut self) -> Vec<Peer> {
        let chitchat = self.handle.chitchat();
        let chitchat = chitchat.lock().await;
        let own = chitchat.self_chitchat_id();
        let states = chitchat.node_states();
        let mut peers = Vec::with_capacity(states.len());
        self.listed.clear();
        for (id, state) in states.iter().filter(|(id, _)| *id != own) {
            // muster nodes have valid names; other names are ignored.
            let Ok(name) = Label::parse(&id.node_id) else { continue };
            let resumed = || self.resumed.get(id).map(|max| Versions { max: *max, collected: 0 });
            let update = update(state, self.read.get(id).copied().or_else(resumed));
            if update.is_some() {
                self.resumed.remove(id);
                let versions = Versions { max: state.max_version(), collected: state.last_gc_version() };
                self.read.insert(id.clone(), versions);
            }
            let incarnation = id.generation_id % INCARNATIONS;
            let peer = PeerId { name, generation: id.generation_id - incarnation };
            let version = state.max_version();
            self.listed.push(Listed { run: id.clone(), id: peer.clone(), incarnation, version, pushed: version });
            peers.push(Peer {
                id: peer,
                incarnation,
                address: id.gossip_advertise_addr,
                version: state.max_version(),
                heartbeat: state.heartbeat().into(),
                update,
            });
        }
        if self.read.len() > states.len() {
            self.read.retain(|id, _| states.contains_key(id));
        }
        peers
    }

    /// Counts the keys of all nodes, this one included.
    pub async fn keys(&self) -> GossipKeys {
        let chitchat = self.handle.chitchat();
        let chitchat = chitchat.lock().await;
        let mut keys = GossipKeys::default();
        for (_, value) in chitchat.node_states().values().flat_map(NodeState::key_values_including_deleted) {
            *(if value.is_deleted() { &mut keys.deleted } else { &mut keys.live }) += 1;
        }
        keys
    }

    /// Ends chitchat's task.
    pub async fn stop(self) {
        // An error means that the task has ended already.
        let _ = self.handle.shutdown().await;
    }
}

/// Reports whether changes follow a version without a gap.
fn continues(known: u64, changes: &[Change<'_>]) -> bool {
    changes.iter().zip(known..).all(|(change, before)| change.version == before + 1)
}

fn chitchat_id(id: &PeerId, incarnation: u64, address: SocketAddr) -> ChitchatId {
    ChitchatId::new(id.name.as_str(), id.generation + incarnation, address)
}

/// Changes of a node's state since the versions in `read`.
fn update(state: &NodeState, read: Option<Versions>) -> Option<Update> {
    let (max, collected) = (state.max_version(), state.last_gc_version());
    // After a reset the state arrives in parts. The previous state is kept until the new one is complete.
    if collected > max {
        return None;
    }
    let read = read.unwrap_or(Versions { max: 0, collected: 0 });
    let whole = collected > read.max;
    // Less than was read before: an earlier start has read more.
    if max <= read.max && !whole {
        return None;
    }
    let floor = if whole { 0 } else { read.max };
    let newer = state.key_values_including_deleted().filter(|(_, value)| value.version > floor);
    let mut entries: Vec<Entry> = newer
        .map(|(key, value)| Entry {
            key: key.to_owned(),
            version: value.version,
            value: (!value.is_deleted()).then(|| value.value.clone()),
        })
        .collect();
    entries.sort_unstable_by_key(|entry| entry.version);
    Some(Update { version: max, whole, entries })
}
