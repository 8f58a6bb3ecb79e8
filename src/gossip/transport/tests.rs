//! Two and more wires on loopback, and a stranger among them.

use std::{future::Future, io, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::{
    gossip::{
        channel::{self, Link},
        liveness::TcpProbeResult,
    },
    model::{keyring::Key, member::PeerId, name::Label},
};

/// Longer than anything takes on a busy machine, shorter than anybody's patience.
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

/// A wire with the node's side of it. Tests that give an address back use one of their own, so that no other test takes
/// it meanwhile.
struct Host {
    own: Identity,
    link: Link,
    keys: watch::Sender<Option<Keyring>>,
    rejected: Arc<Rejected>,
    running: JoinHandle<()>,
}

impl Host {
    fn start(name: &str, keys: &[u8]) -> Self {
        Self::start_at(name, 1, "127.0.0.1:0", keys)
    }

    fn start_at(name: &str, generation: u64, address: &str, keys: &[u8]) -> Self {
        let address = address.parse().unwrap();
        // The port that the kernel gives for UDP may be another test's for TCP.
        let sockets = (0..20).find_map(|_| Sockets::bind(address).ok()).expect("an address that is free");
        let id = PeerId { name: Label::parse(name).unwrap(), generation };
        let own = Identity { id, address: sockets.local_addr().unwrap() };
        let (link, network) = channel::pair();
        let (keys, ring) = watch::channel(ring(keys));
        let rejected = Arc::new(Rejected::default());
        let wire = Wire::new(own.clone(), ring, network, rejected.clone()).unwrap();
        Self { own, link, keys, rejected, running: tokio::spawn(wire.run(sockets)) }
    }

    fn ping(&self, to: SocketAddr, sequence: u64) {
        self.link.outbox.send([to], &Message::Ping { sequence });
    }

    /// The next message, from whom.
    async fn hears(&mut self) -> (String, Vec<u8>) {
        loop {
            match soon("message", self.link.inbound.recv()).await.unwrap() {
                Inbound::Message { from, octets } => return (from.id.name.to_string(), octets),
                Inbound::Met { .. } | Inbound::Knocked { .. } => {}
            }
        }
    }

    async fn hears_ping(&mut self) -> u64 {
        let (_, octets) = self.hears().await;
        match Message::decode(&octets).unwrap() {
            Message::Ping { sequence } => sequence,
            other => panic!("{other:?}"),
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

    /// Ends as a process does: the address is free afterwards.
    async fn end(self) -> SocketAddr {
        let Self { own, link, running, .. } = self;
        drop(link);
        soon("end", running).await.unwrap();
        own.address
    }
}

/// Someone with a socket, and with a seal where it has a key.
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

    fn frame(&mut self, to: To, message: &Message<'_>) -> Vec<u8> {
        let (mut plaintext, mut frame) = (vec![], vec![]);
        message.encode(&mut plaintext).unwrap();
        self.seal.seal(to, &plaintext, &mut frame).unwrap();
        frame
    }

    async fn sends(&self, to: SocketAddr, frame: &[u8]) {
        self.udp.send_to(frame, to).await.unwrap();
    }

    /// The session of whoever sends the next frame, if it is one for us.
    async fn hears(&mut self) -> Result<Session, OpenError> {
        let mut buffer = [0; 2048];
        let len = soon("frame", self.udp.recv(&mut buffer)).await.unwrap();
        self.seal.open(&mut buffer[..len]).map(|opened| opened.from)
    }

    /// Gets to know the host at `to`, and it us.
    async fn meets(&mut self, to: SocketAddr) -> Session {
        let hello = self.frame(To::Anyone, &Message::Hello(self.own.clone()));
        self.sends(to, &hello).await;
        let session = self.hears().await.unwrap();
        let welcome = self.frame(To::Session(session), &Message::Welcome(self.own.clone()));
        self.sends(to, &welcome).await;
        // It introduces itself to whom it has met.
        assert_eq!(self.hears().await, Ok(session));
        session
    }
}

#[tokio::test]
async fn who_is_sent_something_is_met_first_and_hears_it() {
    for keys in [&[][..], &[1]] {
        let (a, mut b) = (Host::start("a", keys), Host::start("b", keys));
        a.ping(b.own.address, 7);
        match soon("meeting", b.link.inbound.recv()).await.unwrap() {
            Inbound::Met { peer, at } => assert_eq!((peer, at), (a.own.clone(), a.own.address)),
            other => panic!("{other:?}"),
        }
        assert_eq!(b.hears_ping().await, 7);
        b.ping(a.own.address, 8);
        let mut a = a;
        assert_eq!(a.hears_ping().await, 8);
    }
}

#[tokio::test]
async fn a_message_of_any_length_arrives() {
    let (a, mut b) = (Host::start("a", &[1]), Host::start("b", &[1]));
    let whole: Vec<u8> = (0..65_507_u32).map(|number| number as u8).collect();
    // The longest that fits a datagram is 1,232 octets with its seal; beyond it, a connection carries it.
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
async fn what_a_stranger_sends_is_counted_and_no_more() {
    let mut b = Host::start("b", &[1, 2]);
    let mut stranger = Peer::new("mallory", &[9], 9).await;
    let mut open = Peer::new("open", &[], 8).await;
    let to = b.own.address;
    let mut forged = stranger.frame(To::Anyone, &Message::Hello(stranger.own.clone()));
    forged[2..6].copy_from_slice(&key(1).id().0);
    let foreign = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01".to_vec();
    let cases = [
        ("unknown key", stranger.frame(To::Anyone, &Message::Hello(stranger.own.clone()))),
        ("not sealed", open.frame(To::Anyone, &Message::Hello(open.own.clone()))),
        ("forged", forged),
        ("foreign", foreign),
    ];
    for (at, (word, frame)) in cases.iter().enumerate() {
        stranger.sends(to, frame).await;
        b.counts(word, 1).await;
        // The same over TCP.
        let mut stream = TcpStream::connect(to).await.unwrap();
        use tokio::io::AsyncWriteExt;
        stream.write_all(&(frame.len() as u32).to_be_bytes()).await.unwrap();
        stream.write_all(frame).await.unwrap();
        b.counts(word, 2).await;
        assert_eq!(b.rejected.counts().len(), at + 1, "{:?}", b.rejected.counts());
    }
    // Whoever has a key is heard as before, and nobody else was.
    let mut friend = Peer::new("friend", &[2, 1], 7).await;
    let session = friend.meets(to).await;
    let ping = friend.frame(To::Session(session), &Message::Ping { sequence: 1 });
    friend.sends(to, &ping).await;
    assert_eq!(b.hears().await.0, "friend");
}

#[tokio::test]
async fn a_captured_frame_is_worth_nothing_to_anybody_at_any_time() {
    let (mut b, mut c) = (Host::start_at("b", 1, "127.77.0.1:0", &[1]), Host::start("c", &[1]));
    let mut a = Peer::new("a", &[1], 7).await;
    let stranger = Peer::new("mallory", &[], 9).await;
    let session = a.meets(b.own.address).await;
    let ping = a.frame(To::Session(session), &Message::Ping { sequence: 1 });
    a.sends(b.own.address, &ping).await;
    assert_eq!(b.hears_ping().await, 1);

    stranger.sends(b.own.address, &ping).await;
    b.counts("replayed", 1).await;
    stranger.sends(c.own.address, &ping).await;
    c.counts("for another run", 1).await;

    // After a restart at the same address it is a frame for the run before.
    let address = b.end().await.to_string();
    let mut b = Host::start_at("b", 2, &address, &[1]);
    stranger.sends(b.own.address, &ping).await;
    b.counts("for another run", 1).await;
    // Nothing was delivered: what comes first is what is sent now.
    for host in [&mut b, &mut c] {
        let session = a.meets(host.own.address).await;
        let ping = a.frame(To::Session(session), &Message::Ping { sequence: 2 });
        a.sends(host.own.address, &ping).await;
        assert_eq!(host.hears_ping().await, 2);
    }
}

#[tokio::test]
async fn a_hello_proves_nothing_and_is_answered_seldom() {
    let b = Host::start("b", &[1]);
    let mut a = Peer::new("a", &[1], 7).await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let hello = a.frame(To::Anyone, &Message::Hello(a.own.clone()));
    let mut welcomes = 0;
    let mut buffer = [0; 2048];
    let started = Instant::now();
    for _ in 0..500 {
        stranger.send_to(&hello, b.own.address).await.unwrap();
    }
    // One more frame, whose answer comes behind all others.
    let last = {
        let mut other = Peer::new("other", &[1], 8).await;
        let hello = other.frame(To::Anyone, &Message::Hello(other.own.clone()));
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
    // One, and one more for each 50 ms that this took.
    let most = 2 + started.elapsed().as_millis() / 50;
    assert!((1..=most).contains(&welcomes), "{welcomes} of at most {most}");
    assert_eq!(b.link.inbound.len(), 0, "nobody was met");
}

#[tokio::test]
async fn who_restarts_is_found_again_by_what_is_sent_to_it() {
    let (a, mut b) = (Host::start("a", &[1]), Host::start_at("b", 1, "127.77.0.2:0", &[1]));
    a.ping(b.own.address, 1);
    assert_eq!(b.hears_ping().await, 1);
    let address = b.end().await.to_string();
    let mut b = Host::start_at("b", 2, &address, &[1]);
    // What is sent to the run before is lost, and tells both that it is over.
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
async fn keys_rotate_under_traffic() {
    let (a, mut b) = (Host::start("a", &[1]), Host::start("b", &[1]));
    let to = b.own.address;
    let (mut sent, mut heard) = (0, 0);
    let both = |keys: &[u8]| {
        a.keys.send_replace(ring(keys));
    };
    // Installed and used on one side after the other: whatever is sent arrives, in order.
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
    // Removed: both go on under new sessions, and what was on the way may be lost.
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
    // Whoever has the removed key alone is nobody now.
    let mut late = Peer::new("late", &[1], 7).await;
    let hello = late.frame(To::Anyone, &Message::Hello(late.own.clone()));
    late.sends(to, &hello).await;
    b.counts("unknown key", 1).await;
}

#[tokio::test]
async fn connections_that_bring_nothing_make_room() {
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
async fn a_knock_tells_a_process_that_ended_from_one_that_is_stopped() {
    let mut a = Host::start("a", &[1]);
    // Takes connections by its kernel alone, as a stopped process does.
    let stopped = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ended = {
        let listener = TcpListener::bind("127.77.0.3:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    for (address, expected) in
        [(stopped.local_addr().unwrap(), TcpProbeResult::Accepted), (ended, TcpProbeResult::Refused)]
    {
        let peer = PeerId { name: Label::parse("b").unwrap(), generation: 1 };
        a.link.outbox.knock(peer.clone(), address);
        match soon("answer", a.link.inbound.recv()).await.unwrap() {
            Inbound::Knocked { peer: whose, answer } => assert_eq!((whose, answer), (peer, expected)),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn one_port_is_for_udp_and_tcp_and_a_taken_one_is_refused() {
    let sockets = Sockets::bind("127.77.0.4:0".parse().unwrap()).unwrap();
    let address = sockets.local_addr().unwrap();
    assert_eq!(Sockets::bind(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert!(TcpStream::connect(address).await.is_ok());
}
