//! Bulk transfers of state: requested by a node that lacks much, served to one node at a time.
//!
//! A transfer is an optimization: whatever ends it early, gossip delivers the rest.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tracing::{debug, info};

use super::Task;
use crate::{
    gossip::{
        anti_entropy::{Missing, Part, StateError},
        message::{Identity, Message},
    },
    metrics::BulkOutcome,
    model::member::PeerId,
};

/// Number of missing changes from which a transfer is requested: some messages of gossip carry as many.
const MIN_MISSING: u64 = 8192;
/// Longest pause between two parts, after which the transfer counts as failed.
const PART_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit of a transfer for both sides: 100 MB take 8 s at 100 Mbit/s.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause after a transfer that failed or was refused. Gossip goes on meanwhile.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Time for which other peers are asked instead of one that failed or refused.
const AVOIDED: Duration = Duration::from_secs(3);
/// Pause after a complete transfer: the digests of peers have to be read again first.
const NEXT_PAUSE: Duration = Duration::from_secs(5);
/// Parts that wait to be sent.
const SENT_AHEAD: usize = 2;
/// Parts that wait to be applied: 16 MB. A transfer that exceeds them ends.
const RECEIVED_AHEAD: usize = 256;

/// Both sides of bulk transfers.
pub(super) struct Bulk {
    /// Held while a transfer is served.
    serving: Arc<Semaphore>,
    receiving: Option<Receiving>,
    /// Time from which the next transfer may be requested.
    next: Instant,
    /// Peer that refused the last transfer or failed, with the time from which it may be requested again.
    avoided: Option<(PeerId, Instant)>,
    rng: fastrand::Rng,
}

/// A requested transfer.
struct Receiving {
    peer: Identity,
    transfer: u64,
    /// Number of the next part.
    part: u32,
    /// `None` once the last part has arrived.
    parts: Option<mpsc::Sender<Part>>,
    task: JoinHandle<Result<usize, StateError>>,
    started: Instant,
    /// Time until which the next part has to arrive.
    until: Instant,
    /// Reason for ending the transfer, if it is to end.
    end: Option<BulkOutcome>,
}

/// Result of a transfer: the number of keys, or the reason of its end.
pub(super) type Received = Result<usize, BulkOutcome>;

impl Bulk {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            serving: Arc::new(Semaphore::new(1)),
            receiving: None,
            next: Instant::now(),
            avoided: None,
            rng: fastrand::Rng::with_seed(seed.wrapping_add(3)),
        }
    }

    /// Reports whether a requested transfer is under way.
    pub(super) fn is_under_way(&self) -> bool {
        self.receiving.is_some()
    }

    /// Chooses the peer to ask among those that have more, in descending order, with the number of changes. `live` returns
    /// the live peer at an address.
    fn choose(
        &self,
        missing: Vec<Missing>,
        now: Instant,
        live: impl Fn(SocketAddr) -> Option<Identity>,
    ) -> Option<(Identity, u64)> {
        let avoided = self.avoided.as_ref().filter(|(_, until)| now < *until).map(|(peer, _)| peer);
        let much = missing.into_iter().filter(|missing| missing.changes >= MIN_MISSING);
        let mut peers = much.filter_map(|missing| Some((live(missing.at)?, missing.changes)));
        peers.find(|(peer, _)| Some(&peer.id) != avoided)
    }

    /// Takes a part, in order and of the requested transfer only.
    pub(super) fn take_part(&mut self, from: &Identity, transfer: u64, number: u32, part: Part) {
        let Some(receiving) = self.receiving.as_mut().filter(|it| it.peer == *from && it.transfer == transfer) else {
            return;
        };
        let Some(parts) = receiving.parts.take().filter(|_| number == receiving.part) else {
            return receiving.end(BulkOutcome::Failed);
        };
        let last = part.last;
        if parts.try_send(part).is_err() {
            return receiving.end(BulkOutcome::Failed);
        }
        receiving.part = number.saturating_add(1);
        receiving.until = Instant::now() + PART_TIMEOUT;
        receiving.parts = (!last).then_some(parts);
    }

    /// Takes the refusal of a request.
    pub(super) fn refused(&mut self, from: &Identity, transfer: u64) {
        if let Some(receiving) = self.receiving.as_mut().filter(|it| it.peer == *from && it.transfer == transfer) {
            receiving.end(BulkOutcome::Busy);
        }
    }

    /// Waits until the requested transfer has ended; for ever if there is none. Cancel-safe.
    pub(super) async fn received(&mut self) -> Received {
        let Some(receiving) = &mut self.receiving else { return std::future::pending().await };
        let result = (&mut receiving.task).await;
        match result {
            Ok(Ok(keys)) => Ok(keys),
            Ok(Err(error)) => {
                let outcome = receiving.end.unwrap_or(BulkOutcome::Failed);
                debug!(peer = %receiving.peer.id.name, %error, "gossip: bulk transfer of state has ended early");
                Err(outcome)
            }
            // The task was aborted.
            Err(_) => Err(receiving.end.unwrap_or(BulkOutcome::Failed)),
        }
    }
}

impl Receiving {
    fn end(&mut self, outcome: BulkOutcome) {
        self.end.get_or_insert(outcome);
        self.parts = None;
        self.task.abort();
    }
}

