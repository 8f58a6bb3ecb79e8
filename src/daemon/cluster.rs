//! Wires the cluster: the keys, who we are, the sockets, the node, and what of it outlives a restart.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{DaemonError, Parts, Purpose};
use crate::{
    config::{self, Config},
    data_dir,
    gossip::{
        channel,
        message::Identity,
        node::{self, Command, End, Inputs, Outputs, Settings},
        rejected::Rejected,
        seeds::Targets,
        transport::{Sockets, Wire},
    },
    metrics::Gossip,
    model::{
        announcement::{Announcements, Node},
        catalog::View,
        keyring::Keyring,
        member::{Membership, PeerId},
        name::Label,
        user_event::EventLog,
    },
};

/// From storing the peers to storing them again: a cluster that starts changes them hundreds of times.
const STORE_AGAIN: Duration = Duration::from_secs(5);
/// Orders that wait: operators give one after the other.
const ORDERS: usize = 16;
/// What marks, in the stored keyring, the keys of the file that it began with.
const BEGAN_WITH: &str = "# began with ";

/// What the rest of the agent sees of the cluster.
pub(super) struct Cluster {
    /// Every node that is answered, and what it announces.
    pub(super) view: watch::Receiver<View>,
    /// Who is in the cluster.
    pub(super) members: watch::Receiver<Arc<Membership>>,
    /// User events that were meant for this node.
    pub(super) events: watch::Receiver<EventLog>,
    /// The gossip keys; `None` while nothing is sealed.
    pub(super) keyring: watch::Receiver<Option<Keyring>>,
    /// For what operators ask.
    pub(super) orders: mpsc::Sender<Command>,
    /// Why the node has ended.
    pub(super) ended: oneshot::Receiver<End>,
    /// Where others reach us.
    pub(super) address: SocketAddr,
    /// What gossip did not let in.
    pub(super) rejected: Arc<Rejected>,
}

/// Binds the sockets of gossip.
pub(super) fn bind(config: &Config) -> Result<Sockets, DaemonError> {
    let address = config.gossip.listen;
    let failed = |error| DaemonError::Listen { purpose: Purpose::Gossip, address, error };
    let sockets = super::try_ports(address, Sockets::bind).map_err(failed)?;
    let local = sockets.local_addr().map_err(failed)?;
    info!(address = %local, "listening for gossip over UDP and TCP");
    Ok(sockets)
}

/// Starts to take part.
pub(super) fn start(
    config: &Config,
    sockets: Sockets,
    announcements: watch::Receiver<Announcements>,
    metrics: Gossip,
    parts: &mut Parts,
    shutdown: &CancellationToken,
) -> Result<Cluster, DaemonError> {
    let data = |error| DaemonError::DataDir { path: config.data_dir.clone(), error };
    let listen = config.gossip.listen;
    let local = sockets.local_addr().map_err(|error| DaemonError::Listen {
        purpose: Purpose::Gossip,
        address: listen,
        error,
    })?;
    let generation = data_dir::next_generation(&config.data_dir).map_err(data)?;
    let own = Identity {
        id: PeerId { name: config.node.clone(), generation },
        address: SocketAddr::new(reachable(local.ip(), &config.advertise), local.port()),
    };
    let keyring = keyring(config)?;
    let (link, network) = channel::pair();
    let rejected = Arc::new(Rejected::default());
    let node = Arc::new(Node {
        name: config.node.clone(),
        addresses: config.advertise.clone(),
        datacenter: config.datacenter.clone(),
        meta: config.meta.clone(),
    });
    let (view, seen) = watch::channel(node::alone(&node, &announcements.borrow()));
    let (members, membership) = watch::channel(Arc::default());
    let (peers, reached) = watch::channel(BTreeSet::new());
    let (keys, ring) = watch::channel(keyring);
    let keyring = ring.clone();
    let (orders, ordered) = mpsc::channel(ORDERS);
    let (events, fired) = watch::channel(EventLog::default());

    let wire = Wire::new(own.clone(), ring.clone(), network, rejected.clone()).map_err(|_| DaemonError::NoRandom)?;
    parts.spawn("carries gossip", wire.counted(metrics).run(sockets));
    let settings = Settings {
        own: own.clone(),
        node,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ttl: config.dns.ttl,
        cluster: config.domain.to_string(),
        interval: config.gossip.interval,
        hold: config.gossip.hold,
        targets: Targets { configured: config.gossip.join.clone(), remembered: data_dir::load_peers(&config.data_dir) },
        seed: fastrand::u64(..),
    };
    let inputs = Inputs { announcements, link, orders: ordered, rejected: rejected.clone() };
    let outputs = Outputs { view, members, peers, keyring: keys, events };
    let (end, ended) = oneshot::channel();
    let running = node::run(settings, inputs, outputs, shutdown.clone());
    parts.spawn("takes part in the cluster", async move {
        // The agent has ended before, if nobody wants to know.
        let _ = end.send(running.await);
    });
    parts.spawn("remembers the peers", remember_peers(config.data_dir.clone(), reached, shutdown.clone()));
    if let config::Seal::KeyFile(path) = &config.gossip.seal {
        let began = began_with(&key_file(path)?);
        parts.spawn("keeps the keyring", keep_keyring(config.data_dir.clone(), began, ring, shutdown.clone()));
    }
    let address = own.address;
    Ok(Cluster { view: seen, members: membership, events: fired, keyring, orders, ended, address, rejected })
}

