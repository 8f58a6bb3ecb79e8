//! Who waits for what: blocking queries.
//!
//! A query that waits costs a timer and a place in the list of its [`Topic`]. A change of the catalog wakes the topics that
//! it touches and no others, so that ten thousand that wait for one service sleep while another flips. Answers are written
//! once a version and shared, since those who wait for the same thing ask the same question.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::body::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::Http,
    model::{catalog::Catalog, name::Label},
};

/// Answers that are kept for others with the same question; when there are more, all go.
const MAX_WRITTEN: usize = 256;
/// Octets of an answer that is kept.
const MAX_KEPT: usize = 1 << 20;
/// A client whose index is ahead of ours has it from before a restart, or from another node. It is answered after this
/// pause, so that one that goes to two nodes in turn does not spin.
const AHEAD: Duration = Duration::from_secs(1);

/// What a query waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    /// The names of services and their tags.
    Names,
    /// One service.
    Service(Label),
    /// The nodes.
    Nodes,
    /// Everything.
    All,
    /// Everything, and what has no version, such as how members stand: what is written of it is for this moment alone.
    Moment,
}

impl Topic {
    /// When it changed last. A service that is not there changed when the list of names did.
    pub(super) fn index(&self, catalog: &Catalog) -> u64 {
        let versions = catalog.versions();
        let index = match self {
            Self::Names => versions.names,
            Self::Service(name) => catalog.service(name).map_or(versions.names, |service| service.version()),
            Self::Nodes => versions.nodes,
            Self::All | Self::Moment => versions.all,
        };
        index.max(1)
    }
}

/// Shared by all requests.
#[derive(Debug)]
pub struct Hub {
    catalog: watch::Receiver<Catalog>,
    waiting: Mutex<HashMap<Topic, watch::Sender<u64>>>,
    written: Mutex<HashMap<(String, u64), Bytes>>,
    metrics: Http,
}

impl Hub {
    /// Nobody waits yet. [`run`](Self::run) has to run. Who waits is counted in `metrics`.
    pub fn new(catalog: watch::Receiver<Catalog>, metrics: Http) -> Arc<Self> {
        Arc::new(Self { catalog, waiting: Mutex::default(), written: Mutex::default(), metrics })
    }

    /// What is known now.
    pub(super) fn catalog(&self) -> Catalog {
        self.catalog.borrow().clone()
    }

    /// Wakes those who wait, until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut catalog = self.catalog.clone();
        loop {
            let changed = tokio::select! {
                changed = catalog.changed() => changed.is_ok(),
                () = shutdown.cancelled() => false,
            };
            if !changed {
                return;
            }
            let now = catalog.borrow_and_update().clone();
            self.waiting().retain(|topic, waiting| {
                let index = topic.index(&now);
                waiting.send_if_modified(|known| std::mem::replace(known, index) != index);
                waiting.receiver_count() > 0
            });
        }
    }

    /// Waits until the topic is at another index than `seen`, or for as long as `wait`.
    pub(super) async fn changed(&self, topic: &Topic, seen: u64, wait: Duration) {
        let _waiting = self.metrics.waiting();
        let deadline = Instant::now() + wait;
        let mut news = self.subscribe(topic);
        let index = topic.index(&self.catalog.borrow());
        if index < seen {
            sleep(AHEAD.min(wait)).await;
        }
        if index != seen {
            return;
        }
        let passed = news.wait_for(|index| *index != seen);
        let _ = timeout_at(deadline, passed).await;
    }

    /// Waits until the catalog is so, or for as long as `wait`.
    pub(super) async fn shows(&self, there: impl Fn(&Catalog) -> bool, wait: Duration) {
        let mut catalog = self.catalog.clone();
        let _ = timeout_at(Instant::now() + wait, catalog.wait_for(there)).await;
    }

    fn subscribe(&self, topic: &Topic) -> watch::Receiver<u64> {
        // Taken before the catalog is looked at, so that no change falls between the two.
        let index = topic.index(&self.catalog.borrow());
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
