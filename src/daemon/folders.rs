//! Follows the folders whose files are read again when they change: service files, zone files, files with tokens.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Parts;
use crate::{
    diagnostic::Reports,
    files::{contents::Folder, last_good::Reloadable, reload, watch as folder},
    metrics::{self, Folders as Counted},
};

/// What all of them have in common.
pub(super) struct Folders {
    /// Each new value has all files read again.
    pub(super) rescan: watch::Sender<()>,
    /// What the files come to, for people.
    pub(super) reports: watch::Sender<Arc<Reports>>,
    /// Where readings are counted.
    pub(super) metrics: Counted,
    /// The end.
    pub(super) shutdown: CancellationToken,
}

impl Folders {
    /// Loads a folder as it is, then follows it. The names are for the parts that watch it and that read it.
    pub(super) async fn follow<F: Reloadable>(
        &self,
        folder: Folder,
        files: F,
        counted: metrics::Folder,
        [watches, reads]: [&'static str; 2],
        parts: &mut Parts,
    ) -> watch::Receiver<F::Value> {
        let (contents, watching) = folder::spawn(folder, self.rescan.subscribe(), self.shutdown.clone()).await;
        parts.watch(watches, watching);
        let (reports, metrics) = (self.reports.clone(), self.metrics.of(counted));
        let (value, following) = reload::follow(files, contents, reports, metrics, self.shutdown.clone()).await;
        parts.watch(reads, following);
        value
    }
}
