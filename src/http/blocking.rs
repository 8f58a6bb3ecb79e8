//! State that the API shows, and the indexes of blocking queries.
//!
//! A waiting query costs a timer and an entry under its [`Topic`]. A change wakes only the clients of the topics
//! that it touches: a change of another service wakes none of ten thousand clients that wait for one. Responses
//! are serialized once per version and shared, because clients that wait for the same part send the same request.

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Bytes;
use tokio::{
    sync::watch,
    task::yield_now,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::waiters::Waiters;
use crate::{
    clock::unix_now,
    config::AddressProblem,
    diagnostic::Reports,
    dns::zone::zone_problems::ZoneProblem,
    metrics::Http,
    model::{
        catalog::Catalog,
        event::{self, Event, Observed},
        journal::Journal,
        keyring::Keyring,
        maintenance::Maintenance,
        member::Membership,
        registered_name::RegisteredName,
    },
};

/// Most responses in the cache; the cache is cleared when it is full.
const MAX_CACHED: usize = 256;
/// Largest cached response, in octets.
const MAX_CACHED_LEN: usize = 1 << 20;
/// Delay before a query with an index ahead of ours is answered. The index comes from before a restart or from another
/// node; the delay limits the rate of clients that alternate between nodes.
const FUTURE_INDEX_PAUSE: Duration = Duration::from_secs(1);

/// Interval of events about rejected gossip packets, because anyone can send packets to a port.
const REJECTED_INTERVAL: Duration = Duration::from_secs(10);

/// The part of the state that a query waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    /// Names and tags of all services.
    ServiceNames,
    /// Instances of one service.
    Service(RegisteredName),
    /// Nodes that announce instances.
    Nodes,
    /// All announced instances.
    All,
    /// All announced instances, with the newest texts of this agent's checks. The texts have no version, so the responses are
    /// not cached.
    OwnChecks,
    /// Members of the cluster and their states.
    Members,
    /// Members, external nodes and their instances.
    AllNodes,
    /// This agent and the summary of its cluster.
    Agent,
    /// Inputs of an explanation: announcements, members and this agent. Other inputs of an explanation have no version,
    /// so its responses are not cached.
    Explain,
}

impl Topic {
    /// Reports whether two responses at one index are the same.
    pub(super) fn is_cacheable(&self) -> bool {
        !matches!(self, Self::OwnChecks | Self::Explain)
    }

    /// Returns the index of the topic's last change. For an unknown service, this is the last change of the service
    /// names.
    pub(super) fn index(&self, snapshot: &Snapshot) -> u64 {
        let versions = snapshot.catalog.versions();
        let index = match self {
            Self::ServiceNames => versions.names,
            Self::Service(name) => snapshot.catalog.service(name).map_or(versions.names, |service| service.version()),
            Self::Nodes => versions.nodes,
            Self::All | Self::OwnChecks => versions.all,
            Self::Members => snapshot.members_version,
            Self::Agent => snapshot.agent_version,
            // Grow with each of the two versions.
            Self::AllNodes => versions.all.saturating_add(snapshot.members_version - snapshot.first_version),
            Self::Explain => versions.all.saturating_add(snapshot.agent_version - snapshot.first_version),
        };
        index.max(1)
    }
}

/// Consistent state behind one response.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// Announcements of all nodes.
    pub(super) catalog: Catalog,
    /// Members of the cluster.
    pub(super) members: Arc<Membership>,
    /// Reports on the folders of this node.
    pub(super) files: Arc<Reports>,
    /// Maintenance and drains of this node.
    pub(super) maintenance: Maintenance,
    /// Problem of the advertised addresses.
    pub(super) address_problem: Option<AddressProblem>,
    /// Problems of zones that make validators refuse answers.
    pub(super) zone_problems: Arc<[ZoneProblem]>,
    /// Ids of the gossip keys, primary key first.
    keys: Vec<String>,
    /// Initial version of the members and the agent.
    first_version: u64,
    /// Version of the members.
    members_version: u64,
    /// Version of the agent's own state.
    agent_version: u64,
}

impl Snapshot {
    fn new(sources: &mut Sources) -> Self {
        let catalog = sources.catalog.borrow_and_update().clone();
        let first_version = catalog.versions().all;
        let keys = sources.keys.borrow_and_update();
        let keys = keys.iter().flat_map(Keyring::iter).map(|key| key.id().to_string()).collect();
        Self {
            catalog,
            members: sources.members.borrow_and_update().clone(),
            files: sources.files.borrow_and_update().clone(),
            maintenance: sources.maintenance.borrow_and_update().clone(),
            address_problem: *sources.address_problem.borrow_and_update(),
            zone_problems: sources.zone_problems.borrow_and_update().clone(),
            keys,
            first_version,
            members_version: first_version,
            agent_version: first_version,
        }
    }

