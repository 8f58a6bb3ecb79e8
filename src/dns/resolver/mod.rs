//! Resolver of names outside the served zones, through upstreams.
//!
//! ```text
//! forward ─► resolver ─► (same query in flight?) ─► pool ─► exchange ─► upstreams
//!                │                                    (selected by routes)
//!                └─◄─ cache ◄─ reply
//! ```
//!
//! One task owns the queries in flight; equal queries of several clients are sent once. `upstream` is core: it orders the
//! upstreams by their state. [`system`] reads resolv.conf.

mod error;
mod exchange;
mod fetch;
mod secure;
pub mod system;
mod upstreams;

use std::{collections::HashMap, sync::Arc, time::Duration};

use fastrand::Rng;
use nix::sys::resource::{Resource, getrlimit};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

pub use self::secure::Authorities;
use self::{fetch::Pool, secure::Secure};
use super::{
    answer::Ede,
    message::codes::{Rcode, ede},
    recursion::{
        cache::{Cache, Entry, Hit},
        loop_detection::LoopDetector,
        route,
        upstream_query::Forward,
        upstream_reply::{Age, Reply},
    },
    socket,
};
use crate::{
    metrics,
    model::{name::Name, upstream_address::UpstreamAddress},
};

/// Maximum number of distinct queries in flight. Each has a socket or a few; more indicate a flood.
const MAX_FLIGHTS: usize = 2048;
/// Queries may take this fraction of the open files; some need two.
const SHARE_OF_FILES: u64 = 16;
/// Interval of loop probes to upstreams that seem dead: they may forward to this server.
const LOOP_PROBE_INTERVAL: Duration = Duration::from_secs(60);
/// Capacity of the queue of queries.
const QUEUE: usize = 1024;
/// Wait before a client gets a stale reply (RFC 8767 §5: 1.8 s).
const STALE_AFTER: Duration = Duration::from_millis(1800);

/// Settings of a resolver.
pub struct Options {
    /// Default upstreams.
    pub upstreams: watch::Receiver<Vec<UpstreamAddress>>,
    /// Upstreams for names at and below a suffix; the longest suffix wins.
    pub routes: Vec<(Name, Vec<UpstreamAddress>)>,
    /// Cache of replies.
    pub cache: Arc<Cache>,
    /// Detector of forwarding loops.
    pub loop_detector: Arc<LoopDetector>,
    /// Certificate authorities of encrypted upstreams.
    pub authorities: Authorities,
    /// Metrics of upstreams.
    pub metrics: metrics::Upstreams,
}

/// Handle of the resolver's task.
#[derive(Clone)]
pub struct Resolver {
    queries: mpsc::Sender<ResolveRequest>,
    cache: Arc<Cache>,
}

/// Result for a client.
pub struct Resolved {
    /// Reply of an upstream, or SERVFAIL.
    pub entry: Arc<Entry>,
    /// Age of the reply.
    pub age: Age,
}

impl Resolved {
    /// Returns the reply and its age.
    pub fn parts(&self) -> (&Reply, Age) {
        (&self.entry.reply, self.age)
    }
}

struct ResolveRequest {
    forward: Forward,
    /// Receives the reply; `None` to fill the cache only.
    to: Option<oneshot::Sender<Arc<Entry>>>,
}

impl Resolver {
    /// Resolves a query, in a few seconds at most.
    pub async fn resolve(&self, forward: &Forward) -> Resolved {
        let (to, mut reply) = oneshot::channel();
        let old = || match self.cache.get(forward.key(), socket::now()) {
            Some(Hit::Stale { entry, .. }) if forward.is_shared() => Some(Resolved { entry, age: Age::Stale }),
            _ => None,
        };
        let failed = |text| {
            let error = Ede { code: ede::NO_REACHABLE_AUTHORITY, text };
            let reply = Reply::bare(Rcode::ServFail, error, forward.question());
            Resolved { entry: Entry::new(reply, socket::now()), age: Age::Fresh(0) }
        };
        if self.queries.try_send(ResolveRequest { forward: forward.clone(), to: Some(to) }).is_err() {
            return old().unwrap_or_else(|| failed("too many queries in flight"));
        }
        let soon = timeout(STALE_AFTER, &mut reply).await;
        let entry = match soon {
            Ok(entry) => entry,
            Err(_) => match old() {
                Some(old) => return old,
                None => reply.await,
            },
        };
        match entry {
            Ok(entry) if entry.reply.is_answer() => Resolved { entry, age: Age::Fresh(0) },
            Ok(entry) => old().unwrap_or(Resolved { entry, age: Age::Fresh(0) }),
            Err(_) => old().unwrap_or_else(|| failed("the resolver is busy or stopping")),
        }
    }

    /// Refreshes the cached reply to a query.
    pub fn refresh(&self, forward: Forward) {
        // If the queue is full, a later query triggers the refresh.
        let _ = self.queries.try_send(ResolveRequest { forward, to: None });
    }
}

/// Returns the maximum number of queries in flight for the current limits of this process.
fn most_flights() -> usize {
    let open_files = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    usize::try_from(open_files / SHARE_OF_FILES).unwrap_or(usize::MAX).clamp(1, MAX_FLIGHTS)
}

/// Creates a resolver; the returned future runs it.
pub fn start(options: Options, shutdown: CancellationToken) -> (Resolver, impl Future<Output = ()>) {
    let (queries, received) = mpsc::channel(QUEUE);
    let resolver = Resolver { queries, cache: options.cache.clone() };
    (resolver, run(options, received, shutdown))
}

