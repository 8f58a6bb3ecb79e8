//! Starts the server of zone transfers and the sender of NOTIFY.

use std::{net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{Context, folders::Folders};
use crate::{
    dns::{
        engine, publish, secondaries,
        server::transfers::{Settings, Transfers},
        transfer::tsig::Keys,
        zone::Tables,
    },
    files::tsig_keys::{self, TsigFiles},
    metrics::Folder,
};

/// Follows the TSIG keys, if the configuration has a folder for them.
pub(super) async fn keys(context: &mut Context<'_>, folders: &mut Folders) -> watch::Receiver<Keys> {
    let Some(path) = context.config.dns.keys_dir.clone() else { return watch::channel(Keys::default()).1 };
    let names = ["TSIG key watcher", "TSIG key reader"];
    folders.follow(tsig_keys::folder(path), TsigFiles::default(), Folder::Keys, names, &mut context.tasks).await
}

/// Returns the server of transfers; `None` if zones are not transferred and there are no keys.
pub(super) fn server(
    context: &Context<'_>,
    keys: &watch::Receiver<Keys>,
    published: &publish::Transfers,
    tables: &Arc<ArcSwap<Tables>>,
    engine: &Arc<engine::Settings>,
) -> Option<Transfers> {
    let settings = Settings {
        access: context.config.dns.transfer.allow.clone(),
        keys: keys.clone(),
        engine: engine.clone(),
        tables: tables.clone(),
        journal: published.journal.clone(),
        primary: published.primary.subscribe(),
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
) {
    let secondaries = context.config.dns.transfer.notify.clone();
    if secondaries.is_empty() {
        return;
    }
    let settings = secondaries::Settings {
        secondaries,
        sources: listening.iter().map(SocketAddr::ip).collect(),
        keys,
        tables: tables.clone(),
        published: published.published.subscribe(),
        primary: published.primary.subscribe(),
        counts: context.metrics.transfers.clone(),
    };
    context.tasks.spawn("NOTIFY sender", secondaries::run(settings, context.shutdown.clone()));
}
