//! Loads and follows the folders whose files are read again when they change: service files, zone files, token files.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Context, tasks::Tasks};
use crate::{
    diagnostic::{Diagnostic, Reports},
    files::{
        contents::Folder,
        last_good::{LastValidFile, Reloadable},
        reload::{self, LastValid, Results},
        services::{self, Services},
        watch as folder,
        zones::{self, ZoneFiles, Zones},
    },
    metrics::{self, Folders as Counters},
    model::service::Definitions,
};

/// Time limit for a reread: a folder on a file server may be slow.
const REREAD: Duration = Duration::from_secs(10);

/// The followed folders, and the inputs common to them.
pub(super) struct Folders {
    /// Each new value makes all folders read their files again.
    rescan: watch::Sender<()>,
    followed: Vec<PathBuf>,
    /// Last valid texts of the former start.
    former: Vec<LastValidFile>,
    /// The diagnostics of all files, and the last valid texts of invalid ones.
    results: Results,
    counters: Counters,
    shutdown: CancellationToken,
}

/// The content of the folders that every agent has, always the newest.
pub(super) struct Files {
    /// The definitions of all service files.
    pub(super) services: watch::Receiver<Definitions>,
    /// The records of all zone files.
    pub(super) zones: watch::Receiver<ZoneFiles>,
}

impl Folders {
    /// `reports` keeps the reports of other parts of the agent. Files that are invalid go on with their `former` text.
    pub(super) fn new(context: &Context<'_>, reports: watch::Sender<Arc<Reports>>, former: Vec<LastValidFile>) -> Self {
        let (counters, shutdown) = (context.metrics.folders.clone(), context.shutdown.clone());
        let results = Results { reports, ..Results::default() };
        Self { rescan: watch::Sender::new(()), followed: Vec::new(), former, results, counters, shutdown }
    }

    /// The diagnostics of all files.
    pub(super) fn reports(&self) -> watch::Receiver<Arc<Reports>> {
        self.results.reports.subscribe()
    }

    /// The last valid texts of files that are invalid now.
    pub(super) fn last_valid(&self) -> watch::Receiver<LastValid> {
        self.results.last_valid.subscribe()
    }

    /// The texts of files that are valid now.
    pub(super) fn valid(&self) -> Vec<LastValidFile> {
        self.results.valid.borrow().values().flatten().cloned().collect()
    }

    /// Reads all files again and returns their problems.
    pub(super) async fn reread(&self) -> Vec<Diagnostic> {
        let mut reports = self.reports();
        let reads = |all: &Reports| -> Vec<u64> {
            self.followed.iter().map(|path| all.get(path).map_or(0, |report| report.reads)).collect()
        };
        let before = reads(&reports.borrow());
        self.rescan.send_replace(());
        let read = reports.wait_for(|all| reads(all).iter().zip(&before).all(|(now, before)| now > before));
        // A slow folder reports its problems in `muster status` later.
        let _ = timeout(REREAD, read).await.is_ok();
        self.problems()
    }

    /// The current problems of all files.
    pub(super) fn problems(&self) -> Vec<Diagnostic> {
        let reports = self.results.reports.borrow();
        let followed = self.followed.iter().filter_map(|path| reports.get(path));
        followed.flat_map(|report| report.problems.clone()).collect()
    }

    /// Loads service files and zone files.
    pub(super) async fn load(&mut self, context: &mut Context<'_>) -> Files {
        let config = context.config;
        let files = Services::new(
            config.node.clone(),
            config.advertise.addresses().to_vec(),
            config.checks.allow_exec.in_files(),
        );
        let folder = services::folder(config.services_dir.clone(), config.checks.allow_exec.in_files());
        let names = ["service file watcher", "service file reader"];
        let services = self.follow(folder, files, metrics::Folder::Services, names, &mut context.tasks).await;
        let folder = zones::folder(config.zones_dir.clone());
        let names = ["zone file watcher", "zone file reader"];
        let zones = self
            .follow(folder, Zones::new(config.zone_rules()), metrics::Folder::Zones, names, &mut context.tasks)
            .await;
        Files { services, zones }
    }

    /// Loads a folder, then follows it. `watcher` and `reader` name the two tasks.
    pub(super) async fn follow<F: Reloadable>(
        &mut self,
        folder: Folder,
        files: F,
        counted: metrics::Folder,
        [watcher, reader]: [&'static str; 2],
        tasks: &mut Tasks,
    ) -> watch::Receiver<F::Value> {
        self.followed.push(folder.path.clone());
        let former = self.former.iter().filter(|file| file.path.starts_with(&folder.path)).cloned().collect();
        let (contents, watching) = folder::spawn(folder, self.rescan.subscribe(), self.shutdown.clone()).await;
        tasks.watch(watcher, watching);
        let (results, counters) = (self.results.clone(), self.counters.of(counted));
        let (value, reading) = reload::follow(files, contents, former, results, counters, self.shutdown.clone()).await;
        tasks.watch(reader, reading);
        value
    }
}
