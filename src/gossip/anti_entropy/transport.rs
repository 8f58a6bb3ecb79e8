//! chitchat's messages over our own link.
//!
//! chitchat encodes and decodes only within its own UDP socket. So that socket, on loopback, is the codec: what chitchat
//! sends goes out of it to a socket of ours and from there, as octets, to the link; what the link brings goes the other
//! way. Nothing of this leaves the host, and datagrams of other programs on it are told apart by their source address.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::Mutex,
    time::Duration,
};

use anyhow::Context;
use async_trait::async_trait;
use chitchat::{
    ChitchatEnvelope,
    transport::{RecvOutcome, SendOutcome, Socket, Transport, UdpSocket as Codec},
};
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use crate::gossip::{
    channel::{Inbox, Outbox},
    message::MAX_GOSSIP,
};

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// How long a message may take through the codec: loopback delivers while it sends. What takes longer was not valid, and
/// the codec has dropped it.
const THROUGH_CODEC: Duration = Duration::from_millis(100);
/// The pause before the next look where the kernel delivers later, or has no room.
const NOT_YET: Duration = Duration::from_millis(1);

/// A transport for one start of chitchat.
pub(super) struct Envelopes {
    link: Mutex<Option<(Outbox, Inbox)>>,
}

impl Envelopes {
    pub(super) fn new(outbox: Outbox, inbox: Inbox) -> Self {
        Self { link: Mutex::new(Some((outbox, inbox))) }
    }
}

#[async_trait]
impl Transport for Envelopes {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let link = self.link.lock().ok().and_then(|mut link| link.take());
        let (outbox, inbox) = link.context("the link is in use")?;
        let codec = Codec::open(LOOPBACK).await?;
        let ours = UdpSocket::bind(LOOPBACK)?;
        // The kernel then passes nothing but the codec's datagrams.
        ours.connect(codec.local_addr()?)?;
        ours.set_nonblocking(true)?;
        let address = ours.local_addr()?;
        let buffer = vec![0; MAX_GOSSIP].into();
        Ok(Box::new(Envelope { codec, ours, address, buffer, outbox, inbox, fed: None }))
    }
}

struct Envelope {
    codec: Codec,
    /// Not the runtime's: what was sent over loopback is there already, and to be woken for it would cost more than to
    /// take it.
    ours: UdpSocket,
    /// Where that is.
    address: SocketAddr,
    buffer: Box<[u8]>,
    outbox: Outbox,
    inbox: Inbox,
    /// From whom the message is that was given to the codec and has not come out of it yet.
    fed: Option<SocketAddr>,
}

impl Envelope {
    /// What the codec made of the envelope it was given last.
    async fn encoded(&mut self) -> io::Result<usize> {
        let deadline = Instant::now() + THROUGH_CODEC;
        loop {
            match self.ours.recv(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    sleep(NOT_YET).await;
                }
                received => return received,
            }
        }
    }
}

#[async_trait]
impl Socket for Envelope {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        self.codec.local_addr()
    }

    async fn send(&mut self, to: SocketAddr, envelope: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        // One that came too late the last time would go to the wrong node.
        while self.ours.recv(&mut self.buffer).is_ok() {}
        let len = self.codec.send(self.address, envelope).await?.num_bytes_sent;
        match self.encoded().await {
            Ok(read) => self.outbox.gossip(to, &self.buffer[..read]),
            Err(error) => debug!(%error, "a message of chitchat was lost on loopback"),
        }
        Ok(SendOutcome { num_bytes_sent: len })
    }

    /// Can be cancelled at any await: what was taken from the link is with the codec by then, and `fed` says so.
    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        loop {
            let from = match self.fed {
                Some(from) => from,
                None => {
                    let (from, octets) = self.inbox.recv().await.context("the link is closed")?;
                    // Sending to loopback blocks only on a full buffer, and then the message is lost as on any network.
                    if self.ours.send(&octets).is_err() {
                        sleep(NOT_YET).await;
                        continue;
                    }
                    self.fed = Some(from);
                    from
                }
            };
            match timeout(THROUGH_CODEC, self.codec.recv()).await {
                Ok(received) => {
                    let received = received?;
                    // Another program of this host wrote to the codec's port.
                    if received.from_addr != self.address {
                        continue;
                    }
                    self.fed = None;
                    return Ok(RecvOutcome { from_addr: from, ..received });
                }
                Err(_) => {
                    debug!(%from, "not a message of chitchat");
                    self.fed = None;
                }
            }
        }
    }
}
