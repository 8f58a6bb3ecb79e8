//! The node in its cluster: one task that owns what it believes of the others.
//!
//! ```text
//! our announcements ─► records ─► chitchat, push ─► link
//! link ─► chitchat, push ─► replicas ─┐
//! link ─► liveness ───────────────────┴─► view, membership
//! ```
//!
//! It decides nothing by itself: whether a peer lives is [`liveness`]'s, what a peer announces is
//! [`replica`](super::replica)'s, how state spreads is [`cluster`](super::anti_entropy)'s. What it owns is the order in which
//! they hear of things.

mod digest;
mod incoming;
mod join;
mod outgoing;
mod publish;
mod user_events;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use self::user_events::FireEvent;
use self::{
    digest::ViewDigests,
    join::{Found, Joining},
    user_events::Events,
};
use super::{
    anti_entropy::Cluster,
    channel::{self, Link, Outbox},
    key_rotation::{KeyringReport, Rotations},
    liveness::{self, Liveness, PeerState},
    message::{Identity, KeyringChange},
    rejected::Rejected,
    replica::Replica,
    seeds,
};
use crate::model::{
    announcement::{Announcements, Node},
    catalog::{Freshness, NodeView, View},
    keyring::Keyring,
    member::{Membership, PeerId, Reach},
    name::Label,
    service::Endpoint,
    user_event::{EventLog, UserEvent},
};

/// How long news wait for more: a burst of changes is read together.
const READ_TOGETHER: Duration = Duration::from_millis(2);
/// Messages that are taken in before what follows from them is worked out.
const TAKEN_TOGETHER: usize = 64;
/// Addresses to approach that wait.
const FOUND: usize = 64;
/// The pause before gossip is started anew, doubled each time up to the second. Where it has lasted for that long, the
/// next pause is the first one again.
const RESTART: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This run of this node, and where others reach it.
    pub own: Identity,
    /// What others learn of it.
    pub node: Arc<Node>,
    /// The version of the program.
    pub version: String,
    /// Seconds: with what this node answers instances that name no TTL.
    pub ttl: u32,
    /// Nodes with another name here do not listen to each other.
    pub cluster: String,
    /// From one round of gossip to the next.
    pub interval: Duration,
    /// How long nodes out of reach together are held.
    pub hold: Duration,
    /// Whom to look for.
    pub targets: seeds::Targets,
    /// For the choice of partners.
    pub seed: u64,
}

/// What a node takes in.
pub struct Inputs {
    /// Our own announcements.
    pub announcements: watch::Receiver<Announcements>,
    /// The network.
    pub link: Link,
    /// What operators ask for.
    pub orders: mpsc::Receiver<Command>,
    /// Counts records that break a bound, and frames that were not let in.
    pub rejected: Arc<Rejected>,
}

/// What a node gives out.
pub struct Outputs {
    /// Every node that is answered, and what it announces.
    pub view: watch::Sender<View>,
    /// Who is in the cluster.
    pub members: watch::Sender<Arc<Membership>>,
    /// Where peers that are reached gossip.
    pub peers: watch::Sender<BTreeSet<SocketAddr>>,
    /// The gossip keys; `None` while nothing is sealed.
    pub keyring: watch::Sender<Option<Keyring>>,
    /// User events that were meant for this node.
    pub events: watch::Sender<EventLog>,
}

/// What an operator asks for. Dropping `done` withdraws nothing.
#[derive(Debug)]
pub enum Command {
    /// Join the cluster that a node is in.
    Join {
        /// That node.
        target: Endpoint,
        /// Who answered, or why nobody did.
        done: oneshot::Sender<Result<Joined, String>>,
    },
    /// Say good-bye and end.
    Leave {
        /// Once it was said.
        done: oneshot::Sender<()>,
    },
    /// Have all nodes forget one that is gone.
    Dismiss {
        /// Its name.
        name: Label,
        /// Once they are told, or why they are not.
        done: oneshot::Sender<Result<(), ForgetError>>,
    },
    /// Make a user event known to all nodes.
    Fire {
        /// What.
        firing: FireEvent,
        /// The event, once it is on its way; dropped where it is out of bounds.
        done: oneshot::Sender<Arc<UserEvent>>,
    },
    /// Change or list the keys of all nodes.
    Keyring {
        /// What to do.
        change: KeyringChange,
        /// What the nodes said.
        done: oneshot::Sender<Result<KeyringReport, String>>,
    },
}

/// Why a node is not forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForgetError {
    /// It is the one that was asked.
    Itself,
    /// None of that name is known.
    Unknown,
    /// It is there: how it stands.
    Lives(Reach),
}

/// Whom a join has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// What the target stands for.
    pub asked: Vec<SocketAddr>,
    /// Who answered first.
    pub by: Identity,
}

/// Why a node has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With the agent, and has said good-bye.
    Stopped,
    /// It was ordered to, and has said good-bye.
    Left,
    /// Another node, which was there before, has its name.
    NameTaken(Identity),
    /// chitchat cannot be started: what it said.
    NoGossip(String),
}

/// The view of a node that has heard of nobody yet.
pub fn alone(node: &Arc<Node>, announcements: &Announcements) -> View {
    let view = NodeView { node: node.clone(), announcements: announcements.clone(), freshness: Freshness::Live };
    View::unit(node.name.clone(), Arc::new(view))
}