/// What an end of the agent was, whose part `first` was the first that was seen to end by itself. Where the node ended by
/// itself it is the cause: other parts end with it, and may be seen first.
pub(super) fn failure(name: &Label, first: Option<&'static str>, node: Option<End>) -> Option<DaemonError> {
    match node {
        Some(End::Left) => None,
        Some(End::NameTaken(by)) => Some(DaemonError::NameTaken { name: name.clone(), by: by.address }),
        Some(End::NoGossip(error)) => Some(DaemonError::Gossip(error)),
        Some(End::Stopped) | None => first.map(DaemonError::Ended),
    }
}

/// The address that others reach us at: the one that is listened on or, where that is any, the first that is advertised.
fn reachable(listen: IpAddr, advertise: &[IpAddr]) -> IpAddr {
    if !listen.is_unspecified() {
        return listen;
    }
    let fitting = advertise.iter().find(|address| address.is_ipv4() == listen.is_ipv4());
    fitting.copied().unwrap_or(listen)
}

/// The keys to begin with: those that were changed at run time, unless the key file has been changed since; then its own.
fn keyring(config: &Config) -> Result<Option<Keyring>, DaemonError> {
    let config::Seal::KeyFile(path) = &config.gossip.seal else { return Ok(None) };
    let file = key_file(path)?;
    let Some(stored) = data_dir::load_keyring(&config.data_dir) else { return Ok(Some(file)) };
    let began = stored.lines().find_map(|line| line.strip_prefix(BEGAN_WITH));
    if began != Some(began_with(&file).as_str()) {
        info!(key_file = %path.display(), "the key file has changed: its keys replace those that were kept");
        return Ok(Some(file));
    }
    match Keyring::parse(&stored) {
        Ok(kept) => Ok(Some(kept)),
        Err(error) => {
            warn!(%error, "the keyring in data_dir cannot be read: the key file's keys are used");
            Ok(Some(file))
        }
    }
}

fn key_file(path: &Path) -> Result<Keyring, DaemonError> {
    let failed = |error: String| DaemonError::KeyFile { path: path.to_owned(), error };
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    Keyring::parse(&text).map_err(|error| failed(error.to_string()))
}

/// What tells one content of the key file from another; gives no key away.
fn began_with(file: &Keyring) -> String {
    let ids: Vec<String> = file.iter().map(|key| key.id().to_string()).collect();
    ids.join(" ")
}

async fn keep_keyring(
    data_dir: std::path::PathBuf,
    began: String,
    mut ring: watch::Receiver<Option<Keyring>>,
    shutdown: CancellationToken,
) {
    loop {
        let changed = tokio::select! {
            changed = ring.changed() => changed.is_ok(),
            () = shutdown.cancelled() => false,
        };
        // What came with the end is stored as well.
        if changed || ring.has_changed().unwrap_or(false) {
            let Some(keyring) = ring.borrow_and_update().clone() else { continue };
            let text = format!("{BEGAN_WITH}{began}\n{}", keyring.to_text());
            if let Err(error) = tokio::task::block_in_place(|| data_dir::store_keyring(&data_dir, &text)) {
                warn!(%error, "cannot keep the gossip keys: a restart begins with those of gossip.key_file again");
            }
        }
        if !changed {
            return;
        }
    }
}

/// Stores where peers gossip, so that a restart finds them without anybody that the configuration names.
async fn remember_peers(
    data_dir: std::path::PathBuf,
    mut peers: watch::Receiver<BTreeSet<SocketAddr>>,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            changed = peers.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
        let now: Vec<SocketAddr> = peers.borrow_and_update().iter().copied().collect();
        // Alone, the peers of before are what there is to try.
        if !now.is_empty()
            && let Err(error) = tokio::task::block_in_place(|| data_dir::store_peers(&data_dir, &now))
        {
            warn!(%error, "cannot remember the peers: after a restart only gossip.join is tried");
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
    fn where_the_node_ends_by_itself_what_ends_with_it_is_no_defect() {
        let name = Label::parse("web-1").unwrap();
        let id = PeerId { name: name.clone(), generation: 1 };
        let other = Identity { id, address: "192.0.2.1:7946".parse().unwrap() };
        let keeper = "keeps the keyring";
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
