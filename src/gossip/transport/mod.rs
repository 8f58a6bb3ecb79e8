//! The network's side of a [`Link`](super::channel): sockets, seals, and who is who.
//!
//! One task owns the seal and one UDP socket. What fits a packet of every path goes as a datagram; what does not, over a
//! TCP connection of its own, so that nothing depends on IP fragments. The TCP listener serves a second purpose: whether
//! the kernel takes a connection tells an agent that is stopped from one that has ended ([`Knock`](super::liveness::TcpProbeResult)).
//!
//! # Who is who
//! A frame is bound to the run of the receiver that it is meant for (its session), so that a captured frame is worth
//! nothing to another node or after a restart. Sessions are made known by two messages: `Hello`, not bound, proves nothing
//! and is answered with `Welcome`, bound to the session that said hello. Who receives a `Welcome` knows that its sender
//! has the key and lives now, and takes its name, address and session from it. What is to be sent to an address whose
//! session is not known waits for a moment, behind a hello.

mod directory;
mod sockets;
mod streams;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use self::sockets::Sockets;
use self::{
    directory::{Directory, HELLO_AGAIN},
    streams::{Arrived, MAX_FRAME, Opener},
};
use super::{
    channel::{Inbound, Network, Outbound},
    crypto::{OpenError, Opened, Protection, Seal, Session, To},
    message::{Identity, Message},
    rejected::{RejectReason, Rejected},
};
use crate::{
    metrics::{Gossip, Way},
    model::keyring::Keyring,
};

/// Octets of the longest datagram: with IPv6's and UDP's headers it fits the 1,280 octets that every path carries
/// (RFC 8200 §5).
const MAX_DATAGRAM: usize = 1232;
/// Datagrams in a row before the rest gets a turn.
const BATCH: usize = 64;
/// Hellos and welcomes a second to whoever makes us say them: enough for 500 nodes that start together, and no use to
/// somebody who wants us to flood a third.
const INTRODUCTIONS: u32 = 1000;
/// The pause after a socket error, so that a lasting one does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// The system yields no random octets, without which there are no sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RandomError;

impl fmt::Display for RandomError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the system yields no random numbers, without which gossip cannot be sealed")
    }
}

impl std::error::Error for RandomError {}

/// What the task is started with.
pub struct Wire {
    own: Identity,
    seal: Seal,
    keyring: watch::Receiver<Option<Keyring>>,
    network: Network,
    rejected: Arc<Rejected>,
    metrics: Gossip,
}

impl Wire {
    /// `own` is told to those who ask; `keyring` has the newest keys, `None` while nothing is sealed; `rejected` counts
    /// what is not let in.
    ///
    /// # Errors
    /// There is no session to be had.
    pub fn new(
        own: Identity,
        mut keyring: watch::Receiver<Option<Keyring>>,
        network: Network,
        rejected: Arc<Rejected>,
    ) -> Result<Self, RandomError> {
        let protection = keyring.borrow_and_update().clone().map_or(Protection::Open, Protection::Sealed);
        let seal = Seal::new(protection, new_session()?);
        Ok(Self { own, seal, keyring, network, rejected, metrics: Gossip::default() })
    }

    /// The same that counts its frames here.
    #[must_use]
    pub fn counted(self, metrics: Gossip) -> Self {
        Self { metrics, ..self }
    }

    /// Carries messages until the node has dropped its side, its last words included.
    pub async fn run(self, sockets: Sockets) {
        let Sockets { udp, tcp } = sockets;
        let (frames, arrived) = streams::arrivals();
        let ended = CancellationToken::new();
        let _guard = ended.clone().drop_guard();
        tokio::spawn(streams::accept(tcp, frames, ended));
        let task = Task {
            wire: self,
            udp,
            arrived,
            opener: Opener::new(),
            directory: Directory::default(),
            introductions: INTRODUCTIONS,
            plaintext: Vec::new(),
            frame: Vec::new(),
        };
        task.run().await;
    }
}

