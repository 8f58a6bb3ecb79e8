//! Transports on loopback, with attackers among them.

use std::{future::Future, io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::{
    gossip::{
        STORE_PREFIX,
        link::{self, Link},
        liveness::TcpProbeResult,
    },
    model::{keyring::Key, member::PeerId, name::Label},
};

/// Exceeds any delay on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("no {what}"))
}

fn key(number: u8) -> Key {
    Key::from_random([number; 32])
}

fn ring(keys: &[u8]) -> Option<Keyring> {
    let (first, rest) = keys.split_first()?;
    let mut ring = Keyring::new(key(*first));
    for number in rest {
        ring.install(key(*number)).unwrap();
    }
    Some(ring)
}

/// A transport with the node's end of its channels. Tests that restart at an address use an address of their own, so that
/// no other test takes it meanwhile.
struct Host {
    own: Identity,
    link: Link,
    keys: watch::Sender<Option<Keyring>>,
    rejected: Arc<Rejected>,
    running: JoinHandle<()>,
    /// Connections of the store.
    store: mpsc::Receiver<TcpStream>,
}

/// Queue of the store's connections in tests.
const STORE_QUEUE: usize = 2;

impl Host {
    fn start(name: &str, keys: &[u8]) -> Self {
        Self::start_at(name, 1, "127.0.0.1:0", keys)
    }

    fn start_at(name: &str, generation: u64, address: &str, keys: &[u8]) -> Self {
        let address = address.parse().unwrap();
        // The UDP port chosen by the kernel may be in use for TCP by another test.
        let sockets = (0..20).find_map(|_| Sockets::bind(address).ok()).expect("an address that is free");
        let id = PeerId { name: Label::parse(name).unwrap(), generation };
        let own = Identity { id, address: sockets.local_addr().unwrap() };
        let (link, network) = link::pair();
        let (keys, ring) = watch::channel(ring(keys));
        let rejected = Arc::new(Rejected::default());
        let transport = Transport::new(own.clone(), ring, network, rejected.clone()).unwrap();
        let (taker, store) = mpsc::channel(STORE_QUEUE);
        let transport = transport.with_store_connections(taker);
        Self { own, link, keys, rejected, running: tokio::spawn(transport.run(sockets)), store }
    }

    fn ping(&self, to: SocketAddr, sequence: u64) {
        self.link.outbox.send([to], &Message::Ping { sequence, state: 0 });
    }

    /// Receives the next message with its sender.
    async fn hears(&mut self) -> (String, Vec<u8>) {
        loop {
            match soon("message", self.link.inbound.recv()).await.unwrap() {
                Inbound::Message { from, octets } => return (from.id.name.to_string(), octets),
                Inbound::Introduced { .. } | Inbound::TcpProbed { .. } => {}
            }
        }
    }

    async fn hears_ping(&mut self) -> u64 {
        let (_, octets) = self.hears().await;
        match Message::decode(&octets).unwrap() {
            Message::Ping { sequence, .. } => sequence,
            other => panic!("{other:?}"),
        }
    }

    /// Receives the next message: the number of a ping, or `None` for another message.
    async fn hears_ping_or_other(&mut self) -> Option<u64> {
        let (_, octets) = self.hears().await;
        match Message::decode(&octets).unwrap() {
            Message::Ping { sequence, .. } => Some(sequence),
            _ => None,
        }
    }

