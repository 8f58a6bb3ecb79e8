//! Clients of all nodes that read and write the same keys by Consul's API, and record what they see.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use data_encoding::BASE64;
use serde_json::Value as Json;

use crate::{
    connection::{Connection, Failure},
    history::{Action, Operation, Value, is_linearizable},
};

/// Prefix of all keys.
pub(crate) const PREFIX: &str = "faults/";
/// Keys that are in use at the same time.
const KEYS: u64 = 24;
/// Operations on a key, after which another one takes its place: the search for an order stays short.
const OPERATIONS_PER_KEY: u64 = 200;
/// Longest pause of a client between two operations in milliseconds, so that many faults fall into few operations.
const THINKING: u64 = 15;
/// Pause of a client after a request without an answer: each may add an unknown outcome.
const PAUSE: Duration = Duration::from_millis(300);

/// An operation with its key, and what the client was told beside the value.
pub(crate) struct Recorded {
    pub(crate) key: String,
    pub(crate) operation: Operation,
    /// `ModifyIndex` of the value that was read.
    pub(crate) index: Option<u64>,
}

/// The workload: what all clients did and saw.
pub(crate) struct Workload {
    began: Instant,
    called: AtomicU64,
    completed: AtomicU64,
    values: AtomicU64,
    recorded: Mutex<Vec<Recorded>>,
    unexpected: Mutex<Vec<String>>,
    ends: AtomicBool,
}

/// Ends all clients when it is dropped, also after a failure of the test.
pub(crate) struct Ending<'a>(pub(crate) &'a Workload);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What a client has seen of a key: the value and its index; `(None, 0)`: absent.
type Seen = (Value, u64);

/// Outcome of an operation.
enum Outcome {
    /// The client was told; of a read, with an index.
    Known(Action, Option<u64>),
    /// The action may take effect.
    Unknown(Action),
    /// The action takes no effect.
    Nothing,
}

