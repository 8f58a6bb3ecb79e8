//! The session of `muster lock`: creation, renewal, and the lock that it holds.

use std::time::Duration;

use hyper::{Method, Response, StatusCode, body::Bytes};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Attempt, RETRY};
use crate::{
    api::kv::{KeyValue, SessionCreated},
    cli::client::{Client, ClientError, REQUEST_TIMEOUT, segment},
};

/// Last part of the key, and flags of locks of Consul's tool.
pub(super) const KEY: &str = ".lock";
const FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;
/// Flags of semaphores of Consul's tool.
pub(super) const SEMAPHORE_FLAGS: u64 = 0xe0f6_9a2b_aa41_4de0;
/// Time limit for ending the session. If the agent does not answer, the session expires.
const END: Duration = Duration::from_secs(3);

/// Failure of a request: its status, if there is a response.
pub(super) struct Failure {
    pub(super) status: Option<StatusCode>,
    pub(super) error: ClientError,
}

impl Failure {
    /// The failure of a request that another attempt would not help.
    pub(super) fn last(error: ClientError) -> Self {
        Self { status: Some(StatusCode::CONFLICT), error }
    }

    /// Reports whether another attempt does not help.
    pub(super) fn is_last(&self) -> bool {
        self.status.is_some_and(|status| status.is_client_error() || status == StatusCode::INSUFFICIENT_STORAGE)
    }
}

/// Holder of the lock.
pub(super) struct Holder {
    /// Session that holds the lock; `None`: it is free.
    pub(super) session: Option<String>,
    /// Index of the key.
    pub(super) index: u64,
    /// Index of the last change of the key; `None`: there is no such key.
    modified: Option<u64>,
    /// True if the key is a lock of several holders.
    is_semaphore: bool,
}

/// A session that may hold the lock, and the lock if it has one holder.
pub(super) struct Held<'c> {
    client: &'c Client,
    /// Path of the key.
    path: String,
    session: String,
    ttl: Duration,
    created: Instant,
}

impl<'c> Held<'c> {
    /// Creates a session.
    pub(super) async fn create(
        client: &'c Client,
        name: &str,
        ttl: Duration,
        lock_delay: Duration,
        behavior: &str,
    ) -> Result<Self, Failure> {
        let created = Instant::now();
        let seconds = |duration: Duration| format!("{}ms", duration.as_millis());
        let name_of_session = format!("muster lock {name}");
        let (ttl_text, delay) = (seconds(ttl), seconds(lock_delay));
        let body = json!({"Name": name_of_session, "TTL": ttl_text, "LockDelay": delay, "Behavior": behavior});
        let asked = client.ask(Method::PUT, "/v1/session/create", body.to_string().into(), REQUEST_TIMEOUT).await;
        let response = asked.map_err(|error| Failure { status: None, error })?;
        let status = Some(response.status());
        let answer = client.success(response).and_then(|body| client.read::<SessionCreated>(&body));
        let answer = answer.map_err(|error| Failure { status, error })?;
        let path = format!("/v1/kv/{}", segment(&format!("{}/{KEY}", name.trim_end_matches('/'))));
        Ok(Self { client, path, session: answer.id, ttl, created })
    }

    /// Id of the session.
    pub(super) fn session(&self) -> &str {
        &self.session
    }

