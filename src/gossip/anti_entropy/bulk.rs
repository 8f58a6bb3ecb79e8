//! Bulk state transfer: one peer sends the states of all live runs, so that a node that lacks much does not wait for
//! chitchat's messages of 64 KB.
//!
//! The sender walks its state run by run, so that chitchat's lock is held for one run at a time. The receiver applies each run
//! as soon as it is complete. The same rules hold as for gossip: only live runs are sent ([`offers`](super::offers)), only runs
//! that chitchat lists are accepted, and never the receiver's own.

use std::{collections::HashMap, sync::Arc};

use chitchat::{Chitchat, ChitchatId, DeletionStatus, VersionedValue};
use tokio::{
    sync::{Mutex, Notify, mpsc},
    time::Instant,
};
use tracing::debug;

use super::{
    Entry, Offer,
    envelope::{EnvelopeError, Versions, read_digest, write_digest},
    offers::Offers,
    state_stream::{Decoder, MAX_KEYS, MAX_OCTETS, RunState, StateError, Writer},
};

/// Access to chitchat's state for one transfer.
pub struct BulkState {
    pub(super) chitchat: Arc<Mutex<Chitchat>>,
    pub(super) offers: Offers,
    /// Notified once a run was applied.
    pub(super) news: Arc<Notify>,
}

/// Part of a transfer.
#[derive(Debug)]
pub struct Part {
    /// Encoded content.
    pub content: Vec<u8>,
    /// True for the last part.
    pub last: bool,
}

impl BulkState {
    /// Returns the versions of all runs, encoded: what a request states as known.
    pub async fn known(&self) -> Vec<u8> {
        let chitchat = self.chitchat.lock().await;
        let states = chitchat.node_states().iter().filter(|(_, state)| state.max_version() > 0);
        let digest: Vec<Versions> = states
            .map(|(id, state)| Versions {
                id: id.clone(),
                heartbeat: 0,
                collected: state.last_gc_version(),
                max: state.max_version(),
            })
            .collect();
        drop(chitchat);
        let mut known = Vec::new();
        write_digest(&digest, &mut known);
        known
    }

    /// Sends the states of all live runs of which the receiver lacks changes. Ends early if the receiver is gone.
    ///
    /// # Errors
    /// Fails if `known` is invalid.
    pub async fn send(&self, known: &[u8], parts: mpsc::Sender<Part>) -> Result<(), StateError> {
        let (digest, behind) = read_digest(known)?;
        if !behind.is_empty() {
            return Err(EnvelopeError::Trailing(behind.len()).into());
        }
        let known: HashMap<ChitchatId, u64> = digest.into_iter().map(|entry| (entry.id, entry.max)).collect();
        let own = self.chitchat.lock().await.self_chitchat_id().clone();
        let live = self.offers.load();
        let live = live.iter().filter(|(_, offer)| *offer == Offer::Always).map(|(id, _)| id);
        let (mut writer, mut octets) = (Writer::default(), 0);
        for id in std::iter::once(&own).chain(live) {
            let Some(state) = self.state(id, known.get(id).copied().unwrap_or(0)).await else { continue };
            let size = |entry: &Entry| entry.key.len() + entry.value.as_ref().map_or(0, String::len) + 16;
            octets += state.entries.iter().map(size).sum::<usize>();
            // Keys are few compared with octets, so their number fits.
            let (Ok(keys), true) = (u32::try_from(state.entries.len()), octets < MAX_OCTETS) else { break };
            writer.run(&state.id, state.collected, state.max, keys);
            for entry in &state.entries {
                writer.key(&entry.as_change());
            }
            while let Some(content) = writer.take_full() {
                if parts.send(Part { content, last: false }).await.is_err() {
                    return Ok(());
                }
            }
        }
        let _ = parts.send(Part { content: writer.finish(), last: true }).await;
        Ok(())
    }

    /// Returns a copy of a run's state, unless the receiver knows it or gossip is still delivering it.
    async fn state(&self, id: &ChitchatId, known: u64) -> Option<RunState> {
        let chitchat = self.chitchat.lock().await;
        let state = chitchat.node_state(id)?;
        let (collected, max) = (state.last_gc_version(), state.max_version());
        if max <= known || collected > max || state.key_values_including_deleted().nth(MAX_KEYS).is_some() {
            return None;
        }
        let entries = state.key_values_including_deleted().map(|(key, value)| Entry {
            key: key.to_owned(),
            version: value.version,
            value: (!value.is_deleted()).then(|| value.value.clone()),
        });
        Some(RunState { id: id.clone(), collected, max, entries: entries.collect() })
    }

    /// Receives a transfer and applies its runs. Returns the number of keys.
    ///
    /// # Errors
    /// Fails on an invalid part, or if the parts end before the last one. Runs that were complete before stay.
    pub async fn receive(&self, mut parts: mpsc::Receiver<Part>) -> Result<usize, StateError> {
        let own = self.chitchat.lock().await.self_chitchat_id().clone();
        let mut decoder = Decoder::new(own);
        let mut keys = 0;
        while let Some(Part { content, last }) = parts.recv().await {
            for run in decoder.read(&content)? {
                keys += run.entries.len();
                self.apply(run).await;
            }
            if last {
                return decoder.finish().map(|()| keys);
            }
        }
        Err(StateError::Truncated)
    }

    async fn apply(&self, run: RunState) {
        let RunState { id, collected, max, entries } = run;
        let now = Instant::now();
        let values = entries.into_iter().map(|Entry { key, version, value }| {
            let status = if value.is_some() { DeletionStatus::Set } else { DeletionStatus::Deleted(now) };
            (key, VersionedValue { value: value.unwrap_or_default(), version, status })
        });
        let mut chitchat = self.chitchat.lock().await;
        // Like gossip, accepts only runs that a digest has listed. Gossip may have delivered more meanwhile; chitchat would
        // refuse the rest with a warning.
        match chitchat.node_state(&id) {
            Some(state) if state.monotonic_property() < (collected, max) => {
                chitchat.reset_node_state_if_update(&id, values, max, collected);
                // chitchat notifies of set keys only.
                self.news.notify_one();
            }
            Some(_) => {}
            None => debug!(?id, "gossip: bulk state of a run that no digest has listed"),
        }
    }
}
