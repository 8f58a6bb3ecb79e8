//! chitchat's transport over the node's own channel.
//!
//! An incoming message is checked ([`envelope`](super::envelope)), its digest is prepared ([`offers`](super::offers)), and
//! chitchat's [`codec`](super::codec) decodes it. An outgoing message takes the reverse path.
//!
//! chitchat starts an exchange with random nodes at each of its rounds. Only requested exchanges leave this host.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use anyhow::Context;
use async_trait::async_trait;
use chitchat::{
    ChitchatEnvelope, ChitchatId, ChitchatMessage,
    transport::{RecvOutcome, SendOutcome, Socket, Transport},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tracing::debug;

use super::{
    codec::{Codec, POLL_INTERVAL, TIMEOUT},
    envelope::{Delta, Envelope, EnvelopeError, Versions, completed, digest_len, shortened},
    offers::Digests,
    shared::Shared,
};
use crate::gossip::{
    link::{Inbox, Outbox},
    message::MAX_GOSSIP,
    rejected::{RejectReason, Rejected},
};

/// Octets of changes in a message from which on the sender may have more: half of the largest message.
const FULL: usize = MAX_GOSSIP / 2;

/// Transport for one start of chitchat.
pub(super) struct Envelopes(Mutex<Option<Parts>>);

/// Parts of a transport.
pub(super) struct Parts {
    /// Own run and its gossip address.
    pub(super) own: ChitchatId,
    pub(super) outbox: Outbox,
    pub(super) inbox: Inbox,
    /// Messages of this node for its own chitchat.
    pub(super) local: mpsc::Receiver<Prepared>,
    pub(super) shared: Arc<Shared>,
    pub(super) rejected: Arc<Rejected>,
}

/// A checked message for the codec.
pub(super) struct Prepared {
    /// Sender. Answers to messages with the own address are dropped.
    pub(super) from: SocketAddr,
    pub(super) octets: Vec<u8>,
    /// True if the state may have changed once chitchat has processed the message.
    pub(super) informs: bool,
}

impl Envelopes {
    pub(super) fn new(parts: Parts) -> Self {
        Self(Mutex::new(Some(parts)))
    }
}

#[async_trait]
impl Transport for Envelopes {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let parts = self.0.lock().ok().and_then(|mut parts| parts.take());
        let Parts { own, outbox, inbox, local, shared, rejected } = parts.context("the link is in use")?;
        let codec = Codec::open().await?;
        let digests = Digests::new(shared.offers.clone());
        let (prepared, fed, informed) = (VecDeque::new(), None, false);
        Ok(Box::new(Link { own, codec, outbox, inbox, local, digests, shared, rejected, prepared, fed, informed }))
    }
}

struct Link {
    own: ChitchatId,
    codec: Codec,
    outbox: Outbox,
    inbox: Inbox,
    local: mpsc::Receiver<Prepared>,
    digests: Digests,
    shared: Arc<Shared>,
    rejected: Arc<Rejected>,
    /// Checked messages for the codec.
    prepared: VecDeque<Prepared>,
    /// Sender of the message that is in the codec, if any, and whether the message informs.
    fed: Option<(SocketAddr, bool)>,
    /// True if chitchat received a message that informs, and the reader was not notified yet.
    informed: bool,
}

impl Link {
    /// Checks a message and prepares it for the codec.
    fn prepare(&mut self, from: SocketAddr, octets: Vec<u8>) -> Result<(), EnvelopeError> {
        let mut envelope = Envelope::read(&octets)?;
        if let Envelope::SynAck { delta, .. } | Envelope::Ack { delta } = &envelope
            && delta.runs.contains(&self.own)
        {
            return Err(EnvelopeError::OwnRun);
        }
        if let Envelope::SynAck { delta, .. } | Envelope::Ack { delta } = &envelope
            && delta.len() >= FULL
        {
            self.shared.note_more(from);
        }
        let informs = match &envelope {
            Envelope::Syn { digest, .. } => self.has_news(digest),
            Envelope::SynAck { digest, delta } => !delta.runs.is_empty() || self.has_news(digest),
            Envelope::Ack { delta } => !delta.runs.is_empty(),
            Envelope::BadCluster => false,
        };
        let changed = match &mut envelope {
            Envelope::Syn { digest, .. } | Envelope::SynAck { digest, .. } => {
                self.shared.lag.compare(from, digest);
                let (changed, left_out) = self.digests.prepare(digest);
                for _ in 0..left_out {
                    self.rejected.count(RejectReason::TooManyRuns, from);
                }
                changed
            }
            Envelope::Ack { .. } | Envelope::BadCluster => false,
        };
        if !changed {
            self.prepared.push_back(Prepared { from, octets, informs });
            return Ok(());
        }
        let whole = envelope.write();
        if whole.len() <= MAX_GOSSIP {
            self.prepared.push_back(Prepared { from, octets: whole, informs });
        } else if let Envelope::SynAck { digest, delta } = envelope {
            // The digest goes first, since chitchat applies changes only of runs that it has seen in a digest.
            let parts = [Envelope::SynAck { digest, delta: Delta::EMPTY }, Envelope::Ack { delta }];
            let parts = parts.map(|part| Prepared { from, octets: part.write(), informs });
            self.prepared.extend(parts.into_iter().filter(|part| part.octets.len() <= MAX_GOSSIP));
        }
        Ok(())
    }

