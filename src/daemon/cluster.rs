//! Starts the node in its cluster: keyring, identity, transport, and the state that a restart needs.

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

use super::{Context, DaemonError, Purpose};
use crate::{
    config::{self, Config},
    data_dir,
    gossip::{
        command::Command,
        link,
        message::Identity,
        node::{self, End, Inputs, Outputs, Settings},
        rejected::Rejected,
        seeds::Targets,
        transport::{Sockets, Transport},
    },
    model::{
        announcement::{Announcements, Node},
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
/// Prefix of the line in the stored keyring that names the keys of the key file it started from.
const BEGAN_WITH: &str = "# began with ";

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
}

/// Starts the node.
pub(super) fn start(
    context: &mut Context<'_>,
    sockets: Sockets,
    announcements: watch::Receiver<Announcements>,
) -> Result<Cluster, DaemonError> {
    let config = context.config;
    let shutdown = &context.shutdown;
    let tasks = &mut context.tasks;
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
    let (link, network) = link::pair();
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
    let (commands, ordered) = mpsc::channel(COMMANDS);
    let (events, fired) = watch::channel(EventLog::default());

    let transport =
        Transport::new(own.clone(), ring.clone(), network, rejected.clone()).map_err(|_| DaemonError::NoRandom)?;
    tasks.spawn("gossip transport", transport.counted(context.metrics.gossip.clone()).run(sockets));
    let settings = Settings {
        own: own.clone(),
        node,
        version: super::VERSION.to_owned(),
        ttl: config.dns.ttl,
        cluster: config.domain.to_string(),
        interval: config.gossip.interval,
        hold: config.gossip.hold,
        targets: Targets { configured: config.gossip.join.clone(), remembered: data_dir::load_peers(&config.data_dir) },
        seed: fastrand::u64(..),
    };
    let inputs = Inputs { announcements, link, commands: ordered, rejected: rejected.clone() };
    let outputs = Outputs { view, members, peers, keyring: keys, events };
    let (end, ended) = oneshot::channel();
    let running = node::run(settings, inputs, outputs, shutdown.clone());
    tasks.spawn("cluster node", async move {
        // The receiver is gone if the agent ended first.
        let _ = end.send(running.await);
    });
    tasks.spawn("peer store", remember_peers(config.data_dir.clone(), reached, shutdown.clone()));
    if let config::Seal::KeyFile(path) = &config.gossip.seal {
        let began = began_with(&key_file(path)?);
        tasks.spawn("keyring store", keep_keyring(config.data_dir.clone(), began, ring, shutdown.clone()));
    }
    let address = own.address;
    Ok(Cluster { view: seen, members: membership, events: fired, keyring, commands, ended, address, rejected })
}

/// Returns the error of an agent whose task `first` was the first to end by itself. If the node ended by itself, it is the
/// cause: other tasks end with it and may be noticed first.
pub(super) fn failure(name: &Label, first: Option<&'static str>, node: Option<End>) -> Option<DaemonError> {
    match node {
        Some(End::Left) => None,
        Some(End::NameTaken(by)) => Some(DaemonError::NameTaken { name: name.clone(), by: by.address }),
        Some(End::NoGossip(error)) => Some(DaemonError::Gossip(error)),
        Some(End::Stopped) | None => first.map(DaemonError::Ended),
    }
}

/// Returns the address at which peers reach this node: the listen address or, if that is unspecified, the first advertised
/// address of its family.
fn reachable(listen: IpAddr, advertise: &[IpAddr]) -> IpAddr {
    if !listen.is_unspecified() {
        return listen;
    }
    let fitting = advertise.iter().find(|address| address.is_ipv4() == listen.is_ipv4());
    fitting.copied().unwrap_or(listen)
}

/// Returns the keys to start with: those changed at run time, or those of the key file if it has changed since.
fn keyring(config: &Config) -> Result<Option<Keyring>, DaemonError> {
    let config::Seal::KeyFile(path) = &config.gossip.seal else { return Ok(None) };
    let file = key_file(path)?;
    let Some(stored) = data_dir::load_keyring(&config.data_dir) else { return Ok(Some(file)) };
    let began = stored.lines().find_map(|line| line.strip_prefix(BEGAN_WITH));
    if began != Some(began_with(&file).as_str()) {
        info!(key_file = %path.display(), "the key file has changed; its keys replace the stored keyring");
        return Ok(Some(file));
    }
    match Keyring::parse(&stored) {
        Ok(kept) => Ok(Some(kept)),
        Err(error) => {
            warn!(%error, "cannot read the keyring in data_dir; using the key file");
            Ok(Some(file))
        }
    }
}

fn key_file(path: &Path) -> Result<Keyring, DaemonError> {
    let failed = |error: String| DaemonError::KeyFile { path: path.to_owned(), error };
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    Keyring::parse(&text).map_err(|error| failed(error.to_string()))
}

/// Identifies the content of the key file by key ids, which reveal no key.
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
        // A change that arrives with the shutdown is stored, too.
        if changed || ring.has_changed().unwrap_or(false) {
            let Some(keyring) = ring.borrow_and_update().clone() else { continue };
            let text = format!("{BEGAN_WITH}{began}\n{}", keyring.to_text());
            if let Err(error) = tokio::task::block_in_place(|| data_dir::store_keyring(&data_dir, &text)) {
                warn!(%error, "cannot store the gossip keys; a restart starts with those of gossip.key_file");
            }
        }
        if !changed {
            return;
        }
    }
}

/// Stores the gossip addresses of peers, so that a restart finds them even if no configured seed answers.
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
        // Without peers, the stored ones are the only addresses to try.
        if !now.is_empty()
            && let Err(error) = tokio::task::block_in_place(|| data_dir::store_peers(&data_dir, &now))
        {
            warn!(%error, "cannot store the peers; a restart tries only gossip.join");
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
