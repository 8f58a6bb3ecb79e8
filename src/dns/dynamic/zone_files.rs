//! Zone files as the first content of dynamic zones.
//!
//! An operator who makes a static zone dynamic keeps its records: each node with a zone file writes it to the store as long as the
//! zone was never updated. The store accepts the first of these transactions, and none behind an update.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Known, RETRY, write};
use crate::{
    dns::update::{
        content::{Content, Sets},
        initial::{self, InitialError},
    },
    model::{name::Name, zone::ZoneFile},
    store::request::{Store, StoreError},
};

/// Zone files of this node.
pub type ZoneFiles = watch::Receiver<Arc<[Arc<ZoneFile>]>>;

/// The first content of a zone.
pub(super) struct First<'f> {
    file: &'f ZoneFile,
    names: BTreeMap<Box<[u8]>, Sets>,
}

impl<'f> First<'f> {
    /// Returns the first content of a zone; `None` if it was updated, or its file cannot be used.
    pub(super) fn of(zones: &'f [Arc<ZoneFile>], content: &Content) -> Option<Self> {
        if content.was_updated() {
            return None;
        }
        Self::read(zones.iter().find(|file| file.origin == content.origin)?).ok()
    }

    fn read(file: &'f ZoneFile) -> Result<Self, InitialError> {
        Ok(Self { file, names: initial::read(file)? })
    }

    /// Writes it to the store, unless the zone is newer than the content.
    pub(super) async fn write(&self, store: &Store, content: &Content) -> Result<(), StoreError> {
        if write(store, content, &self.names).await?.is_some() {
            let (zone, file, records) = (&self.file.origin, self.file.files.main(), self.file.records.len());
            info!(%zone, file, records, "zone file is the first content of the dynamic zone; it is not read again");
        }
        Ok(())
    }
}

/// Outcome of a file.
enum Outcome {
    /// It is in the store, or the zone has content, or the file cannot be used.
    Done,
    /// The store does not respond.
    Pending,
    /// The agent is stopping.
    Stopping,
}

/// Writes the zone files of dynamic zones that were never updated to the store, until `shutdown`.
pub async fn take(store: Store, mut files: ZoneFiles, mut known: watch::Receiver<Known>, shutdown: CancellationToken) {
    let taking = async {
        // Files that were tried.
        let mut done: BTreeMap<Name, Arc<ZoneFile>> = BTreeMap::new();
        loop {
            let (zones, contents) = (files.borrow_and_update().clone(), known.borrow_and_update().contents.clone());
            let mut is_pending = false;
            for file in zones.iter() {
                let Some(content) = contents.get(&file.origin).filter(|content| !content.was_updated()) else {
                    continue;
                };
                if done.get(&file.origin).is_some_and(|tried| Arc::ptr_eq(tried, file)) {
                    continue;
                }
                match take_file(&store, file, content).await {
                    Outcome::Done => drop(done.insert(file.origin.clone(), file.clone())),
                    Outcome::Pending => is_pending = true,
                    Outcome::Stopping => return,
                }
            }
            let changed = tokio::select! {
                changed = files.changed() => changed,
                changed = known.changed() => changed,
                () = sleep(RETRY), if is_pending => continue,
            };
            if changed.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = taking => shutdown.cancelled().await,
        () = shutdown.cancelled() => {}
    }
}

async fn take_file(store: &Store, file: &ZoneFile, content: &Content) -> Outcome {
    let (zone, path) = (file.origin.to_string(), file.files.main());
    let first = match First::read(file) {
        Ok(first) => first,
        Err(reason) => {
            warn!(zone, file = path, %reason, "zone file cannot be the first content of the dynamic zone");
            return Outcome::Done;
        }
    };
    match first.write(store, content).await {
        Ok(()) => Outcome::Done,
        Err(StoreError::Stopping) => Outcome::Stopping,
        Err(error @ StoreError::Refused(_)) => {
            warn!(zone, file = path, %error, "zone file cannot be the first content of the dynamic zone");
            Outcome::Done
        }
        Err(error) => {
            debug!(zone, file = path, %error, "zone file is not in the store yet");
            Outcome::Pending
        }
    }
}
