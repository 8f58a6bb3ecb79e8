//! chitchat, wrapped: how the state of every node reaches every other (anti-entropy after Scuttlebutt).
//!
//! This is the one module that knows chitchat. It offers what the rest of gossip needs and no more: change our own keys,
//! talk to an address, read what moved since the last time. Who is alive is decided elsewhere
//! ([`liveness`](super::liveness)): of chitchat's own failure detector only the choice of partners for gossip is used.
//!
//! chitchat's task can end while the process lives (a digest beyond a datagram, a peer's key that begins with something
//! other than ASCII). [`Cluster::ended`] tells, and whoever owns the cluster starts another with a new generation.

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

use self::transport::Envelopes;
use super::{
    channel::{Inbox, Outbox},
    replica::Change,
};
use crate::model::{
    member::{INCARNATIONS, PeerId},
    name::Label,
};

mod transport;

/// phi beyond which chitchat no longer picks a node for gossip: 8 intervals of silence, as its own default.
const PHI: f64 = 8.0;
/// Heartbeats that the mean interval is taken from: 20 s at the default interval, so that it follows the network.
const WINDOW: usize = 100;
/// A pause between heartbeats that counts as an interval, in gossip intervals; longer ones were an outage.
const LONGEST_INTERVAL: u32 = 10;
/// How long the state of a node that is gone is kept by chitchat; half of it in the digest. Every restart of an agent
/// leaves one behind. A node that comes back later brings its state anew.
const DEAD_NODE_GRACE: Duration = Duration::from_secs(180);
/// How long the tombstone of a deleted key is kept. A node that was cut off for longer gets the whole state anew.
const TOMBSTONE_GRACE: Duration = Duration::from_secs(600);

/// What a cluster is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This run of this node.
    pub id: PeerId,
    /// How often gossip was started before within this run; below [`INCARNATIONS`].
    pub incarnation: u64,
    /// Where others reach our gossip.
    pub address: SocketAddr,
    /// Nodes with another name here do not listen to each other.
    pub cluster: String,
    /// From one round to the next.
    pub interval: Duration,
}

/// What is known of one run of one node, ourselves excepted.
#[derive(Debug)]
pub struct Peer {
    /// Which.
    pub id: PeerId,
    /// How often its gossip was started before: versions count from one in each.
    pub incarnation: u64,
    /// Where it says that it gossips.
    pub address: SocketAddr,
    /// Grows while it lives.
    pub heartbeat: u64,
    /// What moved since the last reading; `None`: nothing.
    pub moved: Option<Moved>,
}

/// Keys of a node that moved.
#[derive(Debug)]
pub struct Moved {
    /// All changes of the node up to this version are known.
    pub version: u64,
    /// The entries are all that there is: what is not among them is gone.
    pub whole: bool,
    /// In order of version.
    pub entries: Vec<Entry>,
}

/// A key of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: String,
    /// Of the change that gave it this value.
    pub version: u64,
    /// `None`: deleted.
    pub value: Option<String>,
}

impl Entry {
    /// The same, borrowed.
    pub fn as_change(&self) -> Change<'_> {
        Change { key: &self.key, version: self.version, value: self.value.as_deref() }
    }
}

/// A running chitchat.
pub struct Cluster {
    handle: ChitchatHandle,
    news: Arc<Notify>,
    read: HashMap<ChitchatId, Versions>,
    _listener: ListenerHandle,
}

/// What was read of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Versions {
    max: u64,
    collected: u64,
}

