//! The store of this node: one task for the whole life of the process, so that a reload does not cost the store its leader.

use std::{sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Context, cluster::Cluster};
use crate::{
    config::Config,
    metrics,
    model::{catalog::Catalog, keyring::Keyring, member::Membership},
    store::{
        node::{self, Inputs, Settings},
        peers::Addresses,
        request::Store,
    },
};

/// Requests of this node that wait for the store.
const REQUESTS: usize = 1024;
/// Connections of other nodes that wait for the store.
const CONNECTIONS: usize = 64;
/// Time limit for the end of the store.
const END: Duration = Duration::from_secs(3);
/// Name of the store's folder in the data directory.
const FOLDER: &str = "store";

/// The running store.
pub(super) struct RunningStore {
    /// Takes requests.
    pub(super) store: Store,
    /// Takes connections of other nodes, which arrive at the gossip port.
    pub(super) connections: mpsc::Sender<TcpStream>,
    keyring: watch::Sender<Option<Keyring>>,
    addresses: watch::Sender<Arc<Addresses>>,
    catalog: watch::Sender<Catalog>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

/// Starts the store, if the configuration has one.
pub(super) fn start(config: &Config, metrics: metrics::Store) -> Option<RunningStore> {
    let store = config.store.as_ref()?;
    let settings = Settings {
        node: config.node.to_string(),
        voters: store.voters.iter().map(ToString::to_string).collect(),
        joins: !config.gossip.join.is_empty(),
        folder: config.data_dir.join(FOLDER),
        max_octets: store.max_octets,
        metrics,
    };
    let (requests, requested) = mpsc::channel(REQUESTS);
    let (connections, connected) = mpsc::channel(CONNECTIONS);
    let (keyring, keys) = watch::channel(None);
    let (addresses, known) = watch::channel(Arc::default());
    let (catalog, health) = watch::channel(Catalog::default());
    let mut first_keys = keys.clone();
    let inputs =
        Inputs { requests: requested, connections: connected, keyring: keys, addresses: known, catalog: health };
    let shutdown = CancellationToken::new();
    let ended = shutdown.clone();
    let task = tokio::spawn(async move {
        // Earlier, nodes that connect would be told that this one has no keys.
        if let Some(Ok(())) = ended.run_until_cancelled(first_keys.changed()).await {
            node::run(settings, inputs, ended).await;
        }
    });
    Some(RunningStore { store: Store::new(requests), connections, keyring, addresses, catalog, shutdown, task })
}

impl RunningStore {
    /// Passes on what the stages learn of the cluster, until they end.
    pub(super) fn follow(&self, context: &mut Context<'_>, cluster: &Cluster, catalog: watch::Receiver<Catalog>) {
        let (addresses, members) = (self.addresses.clone(), cluster.members.clone());
        let own = context.config.node.to_string();
        let (keyring, keys) = (self.keyring.clone(), cluster.keyring.clone());
        let target = self.catalog.clone();
        let shutdown = context.shutdown.clone();
        context.tasks.spawn("inputs of the store", async move {
            let inputs = async {
                tokio::join!(
                    copy(members, |members| drop(addresses.send_replace(Arc::new(addresses_of(members, &own))))),
                    copy(keys, |keys| drop(keyring.send_replace(keys.clone()))),
                    copy(catalog, |catalog| drop(target.send_replace(catalog.clone()))),
                )
            };
            tokio::select! {
                _ = inputs => shutdown.cancelled().await,
                () = shutdown.cancelled() => {}
            }
        });
    }

    /// Ends the store, within some seconds.
    pub(super) async fn end(self) {
        self.shutdown.cancel();
        if timeout(END, self.task).await.is_err() {
            warn!("the store did not end within {END:?}; going on without it");
        }
    }
}

/// Passes on the current value and each change.
pub(super) async fn copy<T: Clone>(mut from: watch::Receiver<T>, mut to: impl FnMut(&T)) {
    loop {
        let value = from.borrow_and_update().clone();
        to(&value);
        if from.changed().await.is_err() {
            return;
        }
    }
}

/// Returns the addresses of the other nodes.
fn addresses_of(members: &Membership, own: &str) -> Addresses {
    let all = members.members.iter().map(|member| (member.id.name.to_string(), member.address));
    all.filter(|(name, _)| name != own).collect()
}
