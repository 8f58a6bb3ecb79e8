//! The node: one task that owns the state of its cluster.
//!
//! ```text
//! own announcements ─► records ─► chitchat, push ─► link
//! link ─► chitchat, push ─► replicas ─┐
//! link ─► liveness ───────────────────┴─► view, membership
//! ```
//!
//! The task makes no decisions of its own. [`liveness`] decides which peers are alive, [`replica`](super::peer_replica) what a
//! peer announces, and [`anti_entropy`](super::anti_entropy) how state spreads. The task determines the order of their
//! updates.

mod agreement;
mod bulk;
mod divergence;
mod handover;
mod incoming;
mod join;
mod keys;
mod missing;
mod names;
mod outgoing;
mod publish;
mod repeat;
mod serials;
mod ticks;
mod user_events;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use self::handover::{initial_view, initial_zone_serials};
use self::{
    agreement::Agreement,
    bulk::Bulk,
    divergence::ViewDigests,
    join::{Found, Joining},
    missing::Missing,
    names::Names,
    repeat::Repeats,
    serials::{Ceilings, SERIAL_INTERVAL},
    ticks::Ticks,
    user_events::Events,
};
use super::{
    anti_entropy::Cluster,
    command::Command,
    key_rotation::Rotations,
    known_peer::KnownPeer,
    link::{self, Link, Outbox},
    liveness::{self, Liveness, PeerState},
    message::Identity,
    peer_replica::Replica,
    rejected::Rejected,
    seeds,
};
use crate::metrics::Gossip;
use crate::model::{
    announcement::{Announcements, HealthReport, Node},
    catalog::{Freshness, NodeView, View},
    external_node::ExternalNodes,
    keyring::Keyring,
    member::{Membership, PeerId},
    name::Label,
    shared_lists::SharedLists,
    user_event::EventLog,
};
use crate::record::Record;

/// Time that new gossip waits for more, so that a burst of changes is read together.
const READ_DELAY: Duration = Duration::from_millis(2);
/// Largest number of messages that are processed before the view is updated.
const RECEIVE_BATCH: usize = 64;
/// Capacity of the queue of addresses to contact.
const FOUND: usize = 64;
/// First and longest pause before gossip is restarted; the pause doubles each time. After gossip has run for the longest
/// pause, the next pause is the first one again.
const RESTART: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];
/// Settings of a node.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Run of this node and its advertised address.
    pub own: Identity,
    /// Node data published to peers.
    pub node: Arc<Node>,
    /// Version of muster.
    pub version: String,
    /// TTL in seconds of this node's instances that specify none.
    pub ttl: u32,
    /// Cluster name. Nodes with different names ignore each other.
    pub cluster: String,
    /// Interval of probes and of repeated pushes, and of exchanges while states differ.
    pub interval: Duration,
    /// Time that nodes are held that became unreachable together.
    pub hold: Duration,
    /// Time that a node that announced a restart is held.
    pub restart_hold: Duration,
    /// Number of earlier gossip starts within this run.
    pub incarnation: u64,
    /// Age of this run at this start; zero unless the run goes on.
    pub age: Duration,
    /// Peers known from an earlier start.
    pub known: Vec<KnownPeer>,
    /// True if this run goes on: the known peers are as they were a moment ago. Otherwise they are answered as last known
    /// until they respond.
    pub continues: bool,
    /// Seeds and remembered peers.
    pub targets: seeds::Targets,
    /// Seed of the random number generator that selects partners.
    pub seed: u64,
}

/// State that a node announces, of one moment: what belongs together reaches the catalogs of all nodes as one change.
#[derive(Clone, Debug, Default)]
pub struct OwnState {
    /// Instances.
    pub announcements: Announcements,
    /// External nodes of which the node is the owner.
    pub external: ExternalNodes,
    /// Results of the checks of the node as a whole, and its maintenance.
    pub node_checks: Option<Arc<HealthReport>>,
}

/// Inputs of a node.
pub struct Inputs {
    /// State that the node announces.
    pub own: watch::Receiver<OwnState>,
    /// Channels to the network.
    pub link: Link,
    /// Commands of operators and clients.
    pub commands: mpsc::Receiver<Command>,
    /// Counters of rejected frames and records.
    pub rejected: Arc<Rejected>,
    /// Metrics that show the size of the replicated state.
    pub metrics: Gossip,
    /// Bound that the own SOA serials do not exceed.
    pub serial_ceiling: watch::Receiver<u32>,
    /// SOA serial of the generated zones; `None` if this node serves no transfers.
    pub zone_serial: watch::Receiver<Option<u32>>,
}