    fn next(&self, sources: &mut Sources) -> Self {
        let now = Self::new(sources);
        let members = now.members.members != self.members.members;
        let agent = now.members != self.members
            || now.files != self.files
            || now.maintenance != self.maintenance
            || now.address_problem != self.address_problem
            || now.zone_problems != self.zone_problems
            || now.catalog.external_count() != self.catalog.external_count()
            || now.catalog.conflicts() != self.catalog.conflicts();
        let members_version = self.members_version + u64::from(members);
        let agent_version = self.agent_version + u64::from(agent);
        Self { first_version: self.first_version, members_version, agent_version, ..now }
    }

    fn observed(&self) -> Observed<'_> {
        Observed { catalog: &self.catalog, members: &self.members, files: &self.files, keys: &self.keys }
    }
}

/// Channels that the state is read from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Announcements of all nodes.
    pub catalog: watch::Receiver<Catalog>,
    /// Members of the cluster.
    pub members: watch::Receiver<Arc<Membership>>,
    /// Reports on the folders of this node.
    pub files: watch::Receiver<Arc<Reports>>,
    /// Maintenance and drains of this node.
    pub maintenance: watch::Receiver<Maintenance>,
    /// Gossip keys; `None`: gossip is not encrypted.
    pub keys: watch::Receiver<Option<Keyring>>,
    /// Problem of the advertised addresses.
    pub address_problem: watch::Receiver<Option<AddressProblem>>,
    /// Problems of zones that make validators refuse answers.
    pub zone_problems: watch::Receiver<Arc<[ZoneProblem]>>,
}

impl Sources {
    /// Waits for a change; returns `false` if a source has ended.
    async fn changed(&mut self) -> bool {
        let changed = tokio::select! {
            changed = self.catalog.changed() => changed,
            changed = self.members.changed() => changed,
            changed = self.files.changed() => changed,
            changed = self.maintenance.changed() => changed,
            changed = self.keys.changed() => changed,
            changed = self.address_problem.changed() => changed,
            changed = self.zone_problems.changed() => changed,
        };
        changed.is_ok()
    }
}

/// A cached response.
#[derive(Clone, Debug)]
pub(super) struct Cached {
    /// Index of the state that the response shows.
    pub(super) index: u64,
    /// Status line and header lines, without the date and the empty line.
    pub(super) head: Bytes,
    /// Body.
    pub(super) body: Bytes,
}

/// The part of the state that an endpoint shows, and the key of its responses in the cache.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Part of the state.
    pub(super) topic: Topic,
    /// Key of the responses in the cache; `None`: they are not cached.
    pub(super) cache_key: Option<String>,
}

/// Current state and its waiting clients. Shared by all requests.
#[derive(Debug)]
pub struct BlockingQueries {
    snapshot: watch::Sender<Arc<Snapshot>>,
    sources: Sources,
    waiters: Waiters<Topic>,
    cache: Mutex<HashMap<String, Cached>>,
    journal: watch::Sender<Journal>,
    metrics: Http,
    shutdown: CancellationToken,
}

impl BlockingQueries {
    /// Creates the state from the current values of `sources`. [`run`](Self::run) must run to update it. Waiting
    /// queries are counted in `metrics` and released at `shutdown`.
    pub fn new(mut sources: Sources, metrics: Http, shutdown: CancellationToken) -> Arc<Self> {
        let snapshot = Snapshot::new(&mut sources);
        let journal = watch::Sender::new(Journal::new(snapshot.catalog.versions().all));
        let snapshot = watch::Sender::new(Arc::new(snapshot));
        let (waiters, cache) = (Waiters::default(), Mutex::default());
        Arc::new(Self { snapshot, sources, waiters, cache, journal, metrics, shutdown })
    }

    /// Returns the current state.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Subscribes to the event journal. Writers block while it is borrowed.
    pub(super) fn journal(&self) -> watch::Receiver<Journal> {
        self.journal.subscribe()
    }

    /// Reports whether the agent is shutting down.
    pub(super) fn is_shutting_down(&self) -> bool {
        self.shutdown.is_cancelled()
    }

    /// Waits for the shutdown.
    pub(super) async fn shutting_down(&self) {
        self.shutdown.cancelled().await;
    }

    /// Applies changes of the sources, wakes the waiting queries and records events, until `shutdown`.
    pub async fn run(self: Arc<Self>) {
        self.follow_sources().await;
        // The sources may end before the servers. A query that is woken then waits again.
        self.shutting_down().await;
        self.waiters.wake_all();
    }