/// How a frame came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Via {
    Datagram,
    /// Nobody listens where it came from.
    Connection,
}

struct Task {
    wire: Wire,
    udp: UdpSocket,
    arrived: mpsc::Receiver<Arrived>,
    opener: Opener,
    directory: Directory,
    /// What is left of [`INTRODUCTIONS`] in this second.
    introductions: u32,
    plaintext: Vec<u8>,
    frame: Vec<u8>,
}

impl Task {
    async fn run(mut self) {
        let mut buffer = vec![0; MAX_FRAME];
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut again = interval(HELLO_AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Until the runtime has heard so from the kernel, nothing can be sent.
        let _ = self.udp.writable().await;
        loop {
            tokio::select! {
                ready = self.udp.readable() => {
                    if ready.is_err() || self.receive(&mut buffer).await.is_err() {
                        sleep(ERROR_PAUSE).await;
                    }
                }
                Some((source, mut frame)) = self.arrived.recv() => self.take(&mut frame, source, Via::Connection),
                outbound = self.wire.network.outbound.recv() => match outbound {
                    Some(outbound) => self.put(outbound),
                    None => return,
                },
                Ok(()) = self.wire.keyring.changed() => self.take_keyring(),
                _ = again.tick() => {
                    for address in self.directory.unanswered(Instant::now()) {
                        self.hello(address);
                    }
                }
                _ = second.tick() => {
                    self.introductions = INTRODUCTIONS;
                    self.directory.tidy();
                    self.wire.rejected.report();
                    if self.wire.seal.is_crowded() {
                        self.renew();
                    }
                }
            }
        }
    }

    fn take_keyring(&mut self) {
        let Some(keyring) = self.wire.keyring.borrow_and_update().clone() else { return };
        let lost = match self.wire.seal.protection() {
            Protection::Open => false,
            Protection::Sealed(before) => before.iter().any(|key| keyring.get(key.id()).is_none()),
        };
        self.wire.seal.set_keyring(keyring);
        if lost {
            // Whoever has the removed key may have used up the counters of others' sessions.
            self.renew();
        }
    }

    /// Goes on under a new session, and tells everybody at once.
    fn renew(&mut self) {
        match new_session() {
            Ok(session) => {
                self.wire.seal.renew(session);
                info!("gossip goes on under a new session");
                for (address, session) in self.directory.everybody() {
                    self.welcome(address, session);
                }
            }
            Err(error) => warn!(%error, "gossip goes on under the old session"),
        }
    }

    async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..BATCH {
            match self.udp.try_recv_from(buffer) {
                Ok((len, source)) => self.take(&mut buffer[..len], source, Via::Datagram),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    debug!(%error, "gossip: receiving failed");
                    return Err(error);
                }
            }
        }
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Takes in one frame.
    fn take(&mut self, frame: &mut [u8], source: SocketAddr, via: Via) {
        let way = if via == Via::Datagram { Way::Udp } else { Way::Tcp };
        self.wire.metrics.received(way, frame.len());
        let Opened { from, bound, plaintext } = match self.wire.seal.open(frame) {
            Ok(opened) => opened,
            Err(refused) => {
                self.wire.rejected.count(RejectReason::of(&refused), source);
                // It is meant for our run before, or for nobody: the sender learns who we are now.
                if matches!(refused, OpenError::Elsewhere { .. }) {
                    self.greet(source, via);
                }
                return;
            }
        };
        let Ok(message) = Message::decode(plaintext) else {
            return self.wire.rejected.count(RejectReason::Malformed, source);
        };
        match message {
            // Proves nothing: it may be a replay. The answer is of use only to who has that session and the key.
            Message::Hello(_) => {
                if self.directory.may_introduce(from, Instant::now()) && self.may_speak() {
                    self.welcome(source, from);
                }
            }
            _ if !bound => self.wire.rejected.count(RejectReason::Malformed, source),
            Message::Welcome(identity) => self.learn(source, from, &identity),
            _ => match self.directory.who(&from) {
                Some(identity) => {
                    let inbound = Inbound::Message { from: identity.clone(), octets: plaintext.to_vec() };
                    if self.wire.network.inbound.try_send(inbound).is_err() {
                        self.wire.rejected.count(RejectReason::Overload, source);
                    }
                }
                // It knows us, and we have forgotten it, or it has a new session.
                None => self.greet(source, via),
            },
        }
    }

