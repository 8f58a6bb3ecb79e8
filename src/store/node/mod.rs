//! The store's task on each node: takes requests of this node's APIs and of other nodes.
//!
//! ```text
//! requests ─► router ─┬─► local: this node's member, as leader or for a stale read
//!                     └─► peers ─► serve, on a voter ─► local
//! ```

mod answer;
mod describe;
mod exchange;
mod failure;
mod founding;
mod held_answers;
mod interest;
mod leader;
mod local;
mod log_limit;
mod member;
mod membership;
pub(crate) mod recovery;
mod removal;
mod renewal;
mod resignation;
mod role_log;
mod router;
mod serve;
mod space_log;
mod status;
mod succession;
#[cfg(test)]
mod tests;
mod upkeep;

use std::{path::PathBuf, sync::Arc};

use tokio::{
    net::TcpStream,
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use self::{failure::Failure, held_answers::HeldAnswers, member::Node, router::Router, serve::LARGE_ANSWERS};
use super::{
    peers::{self, Addresses, Peers},
    request::Request,
};
use crate::{
    metrics,
    model::{catalog::Catalog, keyring::Keyring},
};

/// Requests of other nodes that wait to be carried out.
const INCOMING: usize = peers::MAX_CALLS;

/// Settings of the store on this node.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this node.
    pub node: String,
    /// Names of the first voters.
    pub voters: Vec<String>,
    /// True if the node joins others at its start: it may be new in a cluster that has a store.
    pub joins: bool,
    /// Folder of the log and the snapshot.
    pub folder: PathBuf,
    /// Octets of keys, values, sessions and leases from which writes are refused.
    pub max_octets: u64,
    /// Metrics of the store.
    pub metrics: metrics::Store,
}

/// Inputs of the store's task.
#[derive(Debug)]
pub struct Inputs {
    /// Requests of this node.
    pub requests: mpsc::Receiver<Request>,
    /// Connections of other nodes.
    pub connections: mpsc::Receiver<TcpStream>,
    /// Keys that connections are sealed with; `None` without encryption.
    pub keyring: watch::Receiver<Option<Keyring>>,
    /// Addresses of the other nodes.
    pub addresses: watch::Receiver<Arc<Addresses>>,
    /// Nodes and checks that sessions are bound to.
    pub catalog: watch::Receiver<Catalog>,
}

/// Runs the store on this node until shutdown. A leader lets another voter take over before it ends.
pub async fn run(settings: Settings, inputs: Inputs, shutdown: CancellationToken) {
    let Settings { node: own, voters, joins, folder, max_octets, metrics } = settings;
    let Inputs { mut requests, connections, keyring, addresses, catalog } = inputs;
    let own: Arc<str> = own.into();
    let peers = Peers::new(own.to_string(), keyring.clone(), addresses);
    let (incoming, mut arrived) = mpsc::channel(INCOMING);
    let (local, member) = watch::channel(None);
    // Not with the shutdown: the next leader needs the vote of this node.
    let ended = CancellationToken::new();
    let node = Node {
        own: own.clone(),
        joins,
        folder: folder.into(),
        max_octets,
        metrics,
        peers: peers.clone(),
        catalog,
        local: Arc::new(local),
        starting: Arc::default(),
        large_answers: Arc::new(Semaphore::new(LARGE_ANSWERS)),
        failure: Failure::default(),
        shutdown: ended.clone(),
    };
    let router = Router {
        own: own.clone(),
        voters: voters.clone().into(),
        peers,
        local: member,
        failure: node.failure.clone(),
        held_answers: HeldAnswers::new(),
        known: Arc::default(),
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(peers::serve(connections, keyring, own.to_string(), incoming, ended.clone()));
    tasks.spawn(upkeep::run(node.clone(), voters));
    tasks.spawn(router.clone().follow_members());
    let resigned = async {
        shutdown.cancelled().await;
        node.resign().await;
    };
    tokio::pin!(resigned);
    loop {
        tokio::select! {
            request = requests.recv() => match request {
                Some(request) => drop(tokio::spawn(router.clone().carry_out(request))),
                None => break,
            },
            Some(incoming) = arrived.recv() => drop(tokio::spawn(serve::serve(node.clone(), incoming))),
            () = &mut resigned => break,
        }
    }
    ended.cancel();
    tasks.shutdown().await;
    node.end().await;
}
