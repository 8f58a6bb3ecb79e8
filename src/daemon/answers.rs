//! Starts the publisher, which turns the cluster's view and the zone files into the catalog and the DNS tables.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::{sync::watch, task::block_in_place};

use super::Context;
use crate::{
    clock::unix_now,
    config::Config,
    data_dir::DataDir,
    dns::{
        engine::first_exchange::{Awaited, FirstExchange},
        publish::{Publisher, Sources, Transfers},
        zone::{Settings, Tables, serial::Serial},
    },
    model::catalog::Catalog,
};

/// Outputs of the publisher.
pub(super) struct Published {
    /// The snapshot that DNS answers from.
    pub(super) tables: Arc<ArcSwap<Tables>>,
    /// The snapshot that the HTTP API shows.
    pub(super) catalog: watch::Receiver<Catalog>,
}

/// What answers wait for at a start.
#[derive(Clone, Copy)]
pub(super) struct Waits {
    /// The instances of the peers.
    pub(super) peers: bool,
    /// The dynamic zones as the store has them.
    pub(super) updates: bool,
}

/// Publishes a first state and follows its sources. If answers wait, returns that as well.
pub(super) fn publish(
    context: &mut Context<'_>,
    serial: Serial,
    ceiling: watch::Sender<u32>,
    mut sources: Sources,
    transfers: Transfers,
    waits: Waits,
) -> (Published, Option<Arc<FirstExchange>>) {
    let config = context.config;
    // In milliseconds, so that an index from before a restart is never ahead of ours.
    let version = unix_now().as_millis() as u64;
    let tables = Tables::new(settings(config));
    let catalog = Catalog::starting_at(version).answering(config.dns.only_passing);
    let mut publisher = Publisher::new(tables, catalog, serial, ceiling, context.data_dir.clone(), transfers);
    let own = block_in_place(|| {
        let own = waits.peers.then(|| publisher.publish_own(&sources, &config.node));
        publisher.publish(&mut sources);
        own
    });
    let published = Published { tables: publisher.published(), catalog: publisher.catalog() };
    context.tasks.spawn("publisher", publisher.run(sources, context.shutdown.clone()));
    let awaited = Awaited { own, updates: waits.updates };
    let is_awaited = waits.peers || waits.updates;
    (published, is_awaited.then(|| Arc::new(FirstExchange::awaited(awaited))))
}

/// Resumes the serial that the data directory holds, and reserves serials there.
pub(super) fn resume_serial(data_dir: &DataDir) -> Serial {
    // A clock before 1970 or after 2106 is of no use; the stored serial decides alone then.
    let now = u32::try_from(unix_now().as_secs()).unwrap_or(0);
    let serial = Serial::resume(data_dir.load_serial(), now);
    data_dir.store_serial(serial.ceiling());
    serial
}

fn settings(config: &Config) -> Settings {
    Settings {
        node: config.node.clone(),
        datacenter: config.datacenter.clone(),
        domain: config.domain.clone(),
        aliases: config.alias_domains.clone(),
        ptr_domain: config.dns.ptr_domain.clone(),
        zone: config.zone.clone(),
        nearest: config.dns.nearest,
        ttl: config.dns.ttl,
        negative_ttl: config.dns.negative_ttl,
    }
}
