//! The engine over UDP and TCP sockets: framing, pipelining and limits (RFC 7766).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    sync::Arc,
};

use arc_swap::ArcSwap;
use muster::{
    dns::{
        engine::Engine,
        server::{backends::Backends, connection_quota::ConnectionQuota, tcp, udp},
        zone::{Settings, Tables},
    },
    metrics::{Dns, Transport, Writers},
    model::name::{Label, Name},
};
use support::{
    Ask, decode,
    wait::{self, DEADLINE},
    world,
};
use tokio::{
    net::{TcpListener, UdpSocket},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Number of UDP workers, regardless of the cores.
const WORKERS: usize = 2;
/// Maximum UDP payload in octets.
const PAYLOAD: u16 = 1232;

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts a server of an empty discovery zone on both transports with a limit of TCP connections.
    fn start(ip: IpAddr, connections: usize) -> Self {
        let label = |text| Label::parse(text).unwrap();
        let settings = Settings::new(label("host-a"), label("dc1"), Name::parse("service.local").unwrap());
        Self::of(Tables::new(settings), ip, connections)
    }

    fn of(tables: Tables, ip: IpAddr, connections: usize) -> Self {
        let tables = Arc::new(ArcSwap::from_pointee(tables));
        let shutdown = CancellationToken::new();
        // Another test may use the TCP port's number for UDP.
        let both = || {
            let listener = TcpListener::from_std(tcp::bind(SocketAddr::new(ip, 0))?)?;
            let datagrams = udp::bind(listener.local_addr()?, WORKERS, PAYLOAD)?;
            std::io::Result::Ok((datagrams, listener))
        };
        let (datagrams, listener) = std::iter::repeat_with(both).take(50).find_map(Result::ok).expect("a free port");
        let address = listener.local_addr().unwrap();
        let engine = || Engine::new(PAYLOAD, fastrand::Rng::new());
        let metrics = Dns::default();
        let shared = tcp::Shared {
            tables: tables.clone(),
            clients: ConnectionQuota::new(connections),
            backends: Backends::default(),
            tally: metrics.tally(Transport::Tcp, Writers::Many),
            shutdown: shutdown.clone(),
        };
        let mut tasks = vec![tokio::spawn(tcp::serve(listener, shared, engine))];
        for socket in datagrams {
            let worker =
                udp::serve(socket, tables.clone(), engine, Backends::default(), &metrics, shutdown.clone()).unwrap();
            tasks.push(tokio::spawn(worker));
        }
        Self { address, shutdown, tasks }
    }

    fn v4() -> Self {
        Self::start(Ipv4Addr::LOCALHOST.into(), 100)
    }

    /// Returns a blocking connection, for use in `spawn_blocking`.
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    async fn stop(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            timeout(DEADLINE, task).await.expect("the server ends").unwrap();
        }
    }
}

fn soa(id: u16) -> Vec<u8> {
    Ask { name: "service.local.".into(), qtype: 6, edns: None, dnssec_ok: false }.packet(id)
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

fn read_message(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    message
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    timeout(DEADLINE, tokio::task::spawn_blocking(work)).await.expect("in time").unwrap()
}

#[tokio::test]
async fn datagrams_are_answered_over_both_address_families() {
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let server = Server::start(ip, 10);
        let client = UdpSocket::bind(SocketAddr::new(ip, 0)).await.unwrap();
        client.connect(server.address).await.unwrap();
        // Malformed datagrams and responses get no reply.
        for junk in [&b""[..], b"x", &[0xff; 600]] {
            client.send(junk).await.unwrap();
        }
        for id in 0..200 {
            client.send(&soa(id)).await.unwrap();
            let mut reply = [0; 1500];
            let len = timeout(DEADLINE, client.recv(&mut reply)).await.expect("a reply").unwrap();
            assert_eq!(decode(&reply[..len]).metadata.id, id);
        }
        server.stop().await;
    }
}

