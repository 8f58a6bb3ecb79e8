//! The network's side of a [`Link`](super::link): sockets, seals, and who is who.
//!
//! One task owns the seal and one UDP socket. What fits a packet of every path goes as a datagram; what does not, over a
//! TCP connection of its own, so that nothing depends on IP fragments. The TCP listener serves a second purpose: whether
//! the kernel takes a connection tells an agent that is stopped from one that has ended ([`Knock`]).
//!
//! # Who is who
//! A frame is bound to the run of the receiver that it is meant for (its session), so that a captured frame is worth
//! nothing to another node or after a restart. Sessions are made known by two messages: `Hello`, not bound, proves nothing
//! and is answered with `Welcome`, bound to the session that said hello. Who receives a `Welcome` knows that its sender
//! has the key and lives now, and takes its name, address and session from it. What is to be sent to an address whose
//! session is not known waits for a moment, behind a hello.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    sync::{Semaphore, mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    keyring::Keyring,
    link::{Inbound, Network, Outbound},
    liveness::Knock,
    message::{Identity, Message},
    rejected::{Rejected, Why},
    seal::{MAX_PLAINTEXT, OVERHEAD, Opened, Refused, Seal, Session, To},
};
use crate::model::member::PeerId;

/// Octets of the longest datagram: with IPv6's and UDP's headers it fits the 1,280 octets that every path carries
/// (RFC 8200 §5).
const MAX_DATAGRAM: usize = 1232;
/// Octets of the longest frame.
const MAX_FRAME: usize = MAX_PLAINTEXT + OVERHEAD;
/// Octets of a TCP segment: fits every path, so that one that swallows "packet too big" does no harm.
const SEGMENT: u32 = 1200;
/// Octets that the kernel keeps while the task is busy.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Datagrams in a row before the rest gets a turn.
const BATCH: usize = 64;
/// Connections that are read from at once.
const CONNECTIONS_IN: usize = 64;
/// Connections that are written to at once; beyond it frames are lost, and gossip repairs.
const CONNECTIONS_OUT: usize = 64;
/// How long a connection may take to bring or to take its frame.
const CONNECTION: Duration = Duration::from_secs(5);
/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a host may take to answer a knock: a SYN lost is not sent again within it.
const KNOCK: Duration = Duration::from_millis(300);
/// How long a message waits for its receiver's session.
const PATIENCE: Duration = Duration::from_secs(1);
/// Messages that wait for one address.
const WAITING: usize = 16;
/// Addresses that messages wait for. More are lost, and sent again by who keeps trying.
const WAITING_FOR: usize = 1024;
/// From one hello to an address to the next.
const HELLO_AGAIN: Duration = Duration::from_millis(100);
/// Sessions that are remembered: eight for each node of the largest cluster.
const SESSIONS: usize = 4096;
/// Hellos and welcomes a second to whoever makes us say them: enough for 500 nodes that start together, and no use to
/// somebody who wants us to flood a third.
const INTRODUCTIONS: u32 = 1000;
/// The pause after a socket error, so that a lasting one does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// The sockets of a node: UDP and TCP on one port.
pub struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    /// Binds both. Port 0 lets the kernel choose.
    ///
    /// # Errors
    /// What the system said.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let udp = open(address, Type::DGRAM, Protocol::UDP)?;
        // The kernel caps it at net.core.rmem_max without an error: what it grants is better than its default.
        udp.set_recv_buffer_size(RECEIVE_BUFFER)?;
        udp.bind(&address.into())?;
        let udp = UdpSocket::from_std(udp.into())?;
        let tcp = open(address, Type::STREAM, Protocol::TCP)?;
        // A restart must not wait for connections of before.
        tcp.set_reuse_address(true)?;
        tcp.set_tcp_mss(SEGMENT)?;
        tcp.bind(&udp.local_addr()?.into())?;
        tcp.listen(BACKLOG)?;
        Ok(Self { udp, tcp: TcpListener::from_std(tcp.into())? })
    }

    /// Where they are bound.
    ///
    /// # Errors
    /// What the system said.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }
}

