//! A watch on each node by etcd's gateway: all see the same changes, each once, in the order of their revisions.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::{self, BufRead, BufReader, Write},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use data_encoding::BASE64;
use serde_json::{Value as Json, json};

use crate::{
    clients::{PREFIX, Recorded, number},
    connection::connect,
    history::{Action, Value},
};

/// Value of the last write, which no client writes.
pub(crate) const LAST: u64 = 0;
/// Time after which a watcher looks whether it should end.
const LOOK: Duration = Duration::from_millis(500);
/// Pause before another attempt.
const PAUSE: Duration = Duration::from_millis(50);

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) key: String,
    pub(crate) value: Value,
}

/// Watcher of one node.
#[derive(Default)]
pub(crate) struct Watcher {
    changes: Mutex<Vec<Change>>,
    ends: AtomicBool,
}

impl Watcher {
    /// Reports whether the write of [`LAST`] was seen.
    pub(crate) fn has_seen_last(&self) -> bool {
        self.changes.lock().unwrap().iter().any(|change| change.value == Some(LAST))
    }

    /// Ends the watcher.
    pub(crate) fn end(&self) {
        self.ends.store(true, Relaxed);
    }

    /// Watches in the network of this thread until the end, again behind the last change whenever a connection ends.
    pub(crate) fn run(&self) {
        while !self.ends.load(Relaxed) {
            let _ = self.follow();
            thread::sleep(PAUSE);
        }
    }

    fn follow(&self) -> io::Result<()> {
        let next = self.changes.lock().unwrap().last().map_or(1, |last| last.revision + 1);
        let mut end = PREFIX.as_bytes().to_vec();
        *end.last_mut().unwrap() += 1;
        let (key, end) = (BASE64.encode(PREFIX.as_bytes()), BASE64.encode(&end));
        let body = json!({"create_request": {"key": key, "range_end": end, "start_revision": next}}).to_string();
        let mut stream = connect(2379)?;
        stream.set_read_timeout(Some(LOOK))?;
        // The response of HTTP/1.0 is not chunked.
        write!(stream, "POST /v3/watch HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        let (mut stream, mut line) = (BufReader::new(stream), Vec::new());
        loop {
            match stream.read_until(b'\n', &mut line) {
                // The connection has ended, perhaps within a message.
                Ok(_) if !line.ends_with(b"\n") => return Ok(()),
                Ok(_) => {
                    if line.starts_with(b"{") {
                        self.take(&serde_json::from_slice(&line).unwrap(), next);
                    }
                    line.clear();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.ends.load(Relaxed) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&self, message: &Json, next: u64) {
        let result = &message["result"];
        assert!(result["compact_revision"].is_null(), "a watch from {next} missed changes: {message}");
        let mut changes = self.changes.lock().unwrap();
        for event in result["events"].as_array().into_iter().flatten() {
            let text = |name: &str| BASE64.decode(event["kv"][name].as_str().unwrap().as_bytes()).unwrap();
            let revision = event["kv"]["mod_revision"].as_str().unwrap().parse().unwrap();
            let value = (event["type"].as_str() != Some("DELETE")).then(|| number(&text("value")));
            changes.push(Change { revision, key: String::from_utf8(text("key")).unwrap(), value });
        }
    }

    /// Takes the changes before [`LAST`], after the end.
    pub(crate) fn finish(&self) -> Vec<Change> {
        let changes = std::mem::take(&mut *self.changes.lock().unwrap());
        changes.into_iter().take_while(|change| change.value != Some(LAST)).collect()
    }
}

/// Asserts that all watchers have seen the same.
pub(crate) fn assert_equal(seen: &[Vec<Change>], context: &str) {
    for (at, changes) in seen.iter().enumerate() {
        let len = changes.len().max(seen[0].len());
        let Some(first) = (0..len).find(|number| changes.get(*number) != seen[0].get(*number)) else { continue };
        let near = |changes: &[Change]| {
            let near = changes.iter().skip(first.saturating_sub(2)).take(5);
            near.map(|change| format!("{change:?}")).collect::<Vec<_>>()
        };
        let (here, there) = (near(changes), near(&seen[0]));
        panic!("{context}: the watch of n{} differs from change {first}: {here:#?} instead of {there:#?}", at + 1);
    }
}

/// Asserts that the changes of one watcher and the operations of the clients agree.
pub(crate) fn assert_complete(changes: &[Change], recorded: &[Recorded], context: &str) {
    for pair in changes.windows(2) {
        assert!(pair[0].revision < pair[1].revision, "{context}: {pair:?} is not in order");
    }
    let mut revisions = HashMap::new();
    for change in changes.iter().filter(|change| change.value.is_some()) {
        let former = revisions.insert(change.value.unwrap(), change.revision);
        assert!(former.is_none(), "{context}: {change:?} was written before, at {former:?}");
    }
    let called: HashSet<u64> = recorded.iter().filter_map(|recorded| written(recorded.operation.action)).collect();
    let unknown = revisions.keys().find(|value| !called.contains(value));
    assert_eq!(unknown, None, "{context}: a value that no client wrote");
    for recorded in recorded.iter().filter(|recorded| recorded.operation.returned.is_some()) {
        let operation = recorded.operation;
        if let Some(value) = written(operation.action) {
            assert!(revisions.contains_key(&value), "{context}: the watch misses {operation:?} of {}", recorded.key);
        }
        if let (Action::Read(Some(value)), index) = (operation.action, recorded.index) {
            assert_eq!(revisions.get(&value).copied(), index, "{context}: {operation:?} of {}", recorded.key);
        }
    }
    assert_in_order(recorded, &revisions, context);
}

/// Asserts that no write has a revision up to one that was told to any client before the call, of any key.
fn assert_in_order(recorded: &[Recorded], revisions: &HashMap<u64, u64>, context: &str) {
    let mut events = BTreeMap::<u64, Vec<(bool, u64, &Recorded)>>::new();
    for recorded in recorded {
        let Some(returned) = recorded.operation.returned else { continue };
        let value = written(recorded.operation.action);
        let revision = recorded.index.or_else(|| revisions.get(&value?).copied());
        let Some(revision) = revision else { continue };
        events.entry(returned).or_default().push((false, revision, recorded));
        if value.is_some() {
            events.entry(recorded.operation.called).or_default().push((true, revision, recorded));
        }
    }
    let mut told = 0;
    for (is_call, revision, recorded) in events.into_values().flatten() {
        if is_call {
            assert!(revision > told, "{context}: {:?} has revision {revision} after {told}", recorded.operation);
        } else {
            told = told.max(revision);
        }
    }
}

/// The value that an action writes.
fn written(action: Action) -> Value {
    match action {
        Action::Write(new) | Action::Swap { new, .. } => new,
        Action::Read(_) | Action::Mismatch { .. } => None,
    }
}
