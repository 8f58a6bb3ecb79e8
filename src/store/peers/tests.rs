//! Nodes on loopback that call each other.

use std::{
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{gossip::STORE_PREFIX, model::keyring::Key, store::sealed_stream};

/// Exceeds any delay on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("no {what}"))
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    soon(what, async {
        while !condition().await {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

fn keys() -> watch::Receiver<Option<Keyring>> {
    watch::channel(Some(Keyring::new(Key::from_random([1; 32])))).1
}

/// A node that serves requests.
struct Server {
    address: SocketAddr,
    incoming: mpsc::Receiver<Incoming>,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    async fn start(name: &str) -> Self {
        Self::start_at(name, "127.0.0.1:0", MAX_CALLS).await
    }

    async fn start_at(name: &str, address: &str, queue: usize) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address.parse().unwrap()).unwrap();
        let listener = socket.listen(1024).unwrap();
        let address = listener.local_addr().unwrap();
        let (taker, connections) = mpsc::channel(64);
        let (incoming, requests) = mpsc::channel(queue);
        let shutdown = CancellationToken::new();
        let tasks = vec![
            tokio::spawn(accept(listener, taker)),
            tokio::spawn(serve(connections, keys(), name.to_owned(), incoming, shutdown.clone())),
        ];
        Self { address, incoming: requests, shutdown, tasks }
    }

    async fn request(&mut self) -> Incoming {
        soon("request", self.incoming.recv()).await.unwrap()
    }

    /// Replies to every call with its body.
    fn echo(self) -> JoinHandle<()> {
        let Self { mut incoming, tasks, .. } = self;
        tokio::spawn(async move {
            while let Some(Incoming { body, responder, .. }) = incoming.recv().await {
                responder.reply(body);
            }
            drop(tasks);
        })
    }

    async fn stop(self) -> SocketAddr {
        self.shutdown.cancel();
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
        self.address
    }
}

/// Accepts connections as gossip does.
async fn accept(listener: TcpListener, taker: mpsc::Sender<tokio::net::TcpStream>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut prefix = [0; STORE_PREFIX.len()];
        if stream.read_exact(&mut prefix).await.is_ok() && prefix == STORE_PREFIX {
            let _ = taker.send(stream).await;
        }
    }
}

fn peers(nodes: &[(&str, SocketAddr)]) -> (Peers, watch::Sender<Arc<Addresses>>) {
    let all: Addresses = nodes.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect();
    let (sender, addresses) = watch::channel(Arc::new(all));
    (Peers::new("client".into(), keys(), addresses), sender)
}

/// Calls in a task of its own.
fn spawn_call(peers: &Peers, body: &'static str) -> JoinHandle<Result<Bytes, PeerError>> {
    let peers = peers.clone();
    tokio::spawn(async move { peers.call("server", Bytes::from_static(body.as_bytes()), DEADLINE).await })
}

#[tokio::test]
async fn replies_arrive_in_any_order() {
    let mut server = Server::start("server").await;
    let (peers, _addresses) = peers(&[("server", server.address)]);
    let mut calls = vec![];
    let mut requests = vec![];
    for body in ["a", "b", "c"] {
        calls.push(spawn_call(&peers, body));
        let request = server.request().await;
        assert_eq!((&*request.from, &request.body[..]), ("client", body.as_bytes()));
        requests.push(request);
    }
    while let (Some(request), Some(call)) = (requests.pop(), calls.pop()) {
        let expected = [&request.body[..], b"!"].concat();
        request.responder.reply(expected.clone().into());
        assert_eq!(soon("reply", call).await.unwrap().unwrap(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_calls_share_a_connection() {
    let server = Server::start("server").await;
    let (peers, _addresses) = peers(&[("server", server.address)]);
    let _server = server.echo();
    let mut calls = JoinSet::new();
    for number in 0..10_000_u32 {
        let peers = peers.clone();
        calls.spawn(async move {
            let body = Bytes::copy_from_slice(&number.to_be_bytes());
            assert_eq!(peers.call("server", body.clone(), DEADLINE).await, Ok(body));
        });
    }
    soon("replies", calls.join_all()).await;
}

#[tokio::test]
async fn dropped_and_late_calls_are_cancelled() {
    let mut server = Server::start("server").await;
    let (peers, _addresses) = peers(&[("server", server.address)]);
    let dropped = spawn_call(&peers, "dropped");
    let first = server.request().await;
    dropped.abort();
    soon("cancellation", first.responder.cancelled()).await;
    let late = peers.call("server", Bytes::new(), Duration::from_millis(20)).await;
    assert_eq!(late, Err(PeerError::TimedOut));
    let second = server.request().await;
    soon("cancellation", second.responder.cancelled()).await;
    // Late replies reach no other call.
    let call = spawn_call(&peers, "third");
    let third = server.request().await;
    first.responder.reply("late".into());
    second.responder.reply("late".into());
    third.responder.reply("third".into());
    assert_eq!(soon("reply", call).await.unwrap().unwrap(), "third");
}

#[tokio::test]
async fn unanswered_and_long_requests_fail() {
    let mut server = Server::start("server").await;
    let (peers, _addresses) = peers(&[("server", server.address)]);
    for long in [false, true] {
        let call = spawn_call(&peers, "x");
        let request = server.request().await;
        if long {
            request.responder.reply(vec![0; MAX_BODY + 1].into());
        } else {
            drop(request);
        }
        assert_eq!(soon("outcome", call).await.unwrap(), Err(PeerError::Unanswered));
    }
    let long = Bytes::from(vec![1; MAX_BODY + 1]);
    assert_eq!(peers.call("server", long.clone(), DEADLINE).await, Err(PeerError::TooLong(MAX_BODY + 1)));
    // The longest is allowed, both ways.
    let call = {
        let (peers, body) = (peers.clone(), long.slice(1..));
        tokio::spawn(async move { peers.call("server", body, DEADLINE).await })
    };
    let Incoming { body, responder, .. } = server.request().await;
    responder.reply(body);
    assert_eq!(soon("reply", call).await.unwrap(), Ok(long.slice(1..)));
}

#[tokio::test]
async fn streams_deliver_in_order_and_end_on_either_side() {
    let mut server = Server::start("server").await;
    let (peers, _addresses) = peers(&[("server", server.address)]);
    let open = async |server: &mut Server| {
        let (stream, request) = tokio::join!(peers.stream("server", "watch".into()), server.request());
        (stream.unwrap(), request.responder)
    };
    let (mut stream, responder) = soon("stream", open(&mut server)).await;
    let items = responder.stream();
    let count = 10 * u32::from(WINDOW);
    let sent = async {
        for number in 0..count {
            items.send(Bytes::copy_from_slice(&number.to_be_bytes())).await.unwrap();
        }
        drop(items);
    };
    let received = async {
        for number in 0..count {
            assert_eq!(stream.recv().await.unwrap(), number.to_be_bytes()[..]);
        }
        assert_eq!(stream.recv().await, None);
    };
    soon("items", async { tokio::join!(sent, received) }).await;

    let (stream, responder) = soon("stream", open(&mut server)).await;
    let items = responder.stream();
    drop(stream);
    soon("closed notification", items.closed()).await;

    let (mut stream, responder) = soon("stream", open(&mut server)).await;
    responder.reply("only".into());
    assert_eq!(soon("item", stream.recv()).await.unwrap(), "only");
    assert_eq!(soon("end", stream.recv()).await, None);
}

#[tokio::test]
async fn slow_stream_delays_neither_calls_nor_other_streams() {
    let mut server = Server::start("server").await;
    let (peers, _addresses) = peers(&[("server", server.address)]);
    let (slow, request) = tokio::join!(peers.stream("server", Bytes::new()), server.request());
    let (mut slow, items) = (slow.unwrap(), request.responder.stream());
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    let sender = tokio::spawn(async move {
        while items.send(Bytes::from(vec![5; 10_000])).await.is_ok() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    // The window and the items on the way to it.
    until("full window", async || sent.load(Ordering::Relaxed) >= usize::from(WINDOW)).await;
    for _ in 0..100 {
        let call = spawn_call(&peers, "x");
        server.request().await.responder.reply("y".into());
        assert_eq!(soon("reply", call).await.unwrap().unwrap(), "y");
    }
    assert!(sent.load(Ordering::Relaxed) <= usize::from(WINDOW) + 2, "{sent:?}");
    for _ in 0..10 * WINDOW as usize {
        assert_eq!(soon("item", slow.recv()).await.unwrap().len(), 10_000);
    }
    drop(slow);
    soon("end of the sender", sender).await.unwrap();
}

#[tokio::test]
async fn excess_requests_are_refused() {
    let server = Server::start_at("server", "127.0.0.1:0", 1).await;
    let (peers, _addresses) = peers(&[("server", server.address)]);
    let first = spawn_call(&peers, "first");
    until("request", async || server.incoming.len() == 1).await;
    assert_eq!(peers.call("server", Bytes::new(), DEADLINE).await, Err(PeerError::Overloaded));
    assert_eq!(peers.stream("server", Bytes::new()).await.err(), Some(PeerError::Overloaded));
    let _server = server.echo();
    assert_eq!(soon("reply", first).await.unwrap().unwrap(), "first");
}

#[tokio::test]
async fn unreachable_nodes_fail_fast() {
    let (peers, addresses) = peers(&[]);
    let call = async || {
        let started = Instant::now();
        let outcome = peers.call("server", Bytes::new(), DEADLINE).await;
        assert!(started.elapsed() < DEADLINE / 3);
        outcome
    };
    assert_eq!(call().await, Err(PeerError::Unreachable));
    let closed = TcpListener::bind("127.77.0.20:0").await.unwrap().local_addr().unwrap();
    addresses.send_replace(Arc::new([("server".to_owned(), closed)].into()));
    for _ in 0..10 {
        assert_eq!(call().await, Err(PeerError::Unreachable));
    }
    // Another node answers at the address.
    let other = Server::start("other").await;
    addresses.send_replace(Arc::new([("server".to_owned(), other.address)].into()));
    assert_eq!(call().await, Err(PeerError::Unreachable));
    let server = Server::start("server").await;
    addresses.send_replace(Arc::new([("server".to_owned(), server.address)].into()));
    let _server = server.echo();
    until("connection after the pause", async || call().await.is_ok()).await;
}

#[tokio::test]
async fn restarted_and_moved_nodes_are_reached_again() {
    let mut server = Server::start_at("server", "127.77.0.21:0", 8).await;
    let (peers, addresses) = peers(&[("server", server.address)]);
    let call = spawn_call(&peers, "lost");
    let request = server.request().await;
    let address = server.stop().await;
    assert_eq!(soon("outcome", call).await.unwrap(), Err(PeerError::Lost));
    drop(request);
    assert_eq!(peers.call("server", Bytes::new(), DEADLINE).await, Err(PeerError::Unreachable));
    let _restarted = Server::start_at("server", &address.to_string(), 8).await.echo();
    until("connection", async || peers.call("server", Bytes::new(), DEADLINE).await.is_ok()).await;

    let mut moved = Server::start("server").await;
    addresses.send_replace(Arc::new([("server".to_owned(), moved.address)].into()));
    let there = async {
        loop {
            let call = spawn_call(&peers, "moved");
            tokio::select! {
                Incoming { responder, .. } = moved.request() => return responder,
                _ = call => {}
            }
        }
    };
    soon("request at the new address", there).await;
}

#[tokio::test]
async fn dead_connections_are_detected() {
    // The node completes the handshake and then does nothing, like a process that is stopped.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (peers, _addresses) = peers(&[("server", listener.local_addr().unwrap())]);
    let call = spawn_call(&peers, "x");
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
    let _stopped = sealed_stream::accept(stream, keys(), "server").await.unwrap();
    assert_eq!(soon("outcome", call).await.unwrap(), Err(PeerError::Lost));
}

#[tokio::test]
async fn idle_connections_are_kept() {
    let mut server = Server::start("server").await;
    let (peers, _addresses) = peers(&[("server", server.address)]);
    let call = spawn_call(&peers, "x");
    let request = server.request().await;
    // Longer than the silence that ends a connection: the time itself is what is tested.
    sleep(sealed_stream::SILENCE + KEEPALIVE).await;
    request.responder.reply("y".into());
    assert_eq!(soon("reply", call).await.unwrap().unwrap(), "y");
}

#[tokio::test]
async fn malformed_messages_end_the_connection_only() {
    let (_, open) = watch::channel(None);
    let (connections_to, connections) = mpsc::channel(8);
    let (incoming, mut requests) = mpsc::channel(64);
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(serve(connections, open.clone(), "server".into(), incoming, shutdown.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(accept(listener, connections_to));
    let message =
        |kind: u8, argument: u8, id: u8, body: &[u8]| [&[kind, argument, 0, 0, 0, 0, 0, 0, 0, id], body].concat();
    let cases = [
        vec![message(99, 0, 1, b"")],
        vec![vec![1, 0, 0]],
        vec![vec![]],
        // A reply, from the client.
        vec![message(7, 0, 1, b"")],
        // A number that is in use, credit beyond the window, and for a call.
        vec![message(1, 0, 1, b""), message(1, 0, 1, b"")],
        vec![message(2, 0, 1, b""), message(4, 1, 1, b"")],
        vec![message(1, 0, 1, b""), message(4, 1, 1, b"")],
    ];
    for messages in cases {
        let mut client = soon("handshake", sealed_stream::connect(address, &open, "client", "server")).await.unwrap();
        for message in &messages {
            client.writer.queue(&[message]).unwrap();
        }
        client.writer.flush().await.unwrap();
        let end = async {
            loop {
                if let Err(error) = client.reader.read().await {
                    return error;
                }
            }
        };
        let error = soon("end", end).await;
        assert!(
            matches!(error, sealed_stream::StreamError::Closed | sealed_stream::StreamError::Io(_)),
            "{error:?} after {messages:?}"
        );
        while requests.try_recv().is_ok() {}
    }
    // Random octets behind a valid handshake, and instead of one.
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..200 {
        let octets: Vec<u8> = (0..random.usize(..60)).map(|_| random.u8(..)).collect();
        if round % 2 == 0 {
            let mut client =
                soon("handshake", sealed_stream::connect(address, &open, "client", "server")).await.unwrap();
            client.writer.queue(&[&[random.u8(..10), 0][..], &octets]).unwrap();
            client.writer.flush().await.unwrap();
        } else {
            let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
            client.write_all(&[&STORE_PREFIX[..], &octets].concat()).await.unwrap();
        }
        while requests.try_recv().is_ok() {}
    }
    assert!(!serving.is_finished());
    let stream = soon("handshake", sealed_stream::connect(address, &open, "client", "server")).await;
    assert!(stream.is_ok());
    shutdown.cancel();
    soon("end of the server", serving).await.unwrap();
}
