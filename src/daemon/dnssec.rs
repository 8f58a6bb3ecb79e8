//! Follows the keys of signed zones: their files, and the times at which the use of a key begins or ends.

use std::{sync::Arc, time::Duration};

use ring::rand::SystemRandom;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Context, folders::Folders};
use crate::{
    clock::unix_seconds,
    dns::dnssec::{
        key::SharedKey,
        zone_keys::{SignedZones, ZoneKeys},
    },
    files::dnssec_keys::{self, KeyFiles, Keys},
    metrics::Folder,
    model::name::Name,
};

/// Longest time without a look at the clock, which may be set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Follows the keys of the zones in `dns.dnssec`.
pub(super) async fn follow(context: &mut Context<'_>, folders: &mut Folders) -> watch::Receiver<Arc<SignedZones>> {
    let config = &context.config.dns;
    let zones = config.dnssec.clone();
    let keys = if zones.is_empty() {
        None
    } else {
        let folder = dnssec_keys::folder(config.dnssec_keys_dir.clone());
        let files = KeyFiles::new(zones.clone(), Box::new(SystemRandom::new()));
        let names = ["DNSSEC key watcher", "DNSSEC key reader"];
        Some(folders.follow(folder, files, Folder::DnssecKeys, names, &mut context.tasks).await)
    };
    let first = keys.as_ref().map(|keys| in_use(&zones, &keys.borrow(), unix_seconds())).unwrap_or_default();
    log(&SignedZones::default(), &first, &zones);
    let (sender, receiver) = watch::channel(Arc::new(first));
    context.tasks.spawn("DNSSEC keys", run(zones, keys, sender, context.shutdown.clone()));
    receiver
}

async fn run(
    zones: Vec<Name>,
    keys: Option<watch::Receiver<Keys>>,
    sender: watch::Sender<Arc<SignedZones>>,
    shutdown: CancellationToken,
) {
    let Some(mut keys) = keys else { return shutdown.cancelled().await };
    loop {
        let now = unix_seconds();
        let files = keys.borrow_and_update().clone();
        let used = in_use(&zones, &files, now);
        sender.send_if_modified(|before| {
            let is_new = **before != used;
            if is_new {
                log(before, &used, &zones);
                *before = Arc::new(used);
            }
            is_new
        });
        let next = files.iter().filter_map(|key| key.timing.next(now)).min();
        let wait = next.map_or(LONGEST_SLEEP, |next| Duration::from_secs(next - now).min(LONGEST_SLEEP));
        tokio::select! {
            changed = keys.changed() => if changed.is_err() {
                return shutdown.cancelled().await;
            },
            () = sleep(wait) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Returns the keys that are in use at `now`, of zones with a key that signs.
fn in_use(zones: &[Name], keys: &[SharedKey], now: u64) -> SignedZones {
    let of = |zone: &Name| -> Vec<SharedKey> { keys.iter().filter(|key| key.zone == *zone).cloned().collect() };
    let used = zones.iter().filter_map(|zone| Some((zone.clone(), Arc::new(ZoneKeys::at(zone, &of(zone), now)?))));
    used.collect()
}

fn log(before: &SignedZones, now: &SignedZones, zones: &[Name]) {
    for zone in zones {
        match (before.get(zone), now.get(zone)) {
            (_, None) => warn!(%zone, "the zone is not signed: it has no key that signs"),
            (Some(before), Some(now)) if before == now => {}
            (_, Some(now)) => info!(%zone, keys = ?now.tags(), published = now.published(), "the zone is signed"),
        }
    }
}