/// All of 127.0.0.0/8 is local, and a connected socket accepts only replies from the queried address.
#[tokio::test]
async fn replies_are_sent_from_the_queried_address() {
    let any: [(IpAddr, &[IpAddr]); 2] = [
        (Ipv4Addr::UNSPECIFIED.into(), &[1, 2, 77].map(|last| Ipv4Addr::new(127, 0, 0, last).into())),
        (Ipv6Addr::UNSPECIFIED.into(), &[Ipv6Addr::LOCALHOST.into()]),
    ];
    for (listen, asked) in any {
        let server = Server::start(listen, 10);
        for ip in asked {
            let client = UdpSocket::bind(SocketAddr::new(*ip, 0)).await.unwrap();
            client.connect(SocketAddr::new(*ip, server.address.port())).await.unwrap();
            client.send(&soa(7)).await.unwrap();
            let mut reply = [0; 1500];
            let len = timeout(DEADLINE, client.recv(&mut reply)).await.expect("a reply").unwrap();
            assert_eq!(decode(&reply[..len]).metadata.id, 7, "{ip}");
        }
        server.stop().await;
    }
}

/// The burst fits the smallest receive buffer that a kernel grants.
#[tokio::test]
async fn received_queries_are_answered_at_shutdown() {
    const BURST: u16 = 200;
    let server = Server::v4();
    let clients: Vec<std::net::UdpSocket> = (0..8)
        .map(|_| {
            let client = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            client.connect(server.address).unwrap();
            client.set_read_timeout(Some(DEADLINE)).unwrap();
            client
        })
        .collect();
    for id in 0..BURST {
        clients[usize::from(id) % clients.len()].send(&soa(id)).unwrap();
    }
    server.stop().await;
    for id in 0..BURST {
        let mut reply = [0; 1500];
        let len = clients[usize::from(id) % clients.len()].recv(&mut reply).expect("a reply to each query");
        assert_eq!(decode(&reply[..len]).metadata.id, id);
    }
}

/// A proxy's address has a PTR record for each instance behind the proxy.
#[tokio::test]
async fn deferred_queries_are_answered() {
    let instances: String =
        (0..1000).map(|at| format!("- {{service: web, id: w{at}, address: 10.0.0.9, port: 80}}\n")).collect();
    let tables = world::tables(&format!("services:\n{instances}"));
    let server = Server::of(tables, Ipv4Addr::LOCALHOST.into(), 10);
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    client.connect(server.address).await.unwrap();
    let pointer = Ask { name: "9.0.0.10.in-addr.arpa.".into(), qtype: 12, edns: Some(1232), dnssec_ok: false };
    for id in 0..20 {
        client.send(&pointer.packet(id)).await.unwrap();
    }
    client.send(&soa(20)).await.unwrap();
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < 21 {
        let mut reply = [0; 1500];
        let len = timeout(DEADLINE, client.recv(&mut reply)).await.expect("a reply").unwrap();
        let message = decode(&reply[..len]);
        assert!(!message.answers.is_empty());
        answered.insert(message.metadata.id);
    }
    server.stop().await;
}

#[tokio::test]
async fn udp_port_in_use_is_an_error() {
    let server = Server::v4();
    let refused = udp::bind(server.address, WORKERS, PAYLOAD).expect_err("address in use");
    assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse);
    server.stop().await;
}