/// Connections that the kernel takes while the agent is stopped: enough for all who knock until it counts as hung.
const BACKLOG: i32 = 1024;

/// A socket of the address's family, not bound yet, that never blocks.
fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What the task is started with.
pub struct Wire {
    /// Who we are: told to those who ask.
    pub own: Identity,
    /// Seals and opens; holds our session.
    pub seal: Seal,
    /// The newest keyring; `None` while nothing is sealed.
    pub keyring: watch::Receiver<Option<Keyring>>,
    /// The node's side.
    pub network: Network,
    /// Counts what is not let in.
    pub rejected: Arc<Rejected>,
}

impl Wire {
    /// Carries messages until the node has dropped its side, its last words included.
    pub async fn run(self, sockets: Sockets) {
        let Sockets { udp, tcp } = sockets;
        let (frames, arrived) = mpsc::channel(CONNECTIONS_IN);
        let ended = CancellationToken::new();
        let _guard = ended.clone().drop_guard();
        tokio::spawn(accept(tcp, frames, ended));
        let task = Task {
            wire: self,
            udp,
            arrived,
            writers: Arc::new(Semaphore::new(CONNECTIONS_OUT)),
            knocks: Arc::new(Semaphore::new(CONNECTIONS_OUT)),
            directory: Directory::default(),
            introductions: INTRODUCTIONS,
            plaintext: Vec::new(),
            frame: Vec::new(),
        };
        task.run().await;
    }
}

/// Who has which session, and what waits for one.
#[derive(Default)]
struct Directory {
    sessions: HashMap<Session, Identity>,
    addresses: HashMap<SocketAddr, Session>,
    waiting: HashMap<SocketAddr, Waiting>,
}

struct Waiting {
    since: Instant,
    greeted: Instant,
    messages: Vec<Arc<[u8]>>,
}

