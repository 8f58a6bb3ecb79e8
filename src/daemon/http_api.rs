//! The HTTP API: follows tokens and certificate, and serves the state of the other stages.

use std::{
    net::{self, SocketAddr},
    os::unix,
    sync::Arc,
};

use tokio::{
    net::{TcpListener, UnixListener},
    sync::{mpsc, watch},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    Context, VERSION,
    answers::Published,
    cluster::Cluster,
    error::{DaemonError, Purpose},
    folders::Folders,
    local_services::LocalServices,
    record_counts::RecordCounts,
    resolver::Resolution,
    scrape,
    transfers::Notifying,
};
use crate::{
    config::{AddressProblem, Config},
    control::Control,
    dns::{secondary::Copies, server::connection_quota::ConnectionQuota, zone::zone_problems::ZoneProblem},
    files::tokens::{self, TokenFiles},
    http::{
        self,
        blocking::{self, BlockingQueries},
        command::Commands,
        muster::{explain, zones},
        server::{self, Listener, Server, credentials::Guard},
    },
    metrics::Folder,
    store::request::Store,
    tls::certificate::Certificate,
};

/// Bound listeners.
pub(super) struct Listeners {
    pub(super) tcp: Vec<net::TcpListener>,
    pub(super) unix: Option<unix::net::UnixListener>,
}

impl Listeners {
    /// Addresses of the TCP listeners.
    fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }
}

/// State that the API shows and controls.
pub(super) struct Shown<'a> {
    /// The problem of the advertised addresses.
    pub(super) address_problem: watch::Receiver<Option<AddressProblem>>,
    /// The problems of zones that make validators refuse answers.
    pub(super) zone_problems: watch::Receiver<Arc<[ZoneProblem]>>,
    pub(super) services: &'a LocalServices,
    pub(super) cluster: &'a Cluster,
    pub(super) published: Published,
    /// The secondary zones.
    pub(super) copies: watch::Receiver<Copies>,
    pub(super) notifying: Notifying,
    pub(super) resolution: Resolution,
    /// Counts DNS connections.
    pub(super) connections: Arc<ConnectionQuota>,
    /// Addresses of the DNS listeners.
    pub(super) dns: Vec<SocketAddr>,
    /// Takes requests to the daemon.
    pub(super) control: mpsc::Sender<Control>,
    /// Set when the agent begins to drain or to stop.
    pub(super) stopping: CancellationToken,
    /// The store, if the configuration has one.
    pub(super) store: Option<Store>,
}

/// Starts the API on all listeners. Returns the tokens that it requires.
pub(super) async fn serve(
    context: &mut Context<'_>,
    listeners: Listeners,
    folders: &mut Folders,
    shown: Shown<'_>,
) -> Result<Guard, DaemonError> {
    let guard = guard(context, folders).await;
    let api = api(context, &listeners, folders, guard.clone(), shown);
    listen(context, listeners, Server::new(api, context.shutdown.clone()))?;
    Ok(guard)
}

