//! The composition root: binds, wires, spawns, and takes everything down again. No other module knows two adapters.
//!
//! ```text
//! services_dir ─► files ─► checks ─► announcements ─► cluster ─► view ─┐
//! zones_dir ────► files ───────────────────────────────────────────────┴─► publisher ─► tables ─► UDP, TCP
//! membership, orders ◄─► HTTP
//! ```
//!
//! What can fail at the start fails before anything is answered, with a message that says what to do. After that
//! nothing ends the agent but a signal.

use std::{
    collections::HashMap,
    fs, io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::{Id, JoinHandle, JoinSet, block_in_place},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    checks,
    config::Config,
    data_dir,
    dns::{
        engine::{self, Engine, rrl::ResponseRateLimiter},
        message::cookie::Secret,
        publish::{Publisher, Sources},
        recursion::Recursion,
        server::{connection_quota::ConnectionQuota, tcp, udp},
        zone::{Settings, Tables, serial::Serial},
    },
    files::{
        services::{self, Services},
        zones::{self, Rules, Zones},
    },
    http::{
        self,
        beyond::Beyond,
        blocking::{self, BlockingQueries},
        server::Server,
    },
    metrics::{Folder, Metrics, Transport, Writers},
    model::announcement::Announcements,
};

pub use self::error::{DaemonError, Purpose};
use self::folders::Folders;

mod cluster;
mod commands;
mod encrypted;
mod error;
mod folders;
mod http_api;
mod registry;
mod resolver;
mod scrape;

/// What this program calls itself.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How long the checks may take to announce what was loaded before questions are answered all the same.
const FIRST_ANNOUNCEMENT: Duration = Duration::from_secs(10);
/// How long a draining agent waits for TTLs to run out before it ends: what has a longer one is rarely stopped with its
/// host, and a host that shuts down must not be kept for minutes.
pub const MAX_DRAIN: Duration = Duration::from_secs(30);
/// How long the instances of a draining agent may take to be withdrawn here.
const WITHDRAW: Duration = Duration::from_secs(2);
/// How long open connections and probes get to end at a stop; systemd's own patience is 90 s.
const STOP: Duration = Duration::from_secs(5);
/// Attempts to find a port that is free for UDP and TCP where the configuration leaves the choice to the kernel.
const PORT_ATTEMPTS: usize = 20;

/// The signals that the agent obeys, turned into values by the caller.
#[derive(Clone)]
pub struct Signals {
    /// Ends the agent.
    pub shutdown: CancellationToken,
    /// Each new value makes it read all files again.
    pub rescan: watch::Sender<()>,
    /// Takes the node's instances out of answers, waits until nobody has one any more (at most [`MAX_DRAIN`]), and ends the
    /// agent then.
    pub drain: CancellationToken,
}

/// What the agent consists of while it runs. Each part runs until shutdown; one that ends before takes the agent down.
#[derive(Default)]
struct Parts {
    running: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Parts {
    fn spawn(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        self.names.insert(self.running.spawn(part).id(), name);
    }

    /// A part that runs already.
    fn watch(&mut self, name: &'static str, part: JoinHandle<()>) {
        self.spawn(name, async move {
            if let Err(error) = part.await
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        });
    }

    /// Waits for any part to end.
    async fn ended(&mut self) -> Option<&'static str> {
        let id = match self.running.join_next_with_id().await? {
            Ok((id, ())) => id,
            Err(error) => error.id(),
        };
        self.names.get(&id).copied()
    }
}

