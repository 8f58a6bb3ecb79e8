//! The composition root: binds, wires, spawns, and takes everything down again. No other module knows two adapters.
//!
//! ```text
//! services_dir ─► files ─► checks ─► announcements ─┐
//! zones_dir ────► files ────────────────────────────┴─► publisher ─► tables ─► UDP, TCP
//! the membership, orders ─► HTTP
//! ```
//!
//! What can fail at the start fails before anything is answered, with a message that says what to do. After that
//! nothing ends the agent but a signal.

use std::{
    collections::HashMap,
    fmt, fs, io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{Semaphore, mpsc, watch},
    task::{Id, JoinHandle, JoinSet, block_in_place},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    checks,
    config::Config,
    data_dir,
    dns::{
        engine::Engine,
        publish::{Publisher, Sources},
        serial::Serial,
        table::{Settings, Tables},
        tcp, udp,
    },
    files::{
        reload::follow,
        services::{self, Services},
        watch as folder,
        zones::{self, Rules, Zones},
    },
    http::{
        self,
        order::Order,
        serve::{self, Server},
    },
    model::{
        announcement::{Announcements, Node},
        catalog::{NodeView, View},
        member::{Member, Membership, PeerId, Reach},
    },
};

/// What this program calls itself.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How long the checks may take to announce what was loaded before questions are answered all the same.
const FIRST_ANNOUNCEMENT: Duration = Duration::from_secs(10);
/// How long open connections and probes get to end at a stop; systemd's own patience is 90 s.
const STOP: Duration = Duration::from_secs(5);
/// Attempts to find a port that is free for UDP and TCP where the configuration leaves the choice to the kernel.
const PORT_ATTEMPTS: usize = 20;
/// Orders that wait for their turn: people and scripts give them, one at a time.
const ORDERS: usize = 16;

