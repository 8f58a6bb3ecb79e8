//! Dynamic zones: their copy in the data directory, the task that follows the store, and the zones that the tables are built from.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::block_in_place,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Context, zone_sources};
use crate::{
    data_dir::DataDir,
    dns::{
        dynamic::{self, Known, Updater, zone_files},
        server::updates::Updates,
        update::{
            content::{Content, Definition},
            saved::{self, Contents},
        },
    },
    files::zones::ZoneFiles,
    model::{name::Name, zone::ZoneFile},
    store::request::Store,
};

/// Time for which a change waits for others before the copy is written.
const SETTLE: Duration = Duration::from_millis(200);
/// Shortest pause between two writes of the copy, as a multiple of their duration: a large copy on a slow disk takes at most 5 % of
/// its time.
const PAUSE_FACTOR: u32 = 20;

/// Starts to follow the dynamic zones of the configuration. Returns all zones, those of files included, and the server of updates.
pub(super) fn start(
    context: &mut Context<'_>,
    store: Option<&Store>,
    files: watch::Receiver<ZoneFiles>,
) -> (watch::Receiver<ZoneFiles>, Option<Updates>) {
    let definitions = context.config.dns.dynamic.clone();
    if definitions.is_empty() {
        return (files, None);
    }
    let contents = load(&context.data_dir, &definitions);
    let (known, follower) = watch::channel(Known { contents, ..Known::default() });
    let mut merged = Merged::default();
    let all = watch::Sender::new(merged.update(&files.borrow().clone(), &follower.borrow().contents));
    let zones = all.subscribe();
    let merge = move |files: &ZoneFiles, known: &Known| merged.update(files, &known.contents);
    let first_files = files.clone();
    let merging = zone_sources::publish(files, follower.clone(), merge, all, context.shutdown.clone());
    context.tasks.spawn("zones of files and of the store", merging);
    let saving = save(context.data_dir.clone(), follower.clone(), context.shutdown.clone());
    context.tasks.spawn("copy of dynamic zones", saving);
    let Some(store) = store else {
        warn!("dynamic zones are not updated until the agent is restarted: `store` was not configured at its start");
        return (zones, None);
    };
    let taking = zone_files::take(store.clone(), first_files.clone(), follower.clone(), context.shutdown.clone());
    context.tasks.spawn("zone files of dynamic zones", taking);
    let following = dynamic::follow(store.clone(), definitions.clone(), known, context.shutdown.clone());
    context.tasks.spawn("dynamic zones", following);
    let updater = Updater::new(store.clone(), &definitions, follower, first_files);
    (zones, Some(Updates { updater, counts: context.metrics.updates.clone() }))
}

/// Returns the content of the zones as of the copy.
fn load(data_dir: &DataDir, definitions: &[Definition]) -> Contents {
    let first = || saved::first(definitions).into_iter().map(|(origin, first)| (origin, Arc::new(first))).collect();
    let Some(text) = block_in_place(|| data_dir.load_dynamic_zones()) else { return first() };
    match saved::decode(&text, definitions) {
        Ok(contents) => contents,
        Err(error) => {
            data_dir.keep_damaged_dynamic_zones(&error.to_string());
            first()
        }
    }
}

/// Zones of files, and dynamic ones in the form of files.
#[derive(Default)]
struct Merged {
    /// Dynamic zones as of the last update, which are not built again while they stay the same value.
    built: Vec<(Arc<Content>, Arc<ZoneFile>)>,
    /// Zones with a file that is not used.
    hidden: BTreeSet<Name>,
}

impl Merged {
    fn update(&mut self, files: &ZoneFiles, contents: &Contents) -> ZoneFiles {
        let former = std::mem::take(&mut self.built);
        let build = |content: &Arc<Content>| {
            let known = former.iter().find(|(known, _)| Arc::ptr_eq(known, content));
            (content.clone(), known.map_or_else(|| Arc::new(content.to_zone()), |(_, zone)| zone.clone()))
        };
        self.built = contents.values().map(build).collect();
        let (hidden, shown): (Vec<_>, Vec<_>) = files.iter().partition(|file| contents.contains_key(&file.origin));
        for file in &hidden {
            let was_updated = contents.get(&file.origin).is_some_and(|content| content.was_updated());
            if self.hidden.insert(file.origin.clone()) && was_updated {
                let (zone, file) = (&file.origin, file.files.main());
                warn!(%zone, file, "zone file is not used: the zone is in `dns.dynamic`, and has content");
            }
        }
        self.hidden.retain(|zone| hidden.iter().any(|file| file.origin == *zone));
        shown.into_iter().chain(self.built.iter().map(|(_, zone)| zone)).cloned().collect()
    }
}

/// Writes the copy after each change until `shutdown`, and then once more.
async fn save(data_dir: DataDir, mut known: watch::Receiver<Known>, shutdown: CancellationToken) {
    let mut pause = SETTLE;
    let mut saved = known.borrow_and_update().contents.clone();
    let mut store = |contents: Contents| {
        let is_same =
            saved.len() == contents.len() && saved.values().zip(contents.values()).all(|(a, b)| Arc::ptr_eq(a, b));
        if !is_same {
            // A failure is in the log and in `muster status`. The next change is written again.
            let _ = block_in_place(|| data_dir.store_dynamic_zones(&saved::encode(&contents)));
            saved = contents;
        }
    };
    loop {
        tokio::select! {
            changed = known.changed() => if changed.is_err() { break },
            () = shutdown.cancelled() => break,
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = shutdown.cancelled() => break,
        }
        let contents = known.borrow_and_update().contents.clone();
        let began = Instant::now();
        store(contents);
        pause = (PAUSE_FACTOR * began.elapsed()).max(SETTLE);
    }
    // The next start begins with it.
    store(known.borrow().contents.clone());
    shutdown.cancelled().await;
}
