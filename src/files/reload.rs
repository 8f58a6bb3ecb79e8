//! Follows the contents of a folder: parses changes, publishes the new value, and reports, logs and counts problems.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    contents::Contents,
    last_good::{LastValidFile, LastValidTexts, Loaded, Reloadable},
};
use crate::{
    diagnostic::{Diagnostic, DiagnosticChanges, FolderReport, Reports},
    metrics::Watched,
    printable,
};

/// Last valid texts of files, by folder.
pub type LastValid = BTreeMap<PathBuf, Vec<LastValidFile>>;

/// Results for other parts of the agent, by folder.
#[derive(Clone, Default)]
pub struct Results {
    /// Problems, for `muster status`.
    pub reports: watch::Sender<Arc<Reports>>,
    /// Last valid texts of files that are invalid, for every next start.
    pub last_valid: watch::Sender<LastValid>,
    /// Texts of files that are valid, for a start with another configuration, which may refuse them.
    pub valid: watch::Sender<LastValid>,
}

/// Loads the folder, then follows it until `shutdown`. Files that are invalid now have the value of their `former` text.
pub async fn follow<F: Reloadable>(
    mut folder: F,
    mut contents: watch::Receiver<Contents>,
    former: Vec<LastValidFile>,
    results: Results,
    metrics: Watched,
    shutdown: CancellationToken,
) -> (watch::Receiver<F::Value>, JoinHandle<()>) {
    let now = contents.borrow_and_update().clone();
    folder.restore(former);
    let mut loaded = folder.load(&now);
    count(&metrics, &loaded.problems);
    log(&[], &loaded.problems);
    results.publish(&now.folder, &mut loaded);
    let mut known = loaded.problems;
    let (sender, receiver) = watch::channel(loaded.value);
    let task = tokio::spawn(async move {
        loop {
            let changed = tokio::select! {
                changed = contents.changed() => changed.is_ok(),
                () = shutdown.cancelled() => false,
            };
            if !changed {
                return;
            }
            let now = contents.borrow_and_update().clone();
            let path = now.folder.clone();
            // A thousand files take milliseconds to parse: keep that off the threads that answer queries.
            let Ok((state, mut loaded)) = spawn_blocking(move || {
                let loaded = folder.load(&now);
                (folder, loaded)
            })
            .await
            else {
                return;
            };
            folder = state;
            info!(path = %printable::path(&path), "files reloaded: {} in use", loaded.summary);
            count(&metrics, &loaded.problems);
            log(&known, &loaded.problems);
            results.publish(&path, &mut loaded);
            known = loaded.problems;
            sender.send_replace(loaded.value);
        }
    });
    (receiver, task)
}

/// Logs problems that appeared and files whose problems are resolved.
fn log(before: &[Diagnostic], now: &[Diagnostic]) {
    let changes = DiagnosticChanges::between(before, now);
    for problem in &changes.appeared {
        warn!(path = %printable::path(&problem.path), "{problem}");
    }
    for path in &changes.fixed {
        info!(path = %printable::path(path), "all problems resolved");
    }
}

impl Results {
    fn publish<V>(&self, folder: &Path, loaded: &mut Loaded<V>) {
        self.reports.send_modify(|all| {
            let report = Arc::make_mut(all).entry(folder.to_owned()).or_default();
            let (in_service, problems) = (loaded.summary.clone(), loaded.problems.clone());
            *report = FolderReport { in_service, problems, reads: report.reads + 1 };
        });
        let LastValidTexts { of_valid, of_invalid: now } = std::mem::take(&mut loaded.last_valid);
        self.valid.send_modify(|all| drop(all.insert(folder.to_owned(), of_valid)));
        self.last_valid.send_if_modified(|all| {
            let known = all.entry(folder.to_owned()).or_default();
            std::mem::replace(known, now) != *known
        });
    }
}

/// Counts each file once, by the most severe of its problems.
fn count(metrics: &Watched, problems: &[Diagnostic]) {
    let mut files = BTreeMap::<&Path, bool>::new();
    for problem in problems {
        *files.entry(&problem.path).or_default() |= problem.is_error();
    }
    let errors = files.values().filter(|is_error| **is_error).count();
    metrics.read(errors, files.len() - errors);
}
