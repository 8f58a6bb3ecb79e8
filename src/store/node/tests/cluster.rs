//! A cluster in one process: nodes with a folder each, connected over loopback through links that can be cut.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::super::{Inputs, Settings, run};
use crate::{
    gossip::STORE_PREFIX,
    metrics,
    model::{
        catalog::Catalog,
        keyring::{Key, Keyring},
    },
    store::{
        peers::Addresses,
        request::{Status, Store},
    },
};

/// State of the connections from one node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Link {
    /// Octets pass.
    Open,
    /// Connections are closed and refused.
    Closed,
    /// Octets are lost, connections stay open.
    Silent,
    /// Octets and replies wait, and arrive once the link is open: a node or a path that stalls.
    Stalled,
}

/// A node that runs.
pub(super) struct Running {
    pub(super) store: Store,
    pub(super) metrics: metrics::Store,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    accepting: JoinHandle<()>,
}

/// A cluster of nodes `a`, `b`, `c` and so on.
pub(super) struct Cluster {
    folder: TempDir,
    voters: Vec<String>,
    names: Vec<String>,
    pub(super) running: BTreeMap<String, Running>,
    /// By source and target.
    links: BTreeMap<(String, String), watch::Sender<Link>>,
    addresses: BTreeMap<String, watch::Sender<Arc<Addresses>>>,
    /// Listener of each node behind the links.
    targets: BTreeMap<String, watch::Sender<Option<SocketAddr>>>,
    keyring: watch::Sender<Option<Keyring>>,
    /// Catalog that every node sees.
    pub(super) catalog: watch::Sender<Catalog>,
}

/// Time limit for what happens soon in a working cluster, on a busy machine.
pub(super) const SOON: Duration = Duration::from_secs(60);

impl Cluster {
    /// Starts `voters` voters and `others` further nodes.
    pub(super) async fn start(voters: usize, others: usize) -> Self {
        Self::start_from(voters, others, &[]).await
    }