/// Why the agent could not start, or did not go on.
#[derive(Debug)]
pub enum Failure {
    /// An address that cannot be listened on.
    Listen {
        /// What for.
        purpose: Purpose,
        /// Which.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// A data folder that cannot be written to.
    DataDir {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A part of the agent that ended by itself, which is a defect; holds its name.
    Ended(&'static str),
}

/// What an address is listened on for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// DNS over UDP and TCP.
    Dns,
    /// The HTTP API.
    Http,
}

impl Purpose {
    /// What it is called, the key of the configuration that decides on it, and an address that mostly works.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Dns => ("DNS", "dns.listen", "127.0.0.1:8600"),
            Self::Http => ("HTTP", "http.listen", "127.0.0.1:8501"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { purpose, address, error } => {
                let (what, key, example) = purpose.words();
                write!(f, "cannot listen for {what} on {address}: {error}")?;
                let port = address.port();
                match error.kind() {
                    io::ErrorKind::AddrInUse => write!(
                        f,
                        "\nAnother program has the port, or another entry of {key} covers it: `ss -lntup 'sport = :{port}'` shows who. Stop \
                         that program, or set {key} to another address or port."
                    ),
                    io::ErrorKind::PermissionDenied => write!(
                        f,
                        "\nPorts below 1024 need the capability CAP_NET_BIND_SERVICE: start muster by its systemd unit, run \
                         `setcap cap_net_bind_service=+ep` on the binary, or set {key} to a higher port such as {example}."
                    ),
                    io::ErrorKind::AddrNotAvailable => {
                        write!(
                            f,
                            "\nNo interface of this host has that address: `ip address` lists them. Set {key} to one of them."
                        )
                    }
                    _ => Ok(()),
                }
            }
            Self::DataDir { path, error } => write!(
                f,
                "cannot write to the data folder {}: {error}\nCreate it for the user that runs muster, or set data_dir to another folder.",
                path.display()
            ),
            Self::Ended(part) => write!(
                f,
                "the part that {part} has ended, so the agent stops rather than answer what it no longer knows\nThis is a \
                 defect of muster: please report it with the lines above."
            ),
        }
    }
}

impl std::error::Error for Failure {}

/// The signals that the agent obeys, turned into values by the caller.
#[derive(Clone)]
pub struct Signals {
    /// Ends the agent.
    pub shutdown: CancellationToken,
    /// Each new value makes it read all files again.
    pub rescan: watch::Receiver<()>,
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
pub async fn run(config: Config, signals: Signals, ready: impl FnOnce()) -> Result<(), Failure> {
    let sockets = config.dns.listen.iter().map(|address| listen(*address)).collect::<Result<Vec<_>, _>>()?;
    let apis = config.http.listen.iter().map(|address| listen_http(*address)).collect::<Result<Vec<_>, _>>()?;
    let serial = open_data_dir(&config)?;
    let shutdown = signals.shutdown;
    let mut parts = Parts::default();

    let (contents, watching) =
        folder::spawn(services::folder(config.services_dir.clone()), signals.rescan.clone(), shutdown.clone()).await;
    parts.watch("watches the service files", watching);
    let files = Services::new(config.node.clone(), config.advertise.clone(), config.checks.allow_exec);
    let (definitions, following) = follow(files, contents, shutdown.clone()).await;
    parts.watch("reads the service files", following);

    let (contents, watching) =
        folder::spawn(zones::folder(config.zones_dir.clone()), signals.rescan, shutdown.clone()).await;
    parts.watch("watches the zone files", watching);
    let rules = Rules { domain: config.domain.clone(), aliases: config.alias_domains.clone(), ttl: config.dns.ttl };
    let (zones, following) = follow(Zones::new(rules), contents, shutdown.clone()).await;
    parts.watch("reads the zone files", following);

    let (announced, mut announcements) = watch::channel(Announcements::new());
    let loaded = definitions.borrow().len();
    let options = checks::Options::for_this_process(config.checks.allow_exec, fastrand::u64(..));
    parts.spawn("checks health", checks::run(definitions, announced, options, shutdown.clone()));
    // Whoever starts with us and asks at once must not hear that a service of ours does not exist.
    let all = announcements.wait_for(|now| now.len() >= loaded);
    if timeout(FIRST_ANNOUNCEMENT, all).await.is_err() {
        warn!("the checks are late: some services are not answered yet");
    }

    let (seen, view) = watch::channel(alone(&config, &announcements.borrow_and_update()));
    let since = now_since_1970();
    let (known, members) = watch::channel(Arc::new(membership_of_one(&config, since, loaded)));
    let one = view_of_one(config.clone(), announcements, seen, (since, known), shutdown.clone());
    parts.spawn("knows the cluster", one);
    let mut sources = Sources { view, zones };
    let mut publisher = Publisher::new(Tables::new(settings(&config)), serial, config.data_dir.clone());
    block_in_place(|| publisher.publish(&mut sources));
    let tables = publisher.published();
    parts.spawn("publishes answers", publisher.run(sources, shutdown.clone()));

    let payload = config.dns.udp_payload;
    let engine = move || Engine::new(payload, fastrand::Rng::new());
    let shared = tcp::Shared {
        tables: tables.clone(),
        connections: Arc::new(Semaphore::new(tcp::most_connections())),
        shutdown: shutdown.clone(),
    };
    let dns = sockets.iter().filter_map(|(datagrams, _)| datagrams.local_addr().ok()).collect();
    for (datagrams, connections) in sockets {
        parts.spawn("answers over UDP", udp::serve(datagrams, tables.clone(), engine(), shutdown.clone()));
        parts.spawn("answers over TCP", tcp::serve(connections, shared.clone(), engine));
    }
    let (orders, given) = mpsc::channel(ORDERS);
    parts.spawn("carries out orders", orders_of_one(given, shutdown.clone()));
    let addresses = apis.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    let agent = Arc::new(facts(&config, dns, addresses));
    let server = Server::new(http::Api { agent, members, orders }, shutdown.clone());
    for listener in apis {
        parts.spawn("answers over HTTP", serve::serve(listener, server.clone()));
    }
    info!(node = %config.node, domain = %config.domain, services = loaded, "answering");
    ready();

    let ended = tokio::select! {
        // At a stop all parts end: that is no defect of theirs.
        biased;
        () = shutdown.cancelled() => None,
        ended = parts.ended() => ended,
    };
    shutdown.cancel();
    if timeout(STOP, async { while parts.ended().await.is_some() {} }).await.is_err() {
        warn!("some tasks did not end within {STOP:?}; stopping without them");
    }
    if let Some(part) = ended {
        return Err(Failure::Ended(part));
    }
    info!("stopped");
    Ok(())
}

/// The view of a cluster of one: what this node announces.
fn alone(config: &Config, announcements: &Announcements) -> View {
    let node =
        Node { name: config.node.clone(), addresses: config.advertise.clone(), datacenter: config.datacenter.clone() };
    let view = NodeView { node: Arc::new(node), announcements: announcements.clone() };
    View::unit(config.node.clone(), Arc::new(view))
}

async fn view_of_one(
    config: Config,
    mut announcements: watch::Receiver<Announcements>,
    seen: watch::Sender<View>,
    (since, known): (Duration, watch::Sender<Arc<Membership>>),
    shutdown: CancellationToken,
) {
    loop {
        let changed = tokio::select! {
            changed = announcements.changed() => changed.is_ok(),
            () = shutdown.cancelled() => false,
        };
        if !changed {
            return;
        }
        let now = announcements.borrow_and_update().clone();
        known.send_replace(Arc::new(membership_of_one(&config, since, now.len())));
        seen.send_replace(alone(&config, &now));
    }
}

/// The membership of a cluster of one, which began `since` 1970.
fn membership_of_one(config: &Config, since: Duration, instances: usize) -> Membership {
    let member = Member {
        id: PeerId { name: config.node.clone(), generation: since.as_secs() },
        address: config.gossip.listen,
        datacenter: Some(config.datacenter.clone()),
        version: Some(VERSION.to_owned()),
        reach: Reach::Alive,
        since,
        instances,
    };
    Membership { members: vec![member], ..Membership::default() }
}

/// Carries out what a cluster of one can be told.
async fn orders_of_one(mut orders: mpsc::Receiver<Order>, shutdown: CancellationToken) {
    let alone = || "This version of muster has clusters of one node: there is nobody to talk to.".to_owned();
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            () = shutdown.cancelled() => None,
        };
        // Whoever asked may have gone.
        match order {
            Some(Order::Join { done, .. }) => drop(done.send(Err(alone()))),
            Some(Order::Keyring { done, .. }) => drop(done.send(Err(alone()))),
            Some(Order::Leave { done }) => {
                info!("told to leave: stopping");
                drop(done.send(Ok(())));
                // The server lets answers that are under way get out.
                shutdown.cancel();
            }
            // Without an HTTP API nobody gives orders.
            None => return shutdown.cancelled().await,
        }
    }
}

