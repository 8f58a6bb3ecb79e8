//! Follows a folder's contents: parses what changed, publishes what the files now define, logs what is wrong once, and
//! counts.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{contents::Contents, last_good::Reloadable};
use crate::{
    diagnostic::{News, Problem},
    metrics::Watched,
};

/// What a folder comes to, always the newest.
#[derive(Clone, Debug)]
pub struct Followed<V> {
    /// What is in service.
    pub value: watch::Receiver<V>,
    /// What is wrong with its files.
    pub problems: watch::Receiver<Arc<[Problem]>>,
}

/// Loads the folder as it is, then follows it until `shutdown`.
pub async fn follow<F: Reloadable>(
    mut folder: F,
    mut contents: watch::Receiver<Contents>,
    metrics: Watched,
    shutdown: CancellationToken,
) -> (Followed<F::Value>, JoinHandle<()>) {
    let mut known = Vec::new();
    let now = contents.borrow_and_update().clone();
    let loaded = folder.load(&now);
    count(&metrics, &loaded.problems);
    let (wrong, problems) = watch::channel(Arc::from(&*loaded.problems));
    tell(&mut known, loaded.problems);
    let (sender, value) = watch::channel(loaded.value);
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
            wrong.send_replace(Arc::from(&*loaded.problems));
            tell(&mut known, loaded.problems);
            sender.send_replace(loaded.value);
        }
    });
    (Followed { value, problems }, task)
}

fn tell(known: &mut Vec<Problem>, now: Vec<Problem>) {
    let news = News::between(known, &now);
    for problem in &news.appeared {
        let path = problem.path.display();
        if problem.is_error() { warn!(%path, "{problem}") } else { info!(%path, "{problem}") }
    }
    for path in &news.mended {
        info!(path = %path.display(), "no problems any more");
    }
    *known = now;
}

/// Each file once, for the worst of its problems.
fn count(metrics: &Watched, problems: &[Problem]) {
    let mut files = BTreeMap::<&Path, bool>::new();
    for problem in problems {
        *files.entry(&problem.path).or_default() |= problem.is_error();
    }
    let errors = files.values().filter(|is_error| **is_error).count();
    metrics.read(errors, files.len() - errors);
}