#[tokio::test]
async fn rfc_7766_6_2_1_1_pipelined_queries_are_all_answered() {
    let server = Server::v4();
    let mut stream = server.connect();
    blocking(move || {
        let queries: Vec<u8> = (0..500).flat_map(|id| framed(&soa(id))).collect();
        stream.write_all(&queries).unwrap();
        let ids: Vec<u16> = (0..500).map(|_| decode(&read_message(&mut stream)).metadata.id).collect();
        assert_eq!(ids, (0..500).collect::<Vec<_>>());
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn rfc_7766_8_message_may_arrive_octet_by_octet() {
    let server = Server::v4();
    let mut stream = server.connect();
    blocking(move || {
        stream.set_nodelay(true).unwrap();
        for octet in framed(&soa(7)) {
            stream.write_all(&[octet]).unwrap();
        }
        assert_eq!(decode(&read_message(&mut stream)).metadata.id, 7);
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn message_other_than_a_query_closes_its_connection_only() {
    let server = Server::v4();
    let mut good = server.connect();
    let mut bad = server.connect();
    blocking(move || {
        // A response, which must not be answered.
        bad.write_all(&framed(b"\0\x01\x80\0\0\0\0\0\0\0\0\0")).unwrap();
        bad.write_all(&[0; 20_000]).ok();
        let mut rest = Vec::new();
        // Unread input may turn the close into a reset.
        bad.read_to_end(&mut rest).ok();
        assert!(rest.is_empty());
        good.write_all(&framed(&soa(9))).unwrap();
        assert_eq!(decode(&read_message(&mut good)).metadata.id, 9);
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn queries_before_a_malformed_message_are_answered() {
    let server = Server::v4();
    let mut stream = server.connect();
    blocking(move || {
        stream.write_all(&[framed(&soa(1)), framed(&soa(2)), framed(b"xyz")].concat()).unwrap();
        let ids = [(); 2].map(|()| decode(&read_message(&mut stream)).metadata.id);
        assert_eq!(ids, [1, 2]);
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn excessive_length_prefix_closes_the_connection() {
    let server = Server::v4();
    let mut stream = server.connect();
    blocking(move || {
        stream.write_all(&framed(&soa(1))).unwrap();
        stream.write_all(&[0xff, 0xff, 0]).unwrap();
        assert_eq!(decode(&read_message(&mut stream)).metadata.id, 1);
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
    })
    .await;
    server.stop().await;
}

/// RFC 7766 §6.2.4: a client may close its side and still expect answers.
#[tokio::test]
async fn client_that_half_closes_gets_all_answers() {
    let server = Server::v4();
    let mut stream = server.connect();
    blocking(move || {
        let queries: Vec<u8> = (0..100).flat_map(|id| framed(&soa(id))).collect();
        stream.write_all(&queries).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        for id in 0..100 {
            assert_eq!(decode(&read_message(&mut stream)).metadata.id, id);
        }
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
    })
    .await;
    server.stop().await;
}

/// The server stops reading from a client that does not read its answers, and continues once the client does.
#[tokio::test]
async fn client_that_does_not_read_gets_backpressure_without_loss() {
    let server = Server::v4();
    let mut stream = server.connect();
    blocking(move || {
        stream.set_nonblocking(true).unwrap();
        let (mut asked, mut rest) = (0_u32, framed(&soa(0)));
        let blocked = loop {
            match stream.write(&rest) {
                Ok(written) => drop(rest.drain(..written)),
                Err(error) => break error.kind(),
            }
            if rest.is_empty() {
                asked += 1;
                assert!(asked < 5_000_000, "the server keeps reading while the client does not");
                rest = framed(&soa(asked as u16));
            }
        };
        assert_eq!(blocked, std::io::ErrorKind::WouldBlock);
        stream.set_nonblocking(false).unwrap();
        let mut answers = stream.try_clone().unwrap();
        let reading = std::thread::spawn(move || {
            for id in 0..=asked {
                assert_eq!(decode(&read_message(&mut answers)).metadata.id, id as u16);
            }
        });
        stream.write_all(&rest).unwrap();
        reading.join().unwrap();
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn connections_above_the_limit_are_closed() {
    let server = Server::start(Ipv4Addr::LOCALHOST.into(), 2);
    let address = server.address;
    blocking(move || {
        let ask = |stream: &mut TcpStream| {
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut length = [0; 2];
            stream.write_all(&framed(&soa(1))).is_ok() && stream.read_exact(&mut length).is_ok()
        };
        let mut first = TcpStream::connect(address).unwrap();
        let mut second = TcpStream::connect(address).unwrap();
        assert!(ask(&mut first) && ask(&mut second));
        assert!(!ask(&mut TcpStream::connect(address).unwrap()), "a third connection is closed");
        drop(first);
        wait::until("the server accepts connections again", || ask(&mut TcpStream::connect(address).unwrap()));
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_idle_connections() {
    let server = Server::v4();
    let mut stream = server.connect();
    stream = blocking(move || {
        stream.write_all(&framed(&soa(1))).unwrap();
        read_message(&mut stream);
        stream
    })
    .await;
    server.stop().await;
    blocking(move || assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0)).await;
}