/// Queries in flight, and the clients that wait for each.
struct Flights {
    running: JoinSet<(Arc<[u8]>, Arc<Entry>)>,
    waiting: HashMap<Arc<[u8]>, Vec<oneshot::Sender<Arc<Entry>>>>,
}

async fn run(options: Options, mut received: mpsc::Receiver<ResolveRequest>, shutdown: CancellationToken) {
    let Options { mut upstreams, routes, cache, loop_detector, authorities, metrics } = options;
    let secure = Arc::new(Secure::new(authorities));
    let pool_of = |servers: &[UpstreamAddress]| Arc::new(Pool::new(servers, secure.clone(), metrics.clone()));
    let default = pool_of(&upstreams.borrow_and_update());
    let routes: Vec<(Name, Arc<Pool>)> =
        routes.into_iter().map(|(suffix, servers)| (suffix, pool_of(&servers))).collect();
    let pools = routes.iter().map(|(_, pool)| pool.clone()).chain([default.clone()]).collect();
    let (changed, changes) = watch::channel(());
    let mut loop_probes = JoinSet::new();
    loop_probes.spawn(detect_loops(pools, loop_detector, changes));
    let most = most_flights();
    let mut flights = Flights { running: JoinSet::new(), waiting: HashMap::new() };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            Ok(()) = upstreams.changed() => {
                let servers = upstreams.borrow_and_update().clone();
                if default.replace(&servers) {
                    info!(servers = %list(&servers), "upstreams");
                    changed.send_replace(());
                    // Another network may resolve names differently.
                    cache.clear();
                }
            }
            Some(ended) = flights.running.join_next(), if !flights.running.is_empty() => match ended {
                Ok((key, entry)) => {
                    for to in flights.waiting.remove(&key).into_iter().flatten() {
                        let _ = to.send(entry.clone());
                    }
                }
                Err(error) => debug!(%error, "query task failed"),
            },
            Some(ResolveRequest { forward, to }) = received.recv(), if flights.running.len() < most => {
                let pool = pool(&routes, &default, forward.name()).clone();
                let cache = cache.clone();
                if !forward.is_shared() {
                    flights.running.spawn(async move {
                        let entry = Entry::new(fetched(&pool, &forward).await, socket::now());
                        to.map(|to| to.send(entry.clone()));
                        (Arc::from([]), entry)
                    });
                    continue;
                }
                let key: Arc<[u8]> = forward.key().into();
                if let Some(waiting) = flights.waiting.get_mut(&key) {
                    waiting.extend(to);
                    continue;
                }
                flights.waiting.insert(key.clone(), Vec::from_iter(to));
                flights.running.spawn(async move {
                    let entry = cache.put(forward.key(), fetched(&pool, &forward).await, socket::now());
                    (key, entry)
                });
            }
        }
    }
}

/// Probes upstreams for forwarding loops: all after a change, suspects periodically.
async fn detect_loops(pools: Vec<Arc<Pool>>, loop_detector: Arc<LoopDetector>, mut changes: watch::Receiver<()>) {
    let mut is_new = true;
    loop {
        for pool in &pools {
            pool.detect_loops(&loop_detector, is_new).await;
        }
        is_new = match timeout(LOOP_PROBE_INTERVAL, changes.changed()).await {
            Ok(Ok(())) => true,
            Ok(Err(_)) => return,
            Err(_) => false,
        };
    }
}

fn list(servers: &[UpstreamAddress]) -> String {
    servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Selects the pool for a name in wire form and lower case.
fn pool<'p>(routes: &'p [(Name, Arc<Pool>)], default: &'p Arc<Pool>, name: &[u8]) -> &'p Arc<Pool> {
    route(routes, name).map_or(default, |(_, pool)| pool)
}

async fn fetched(pool: &Pool, forward: &Forward) -> Reply {
    pool.fetch(forward).await.unwrap_or_else(|text| {
        let error = Ede { code: ede::NO_REACHABLE_AUTHORITY, text: &text };
        Reply::bare(Rcode::ServFail, error, forward.question())
    })
}

/// Returns an unpredictable generator for ids, ports and letter case.
fn rng() -> Rng {
    let mut seed = [0; 8];
    match SystemRandom::new().fill(&mut seed) {
        Ok(()) => Rng::with_seed(u64::from_ne_bytes(seed)),
        // Fallback if the kernel provides no random numbers.
        Err(_) => Rng::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_route_is_selected() {
        let name = |text: &str| Name::parse(text).unwrap();
        let secure = Arc::new(Secure::new(tokio_rustls::rustls::RootCertStore::empty));
        let empty = || Arc::new(Pool::new(&[], secure.clone(), metrics::Upstreams::default()));
        let routes: Vec<(Name, Arc<Pool>)> = ["example", "corp.example", "."]
            .iter()
            .map(|suffix| (if *suffix == "." { Name::root() } else { name(suffix) }, empty()))
            .collect();
        let default = empty();
        for (asked, expected) in
            [("corp.example", 1), ("a.corp.example", 1), ("notcorp.example", 0), ("example", 0), ("example.org", 2)]
        {
            let found = pool(&routes, &default, name(asked).wire());
            assert!(Arc::ptr_eq(found, &routes[expected].1), "{asked}");
        }
        assert!(Arc::ptr_eq(pool(&routes[..2], &default, name("example.org").wire()), &default));
    }
}