fn api(
    context: &mut Context<'_>,
    listeners: &Listeners,
    folders: &Folders,
    guard: Guard,
    shown: Shown<'_>,
) -> http::Api {
    let Shown { address_problem, zone_problems, services, cluster, published, copies, notifying, .. } = shown;
    let Shown { resolution, connections, dns, control, stopping, store, .. } = shown;
    let Published { tables, catalog } = published;
    let records = Arc::new(RecordCounts::default());
    let scrape = scrape::Sources {
        catalog: catalog.clone(),
        tables: tables.clone(),
        copies: copies.clone(),
        members: cluster.members.clone(),
        rejected: cluster.rejected.clone(),
        definitions: services.definitions.clone(),
        node_checks: services.node_checks.clone(),
        own: services.own.clone(),
        cache: resolution.recursion.as_ref().map(|recursion| recursion.cache.clone()),
        clients: connections,
        records: records.clone(),
    };
    let sources = blocking::Sources {
        catalog,
        members: cluster.members.clone(),
        files: folders.reports(),
        maintenance: services.maintenance.clone(),
        keys: cluster.keyring.clone(),
        address_problem,
        zone_problems,
    };
    let queries = BlockingQueries::new(sources, context.metrics.http.clone(), context.shutdown.clone());
    context.tasks.spawn("blocking queries", queries.clone().run());
    http::Api {
        agent: Arc::new(facts(context.config, cluster.address, dns, listeners.addresses())),
        events: cluster.events.clone(),
        queries,
        report_texts: services.report_texts.clone(),
        commands: Commands {
            cluster: cluster.commands.clone(),
            registry: services.requests.sender(),
            daemon: control,
            store,
        },
        guard,
        zones: zones::Sources {
            tables: tables.clone(),
            copies,
            secondary: context.config.dns.secondary.clone().into(),
            notified: notifying.secondaries.into(),
            serials: notifying.serials,
            requests: notifying.requests,
            records: zones::RecordCounter::new(move |tables, zone| records.newest(tables, zone)),
        },
        explain: explain::Sources {
            tables,
            recursion: resolution.recursion,
            upstreams: resolution.upstreams,
            services: context.config.services_dir.clone(),
        },
        scrape: scrape.scrape(context.metrics.clone()),
        metrics: context.metrics.http.clone(),
        stopping,
    }
}

/// Returns the constants of this agent, which is bound to these addresses.
fn facts(config: &Config, gossip: SocketAddr, dns: Vec<SocketAddr>, http: Vec<SocketAddr>) -> http::Agent {
    http::Agent {
        node: config.node.clone(),
        datacenter: config.datacenter.clone(),
        zone: config.zone.clone(),
        domain: config.domain.clone(),
        meta: config.meta.clone(),
        version: VERSION,
        consul_version: config.http.consul_version.clone(),
        advertise: config.advertise.clone(),
        allow_link_local: config.checks.allow_link_local,
        allow_exec: config.checks.allow_exec.over_http(),
        gossip,
        dns,
        http,
    }
}

/// Follows the token files, if `http.tokens_dir` is set.
async fn guard(context: &mut Context<'_>, folders: &mut Folders) -> Guard {
    let path = context.config.http.tokens_dir.clone()?;
    let names = ["token file watcher", "token file reader"];
    let tokens =
        folders.follow(tokens::folder(path), TokenFiles::default(), Folder::Tokens, names, &mut context.tasks).await;
    if tokens.borrow().is_empty() {
        warn!("no valid token for the HTTP API: it rejects every request over TCP");
    }
    Some(tokens)
}

fn listen(context: &mut Context<'_>, listeners: Listeners, server: Server) -> Result<(), DaemonError> {
    let config = context.config;
    let mut tls = None;
    if let Some((chain, key)) = &config.http.tls {
        let failed = |error: String| DaemonError::ApiCertificate(error);
        let (certificate, octets) = Certificate::read(chain, key).map_err(|error| failed(error.to_string()))?;
        let settings = certificate.config(&[b"http/1.1"]).map_err(|error| failed(error.to_string()))?;
        tls = Some(TlsAcceptor::from(settings));
        context
            .tasks
            .spawn("HTTP certificate reloader", Arc::clone(&certificate).follow(octets, context.shutdown.clone()));
    }
    let failed = |error| DaemonError::Serve { purpose: Purpose::Http, error };
    for listener in listeners.tcp {
        let listener = Listener::Tcp(TcpListener::from_std(listener).map_err(failed)?, tls.clone());
        context.tasks.spawn("HTTP server", server::serve(listener, server.clone()));
    }
    if let Some(listener) = listeners.unix {
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        context.tasks.spawn("HTTP server on the Unix socket", server::serve(Listener::Unix(listener), server));
    }
    Ok(())
}