    async fn follow_sources(&self) {
        let mut sources = self.sources.clone();
        let mut rejected_timer = interval(REJECTED_INTERVAL);
        rejected_timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rejected = self.snapshot().members.rejected.clone();
        loop {
            let changed = tokio::select! {
                biased;
                () = self.shutting_down() => false,
                changed = sources.changed() => changed,
                _ = rejected_timer.tick() => {
                    let now = self.snapshot().members.rejected.clone();
                    self.record(|events| event::rejected(&rejected, &now, events));
                    rejected = now;
                    continue;
                }
                () = yield_now(), if self.waiters.are_due() => {
                    self.waiters.wake_batch();
                    continue;
                }
            };
            if !changed {
                return;
            }
            let before = self.snapshot();
            let now = Arc::new(before.next(&mut sources));
            self.snapshot.send_replace(now.clone());
            self.waiters.change(|topic| topic.index(&before) != topic.index(&now));
            self.waiters.wake_batch();
            self.record(|events| event::between(before.observed(), now.observed(), events));
        }
    }

    /// Records events in the journal.
    fn record(&self, events: impl FnOnce(&mut dyn FnMut(Event))) {
        let now = unix_now();
        self.journal.send_if_modified(|journal| {
            let before = journal.last();
            events(&mut |event| journal.add(now, event));
            journal.last() != before
        });
    }

    /// Waits until the topic's index differs from `seen`, at most for `wait`.
    pub(super) async fn wait_for_change(&self, topic: &Topic, seen: u64, wait: Duration) {
        let _waiting = self.metrics.waiting();
        let changed = async {
            if self.index(topic) < seen {
                sleep(FUTURE_INDEX_PAUSE).await;
            } else {
                self.changed(topic, seen).await;
            }
        };
        tokio::select! {
            _ = timeout(wait, changed) => {}
            () = self.shutting_down() => {}
        }
    }

    /// Waits until the topic's index differs from `seen`, or for the shutdown.
    pub(super) fn changed<'a>(&'a self, topic: &'a Topic, seen: u64) -> Change<'a> {
        Change { queries: self, topic, seen, ticket: None }
    }

    /// Waits until all clients of the change that is being announced have been woken.
    pub(super) async fn all_woken(&self) {
        poll_fn(|context| self.waiters.poll_all_woken(context)).await;
    }

    /// Returns the topic's current index.
    pub(super) fn index(&self, topic: &Topic) -> u64 {
        topic.index(&self.snapshot.borrow())
    }

    /// Waits until the catalog satisfies `predicate`, at most for `wait` and until the shutdown.
    pub(super) async fn wait_for_catalog(&self, predicate: impl Fn(&Catalog) -> bool, wait: Duration) {
        let mut snapshots = self.snapshot.subscribe();
        tokio::select! {
            _ = timeout(wait, snapshots.wait_for(|snapshot| predicate(&snapshot.catalog))) => {}
            // No snapshot follows. After a reload, the next servers begin with the change.
            () = self.shutting_down() => {}
        }
    }

    /// Waits until the topic's index differs from `seen`, or for the shutdown, as a waiting client that the metrics count.
    pub(super) async fn wait_for_change_of(&self, topic: &Topic, seen: u64) {
        let _waiting = self.metrics.waiting();
        self.changed(topic, seen).await;
    }

    /// Returns the cached response for the current state, to be shared with a client that waited for it.
    pub(super) fn shared(&self, source: &Source) -> Option<Cached> {
        let cached = self.cached(source.cache_key.as_deref()?, self.index(&source.topic))?;
        self.metrics.shared();
        Some(cached)
    }

    /// Returns the cached response to a request at an index.
    pub(super) fn cached(&self, key: &str, index: u64) -> Option<Cached> {
        self.cache_entries().get(key).filter(|cached| cached.index == index).cloned()
    }

    /// Caches a response to a request.
    pub(super) fn cache(&self, key: String, response: Cached) {
        if response.body.len() > MAX_CACHED_LEN {
            return;
        }
        let mut entries = self.cache_entries();
        if entries.len() >= MAX_CACHED {
            entries.clear();
        }
        entries.insert(key, response);
    }

    fn cache_entries(&self) -> MutexGuard<'_, HashMap<String, Cached>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until a topic's index differs from the one that the client has seen, or for the shutdown.
#[derive(Debug)]
pub(super) struct Change<'a> {
    queries: &'a BlockingQueries,
    topic: &'a Topic,
    seen: u64,
    ticket: Option<u64>,
}

impl Change<'_> {
    fn is_over(&self) -> bool {
        self.queries.index(self.topic) != self.seen || self.queries.is_shutting_down()
    }
}

impl Future for Change<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.is_over() {
            return Poll::Ready(());
        }
        self.ticket = Some(self.queries.waiters.register(self.topic, self.ticket, context.waker()));
        // A change before the registration wakes no one.
        if self.is_over() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.queries.waiters.remove(self.topic, ticket);
        }
    }
}