    /// A proven session: who it is, and where it is to be reached.
    fn learn(&mut self, source: SocketAddr, session: Session, identity: &Identity) {
        if self.directory.learn(session, identity) {
            debug!(peer = %identity.id.name, address = %identity.address, "gossip: met");
            if self.may_speak() {
                self.welcome(identity.address, session);
            }
            let _ = self.wire.network.inbound.try_send(Inbound::Met { peer: identity.clone(), at: source });
        }
        // It may be asked for at another address than it tells: what waits there is for it too.
        for address in [identity.address, source] {
            for octets in self.directory.waited(&address) {
                self.send(identity.address, To::Session(session), &octets);
            }
        }
    }

    fn put(&mut self, outbound: Outbound) {
        match outbound {
            Outbound::Message { to, octets } => match self.directory.at(&to) {
                Some(session) => self.send(to, To::Session(session), &octets),
                None => {
                    if self.directory.wait(to, octets, Instant::now()) {
                        self.hello(to);
                    }
                }
            },
            Outbound::Knock { peer, address } => {
                let inbound = self.wire.network.inbound.clone();
                self.opener.knock(address, move |answer| {
                    // The node has ended, or has more to do than this.
                    let _ = inbound.try_send(Inbound::Knocked { peer, answer });
                });
            }
        }
    }

    /// Asks somebody who made us do so who it is.
    fn greet(&mut self, to: SocketAddr, via: Via) {
        if via == Via::Datagram && self.may_speak() {
            self.hello(to);
        }
    }

    fn hello(&mut self, to: SocketAddr) {
        self.introduce(to, To::Anyone, Message::Hello);
    }

    /// Tells who we are to a session.
    fn welcome(&mut self, to: SocketAddr, session: Session) {
        self.introduce(to, To::Session(session), Message::Welcome);
    }

    /// Whether strangers have not yet made us speak too often in this second.
    fn may_speak(&mut self) -> bool {
        let may = self.introductions > 0;
        self.introductions = self.introductions.saturating_sub(1);
        may
    }

    fn introduce(&mut self, to: SocketAddr, receiver: To, message: impl FnOnce(Identity) -> Message<'static>) {
        let mut plaintext = std::mem::take(&mut self.plaintext);
        plaintext.clear();
        // An identity of ours is within all bounds.
        if message(self.wire.own.clone()).encode(&mut plaintext).is_ok() {
            self.send(to, receiver, &plaintext);
        }
        self.plaintext = plaintext;
    }

    fn send(&mut self, to: SocketAddr, receiver: To, octets: &[u8]) {
        self.frame.clear();
        if let Err(error) = self.wire.seal.seal(receiver, octets, &mut self.frame) {
            warn!(%error, "gossip: a message cannot be sent");
            return;
        }
        if self.frame.len() > MAX_DATAGRAM {
            self.wire.metrics.sent(Way::Tcp, self.frame.len());
            return self.opener.send(to, std::mem::take(&mut self.frame));
        }
        // A full buffer or an unreachable network loses it, as the way might have.
        self.wire.metrics.sent(Way::Udp, self.frame.len());
        if let Err(error) = self.udp.try_send_to(&self.frame, to) {
            debug!(%error, %to, "gossip: sending failed");
        }
    }
}

fn new_session() -> Result<Session, RandomError> {
    let mut octets = [0; 16];
    SystemRandom::new().fill(&mut octets).map_err(|_| RandomError)?;
    Ok(Session(octets))
}