/// Runs the agent until `signals.shutdown`. Calls `ready` once it answers. Needs a runtime with several threads.
///
/// # Errors
/// What keeps it from starting or from going on.
pub async fn run(config: Config, signals: Signals, ready: impl FnOnce()) -> Result<(), DaemonError> {
    let payload = config.dns.udp_payload;
    let sockets = config.dns.listen.iter().map(|address| listen(*address, payload)).collect::<Result<Vec<_>, _>>()?;
    let encrypted = encrypted::bind(&config).await?;
    let gossip = cluster::bind(&config)?;
    let apis = http_api::bind(&config)?;
    let serial = open_data_dir(&config)?;
    let shutdown = signals.shutdown.clone();
    let mut parts = Parts::default();
    let metrics = Metrics::default();
    let (reports, reported) = watch::channel(Arc::default());
    let (rescan, counted) = (signals.rescan.clone(), metrics.folders.clone());
    let folders = Folders { rescan, reports, metrics: counted, shutdown: shutdown.clone() };

    let files = Services::new(config.node.clone(), config.advertise.clone(), config.checks.allow_exec);
    let (service_files, zone_files) =
        (services::folder(config.services_dir.clone()), zones::folder(config.zones_dir.clone()));
    let folder = service_files.clone().beside(&zone_files);
    let names = ["watches the service files", "reads the service files"];
    let services = folders.follow(folder, files, Folder::Services, names, &mut parts).await;
    let rules = Rules { domain: config.domain.clone(), aliases: config.alias_domains.clone(), ttl: config.dns.ttl };
    let (folder, names) = (zone_files.beside(&service_files), ["watches the zone files", "reads the zone files"]);
    let zones = folders.follow(folder, Zones::new(rules), Folder::Zones, names, &mut parts).await;

    let (announced, mut announcements) = watch::channel(Announcements::new());
    let (inputs, registry) =
        registry::start(&config, services, announcements.clone(), &signals.drain, &mut parts, &shutdown);
    let (defined, maintenance) = (inputs.definitions.clone(), inputs.maintenance.clone());
    let loaded = defined.borrow().len();
    let options = checks::Options::for_this_process(config.checks.allow_exec, fastrand::u64(..));
    let options = checks::Options { metrics: metrics.checks.clone(), ..options };
    parts.spawn("checks health", checks::run(inputs, announced, options, shutdown.clone()));
    // Whoever starts with us and asks at once must not hear that a service of ours does not exist.
    let all = announcements.wait_for(|now| now.len() >= loaded);
    if timeout(FIRST_ANNOUNCEMENT, all).await.is_err() {
        warn!("the checks are late: some services are not answered yet");
    }

    let mut cluster =
        cluster::start(&config, gossip, announcements.clone(), metrics.gossip.clone(), &mut parts, &shutdown)?;
    let members = cluster.members.clone();
    let following = registry::follow_ttls(config.dns.ttl, members, registry.ttl, shutdown.clone());
    parts.spawn("follows the TTLs of all nodes", following);
    let mut sources = Sources { view: cluster.view.clone(), zones: zones.clone() };
    // Milliseconds: an index that a client has from before a restart is never ahead of ours.
    let version = now_since_1970().as_millis() as u64;
    let mut publisher = Publisher::new(Tables::new(settings(&config)), serial, config.data_dir.clone(), version);
    block_in_place(|| publisher.publish(&mut sources));
    let tables = publisher.published();
    let catalog = publisher.catalog();
    parts.spawn("publishes answers", publisher.run(sources, shutdown.clone()));

    let dns: Vec<SocketAddr> = sockets.iter().map(|listener| listener.address).collect();
    let beyond = resolver::start(&config, dns.clone(), metrics.upstreams.clone(), &mut parts, &shutdown).await;
    let (resolver, recursion, upstreams) = match beyond {
        Some((resolver, recursion, upstreams)) => (Some(resolver), Some(recursion), Some(upstreams)),
        None => (None, None, None),
    };
    let cache = recursion.as_ref().map(|recursion| recursion.cache.clone());
    let settings = Arc::new(engine_settings(&config, recursion)?);
    let engine = move || Engine::with(settings.clone(), fastrand::Rng::new());
    let shared = tcp::Shared {
        tables: tables.clone(),
        clients: ConnectionQuota::new(tcp::most_connections()),
        resolver: resolver.clone(),
        tally: metrics.dns.tally(Transport::Tcp, Writers::Many),
        shutdown: shutdown.clone(),
    };
    for Listener { address, datagrams, connections } in sockets {
        for socket in datagrams {
            let (resolver, shutdown) = (resolver.clone(), shutdown.clone());
            let answering = udp::serve(socket, tables.clone(), engine.clone(), resolver, &metrics.dns, shutdown);
            let answering = answering.map_err(|error| DaemonError::Listen { purpose: Purpose::Dns, address, error })?;
            parts.spawn("answers over UDP", answering);
        }
        parts.spawn("answers over TCP", tcp::serve(connections, shared.clone(), engine.clone()));
    }
    if let Some(listeners) = encrypted {
        encrypted::start(&config, listeners, &shared, &engine, &metrics.dns, &mut parts)?;
    }
    let agent = Arc::new(facts(&config, cluster.address, dns, apis.addresses()));
    let (orders, given) = mpsc::channel(commands::ORDERS);
    let takers = commands::Takers { node: cluster.orders, registry: registry.requests, rescan: signals.rescan };
    parts.spawn("passes orders on", commands::pass_on(given, takers, shutdown.clone()));
    let scrape = scrape::Sources {
        catalog: catalog.clone(),
        tables,
        members: cluster.members.clone(),
        rejected: cluster.rejected,
        definitions: defined,
        announcements: announcements.clone(),
        cache,
        clients: shared.clients,
    };
    let scrape = scrape.scrape(metrics.clone());
    let guard = http_api::guard(&config, &folders, &mut parts).await;
    let sources =
        blocking::Sources { catalog, members: cluster.members, files: reported, maintenance, keys: cluster.keyring };
    let hub = BlockingQueries::new(sources, metrics.http.clone(), shutdown.clone());
    parts.spawn("wakes those who wait", hub.clone().run());
    let beyond =
        Beyond { zones, services: config.services_dir.clone(), routes: config.resolver.routes.clone(), upstreams };
    let (counted, stopping) = (metrics.http, CancellationToken::new());
    let api = http::Api {
        agent,
        events: cluster.events,
        hub,
        orders,
        guard,
        beyond,
        scrape,
        counted,
        stopping: stopping.clone(),
    };
    http_api::start(&config, apis, Server::new(api, shutdown.clone()), &mut parts, &shutdown)?;
    info!(node = %config.node, domain = %config.domain, services = loaded, "answering");
    ready();

    let first = tokio::select! {
        // At a stop all parts end: that is no defect of theirs.
        biased;
        () = shutdown.cancelled() => None,
        () = drained(&signals.drain, &stopping, registry.withdrawn, announcements) => None,
        ended = parts.ended() => ended,
    };
    stopping.cancel();
    shutdown.cancel();
    if timeout(STOP, async { while parts.ended().await.is_some() {} }).await.is_err() {
        warn!("some tasks did not end within {STOP:?}; stopping without them");
    }
    if let Some(failure) = cluster::failure(&config.node, first, cluster.ended.try_recv().ok()) {
        return Err(failure);
    }
    info!("stopped");
    Ok(())
}

