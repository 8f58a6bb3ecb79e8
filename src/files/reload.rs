//! Follows the contents of a folder: parses changes, publishes the new value, and reports, logs and counts problems.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    contents::Contents,
    last_good::{Loaded, Reloadable},
};
use crate::{
    diagnostic::{Diagnostic, DiagnosticChanges, FolderReport, Reports},
    metrics::Watched,
};

/// Loads the folder, then follows it until `shutdown`. `reports` gets the result for `muster status`.
pub async fn follow<F: Reloadable>(
    mut folder: F,
    mut contents: watch::Receiver<Contents>,
    reports: watch::Sender<Arc<Reports>>,
    metrics: Watched,
    shutdown: CancellationToken,
) -> (watch::Receiver<F::Value>, JoinHandle<()>) {
    let now = contents.borrow_and_update().clone();
    let loaded = folder.load(&now);
    count(&metrics, &loaded.problems);
    log(&[], &loaded.problems);
    report(&reports, &now.folder, &loaded);
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
            let Ok((state, loaded)) = spawn_blocking(move || {
                let loaded = folder.load(&now);
                (folder, loaded)
            })
            .await
            else {
                return;
            };
            folder = state;
            info!(path = %path.display(), "files reloaded: {} in use", loaded.summary);
            count(&metrics, &loaded.problems);
            log(&known, &loaded.problems);
            report(&reports, &path, &loaded);
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
        let path = problem.path.display();
        if problem.is_error() { warn!(%path, "{problem}") } else { info!(%path, "{problem}") }
    }
    for path in &changes.fixed {
        info!(path = %path.display(), "all problems resolved");
    }
}

fn report<V>(reports: &watch::Sender<Arc<Reports>>, folder: &Path, loaded: &Loaded<V>) {
    reports.send_modify(|all| {
        let report = Arc::make_mut(all).entry(folder.to_owned()).or_default();
        let (in_service, problems) = (loaded.summary.clone(), loaded.problems.clone());
        *report = FolderReport { in_service, problems, reads: report.reads + 1 };
    });
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
