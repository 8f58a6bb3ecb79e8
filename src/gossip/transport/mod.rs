//! The network's side of the [channels](super::link): sockets, encryption and the session handshake.
//!
//! One task owns the AEAD state and one UDP socket. Frames that fit every path's MTU are sent as datagrams, longer frames
//! over a TCP connection each, so that nothing depends on IP fragmentation. The TCP listener also serves
//! [TCP fallback probes](super::liveness::TcpProbeResult): whether the kernel accepts a connection distinguishes a stopped
//! agent from one that has ended. A bulk transfer sends its frames over one connection, each sealed when its turn comes.
//!
//! # Handshake
//! A frame is bound to one run of its receiver, its session, so that a captured frame is useless to another node and after
//! a restart. Two messages exchange sessions. `Hello` is unbound and proves nothing. Its answer is `Welcome`, bound to the
//! session of the hello. The receiver of a `Welcome` knows that the sender has the key and is alive, and takes its name,
//! address and session from the message. A message to an address without a known session waits briefly while a hello is
//! sent.
//!
//! # Rotation of keys
//! A node that was away during a rotation encrypts with a key that the others still hold. See [`rotation`].

mod directory;
mod discard;
mod rotation;
mod sockets;
mod streams;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use tokio::{
    net::{TcpStream, UdpSocket},
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::{
    directory::{Directory, HELLO_INTERVAL},
    streams::{Arrived, MAX_FRAME, Opener, Unsealed},
};
pub use self::{
    discard::discard,
    sockets::{Sockets, bind},
};
use super::{
    crypto::{OpenError, Opened, Protection, Recipient, Seal, Session},
    link::{Inbound, Network, Outbound},
    message::{Identity, Message},
    rejected::{RejectReason, Rejected},
};
use crate::{
    metrics::{Gossip, GossipTransport},
    model::keyring::{KeyId, Keyring},
};

/// Longest datagram in octets: with IPv6 and UDP headers it fits the 1,280 octets that every path carries (RFC 8200 §5).
const MAX_DATAGRAM: usize = 1232;
/// Datagrams received in a row before other work gets a turn.
const BATCH: usize = 64;
/// Limit of hellos and welcomes a second that are sent in reaction to received frames: enough for 500 nodes that start
/// together, too few to flood a third party.
const INTRODUCTIONS: u32 = 1000;
/// Pause after a socket error, so that a lasting error does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// The system's random generator failed, so no session can be drawn.
/// The system yields no random octets, without which there are no sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the system's random generator failed: gossip cannot be sealed")]
pub struct RandomError;

/// The transport before its sockets are bound.
pub struct Transport {
    own: Identity,
    seal: Seal,
    keyring: watch::Receiver<Option<Keyring>>,
    network: Network,
    rejected: Arc<Rejected>,
    metrics: Gossip,
    store: Option<mpsc::Sender<TcpStream>>,
}

impl Transport {
    /// Creates the transport. `own` is sent to peers; `keyring` holds the current keys, `None` without encryption;
    /// `rejected` counts rejected frames.
    ///
    /// # Errors
    /// Fails if no session can be drawn.
    pub fn new(
        own: Identity,
        mut keyring: watch::Receiver<Option<Keyring>>,
        network: Network,
        rejected: Arc<Rejected>,
    ) -> Result<Self, RandomError> {
        let protection = keyring.borrow_and_update().clone().map_or(Protection::Open, Protection::Sealed);
        let seal = Seal::new(protection, new_session()?);
        Ok(Self { own, seal, keyring, network, rejected, metrics: Gossip::default(), store: None })
    }

    /// Sets the metrics that count frames.
    #[must_use]
    pub fn counted(self, metrics: Gossip) -> Self {
        Self { metrics, ..self }
    }

    /// Sets the taker of connections of the store. Their prefix, [`STORE_PREFIX`](super::STORE_PREFIX), has been read. While
    /// the queue is full, further ones are closed.
    #[must_use]
    pub fn with_store_connections(self, taker: mpsc::Sender<TcpStream>) -> Self {
        Self { store: Some(taker), ..self }
    }

    /// Carries messages until the node has dropped its end; queued messages are sent first.
    pub async fn run(mut self, sockets: Sockets) {
        let Sockets { udp, tcp } = sockets;
        let (frames, arrived) = streams::arrivals();
        let ended = CancellationToken::new();
        let _guard = ended.clone().drop_guard();
        tokio::spawn(streams::accept(tcp, frames, self.store.take(), ended));
        let task = Task {
            transport: self,
            udp,
            arrived,
            opener: Opener::new(),
            unsealed: streams::unsealed(),
            directory: Directory::default(),
            introductions: INTRODUCTIONS,
            plaintext: Vec::new(),
            frame: Vec::new(),
        };
        task.run().await;
    }
}

/// Protocol that a frame arrived by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Via {
    Datagram,
    /// The source port of a connection is not a listening port.
    Connection,
}

