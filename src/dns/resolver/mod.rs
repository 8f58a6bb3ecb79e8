//! The resolver: names that are not ours, from upstreams.
//!
//! ```text
//! forward ─► resolver ─► (the same question in flight?) ─► pool ─► exchange ─► upstreams
//!                │                                           (routes choose it)
//!                └─◄─ cache ◄─ reply
//! ```
//!
//! One task owns what is in flight; a question that several clients ask goes out once. `upstream` and [`system`] are core:
//! whom to ask, and what a resolv.conf names.

mod error;
mod exchange;
mod fetch;
mod secure;
pub mod system;
mod upstream;

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
        forward::Forward,
        is_within,
        loop_detection::LoopDetector,
        reply::{Age, Reply},
    },
    socket,
};
use crate::{
    metrics,
    model::{name::Name, upstream_address::UpstreamAddress},
};

/// Questions in flight, each with its own name or type. A socket each, or a few: beyond it there is a flood.
const MAX_FLIGHTS: usize = 2048;
/// The part of the process's file descriptors that questions may take; some need two.
const SHARE_OF_FILES: u64 = 16;
/// From one look at upstreams that seem dead to the next: those whom nobody answers may be asking us.
const SUSPICION: Duration = Duration::from_secs(60);
/// Questions that wait to be taken up.
const QUEUE: usize = 1024;
/// How long a client waits before it gets what was true some time ago (RFC 8767 §5: 1.8 s).
const STALE_AFTER: Duration = Duration::from_millis(1800);

/// What a resolver works with.
pub struct Options {
    /// Who is asked for what no route has.
    pub upstreams: watch::Receiver<Vec<UpstreamAddress>>,
    /// Who is asked for names at and below a suffix; the longest suffix counts.
    pub routes: Vec<(Name, Vec<UpstreamAddress>)>,
    /// Where replies are kept.
    pub cache: Arc<Cache>,
    /// How an upstream is found that asks us.
    pub echoes: Arc<LoopDetector>,
    /// Whom upstreams over TLS are certified by.
    pub authorities: Authorities,
    /// Where it is counted how they do.
    pub metrics: metrics::Upstreams,
}

/// Asks upstreams for others.
#[derive(Clone)]
pub struct Resolver {
    asks: mpsc::Sender<Ask>,
    cache: Arc<Cache>,
}

/// What was found for a client.
pub struct Resolved {
    /// What an upstream said, or that none did.
    pub entry: Arc<Entry>,
    /// How old it is.
    pub age: Age,
}

impl Resolved {
    /// The reply, and how old it is.
    pub fn parts(&self) -> (&Reply, Age) {
        (&self.entry.reply, self.age)
    }
}

struct Ask {
    forward: Forward,
    /// Where the reply goes; `None`: into the cache only.
    to: Option<oneshot::Sender<Arc<Entry>>>,
}

impl Resolver {
    /// Has a question answered, in a few seconds at most.
    pub async fn resolve(&self, forward: Forward) -> Resolved {
        let (to, found) = oneshot::channel();
        let old = || match self.cache.get(forward.key(), socket::now()) {
            Some(Hit::Stale { entry, .. }) if forward.is_shared() => Some(Resolved { entry, age: Age::Stale }),
            _ => None,
        };
        let question = forward.clone();
        let failed = |text| {
            let error = Ede { code: ede::NO_REACHABLE_AUTHORITY, text };
            let reply = Reply::bare(Rcode::ServFail, error, question.question());
            Resolved { entry: Entry::new(reply, socket::now()), age: Age::Fresh(0) }
        };
        if self.asks.try_send(Ask { forward: question.clone(), to: Some(to) }).is_err() {
            return old().unwrap_or_else(|| failed("too many questions at once"));
        }
        let mut found = found;
        let soon = timeout(STALE_AFTER, &mut found).await;
        let entry = match soon {
            Ok(entry) => entry,
            Err(_) => match old() {
                Some(old) => return old,
                None => found.await,
            },
        };
        match entry {
            Ok(entry) if entry.reply.is_answer() => Resolved { entry, age: Age::Fresh(0) },
            Ok(entry) => old().unwrap_or(Resolved { entry, age: Age::Fresh(0) }),
            Err(_) => old().unwrap_or_else(|| failed("the resolver is busy or stopping")),
        }
    }

    /// Has the cache's reply to a question renewed.
    pub fn refresh(&self, forward: Forward) {
        // When there is no room for it, somebody asks again.
        let _ = self.asks.try_send(Ask { forward, to: None });
    }
}

/// How many questions this process can bear in flight.
fn most_flights() -> usize {
    let open_files = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    usize::try_from(open_files / SHARE_OF_FILES).unwrap_or(usize::MAX).clamp(1, MAX_FLIGHTS)
}

