//! Loads and follows the folders whose files are read again when they change: service files, zone files, token files.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Context, tasks::Tasks};
use crate::{
    diagnostic::Reports,
    files::{
        contents::Folder,
        last_good::Reloadable,
        reload,
        services::{self, Services},
        watch as folder,
        zones::{self, Rules, ZoneFiles, Zones},
    },
    metrics::{self, Folders as Counters},
    model::service::Definitions,
};

/// Inputs common to all folders.
pub(super) struct Folders {
    /// Each new value makes all folders read their files again.
    rescan: watch::Sender<()>,
    /// The diagnostics of all files.
    pub(super) reports: watch::Sender<Arc<Reports>>,
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
    pub(super) fn new(context: &Context<'_>, rescan: watch::Sender<()>) -> Self {
        let (counters, shutdown) = (context.metrics.folders.clone(), context.shutdown.clone());
        Self { rescan, reports: watch::Sender::default(), counters, shutdown }
    }

    /// Loads service files and zone files.
    pub(super) async fn load(&self, context: &mut Context<'_>) -> Files {
        let config = context.config;
        let files = Services::new(config.node.clone(), config.advertise.clone(), config.checks.allow_exec);
        let folder = services::folder(config.services_dir.clone());
        let names = ["service file watcher", "service file reader"];
        let services = self.follow(folder, files, metrics::Folder::Services, names, &mut context.tasks).await;
        let rules = Rules { domain: config.domain.clone(), aliases: config.alias_domains.clone(), ttl: config.dns.ttl };
        let folder = zones::folder(config.zones_dir.clone());
        let names = ["zone file watcher", "zone file reader"];
        let zones = self.follow(folder, Zones::new(rules), metrics::Folder::Zones, names, &mut context.tasks).await;
        Files { services, zones }
    }

    /// Loads a folder, then follows it. `watcher` and `reader` name the two tasks.
    pub(super) async fn follow<F: Reloadable>(
        &self,
        folder: Folder,
        files: F,
        counted: metrics::Folder,
        [watcher, reader]: [&'static str; 2],
        tasks: &mut Tasks,
    ) -> watch::Receiver<F::Value> {
        let (contents, watching) = folder::spawn(folder, self.rescan.subscribe(), self.shutdown.clone()).await;
        tasks.watch(watcher, watching);
        let (reports, counters) = (self.reports.clone(), self.counters.of(counted));
        let (value, reading) = reload::follow(files, contents, reports, counters, self.shutdown.clone()).await;
        tasks.watch(reader, reading);
        value
    }
}
