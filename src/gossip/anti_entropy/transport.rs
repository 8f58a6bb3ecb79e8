//! chitchat's transport over the node's own channel.
//!
//! An incoming message is checked ([`envelope`](super::envelope)), its digest is prepared ([`offers`](super::offers)), and
//! chitchat's [`codec`](super::codec) decodes it. An outgoing message takes the reverse path.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use anyhow::Context;
use async_trait::async_trait;
use chitchat::{
    ChitchatEnvelope, ChitchatId,
    transport::{RecvOutcome, SendOutcome, Socket, Transport},
};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::{
    codec::{Codec, POLL_INTERVAL, TIMEOUT},
    envelope::{Delta, Envelope, EnvelopeError, digest_len, shortened},
    lag::Lag,
    offers::{Digests, Offers},
};
use crate::gossip::{
    link::{Inbox, Outbox},
    message::MAX_GOSSIP,
    rejected::{RejectReason, Rejected},
};

/// Transport for one start of chitchat.
pub(super) struct Envelopes(Mutex<Option<Parts>>);

/// Parts of a transport.
pub(super) struct Parts {
    /// Own run and its gossip address.
    pub(super) own: ChitchatId,
    pub(super) outbox: Outbox,
    pub(super) inbox: Inbox,
    pub(super) offers: Offers,
    pub(super) lag: Lag,
    pub(super) rejected: Arc<Rejected>,
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
        let Parts { own, outbox, inbox, offers, lag, rejected } = parts.context("the link is in use")?;
        let codec = Codec::open().await?;
        let digests = Digests::new(offers);
        let prepared = VecDeque::new();
        Ok(Box::new(Link { own, codec, outbox, inbox, digests, lag, rejected, prepared, fed: None }))
    }
}

struct Link {
    own: ChitchatId,
    codec: Codec,
    outbox: Outbox,
    inbox: Inbox,
    digests: Digests,
    lag: Lag,
    rejected: Arc<Rejected>,
    /// Checked messages for the codec, each with its sender.
    prepared: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Sender of the message that is in the codec, if any.
    fed: Option<SocketAddr>,
}

impl Link {
    /// Checks a message and prepares it for the codec.
    fn prepare(&mut self, from: SocketAddr, octets: Vec<u8>) -> Result<(), EnvelopeError> {
        let mut envelope = Envelope::read(&octets)?;
        if let Envelope::SynAck { delta, .. } | Envelope::Ack { delta } = &envelope
            && delta.runs.contains(&self.own)
        {
            // Only this run changes its state.
            return Err(EnvelopeError::Operations);
        }
        let changed = match &mut envelope {
            Envelope::Syn { digest, .. } | Envelope::SynAck { digest, .. } => {
                self.lag.compare(from, digest);
                let (changed, left_out) = self.digests.prepare(digest);
                for _ in 0..left_out {
                    self.rejected.count(RejectReason::TooManyRuns, from);
                }
                changed
            }
            Envelope::Ack { .. } | Envelope::BadCluster => false,
        };
        if !changed {
            self.prepared.push_back((from, octets));
            return Ok(());
        }
        let whole = envelope.write();
        if whole.len() <= MAX_GOSSIP {
            self.prepared.push_back((from, whole));
        } else if let Envelope::SynAck { digest, delta } = envelope {
            // The digest goes first, since chitchat applies changes only of runs that it has seen in a digest.
            let parts = [Envelope::SynAck { digest, delta: Delta::EMPTY }, Envelope::Ack { delta }];
            self.prepared.extend(
                parts.map(|part| (from, part.write())).into_iter().filter(|(_, part)| part.len() <= MAX_GOSSIP),
            );
        }
        Ok(())
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
        let octets = match self.codec.encode(envelope).await {
            Ok(octets) => octets,
            Err(error) => {
                debug!(%error, "gossip: a chitchat message was lost on loopback");
                return Ok(SendOutcome { num_bytes_sent: 0 });
            }
        };
        let num_bytes_sent = octets.len();
        match shortened(octets) {
            Ok(None) => self.outbox.gossip(to, octets),
            Ok(Some(short)) => self.outbox.gossip(to, &short),
            Err(error) => debug!(%error, "gossip: unexpected message of chitchat"),
        }
        if let (None, Some(len)) = (self.fed, digest_len(octets)) {
            self.digests.measured(len);
        }
        Ok(SendOutcome { num_bytes_sent })
    }

    /// Cancel-safe at every await: a message taken from the channel is in `prepared` or in the codec by then.
    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        loop {
            let Some(from) = self.fed else {
                let Some((from, octets)) = self.prepared.pop_front() else {
                    let (from, octets) = self.inbox.recv().await.context("the link is closed")?;
                    if let Err(error) = self.prepare(from, octets) {
                        debug!(%from, %error, "gossip: invalid chitchat message");
                        self.rejected.count(RejectReason::Malformed, from);
                    }
                    continue;
                };
                match self.codec.feed(&octets) {
                    Ok(()) => self.fed = Some(from),
                    // The message is dropped; the next round repairs the loss.
                    Err(_) => sleep(POLL_INTERVAL).await,
                }
                continue;
            };
            match timeout(TIMEOUT, self.codec.decoded()).await {
                Ok(received) => {
                    self.fed = None;
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