    /// Starts a cluster as [`start`](Self::start) does, with copies of these folders for nodes.
    pub(super) async fn start_from(voters: usize, others: usize, folders: &[(&str, &Path)]) -> Self {
        let names: Vec<String> = (0..voters + others).map(|at| char::from(b'a' + at as u8).to_string()).collect();
        let key = Key::from_base64("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap();
        let mut cluster = Self {
            folder: tempfile::tempdir().unwrap(),
            voters: names[..voters].to_vec(),
            names: names.clone(),
            running: BTreeMap::new(),
            links: BTreeMap::new(),
            addresses: BTreeMap::new(),
            targets: names.iter().map(|name| (name.clone(), watch::Sender::new(None))).collect(),
            keyring: watch::Sender::new(Some(Keyring::new(key))),
            catalog: watch::Sender::new(Catalog::default()),
        };
        for (name, folder) in folders {
            copy_folder(folder, &cluster.data(name));
        }
        for from in &names {
            let mut addresses = Addresses::new();
            for to in names.iter().filter(|to| *to != from) {
                let link = watch::Sender::new(Link::Open);
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                addresses.insert(to.clone(), listener.local_addr().unwrap());
                tokio::spawn(carry(listener, cluster.targets[to].subscribe(), link.subscribe()));
                cluster.links.insert((from.clone(), to.clone()), link);
            }
            cluster.addresses.insert(from.clone(), watch::Sender::new(Arc::new(addresses)));
        }
        for name in &names {
            cluster.run(name).await;
        }
        cluster
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Names the voters of nodes that start from now on.
    pub(super) fn configure(&mut self, voters: &[&str]) {
        self.voters = voters.iter().map(|&voter| voter.to_owned()).collect();
    }

    /// Folder of a node's log.
    pub(super) fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a node.
    pub(super) async fn run(&mut self, name: &str) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        self.targets[name].send_replace(Some(listener.local_addr().unwrap()));
        let (taker, connections) = mpsc::channel(64);
        let accepting = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let taker = taker.clone();
                tokio::spawn(async move {
                    let mut prefix = [0; STORE_PREFIX.len()];
                    if stream.read_exact(&mut prefix).await.is_ok() && prefix == STORE_PREFIX {
                        let _ = taker.send(stream).await;
                    }
                });
            }
        });
        let (requests, requested) = mpsc::channel(1024);
        let metrics = metrics::Store::default();
        let settings = Settings {
            node: name.to_owned(),
            voters: self.voters.clone(),
            joins: false,
            folder: self.data(name),
            max_octets: 256 << 20,
            metrics: metrics.clone(),
        };
        let inputs = Inputs {
            requests: requested,
            connections,
            keyring: self.keyring.subscribe(),
            addresses: self.addresses[name].subscribe(),
            catalog: self.catalog.subscribe(),
        };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run(settings, inputs, shutdown.clone()));
        let store = Store::new(requests);
        self.running.insert(name.to_owned(), Running { store, metrics, shutdown, task, accepting });
    }

    /// Ends a node as a crash does: the others hear nothing more of it. Its folder stays.
    pub(super) async fn kill(&mut self, name: &str) {
        self.set_links(name, Link::Closed);
        self.stop(name).await;
        self.set_links(name, Link::Open);
    }

    /// Stops a node as an operator does; its folder stays.
    pub(super) async fn stop(&mut self, name: &str) {
        let running = self.running.remove(name).unwrap();
        self.targets[name].send_replace(None);
        running.accepting.abort();
        running.shutdown.cancel();
        timeout(SOON, running.task).await.unwrap().unwrap();
    }

    /// Removes the folder of a stopped node, as a replaced disk does.
    pub(super) fn wipe(&self, name: &str) {
        std::fs::remove_dir_all(self.data(name)).unwrap();
    }

    /// Sets the link from a node to another.
    pub(super) fn set_link(&self, from: &str, to: &str, link: Link) {
        self.links[&(from.to_owned(), to.to_owned())].send_replace(link);
    }

    /// Sets all links from and to a node.
    pub(super) fn set_links(&self, name: &str, link: Link) {
        for ((from, to), sender) in &self.links {
            if from == name || to == name {
                sender.send_replace(link);
            }
        }
    }

    /// Opens all links.
    pub(super) fn heal(&self) {
        for link in self.links.values() {
            link.send_replace(Link::Open);
        }
    }

    pub(super) fn store(&self, name: &str) -> &Store {
        &self.running[name].store
    }

    /// Waits for a state of the cluster, as a running node sees it.
    pub(super) async fn wait_for(&self, what: &str, is_so: impl Fn(&Status) -> bool) -> Status {
        let until = Instant::now() + SOON;
        let mut last = None;
        while Instant::now() < until {
            for running in self.running.values() {
                let status = running.store.status().await.unwrap();
                if is_so(&status) {
                    return status;
                }
                last = Some(status);
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("{what}: not within {SOON:?}; last seen: {last:#?}");
    }

    /// Waits for a leader among the running nodes and returns its name.
    pub(super) async fn leader(&self) -> String {
        let is_running = |name: &String| self.running.contains_key(name);
        let status = self.wait_for("a leader", |status| {
            status.cluster_id != 0
                && status.leader.as_ref().is_some_and(|leader| is_running(leader) && *leader == status.node)
        });
        status.await.leader.unwrap()
    }
}

/// Copies a folder as it is on disk, which may be written at the same time. The log is copied before the snapshot, which then
/// covers all that was removed from the log.
pub(super) fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let mut paths: Vec<_> = std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort_by_key(|path| (!path.is_dir(), path.clone()));
    for path in paths {
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            // A temporary file may be gone.
            let _ = std::fs::copy(&path, &target);
        }
    }
}

/// Carries connections of a link.
async fn carry(listener: TcpListener, target: watch::Receiver<Option<SocketAddr>>, link: watch::Receiver<Link>) {
    while let Ok((stream, _)) = listener.accept().await {
        let to = *target.borrow();
        let state = *link.borrow();
        let Some(to) = to.filter(|_| state != Link::Closed) else { continue };
        let link = link.clone();
        tokio::spawn(async move {
            let Ok(onward) = TcpStream::connect(to).await else { return };
            let (from_read, from_write) = stream.into_split();
            let (to_read, to_write) = onward.into_split();
            let closed = async {
                let _ = link.clone().wait_for(|link| *link == Link::Closed).await;
            };
            tokio::select! {
                () = copy(from_read, to_write, link.clone(), true) => {}
                // Replies come back while requests are lost.
                () = copy(to_read, from_write, link.clone(), false) => {}
                () = closed => {}
            }
        });
    }
}

/// Copies octets while the link is open; keeps them while it is stalled. Loses those of requests while it is silent.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut link: watch::Receiver<Link>, is_request: bool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        let Ok(state) = link.wait_for(|link| *link != Link::Stalled).await.map(|state| *state) else { return };
        if is_request && state == Link::Silent {
            // A lost octet breaks the stream for good, so the rest is lost as well.
            let _ = link.wait_for(|link| *link != Link::Silent).await;
            return;
        }
        if to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
    }
}
