//! Publisher of the DNS tables: the only task that changes them.
//!
//! It receives whole snapshots (the view of all nodes, the zone files), computes the affected names, and publishes new
//! tables. Snapshots that arrive meanwhile are merged: it always proceeds to the latest state.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use imbl::{OrdSet, ordset::DiffItem};
use tokio::{
    sync::watch,
    task::block_in_place,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    transfer::{journal::Journal, primary::Primary},
    zone::{Tables, serial::Serial},
};
use crate::{
    data_dir::DataDir,
    model::{
        catalog::{Catalog, Touched, View},
        name::Label,
        registered_name::RegisteredName,
        zone::ZoneFile,
    },
};

/// Time of a publication from which a pause follows. That of a few changed instances takes less.
const LONG: Duration = Duration::from_millis(5);
/// Longest pause after a publication.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Pause after a publication that took this time. While the state of many nodes arrives, each publication rebuilds most
/// services, so changes that arrive in the pause share the next one.
fn pause_after(took: Duration) -> Duration {
    if took < LONG { Duration::ZERO } else { (2 * took).min(LONGEST_PAUSE) }
}

/// Published tables and their sources.
pub struct Publisher {
    catalog: Catalog,
    shown: watch::Sender<Catalog>,
    zones: Arc<[Arc<ZoneFile>]>,
    tables: Tables,
    published: Arc<ArcSwap<Tables>>,
    previous: Arc<Tables>,
    serial: Serial,
    ceiling: watch::Sender<u32>,
    data_dir: DataDir,
    transfers: Transfers,
    /// True if this node was the primary of the generated zones at the last publication.
    was_primary: bool,
}

/// State that the publisher shares with the servers of transfers, and announces to the peers.
#[derive(Clone, Debug)]
pub struct Transfers {
    /// True if this node serves transfers.
    pub serves: bool,
    /// Changes of the zones, while this node is the primary.
    pub journal: Arc<Mutex<Journal>>,
    /// The primary of the generated zones.
    pub primary: watch::Sender<Primary>,
    /// Serial of the generated zones, for the peers; `None` if this node serves no transfers.
    pub announced: watch::Sender<Option<u32>>,
    /// Notified of each publication.
    pub published: watch::Sender<()>,
}

