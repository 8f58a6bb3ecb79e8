//! Resolver of names outside the served zones, through upstreams.
//!
//! ```text
//! question ─► flights ─► (same question in flight?) ─► pool ─► exchange ─► upstreams
//!                 │                                    (selected by routes)
//!                 └─◄─ cache ◄─ screen ◄─ validation ◄─ reply
//! ```
//!
//! A question takes a place at once, so none waits for others. `flights` and `upstreams` are core: the one shares the places
//! among clients and sends equal questions once, the other orders the upstreams by their state. [`system`] reads resolv.conf.

mod error;
mod exchange;
mod fetch;
mod flights;
pub mod host_lookup;
pub(super) mod reachable;
mod screen;
mod secure;
mod sources;
pub mod system;
mod upstreams;
mod validation;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use fastrand::Rng;
use nix::sys::resource::{Resource, getrlimit};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::info;

use self::{
    fetch::Pool,
    flights::{FlightId, Flights},
    screen::Screen,
    secure::Secure,
    sources::Sources,
    validation::Validator,
};
pub use super::tls_client::Authorities;
use super::{
    answer::Ede,
    collector::Tap,
    message::{
        codes::{Rcode, ede},
        query::LookupName,
    },
    recursion::{
        cache::{Cache, Entry, Hit},
        loop_detection::LoopDetector,
        rebinding::RebindProtection,
        upstream_query::Forward,
        upstream_reply::{Age, Reply},
        validation::{Security, ValidationScope},
    },
    socket,
    zone::Tables,
};
use crate::{
    metrics,
    model::{name::Name, upstream_address::UpstreamAddress},
};

/// Maximum number of questions that wait for upstreams. Each has a socket or a few; more indicate a flood.
const MAX_WAITING: usize = 2048;
/// Questions may take this fraction of the open files; some need two.
const SHARE_OF_FILES: u64 = 16;
/// Interval of loop probes to upstreams that seem dead: they may forward to this server.
const LOOP_PROBE_INTERVAL: Duration = Duration::from_secs(60);
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
    /// Tables of our zones, whose names upstreams have no records of.
    pub tables: Arc<ArcSwap<Tables>>,
    /// Names whose replies must not have private addresses; `None`: no names.
    pub rebind_protection: Option<RebindProtection>,
    /// Names whose replies are validated; `None`: no names.
    pub validation: Option<Arc<ValidationScope>>,
    /// Metrics of upstreams.
    pub upstream_metrics: metrics::Upstreams,
    /// Metrics of the resolver.
    pub metrics: metrics::Resolver,
    /// Records messages to and from upstreams.
    pub tap: Option<Tap>,
}

/// Handle of the resolver.
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

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

/// End of a client that waits; `None` to fill the cache only.
type Waiting = Option<oneshot::Sender<Arc<Entry>>>;

struct Shared {
    flights: Mutex<Flights<Waiting, AbortOnDropHandle<()>>>,
    sources: Arc<Sources>,
    validator: Option<Validator>,
    metrics: metrics::Resolver,
    runtime: Handle,
    shutdown: CancellationToken,
}

impl Resolver {
    /// Takes a place for a client's question at once; the returned future resolves it, in a few seconds at most.
    pub fn resolve(&self, client: IpAddr, forward: &Forward) -> impl Future<Output = Resolved> + use<> {
        let (to, mut reply) = oneshot::channel();
        self.0.join(client, forward, Some(to));
        let (resolver, forward) = (self.0.clone(), forward.clone());
        async move {
            let entry = match timeout(STALE_AFTER, &mut reply).await {
                Ok(entry) => entry,
                Err(_) => match resolver.stale(&forward) {
                    Some(stale) => return stale,
                    None => reply.await,
                },
            };
            let fresh = |entry| Resolved { entry, age: Age::Fresh(0) };
            match entry {
                Ok(entry) if entry.reply.is_answer() => fresh(entry),
                Ok(entry) => match resolver.stale(&forward) {
                    Some(stale) if stale.entry.reply.may_stand_for(&entry.reply) => stale,
                    _ => fresh(entry),
                },
                Err(_) => resolver.stale(&forward).unwrap_or_else(|| {
                    let text = "replaced by newer questions, or the resolver is stopping";
                    let reply = Reply::bare(Rcode::ServFail, Ede { code: ede::OTHER, text }, forward.question());
                    fresh(Entry::new(reply, socket::now()))
                }),
            }
        }
    }

    /// Refreshes the cached reply to a client's question.
    pub fn refresh(&self, client: IpAddr, forward: &Forward) {
        self.0.join(client, forward, None);
    }
}

impl Shared {
    /// Takes a place for a question, whose flight starts unless it runs. After the shutdown, drops `to`.
    fn join(self: &Arc<Self>, client: IpAddr, forward: &Forward, to: Waiting) {
        let key = forward.is_shared().then(|| forward.key());
        let mut flights = self.flights();
        // Under the lock: the flights are cleared after the shutdown.
        if self.shutdown.is_cancelled() {
            return;
        }
        let replaced = flights.join(client, key, to, |flight| {
            let flight = InFlight { flight, resolver: self.clone() };
            AbortOnDropHandle::new(self.runtime.spawn(flight.run(forward.clone())))
        });
        self.metrics.waiting(flights.len());
        drop(flights);
        if let Some(full) = replaced {
            self.metrics.replaced(full);
        }
    }

