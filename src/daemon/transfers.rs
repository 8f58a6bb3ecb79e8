//! Starts the server of zone transfers, the sender of NOTIFY, and the tasks of secondary zones.

use std::{net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use tokio::{
    sync::{mpsc, watch},
    task::block_in_place,
};

use super::{Context, folders::Folders, zone_sources};
use crate::{
    dns::{
        engine, publish,
        refresh::{self, Notified},
        secondaries::{
            self,
            request::{NotifyRequest, Serials},
        },
        secondary::Copies,
        server::{
            transfers::{Settings, Transfers},
            updates::Updates,
        },
        tls_client::TlsClient,
        transfer::{access::Secondary, tsig::Keys},
        zone::Tables,
    },
    files::{
        tsig_keys::{self, TsigFiles},
        zones::ZoneFiles,
    },
    metrics::Folder,
    tls::authorities::system_roots,
};

/// Requests for NOTIFY that wait at most.
const REQUESTS: usize = 16;

/// The sender of NOTIFY.
pub(super) struct Notifying {
    /// The secondaries of the configuration.
    pub(super) secondaries: Vec<Secondary>,
    /// Takes requests; `None` without secondaries.
    pub(super) requests: Option<mpsc::Sender<NotifyRequest>>,
    /// Known serials of the secondaries.
    pub(super) serials: watch::Receiver<Serials>,
}

/// Follows the TSIG keys, if the configuration has a folder for them.
pub(super) async fn keys(context: &mut Context<'_>, folders: &mut Folders) -> watch::Receiver<Keys> {
    let Some(path) = context.config.dns.keys_dir.clone() else { return watch::channel(Keys::default()).1 };
    let names = ["TSIG key watcher", "TSIG key reader"];
    let files = TsigFiles::new(path.clone(), context.config.dns.named_keys());
    folders.follow(tsig_keys::folder(path), files, Folder::Keys, names, &mut context.tasks).await
}

/// Secondary zones.
pub(super) struct SecondaryZones {
    /// Zone files and copies, always the newest.
    pub(super) zones: watch::Receiver<ZoneFiles>,
    /// The copies and their states.
    pub(super) copies: watch::Receiver<Copies>,
    /// The zones that take NOTIFY.
    pub(super) notified: Vec<Notified>,
}

/// Loads the copies of the secondary zones, adds them to the zone files, and keeps them up to date. `listening` are the addresses of
/// the DNS listeners.
pub(super) fn secondary_zones(
    context: &mut Context<'_>,
    keys: &watch::Receiver<Keys>,
    listening: &[SocketAddr],
    files: watch::Receiver<ZoneFiles>,
) -> SecondaryZones {
    let settings = refresh::Settings {
        keys: keys.clone(),
        sources: listening.iter().map(SocketAddr::ip).collect(),
        data_dir: context.data_dir.clone(),
        tls: Arc::new(TlsClient::new(system_roots)),
        counts: context.metrics.transfers.clone(),
    };
    let secondary = &context.config.dns.secondary;
    let (copies, refreshers, notified) = block_in_place(|| refresh::load(secondary, &settings));
    if refreshers.is_empty() {
        return SecondaryZones { zones: files, copies, notified };
    }
    for refresher in refreshers {
        context.tasks.spawn("secondary zone", refresher.run(context.shutdown.clone()));
    }
    let (merged, zones) = watch::channel(all_zones(&files.borrow(), &copies.borrow()));
    let merging = zone_sources::publish(files, copies.clone(), all_zones, merged, context.shutdown.clone());
    context.tasks.spawn("zones of files and of primaries", merging);
    SecondaryZones { zones, copies, notified }
}

fn all_zones(files: &ZoneFiles, copies: &Copies) -> ZoneFiles {
    let copies = copies.values().map(|copy| copy.file.clone());
    files
        .iter()
        .filter(|file| !copies.clone().any(|copy| copy.origin == file.origin))
        .cloned()
        .chain(copies.clone())
        .collect()
}

/// Returns the server of transfers; `None` if zones are not transferred and there are no keys.
pub(super) fn server(
    context: &Context<'_>,
    keys: &watch::Receiver<Keys>,
    published: &publish::Transfers,
    tables: &Arc<ArcSwap<Tables>>,
    engine: &Arc<engine::Settings>,
    updates: Option<Updates>,
    notified: Vec<Notified>,
) -> Option<Transfers> {
    let settings = Settings {
        access: context.config.dns.transfer.allow.clone(),
        keys: keys.clone(),
        engine: engine.clone(),
        tables: tables.clone(),
        published: published.published.subscribe(),
        journal: published.journal.clone(),
        primary: published.primary.subscribe(),
        updates,
        notified,
        counts: context.metrics.transfers.clone(),
    };
    engine.serves_transfers.then(|| Transfers::new(settings))
}

/// Starts to notify the secondaries of changes; `listening` are the addresses of the DNS listeners.
pub(super) fn notify(
    context: &mut Context<'_>,
    keys: watch::Receiver<Keys>,
    published: &publish::Transfers,
    tables: &Arc<ArcSwap<Tables>>,
    listening: &[SocketAddr],
) -> Notifying {
    let secondaries = context.config.dns.transfer.notify.clone();
    let serials = watch::Sender::default();
    let known = serials.subscribe();
    if secondaries.is_empty() {
        return Notifying { secondaries, requests: None, serials: known };
    }
    let (requests, taken) = mpsc::channel(REQUESTS);
    let settings = secondaries::Settings {
        secondaries: secondaries.clone(),
        access: context.config.dns.transfer.allow.clone(),
        sources: listening.iter().map(SocketAddr::ip).collect(),
        keys,
        tables: tables.clone(),
        published: published.published.subscribe(),
        primary: published.primary.subscribe(),
        requests: taken,
        serials,
        counts: context.metrics.transfers.clone(),
    };
    context.tasks.spawn("NOTIFY sender", secondaries::run(settings, context.shutdown.clone()));
    Notifying { secondaries, requests: Some(requests), serials: known }
}
