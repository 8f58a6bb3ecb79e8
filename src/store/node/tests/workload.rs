//! Clients of all nodes that read and write the same keys, and record what they saw.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    history::{Action, Operation, Value, is_linearizable},
    key,
};
use crate::store::{
    command::{
        Command, Comparison, Condition, Done, Operation as Change, OperationFailureReason, Outcome, Put, PutLease,
        Target, Transaction, TransactionRequest, TransactionResponse,
    },
    key::{KeyRange, Revision},
    query::{Consistency, Content, Query, Range},
    request::{Store, StoreError},
};

/// Keys that are in use at the same time.
const KEYS: u64 = 4;
/// Operations on a key, after which another one takes its place: the search for an order stays short.
const OPERATIONS_PER_KEY: u64 = 150;
/// Clients on each node.
const CLIENTS: u64 = 3;
/// Longest pause of a client between two operations in microseconds, so that many faults fall into few operations.
const THINKING: u64 = 4_000;
/// Pause of a client whose node does not run, or has no voter.
const PAUSE: Duration = Duration::from_millis(20);
/// Time after which a client gives up: longer than the store tries.
const LIMIT: Duration = Duration::from_secs(15);

/// The stores of the nodes that run, by name.
pub(super) type Stores = Arc<Mutex<BTreeMap<String, Store>>>;

/// An operation with its key, and the revision of the store that the client was told.
struct Recorded {
    key: String,
    operation: Operation,
    revision: Option<Revision>,
}

/// The workload: all clients, and what they recorded.
pub(super) struct Workload {
    operations: u64,
    began: Instant,
    count: AtomicU64,
    values: AtomicU64,
    recorded: Mutex<Vec<Recorded>>,
}

/// Counts of a workload that was checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) known: usize,
    pub(super) unknown: usize,
    pub(super) keys: usize,
}

/// What a client has seen of a key.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    value: Value,
    /// Revision of the last change; 0: absent.
    modified: u64,
}

impl Workload {
    pub(super) fn new(operations: u64) -> Arc<Self> {
        Arc::new(Self {
            operations,
            began: Instant::now(),
            count: AtomicU64::new(0),
            values: AtomicU64::new(1),
            recorded: Mutex::default(),
        })
    }

    /// Runs clients on all nodes until all operations were called.
    pub(super) async fn run(self: Arc<Self>, nodes: &[String], stores: Stores, seed: u64) {
        let mut clients = JoinSet::new();
        for (node, number) in nodes.iter().flat_map(|node| (0..CLIENTS).map(move |number| (node, number))) {
            let random = fastrand::Rng::with_seed(seed ^ (number + 1) << 32 ^ u64::from(node.as_bytes()[0]));
            clients.spawn(self.clone().client(node.clone(), stores.clone(), random));
        }
        while let Some(ended) = clients.join_next().await {
            ended.unwrap();
        }
    }

    /// Number of operations that were called.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    pub(super) fn is_over(&self) -> bool {
        self.count() >= self.operations
    }

    async fn client(self: Arc<Self>, node: String, stores: Stores, mut random: fastrand::Rng) {
        let mut seen = BTreeMap::<String, Seen>::new();
        while !self.is_over() {
            let Some(store) = stores.lock().unwrap().get(&node).cloned() else {
                sleep(PAUSE).await;
                continue;
            };
            sleep(Duration::from_micros(random.u64(..THINKING))).await;
            let number = self.count.fetch_add(1, Relaxed);
            let name = format!("{}/{}", number / (KEYS * OPERATIONS_PER_KEY), random.u64(..KEYS));
            let seen = seen.entry(name.clone()).or_default();
            let new = self.values.fetch_add(1, Relaxed);
            let called = self.now();
            let outcome = timeout(LIMIT, act(&store, &name, seen, new, random.u8(..10))).await;
            let returned = self.now();
            let (action, revision) = match outcome {
                Ok(Outcomes::Known(action, revision)) => (action, Some(revision)),
                Ok(Outcomes::Unknown(action)) => (action, None),
                Ok(Outcomes::Nothing) => {
                    sleep(PAUSE).await;
                    continue;
                }
                Err(_) => panic!("an operation takes longer than {LIMIT:?}"),
            };
            let operation = Operation { called, returned: revision.map(|_| returned), action };
            self.recorded.lock().unwrap().push(Recorded { key: name, operation, revision });
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap()
    }

    /// Checks what the clients saw: each key by itself, and the order of all revisions.
    pub(super) fn check(&self, seed: u64) -> Counts {
        let recorded = std::mem::take(&mut *self.recorded.lock().unwrap());
        let mut by_key = BTreeMap::<&str, Vec<Operation>>::new();
        for recorded in &recorded {
            by_key.entry(&recorded.key).or_default().push(recorded.operation);
        }
        for (key, history) in &by_key {
            assert!(is_linearizable(history), "seed {seed}: key {key} has no order: {history:#?}");
        }
        check_revisions(&recorded, seed);
        let known = recorded.iter().filter(|recorded| recorded.revision.is_some()).count();
        Counts { known, unknown: recorded.len() - known, keys: by_key.len() }
    }
}