/// Starts a resolver; the future is its work.
pub fn start(options: Options, shutdown: CancellationToken) -> (Resolver, impl Future<Output = ()>) {
    let (asks, asked) = mpsc::channel(QUEUE);
    let resolver = Resolver { asks, cache: options.cache.clone() };
    (resolver, run(options, asked, shutdown))
}

/// Questions in flight, and who waits for each.
struct Flights {
    running: JoinSet<(Arc<[u8]>, Arc<Entry>)>,
    waiting: HashMap<Arc<[u8]>, Vec<oneshot::Sender<Arc<Entry>>>>,
}

async fn run(options: Options, mut asked: mpsc::Receiver<Ask>, shutdown: CancellationToken) {
    let Options { mut upstreams, routes, cache, echoes, authorities, metrics } = options;
    let secure = Arc::new(Secure::new(authorities));
    let pool_of = |servers: &[UpstreamAddress]| Arc::new(Pool::new(servers, secure.clone(), metrics.clone()));
    let default = pool_of(&upstreams.borrow_and_update());
    let routes: Vec<(Name, Arc<Pool>)> =
        routes.into_iter().map(|(suffix, servers)| (suffix, pool_of(&servers))).collect();
    let pools = routes.iter().map(|(_, pool)| pool.clone()).chain([default.clone()]).collect();
    let (changed, changes) = watch::channel(());
    let mut looking = JoinSet::new();
    looking.spawn(look_for_loops(pools, echoes, changes));
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
                    // Other networks have other names.
                    cache.clear();
                }
            }
            Some(ended) = flights.running.join_next(), if !flights.running.is_empty() => match ended {
                Ok((key, entry)) => {
                    for to in flights.waiting.remove(&key).into_iter().flatten() {
                        let _ = to.send(entry.clone());
                    }
                }
                Err(error) => debug!(%error, "a question was dropped"),
            },
            Some(Ask { forward, to }) = asked.recv(), if flights.running.len() < most => {
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

/// Sees to it that nobody is asked who asks us.
async fn look_for_loops(pools: Vec<Arc<Pool>>, echoes: Arc<LoopDetector>, mut changes: watch::Receiver<()>) {
    let mut is_new = true;
    loop {
        for pool in &pools {
            pool.look_for_loops(&echoes, is_new).await;
        }
        is_new = match timeout(SUSPICION, changes.changed()).await {
            Ok(Ok(())) => true,
            Ok(Err(_)) => return,
            Err(_) => false,
        };
    }
}

fn list(servers: &[UpstreamAddress]) -> String {
    servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Those who may know a name, which is in wire form and lower case.
fn pool<'p>(routes: &'p [(Name, Arc<Pool>)], default: &'p Arc<Pool>, name: &[u8]) -> &'p Arc<Pool> {
    let routed = routes.iter().filter(|(suffix, _)| is_within(name, suffix.wire()));
    routed.max_by_key(|(suffix, _)| suffix.wire().len()).map_or(default, |(_, pool)| pool)
}

async fn fetched(pool: &Pool, forward: &Forward) -> Reply {
    pool.fetch(forward).await.unwrap_or_else(|text| {
        let error = Ede { code: ede::NO_REACHABLE_AUTHORITY, text: &text };
        Reply::bare(Rcode::ServFail, error, forward.question())
    })
}

/// Ids and letter cases that nobody can foresee.
fn rng() -> Rng {
    let mut seed = [0; 8];
    match SystemRandom::new().fill(&mut seed) {
        Ok(()) => Rng::with_seed(u64::from_ne_bytes(seed)),
        // The kernel has no random numbers: the process's own are the next best.
        Err(_) => Rng::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_route_counts() {
        let name = |text: &str| Name::parse(text).unwrap();
        let secure = Arc::new(Secure::new(tokio_rustls::rustls::RootCertStore::empty));
        let nobody = || Arc::new(Pool::new(&[], secure.clone(), metrics::Upstreams::default()));
        let routes: Vec<(Name, Arc<Pool>)> = ["example", "corp.example", "."]
            .iter()
            .map(|suffix| (if *suffix == "." { Name::root() } else { name(suffix) }, nobody()))
            .collect();
        let default = nobody();
        for (asked, expected) in
            [("corp.example", 1), ("a.corp.example", 1), ("notcorp.example", 0), ("example", 0), ("example.org", 2)]
        {
            let found = pool(&routes, &default, name(asked).wire());
            assert!(Arc::ptr_eq(found, &routes[expected].1), "{asked}");
        }
        assert!(Arc::ptr_eq(pool(&routes[..2], &default, name("example.org").wire()), &default));
    }
}
