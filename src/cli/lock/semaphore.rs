//! A lock with several holders, as of `consul lock -n`: a semaphore.
//!
//! Each session that wants the lock holds a key of its own below `NAME/`. The key `NAME/.lock` lists the holders; it is changed by
//! compare-and-set. A holder whose own key is gone has ended: the next session takes its place.

use std::collections::{BTreeMap, BTreeSet};

use hyper::{Method, body::Bytes};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{
    Attempt, RETRY,
    session::{Failure, Held, KEY, SEMAPHORE_FLAGS as FLAGS, is_true},
};
use crate::{
    api::kv::KeyValue,
    cli::client::{ClientError, REQUEST_TIMEOUT, segment},
};

/// Content of the key `NAME/.lock`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Content {
    /// Largest number of holders.
    limit: u64,
    /// Sessions that hold the lock.
    holders: BTreeMap<String, bool>,
}

/// State of a semaphore.
struct State {
    content: Content,
    /// Index of the key with the content; 0: there is no such key.
    modified: u64,
    /// Sessions that hold a key of their own.
    contenders: BTreeSet<String>,
    /// Index to wait at.
    index: u64,
}

/// A lock that at most `limit` sessions hold at the same time.
pub(super) struct Semaphore {
    /// Path of all its keys.
    prefix: String,
    limit: u64,
}

impl Semaphore {
    /// The semaphore of this name.
    pub(super) fn new(name: &str, limit: u64) -> Self {
        Self { prefix: format!("{}/", name.trim_end_matches('/')), limit }
    }

    fn path(&self, key: &str) -> String {
        format!("/v1/kv/{}", segment(&format!("{}{key}", self.prefix)))
    }

    /// Tries to acquire the lock once.
    pub(super) async fn attempt(&self, held: &Held<'_>) -> Result<Attempt, Failure> {
        loop {
            let mut state = self.state(held, None).await?;
            // Once: each write of the key wakes all that wait.
            if !state.contenders.contains(held.session()) {
                let own = format!("{}?acquire={}&flags={FLAGS}", self.path(held.session()), held.session());
                if !is_true(held.ask(Method::PUT, &own, Bytes::new(), REQUEST_TIMEOUT).await?.body()) {
                    return Ok(Attempt::Delayed);
                }
                continue;
            }
            state.content.holders.retain(|holder, _| state.contenders.contains(holder));
            if state.content.holders.contains_key(held.session()) {
                return Ok(Attempt::Acquired);
            }
            if state.content.holders.len() as u64 >= self.limit {
                let by = state.content.holders.into_keys().collect::<Vec<_>>().join(", ");
                return Ok(Attempt::Held { by, index: state.index });
            }
            state.content.limit = self.limit;
            state.content.holders.insert(held.session().to_owned(), true);
            if self.set(held, &state).await? {
                return Ok(Attempt::Acquired);
            }
        }
    }

    /// Waits for a change after an index.
    pub(super) async fn changed(&self, held: &Held<'_>, index: u64) -> Result<(), Failure> {
        self.state(held, Some(index)).await.map(drop)
    }

    /// Waits until the session no longer holds the lock. Returns the reason.
    pub(super) async fn until_lost(&self, held: &Held<'_>) -> String {
        let mut index = None;
        loop {
            match self.state(held, index).await {
                Ok(state)
                    if state.contenders.contains(held.session())
                        && state.content.holders.contains_key(held.session()) =>
                {
                    index = Some(state.index);
                }
                Ok(_) => return "its session has ended, or it was released".to_owned(),
                Err(failure) if failure.is_last() => return failure.error.to_string(),
                // The renewal notices an agent that stays away.
                Err(_) => {
                    index = None;
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Leaves the semaphore, and removes its key if it was the last one.
    pub(super) async fn release(&self, held: &Held<'_>) -> Result<(), Failure> {
        loop {
            let mut state = self.state(held, None).await?;
            if state.content.holders.remove(held.session()).is_none() {
                break;
            }
            let is_done = if state.content.holders.is_empty() {
                let path = format!("{}?cas={}", self.path(KEY), state.modified);
                is_true(held.ask(Method::DELETE, &path, Bytes::new(), REQUEST_TIMEOUT).await?.body())
            } else {
                self.set(held, &state).await?
            };
            if is_done {
                break;
            }
        }
        held.ask(Method::DELETE, &self.path(held.session()), Bytes::new(), REQUEST_TIMEOUT).await.map(drop)
    }

    /// Replaces the content if it has not changed.
    async fn set(&self, held: &Held<'_>, state: &State) -> Result<bool, Failure> {
        let path = format!("{}?cas={}&flags={FLAGS}", self.path(KEY), state.modified);
        let body = serde_json::to_vec(&state.content)
            .map_err(|error| Failure::last(ClientError::Failed(error.to_string())))?;
        Ok(is_true(held.ask(Method::PUT, &path, body.into(), REQUEST_TIMEOUT).await?.body()))
    }

    /// Reads the state, after a change if an index is given.
    async fn state(&self, held: &Held<'_>, index: Option<u64>) -> Result<State, Failure> {
        let (index, entries) = held.read(&format!("{}?recurse", self.path("")), index).await?;
        self.parse(index, entries).map_err(Failure::last)
    }

    fn parse(&self, index: u64, entries: Vec<KeyValue>) -> Result<State, ClientError> {
        let mut state = State { content: Content::default(), modified: 0, contenders: BTreeSet::new(), index };
        for entry in entries {
            let Some(key) = entry.key.strip_prefix(&self.prefix) else { continue };
            if key == KEY {
                let content = entry.octets().and_then(|octets| serde_json::from_slice(&octets).ok());
                state.content = content
                    .filter(|content: &Content| entry.flags == FLAGS && content.limit == self.limit)
                    .ok_or_else(|| {
                        let (key, limit) = (&entry.key, self.limit);
                        ClientError::Refused(format!(
                            "key {key} is not a lock with `--limit {limit}`: all contenders set the same limit"
                        ))
                    })?;
                state.modified = entry.modify_index;
            } else if entry.session.as_deref() == Some(key) {
                state.contenders.insert(key.to_owned());
            }
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;

    use super::*;

    #[test]
    fn state_has_the_holders_and_the_sessions_that_live() {
        let entry = |key: &str, flags, session: Option<&str>, value: &str| KeyValue {
            key: key.to_owned(),
            flags,
            session: session.map(str::to_owned),
            value: Some(BASE64.encode(value.as_bytes())),
            modify_index: 7,
            ..KeyValue::default()
        };
        let lock = r#"{"Limit":2,"Holders":{"a":true,"b":true}}"#;
        let semaphore = Semaphore::new("job/", 2);
        let entries = vec![
            entry("job/.lock", FLAGS, None, lock),
            entry("job/a", FLAGS, Some("a"), ""),
            entry("job/b", FLAGS, None, ""),
        ];
        let state = semaphore.parse(9, entries).unwrap();
        assert_eq!(state.content, serde_json::from_str(lock).unwrap());
        assert_eq!((state.modified, state.index), (7, 9));
        assert_eq!(state.contenders, BTreeSet::from(["a".to_owned()]));
        // Another limit, and a lock with one holder.
        for (flags, limit) in [(FLAGS, 3), (1, 2)] {
            let semaphore = Semaphore::new("job", limit);
            assert!(semaphore.parse(9, vec![entry("job/.lock", flags, None, lock)]).is_err(), "{flags} {limit}");
        }
        assert_eq!(semaphore.parse(3, vec![]).unwrap().modified, 0);
    }
}