/// What the HTTP API shows of this agent, which is bound to these addresses.
fn facts(config: &Config, dns: Vec<SocketAddr>, http: Vec<SocketAddr>) -> http::Agent {
    http::Agent {
        node: config.node.clone(),
        datacenter: config.datacenter.clone(),
        domain: config.domain.clone(),
        version: VERSION,
        advertise: config.advertise.clone(),
        gossip: config.gossip.listen,
        dns,
        http,
    }
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

/// Binds both transports of an address, on one port.
fn listen(address: SocketAddr) -> Result<(UdpSocket, TcpListener), Failure> {
    let both = || {
        let datagrams = udp::bind(address)?;
        let connections = tcp::bind(datagrams.local_addr()?)?;
        Ok((datagrams, connections))
    };
    let mut bound = both();
    if address.port() == 0 {
        // The port that UDP got may be taken for TCP.
        for _ in 0..PORT_ATTEMPTS {
            match &bound {
                Err(error) if is_taken(error) => bound = both(),
                _ => break,
            }
        }
    }
    let (datagrams, connections) = bound.map_err(|error| Failure::Listen { purpose: Purpose::Dns, address, error })?;
    let local = datagrams.local_addr().unwrap_or(address);
    info!(address = %local, "listening for DNS over UDP and TCP");
    if address.ip().is_unspecified() {
        warn!(
            %address,
            "on a host with several addresses, answers over UDP may leave from another one than was asked; \
             dns.listen with each address avoids that"
        );
    }
    Ok((datagrams, connections))
}

fn listen_http(address: SocketAddr) -> Result<TcpListener, Failure> {
    let listener = serve::bind(address).map_err(|error| Failure::Listen { purpose: Purpose::Http, address, error })?;
    info!(address = %listener.local_addr().unwrap_or(address), "listening for HTTP");
    Ok(listener)
}

fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

/// Makes sure that the data folder can be written to, and goes on with the serial that it holds.
fn open_data_dir(config: &Config) -> Result<Serial, Failure> {
    let path = &config.data_dir;
    let failed = |error| Failure::DataDir { path: path.clone(), error };
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
