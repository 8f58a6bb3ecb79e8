//! What a scrape reads: the states of all parts, and what they counted.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::VERSION;
use crate::{
    dns::{recursion::cache::Cache, server::connection_quota::ConnectionQuota, zone::Tables},
    gossip::rejected::Rejected,
    metrics::{Metrics, Scrape, Snapshot, process},
    model::{announcement::Announcements, catalog::Catalog, member::Membership, service::Definitions},
};

/// Where the states are.
pub(super) struct Sources {
    /// What all nodes announce.
    pub(super) catalog: watch::Receiver<Catalog>,
    /// What is answered.
    pub(super) tables: Arc<ArcSwap<Tables>>,
    /// Who is in the cluster.
    pub(super) members: watch::Receiver<Arc<Membership>>,
    /// What gossip did not let in.
    pub(super) rejected: Arc<Rejected>,
    /// What this node checks.
    pub(super) definitions: watch::Receiver<Definitions>,
    /// How that stands.
    pub(super) announcements: watch::Receiver<Announcements>,
    /// Replies of upstreams; `None`: nobody may ask for other names.
    pub(super) cache: Option<Arc<Cache>>,
    /// Connections of those who ask for names.
    pub(super) clients: Arc<ConnectionQuota>,
}

impl Sources {
    /// Reads them at each scrape, with what was counted.
    pub(super) fn scrape(self, metrics: Metrics) -> Scrape {
        // The process begins here, as far as anybody can tell.
        let _ = process::read();
        Scrape::new(move || {
            // Clones share structure; a state that is looked at is not held, so that nobody waits to change it.
            let (catalog, members) = (self.catalog.borrow().clone(), self.members.borrow().clone());
            let (definitions, announcements) = (self.definitions.borrow().clone(), self.announcements.borrow().clone());
            metrics.gather(&Snapshot {
                version: VERSION,
                catalog: &catalog,
                serial: self.tables.load().serial(),
                members: &members,
                rejected: self.rejected.all().collect(),
                definitions: &definitions,
                announcements: &announcements,
                cache: self.cache.as_ref().map(|cache| cache.size()),
                dns_connections: self.clients.count(),
                process: process::read(),
            })
        })
    }
}