impl Workload {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            called: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            values: AtomicU64::new(1),
            recorded: Mutex::default(),
            unexpected: Mutex::default(),
            ends: AtomicBool::new(false),
        }
    }

    /// Ends all clients.
    pub(crate) fn end(&self) {
        self.ends.store(true, Relaxed);
    }

    /// Number of operations whose outcome is known.
    pub(crate) fn completed(&self) -> u64 {
        self.completed.load(Relaxed)
    }

    /// Nanoseconds since the start.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap()
    }

    /// Runs a client in the network of this thread until the end.
    pub(crate) fn run_client(&self, mut random: fastrand::Rng) {
        let mut connection = Connection::default();
        let mut seen = HashMap::<String, Seen>::new();
        while !self.ends.load(Relaxed) {
            thread::sleep(Duration::from_millis(random.u64(..THINKING)));
            let number = self.called.fetch_add(1, Relaxed);
            let key = format!("{PREFIX}{}-{}", number / (KEYS * OPERATIONS_PER_KEY), random.u64(..KEYS));
            let kind = random.u8(..10);
            let is_swap = kind > 6;
            if is_swap && !seen.contains_key(&key) {
                self.operate(&key, 0, &mut connection, &mut seen);
            }
            self.operate(&key, kind, &mut connection, &mut seen);
        }
    }

    /// Carries out an operation and records it.
    fn operate(&self, key: &str, kind: u8, connection: &mut Connection, seen: &mut HashMap<String, Seen>) {
        let called = self.now();
        let outcome = self.act(key, kind, connection, seen);
        let returned = self.now();
        let (action, index, returned) = match outcome {
            Outcome::Known(action, index) => (action, index, Some(returned)),
            Outcome::Unknown(action) => (action, None, None),
            Outcome::Nothing => return thread::sleep(PAUSE),
        };
        let operation = Operation { called, returned, action };
        self.recorded.lock().unwrap().push(Recorded { key: key.to_owned(), operation, index });
        match returned {
            Some(_) => drop(self.completed.fetch_add(1, Relaxed)),
            None => thread::sleep(PAUSE),
        }
    }

    fn act(&self, key: &str, kind: u8, connection: &mut Connection, seen: &mut HashMap<String, Seen>) -> Outcome {
        let new = self.values.fetch_add(1, Relaxed);
        let body = new.to_string();
        let path = format!("/v1/kv/{key}");
        let (reply, intended, expected) = match (kind, seen.get(key)) {
            (0..=3, _) => return self.read(key, kind < 2, connection, seen),
            (4 | 5, _) => (connection.ask("PUT", &path, &body), Action::Write(Some(new)), None),
            (6, _) | (_, None) => (connection.ask("DELETE", &path, ""), Action::Write(None), None),
            (_, Some((expected, index))) => {
                let swap = Action::Swap { expected: *expected, new: Some(new) };
                (connection.ask("PUT", &format!("{path}?cas={index}"), &body), swap, Some(*expected))
            }
        };
        // The index of the own write is not known, so the next swap reads first.
        seen.remove(key);
        match reply {
            Ok(reply) if reply.status == 200 && reply.body == "true" => Outcome::Known(intended, None),
            Ok(reply) if reply.status == 200 && reply.body == "false" => match expected {
                Some(expected) => Outcome::Known(Action::Mismatch { expected, found: None }, None),
                None => self.unexpected("false without a condition"),
            },
            Ok(reply) if is_without_leader(reply.status, &reply.body) => Outcome::Unknown(intended),
            Ok(reply) => self.unexpected(&format!("{} {}", reply.status, reply.body)),
            Err(Failure::NotSent) => Outcome::Nothing,
            Err(Failure::Unknown) => Outcome::Unknown(intended),
        }
    }

    fn read(
        &self,
        key: &str,
        is_consistent: bool,
        connection: &mut Connection,
        seen: &mut HashMap<String, Seen>,
    ) -> Outcome {
        let parameter = if is_consistent { "?consistent" } else { "" };
        let Ok(reply) = connection.ask("GET", &format!("/v1/kv/{key}{parameter}"), "") else { return Outcome::Nothing };
        let (value, index) = match reply.status {
            200 => entry(&reply.body),
            404 => (None, 0),
            _ if is_without_leader(reply.status, &reply.body) => return Outcome::Nothing,
            status => return self.unexpected(&format!("{status} {}", reply.body)),
        };
        assert!(value.is_none() || reply.index == Some(index), "{:?} of {key} at {index}", reply.index);
        seen.insert(key.to_owned(), (value, index));
        Outcome::Known(Action::Read(value), value.map(|_| index))
    }

    fn unexpected(&self, answer: &str) -> Outcome {
        self.unexpected.lock().unwrap().push(answer.to_owned());
        Outcome::Nothing
    }

    /// Takes what was recorded, after all clients have ended.
    pub(crate) fn finish(&self) -> Vec<Recorded> {
        let unexpected = self.unexpected.lock().unwrap();
        assert!(unexpected.is_empty(), "unexpected answers: {unexpected:?}");
        std::mem::take(&mut *self.recorded.lock().unwrap())
    }
}

fn is_without_leader(status: u16, body: &str) -> bool {
    status == 500 && body.starts_with("No cluster leader")
}

/// Value and index of the only entry in a response.
fn entry(body: &str) -> Seen {
    let entries: Json = serde_json::from_str(body).unwrap();
    let value = BASE64.decode(entries[0]["Value"].as_str().unwrap().as_bytes()).unwrap();
    (Some(number(&value)), entries[0]["ModifyIndex"].as_u64().unwrap())
}

/// The number that a value is.
pub(crate) fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

/// Asserts that an order of the operations on each key explains what the clients saw.
pub(crate) fn assert_linearizable(recorded: &[Recorded], context: &str) {
    let mut by_key = BTreeMap::<&str, Vec<Operation>>::new();
    for recorded in recorded {
        by_key.entry(&recorded.key).or_default().push(recorded.operation);
    }
    for (key, history) in &by_key {
        assert!(is_linearizable(history), "{context}: key {key} has no order: {history:#?}");
    }
}

/// Longest time within a period in which no write was acknowledged to any client.
pub(crate) fn longest_without_write(recorded: &[Recorded], period: &Range<u64>) -> Duration {
    let is_write = |action| matches!(action, Action::Write(_) | Action::Swap { .. });
    let written = recorded.iter().filter(|recorded| is_write(recorded.operation.action));
    let times = written.filter_map(|recorded| recorded.operation.returned).filter(|time| period.contains(time));
    let mut times: Vec<u64> = times.chain([period.start, period.end]).collect();
    times.sort_unstable();
    Duration::from_nanos(times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0))
}