impl Task {
    /// Requests a transfer from the peer that has most, if it has much more.
    pub(super) async fn request_bulk(&mut self) {
        let now = Instant::now();
        // Digests from before the end of a transfer are out of date.
        let missing = self.cluster.take_missing();
        if self.bulk.is_under_way() || now < self.bulk.next {
            return;
        }
        let live = |at| {
            let peer = self.peer_states.values().find(|peer| peer.address == at && peer.reach.is_live())?;
            Some(Identity { id: peer.id.clone(), address: at })
        };
        let served = self.bulk.choose(missing, now, live);
        let Some((peer, changes)) = served else { return };
        let at = peer.address;
        let state = self.cluster.bulk_state();
        let known = state.known().await;
        let transfer = self.bulk.rng.u64(..);
        debug!(peer = %peer.id.name, changes, "gossip: requesting a bulk transfer of state");
        self.outbox.send([at], &Message::BulkRequest { transfer, known: &known });
        let (parts, arriving) = mpsc::channel(RECEIVED_AHEAD);
        let task = tokio::spawn(async move { state.receive(arriving).await });
        self.bulk.receiving = Some(Receiving {
            peer,
            transfer,
            part: 0,
            parts: Some(parts),
            task,
            started: now,
            until: now + PART_TIMEOUT,
            end: None,
        });
    }

    /// Ends a transfer that takes too long.
    pub(super) fn expire_bulk(&mut self) {
        let now = Instant::now();
        if let Some(receiving) = &mut self.bulk.receiving
            && (now >= receiving.until || now >= receiving.started + TRANSFER_TIMEOUT)
        {
            receiving.end(BulkOutcome::Failed);
        }
    }

    /// Records the end of a requested transfer.
    pub(super) fn finish_bulk(&mut self, received: Received) {
        let Some(receiving) = self.bulk.receiving.take() else { return };
        let (peer, took) = (&receiving.peer.id.name, receiving.started.elapsed());
        let (outcome, pause) = match received {
            Ok(keys) => {
                info!(%peer, keys, ?took, "learned the cluster's state by a bulk transfer");
                (BulkOutcome::Complete, NEXT_PAUSE)
            }
            Err(BulkOutcome::Busy) => (BulkOutcome::Busy, RETRY_PAUSE),
            Err(outcome) => {
                info!(%peer, ?took, "bulk transfer of the cluster's state failed: gossip delivers the rest");
                (outcome, RETRY_PAUSE)
            }
        };
        self.inputs.metrics.bulk_received(outcome);
        let now = Instant::now();
        self.bulk.next = now + pause;
        self.bulk.avoided = (outcome != BulkOutcome::Complete).then(|| (receiving.peer.id.clone(), now + AVOIDED));
    }

    /// Serves a transfer, or refuses it while another one is served.
    pub(super) fn serve_bulk(&mut self, to: &Identity, transfer: u64, known: &[u8]) {
        let Ok(permit) = self.bulk.serving.clone().try_acquire_owned() else {
            self.inputs.metrics.bulk_sent(BulkOutcome::Busy);
            return self.outbox.send([to.address], &Message::BulkBusy { transfer });
        };
        let (sender, messages) = mpsc::channel(SENT_AHEAD);
        self.outbox.stream(to.address, messages);
        let (state, known, metrics, peer) =
            (self.cluster.bulk_state(), known.to_vec(), self.inputs.metrics.clone(), to.id.name.clone());
        tokio::spawn(async move {
            let (parts, written) = mpsc::channel(1);
            let sending = async { tokio::join!(state.send(&known, parts), encode(transfer, written, sender)) };
            let sent = timeout(TRANSFER_TIMEOUT, sending).await;
            let outcome = match sent {
                Ok((Ok(()), true)) => BulkOutcome::Complete,
                Ok((Err(error), _)) => {
                    debug!(%peer, %error, "gossip: invalid request of a bulk transfer");
                    BulkOutcome::Failed
                }
                Ok((Ok(()), false)) | Err(_) => BulkOutcome::Failed,
            };
            metrics.bulk_sent(outcome);
            drop(permit);
        });
    }
}

/// Encodes parts as messages; returns whether the last one was handed over.
async fn encode(transfer: u64, mut parts: mpsc::Receiver<Part>, messages: mpsc::Sender<Vec<u8>>) -> bool {
    let mut number = 0;
    while let Some(Part { content, last }) = parts.recv().await {
        let mut octets = Vec::new();
        let message = Message::BulkPart { transfer, part: number, last, content: &content };
        // Parts are within all bounds.
        if message.encode(&mut octets).is_err() || messages.send(octets).await.is_err() {
            return false;
        }
        if last {
            return true;
        }
        number += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::label;

    fn peer(name: &str, number: u8) -> Identity {
        Identity { id: PeerId { name: label(name), generation: 1 }, address: ([10, 0, 0, number], 7946).into() }
    }

    #[test]
    fn live_peer_with_most_is_asked_and_another_one_for_a_while_after_a_refusal() {
        let (a, b) = (peer("a", 1), peer("b", 2));
        let live = |at| [&a, &b].into_iter().find(|peer| peer.address == at).cloned();
        let missing = |all: &[(&Identity, u64)]| -> Vec<Missing> {
            all.iter().map(|(peer, changes)| Missing { at: peer.address, changes: *changes }).collect()
        };
        let mut bulk = Bulk::new(1);
        let now = Instant::now();
        let name = |bulk: &Bulk, all: &[(&Identity, u64)], now| {
            bulk.choose(missing(all), now, live).map(|(peer, _)| peer.id.name.to_string())
        };
        let gone = peer("gone", 3);
        let all = [(&gone, 90_000), (&a, 80_000), (&b, 70_000)];
        assert_eq!(name(&bulk, &all, now).as_deref(), Some("a"));
        assert_eq!(name(&bulk, &[(&a, MIN_MISSING - 1)], now), None);
        bulk.avoided = Some((a.id.clone(), now + AVOIDED));
        assert_eq!(name(&bulk, &all, now).as_deref(), Some("b"));
        assert_eq!(name(&bulk, &all[..2], now), None);
        assert_eq!(name(&bulk, &all, now + AVOIDED).as_deref(), Some("a"));
    }
}
