//! Anti-entropy by chitchat (Scuttlebutt reconciliation): replicates every node's state to all nodes.
//!
//! This is the only module that uses chitchat. It offers three operations: change own keys, gossip with an address, and
//! read the changes since the last read. [`liveness`](super::liveness) detects failures; chitchat's own failure detector
//! only selects gossip partners.
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
    Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, ListenerHandle, NodeState,
    ProtocolVersion, spawn_chitchat,
};
use tokio::sync::Notify;

pub use self::{
    bulk::{BulkState, Part},
    lag::Missing,
    offers::Offer,
    state_stream::StateError,
};
use self::{
    lag::Lag,
    offers::Offers,
    transport::{Envelopes, Parts},
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
mod state_stream;
mod stream;
mod transport;

/// phi above which chitchat no longer gossips with a node: 8 intervals of silence, chitchat's default.
const PHI: f64 = 8.0;
/// Heartbeats that the mean interval is computed from: 20 s at the default interval, so that the mean follows the network.
const WINDOW: usize = 100;
/// Longest pause between heartbeats that counts as an interval, in gossip intervals; longer pauses are outages.
const LONGEST_INTERVAL: u32 = 10;
/// Time that chitchat keeps the state of a node that is gone; half of it in the digest. Every restart of an agent leaves
/// one behind. A node that returns later transfers its whole state again.
const DEAD_NODE_GRACE: Duration = Duration::from_secs(180);
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
    /// Interval between gossip rounds.
    pub interval: Duration,
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
    news: Arc<Notify>,
    read: HashMap<ChitchatId, Versions>,
    /// Versions up to which nodes were read by an earlier start.
    resumed: HashMap<ChitchatId, u64>,
    /// Runs that the last read returned, each with its node and its number of earlier gossip starts.
    listed: Vec<(ChitchatId, PeerId, u64)>,
    /// Versions of these runs, in the same order.
    versions: Vec<u64>,
    offers: Offers,
    lag: Lag,
    _listener: ListenerHandle,
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
        let interval = settings.interval;
        let id = chitchat_id(&settings.id, settings.incarnation, settings.address);
        let config = ChitchatConfig {
            chitchat_id: id.clone(),
            cluster_id: settings.cluster,
            gossip_interval: interval,
            // The transport has an address of its own.
            listen_addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            // `join` retries and resolves seeds, without a limit.
            seed_nodes: Vec::new(),
            failure_detector_config: FailureDetectorConfig {
                phi_threshold: PHI,
                sampling_window_size: WINDOW,
                max_interval: interval * LONGEST_INTERVAL,
                initial_interval: interval,
                dead_node_grace_period: DEAD_NODE_GRACE,
            },
            marked_for_deletion_grace_period: TOMBSTONE_GRACE,
            catchup_callback: None,
            // chitchat sends the whole state of all live nodes to a watcher whenever a key changes. There is no watcher,
            // and at 100,000 instances the copy would dominate the cost: the predicate excludes every node.
            extra_liveness_predicate: Some(Box::new(|_| false)),
            protocol_version: ProtocolVersion::V1,
        };
        let offers = Offers::default();
        let lag = Lag::default();
        let parts = Parts { own: id, outbox, inbox, offers: offers.clone(), lag: lag.clone(), rejected };
        let transport = Envelopes::new(parts);
        let handle = spawn_chitchat(config, own, &transport).await?;
        let news = Arc::new(Notify::new());
        let notified = news.clone();
        // Runs under chitchat's lock, so it only wakes the reader.
        let listen = move |chitchat: &mut Chitchat| {
            let notified = notified.clone();
            chitchat.subscribe_event("", move |_| notified.notify_one())
        };
        let listener = handle.with_chitchat(listen).await;
        Ok(Self {
            handle,
            news,
            read: HashMap::new(),
            resumed: HashMap::new(),
            listed: Vec::new(),
            versions: Vec::new(),
            offers,
            lag,
            _listener: listener,
        })
    }

    /// Skips a node's changes up to a version that an earlier start has read.
    pub fn resume(&mut self, id: &PeerId, incarnation: u64, address: SocketAddr, version: u64) {
        self.resumed.insert(chitchat_id(id, incarnation, address), version);
    }

    /// Returns a notifier for new values of any node's keys. Deletions and heartbeats do not notify: read once a round too.
    pub fn news(&self) -> Arc<Notify> {
        self.news.clone()
    }

    /// Waits until chitchat's task has ended and returns the reason.
    pub fn ended(&self) -> impl Future<Output = String> + use<> {
        let watcher = self.handle.termination_watcher();
        async move { watcher.await.err().map_or_else(|| "it was stopped".to_owned(), |error| error.to_string()) }
    }

    /// Starts a gossip exchange with the node at an address.
    pub fn talk_to(&self, address: SocketAddr) {
        // Fails only if the task has ended, which `ended` reports.
        let _ = self.handle.gossip(address);
    }

    /// Changes own keys in the given order; `None` deletes a key. Returns the changes with their versions, without those
    /// that had no effect.
    pub async fn publish(&self, changes: &[(String, Option<String>)]) -> Vec<Entry> {
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
        published
    }

    /// Determines which runs are offered to peers, from the next message on: those that the last [`read`](Self::read)
    /// returned, each given with its number of earlier gossip starts.
    pub fn offer(&self, offer: impl Fn(&PeerId, u64) -> Offer) {
        let offers = self.listed.iter().map(|(run, id, incarnation)| (run.clone(), offer(id, *incarnation)));
        let offers: Vec<(ChitchatId, Offer)> = offers.collect();
        let live = offers.iter().zip(&self.versions).filter(|((_, offer), _)| *offer == Offer::Always);
        self.lag.set_known(live.map(|((run, _), version)| (run.clone(), *version)).collect());
        self.offers.store(Arc::new(offers));
    }

    /// Returns the changes that the peer of the last digest has and this node lacks; `None` if no digest has arrived since
    /// the last call.
    pub fn take_missing(&self) -> Option<Missing> {
        self.lag.take()
    }

    /// Returns access to the state for a bulk transfer.
    pub fn bulk_state(&self) -> BulkState {
        BulkState { chitchat: self.handle.chitchat(), offers: self.offers.clone(), news: self.news.clone() }
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
        self.versions.clear();
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
            self.listed.push((id.clone(), peer.clone(), incarnation));
            self.versions.push(state.max_version());
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

/// Reports whether a chitchat message starts an exchange.
pub fn starts_exchange(octets: &[u8]) -> bool {
    envelope::starts_exchange(octets)
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