    async fn counts(&self, word: &str, at_least: u64) {
        let count = || self.rejected.counts().iter().find(|(known, _)| *known == word).map_or(0, |(_, count)| *count);
        soon(word, async {
            while count() < at_least {
                sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }

    /// Ends like a process: the address is free afterwards.
    async fn end(self) -> SocketAddr {
        let Self { own, link, running, .. } = self;
        drop(link);
        soon("end", running).await.unwrap();
        own.address
    }
}

/// A raw socket with its own AEAD state.
struct Peer {
    udp: UdpSocket,
    seal: Seal,
    own: Identity,
}

impl Peer {
    async fn new(name: &str, keys: &[u8], session: u8) -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let id = PeerId { name: Label::parse(name).unwrap(), generation: 1 };
        let own = Identity { id, address: udp.local_addr().unwrap() };
        let protection = ring(keys).map_or(Protection::Open, Protection::Sealed);
        Self { udp, seal: Seal::new(protection, Session([session; 16])), own }
    }

    fn frame(&mut self, to: Recipient, message: &Message<'_>) -> Vec<u8> {
        let (mut plaintext, mut frame) = (vec![], vec![]);
        message.encode(&mut plaintext).unwrap();
        self.seal.seal(to, &plaintext, &mut frame).unwrap();
        frame
    }

    async fn sends(&self, to: SocketAddr, frame: &[u8]) {
        self.udp.send_to(frame, to).await.unwrap();
    }

    /// Session of the next frame's sender, if the frame can be opened.
    async fn hears(&mut self) -> Result<Session, OpenError> {
        let mut buffer = [0; 2048];
        let len = soon("frame", self.udp.recv(&mut buffer)).await.unwrap();
        self.seal.open(&mut buffer[..len]).map(|opened| opened.from)
    }

    /// The next frame's message.
    async fn hears_message(&mut self) -> Message<'static> {
        let mut buffer = [0; 2048];
        let len = soon("frame", self.udp.recv(&mut buffer)).await.unwrap();
        match Message::decode(self.seal.open(&mut buffer[..len]).unwrap().plaintext).unwrap() {
            Message::Welcome(identity) => Message::Welcome(identity),
            Message::Keys(ring) => Message::Keys(ring),
            other => panic!("{other:?}"),
        }
    }

    /// Exchanges sessions with the host at `to`.
    async fn meets(&mut self, to: SocketAddr) -> Session {
        let hello = self.frame(Recipient::Anyone, &Message::Hello(self.own.clone()));
        self.sends(to, &hello).await;
        let session = self.hears().await.unwrap();
        let welcome = self.frame(Recipient::Session(session), &Message::Welcome(self.own.clone()));
        self.sends(to, &welcome).await;
        // The host introduces itself to a new session.
        assert_eq!(self.hears().await, Ok(session));
        session
    }
}

#[tokio::test]
async fn first_message_to_an_address_is_delivered_after_the_handshake() {
    for keys in [&[][..], &[1]] {
        let (a, mut b) = (Host::start("a", keys), Host::start("b", keys));
        a.ping(b.own.address, 7);
        match soon("meeting", b.link.inbound.recv()).await.unwrap() {
            Inbound::Introduced { peer, at } => assert_eq!((peer, at), (a.own.clone(), a.own.address)),
            other => panic!("{other:?}"),
        }
        assert_eq!(b.hears_ping().await, 7);
        b.ping(a.own.address, 8);
        let mut a = a;
        assert_eq!(a.hears_ping().await, 8);
    }
}

#[tokio::test]
async fn messages_of_any_length_are_delivered() {
    let (a, mut b) = (Host::start("a", &[1]), Host::start("b", &[1]));
    let whole: Vec<u8> = (0..65_507_u32).map(|number| number as u8).collect();
    // A sealed frame of up to 1,232 octets is a datagram; a longer one uses a connection.
    for len in [0, 1, 1_177, 1_178, 1_400, 9_000, 65_507] {
        a.link.outbox.gossip(b.own.address, &whole[..len]);
        let (from, octets) = b.hears().await;
        assert_eq!(
            (from.as_str(), Message::decode(&octets)),
            ("a", Ok(Message::Gossip(&whole[..len]))),
            "{len} octets"
        );
    }
}

#[tokio::test]
async fn frames_without_the_key_are_counted_and_dropped() {
    let mut b = Host::start("b", &[1, 2]);
    let mut stranger = Peer::new("mallory", &[9], 9).await;
    let mut open = Peer::new("open", &[], 8).await;
    let to = b.own.address;
    let mut forged = stranger.frame(Recipient::Anyone, &Message::Hello(stranger.own.clone()));
    forged[2..6].copy_from_slice(&key(1).id().0);
    let foreign = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01".to_vec();
    let cases = [
        ("unknown key", stranger.frame(Recipient::Anyone, &Message::Hello(stranger.own.clone()))),
        ("not sealed", open.frame(Recipient::Anyone, &Message::Hello(open.own.clone()))),
        ("forged", forged),
        ("foreign", foreign),
    ];
    for (at, (word, frame)) in cases.iter().enumerate() {
        stranger.sends(to, frame).await;
        b.counts(word, 1).await;
        // The frame over TCP.
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(&(frame.len() as u32).to_be_bytes()).await.unwrap();
        stream.write_all(frame).await.unwrap();
        b.counts(word, 2).await;
        assert_eq!(b.rejected.counts().len(), at + 1, "{:?}", b.rejected.counts());
    }
    // Frames of key holders are still received, and none of other hosts was.
    let mut friend = Peer::new("friend", &[2, 1], 7).await;
    let session = friend.meets(to).await;
    let ping = friend.frame(Recipient::Session(session), &Message::Ping { sequence: 1, state: 0 });
    friend.sends(to, &ping).await;
    assert_eq!(b.hears().await.0, "friend");
}

#[tokio::test]
async fn captured_frames_are_useless_to_any_receiver() {
    let (mut b, mut c) = (Host::start_at("b", 1, "127.77.0.1:0", &[1]), Host::start("c", &[1]));
    let mut a = Peer::new("a", &[1], 7).await;
    let stranger = Peer::new("mallory", &[], 9).await;
    let session = a.meets(b.own.address).await;
    let ping = a.frame(Recipient::Session(session), &Message::Ping { sequence: 1, state: 0 });
    a.sends(b.own.address, &ping).await;
    assert_eq!(b.hears_ping().await, 1);

    stranger.sends(b.own.address, &ping).await;
    b.counts("replayed", 1).await;
    stranger.sends(c.own.address, &ping).await;
    c.counts("for another run", 1).await;

    // After a restart at the same address the frame belongs to the earlier run.
    let address = b.end().await.to_string();
    let mut b = Host::start_at("b", 2, &address, &[1]);
    stranger.sends(b.own.address, &ping).await;
    b.counts("for another run", 1).await;
    // No captured frame was delivered: the first message is the one sent now.
    for host in [&mut b, &mut c] {
        let session = a.meets(host.own.address).await;
        let ping = a.frame(Recipient::Session(session), &Message::Ping { sequence: 2, state: 0 });
        a.sends(host.own.address, &ping).await;
        assert_eq!(host.hears_ping().await, 2);
    }
}

#[tokio::test]
async fn hello_is_answered_at_a_limited_rate_and_creates_no_peer() {
    let b = Host::start("b", &[1]);
    let mut a = Peer::new("a", &[1], 7).await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let hello = a.frame(Recipient::Anyone, &Message::Hello(a.own.clone()));
    let mut welcomes = 0;
    let mut buffer = [0; 2048];
    let started = Instant::now();
    for _ in 0..500 {
        stranger.send_to(&hello, b.own.address).await.unwrap();
    }
    // The answer to one more frame follows all others.
    let last = {
        let mut other = Peer::new("other", &[1], 8).await;
        let hello = other.frame(Recipient::Anyone, &Message::Hello(other.own.clone()));
        stranger.send_to(&hello, b.own.address).await.unwrap();
        other
    };
    let mut last = last;
    loop {
        let len = soon("welcome", stranger.recv(&mut buffer)).await.unwrap();
        if last.seal.open(&mut buffer[..len].to_vec()).is_ok() {
            break;
        }
        welcomes += 1;
    }
    // One, and one more for each 50 ms that have passed.
    let most = 2 + started.elapsed().as_millis() / 50;
    assert!((1..=most).contains(&welcomes), "{welcomes} of at most {most}");
    assert_eq!(b.link.inbound.len(), 0, "no peer was created");
}

#[tokio::test]
async fn restarted_peer_is_reached_again() {
    let (a, mut b) = (Host::start("a", &[1]), Host::start_at("b", 1, "127.77.0.2:0", &[1]));
    a.ping(b.own.address, 1);
    assert_eq!(b.hears_ping().await, 1);
    let address = b.end().await.to_string();
    let mut b = Host::start_at("b", 2, &address, &[1]);
    // A message to the previous run is lost and reveals the restart to both sides.
    let heard = async {
        for sequence in 2.. {
            a.ping(b.own.address, sequence);
            sleep(Duration::from_millis(5)).await;
            if b.link.inbound.try_recv().is_ok_and(|inbound| matches!(inbound, Inbound::Message { .. })) {
                return;
            }
        }
    };
    soon("message after the restart", heard).await;
}

#[tokio::test]
async fn key_rotation_loses_no_message() {
    let (a, mut b) = (Host::start("a", &[1]), Host::start("b", &[1]));
    let to = b.own.address;
    let (mut sent, mut heard) = (0, 0);
    let both = |keys: &[u8]| {
        a.keys.send_replace(ring(keys));
    };
    // Installed and used on one side after the other: all messages arrive in order.
    let steps: [(&[u8], &[u8]); 5] =
        [(&[1], &[1]), (&[1, 2], &[1]), (&[1, 2], &[1, 2]), (&[2, 1], &[1, 2]), (&[2, 1], &[2, 1])];
    for (of_a, of_b) in steps {
        both(of_a);
        b.keys.send_replace(ring(of_b));
        for _ in 0..20 {
            sent += 1;
            a.ping(to, sent);
            tokio::task::yield_now().await;
        }
        while heard < sent {
            heard = b.hears_ping().await;
        }
    }
    assert_eq!((heard, b.rejected.counts()), (sent, vec![]));
    // Removed: both sides start new sessions; messages in flight may be lost.
    both(&[2]);
    b.keys.send_replace(ring(&[2]));
    let goes_on = async {
        loop {
            sent += 1;
            a.ping(to, sent);
            sleep(Duration::from_millis(5)).await;
            while let Ok(inbound) = b.link.inbound.try_recv() {
                if let Inbound::Message { octets, .. } = inbound {
                    assert!(matches!(Message::decode(&octets), Ok(Message::Ping { .. })));
                    return;
                }
            }
        }
    };
    soon("message after the removal", goes_on).await;
    // A host that has only the removed key is no longer a key holder.
    let mut late = Peer::new("late", &[1], 7).await;
    let hello = late.frame(Recipient::Anyone, &Message::Hello(late.own.clone()));
    late.sends(to, &hello).await;
    b.counts("unknown key", 1).await;
}

/// A node that was away during a rotation sends its frames with the old key. The first peer that hears it sends its keyring.
#[tokio::test]
async fn node_with_an_old_key_is_sent_the_new_one() {
    let mut returning = Host::start("returning", &[1]);
    let mut b = Host::start("b", &[2, 1]);
    let rotated = ring(&[2, 1]).unwrap().as_of(1);
    b.keys.send_replace(Some(rotated.clone()));
    // Whichever side sends first.
    returning.ping(b.own.address, 1);
    assert_eq!(b.hears_ping().await, 1);
    let (from, octets) = returning.hears().await;
    assert_eq!((from.as_str(), Message::decode(&octets)), ("b", Ok(Message::Keys(rotated.clone()))));
    // Until it has taken over the key, it cannot open other frames of the peer.
    b.ping(returning.own.address, 2);
    returning.counts("unknown key", 1).await;
    returning.keys.send_replace(Some(rotated.clone()));
    b.ping(returning.own.address, 3);
    assert_eq!(returning.hears_ping().await, 3);

    // A hello that is not answered is repeated with each key.
    let mut late = Host::start("late", &[1]);
    b.ping(late.own.address, 4);
    let (from, octets) = late.hears().await;
    assert_eq!((from.as_str(), Message::decode(&octets)), ("b", Ok(Message::Keys(rotated))));
}

/// Each side of a split has rotated to a key of its own, and both hold the former one.
#[tokio::test]
async fn nodes_of_two_rotations_hear_each_other_by_a_common_key() {
    let (mut a, mut b) = (Host::start("a", &[1]), Host::start("b", &[1]));
    a.ping(b.own.address, 1);
    assert_eq!(b.hears_ping().await, 1);
    let (of_a, of_b) = (ring(&[2, 1]).unwrap().as_of(1), ring(&[3, 1]).unwrap().as_of(1));
    a.keys.send_replace(Some(of_a.clone()));
    b.keys.send_replace(Some(of_b.clone()));
    let mut kept = 0;
    // The sessions are known on both sides: no hello is due.
    let exchanged = async {
        while kept < 2 {
            a.ping(b.own.address, 2);
            b.ping(a.own.address, 2);
            for (host, expected) in [(&mut a, &of_b), (&mut b, &of_a)] {
                let Ok(Inbound::Message { octets, .. }) = host.link.inbound.try_recv() else { continue };
                if let Ok(Message::Keys(theirs)) = Message::decode(&octets) {
                    assert_eq!(theirs, *expected);
                    let mut ring = host.keys.borrow().clone().unwrap();
                    ring.take_over(&theirs);
                    host.keys.send_replace(Some(ring));
                    kept += 1;
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon("exchange of the keyrings", exchanged).await;
    // Each keeps its primary key, and both decrypt both.
    a.ping(b.own.address, 9);
    soon("ping", async { while b.hears_ping_or_other().await != Some(9) {} }).await;
    b.ping(a.own.address, 9);
    soon("ping", async { while a.hears_ping_or_other().await != Some(9) {} }).await;
    assert_eq!(a.keys.borrow().as_ref().map(|ring| ring.primary().id()), Some(key(2).id()));
    assert_eq!(b.keys.borrow().as_ref().map(|ring| ring.primary().id()), Some(key(3).id()));
}

/// A node that has the new key was away while it was used and the old one removed. The others cannot decrypt its frames, and it
/// decrypts theirs.
#[tokio::test]
async fn node_whose_primary_key_was_removed_is_sent_the_newer_keyring() {
    let rotated = ring(&[2]).unwrap().as_of(1);
    // It has restarted, or it keeps the session that it had; and either side sends first.
    for (is_restarted, is_first) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut away = Host::start("away", &[1, 2]);
        let mut b = Host::start("b", &[1, 2]);
        if !is_restarted {
            away.ping(b.own.address, 1);
            assert_eq!(b.hears_ping().await, 1);
        }
        b.keys.send_replace(Some(rotated.clone()));
        let exchanged = async {
            loop {
                if is_first || !is_restarted {
                    away.ping(b.own.address, 2);
                }
                if !(is_first && is_restarted) {
                    b.ping(away.own.address, 2);
                }
                while let Ok(inbound) = away.link.inbound.try_recv() {
                    let Inbound::Message { octets, .. } = inbound else { continue };
                    if let Ok(Message::Keys(theirs)) = Message::decode(&octets) {
                        return theirs;
                    }
                }
                // The node takes over a keyring of an earlier rotation without an effect.
                while b.link.inbound.try_recv().is_ok() {}
                sleep(Duration::from_millis(20)).await;
            }
        };
        let case = format!("restarted {is_restarted}, sends first {is_first}");
        assert_eq!(soon(&case, exchanged).await, rotated, "{case}");
        away.keys.send_replace(Some(rotated.clone()));
        // It may send some frames before it has taken over the keyring.
        let heard = async {
            loop {
                away.ping(b.own.address, 9);
                sleep(Duration::from_millis(20)).await;
                while let Ok(inbound) = b.link.inbound.try_recv() {
                    let Inbound::Message { octets, .. } = inbound else { continue };
                    if Message::decode(&octets) == Ok(Message::Ping { sequence: 9, state: 0 }) {
                        return;
                    }
                }
            }
        };
        soon(&format!("ping, {case}"), heard).await;
    }
}

#[tokio::test]
async fn keys_are_sent_to_bound_frames_of_a_known_key_only() {
    let b = Host::start("b", &[2, 1]);
    let mut stranger = Peer::new("mallory", &[9], 9).await;
    let mut old = Peer::new("old", &[1], 8).await;
    // A hello may be a replay: the answer is an introduction, whatever its key.
    let hello = old.frame(Recipient::Anyone, &Message::Hello(old.own.clone()));
    old.sends(b.own.address, &hello).await;
    assert!(matches!(old.hears_message().await, Message::Welcome(_)));
    // Frames of an unknown key from an unknown address are not answered.
    let hello = stranger.frame(Recipient::Anyone, &Message::Hello(stranger.own.clone()));
    stranger.sends(b.own.address, &hello).await;
    b.counts("unknown key", 1).await;
    let mut octets = [0; 1];
    assert!(stranger.udp.try_recv(&mut octets).is_err());
}

#[tokio::test]
async fn idle_connections_are_replaced() {
    let (a, mut b) = (Host::start("a", &[1]), Host::start("b", &[1]));
    let mut idle = vec![];
    for _ in 0..200 {
        idle.push(TcpStream::connect(b.own.address).await.unwrap());
    }
    let long = [7; 20_000];
    a.link.outbox.gossip(b.own.address, &long);
    let (_, octets) = b.hears().await;
    assert_eq!(Message::decode(&octets), Ok(Message::Gossip(&long)));
}

#[tokio::test]
async fn stream_outlasts_connections_of_others() {
    let (a, mut b) = (Host::start("a", &[1]), Host::start("b", &[1]));
    a.ping(b.own.address, 1);
    b.hears_ping().await;
    let (messages, stream) = mpsc::channel(1);
    a.link.outbox.stream(b.own.address, stream);
    let mut idle = vec![];
    for part in 0..3 {
        let mut octets = vec![];
        Message::BulkPart { transfer: 1, part, last: false, content: b"x" }.encode(&mut octets).unwrap();
        messages.send(octets.clone()).await.unwrap();
        assert_eq!(b.hears().await.1, octets, "{part}");
        for _ in 0..100 {
            idle.push(TcpStream::connect(b.own.address).await.unwrap());
        }
    }
}

#[tokio::test]
async fn tcp_probe_distinguishes_ended_from_stopped_processes() {
    let mut a = Host::start("a", &[1]);
    // Only the kernel accepts, as for a stopped process.
    let stopped = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ended = {
        let listener = TcpListener::bind("127.77.0.3:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    for (address, expected) in
        [(stopped.local_addr().unwrap(), TcpProbeResult::Accepted), (ended, TcpProbeResult::Refused)]
    {
        let peer = PeerId { name: Label::parse("b").unwrap(), generation: 1 };
        a.link.outbox.tcp_probe(peer.clone(), address);
        match soon("answer", a.link.inbound.recv()).await.unwrap() {
            Inbound::TcpProbed { peer: probed, result } => assert_eq!((probed, result), (peer, expected)),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn udp_and_tcp_share_a_port_and_a_port_in_use_is_refused() {
    let sockets = Sockets::bind("127.77.0.4:0".parse().unwrap()).unwrap();
    let address = sockets.local_addr().unwrap();
    assert_eq!(Sockets::bind(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert!(TcpStream::connect(address).await.is_ok());
}

#[tokio::test]
async fn connections_of_the_store_are_handed_over() {
    let mut a = Host::start("a", &[1]);
    // More than gossip would keep: a connection that was handed over is none of gossip's.
    let mut kept = vec![];
    for number in 0..100_u8 {
        let mut client = TcpStream::connect(a.own.address).await.unwrap();
        client.write_all(&STORE_PREFIX).await.unwrap();
        client.write_all(&[number]).await.unwrap();
        let mut server = soon("connection", a.store.recv()).await.unwrap();
        server.write_all(&[number + 1]).await.unwrap();
        assert_eq!(soon("octet", server.read_u8()).await.unwrap(), number);
        kept.push((client, server, number + 1));
    }
    for (client, server, number) in &mut kept {
        assert_eq!(soon("octet", client.read_u8()).await.unwrap(), *number);
        client.write_all(&[7]).await.unwrap();
        assert_eq!(soon("octet", server.read_u8()).await.unwrap(), 7);
    }
}

#[tokio::test]
async fn connections_of_the_store_are_closed_without_room_or_taker() {
    let mut a = Host::start("a", &[1]);
    let connect = async |address| {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(&STORE_PREFIX).await.unwrap();
        client
    };
    let mut queued = vec![];
    for _ in 0..STORE_QUEUE {
        queued.push(connect(a.own.address).await);
        soon("queue", async {
            while a.store.len() < queued.len() {
                sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }
    let mut excess = connect(a.own.address).await;
    assert_closed(&mut excess).await;
    assert!(a.store.try_recv().is_ok());
    a.store.close();
    while a.store.try_recv().is_ok() {}
    assert_closed(&mut connect(a.own.address).await).await;
    // Behind a frame, the prefix is a length that is refused.
    let mut late = TcpStream::connect(a.own.address).await.unwrap();
    late.write_all(&[0, 0, 0, 1, 9]).await.unwrap();
    late.write_all(&STORE_PREFIX).await.unwrap();
    assert_closed(&mut late).await;
}

async fn assert_closed(stream: &mut TcpStream) {
    // Octets that were not read make the close a reset.
    let read = soon("close", stream.read(&mut [0; 1])).await;
    assert!(matches!(&read, Ok(0)) || read.is_err(), "{read:?}");
}