    /// Reports whether the reader has to learn of a digest: it lists a run that the reader does not know, or a later one of
    /// this node's name.
    fn has_news(&self, digest: &[Versions]) -> bool {
        let offers = self.shared.offers.load();
        let mut known = offers.iter().map(|(run, _)| run).peekable();
        digest.iter().map(|entry| &entry.id).filter(|run| **run != self.own).any(|run| {
            while known.next_if(|known| *known < run).is_some() {}
            let is_namesake = run.node_id == self.own.node_id && run.generation_id > self.own.generation_id;
            is_namesake || known.next_if(|known| *known == run).is_none()
        })
    }
}

#[async_trait]
impl Socket for Link {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        self.codec.address()
    }

    async fn send(&mut self, to: SocketAddr, envelope: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        // chitchat also gossips with nodes that have ended. Former runs of this node had the same address.
        if to == self.own.gossip_advertise_addr {
            return Ok(SendOutcome { num_bytes_sent: 0 });
        }
        let wanted = !matches!(envelope.message, ChitchatMessage::Syn { .. }) || self.shared.take_requested(to);
        let octets = match self.codec.encode(envelope).await {
            Ok(octets) => octets,
            Err(error) => {
                debug!(%error, "gossip: a chitchat message was lost on loopback");
                return Ok(SendOutcome { num_bytes_sent: 0 });
            }
        };
        let own_digest = digest_len(octets);
        let whole = completed(octets, &self.shared.lag.known()).ok().flatten();
        let octets = whole.as_deref().filter(|whole| whole.len() <= MAX_GOSSIP).unwrap_or(octets);
        let num_bytes_sent = octets.len();
        match shortened(octets) {
            _ if !wanted => {}
            Ok(None) => self.outbox.gossip(to, octets),
            Ok(Some(short)) => self.outbox.gossip(to, &short),
            Err(error) => debug!(%error, "gossip: unexpected message of chitchat"),
        }
        if let (None, Some(len)) = (self.fed, own_digest) {
            self.digests.measured(len);
        }
        Ok(SendOutcome { num_bytes_sent })
    }

    /// Cancel-safe at every await: a message taken from the channel is in `prepared` or in the codec by then.
    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        // chitchat has processed the message that was returned before.
        if std::mem::take(&mut self.informed) {
            self.shared.news.notify_one();
        }
        loop {
            let Some((from, informs)) = self.fed else {
                let Some(Prepared { from, octets, informs }) = self.prepared.pop_front() else {
                    tokio::select! {
                        Some(message) = self.local.recv() => self.prepared.push_back(message),
                        message = self.inbox.recv() => {
                            let (from, octets) = message.context("the link is closed")?;
                            if let Err(error) = self.prepare(from, octets) {
                                debug!(%from, %error, "gossip: invalid chitchat message");
                                self.rejected.count(reason_of(&error), from);
                            }
                        }
                    }
                    continue;
                };
                match self.codec.feed(&octets) {
                    Ok(()) => self.fed = Some((from, informs)),
                    // The message is dropped; the next exchange repairs the loss.
                    Err(_) => sleep(POLL_INTERVAL).await,
                }
                continue;
            };
            match timeout(TIMEOUT, self.codec.decoded()).await {
                Ok(received) => {
                    self.fed = None;
                    self.informed = informs;
                    return Ok(RecvOutcome { from_addr: from, ..received? });
                }
                Err(_) => {
                    debug!(%from, "gossip: a chitchat message was lost on loopback");
                    // A late message would be taken for the next one.
                    self.codec.discard();
                    self.fed = None;
                }
            }
        }
    }
}

/// Returns the reason under which a rejected message is counted.
fn reason_of(error: &EnvelopeError) -> RejectReason {
    match error {
        EnvelopeError::OwnRun => RejectReason::OwnRun,
        _ => RejectReason::Malformed,
    }
}