    /// Returns the reply of the upstreams, validated if it has to be.
    async fn reply(&self, forward: &Forward) -> Reply {
        let sources = &self.sources;
        let Some(validator) = &self.validator else { return sources.ask(forward).await };
        if !validator.validates(forward, sources.private_suffix(forward.name())) {
            return sources.ask(forward).await.with_security(Security::Unvalidated);
        }
        let reply = sources.ask(&forward.for_validation()).await;
        let tables = sources.screen.tables();
        let is_own = |name: &LookupName| tables.is_authoritative_for(name);
        validator.validate(reply, forward, is_own, |name| sources.private_suffix(name)).await
    }

    /// Returns the stale reply to a question.
    fn stale(&self, forward: &Forward) -> Option<Resolved> {
        match self.sources.cache.get(forward.key(), socket::now()) {
            Some(Hit::Stale { entry, .. }) if forward.is_shared() => Some(Resolved { entry, age: Age::Stale }),
            _ => None,
        }
    }

    fn flights(&self) -> MutexGuard<'_, Flights<Waiting, AbortOnDropHandle<()>>> {
        // No code under the lock can panic half-way.
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a flight and returns the clients that wait for it.
    fn finish(&self, flight: FlightId) -> Vec<Waiting> {
        let mut flights = self.flights();
        let waiting = flights.finish(flight);
        self.metrics.waiting(flights.len());
        waiting
    }
}

/// Running flight.
struct InFlight {
    flight: FlightId,
    resolver: Arc<Shared>,
}

impl InFlight {
    async fn run(self, forward: Forward) {
        let sources = &self.resolver.sources;
        let reply = self.resolver.reply(&forward).await;
        let reply = sources.screen.screen(reply, &forward, sources.is_public(forward.name()));
        let entry = match forward.is_shared() {
            true => sources.cache.put(forward.key(), reply, socket::now()),
            false => Entry::new(reply, socket::now()),
        };
        for to in self.resolver.finish(self.flight).into_iter().flatten() {
            let _ = to.send(entry.clone());
        }
    }
}

impl Drop for InFlight {
    /// Frees the places of a flight whose task panics.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.resolver.finish(self.flight);
        }
    }
}

/// Returns the maximum number of waiting questions for the current limits of this process.
fn most_waiting() -> usize {
    let open_files = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    usize::try_from(open_files / SHARE_OF_FILES).unwrap_or(usize::MAX).clamp(1, MAX_WAITING)
}

/// Starts a resolver on the current runtime; the returned future follows the upstreams and ends all flights at `shutdown`.
pub fn start(options: Options, shutdown: CancellationToken) -> (Resolver, impl Future<Output = ()>) {
    let Options { mut upstreams, routes, cache, loop_detector, authorities, .. } = options;
    let Options { tables, rebind_protection, validation, upstream_metrics, metrics, tap, .. } = options;
    let secure = Arc::new(Secure::new(authorities, tap));
    let pool_of = |servers: &[UpstreamAddress]| Arc::new(Pool::new(servers, secure.clone(), upstream_metrics.clone()));
    let default = pool_of(&upstreams.borrow_and_update());
    let routes: Vec<(Name, Arc<Pool>)> =
        routes.into_iter().map(|(suffix, servers)| (suffix, pool_of(&servers))).collect();
    let pools = routes.iter().map(|(_, pool)| pool.clone()).chain([default.clone()]).collect();
    let screen = Screen::new(tables, rebind_protection, metrics.clone());
    let sources = Arc::new(Sources { default, routes, cache, screen });
    let validator = validation.map(|scope| Validator::new(scope, sources.clone().chain(), metrics.clone()));
    let shared = Arc::new(Shared {
        flights: Mutex::new(Flights::new(most_waiting())),
        sources,
        validator,
        metrics,
        runtime: Handle::current(),
        shutdown,
    });
    (Resolver(shared.clone()), run(shared, upstreams, pools, loop_detector))
}

async fn run(
    shared: Arc<Shared>,
    mut upstreams: watch::Receiver<Vec<UpstreamAddress>>,
    pools: Vec<Arc<Pool>>,
    loop_detector: Arc<LoopDetector>,
) {
    let (changed, changes) = watch::channel(());
    let mut loop_probes = JoinSet::new();
    loop_probes.spawn(detect_loops(pools, loop_detector, changes));
    loop {
        tokio::select! {
            () = shared.shutdown.cancelled() => break,
            Ok(()) = upstreams.changed() => {
                let servers = upstreams.borrow_and_update().clone();
                if shared.sources.default.replace(&servers) {
                    info!(servers = %list(&servers), "upstreams");
                    changed.send_replace(());
                    // Another network may resolve names differently.
                    shared.sources.cache.clear();
                }
            }
        }
    }
    shared.flights().clear();
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

/// Returns an unpredictable generator for ids, ports and letter case.
fn rng() -> Rng {
    let mut seed = [0; 8];
    match SystemRandom::new().fill(&mut seed) {
        Ok(()) => Rng::with_seed(u64::from_ne_bytes(seed)),
        // Fallback if the kernel provides no random numbers.
        Err(_) => Rng::new(),
    }
}