/// Outputs of a node.
pub struct Outputs {
    /// Nodes whose instances are answered, with their announcements.
    pub view: watch::Sender<View>,
    /// Members of the cluster.
    pub members: watch::Sender<Arc<Membership>>,
    /// Gossip addresses of reachable peers.
    pub peers: watch::Sender<BTreeSet<SocketAddr>>,
    /// Gossip keys; `None` without encryption.
    pub keyring: watch::Sender<Option<Keyring>>,
    /// User events for this node.
    pub events: watch::Sender<EventLog>,
    /// True once the state of the cluster is complete. Before, it is that of [`Settings::known`], and of some peers.
    pub synced: watch::Sender<bool>,
    /// The latest bound of serials of former runs of this node that a peer has handed over.
    pub former_serial: watch::Sender<Option<u32>>,
    /// Serials of the generated zones by live peer that serves transfers.
    pub zone_serials: watch::Sender<Arc<BTreeMap<Label, u32>>>,
}

/// Reasons why a node has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The agent was shut down; the node announced its leave.
    Stopped,
    /// A command requested the leave; the node announced it.
    Left,
    /// A command requested the end without a leave: another start goes on.
    Suspended,
    /// An older node has this node's name.
    NameTaken(Identity),
    /// Peers know a higher generation of this node: it has to start again above that one.
    Superseded {
        /// Highest generation that peers know.
        above: u64,
    },
    /// chitchat cannot be started; holds its error.
    NoGossip(String),
}

/// The view of a node without peers.
fn alone(node: &Arc<Node>, announcements: &Announcements, external: &ExternalNodes) -> View {
    let (announcements, external) = (announcements.clone(), external.clone());
    let view = NodeView { node: node.clone(), announcements, external, freshness: Freshness::Live };
    View::unit(node.name.clone(), Arc::new(view))
}

/// Runs a node until `shutdown`, a command to leave, or a name conflict.
pub async fn run(settings: Settings, inputs: Inputs, outputs: Outputs, shutdown: CancellationToken) -> End {
    match Task::start(settings, inputs, outputs).await {
        Ok(task) => task.run(shutdown).await,
        Err(error) => End::NoGossip(error.to_string()),
    }
}

struct Task {
    settings: Settings,
    inputs: Inputs,
    outputs: Outputs,
    outbox: Outbox,
    started: Instant,
    liveness: Liveness,
    /// Peer states as last reported by `liveness`.
    peer_states: BTreeMap<Label, PeerState>,
    cluster: Cluster,
    agreement: Agreement,
    news: Arc<Notify>,
    ended: Pin<Box<dyn Future<Output = String> + Send>>,
    to_chitchat: mpsc::Sender<(SocketAddr, Vec<u8>)>,
    incarnation: u64,
    replicas: HashMap<PeerId, ReplicaState>,
    /// Lists of the instances of all peers.
    lists: SharedLists,
    /// Announcements last published.
    published: Announcements,
    /// External nodes last published.
    published_external: ExternalNodes,
    push_at: Instant,
    repeats: Repeats,
    view: View,
    views: ViewDigests,
    /// Names of nodes whose part of the view may have changed.
    dirty: BTreeSet<Label>,
    ticks: Ticks,
    /// True while a peer's whole state is arriving again.
    delivering: bool,
    /// True if the membership may have changed.
    changed: bool,
    joins: Vec<Joining>,
    found: (mpsc::Sender<Found>, mpsc::Receiver<Found>),
    rotations: Rotations,
    missing: Missing,
    ceilings: Ceilings,
    events: Events,
    names: Names,
    bulk: Bulk,
}

/// Replicated state of a peer.
#[derive(Default)]
struct ReplicaState {
    /// Number of earlier gossip starts within the peer's run.
    incarnation: u64,
    /// Highest gossiped heartbeat.
    heartbeat: Option<u64>,
    replica: Replica,
    /// Best freshness with which its announcements are shown; `None`: not before they are complete. They are live once this
    /// run's state has been complete.
    shown: Option<Freshness>,
    /// Version that gossip has to reach before the state counts as complete: the one known from an earlier start.
    awaited: u64,
    /// Time of the last change by gossip, and of the begin of a whole delivery.
    updated: Duration,
    redelivered: Duration,
}

