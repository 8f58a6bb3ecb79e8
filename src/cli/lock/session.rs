//! The session of `muster lock`: creation, renewal, and the lock that it holds.

use std::time::Duration;

use hyper::{Method, Response, StatusCode, body::Bytes};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};

use super::RETRY;
use crate::{
    api::kv::{KeyValue, SessionCreated},
    cli::client::{Client, ClientError, REQUEST_TIMEOUT, segment},
};

/// Last part of the key, and flags of locks of Consul's tool.
const KEY: &str = ".lock";
const FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;
/// Longest wait for a change of the lock. The agent adds up to a sixteenth.
const WAIT: Duration = Duration::from_secs(60);
/// Time limit for ending the session. If the agent does not answer, the session expires.
const END: Duration = Duration::from_secs(3);

/// Failure of a request: its status, if there is a response.
pub(super) struct Failure {
    pub(super) status: Option<StatusCode>,
    pub(super) error: ClientError,
}

/// Holder of the lock.
pub(super) struct Holder {
    /// Session that holds the lock; `None`: it is free.
    pub(super) session: Option<String>,
    /// Index of the key.
    pub(super) index: u64,
    /// Index of the last change of the key; `None`: there is no such key.
    modified: Option<u64>,
}

/// A session that may hold the lock.
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
    ) -> Result<Self, ClientError> {
        let created = Instant::now();
        let seconds = |duration: Duration| format!("{}ms", duration.as_millis());
        let body =
            json!({"Name": format!("muster lock {name}"), "TTL": seconds(ttl), "LockDelay": seconds(lock_delay)});
        let asked = client.ask(Method::PUT, "/v1/session/create", body.to_string().into(), REQUEST_TIMEOUT);
        let answer: SessionCreated = client.read(&client.success(asked.await?)?)?;
        let path = format!("/v1/kv/{}", segment(&format!("{}/{KEY}", name.trim_end_matches('/'))));
        Ok(Self { client, path, session: answer.id, ttl, created })
    }

    async fn ask(&self, method: Method, path: &str, limit: Duration) -> Result<Response<Bytes>, Failure> {
        let asked = self.client.ask(method, path, Bytes::new(), limit).await;
        let response = asked.map_err(|error| Failure { status: None, error })?;
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_FOUND {
            return Ok(response);
        }
        let refused = self.client.success(response).err();
        let error = refused.unwrap_or_else(|| ClientError::Failed(status.to_string()));
        Err(Failure { status: Some(status), error })
    }

    /// Tries to acquire the lock once.
    pub(super) async fn try_acquire(&self) -> Result<bool, Failure> {
        let path = format!("{}?acquire={}&flags={FLAGS}", self.path, self.session);
        let response = self.ask(Method::PUT, &path, REQUEST_TIMEOUT).await?;
        Ok(response.body().trim_ascii() == b"true")
    }

    /// Returns the holder of the lock, after a change if an index is given.
    pub(super) async fn holder(&self, index: Option<u64>) -> Result<Holder, Failure> {
        let wait = index.map_or_else(String::new, |index| format!("?index={index}&wait={}s", WAIT.as_secs()));
        let limit = if index.is_some() { WAIT + WAIT / 16 + REQUEST_TIMEOUT } else { REQUEST_TIMEOUT };
        let response = self.ask(Method::GET, &format!("{}{wait}", self.path), limit).await?;
        let index = response.headers().get("x-consul-index").and_then(|index| index.to_str().ok()?.parse().ok());
        let index = index.unwrap_or_default();
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(Holder { session: None, index, modified: None });
        }
        let entries: Result<Vec<KeyValue>, _> = self.client.read(response.body());
        let entries = entries.map_err(|error| Failure { status: None, error })?;
        let entry = entries.into_iter().next().unwrap_or_default();
        Ok(Holder { session: entry.session, index, modified: Some(entry.modify_index) })
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
            let failure = match timeout_at(deadline, self.ask(Method::PUT, &path, self.ttl)).await {
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

    /// Releases the lock, removes its key if no other session has taken it, and ends the session. Failures do not matter: the
    /// session expires.
    pub(super) async fn end(&self) {
        let ended = async {
            let release = format!("{}?release={}&flags={FLAGS}", self.path, self.session);
            let _ = self.ask(Method::PUT, &release, END).await;
            if let Ok(Holder { session: None, modified: Some(modified), .. }) = self.holder(None).await {
                let _ = self.ask(Method::DELETE, &format!("{}?cas={modified}", self.path), END).await;
            }
            let _ = self.ask(Method::PUT, &format!("/v1/session/destroy/{}", self.session), END).await;
        };
        let _ = timeout_at(Instant::now() + END, ended).await;
    }
}