/// Checks that no client is told a revision below one that any client was told before the call.
fn check_revisions(recorded: &[Recorded], seed: u64) {
    let mut events = Vec::new();
    for recorded in recorded {
        if let (Some(returned), Some(revision)) = (recorded.operation.returned, recorded.revision) {
            events.push((returned, None, recorded, revision));
            events.push((recorded.operation.called, Some(returned), recorded, revision));
        }
    }
    events.sort_by_key(|(time, ..)| *time);
    let mut told = Revision(0);
    for (_, call, recorded, revision) in events {
        if call.is_some() {
            assert!(revision >= told, "seed {seed}: revision {revision} after {told}: {:?}", recorded.operation);
        } else {
            told = told.max(revision);
        }
    }
}

/// Outcome of an operation.
enum Outcomes {
    /// The client was told, with a revision.
    Known(Action, Revision),
    /// The action may take effect.
    Unknown(Action),
    /// The action takes no effect.
    Nothing,
}

async fn act(store: &Store, name: &str, seen: &mut Seen, new: u64, kind: u8) -> Outcomes {
    let name = key(name);
    let value = Bytes::from(new.to_string());
    let expected = seen.value;
    let swap = Action::Swap { expected, new: Some(new) };
    let (command, intended) = match kind {
        0..=3 => return read(store, name, seen, kind.is_multiple_of(2)).await,
        4 | 5 => (Command::Operate(vec![Change::Set { key: name, value, flags: 0 }]), Action::Write(Some(new))),
        6 => (Command::Operate(vec![Change::Delete(name)]), Action::Write(None)),
        7 => {
            let change = Change::CompareAndSet { key: name, value, flags: 0, index: seen.modified };
            (Command::Operate(vec![change]), swap)
        }
        _ => (Command::Transact(transaction(name, value, seen.modified, kind == 9)), swap),
    };
    let outcome = match store.write(command).await {
        Ok(outcome) => outcome,
        Err(StoreError::Unreachable) => return Outcomes::Nothing,
        Err(_) => return Outcomes::Unknown(intended),
    };
    let Outcome { revision, result } = outcome;
    let action = match result.unwrap() {
        Done::Operated(entries) => {
            *seen = entries.first().map_or(Seen::default(), |entry| seen_of(&entry.entry));
            intended
        }
        Done::Failed(failures) => {
            let OperationFailureReason::Index(found) = failures[0].reason else { panic!("{failures:?}") };
            assert_ne!(found, seen.modified);
            Action::Mismatch { expected, found: (found == 0).then_some(None) }
        }
        Done::Transacted(outcome) if outcome.succeeded => {
            *seen = Seen { value: Some(new), modified: revision.0 };
            intended
        }
        Done::Transacted(outcome) => match outcome.responses.first() {
            Some(TransactionResponse::Range(answer)) => {
                *seen = answer.entries.first().map_or(Seen::default(), |entry| seen_of(&entry.entry));
                Action::Mismatch { expected, found: Some(seen.value) }
            }
            _ => Action::Mismatch { expected, found: None },
        },
        Done::Applied => panic!("a write has results"),
    };
    Outcomes::Known(action, revision)
}

/// etcd's comparison of the revision with a write, and a read or nothing otherwise.
fn transaction(name: crate::store::key::Key, value: Bytes, modified: u64, reads: bool) -> Transaction {
    let range = KeyRange::Key(name.clone());
    Transaction {
        conditions: vec![Condition {
            range: range.clone(),
            target: Target::Modified(i64::try_from(modified).unwrap()),
            comparison: Comparison::Equal,
        }],
        success: vec![TransactionRequest::Put(Put {
            key: name,
            value: Some(value),
            lease: PutLease::Detach,
            with_previous: false,
        })],
        failure: if reads { vec![TransactionRequest::Range(Range::all(range))] } else { Vec::new() },
    }
}

async fn read(store: &Store, name: crate::store::key::Key, seen: &mut Seen, is_consul: bool) -> Outcomes {
    let query = if is_consul { Query::Key(name) } else { Query::Range(Range::all(KeyRange::Key(name))) };
    let Ok(answer) = store.read(query, Consistency::Linearizable, None).await else { return Outcomes::Nothing };
    let entries = match answer.content {
        Content::Entries(entries) => entries,
        Content::Range(range) => range.entries,
        content => panic!("{content:?}"),
    };
    *seen = entries.first().map_or(Seen::default(), |entry| seen_of(&entry.entry));
    Outcomes::Known(Action::Read(seen.value), answer.revision)
}

fn seen_of(entry: &crate::store::entry::Entry) -> Seen {
    let value = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
    Seen { value: Some(value), modified: entry.modified.0 }
}