struct Task {
    transport: Transport,
    udp: UdpSocket,
    arrived: mpsc::Receiver<Arrived>,
    opener: Opener,
    /// Messages of streams that wait for their frame.
    unsealed: (mpsc::Sender<Unsealed>, mpsc::Receiver<Unsealed>),
    directory: Directory,
    /// Introductions left in this second, of [`INTRODUCTIONS`].
    introductions: u32,
    plaintext: Vec<u8>,
    frame: Vec<u8>,
}

impl Task {
    async fn run(mut self) {
        let mut buffer = vec![0; MAX_FRAME];
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut again = interval(HELLO_INTERVAL);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Waits for the kernel's readiness event, without which nothing can be sent.
        let _ = self.udp.writable().await;
        loop {
            tokio::select! {
                ready = self.udp.readable() => {
                    if ready.is_err() || self.receive(&mut buffer).await.is_err() {
                        sleep(ERROR_PAUSE).await;
                    }
                }
                Some(Arrived { source, mut frame, connection }) = self.arrived.recv() => {
                    if self.take(&mut frame, source, Via::Connection) {
                        connection.trust();
                    }
                }
                Some(unsealed) = self.unsealed.1.recv() => self.seal_for_stream(unsealed),
                outbound = self.transport.network.outbound.recv() => match outbound {
                    Some(outbound) => self.put(outbound),
                    None => return,
                },
                Ok(()) = self.transport.keyring.changed() => self.take_keyring(),
                _ = again.tick(), if self.directory.is_waiting() => {
                    for (address, hellos) in self.directory.unanswered(Instant::now()) {
                        self.hello_again(address, hellos);
                    }
                }
                _ = second.tick() => {
                    self.introductions = INTRODUCTIONS;
                    self.directory.tidy(Instant::now());
                    self.transport.rejected.report();
                    if self.transport.seal.is_crowded() {
                        self.renew();
                    }
                }
            }
        }
    }

    fn take_keyring(&mut self) {
        let Some(keyring) = self.transport.keyring.borrow_and_update().clone() else { return };
        let lost = match self.transport.seal.protection() {
            Protection::Open => false,
            Protection::Sealed(before) => before.iter().any(|key| keyring.get(key.id()).is_none()),
        };
        self.transport.seal.set_keyring(keyring);
        self.transport.rejected.keys_changed();
        if lost {
            // A holder of the removed key may have used up the counters of other nodes' sessions.
            self.renew();
        }
    }

    /// Starts a new session and announces it to all peers.
    fn renew(&mut self) {
        match new_session() {
            Ok(session) => {
                self.transport.seal.renew(session);
                info!("gossip: new session started");
                for (address, session) in self.directory.all() {
                    self.welcome(address, session, None);
                }
            }
            Err(error) => warn!(%error, "gossip: keeping the old session"),
        }
    }

    async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..BATCH {
            match self.udp.try_recv_from(buffer) {
                Ok((len, source)) => drop(self.take(&mut buffer[..len], source, Via::Datagram)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    debug!(%error, "gossip: cannot receive a datagram");
                    return Err(error);
                }
            }
        }
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Processes a received frame. Returns true for a message of a peer.
    fn take(&mut self, frame: &mut [u8], source: SocketAddr, via: Via) -> bool {
        let transport = if via == Via::Datagram { GossipTransport::Udp } else { GossipTransport::Tcp };
        self.transport.metrics.received(transport, frame.len());
        let Opened { from, bound, key, plaintext } = match self.transport.seal.open(frame) {
            Ok(opened) => opened,
            Err(refused) => {
                self.transport.rejected.count(RejectReason::of(&refused), source);
                // The frame was sent to an earlier run or to another node: introduce this run to the sender.
                match refused {
                    OpenError::OtherSession { key, .. } => self.greet(source, via, key),
                    OpenError::UnknownKey(_) => self.greet_with_all_keys(source, via),
                    _ => {}
                }
                return false;
            }
        };
        let Ok(message) = Message::decode(plaintext) else {
            self.transport.rejected.count(RejectReason::Malformed, source);
            return false;
        };
        match message {
            // A hello may be a replay. The answer is useful only to the holder of that session and the key.
            Message::Hello(_) => {
                if self.directory.may_introduce(from, Instant::now()) && self.take_introduction() {
                    self.welcome(source, from, key);
                }
            }
            _ if !bound => self.transport.rejected.count(RejectReason::Malformed, source),
            Message::Welcome(identity) => self.learn(source, (from, key), &identity),
            _ => match self.directory.identity(&from) {
                Some(identity) => {
                    let identity = identity.clone();
                    let is_behind = matches!(&message, Message::Keys(ring) if self.is_ahead_of(ring));
                    let inbound = Inbound::Message { from: identity, octets: plaintext.to_vec() };
                    if self.transport.network.inbound.try_send(inbound).is_err() {
                        self.transport.rejected.count(RejectReason::Overload, source);
                    }
                    if is_behind || self.is_other_key(key) {
                        self.send_keys(from, key);
                    }
                    return true;
                }
                // The sender knows this node, but its session is unknown here or new.
                None => self.greet(source, via, key),
            },
        }
        false
    }

