//! Load: clients that write or read one after the other, and watchers.

use std::time::{Duration, Instant};

use muster::etcd::proto::etcdserverpb::{
    PutRequest, PutResponse, RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest, WatchResponse,
    watch_request::RequestUnion,
};

use crate::grpc::{Client, Messages};

/// Connections to a server: more clients share them.
const CONNECTIONS: usize = 64;
/// Keys that are written and read.
const KEYS: usize = 10_000;
/// Octets of a value.
const VALUE: usize = 256;

/// A kind of operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    /// A write.
    Put,
    /// A linearizable read.
    Read,
    /// A read of any member's state.
    StaleRead,
}

/// Clients that repeat an operation for some time.
pub(crate) struct Load {
    /// The operation.
    pub(crate) operation: Operation,
    /// Number of clients.
    pub(crate) clients: usize,
    /// Duration.
    pub(crate) span: Duration,
}

/// Operations a second, and latency in milliseconds.
pub(crate) struct Figures {
    /// Operations a second.
    pub(crate) rate: f64,
    /// Median latency.
    pub(crate) median: f64,
    /// Latency that one of a hundred operations exceeds.
    pub(crate) p99: f64,
}

impl Load {
    /// Runs the load on the members of a cluster in turn.
    pub(crate) async fn run(&self, members: &[std::net::SocketAddr]) -> Figures {
        let mut connections = Vec::new();
        for at in 0..self.clients.min(CONNECTIONS) {
            connections.push(Client::connect(members[at % members.len()]).await.unwrap());
        }
        let end = Instant::now() + self.span;
        let clients = (0..self.clients).map(|at| {
            let (client, operation) = (connections[at % connections.len()].clone(), self.operation);
            tokio::spawn(async move {
                let mut times = Vec::new();
                let mut rng = fastrand::Rng::with_seed(at as u64);
                while Instant::now() < end {
                    let began = Instant::now();
                    once(&client, operation, rng.usize(..KEYS)).await;
                    times.push(began.elapsed());
                }
                times
            })
        });
        let clients: Vec<_> = clients.collect();
        let mut times = Vec::new();
        for client in clients {
            times.extend(client.await.unwrap());
        }
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        Figures { rate: times.len() as f64 / self.span.as_secs_f64(), median: at(0.5), p99: at(0.99) }
    }
}

fn put(at: usize) -> PutRequest {
    PutRequest { key: format!("key-{at:06}").into(), value: vec![b'v'; VALUE].into(), ..PutRequest::default() }
}

async fn once(client: &Client, operation: Operation, at: usize) {
    match operation {
        Operation::Put => {
            client.call::<PutResponse>("/etcdserverpb.KV/Put", &put(at)).await.expect("a put");
        }
        Operation::Read | Operation::StaleRead => {
            let serializable = matches!(operation, Operation::StaleRead);
            let range = RangeRequest { key: format!("key-{at:06}").into(), serializable, ..RangeRequest::default() };
            client.call::<RangeResponse>("/etcdserverpb.KV/Range", &range).await.expect("a range");
        }
    }
}

/// Writes keys 0 to `keys`.
pub(crate) async fn fill(address: &std::net::SocketAddr, keys: usize) {
    const CLIENTS: usize = 64;
    let client = Client::connect(*address).await.unwrap();
    let clients = (0..CLIENTS).map(|first| {
        let client = client.clone();
        tokio::spawn(async move {
            for at in (first..keys).step_by(CLIENTS) {
                once(&client, Operation::Put, at).await;
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}

async fn watch(client: &Client, at: usize) -> Messages {
    let create = WatchCreateRequest { key: format!("key-{at:06}").into(), ..WatchCreateRequest::default() };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let mut messages = client.stream("/etcdserverpb.Watch/Watch", &request).await.expect("a watch");
    let created: WatchResponse = messages.next().await.expect("a created watch");
    assert!(created.created);
    messages
}

/// Time until a change reaches 1,000 watchers of one key, and until 10,000 changes reach the watchers of 10,000 keys.
pub(crate) async fn watchers(address: &std::net::SocketAddr) -> (Duration, Duration) {
    let mut connections = Vec::new();
    for _ in 0..100 {
        connections.push(Client::connect(*address).await.unwrap());
    }
    let (changed, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let mut watching = Vec::new();
    for at in 0..1_000 {
        let mut messages = watch(&connections[at % connections.len()], 7).await;
        let changed = changed.clone();
        watching.push(tokio::spawn(async move {
            while messages.next::<WatchResponse>().await.is_some() {
                let _ = changed.send(());
            }
        }));
    }
    let mut times = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        once(&connections[0], Operation::Put, 7).await;
        for _ in 0..1_000 {
            seen.recv().await.unwrap();
        }
        times.push(began.elapsed());
    }
    times.sort();
    watching.drain(..).for_each(|task| task.abort());
    for at in 0..10_000 {
        let mut messages = watch(&connections[at % connections.len()], at).await;
        let changed = changed.clone();
        watching.push(tokio::spawn(async move {
            if messages.next::<WatchResponse>().await.is_some() {
                let _ = changed.send(());
            }
        }));
    }
    let began = Instant::now();
    fill(address, 10_000).await;
    for _ in 0..10_000 {
        seen.recv().await.unwrap();
    }
    (times[times.len() / 2], began.elapsed())
}
