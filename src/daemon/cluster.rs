//! Starts the node in its cluster: keyring, identity, transport, and the state that a restart needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{self, IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    task::block_in_place,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Context, DaemonError, Purpose, error::GossipKeyError, handover::Run};
use crate::{
    clock::uptime,
    config::{self, Config},
    data_dir::DataDir,
    files::{access, read::read},
    gossip::{
        command::Command,
        known_peer::KnownPeer,
        link,
        message::Identity,
        node::{self, End, Inputs, Outputs, OwnState, Settings},
        rejected::Rejected,
        seeds::Targets,
        transport::{self, Sockets, Transport},
    },
    model::{
        announcement::Node,
        catalog::View,
        keyring::Keyring,
        member::{Membership, PeerId},
        name::Label,
        user_event::EventLog,
    },
};

/// Interval at which changed peers are stored: a starting cluster changes them hundreds of times.
const STORE_AGAIN: Duration = Duration::from_secs(5);
/// Capacity of the command queue: operators send one command after the other.
const COMMANDS: usize = 16;
/// Largest key file that is read, in octets.
const MAX_KEY_FILE: u64 = 1 << 20;
/// Time limit for the node to carry out a command of the daemon, such as to announce a restart.
const RESPONSE: Duration = Duration::from_secs(2);
/// Prefix of the line in the stored keyring that names the keys of the key file it started from.
const BEGAN_WITH: &str = "# began with ";
/// Prefix of the line in the stored keyring with the number of the last rotation.
const ROTATION: &str = "# rotation ";

/// The cluster, for the rest of the agent.
pub(super) struct Cluster {
    /// Every node that is answered, with its announcements.
    pub(super) view: watch::Receiver<View>,
    /// The members.
    pub(super) members: watch::Receiver<Arc<Membership>>,
    /// User events addressed to this node.
    pub(super) events: watch::Receiver<EventLog>,
    /// The gossip keys; `None` if gossip is not encrypted.
    pub(super) keyring: watch::Receiver<Option<Keyring>>,
    /// Takes commands of operators.
    pub(super) commands: mpsc::Sender<Command>,
    /// The reason why the node ended.
    pub(super) ended: oneshot::Receiver<End>,
    /// The address at which peers reach this node.
    pub(super) address: SocketAddr,
    /// Counts of rejected packets and records.
    pub(super) rejected: Arc<Rejected>,
    /// The run of this node.
    pub(super) run: Run,
    /// True once the node knows what its peers announce.
    pub(super) synced: watch::Receiver<bool>,
    /// Bound of the serials of former runs, as peers know it.
    pub(super) former_serial: watch::Receiver<Option<u32>>,
    /// Serials of the generated zones by peer that serves transfers.
    pub(super) zone_serials: watch::Receiver<Arc<BTreeMap<Label, u32>>>,
    /// True if the node knows of no peer to wait for, or cannot reach any.
    pub(super) is_alone: bool,
}

/// The point from which the node goes on.
pub(super) struct Begin {
    /// The run that goes on; `None` for a new one.
    pub(super) run: Option<Run>,
    /// Generation above which a new run begins.
    pub(super) above: u64,
    /// Known peers.
    pub(super) peers: Vec<KnownPeer>,
    /// Bound of the own serials.
    pub(super) serial_ceiling: watch::Receiver<u32>,
    /// Serial of the generated zones, if this node serves transfers.
    pub(super) zone_serial: watch::Receiver<Option<u32>>,
}

