//! chitchat's transport over the node's own channel.
//!
//! chitchat encodes and decodes messages only inside its own UDP socket. So that socket, on loopback, serves as the codec:
//! an outgoing message passes through it to a second socket and from there, encoded, to the channel; an incoming message
//! takes the reverse path. Nothing leaves the host on this path. Datagrams of other local programs are dropped by their
//! source address.

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
    link::{Inbox, Outbox},
    message::MAX_GOSSIP,
};

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Time limit for a message in the codec. Loopback delivers at once, so a later message was invalid and the codec has
/// dropped it.
const CODEC_TIMEOUT: Duration = Duration::from_millis(100);
/// Poll interval while the kernel has not delivered yet, or has no buffer space.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Transport for one start of chitchat.
pub(super) struct Envelopes {
    own: SocketAddr,
    link: Mutex<Option<(Outbox, Inbox)>>,
}

impl Envelopes {
    /// Creates the transport of the node at the gossip address `own`.
    pub(super) fn new(own: SocketAddr, outbox: Outbox, inbox: Inbox) -> Self {
        Self { own, link: Mutex::new(Some((outbox, inbox))) }
    }
}

#[async_trait]
impl Transport for Envelopes {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let link = self.link.lock().ok().and_then(|mut link| link.take());
        let (outbox, inbox) = link.context("the link is in use")?;
        let codec = Codec::open(LOOPBACK).await?;
        let ours = UdpSocket::bind(LOOPBACK)?;
        // The kernel now drops all datagrams except the codec's.
        ours.connect(codec.local_addr()?)?;
        ours.set_nonblocking(true)?;
        let address = ours.local_addr()?;
        let buffer = vec![0; MAX_GOSSIP].into();
        Ok(Box::new(Envelope { own: self.own, codec, ours, address, buffer, outbox, inbox, fed: None }))
    }
}

struct Envelope {
    own: SocketAddr,
    codec: Codec,
    /// A plain socket: data sent over loopback can be read at once, without the cost of a wake-up by the runtime.
    ours: UdpSocket,
    /// Address of `ours`.
    address: SocketAddr,
    buffer: Box<[u8]>,
    outbox: Outbox,
    inbox: Inbox,
    /// Sender of the message that is in the codec, if any.
    fed: Option<SocketAddr>,
}

impl Envelope {
    /// Receives the encoded form of the last envelope.
    async fn encoded(&mut self) -> io::Result<usize> {
        let deadline = Instant::now() + CODEC_TIMEOUT;
        loop {
            match self.ours.recv(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    sleep(POLL_INTERVAL).await;
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
        // chitchat also gossips with nodes that have ended. Former runs of this node had the same address.
        if to == self.own {
            return Ok(SendOutcome { num_bytes_sent: 0 });
        }
        // Drains late messages, which would otherwise go to the wrong node.
        while self.ours.recv(&mut self.buffer).is_ok() {}
        let len = self.codec.send(self.address, envelope).await?.num_bytes_sent;
        match self.encoded().await {
            Ok(read) => self.outbox.gossip(to, &self.buffer[..read]),
            Err(error) => debug!(%error, "gossip: a chitchat message was lost on loopback"),
        }
        Ok(SendOutcome { num_bytes_sent: len })
    }

    /// Cancel-safe at every await: a message taken from the channel is in the codec by then, and `fed` records its sender.
    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        loop {
            let from = match self.fed {
                Some(from) => from,
                None => {
                    let (from, octets) = self.inbox.recv().await.context("the link is closed")?;
                    // Sending to loopback blocks only on a full buffer; the message is then dropped.
                    if self.ours.send(&octets).is_err() {
                        sleep(POLL_INTERVAL).await;
                        continue;
                    }
                    self.fed = Some(from);
                    from
                }
            };
            match timeout(CODEC_TIMEOUT, self.codec.recv()).await {
                Ok(received) => {
                    let received = received?;
                    // Another local program wrote to the codec's port.
                    if received.from_addr != self.address {
                        continue;
                    }
                    self.fed = None;
                    return Ok(RecvOutcome { from_addr: from, ..received });
                }
                Err(_) => {
                    debug!(%from, "gossip: not a chitchat message");
                    self.fed = None;
                }
            }
        }
    }
}