struct Task {
    wire: Wire,
    udp: UdpSocket,
    /// Frames that came over TCP.
    arrived: mpsc::Receiver<(SocketAddr, Vec<u8>)>,
    writers: Arc<Semaphore>,
    knocks: Arc<Semaphore>,
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
        loop {
            tokio::select! {
                ready = self.udp.readable() => {
                    if ready.is_err() || self.receive(&mut buffer).await.is_err() {
                        tokio::time::sleep(ERROR_PAUSE).await;
                    }
                }
                Some((source, mut frame)) = self.arrived.recv() => self.take(&mut frame, source),
                outbound = self.wire.network.outbound.recv() => match outbound {
                    Some(outbound) => self.put(outbound),
                    None => return,
                },
                Ok(()) = self.wire.keyring.changed() => {
                    if let Some(keyring) = self.wire.keyring.borrow_and_update().clone() {
                        self.wire.seal.set_keyring(keyring);
                    }
                }
                _ = second.tick() => {
                    self.introductions = INTRODUCTIONS;
                    self.directory.waiting.retain(|_, waiting| waiting.since.elapsed() < PATIENCE);
                    self.wire.rejected.report();
                }
            }
        }
    }

    async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..BATCH {
            match self.udp.try_recv_from(buffer) {
                Ok((len, source)) => self.take(&mut buffer[..len], source),
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
    fn take(&mut self, frame: &mut [u8], source: SocketAddr) {
        let Opened { from, bound, plaintext } = match self.wire.seal.open(frame) {
            Ok(opened) => opened,
            Err(Refused::Elsewhere { .. }) => {
                // It is meant for our run before, or for nobody: the sender learns who we are now.
                self.wire.rejected.count(Why::Elsewhere, source);
                return self.greet(source);
            }
            Err(refused) => return self.wire.rejected.count(Why::of(&refused), source),
        };
        let message = match Message::decode(plaintext) {
            Ok(message) => message,
            Err(_) => return self.wire.rejected.count(Why::Malformed, source),
        };
        match message {
            // Proves nothing: it may be a replay. The answer is of use only to who has that session and the key.
            Message::Hello(_) => self.introduce(source, from),
            _ if !bound => self.wire.rejected.count(Why::Malformed, source),
            Message::Welcome(identity) => self.learn(source, from, &identity),
            _ => match self.directory.sessions.get(&from) {
                Some(identity) => {
                    let inbound = Inbound::Message { from: identity.clone(), octets: plaintext.to_vec() };
                    if self.wire.network.inbound.try_send(inbound).is_err() {
                        self.wire.rejected.count(Why::Overload, source);
                    }
                }
                // It knows us, and we have forgotten it.
                None => self.greet(source),
            },
        }
    }

    /// A proven session: who it is, and where it is to be reached.
    fn learn(&mut self, source: SocketAddr, session: Session, identity: &Identity) {
        let known = self.directory.sessions.get(&session) == Some(identity);
        if !known {
            debug!(peer = %identity.id.name, address = %identity.address, "gossip: met");
            if self.directory.sessions.len() >= SESSIONS {
                // Not reached by any real cluster; who is still there introduces itself anew.
                self.directory.sessions.clear();
                self.directory.addresses.clear();
            }
            if let Some(before) = self.directory.addresses.insert(identity.address, session)
                && before != session
            {
                self.directory.sessions.remove(&before);
            }
            self.directory.sessions.insert(session, identity.clone());
            self.introduce(identity.address, session);
            let _ = self.wire.network.inbound.try_send(Inbound::Met { peer: identity.clone(), at: source });
        }
        // It may be asked for at another address than it tells: what waits there is for it too.
        for address in [identity.address, source] {
            if let Some(waiting) = self.directory.waiting.remove(&address) {
                for octets in waiting.messages {
                    self.send(identity.address, session, &octets);
                }
            }
        }
    }

    fn put(&mut self, outbound: Outbound) {
        match outbound {
            Outbound::Message { to, octets } => match self.directory.addresses.get(&to) {
                Some(session) => self.send(to, *session, &octets),
                None => self.wait(to, octets),
            },
            Outbound::Knock { peer, address } => self.knock(peer, address),
        }
    }

    /// Keeps a message until its receiver has introduced itself.
    fn wait(&mut self, to: SocketAddr, octets: Arc<[u8]>) {
        let now = Instant::now();
        let full = self.directory.waiting.len() >= WAITING_FOR;
        let waiting = match self.directory.waiting.entry(to) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(_) if full => return,
            std::collections::hash_map::Entry::Vacant(entry) => {
                let greeted = now.checked_sub(HELLO_AGAIN).unwrap_or(now);
                entry.insert(Waiting { since: now, greeted, messages: Vec::new() })
            }
        };
        if waiting.messages.len() < WAITING {
            waiting.messages.push(octets);
        }
        if now.duration_since(waiting.greeted) >= HELLO_AGAIN {
            waiting.greeted = now;
            self.hello(to);
        }
    }

    /// Says hello to somebody who made us do so.
    fn greet(&mut self, to: SocketAddr) {
        if self.may_introduce() {
            self.hello(to);
        }
    }

    fn hello(&mut self, to: SocketAddr) {
        self.write(to, To::Anyone, Message::Hello);
    }

    /// Tells who we are to a session.
    fn introduce(&mut self, to: SocketAddr, session: Session) {
        if self.may_introduce() {
            self.write(to, To::Session(session), Message::Welcome);
        }
    }

    fn may_introduce(&mut self) -> bool {
        let may = self.introductions > 0;
        self.introductions = self.introductions.saturating_sub(1);
        may
    }

    fn write(&mut self, to: SocketAddr, receiver: To, message: impl FnOnce(Identity) -> Message<'static>) {
        let mut plaintext = std::mem::take(&mut self.plaintext);
        plaintext.clear();
        // An identity of ours is within all bounds.
        if message(self.wire.own.clone()).encode(&mut plaintext).is_ok() {
            self.seal_and_send(to, receiver, &plaintext);
        }
        self.plaintext = plaintext;
    }

    fn send(&mut self, to: SocketAddr, session: Session, octets: &[u8]) {
        self.seal_and_send(to, To::Session(session), octets);
    }

    fn seal_and_send(&mut self, to: SocketAddr, receiver: To, octets: &[u8]) {
        self.frame.clear();
        if let Err(error) = self.wire.seal.seal(receiver, octets, &mut self.frame) {
            warn!(%error, "gossip: a message cannot be sent");
            return;
        }
        if self.frame.len() > MAX_DATAGRAM {
            return self.stream(to);
        }
        // A full buffer or an unreachable network loses it, as the way might have.
        if let Err(error) = self.udp.try_send_to(&self.frame, to) {
            debug!(%error, %to, "gossip: sending failed");
        }
    }

    /// Sends the frame over a connection of its own.
    fn stream(&mut self, to: SocketAddr) {
        let Ok(permit) = self.writers.clone().try_acquire_owned() else {
            debug!(%to, "gossip: too many connections; a message is lost");
            return;
        };
        let frame = std::mem::take(&mut self.frame);
        tokio::spawn(async move {
            let sent = async {
                let mut stream = timeout(CONNECT, connect(to)).await??;
                let len = u32::try_from(frame.len()).map_err(io::Error::other)?;
                stream.write_all(&len.to_be_bytes()).await?;
                stream.write_all(&frame).await?;
                stream.shutdown().await
            };
            let sent = timeout(CONNECTION, sent).await.unwrap_or_else(|elapsed| Err(elapsed.into()));
            if let Err(error) = sent {
                debug!(%error, %to, "gossip: a long message is lost");
            }
            drop(permit);
        });
    }

    fn knock(&self, peer: PeerId, address: SocketAddr) {
        let Ok(permit) = self.knocks.clone().try_acquire_owned() else { return };
        let inbound = self.wire.network.inbound.clone();
        tokio::spawn(async move {
            let answer = match timeout(KNOCK, connect(address)).await {
                Ok(Ok(_)) => Knock::Accepted,
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Knock::Refused,
                Ok(Err(_)) | Err(_) => Knock::Silent,
            };
            // The node has ended, or has more to do than this.
            let _ = inbound.try_send(Inbound::Knocked { peer, answer });
            drop(permit);
        });
    }
}