/// Takes part in the cluster until `shutdown`, an order to leave, or the name is found taken.
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
    /// How peers stood when it was last asked.
    standings: BTreeMap<Label, PeerState>,
    cluster: Cluster,
    news: Arc<Notify>,
    ended: Pin<Box<dyn Future<Output = String> + Send>>,
    to_cluster: mpsc::Sender<(SocketAddr, Vec<u8>)>,
    incarnation: u64,
    replicas: HashMap<PeerId, Known>,
    /// What was published of our own.
    published: Announcements,
    push_at: Instant,
    view: View,
    views: ViewDigests,
    /// Names whose part of the view may have changed.
    dirty: BTreeSet<Label>,
    /// The membership may have changed.
    changed: bool,
    joins: Vec<Joining>,
    found: (mpsc::Sender<Found>, mpsc::Receiver<Found>),
    rotations: Rotations,
    events: Events,
    /// The generation of another node with our name that was told to stop.
    namesake: Option<u64>,
}

/// What is known of a peer's announcements, by which start of its gossip.
#[derive(Default)]
struct Known {
    incarnation: u64,
    /// The highest heartbeat that gossip has brought.
    heartbeat: Option<u64>,
    /// When gossip last had it among its nodes.
    listed: Duration,
    replica: Replica,
}

impl Task {
    async fn start(settings: Settings, mut inputs: Inputs, outputs: Outputs) -> anyhow::Result<Self> {
        let outbox = inputs.link.outbox.clone();
        let published = inputs.announcements.borrow_and_update().clone();
        let (to_cluster, inbox) = channel::gossip();
        let cluster = Cluster::start(settings.cluster(0), settings.records(&published), outbox.clone(), inbox).await?;
        let started = Instant::now();
        let rng = fastrand::Rng::with_seed(settings.seed);
        let view = alone(&settings.node, &published);
        let views = ViewDigests::new(&view, started);
        let rotations = Rotations::new(settings.seed);
        let mut task = Self {
            liveness: Liveness::new(
                settings.own.id.clone(),
                liveness::Settings { interval: settings.interval, hold: settings.hold },
                rng,
            ),
            standings: BTreeMap::new(),
            news: cluster.news(),
            ended: Box::pin(cluster.ended()),
            settings,
            inputs,
            outputs,
            outbox,
            started,
            cluster,
            to_cluster,
            incarnation: 0,
            replicas: HashMap::new(),
            published,
            push_at: started,
            views,
            view,
            dirty: BTreeSet::new(),
            changed: true,
            joins: Vec::new(),
            found: mpsc::channel(FOUND),
            rotations,
            events: Events::default(),
            namesake: None,
        };
        task.show();
        task.outputs.view.send_replace(task.view.clone());
        Ok(task)
    }

    async fn run(mut self, shutdown: CancellationToken) -> End {
        self.look_for_others(&shutdown);
        let mut ticks = interval(self.settings.interval / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut news_read = Instant::now();
        let mut read_at: Option<Instant> = None;
        let mut arrived = Vec::with_capacity(TAKEN_TOGETHER);
        // Whether anybody may still change our announcements.
        let mut announced = true;
        // When gossip is started anew, after it has ended; and what the pause was.
        let (mut again, mut pause, mut steady) = (None::<Instant>, RESTART[0], Instant::now());
        loop {
            tokio::select! {
                1.. = self.inputs.link.inbound.recv_many(&mut arrived, TAKEN_TOGETHER) => {
                    for inbound in arrived.drain(..) {
                        if let Some(end) = self.receive(inbound) {
                            return end;
                        }
                    }
                }
                // A burst of changes is read together. Messages are taken in meanwhile: gossip itself is among them.
                () = self.news.notified(), if read_at.is_none() => read_at = Some(Instant::now() + READ_TOGETHER),
                () = sleep_until(read_at.unwrap_or_else(Instant::now)), if read_at.is_some() => {
                    read_at = None;
                    self.read().await;
                }
                _ = ticks.tick() => {
                    self.liveness.tick(self.now());
                    if news_read.elapsed() >= self.settings.interval / 2 {
                        news_read = Instant::now();
                        self.read().await;
                        self.reconnect();
                    }
                    self.give_up_joins();
                    self.rotations.tick(&self.outbox);
                    self.compare_views().await;
                    self.show();
                }
                changed = self.inputs.announcements.changed(), if announced && Instant::now() >= self.push_at => {
                    // Whoever announces may end before us: what was said stands.
                    announced = changed.is_ok();
                    if announced {
                        self.publish().await;
                    }
                }
                () = sleep_until(self.push_at), if Instant::now() < self.push_at => {}
                Some(found) = self.found.1.recv() => self.approach(found),
                Some(order) = self.inputs.orders.recv() => {
                    if let Some(done) = self.order(order).await {
                        self.say_goodbye().await;
                        let _ = done.send(());
                        return End::Left;
                    }
                }
                why = &mut self.ended, if again.is_none() => {
                    warn!(%why, "gossip has ended by itself and is started anew");
                    let now = Instant::now();
                    pause = if now >= steady { RESTART[0] } else { (pause * 2).min(RESTART[1]) };
                    again = Some(now + pause);
                }
                // Peers go on being answered meanwhile: to them we are there.
                () = sleep_until(again.unwrap_or(self.started)), if again.is_some() => {
                    if let Err(error) = self.restart().await {
                        return End::NoGossip(error.to_string());
                    }
                    (again, steady) = (None, Instant::now() + RESTART[1]);
                }
                () = shutdown.cancelled() => {
                    self.say_goodbye().await;
                    return End::Stopped;
                }
            }
            self.act();
            self.update_view();
        }
    }
}