impl Task {
    async fn start(mut settings: Settings, mut inputs: Inputs, outputs: Outputs) -> anyhow::Result<Self> {
        let own = inputs.own.borrow_and_update().clone();
        settings.set_node_checks(own.node_checks);
        let outbox = inputs.link.outbox.clone();
        let (published, published_external) = (own.announcements, own.external);
        let serial = Record::Serial(*inputs.serial_ceiling.borrow_and_update());
        let (to_chitchat, inbox) = link::gossip();
        let incarnation = settings.incarnation;
        let cluster = Cluster::start(
            settings.cluster(incarnation),
            settings.records(&published, &published_external, [serial.encode()].into_iter()),
            outbox.clone(),
            inbox,
            inputs.rejected.clone(),
        )
        .await?;
        let started = Instant::now();
        let mut rng = fastrand::Rng::with_seed(settings.seed);
        let agreement = Agreement::new(cluster.state(), rng.fork(), started);
        let view = alone(&settings.node, &published, &published_external);
        let views = ViewDigests::new(&view, started);
        let bulk = Bulk::new(settings.seed);
        let rotations = Rotations::new(settings.seed);
        let ceilings = Ceilings::new(*inputs.serial_ceiling.borrow());
        let missing = Missing::new(&settings.targets.remembered, settings.own.address, started);
        let mut task = Self {
            liveness: Liveness::new(
                settings.own.id.clone(),
                liveness::Settings {
                    interval: settings.interval,
                    hold: settings.hold,
                    restart_hold: settings.restart_hold,
                },
                rng,
            ),
            peer_states: BTreeMap::new(),
            news: cluster.news(),
            ended: Box::pin(cluster.ended()),
            settings,
            inputs,
            outputs,
            outbox,
            started,
            agreement,
            cluster,
            to_chitchat,
            incarnation,
            replicas: HashMap::new(),
            lists: SharedLists::default(),
            published,
            published_external,
            push_at: started,
            repeats: Repeats::default(),
            views,
            view,
            dirty: BTreeSet::new(),
            ticks: Ticks::new(started),
            delivering: false,
            changed: true,
            joins: Vec::new(),
            found: mpsc::channel(FOUND),
            rotations,
            missing,
            ceilings,
            events: Events::default(),
            names: Names::default(),
            bulk,
        };
        task.restore();
        task.publish_membership();
        task.update_view();
        task.outputs.view.send_replace(task.view.clone());
        Ok(task)
    }

    async fn run(mut self, shutdown: CancellationToken) -> End {
        self.start_joining(&shutdown);
        let mut read_at: Option<Instant> = None;
        let mut arrived = Vec::with_capacity(RECEIVE_BATCH);
        // False once the sender of own announcements is gone.
        let mut announcing = true;
        // False once the sender of the bound of serials, or of the serial itself, is gone.
        let (mut serving, mut transferring) = (true, true);
        // Earliest time of the next announcement of the serial.
        let mut serial_at = Instant::now();
        // Time of the next gossip restart, the pause before it, and the time from which gossip counts as stable.
        let (mut restart_at, mut pause, mut stable_at) = (None::<Instant>, RESTART[0], Instant::now());
        loop {
            let next_tick = self.next_tick();
            tokio::select! {
                1.. = self.inputs.link.inbound.recv_many(&mut arrived, RECEIVE_BATCH) => {
                    for inbound in arrived.drain(..) {
                        if let Some(end) = self.receive(inbound) {
                            return end;
                        }
                    }
                }
                // Changes are read in batches. Messages are processed meanwhile, chitchat's included.
                () = self.news.notified(), if read_at.is_none() => read_at = Some(Instant::now() + READ_DELAY),
                () = sleep_until(read_at.unwrap_or_else(Instant::now)), if read_at.is_some() => {
                    read_at = None;
                    self.read().await;
                }
                () = sleep_until(next_tick) => self.tick(&mut read_at).await,
                changed = self.inputs.own.changed(), if announcing && Instant::now() >= self.push_at => {
                    // The sender may end before the node; the last announcements remain valid.
                    announcing = changed.is_ok();
                    if announcing {
                        self.publish().await;
                    }
                }
                () = sleep_until(self.push_at), if Instant::now() < self.push_at => {}
                changed = self.inputs.serial_ceiling.changed(), if serving => {
                    serving = changed.is_ok();
                    if serving {
                        self.publish_ceiling().await;
                    }
                }
                changed = async {
                    sleep_until(serial_at).await;
                    self.inputs.zone_serial.changed().await
                }, if transferring => {
                    transferring = changed.is_ok();
                    if transferring {
                        serial_at = Instant::now() + SERIAL_INTERVAL;
                        self.publish_zone_serial().await;
                    }
                }
                Some(found) = self.found.1.recv() => self.contact(found),
                outcome = self.bulk.received() => self.finish_bulk(outcome),
                Some(command) = self.inputs.commands.recv() => {
                    if let Some(end) = self.carry_out(command).await {
                        return end;
                    }
                }
                why = &mut self.ended, if restart_at.is_none() => {
                    let now = Instant::now();
                    pause = if now >= stable_at { RESTART[0] } else { (pause * 2).min(RESTART[1]) };
                    warn!(%why, ?pause, "gossip has ended unexpectedly; restarting");
                    restart_at = Some(now + pause);
                }
                // Peers are answered meanwhile, so this node stays alive for them.
                () = sleep_until(restart_at.unwrap_or(self.started)), if restart_at.is_some() => {
                    if let Err(error) = self.restart().await {
                        return End::NoGossip(error.to_string());
                    }
                    (restart_at, stable_at) = (None, Instant::now() + RESTART[1]);
                }
                () = shutdown.cancelled() => {
                    self.announce(&Record::Left).await;
                    return End::Stopped;
                }
            }
            self.act();
            self.update_view();
            self.publish_synced();
        }
    }
}