async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    SockRef::from(&socket).set_tcp_mss(SEGMENT)?;
    socket.connect(to).await
}

/// Takes connections, each of which brings one frame, or none if somebody only knocked.
async fn accept(listener: TcpListener, frames: mpsc::Sender<(SocketAddr, Vec<u8>)>, ended: CancellationToken) {
    let readers = Arc::new(Semaphore::new(CONNECTIONS_IN));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ended.cancelled() => return,
        };
        let (mut stream, source) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "gossip: cannot take a connection");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        // Whoever is too many is turned away rather than kept waiting: a full backlog would look like a dead host.
        let Ok(permit) = readers.clone().try_acquire_owned() else { continue };
        let frames = frames.clone();
        tokio::spawn(async move {
            if let Ok(Ok(Some(frame))) = timeout(CONNECTION, read_frame(&mut stream)).await {
                let _ = frames.send((source, frame)).await;
            }
            drop(permit);
        });
    }
}

/// One frame with its length in front; `None` where there is none, or it is longer than any of ours.
async fn read_frame(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).await?;
    let len = u32::from_be_bytes(len) as usize;
    if len > MAX_FRAME {
        return Ok(None);
    }
    // What a stranger announces is not reserved before it arrives.
    let mut frame = Vec::new();
    stream.take(len as u64).read_to_end(&mut frame).await?;
    Ok((frame.len() == len).then_some(frame))
}
