//! Gathers metrics at a scrape: the states of all parts, and their counters.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::VERSION;
use crate::{
    dns::{recursion::cache::Cache, server::connection_quota::ConnectionQuota, zone::Tables},
    gossip::{node::OwnState, rejected::Rejected},
    metrics::{Metrics, Scrape, Snapshot, process},
    model::{
        catalog::Catalog,
        member::Membership,
        service::{Check, Definitions},
    },
};

/// The states that a scrape reads.
pub(super) struct Sources {
    /// The announcements of all nodes, by service.
    pub(super) catalog: watch::Receiver<Catalog>,
    /// Snapshot that DNS answers from.
    pub(super) tables: Arc<ArcSwap<Tables>>,
    /// The members.
    pub(super) members: watch::Receiver<Arc<Membership>>,
    /// Counts of rejected gossip.
    pub(super) rejected: Arc<Rejected>,
    /// The services of this node.
    pub(super) definitions: watch::Receiver<Definitions>,
    /// The checks of this node as a whole.
    pub(super) node_checks: watch::Receiver<Arc<[Check]>>,
    /// The health of both.
    pub(super) own: watch::Receiver<OwnState>,
    /// The cache of upstream replies; `None` without a resolver.
    pub(super) cache: Option<Arc<Cache>>,
    /// DNS connections.
    pub(super) clients: Arc<ConnectionQuota>,
}

impl Sources {
    /// Returns a function that reads the states at each scrape.
    pub(super) fn scrape(self, metrics: Metrics) -> Scrape {
        // The first reading fixes the start time of the process.
        let _ = process::read();
        Scrape::new(move || {
            // Clones share structure. Borrowing a state for longer would block its writer.
            let (catalog, members) = (self.catalog.borrow().clone(), self.members.borrow().clone());
            let (definitions, own) = (self.definitions.borrow().clone(), self.own.borrow().clone());
            let tables = self.tables.load();
            let node_checks = self.node_checks.borrow().clone();
            metrics.gather(&Snapshot {
                version: VERSION,
                catalog: &catalog,
                serial: tables.serial(),
                place: tables.place(),
                nearest: tables.nearest(),
                members: &members,
                rejected: self.rejected.all().collect(),
                definitions: &definitions,
                node_checks: &node_checks,
                node_report: own.node_checks.as_deref(),
                announcements: &own.announcements,
                cache: self.cache.as_ref().map(|cache| cache.size()),
                dns_connections: self.clients.count(),
                process: process::read(),
            })
        })
    }
}