impl Transfers {
    /// Returns the state of a node that has published nothing.
    pub fn new(serves: bool) -> Self {
        Self {
            serves,
            journal: Arc::default(),
            primary: watch::Sender::new(Primary::elect_alone(serves)),
            announced: watch::Sender::new(None),
            published: watch::Sender::new(()),
        }
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Channels of the latest snapshots.
pub struct Sources {
    /// Announcements of all nodes.
    pub view: watch::Receiver<View>,
    /// Zone files.
    pub zones: watch::Receiver<Arc<[Arc<ZoneFile>]>>,
    /// Bound of the serials of former runs, as peers know it.
    pub former_serial: watch::Receiver<Option<u32>>,
    /// Serials of the generated zones by peer that serves transfers.
    pub zone_serials: watch::Receiver<Arc<BTreeMap<Label, u32>>>,
}

impl Publisher {
    /// Creates a publisher of empty tables and an empty catalog. `data_dir` stores the ceiling of the serial, and `ceiling`
    /// takes it for the peers.
    pub fn new(
        tables: Tables,
        catalog: Catalog,
        serial: Serial,
        ceiling: watch::Sender<u32>,
        data_dir: DataDir,
        transfers: Transfers,
    ) -> Self {
        let previous = Arc::new(tables.clone());
        let published = Arc::new(ArcSwap::new(previous.clone()));
        let shown = watch::Sender::new(catalog.clone());
        Self {
            catalog,
            shown,
            zones: Arc::default(),
            tables,
            published,
            previous,
            serial,
            ceiling,
            data_dir,
            transfers,
            was_primary: false,
        }
    }

    /// Returns the latest tables.
    pub fn published(&self) -> Arc<ArcSwap<Tables>> {
        self.published.clone()
    }

    /// Returns a receiver of the latest catalog.
    pub fn catalog(&self) -> watch::Receiver<Catalog> {
        self.shown.subscribe()
    }

    /// Publishes the part of the view that is this node's, and returns the tables with it. The rest of the view only adds to them.
    pub fn publish_own(&mut self, sources: &Sources, node: &Label) -> Arc<Tables> {
        let own = sources.view.borrow().get(node).map(|own| (node.clone(), own.clone()));
        let touched = self.catalog.update(own.into_iter().collect());
        self.publish_tables(&touched, sources.zones.borrow().clone());
        self.published.load_full()
    }

    /// Publishes the current state of the sources. Replacing a large zone takes long: not for a thread that answers queries.
    pub fn publish(&mut self, sources: &mut Sources) {
        let zones = sources.zones.borrow_and_update().clone();
        let view = sources.view.borrow_and_update().clone();
        // After the view: a peer hands the serial over before its announcements are complete.
        let former = *sources.former_serial.borrow_and_update();
        let continued = former.is_some_and(|former| self.serial.continue_from(former));
        let continued = self.follow_primary(&sources.zone_serials.borrow_and_update().clone()) || continued;
        let before = self.catalog.versions();
        let conflicts = self.catalog.conflicts().clone();
        let touched = self.catalog.update(view);
        log_conflicts(&conflicts, &self.catalog);
        let reports_changed = self.tables.update_reports(&self.catalog, &touched.reports);
        if reports_changed || continued || !touched.is_empty() || zones != self.zones {
            self.publish_tables(&touched, zones);
        }
        // Last, so that a client that sees a change in the catalog gets it by DNS too.
        if self.catalog.versions() != before {
            self.shown.send_replace(self.catalog.clone());
        }
    }

    /// Follows the primary of the generated zones. Returns whether the serial has to be published.
    fn follow_primary(&mut self, peers: &BTreeMap<Label, u32>) -> bool {
        let node = self.tables.node_name();
        let primary = Primary::elect(node, self.transfers.serves, peers);
        let former = self.transfers.primary.borrow().clone();
        let is_behind = primary.take_over(&former, &mut self.serial, peers);
        let is_other = match &primary {
            Primary::Peer(_, serial) => *serial != self.tables.serial(),
            Primary::Own | Primary::Absent => matches!(former, Primary::Peer(..)),
        };
        if primary.name() != former.name() {
            if let Primary::Own | Primary::Peer(..) = primary {
                info!(primary = %primary.name().unwrap_or(node), "primary of the generated zones");
            }
            // Serials of two nodes do not belong to one sequence of contents.
            self.transfers.journal().clear();
        }
        self.transfers.primary.send_replace(primary);
        is_behind || is_other
    }

    fn next_serial(&mut self) -> u32 {
        if let Primary::Peer(_, serial) = &*self.transfers.primary.borrow() {
            return *serial;
        }
        let (serial, ceiling) = self.serial.advance();
        if let Some(ceiling) = ceiling {
            self.data_dir.store_serial(ceiling);
            self.ceiling.send_replace(ceiling);
        }
        serial
    }

    fn publish_tables(&mut self, touched: &Touched, zones: Arc<[Arc<ZoneFile>]>) {
        let has_files = zones != self.zones;
        if has_files {
            self.tables.set_zones(&zones);
            self.zones = zones;
        }
        self.tables.update(&self.catalog, touched);
        let serial = self.next_serial();
        self.tables.set_serial(serial);
        // Query threads release the previous tables at their next query. Kept until the next change, they are freed here
        // instead of on a query thread.
        self.previous = self.published.swap(Arc::new(self.tables.clone()));
        if self.transfers.serves {
            // Zone files have serials of their own, so their changes are kept on every node.
            self.transfers.journal().push(self.previous.clone(), self.was_primary, touched, has_files);
            self.was_primary = *self.transfers.primary.borrow() == Primary::Own;
            self.transfers.announced.send_replace(Some(serial));
        }
        self.transfers.published.send_replace(());
    }

    /// Publishes every change until `shutdown`, then stores the serial. Needs a multi-threaded runtime.
    pub async fn run(mut self, mut sources: Sources, shutdown: CancellationToken) {
        loop {
            let changed = tokio::select! {
                changed = sources.view.changed() => changed,
                changed = sources.zones.changed() => changed,
                changed = sources.former_serial.changed() => changed,
                changed = sources.zone_serials.changed() => changed,
                () = shutdown.cancelled() => break,
            };
            if changed.is_err() {
                break;
            }
            let started = Instant::now();
            block_in_place(|| self.publish(&mut sources));
            let pause = pause_after(started.elapsed());
            if !pause.is_zero() {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = shutdown.cancelled() => break,
                }
            }
        }
        // The node may have ended right after a peer handed the serial over: the next start continues from it.
        if let Some(former) = *sources.former_serial.borrow() {
            self.serial.continue_from(former);
        }
        block_in_place(|| self.data_dir.store_serial(self.serial.current()));
    }
}

/// Logs each conflict of external nodes once when it begins and once when it ends.
fn log_conflicts(before: &OrdSet<RegisteredName>, catalog: &Catalog) {
    for item in before.diff(catalog.conflicts()) {
        match item {
            DiffItem::Add(node) => {
                let owners: Vec<&str> = catalog.claims(node).iter().map(|claim| claim.owner.as_str()).collect();
                let counts = catalog.external(node).map_or("the member", |claim| claim.owner.as_str());
                warn!(%node, owners = owners.join(" "), counts, "conflict: external node is announced more than once");
            }
            DiffItem::Remove(node) => info!(%node, "conflict of an external node has ended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_follow_long_publications_only() {
        let cases = [(0, 0), (4, 0), (5, 10), (100, 200), (400, 500)];
        for (took, expected) in cases {
            assert_eq!(pause_after(Duration::from_millis(took)).as_millis(), expected, "{took} ms");
        }
    }
}
