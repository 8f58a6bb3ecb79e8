//! The composition root: binds, loads, starts, serves, stops. Only this module imports more than one adapter.
//!
//! ```text
//! services_dir ─► files ─► checks ─► announcements ─► cluster ─► view ─┐
//! zones_dir ────► files ───────────────────────────────────────────────┴─► publisher ─► tables ─► DNS servers
//! members, commands ◄─► HTTP
//! ```
//!
//! Every error of the start is reported before the first answer, with its remedy. After that, only a
//! signal or a defect ends the agent.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use self::{
    error::{DaemonError, Purpose},
    stop::MAX_DRAIN,
};
use self::{stop::Drain, tasks::Tasks};
use crate::{config::Config, dns::publish, metrics::Metrics};

mod answers;
mod bind;
mod cluster;
mod dns;
mod encrypted;
mod error;
mod folders;
mod http_api;
mod local_services;
mod resolver;
mod scrape;
mod stop;
mod tasks;

/// The program's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The signals that the agent obeys, turned into values by the caller.
#[derive(Clone)]
pub struct Signals {
    /// Ends the agent.
    pub shutdown: CancellationToken,
    /// Each new value makes the agent read all files again.
    pub rescan: watch::Sender<()>,
    /// Withdraws the node's instances from answers, waits until no cache holds one (at most [`MAX_DRAIN`]), then ends the
    /// agent.
    pub drain: CancellationToken,
}

/// Inputs of every stage of the start.
struct Context<'a> {
    config: &'a Config,
    metrics: Metrics,
    shutdown: CancellationToken,
    tasks: Tasks,
}

/// Runs the agent until `signals.shutdown`. Calls `ready` once it answers. Needs a runtime with several threads.
///
/// # Errors
/// The reason why the agent could not start, or why it ended by itself.
pub async fn run(config: Config, signals: Signals, ready: impl FnOnce()) -> Result<(), DaemonError> {
    let (metrics, shutdown) = (Metrics::default(), signals.shutdown.clone());
    let mut context = Context { config: &config, metrics, shutdown, tasks: Tasks::default() };

    // Bind.
    let sockets = bind::bind(&config).await?;
    let serial = answers::resume_serial(&config)?;

    // Load.
    let folders = folders::Folders::new(&context, signals.rescan.clone());
    let files = folders.load(&mut context).await;

    // Start.
    let services = local_services::start(&mut context, files.services, &signals.drain).await;
    let mut cluster = cluster::start(&mut context, sockets.gossip, services.announcements.clone())?;
    services.follow_ttls(&mut context, cluster.members.clone());
    let sources = publish::Sources { view: cluster.view.clone(), zones: files.zones };
    let published = answers::publish(&mut context, serial, sources);
    let dns_addresses: Vec<_> = sockets.dns.iter().map(|listener| listener.address).collect();
    let resolution = resolver::start(&mut context, dns_addresses.clone()).await;

    // Serve.
    let connections = dns::serve(&mut context, sockets.dns, sockets.encrypted, &published.tables, &resolution)?;
    let stopping = CancellationToken::new();
    let shown = http_api::Shown {
        services: &services,
        cluster: &cluster,
        published,
        resolution,
        connections,
        dns: dns_addresses,
        rescan: signals.rescan.clone(),
        stopping: stopping.clone(),
    };
    http_api::serve(&mut context, sockets.http, &folders, shown).await?;
    info!(node = %config.node, domain = %config.domain, services = services.loaded, "answering");
    ready();

    // Stop.
    let drain = Drain { withdrawn: services.withdrawn, announcements: services.announcements, stopping };
    let ended = stop::run_until_stopped(&signals, drain, &mut context.tasks).await;
    if let Some(error) = cluster::failure(&config.node, ended, cluster.ended.try_recv().ok()) {
        return Err(error);
    }
    info!("stopped");
    Ok(())
}