/// Waits for an order to drain, says `stopping`, and waits until that is done.
async fn drained(
    drain: &CancellationToken,
    stopping: &CancellationToken,
    mut withdrawn: watch::Receiver<Option<Duration>>,
    mut announcements: watch::Receiver<Announcements>,
) {
    drain.cancelled().await;
    stopping.cancel();
    let left = async {
        let left = *withdrawn.wait_for(Option::is_some).await.ok()?;
        let answered = |now: &Announcements| now.values().any(|known| known.standing.is_answered());
        announcements.wait_for(|now| !answered(now)).await.ok()?;
        left
    };
    let left = timeout(WITHDRAW, left).await.ok().flatten().unwrap_or_default();
    if left > MAX_DRAIN {
        warn!(left = ?left, "answers of before may be in caches for longer than is waited for ({MAX_DRAIN:?})");
    }
    let wait = left.min(MAX_DRAIN);
    if !wait.is_zero() {
        info!("drained: going on for {} s, until answers of before are in no cache any more", wait.as_secs());
        sleep(wait).await;
    }
}

/// What the HTTP API shows of this agent, which is bound to these addresses.
fn facts(config: &Config, gossip: SocketAddr, dns: Vec<SocketAddr>, http: Vec<SocketAddr>) -> http::Agent {
    http::Agent {
        node: config.node.clone(),
        datacenter: config.datacenter.clone(),
        domain: config.domain.clone(),
        aliases: config.alias_domains.clone(),
        meta: config.meta.clone(),
        version: VERSION,
        advertise: config.advertise.clone(),
        gossip,
        dns,
        http,
        ttl: config.dns.ttl,
    }
}

