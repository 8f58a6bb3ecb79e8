//! Reports the files of the data directory that cannot be written.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    data_dir::{DataDir, Failure},
    diagnostic::{FolderReport, Reports},
};

/// Keeps the report of the data directory up to date until `shutdown`. It exists while there is a problem.
pub(super) async fn run(data_dir: DataDir, reports: watch::Sender<Arc<Reports>>, shutdown: CancellationToken) {
    let mut failures = data_dir.failures();
    failures.mark_changed();
    loop {
        tokio::select! {
            changed = failures.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
        let problems: Vec<_> = failures.borrow_and_update().values().map(Failure::diagnostic).collect();
        reports.send_if_modified(|all| {
            let path = data_dir.path();
            if problems.is_empty() {
                return all.contains_key(path) && Arc::make_mut(all).remove(path).is_some();
            }
            let in_service = format!("{} of its files cannot be written", problems.len());
            Arc::make_mut(all).insert(path.to_owned(), FolderReport { in_service, problems, reads: 1 });
            true
        });
    }
}