/// Sends a command to the node. Returns `None` if the node has ended or does not respond.
pub(super) async fn ask<T>(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Option<T> {
    let (done, outcome) = oneshot::channel();
    let asked = async {
        commands.send(command(done)).await.ok()?;
        outcome.await.ok()
    };
    timeout(RESPONSE, asked).await.unwrap_or_else(|_| {
        warn!("the node does not respond within {RESPONSE:?}");
        None
    })
}

/// Starts the node.
pub(super) fn start(
    context: &mut Context<'_>,
    sockets: (net::UdpSocket, net::TcpListener),
    announced: watch::Receiver<OwnState>,
    begin: Begin,
    connections_of_store: Option<mpsc::Sender<TcpStream>>,
) -> Result<Cluster, DaemonError> {
    let config = context.config;
    let OwnState { announcements, external, node_checks } = announced.borrow().clone();
    let shutdown = &context.shutdown;
    let tasks = &mut context.tasks;
    let Begin { run, above, peers: known, serial_ceiling, zone_serial } = begin;
    let failed = |error| DaemonError::Serve { purpose: Purpose::Gossip, error };
    let sockets = Sockets::new(sockets.0, sockets.1).map_err(failed)?;
    let local = sockets.local_addr().map_err(failed)?;
    let continues = run.is_some();
    let knows_no_peer = known.is_empty() && config.gossip.join.is_empty();
    let is_alone = knows_no_peer || !config.advertise.is_usable();
    let data_dir = &context.data_dir;
    let run =
        run.unwrap_or_else(|| Run { generation: data_dir.next_generation(above), incarnation: 0, since: uptime() });
    let own = Identity {
        id: PeerId { name: config.node.clone(), generation: run.generation },
        address: own_address(config, local.port()),
    };
    let key_file = match &config.gossip.seal {
        config::Seal::KeyFile(path) => Some((path.as_path(), key_file(path)?)),
        config::Seal::Open => None,
    };
    let began = key_file.as_ref().map(|(_, keys)| began_with(keys));
    let keyring = key_file.map(|(path, keys)| keyring(path, keys, data_dir));
    let (link, network) = link::pair();
    let rejected = Arc::new(Rejected::default());
    let node = Arc::new(Node {
        name: config.node.clone(),
        addresses: config.advertise.addresses().to_vec(),
        datacenter: config.datacenter.clone(),
        zone: config.zone.clone(),
        meta: config.meta.clone(),
        checks: node_checks,
    });
    let (view, seen) = watch::channel(node::initial_view(&node, &announcements, &external, &known, continues));
    let first_serials = node::initial_zone_serials(&known, continues);
    let (members, membership) = watch::channel(Arc::default());
    let (peers, reached) = watch::channel(BTreeSet::new());
    let (keys, ring) = watch::channel(keyring);
    let keyring = ring.clone();
    let (commands, ordered) = mpsc::channel(COMMANDS);
    let (events, fired) = watch::channel(EventLog::default());
    let (synced, sync) = watch::channel(false);

    if config.advertise.is_usable() {
        let transport =
            Transport::new(own.clone(), ring.clone(), network, rejected.clone()).map_err(|_| DaemonError::NoRandom)?;
        let transport = transport.counted(context.metrics.gossip.clone());
        let transport = match connections_of_store {
            Some(connections) => transport.with_store_connections(connections),
            None => transport,
        };
        tasks.spawn("gossip transport", transport.run(sockets));
    } else {
        tasks.spawn("gossip transport", transport::discard(sockets, network));
    }
    let settings = Settings {
        own: own.clone(),
        node,
        version: super::VERSION.to_owned(),
        ttl: config.dns.ttl,
        cluster: config.domain.to_string(),
        interval: config.gossip.interval,
        hold: config.gossip.hold,
        restart_hold: config.gossip.restart_hold,
        incarnation: run.incarnation,
        age: uptime().saturating_sub(run.since),
        known,
        continues,
        targets: Targets { configured: config.gossip.join.clone(), remembered: data_dir.load_peers() },
        seed: fastrand::u64(..),
    };
    let metrics = context.metrics.gossip.clone();
    let inputs = Inputs {
        own: announced,
        link,
        commands: ordered,
        rejected: rejected.clone(),
        metrics,
        serial_ceiling,
        zone_serial,
    };
    let (former_serial, handed_over) = watch::channel(None);
    let (zone_serials, serials) = watch::channel(first_serials);
    let outputs = Outputs { view, members, peers, keyring: keys, events, synced, former_serial, zone_serials };
    let (end, ended) = oneshot::channel();
    let running = node::run(settings, inputs, outputs, shutdown.clone());
    tasks.spawn("cluster node", async move {
        // The receiver is gone if the agent ended first.
        let _ = end.send(running.await);
    });
    tasks.spawn("peer store", remember_peers(data_dir.clone(), reached, shutdown.clone()));
    if let Some(began) = began {
        tasks.spawn("keyring store", keep_keyring(data_dir.clone(), began, ring, shutdown.clone()));
    }
    let address = own.address;
    Ok(Cluster {
        view: seen,
        members: membership,
        events: fired,
        keyring,
        commands,
        ended,
        address,
        rejected,
        run,
        synced: sync,
        former_serial: handed_over,
        zone_serials: serials,
        is_alone,
    })
}

/// Returns the error of an agent whose task `first` was the first to end by itself. If the node ended by itself, it is the
/// cause: other tasks end with it and may be noticed first.
pub(super) fn failure(name: &Label, first: Option<&'static str>, node: Option<End>) -> Option<DaemonError> {
    match node {
        Some(End::Left) => None,
        Some(End::NameTaken(by)) => Some(DaemonError::NameTaken { name: name.clone(), by: by.address }),
        // The caller starts the node again.
        Some(End::Superseded { .. }) => None,
        Some(End::NoGossip(error)) => Some(DaemonError::Gossip(error)),
        Some(End::Stopped | End::Suspended) | None => first.map(DaemonError::Ended),
    }
}

/// Returns the gossip address of a node that is bound to this port.
pub(super) fn own_address(config: &Config, port: u16) -> SocketAddr {
    SocketAddr::new(reachable(config.gossip.listen.ip(), config.advertise.addresses()), port)
}

/// Returns the address at which peers reach this node: the listen address or, if that is unspecified, the first advertised
/// address of its family. A node that waits for an address has none of that family: its loopback address is shown on this
/// host, and not sent.
fn reachable(listen: IpAddr, advertise: &[IpAddr]) -> IpAddr {
    if !listen.is_unspecified() {
        return listen;
    }
    let fitting = advertise.iter().find(|address| address.is_ipv4() == listen.is_ipv4());
    fitting.or(advertise.first()).copied().unwrap_or(listen)
}

/// Returns the keys to start with: those changed at run time, or those of the key file if it has changed since.
fn keyring(path: &Path, file: Keyring, data_dir: &DataDir) -> Keyring {
    let Some(stored) = data_dir.load_keyring() else { return file };
    let line = |prefix| stored.lines().find_map(|line| line.strip_prefix(prefix));
    let rotation = line(ROTATION).and_then(|number| number.parse().ok()).unwrap_or_default();
    if line(BEGAN_WITH) != Some(began_with(&file).as_str()) {
        info!(key_file = %path.display(), "the key file has changed; its keys replace the stored keyring");
        // Of the same rotation as before, so that peers do not replace the primary key of the file.
        return file.as_of(rotation);
    }
    match Keyring::parse(&stored) {
        Ok(kept) => kept.as_of(rotation),
        Err(error) => {
            warn!(%error, "cannot read the keyring in data_dir; using the key file");
            file
        }
    }
}

fn key_file(path: &Path) -> Result<Keyring, DaemonError> {
    access::warn_of_exposed_secret(path);
    let keys = read_key_file(path).and_then(|text| Ok(Keyring::parse(&text)?));
    keys.map_err(|error| DaemonError::KeyFile { path: path.to_owned(), error })
}

/// Reads a key file.
///
/// # Errors
/// The reason why it cannot be read.
pub(super) fn read_key_file(path: &Path) -> Result<String, GossipKeyError> {
    let octets = read(path, MAX_KEY_FILE)?;
    Ok(std::str::from_utf8(&octets)?.to_owned())
}

/// Identifies the content of the key file by key ids, which reveal no key.
fn began_with(file: &Keyring) -> String {
    let ids: Vec<String> = file.iter().map(|key| key.id().to_string()).collect();
    ids.join(" ")
}

async fn keep_keyring(
    data_dir: DataDir,
    began: String,
    mut ring: watch::Receiver<Option<Keyring>>,
    shutdown: CancellationToken,
) {
    loop {
        let changed = tokio::select! {
            changed = ring.changed() => changed.is_ok(),
            () = shutdown.cancelled() => false,
        };
        // A change that arrives with the shutdown is stored, too.
        if changed || ring.has_changed().unwrap_or(false) {
            let Some(keyring) = ring.borrow_and_update().clone() else { continue };
            let text = format!("{BEGAN_WITH}{began}\n{ROTATION}{}\n{}", keyring.rotation(), keyring.to_text());
            block_in_place(|| data_dir.store_keyring(text));
        }
        if !changed {
            return;
        }
    }
}

/// Stores the gossip addresses of peers, so that a restart finds them even if no configured seed answers.
async fn remember_peers(
    data_dir: DataDir,
    mut peers: watch::Receiver<BTreeSet<SocketAddr>>,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            changed = peers.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
        let now: Vec<SocketAddr> = peers.borrow_and_update().iter().copied().collect();
        // Without peers, the stored ones are the only addresses to try.
        if !now.is_empty() {
            block_in_place(|| data_dir.store_peers(&now));
        }
        tokio::select! {
            () = sleep(STORE_AGAIN) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_that_ended_by_itself_is_the_cause() {
        let name = Label::parse("web-1").unwrap();
        let id = PeerId { name: name.clone(), generation: 1 };
        let other = Identity { id, address: "192.0.2.1:7946".parse().unwrap() };
        let keeper = "keyring store";
        let cases = [
            (Some(keeper), Some(End::NameTaken(other)), "NameTaken"),
            (Some(keeper), Some(End::NoGossip("x".to_owned())), "Gossip"),
            (Some(keeper), Some(End::Left), "None"),
            (Some(keeper), Some(End::Stopped), "Ended"),
            (Some(keeper), None, "Ended"),
            (None, Some(End::Stopped), "None"),
            (None, None, "None"),
        ];
        for (first, node, expected) in cases {
            let seen = match failure(&name, first, node.clone()) {
                Some(DaemonError::NameTaken { .. }) => "NameTaken",
                Some(DaemonError::Gossip(_)) => "Gossip",
                Some(DaemonError::Ended(part)) => {
                    assert_eq!(part, keeper);
                    "Ended"
                }
                Some(_) => "another",
                None => "None",
            };
            assert_eq!(seen, expected, "{first:?} {node:?}");
        }
    }
}
