//! Follows a folder's contents: parses what changed, publishes what the files now define, tells, logs and counts what is
//! wrong.

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

/// Loads the folder as it is, then follows it until `shutdown`. What it comes to stands in `reports` too, for people.
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
    tell(&[], &loaded.problems);
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
            // A thousand files are milliseconds of parsing: not on a thread that answers questions.
            let Ok((state, loaded)) = spawn_blocking(move || {
                let loaded = folder.load(&now);
                (folder, loaded)
            })
            .await
            else {
                return;
            };
            folder = state;
            info!(path = %path.display(), "files are read again: {} in service", loaded.summary);
            count(&metrics, &loaded.problems);
            tell(&known, &loaded.problems);
            report(&reports, &path, &loaded);
            known = loaded.problems;
            sender.send_replace(loaded.value);
        }
    });
    (receiver, task)
}

fn tell(before: &[Diagnostic], now: &[Diagnostic]) {
    let news = DiagnosticChanges::between(before, now);
    for problem in &news.appeared {
        let path = problem.path.display();
        if problem.is_error() { warn!(%path, "{problem}") } else { info!(%path, "{problem}") }
    }
    for path in &news.mended {
        info!(path = %path.display(), "no problems any more");
    }
}

fn report<V>(reports: &watch::Sender<Arc<Reports>>, folder: &Path, loaded: &Loaded<V>) {
    reports.send_modify(|all| {
        let report = Arc::make_mut(all).entry(folder.to_owned()).or_default();
        let (in_service, problems) = (loaded.summary.clone(), loaded.problems.clone());
        *report = FolderReport { in_service, problems, reads: report.reads + 1 };
    });
}

/// Each file once, for the worst of its problems.
fn count(metrics: &Watched, problems: &[Diagnostic]) {
    let mut files = BTreeMap::<&Path, bool>::new();
    for problem in problems {
        *files.entry(&problem.path).or_default() |= problem.is_error();
    }
    let errors = files.values().filter(|is_error| **is_error).count();
    metrics.read(errors, files.len() - errors);
}