    /// Records the identity of an authenticated session.
    fn learn(&mut self, source: SocketAddr, (session, key): (Session, Option<KeyId>), identity: &Identity) {
        let is_new = self.directory.learn(session, identity);
        if is_new && self.take_introduction() {
            self.welcome(identity.address, session, key);
        }
        if self.is_other_key(key) {
            self.send_keys(session, key);
        }
        if is_new {
            debug!(peer = %identity.id.name, address = %identity.address, "gossip: new session of a peer");
            let _ = self.transport.network.inbound.try_send(Inbound::Introduced { peer: identity.clone(), at: source });
        }
        // The peer may have been addressed by another address than it advertises: send what is queued for both.
        for address in [identity.address, source] {
            for octets in self.directory.dequeue(&address) {
                self.send(identity.address, Recipient::Session(session), &octets);
            }
        }
    }

    fn put(&mut self, outbound: Outbound) {
        match outbound {
            Outbound::Message { to, octets } => match self.directory.at(&to) {
                Some(session) => self.send(to, Recipient::Session(session), &octets),
                None => {
                    if self.directory.enqueue(to, octets, Instant::now()) {
                        self.hello(to, None);
                    }
                }
            },
            Outbound::Stream { to, messages } => self.opener.stream(to, messages, self.unsealed.0.clone()),
            Outbound::TcpProbe { peer, address } => {
                let inbound = self.transport.network.inbound.clone();
                self.opener.tcp_probe(address, move |result| {
                    // Fails if the node has ended or its queue is full.
                    let _ = inbound.try_send(Inbound::TcpProbed { peer, result });
                });
            }
        }
    }

    /// Sends a hello in reaction to a frame, with the key of that frame, within the limit. The sender may not have another key.
    fn greet(&mut self, to: SocketAddr, via: Via, key: Option<KeyId>) {
        if via == Via::Datagram && self.take_introduction() {
            self.hello(to, key);
        }
    }

    fn hello(&mut self, to: SocketAddr, key: Option<KeyId>) {
        self.introduce(to, Recipient::Anyone, key, Message::Hello);
    }

    /// Introduces this node to a session that encrypts with `key`.
    fn welcome(&mut self, to: SocketAddr, session: Session, key: Option<KeyId>) {
        self.introduce(to, Recipient::Session(session), key, Message::Welcome);
    }

    /// Uses up one introduction of this second. Returns false if none is left.
    fn take_introduction(&mut self) -> bool {
        let may = self.introductions > 0;
        self.introductions = self.introductions.saturating_sub(1);
        may
    }

    fn introduce(
        &mut self,
        to: SocketAddr,
        receiver: Recipient,
        key: Option<KeyId>,
        message: impl FnOnce(Identity) -> Message<'static>,
    ) {
        let message = message(self.transport.own.clone());
        self.send_message(to, receiver, key, &message);
    }

    /// Sends a message of the transport itself.
    fn send_message(&mut self, to: SocketAddr, receiver: Recipient, key: Option<KeyId>, message: &Message<'_>) {
        let mut plaintext = std::mem::take(&mut self.plaintext);
        plaintext.clear();
        // The own identity and the keyring are within all bounds.
        if message.encode(&mut plaintext).is_ok() {
            self.send_with(key, to, receiver, &plaintext);
        }
        self.plaintext = plaintext;
    }

    /// Seals a message of a stream. A receiver without a session gets none, which ends the stream.
    fn seal_for_stream(&mut self, Unsealed { to, octets, frame }: Unsealed) {
        let Some(session) = self.directory.at(&to) else { return };
        let mut sealed = Vec::new();
        match self.transport.seal.seal(Recipient::Session(session), &octets, &mut sealed) {
            Ok(()) => {
                self.transport.metrics.sent(GossipTransport::Tcp, sealed.len());
                // The stream may have ended.
                let _ = frame.send(sealed);
            }
            Err(error) => warn!(%error, "gossip: cannot seal a message"),
        }
    }

    fn send(&mut self, to: SocketAddr, receiver: Recipient, octets: &[u8]) {
        self.send_with(None, to, receiver, octets);
    }

    fn send_with(&mut self, key: Option<KeyId>, to: SocketAddr, receiver: Recipient, octets: &[u8]) {
        self.frame.clear();
        if let Err(error) = self.transport.seal.seal_with(key, receiver, octets, &mut self.frame) {
            warn!(%error, "gossip: cannot seal a message");
            return;
        }
        if self.frame.len() > MAX_DATAGRAM {
            self.transport.metrics.sent(GossipTransport::Tcp, self.frame.len());
            return self.opener.send(to, std::mem::take(&mut self.frame));
        }
        // Loss by a full buffer or an unreachable network is like loss on the path.
        self.transport.metrics.sent(GossipTransport::Udp, self.frame.len());
        if let Err(error) = self.udp.try_send_to(&self.frame, to) {
            debug!(%error, %to, "gossip: cannot send a datagram");
        }
    }
}

fn new_session() -> Result<Session, RandomError> {
    let mut octets = [0; 16];
    SystemRandom::new().fill(&mut octets).map_err(|_| RandomError)?;
    Ok(Session(octets))
}
