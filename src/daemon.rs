//! The composition root: binds, wires, spawns, and takes everything down again. No other module knows two adapters.
//!
//! ```text
//! services_dir ─► files ─► checks ─► announcements ─┐
//! zones_dir ────► files ────────────────────────────┴─► publisher ─► tables ─► UDP, TCP
//! ```
//!
//! What can fail at the start fails before anything is answered, with a message that says what to do. After that
//! nothing ends the agent but a signal.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
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
    model::{
        announcement::{Announcements, Node},
        catalog::{NodeView, View},
    },
};

/// How long the checks may take to announce what was loaded before questions are answered all the same.
const FIRST_ANNOUNCEMENT: Duration = Duration::from_secs(2);
/// How long open connections and probes get to end at a stop; systemd's own patience is 90 s.
const STOP: Duration = Duration::from_secs(5);
/// Attempts to find a port that is free for UDP and TCP where the configuration leaves the choice to the kernel.
const PORT_ATTEMPTS: usize = 20;

/// Why the agent could not start.
#[derive(Debug)]
pub enum StartError {
    /// An address that cannot be listened on.
    Listen {
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
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { address, error } => {
                write!(f, "cannot listen for DNS on {address}: {error}")?;
                let port = address.port();
                match error.kind() {
                    io::ErrorKind::AddrInUse => write!(
                        f,
                        "\nAnother program has the port: `ss -lntup 'sport = :{port}'` shows which. Stop it, or set dns.listen to another address or port."
                    ),
                    io::ErrorKind::PermissionDenied => write!(
                        f,
                        "\nPorts below 1024 need the capability CAP_NET_BIND_SERVICE: start muster by its systemd unit, run \
                         `setcap cap_net_bind_service=+ep` on the binary, or set dns.listen to a higher port such as 127.0.0.1:8600."
                    ),
                    io::ErrorKind::AddrNotAvailable => {
                        write!(
                            f,
                            "\nNo interface of this host has that address: `ip address` lists them. Set dns.listen to one of them."
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
        }
    }
}

impl std::error::Error for StartError {}

/// The signals that the agent obeys, turned into values by the caller.
#[derive(Clone)]
pub struct Signals {
    /// Ends the agent.
    pub shutdown: CancellationToken,
    /// Each new value makes it read all files again.
    pub rescan: watch::Receiver<()>,
}

/// Runs the agent until `signals.shutdown`. Calls `ready` once it answers.
///
/// # Errors
/// What keeps it from starting; once it is ready, it returns `Ok`.
pub async fn run(config: Config, signals: Signals, ready: impl FnOnce()) -> Result<(), StartError> {
    let sockets = config.dns.listen.iter().map(|address| listen(*address)).collect::<Result<Vec<_>, _>>()?;
    let serial = open_data_dir(&config)?;
    let shutdown = signals.shutdown;
    let tasks = TaskTracker::new();

    let (contents, watching) =
        folder::spawn(services::folder(config.services_dir.clone()), signals.rescan.clone(), shutdown.clone()).await;
    tasks.spawn(watching);
    let files = Services::new(config.node.clone(), config.advertise.clone(), config.checks.allow_exec);
    let (definitions, following) = follow(files, contents, shutdown.clone()).await;
    tasks.spawn(following);

    let (contents, watching) =
        folder::spawn(zones::folder(config.zones_dir.clone()), signals.rescan, shutdown.clone()).await;
    tasks.spawn(watching);
    let rules = Rules { domain: config.domain.clone(), aliases: config.alias_domains.clone(), ttl: config.dns.ttl };
    let (zones, following) = follow(Zones::new(rules), contents, shutdown.clone()).await;
    tasks.spawn(following);

    let (announced, mut announcements) = watch::channel(Announcements::new());
    let loaded = definitions.borrow().len();
    let options = checks::Options::for_this_process(config.checks.allow_exec, fastrand::u64(..));
    tasks.spawn(checks::run(definitions, announced, options, shutdown.clone()));
    // Whoever starts with us and asks at once must not hear that a service of ours does not exist.
    let all = announcements.wait_for(|now| now.len() >= loaded);
    if timeout(FIRST_ANNOUNCEMENT, all).await.is_err() {
        warn!("the checks are late: some services are not answered yet");
    }

    let (seen, view) = watch::channel(alone(&config, &announcements.borrow_and_update()));
    tasks.spawn(view_of_one(config.clone(), announcements, seen, shutdown.clone()));
    let mut sources = Sources { view, zones };
    let mut publisher = Publisher::new(Tables::new(settings(&config)), serial, config.data_dir.clone());
    publisher.publish(&mut sources).await;
    let tables = publisher.published();
    tasks.spawn(publisher.run(sources, shutdown.clone()));

    let payload = config.dns.udp_payload;
    let engine = move || Engine::new(payload, fastrand::Rng::new());
    let shared = tcp::Shared {
        tables: tables.clone(),
        connections: Arc::new(Semaphore::new(tcp::MAX_CONNECTIONS)),
        shutdown: shutdown.clone(),
    };
    for (datagrams, connections) in sockets {
        tasks.spawn(udp::serve(datagrams, tables.clone(), engine(), shutdown.clone()));
        tasks.spawn(tcp::serve(connections, shared.clone(), engine));
    }
    info!(node = %config.node, domain = %config.domain, services = loaded, "answering");
    ready();

    shutdown.cancelled().await;
    tasks.close();
    if timeout(STOP, tasks.wait()).await.is_err() {
        warn!("some tasks did not end within {STOP:?}; stopping without them");
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
        seen.send_replace(alone(&config, &announcements.borrow_and_update()));
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
fn listen(address: SocketAddr) -> Result<(UdpSocket, TcpListener), StartError> {
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
    let (datagrams, connections) = bound.map_err(|error| StartError::Listen { address, error })?;
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

fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

/// Makes sure that the data folder can be written to, and goes on with the serial that it holds.
fn open_data_dir(config: &Config) -> Result<Serial, StartError> {
    let path = &config.data_dir;
    let failed = |error| StartError::DataDir { path: path.clone(), error };
    fs::create_dir_all(path).map_err(failed)?;
    // Before 1970 or after 2106 a clock says nothing useful; the stored serial then decides alone.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| u32::try_from(now.as_secs()).unwrap_or(0));
    let stored = data_dir::load_serial(path);
    data_dir::store_serial(path, stored.unwrap_or(0).max(now)).map_err(failed)?;
    Ok(Serial::resume(stored, now))
}
