//! Gathers metrics at a scrape: the states of all parts, and their counters.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{VERSION, record_counts::RecordCounts};
use crate::{
    dns::{
        recursion::cache::Cache,
        secondary::Copies,
        server::connection_quota::ConnectionQuota,
        zone::{Tables, static_names::Zone},
    },
    gossip::{node::OwnState, rejected::Rejected},
    metrics::{CopyFigures, Metrics, Scrape, Snapshot, ZoneFigures, process},
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
    /// The secondary zones.
    pub(super) copies: watch::Receiver<Copies>,
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
    /// Numbers of records of the zones.
    pub(super) records: Arc<RecordCounts>,
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
                zones: zone_figures(&tables, &self.copies.borrow().clone(), &self.records),
                place: tables.place(),
                nearest: tables.nearest(),
                signed_zones: signed_zones(&tables),
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

/// Returns the figures of all zones, sorted by name.
fn zone_figures(tables: &Tables, copies: &Copies, counts: &RecordCounts) -> Vec<ZoneFigures> {
    let figures = |zone: &Zone| ZoneFigures {
        zone: zone.origin.to_string(),
        serial: tables.serial_of(zone),
        records: counts.recent(tables, zone),
        copy: copies.get(&zone.origin).map(|copy| CopyFigures {
            is_answered: zone.unavailable().is_none(),
            confirmed: copy.confirmed.unwrap_or_default(),
        }),
    };
    let mut all: Vec<ZoneFigures> = tables.zones().map(figures).collect();
    all.sort_by(|a, b| a.zone.cmp(&b.zone));
    all
}

/// Returns the zones that are signed, each with its number of published keys.
fn signed_zones(tables: &Tables) -> Vec<(String, usize)> {
    let signed = tables.zones().filter_map(|zone| Some((zone.origin.to_string(), zone.keys.as_ref()?.published())));
    signed.collect()
}
