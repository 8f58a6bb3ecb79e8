//! Zones of several sources, published together.

use std::sync::Arc;

use tokio::{sync::watch, task::block_in_place};
use tokio_util::sync::CancellationToken;

use crate::files::zones::ZoneFiles;

/// Publishes what `merge` makes of zone files and another source, after each change of one of them, until `shutdown`. `merge` keeps
/// a zone that has not changed the same value.
pub(super) async fn publish<T: Clone>(
    mut files: watch::Receiver<ZoneFiles>,
    mut others: watch::Receiver<T>,
    mut merge: impl FnMut(&ZoneFiles, &T) -> ZoneFiles,
    merged: watch::Sender<ZoneFiles>,
    shutdown: CancellationToken,
) {
    loop {
        let changed = tokio::select! {
            changed = files.changed() => changed,
            changed = others.changed() => changed,
            () = shutdown.cancelled() => return,
        };
        if changed.is_err() {
            return shutdown.cancelled().await;
        }
        // Copies, so that no sender waits for a merge.
        let (files, others) = (files.borrow_and_update().clone(), others.borrow_and_update().clone());
        let zones = block_in_place(|| merge(&files, &others));
        merged.send_if_modified(|known| {
            let is_same = known.len() == zones.len() && known.iter().zip(&*zones).all(|(a, b)| Arc::ptr_eq(a, b));
            *known = zones;
            !is_same
        });
    }
}
