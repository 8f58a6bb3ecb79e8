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
    dnssec::zone_keys::SignedZones,
    transfer::{journal::Journal, primary::Primary, static_changes::NotRaised},
    zone::{
        Tables,
        serial::{Serial, is_later},
    },
};
use crate::{
    data_dir::DataDir,
    model::{
        catalog::{Catalog, Touched, View},
        name::{Label, Name},
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
    keys: Arc<SignedZones>,
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

    /// Returns the state of a start that continues a run. `peers` are the serials that the former start knew. The announcement is
    /// there from the beginning, so that no peer takes over meanwhile.
    pub fn continuing(serves: bool, node: &Label, peers: &BTreeMap<Label, u32>, own: &Serial) -> Self {
        let primary = Primary::elect(node, serves, peers);
        let serial = match &primary {
            Primary::Peer(_, serial) => *serial,
            Primary::Own | Primary::Absent => own.current(),
        };
        Self {
            primary: watch::Sender::new(primary),
            announced: watch::Sender::new(serves.then_some(serial)),
            ..Self::new(serves)
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
    /// Keys of signed zones.
    pub keys: watch::Receiver<Arc<SignedZones>>,
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
            keys: Arc::default(),
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
        self.publish_tables(&touched, sources.zones.borrow().clone(), sources.keys.borrow().clone(), true);
        self.published.load_full()
    }

    /// Publishes the current state of the sources. Replacing a large zone takes long: not for a thread that answers queries.
    pub fn publish(&mut self, sources: &mut Sources) {
        let zones = sources.zones.borrow_and_update().clone();
        let keys = sources.keys.borrow_and_update().clone();
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
        let is_generated = |file: &&Arc<ZoneFile>| self.tables.discovery_zones().any(|zone| *zone == file.origin);
        let (former, new) = (self.zones.iter().filter(is_generated), zones.iter().filter(is_generated));
        // Other zones have serials of their own.
        let is_first = self.tables.serial() == 0;
        let has_new_content = !former.eq(new) || !self.zones_inside(&self.zones).eq(self.zones_inside(&zones));
        let needs_serial =
            is_first || reports_changed || continued || !touched.is_empty() || keys != self.keys || has_new_content;
        if needs_serial || is_changed(&self.zones, &zones) {
            self.publish_tables(&touched, zones, keys, needs_serial);
        }
        // Last, so that a client that sees a change in the catalog gets it by DNS too.
        if self.catalog.versions() != before {
            self.shown.send_replace(self.catalog.clone());
        }
    }

    /// Returns the names of the zones that hide names of the discovery zones.
    fn zones_inside<'z>(&'z self, zones: &'z [Arc<ZoneFile>]) -> impl Iterator<Item = &'z Name> {
        let is_inside = |name: &&Name| self.tables.discovery_zones().any(|zone| name.within(zone).is_some());
        zones.iter().map(|file| &file.origin).filter(is_inside)
    }

    /// Follows the primary of the generated zones. Returns whether the serial has to be published.
    fn follow_primary(&mut self, peers: &BTreeMap<Label, u32>) -> bool {
        let node = self.tables.node_name();
        let primary = Primary::elect(node, self.transfers.serves, peers);
        let former = self.transfers.primary.borrow().clone();
        let is_behind = primary.take_over(&former, &mut self.serial, peers);
        let is_other = match &primary {
            Primary::Peer(_, serial) => self.tables.serial() == 0 || is_later(*serial, self.tables.serial()),
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
        let primary = self.transfers.primary.borrow().clone();
        let (serial, ceiling) = primary.next_serial(self.tables.serial(), &mut self.serial);
        if let Some(ceiling) = ceiling {
            self.data_dir.store_serial(ceiling);
            self.ceiling.send_replace(ceiling);
        }
        serial
    }

    /// Publishes the tables, with a new serial of the generated zones if they may have changed.
    fn publish_tables(
        &mut self,
        touched: &Touched,
        zones: Arc<[Arc<ZoneFile>]>,
        keys: Arc<SignedZones>,
        needs_serial: bool,
    ) {
        let has_keys = keys != self.keys;
        if has_keys {
            self.tables.set_keys(keys.clone());
            self.keys = keys;
        }
        let has_files = is_changed(&self.zones, &zones);
        if has_files {
            self.tables.update_zones(&self.zones, &zones);
            self.zones = zones;
        }
        if has_files || has_keys {
            log_other_signers(&self.tables, &self.keys);
        }
        self.tables.update(&self.catalog, touched);
        let serial = if needs_serial { self.next_serial() } else { self.tables.serial() };
        self.tables.set_serial(serial);
        if self.transfers.serves {
            // Before the tables: a server that reads tables finds the changes that led to them in the journal.
            self.note_changes(touched, has_files);
        }
        // Query threads release the previous tables at their next query. Kept until the next change, they are freed here
        // instead of on a query thread.
        self.previous = self.published.swap(Arc::new(self.tables.clone()));
        if self.transfers.serves {
            self.transfers.announced.send_replace(Some(serial));
        }
        self.transfers.published.send_replace(());
    }

    /// Adds the changes since the last publication to the journal.
    fn note_changes(&mut self, touched: &Touched, has_files: bool) {
        // Zone files have serials of their own, so their changes are kept on every node.
        let services = self.tables.affected_services(&self.catalog, touched).into_iter().cloned().collect();
        let touched = Touched { services, ..touched.clone() };
        let before = self.published.load_full();
        let not_raised = self.transfers.journal().push(&before, &self.tables, self.was_primary, touched, has_files);
        log_not_raised(&not_raised);
        self.was_primary = *self.transfers.primary.borrow() == Primary::Own;
    }

    /// Publishes every change until `shutdown`, then stores the serial. Needs a multi-threaded runtime.
    pub async fn run(mut self, mut sources: Sources, shutdown: CancellationToken) {
        loop {
            let changed = tokio::select! {
                changed = sources.view.changed() => changed,
                changed = sources.zones.changed() => changed,
                changed = sources.former_serial.changed() => changed,
                changed = sources.zone_serials.changed() => changed,
                changed = sources.keys.changed() => changed,
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

/// Reports whether zones differ. Most are the same values, which are not compared record by record.
fn is_changed(former: &[Arc<ZoneFile>], zones: &[Arc<ZoneFile>]) -> bool {
    former.len() != zones.len() || former.iter().zip(zones).any(|(a, b)| !Arc::ptr_eq(a, b) && a != b)
}

/// Logs zones with keys whose files have signatures already.
fn log_other_signers(tables: &Tables, keys: &SignedZones) {
    for zone in tables.zones().filter(|zone| keys.contains_key(&zone.origin) && zone.presigned().is_some()) {
        warn!(zone = %zone.origin, "the keys of the zone are not used: its file has the signatures of another tool");
    }
}

/// Logs zone files that were changed without a later serial.
fn log_not_raised(zones: &[NotRaised]) {
    for NotRaised { zone, former, serial, .. } in zones.iter().filter(|zone| zone.is_file) {
        let serial = serial.unwrap_or(*former);
        warn!(
            %zone, former, serial,
            "the content of the zone file changed and its serial did not rise: secondaries keep the former content; set a serial \
             later than all former ones"
        );
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
    use std::thread;

    use super::*;
    use crate::{
        dns::zone::Settings,
        model::{
            name::label,
            zone::{Source, StaticRecord, with_serial},
        },
    };

    /// A secondary that received differences without the newest change would lack it for good.
    #[test]
    fn differences_to_published_tables_have_all_changes() {
        const CHANGES: u32 = 500;
        let folder = tempfile::tempdir().unwrap();
        let tables = Tables::new(Settings::new(label("a"), label("dc1"), Name::parse("service.local").unwrap()));
        let mut publisher = Publisher::new(
            tables,
            Catalog::default(),
            Serial::resume(None, 100),
            watch::Sender::new(0),
            DataDir::new(folder.path().to_owned()),
            Transfers::new(true),
        );
        let (published, journal) = (publisher.published(), publisher.transfers.journal.clone());
        // Each change adds a record.
        let publishing = thread::spawn(move || {
            let mut hosts = Vec::new();
            for serial in 1..=CHANGES {
                let mut zone = with_serial("example.org", serial, Source::Updates);
                let owner = zone.origin.prepend([format!("h{serial}").as_bytes()]).unwrap();
                hosts.push(StaticRecord { owner, rtype: 1, ttl: 60, rdata: vec![192, 0, 2, 1], line: 1, column: 1 });
                zone.records.extend(hosts.iter().cloned());
                let keys = publisher.keys.clone();
                publisher.publish_tables(&Touched::default(), [Arc::new(zone)].into(), keys, false);
            }
        });
        let mut former = None;
        while former != Some(CHANGES) {
            let tables = published.load_full();
            let Some(zone) = tables.zone_named(b"\x07example\x03org\0") else { continue };
            let serial = tables.serial_of(zone);
            let journal = journal.lock().unwrap().clone();
            if let Some(former) = former.filter(|former| is_later(serial, *former)) {
                let found = journal.differences(&tables, zone, former).expect("the journal knows the former serial");
                assert_eq!(found.added.len() as u32, serial - former, "from {former} to {serial}");
            }
            former = Some(serial);
        }
        publishing.join().unwrap();
    }

    #[test]
    fn start_that_continues_a_run_has_the_primary_of_the_former_start() {
        let own = Serial::resume(Some(900), 100);
        let a = || Primary::Peer(label("a"), 7);
        let cases = [
            (true, &[("a", 7), ("c", 9)][..], a(), Some(7)),
            (true, &[("c", 9)], Primary::Own, Some(900)),
            (true, &[], Primary::Own, Some(900)),
            (false, &[("a", 7)], a(), None),
            (false, &[], Primary::Absent, None),
        ];
        for (serves, peers, expected, announced) in cases {
            let peers = peers.iter().map(|(name, serial)| (label(name), *serial)).collect();
            let transfers = Transfers::continuing(serves, &label("b"), &peers, &own);
            let found = (transfers.primary.borrow().clone(), *transfers.announced.borrow());
            assert_eq!(found, (expected, announced), "{serves} {peers:?}");
        }
    }

    #[test]
    fn pauses_follow_long_publications_only() {
        let cases = [(0, 0), (4, 0), (5, 10), (100, 200), (400, 500)];
        for (took, expected) in cases {
            assert_eq!(pause_after(Duration::from_millis(took)).as_millis(), expected, "{took} ms");
        }
    }
}
