//! From what is known to what is answered: the one task that changes the tables.
//!
//! It takes whole-state snapshots (the view of all nodes, the zone files), works out what they touch, and publishes new
//! tables. Snapshots that arrive while it works are taken together: it always goes to the newest state.

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use tokio::{sync::watch, task::block_in_place};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::zone::{Tables, serial::Serial};
use crate::{
    data_dir,
    files::zone_file::ZoneFile,
    model::catalog::{Catalog, Touched, View},
};

/// What is published, and what it is made of.
pub struct Publisher {
    catalog: Catalog,
    shown: watch::Sender<Catalog>,
    zones: Arc<[Arc<ZoneFile>]>,
    tables: Tables,
    published: Arc<ArcSwap<Tables>>,
    previous: Arc<Tables>,
    serial: Serial,
    data_dir: PathBuf,
}

/// Where the newest states come from.
pub struct Sources {
    /// What every node announces.
    pub view: watch::Receiver<View>,
    /// All zone files.
    pub zones: watch::Receiver<Arc<[Arc<ZoneFile>]>>,
}

impl Publisher {
    /// A publisher of tables that are still empty; `data_dir` keeps the serial's ceiling.
    /// The versions of its catalog begin at `version`.
    pub fn new(tables: Tables, serial: Serial, data_dir: PathBuf, version: u64) -> Self {
        let previous = Arc::new(tables.clone());
        let published = Arc::new(ArcSwap::new(previous.clone()));
        let catalog = Catalog::starting_at(version);
        let shown = watch::Sender::new(catalog.clone());
        Self { catalog, shown, zones: Arc::default(), tables, published, previous, serial, data_dir }
    }

    /// What is answered, always the newest.
    pub fn published(&self) -> Arc<ArcSwap<Tables>> {
        self.published.clone()
    }

    /// What is known of all services, always the newest.
    pub fn catalog(&self) -> watch::Receiver<Catalog> {
        self.shown.subscribe()
    }

    /// Takes over the sources as they are now. May take long, when a large zone is replaced: not for a thread that
    /// answers questions.
    pub fn publish(&mut self, sources: &mut Sources) {
        let zones = sources.zones.borrow_and_update().clone();
        let view = sources.view.borrow_and_update().clone();
        let before = self.catalog.versions();
        let touched = self.catalog.update(view);
        let told = self.tables.update_reports(&self.catalog, &touched.reports);
        if told || !touched.is_empty() || zones != self.zones {
            self.publish_tables(&touched, zones);
        }
        // Last: whoever sees a change here and asks by DNS is answered accordingly.
        if self.catalog.versions() != before {
            self.shown.send_replace(self.catalog.clone());
        }
    }

    fn publish_tables(&mut self, touched: &Touched, zones: Arc<[Arc<ZoneFile>]>) {
        if zones != self.zones {
            self.tables.set_zones(&zones);
            self.zones = zones;
        }
        self.tables.update(&self.catalog, touched);
        let (serial, ceiling) = self.serial.advance();
        if let Some(ceiling) = ceiling {
            self.store(ceiling);
        }
        self.tables.set_serial(serial);
        // Those who answer let go of the tables before at their next query; whoever is last takes them apart. Held
        // until the next change, that is done here.
        self.previous = self.published.swap(Arc::new(self.tables.clone()));
    }

    /// Publishes every change until `shutdown`, and stores where the serial stands. Needs a runtime with several threads.
    pub async fn run(mut self, mut sources: Sources, shutdown: CancellationToken) {
        loop {
            let changed = tokio::select! {
                changed = sources.view.changed() => changed,
                changed = sources.zones.changed() => changed,
                () = shutdown.cancelled() => break,
            };
            if changed.is_err() {
                break;
            }
            block_in_place(|| self.publish(&mut sources));
        }
        block_in_place(|| self.store(self.serial.current()));
    }

    fn store(&self, ceiling: u32) {
        if let Err(error) = data_dir::store_serial(&self.data_dir, ceiling) {
            let path = self.data_dir.display();
            warn!(%error, %path, "cannot keep the zone's serial: after a restart it may go back");
        }
    }
}
