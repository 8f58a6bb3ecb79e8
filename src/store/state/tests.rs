//! Scenarios of the state: Consul's operations, etcd's transactions, lifetimes, limits, snapshots, and a comparison with a
//! naive model.

mod consul;
mod etcd;
mod lifetimes;
mod limits;
mod model;
mod snapshots;

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::store::{
    command::{
        Operation, OperationFailureReason, Put, PutLease, Transaction, TransactionOutcome, TransactionRequest,
        TransactionResponse,
    },
    entry::KeyEntry,
    key::KeyRange,
    query::{Answer, Content, Query, Range, RangeAnswer},
    session::Behavior,
};

/// A limit that the tests do not reach.
const AMPLE: u64 = 1 << 30;

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn value(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

fn session_id(number: u128) -> SessionId {
    SessionId(Uuid::from_u128(number))
}

fn session(number: u128) -> Session {
    Session {
        id: session_id(number),
        name: String::new(),
        node: "host-a".to_owned(),
        ends_with_node: true,
        node_checks: vec![],
        service_checks: vec![],
        lock_delay: Duration::ZERO,
        behavior: Behavior::Release,
        ttl: Some(Duration::from_secs(10)),
        created: Revision(0),
    }
}

fn set(text: &str, content: &str) -> Operation {
    Operation::Set { key: key(text), value: value(content), flags: 0 }
}

fn lock(text: &str, content: &str, number: u128) -> Operation {
    Operation::Lock { key: key(text), value: value(content), flags: 0, session: session_id(number) }
}

fn unlock(text: &str, content: &str, number: u128) -> Operation {
    Operation::Unlock { key: key(text), value: value(content), flags: 0, session: session_id(number) }
}

fn put(text: &str, content: &str) -> TransactionRequest {
    put_with(text, content, PutLease::Detach)
}

fn put_with(text: &str, content: &str, lease: PutLease) -> TransactionRequest {
    TransactionRequest::Put(Put { key: key(text), value: Some(value(content)), lease, with_previous: false })
}

fn delete(range: KeyRange) -> TransactionRequest {
    TransactionRequest::Delete { range, with_previous: false }
}

fn requests(success: Vec<TransactionRequest>) -> Transaction {
    Transaction { success, ..Transaction::default() }
}

/// A state with what the tests do to it and ask of it. Commands must succeed unless a method says otherwise.
#[derive(Debug)]
struct Scenario {
    state: State,
}

impl Scenario {
    fn new() -> Self {
        Self { state: State::new(AMPLE) }
    }

    /// Applies a command and returns the revision.
    fn apply(&mut self, command: Command) -> u64 {
        let outcome = self.state.apply(command);
        assert!(!matches!(outcome.result, Err(_) | Ok(Done::Failed(_))), "{outcome:?}");
        outcome.revision.0
    }

    /// Carries out an operation and returns the revision.
    fn operate(&mut self, operation: Operation) -> u64 {
        self.apply(Command::Operate(vec![operation]))
    }

    /// Carries out an operation that must fail and change nothing.
    fn fails(&mut self, operation: Operation) -> OperationFailureReason {
        let before = self.state.clone();
        let outcome = self.state.apply(Command::Operate(vec![operation]));
        assert_eq!(self.state, before);
        match outcome.result {
            Ok(Done::Failed(mut failures)) => failures.remove(0).reason,
            other => panic!("{other:?}"),
        }
    }

    /// Applies a command that must be refused and change nothing.
    fn refused(&mut self, command: Command) -> Refusal {
        let before = self.state.clone();
        let outcome = self.state.apply(command);
        assert_eq!(self.state, before);
        outcome.result.unwrap_err()
    }

    fn transact(&mut self, transaction: Transaction) -> TransactionOutcome {
        match self.state.apply(Command::Transact(transaction)).result {
            Ok(Done::Transacted(outcome)) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn grant(&mut self, id: i64, ttl: u64) -> u64 {
        self.apply(Command::GrantLease { id: LeaseId(id), ttl })
    }

    fn entry(&self, text: &str) -> Option<Entry> {
        self.state.keys.get(&key(text)).map(|entry| (**entry).clone())
    }

    /// Keys and values of the state, as text.
    fn content(&self) -> String {
        self.range(&Range::all(KeyRange::ALL)).0
    }

    /// Keys and values of a range as text, and the whole answer.
    fn range(&self, range: &Range) -> (String, RangeAnswer) {
        let Content::Range(answer) = self.state.read(&Query::Range(range.clone())).unwrap().content else { panic!() };
        (text_of(&answer.entries), answer)
    }

    fn ask(&self, query: &Query) -> Answer {
        self.state.read(query).unwrap()
    }

    fn index(&self, query: &Query) -> u64 {
        self.ask(query).index
    }

    /// Changes after a revision, as text: `2 a=1` or `3 a deleted`.
    fn changes(&self, after: u64) -> Vec<String> {
        let text = |change: &Change| match &change.entry {
            Some(entry) => format!("{} {}={}", change.revision, change.key, entry.value.escape_ascii()),
            None => format!("{} {} deleted", change.revision, change.key),
        };
        self.state.changes(Revision(after)).map(text).collect()
    }
}

fn text_of(entries: &[KeyEntry]) -> String {
    let text = |entry: &KeyEntry| format!("{}={}", entry.key, entry.entry.value.escape_ascii());
    entries.iter().map(text).collect::<Vec<_>>().join(" ")
}