    /// Sends a request. A missing key or session is no failure.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<Response<Bytes>, Failure> {
        let asked = self.client.ask(method, path, body, limit).await;
        self.checked(asked.map_err(|error| Failure { status: None, error })?)
    }

    /// Returns a response that is no failure. A missing key or session is none.
    fn checked(&self, response: Response<Bytes>) -> Result<Response<Bytes>, Failure> {
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_FOUND {
            return Ok(response);
        }
        let refused = self.client.success(response).err();
        let error = refused.unwrap_or_else(|| ClientError::Failed(status.to_string()));
        Err(Failure { status: Some(status), error })
    }

    /// Tries to acquire the lock once.
    pub(super) async fn attempt(&self) -> Result<Attempt, Failure> {
        let holder = self.holder(None).await?;
        if holder.is_semaphore {
            let text = "the lock has several holders: set --limit to their number".to_owned();
            return Err(Failure::last(ClientError::Refused(text)));
        }
        if let Some(by) = holder.session.filter(|by| *by != self.session) {
            return Ok(Attempt::Held { by, index: holder.index });
        }
        let path = format!("{}?acquire={}&flags={FLAGS}", self.path, self.session);
        let response = self.ask(Method::PUT, &path, Bytes::new(), REQUEST_TIMEOUT).await?;
        if is_true(response.body()) {
            return Ok(Attempt::Acquired);
        }
        let holder = self.holder(None).await?;
        Ok(holder.session.map_or(Attempt::Delayed, |by| Attempt::Held { by, index: holder.index }))
    }

    /// Reads keys, after a change if an index is given. Returns the index and the keys.
    pub(super) async fn read(&self, path: &str, index: Option<u64>) -> Result<(u64, Vec<KeyValue>), Failure> {
        let asked = self.client.wait(path, index).await;
        let (index, response) = asked.map_err(|error| Failure { status: None, error })?;
        let (index, response) = (index.unwrap_or_default(), self.checked(response)?);
        if response.status() == StatusCode::NOT_FOUND {
            return Ok((index, Vec::new()));
        }
        let entries = self.client.read(response.body());
        entries.map(|entries| (index, entries)).map_err(|error| Failure { status: None, error })
    }

    /// Returns the holder of the lock, after a change if an index is given.
    pub(super) async fn holder(&self, index: Option<u64>) -> Result<Holder, Failure> {
        let (index, entries) = self.read(&self.path, index).await?;
        let Some(entry) = entries.into_iter().next() else {
            return Ok(Holder { session: None, index, modified: None, is_semaphore: false });
        };
        let is_semaphore = entry.flags == SEMAPHORE_FLAGS;
        Ok(Holder { session: entry.session, index, modified: Some(entry.modify_index), is_semaphore })
    }

    /// Waits until the session no longer holds the lock. Returns the reason.
    pub(super) async fn until_lost(&self) -> String {
        let mut index = None;
        loop {
            match self.holder(index).await {
                Ok(holder) if holder.session.as_deref() == Some(&self.session) => index = Some(holder.index),
                Ok(Holder { session: Some(other), .. }) => return format!("session {other} holds it"),
                Ok(_) => return "its session has ended, or it was released".to_owned(),
                // The renewal notices an agent that stays away.
                Err(_) => {
                    index = None;
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Renews the session. Returns the reason when it has ended, or may end before the next renewal.
    pub(super) async fn keep(&self) -> String {
        let mut renewed = self.created;
        let mut pause = self.ttl / 3;
        loop {
            sleep(pause).await;
            let (began, deadline) = (Instant::now(), renewed + self.ttl);
            let path = format!("/v1/session/renew/{}", self.session);
            let failure = match timeout_at(deadline, self.ask(Method::PUT, &path, Bytes::new(), self.ttl)).await {
                Err(_) => return format!("its session was not renewed for {:?}", self.ttl),
                Ok(Ok(response)) if response.status() == StatusCode::NOT_FOUND => {
                    return "its session has ended".to_owned();
                }
                Ok(Ok(_)) => {
                    (renewed, pause) = (began, self.ttl / 3);
                    continue;
                }
                Ok(Err(failure)) => failure,
            };
            if Instant::now() + RETRY >= deadline {
                let reason = failure.error.to_string();
                let reason = reason.lines().next().unwrap_or_default();
                return format!("its session was not renewed for {:?}: {reason}", self.ttl);
            }
            pause = RETRY;
        }
    }

    /// Releases the lock, and removes its key if no other session has taken it.
    pub(super) async fn release(&self) -> Result<(), Failure> {
        let release = format!("{}?release={}&flags={FLAGS}", self.path, self.session);
        self.ask(Method::PUT, &release, Bytes::new(), END).await?;
        if let Holder { session: None, modified: Some(modified), is_semaphore: false, .. } = self.holder(None).await? {
            self.ask(Method::DELETE, &format!("{}?cas={modified}", self.path), Bytes::new(), END).await?;
        }
        Ok(())
    }

    /// Ends the session, once the lock was released. Failures do not matter: the session expires.
    pub(super) async fn end(&self, released: impl Future<Output = Result<(), Failure>>) {
        let ended = async {
            let _ = released.await;
            let _ = self.ask(Method::PUT, &format!("/v1/session/destroy/{}", self.session), Bytes::new(), END).await;
        };
        let _ = timeout_at(Instant::now() + END, ended).await;
    }
}

/// Reports whether a write was carried out.
pub(super) fn is_true(body: &[u8]) -> bool {
    body.trim_ascii() == b"true"
}
