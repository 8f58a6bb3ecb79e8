//! What is shown, and who waits for news of which part of it: blocking queries.
//!
//! A query that waits costs a timer and a place in the list of its [`Topic`]. A change wakes the topics that
//! it touches and no others, so that ten thousand that wait for one service sleep while another flips. Answers are written
//! once a version and shared, since those who wait for the same thing ask the same question.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::body::Bytes;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    diagnostic::Reports,
    metrics::Http,
    model::{
        catalog::Catalog,
        event::{self, Event, Observed},
        journal::Journal,
        keyring::Keyring,
        maintenance::Maintenance,
        member::Membership,
        name::Label,
    },
};

/// Answers that are kept for others with the same question; when there are more, all go.
const MAX_WRITTEN: usize = 256;
/// Octets of an answer that is kept.
const MAX_KEPT: usize = 1 << 20;
/// A client whose index is ahead of ours has it from before a restart, or from another node. It is answered after this
/// pause, so that one that goes to two nodes in turn does not spin.
const AHEAD: Duration = Duration::from_secs(1);

/// From one word about what was not let in to the next: anybody can send packets to a port.
const REJECTED: Duration = Duration::from_secs(10);

/// What a query waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    /// The names of services and their tags.
    Names,
    /// One service.
    Service(Label),
    /// The nodes that announce something.
    Nodes,
    /// Everything that is announced.
    All,
    /// The nodes of the cluster, and how each stands.
    Members,
    /// This agent and how its cluster is.
    Agent,
    /// Everything that is announced, by whom, and what this agent is. What else an explanation looks at has no version, so
    /// that none is kept for others.
    Explained,
}

impl Topic {
    /// When it changed last. A service that is not there changed when the list of names did.
    pub(super) fn index(&self, known: &Snapshot) -> u64 {
        let versions = known.catalog.versions();
        let index = match self {
            Self::Names => versions.names,
            Self::Service(name) => known.catalog.service(name).map_or(versions.names, |service| service.version()),
            Self::Nodes => versions.nodes,
            Self::All => versions.all,
            Self::Members => known.members_version,
            Self::Agent => known.agent_version,
            // Grows with either.
            Self::Explained => versions.all.saturating_add(known.agent_version - known.began),
        };
        index.max(1)
    }
}

/// All that is shown, as of one moment.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// What all nodes announce.
    pub(super) catalog: Catalog,
    /// The cluster.
    pub(super) members: Arc<Membership>,
    /// What the files of this node come to.
    pub(super) files: Arc<Reports>,
    /// What is held back on this node.
    pub(super) maintenance: Maintenance,
    /// The ids of the gossip keys, the one that seals first.
    keys: Vec<String>,
    /// Where the versions of the members and of the agent began.
    began: u64,
    /// Grows with every change of a member.
    members_version: u64,
    /// Grows with every change of what is shown of the agent itself.
    agent_version: u64,
}

impl Snapshot {
    fn new(sources: &mut Sources) -> Self {
        let catalog = sources.catalog.borrow_and_update().clone();
        let begin = catalog.versions().all;
        let keys = sources.keys.borrow_and_update();
        let keys = keys.iter().flat_map(Keyring::iter).map(|key| key.id().to_string()).collect();
        Self {
            catalog,
            members: sources.members.borrow_and_update().clone(),
            files: sources.files.borrow_and_update().clone(),
            maintenance: sources.maintenance.borrow_and_update().clone(),
            keys,
            began: begin,
            members_version: begin,
            agent_version: begin,
        }
    }

    fn followed_by(&self, sources: &mut Sources) -> Self {
        let now = Self::new(sources);
        let members = now.members.members != self.members.members;
        let agent = now.members != self.members || now.files != self.files || now.maintenance != self.maintenance;
        let members_version = self.members_version + u64::from(members);
        let agent_version = self.agent_version + u64::from(agent);
        Self { began: self.began, members_version, agent_version, ..now }
    }

    fn seen(&self) -> Observed<'_> {
        Observed { catalog: &self.catalog, members: &self.members, files: &self.files, keys: &self.keys }
    }
}

/// Where what is shown comes from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// What all nodes announce.
    pub catalog: watch::Receiver<Catalog>,
    /// The cluster.
    pub members: watch::Receiver<Arc<Membership>>,
    /// What the files of this node come to.
    pub files: watch::Receiver<Arc<Reports>>,
    /// What is held back on this node.
    pub maintenance: watch::Receiver<Maintenance>,
    /// The gossip keys; `None` while nothing is sealed.
    pub keys: watch::Receiver<Option<Keyring>>,
}

impl Sources {
    /// Waits for news; whether there can be any.
    async fn changed(&mut self) -> bool {
        let changed = tokio::select! {
            changed = self.catalog.changed() => changed,
            changed = self.members.changed() => changed,
            changed = self.files.changed() => changed,
            changed = self.maintenance.changed() => changed,
            changed = self.keys.changed() => changed,
        };
        changed.is_ok()
    }
}

