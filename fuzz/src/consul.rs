//! Fuzz target for what Consul's API reads of a client's octets for the store: the path of a key, a line end and a body.

use std::time::Duration;

use muster::{
    http::untrusted::{key, session, transaction},
    store::{
        command::Operation,
        key::{Key, MAX_KEY},
    },
};

/// Largest value that Consul's API accepts.
const MAX_VALUE: usize = 512 << 10;
/// Bounds of a session's time to live.
const TTL: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(24 * 3600)];
/// Longest lock delay.
const MAX_LOCK_DELAY: Duration = Duration::from_secs(60);

/// Uses the octets as a path with a body, which is read as a transaction and as a session. Whatever is accepted is within bounds.
pub fn run(octets: &[u8]) {
    let (path, body) = octets.split_at(octets.iter().position(|octet| *octet == b'\n').unwrap_or(octets.len()));
    if let Some(key) = key(&String::from_utf8_lossy(path)) {
        assert!(key.len() <= path.len() * 3, "a path does not grow");
    }
    if let Some(operations) = transaction(body) {
        assert!(operations.len() <= 128);
        operations.iter().for_each(check);
    }
    if let Some(bounds) = session(body) {
        assert!(bounds.ttl.is_none_or(|ttl| (TTL[0]..=TTL[1]).contains(&ttl)), "{bounds:?}");
        assert!(bounds.lock_delay <= MAX_LOCK_DELAY, "{bounds:?}");
    }
}

fn check(operation: &Operation) {
    match operation {
        Operation::Set { key, value, .. }
        | Operation::CompareAndSet { key, value, .. }
        | Operation::Lock { key, value, .. }
        | Operation::Unlock { key, value, .. } => {
            check_key(key);
            assert!(value.len() <= MAX_VALUE);
        }
        Operation::Delete(key)
        | Operation::CompareAndDelete { key, .. }
        | Operation::Get(key)
        | Operation::GetOrEmpty(key)
        | Operation::CheckIndex { key, .. }
        | Operation::CheckSession { key, .. }
        | Operation::CheckNotExists(key) => check_key(key),
        Operation::DeletePrefix(_) | Operation::GetPrefix(_) | Operation::DestroySession(_) => {}
    }
}

fn check_key(key: &Key) {
    assert!((1..=MAX_KEY).contains(&key.octets().len()), "{key:?}");
}