impl Cluster {
    /// Starts to gossip over the link with these keys of our own.
    ///
    /// # Errors
    /// Loopback sockets cannot be had: chitchat's codec needs two.
    pub async fn start(
        settings: Settings,
        own: Vec<(String, String)>,
        outbox: Outbox,
        inbox: Inbox,
    ) -> anyhow::Result<Self> {
        let interval = settings.interval;
        let config = ChitchatConfig {
            chitchat_id: chitchat_id(&settings.id, settings.incarnation, settings.address),
            cluster_id: settings.cluster,
            gossip_interval: interval,
            // Our transport has an address of its own.
            listen_addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            // Whom to join is retried and resolved by `join`, without a limit on how often.
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
            // chitchat hands the whole state of all live nodes to a watcher whenever anything changes. Nobody watches,
            // and at 100,000 instances the copy would be most of the work: no node passes.
            extra_liveness_predicate: Some(Box::new(|_| false)),
            protocol_version: ProtocolVersion::V1,
        };
        let transport = Envelopes::new(outbox, inbox);
        let handle = spawn_chitchat(config, own, &transport).await?;
        let news = Arc::new(Notify::new());
        let notified = news.clone();
        // Runs under chitchat's lock, so it does nothing but wake.
        let listen = move |chitchat: &mut Chitchat| {
            let notified = notified.clone();
            chitchat.subscribe_event("", move |_| notified.notify_one())
        };
        let listener = handle.with_chitchat(listen).await;
        Ok(Self { handle, news, read: HashMap::new(), _listener: listener })
    }

    /// Waits until a key of any node has a new value. Deleted keys and heartbeats do not wake: read once a round as well.
    pub fn news(&self) -> Arc<Notify> {
        self.news.clone()
    }

    /// Waits until chitchat's task has ended, and says why.
    pub fn ended(&self) -> impl Future<Output = String> + use<> {
        let watcher = self.handle.termination_watcher();
        async move { watcher.await.err().map_or_else(|| "it was stopped".to_owned(), |error| error.to_string()) }
    }

    /// Exchanges states with the node at that address, now.
    pub fn talk_to(&self, address: SocketAddr) {
        // Fails only when the task has ended, which `ended` tells.
        let _ = self.handle.gossip(address);
    }

    /// Changes keys of our own, in this order; `None` deletes. Returns the changes with their versions, without those that
    /// were so before.
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

    /// All nodes but ourselves, each with what moved since it was last read. Costs what moved, and a look at each node.
    pub async fn read(&mut self) -> Vec<Peer> {
        let chitchat = self.handle.chitchat();
        let chitchat = chitchat.lock().await;
        let own = chitchat.self_chitchat_id();
        let states = chitchat.node_states();
        let mut peers = Vec::with_capacity(states.len());
        for (id, state) in states.iter().filter(|(id, _)| *id != own) {
            // A name that is none is nobody's that runs muster.
            let Ok(name) = Label::parse(&id.node_id) else { continue };
            let moved = moved(state, self.read.get(id).copied());
            if moved.is_some() {
                let versions = Versions { max: state.max_version(), collected: state.last_gc_version() };
                self.read.insert(id.clone(), versions);
            }
            let incarnation = id.generation_id % INCARNATIONS;
            peers.push(Peer {
                id: PeerId { name, generation: id.generation_id - incarnation },
                incarnation,
                address: id.gossip_advertise_addr,
                heartbeat: state.heartbeat().into(),
                moved,
            });
        }
        if self.read.len() > states.len() {
            self.read.retain(|id, _| states.contains_key(id));
        }
        peers
    }

    /// Ends chitchat's task.
    pub async fn stop(self) {
        // It can only have ended before.
        let _ = self.handle.shutdown().await;
    }
}

fn chitchat_id(id: &PeerId, incarnation: u64, address: SocketAddr) -> ChitchatId {
    ChitchatId::new(id.name.as_str(), id.generation + incarnation, address)
}

/// What moved in a node's state.
fn moved(state: &NodeState, read: Option<Versions>) -> Option<Moved> {
    let (max, collected) = (state.max_version(), state.last_gc_version());
    // After a reset the state comes anew, in parts; until it is whole, what was read before stands.
    if collected > max {
        return None;
    }
    let read = read.unwrap_or(Versions { max: 0, collected: 0 });
    let whole = collected > read.max;
    if max == read.max && !whole {
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
    Some(Moved { version: max, whole, entries })
}