/// Shared by all requests.
#[derive(Debug)]
pub struct BlockingQueries {
    known: watch::Sender<Arc<Snapshot>>,
    sources: Sources,
    waiting: Mutex<HashMap<Topic, watch::Sender<u64>>>,
    written: Mutex<HashMap<(String, u64), Bytes>>,
    journal: watch::Sender<Journal>,
    metrics: Http,
    shutdown: CancellationToken,
}

impl BlockingQueries {
    /// Nobody waits yet. [`run`](Self::run) has to run. Who waits is counted in `metrics`. At `shutdown` nobody is kept
    /// waiting any more.
    pub fn new(mut sources: Sources, metrics: Http, shutdown: CancellationToken) -> Arc<Self> {
        let known = Snapshot::new(&mut sources);
        let journal = watch::Sender::new(Journal::new(known.catalog.versions().all));
        let known = watch::Sender::new(Arc::new(known));
        let (waiting, written) = (Mutex::default(), Mutex::default());
        Arc::new(Self { known, sources, waiting, written, journal, metrics, shutdown })
    }

    /// What is known now.
    pub(super) fn known(&self) -> Arc<Snapshot> {
        self.known.borrow().clone()
    }

    /// What happened last. Borrow it briefly: what happens meanwhile has to wait.
    pub(super) fn journal(&self) -> watch::Receiver<Journal> {
        self.journal.subscribe()
    }

    /// Whether the agent is about to end.
    pub(super) fn is_over(&self) -> bool {
        self.shutdown.is_cancelled()
    }

    /// Ends when the agent is about to.
    pub(super) async fn ended(&self) {
        self.shutdown.cancelled().await;
    }

    /// Takes over what is new, wakes those who wait for it, and writes down what happened, until `shutdown`.
    pub async fn run(self: Arc<Self>) {
        let mut sources = self.sources.clone();
        let mut looks = interval(REJECTED);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rejected = self.known().members.rejected.clone();
        loop {
            let changed = tokio::select! {
                changed = sources.changed() => changed,
                _ = looks.tick() => {
                    let now = self.known().members.rejected.clone();
                    self.note(|tell| event::rejected(&rejected, &now, tell));
                    rejected = now;
                    continue;
                }
                () = self.ended() => false,
            };
            if !changed {
                return;
            }
            let before = self.known();
            let now = Arc::new(before.followed_by(&mut sources));
            self.known.send_replace(now.clone());
            self.waiting().retain(|topic, waiting| {
                let index = topic.index(&now);
                waiting.send_if_modified(|known| std::mem::replace(known, index) != index);
                waiting.receiver_count() > 0
            });
            self.note(|tell| event::between(before.seen(), now.seen(), tell));
        }
    }

    /// Writes down what is told.
    fn note(&self, tell: impl FnOnce(&mut dyn FnMut(Event))) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.journal.send_if_modified(|journal| {
            let before = journal.last();
            tell(&mut |event| journal.add(now, event));
            journal.last() != before
        });
    }

    /// Waits until the topic is at another index than `seen`, or for as long as `wait`.
    pub(super) async fn changed(&self, topic: &Topic, seen: u64, wait: Duration) {
        let _waiting = self.metrics.waiting();
        let mut news = self.subscribe(topic);
        let index = topic.index(&self.known());
        let passed = async {
            if index < seen {
                sleep(AHEAD).await;
            } else if index == seen {
                // The sender stays as long as somebody waits.
                let _ = news.wait_for(|index| *index != seen).await;
            }
        };
        tokio::select! {
            _ = timeout(wait, passed) => {}
            () = self.ended() => {}
        }
    }

    /// Waits until the catalog is so, or for as long as `wait`.
    pub(super) async fn shows(&self, there: impl Fn(&Catalog) -> bool, wait: Duration) {
        let mut known = self.known.subscribe();
        let _ = timeout(wait, known.wait_for(|known| there(&known.catalog))).await;
    }

    fn subscribe(&self, topic: &Topic) -> watch::Receiver<u64> {
        // Taken before the caller looks at what is known, so that no change falls between the two.
        let index = topic.index(&self.known());
        self.waiting().entry(topic.clone()).or_insert_with(|| watch::Sender::new(index)).subscribe()
    }

    /// An answer to the same question at the same version.
    pub(super) fn written(&self, question: &str, version: u64) -> Option<Bytes> {
        self.answers().get(&(question.to_owned(), version)).cloned()
    }

    /// Keeps an answer for those who ask the same.
    pub(super) fn keep(&self, question: String, version: u64, answer: Bytes) {
        if answer.len() > MAX_KEPT {
            return;
        }
        let mut answers = self.answers();
        if answers.len() >= MAX_WRITTEN {
            answers.clear();
        }
        answers.insert((question, version), answer);
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Topic, watch::Sender<u64>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<(String, u64), Bytes>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