fn engine_settings(config: &Config, recursion: Option<Recursion>) -> Result<engine::Settings, DaemonError> {
    // Drawn anew at each start: a client with an old cookie gets a new one with its answer.
    let mut secret = [0; 16];
    SystemRandom::new().fill(&mut secret).map_err(|_| DaemonError::NoRandom)?;
    Ok(engine::Settings {
        udp_payload: config.dns.udp_payload,
        nsid: config.node.as_bytes().into(),
        secret: Some(Secret::new(secret)),
        limit: config.dns.rate_limit.map(|rate| ResponseRateLimiter::new(rate, fastrand::u64(..))),
        recursion,
    })
}

fn settings(config: &Config) -> Settings {
    Settings {
        node: config.node.clone(),
        domain: config.domain.clone(),
        aliases: config.alias_domains.clone(),
        ttl: config.dns.ttl,
        negative_ttl: config.dns.negative_ttl,
    }
}

/// An address that DNS is answered on, bound for both transports.
struct Listener {
    address: SocketAddr,
    /// One for each thread.
    datagrams: Vec<UdpSocket>,
    connections: TcpListener,
}

/// Binds both transports of an address, on one port; `payload` is the longest reply over UDP.
fn listen(address: SocketAddr, payload: u16) -> Result<Listener, DaemonError> {
    let both = |address| {
        let connections = tcp::bind(address)?;
        let address = connections.local_addr()?;
        let datagrams = udp::bind(address, udp::workers(), payload)?;
        Ok(Listener { address, datagrams, connections })
    };
    let bound = try_ports(address, both);
    let listener = bound.map_err(|error| DaemonError::Listen { purpose: Purpose::Dns, address, error })?;
    info!(address = %listener.address, "listening for DNS over UDP and TCP");
    Ok(listener)
}

/// Binds UDP and TCP on one port. Where the kernel chooses it, the port that TCP got may be taken for UDP: another then.
fn try_ports<T>(address: SocketAddr, bind: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let mut bound = bind(address);
    if address.port() == 0 {
        for _ in 0..PORT_ATTEMPTS {
            match &bound {
                Err(error) if is_taken(error) => bound = bind(address),
                _ => break,
            }
        }
    }
    bound
}

fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

/// Makes sure that the data folder can be written to, and goes on with the serial that it holds.
fn open_data_dir(config: &Config) -> Result<Serial, DaemonError> {
    let path = &config.data_dir;
    let failed = |error| DaemonError::DataDir { path: path.clone(), error };
    fs::create_dir_all(path).map_err(failed)?;
    // Before 1970 or after 2106 a clock says nothing useful; the stored serial then decides alone.
    let now = u32::try_from(now_since_1970().as_secs()).unwrap_or(0);
    let stored = data_dir::load_serial(path);
    data_dir::store_serial(path, stored.unwrap_or(0).max(now)).map_err(failed)?;
    Ok(Serial::resume(stored, now))
}

/// Nothing where the clock is before 1970.
fn now_since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
