//! The stages of a running agent: bind, load, start, serve; and their end.
//!
//! Each stage is a group of tasks. The groups end in an order that keeps answers flowing: the servers of the former stages
//! answer until those of the new stages do, so that no query waits for a reload.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};

use super::{
    Context, DaemonError, Lasting, NODE_END, NextRun, addresses,
    answers::{self, Waits},
    bind,
    cluster::{self, Cluster},
    data_dir_report, dns, dnssec, dnstap,
    drain::Drain,
    dynamic_zones, encrypted, etcd_api,
    folders::Folders,
    handover::{Handover, Run},
    http_api,
    local_services::{self, LocalServices},
    resolver,
    sockets::SocketPool,
    state_store,
    tasks::Tasks,
    transfers, zone_problems,
};
use crate::{
    config::Config,
    control::Control,
    diagnostic::Diagnostic,
    dns::{
        publish,
        server::{
            backends::Backends,
            updates::{self, Updates},
        },
        zone::Tables,
    },
    gossip::{
        command::Command,
        known_peer::KnownPeer,
        node::{End, initial_zone_serials},
    },
    model::{
        catalog::{Catalog, View},
        host_addresses::HostAddresses,
    },
    saved_state::SavedState,
};

/// Maximum wait for the first exchange with a peer. Afterwards a host that boots alone answers what it last knew. Own
/// instances are answered by their names meanwhile.
const FIRST_EXCHANGE: Duration = Duration::from_secs(2);
/// Maximum wait for the dynamic zones from the store: longer than most elections. Afterwards those of this node's copy are answered.
const FIRST_UPDATES: Duration = Duration::from_secs(3);
/// Maximum wait until the tables have what the first exchange brought.
const PUBLICATION: Duration = Duration::from_millis(500);
/// Time limit for open connections and probes at a stop; systemd sends SIGKILL after 90 s.
const STOP: Duration = Duration::from_secs(5);
/// Time limit for open requests after a reload: the request for the reload is one of them.
const REQUESTS: Duration = Duration::from_secs(30);
/// Time limit for open connections before an upgrade. Queries over UDP are answered meanwhile.
const CONNECTIONS: Duration = Duration::from_secs(2);
/// Time limit for queries at upstreams before an upgrade. New queries wait in the sockets meanwhile.
const IN_FLIGHT: Duration = Duration::from_secs(1);

/// A running agent.
pub(super) struct Stages {
    /// Gossip, checks and files.
    core: Group,
    servers: Servers,
    folders: Folders,
    /// The open sockets.
    pub(super) sockets: SocketPool,
    pub(super) services: LocalServices,
    pub(super) cluster: Cluster,
    /// The addresses of the host.
    pub(super) host: watch::Receiver<HostAddresses>,
    /// Withdraws all instances of the node.
    drain: CancellationToken,
    /// Set when the agent begins to drain or to stop.
    stopping: CancellationToken,
    /// Peers at the start, for the case that the node ends by itself.
    known: Vec<KnownPeer>,
    /// What another start goes on with.
    state: state_store::Sources,
}

/// Outcome of a start of the stages.
pub(super) enum Started {
    /// The agent answers.
    Running(Box<Stages>),
    /// Peers know a higher generation of this node: nothing but names of own instances was answered, and the stages have to
    /// start with a run above it.
    Superseded(u64),
}

/// The servers of a running agent.
pub(super) struct Servers {
    http: Group,
    /// DNS over TCP, TLS, HTTPS and QUIC.
    connections: Group,
    /// DNS over UDP.
    datagrams: Group,
    resolver: Group,
}

/// Tasks that end together, at the latest when the group is dropped.
pub(super) struct Group {
    shutdown: CancellationToken,
    tasks: Tasks,
    _guard: DropGuard,
}

impl Context<'_> {
    fn into_group(self) -> Group {
        let Self { shutdown, tasks, .. } = self;
        Group { _guard: shutdown.clone().drop_guard(), shutdown, tasks }
    }
}

impl Group {
    /// Ends the tasks, within `limit`.
    async fn end(&mut self, limit: Duration) {
        self.shutdown.cancel();
        if timeout(limit, async { while self.tasks.ended().await.is_some() {} }).await.is_err() {
            warn!("some tasks did not end within {limit:?}; going on without them");
        }
    }

    /// Waits for the first task that ends by itself.
    async fn ended(&mut self) -> &'static str {
        match self.tasks.ended().await {
            Some(name) => name,
            // A group without tasks.
            None => std::future::pending().await,
        }
    }
}

impl Servers {
    /// Lets the servers answer what they have received, in the background.
    pub(super) fn retire(mut self) {
        tokio::spawn(async move { self.end(REQUESTS).await });
    }

    /// Ends the servers before the process ends.
    pub(super) async fn end_process(mut self) {
        self.end(STOP).await;
    }

    /// Ends the servers of datagrams before an upgrade; those of connections have ended.
    pub(super) async fn end_for_upgrade(mut self) {
        self.datagrams.end(IN_FLIGHT).await;
        self.resolver.end(STOP).await;
    }

    /// Ends the servers. All stop to receive at once, since their tables are no longer updated. The resolver ends last, when
    /// no query waits for it. `requests` is the time limit for open requests to the API.
    async fn end(&mut self, requests: Duration) {
        let Self { http, connections, datagrams, resolver } = self;
        let dns = async {
            tokio::join!(connections.end(STOP), datagrams.end(STOP));
            resolver.end(STOP).await;
        };
        tokio::join!(http.end(requests), dns);
    }
}

impl Stages {
    /// Starts all stages. The handover stays as it is, so that a failure can go back to it.
    pub(super) async fn start(
        lasting: &Lasting,
        config: &Config,
        handover: &Handover,
        control: &mpsc::Sender<Control>,
    ) -> Result<Started, DaemonError> {
        let context = || Context {
            config,
            data_dir: lasting.data_dir.clone(),
            metrics: lasting.metrics.clone(),
            shutdown: CancellationToken::new(),
            tasks: Tasks::default(),
        };
        let (mut core, mut http) = (context(), context());
        let (mut connections, mut datagrams, mut upstreams) = (context(), context(), context());
        let (drain, stopping) = (CancellationToken::new(), CancellationToken::new());

        // Bind.
        let (sockets, pool) = bind::bind(config, &handover.sockets)?;
        let serial = answers::resume_serial(&lasting.data_dir);
        let ceiling = watch::Sender::new(serial.ceiling());
        core.tasks.spawn("data directory", lasting.data_dir.clone().retry(core.shutdown.clone()));
        core.tasks.spawn(
            "data directory reporter",
            data_dir_report::run(lasting.data_dir.clone(), lasting.reports.clone(), core.shutdown.clone()),
        );

        let addresses = addresses::follow(&mut core);

        // Load.
        let state_store::Loaded { state, former } = state_store::load(&lasting.data_dir, handover);
        let former_texts = state.files.iter().chain(&state.valid_files).cloned().collect();
        let mut folders = Folders::new(&core, lasting.reports.clone(), former_texts);
        let files = folders.load(&mut core).await;
        let keys = transfers::keys(&mut core, &mut folders).await;
        let store = lasting.store.as_ref().map(|store| &store.store);
        let (zones, updates) = dynamic_zones::start(&mut core, store, files.zones);
        let dns_addresses: Vec<_> = sockets.dns.iter().map(|listener| listener.address).collect();
        let secondary = transfers::secondary_zones(&mut core, &keys, &dns_addresses, zones);
        let zone_keys = dnssec::follow(&mut core, &mut folders).await;

        // Start.
        let services = local_services::start(
            &mut core,
            files.services,
            handover.requests.clone(),
            &drain,
            former,
            state.hosts.clone(),
        )
        .await;
        let serves = !config.dns.transfer.allow.is_empty();
        let outgoing = match handover.run {
            Some(_) => {
                let peers = initial_zone_serials(&state.peers, true);
                publish::Transfers::continuing(serves, &config.node, &peers, &serial)
            }
            None => publish::Transfers::new(serves),
        };
        let begin = cluster::Begin {
            run: handover.run,
            above: handover.above,
            peers: state.peers.clone(),
            serial_ceiling: ceiling.subscribe(),
            zone_serial: outgoing.announced.subscribe(),
        };
        let connections_of_store = lasting.store.as_ref().map(|store| store.connections.clone());
        let mut cluster = cluster::start(&mut core, sockets.gossip, services.own.clone(), begin, connections_of_store)?;
        services.follow_ttls(&mut core, cluster.members.clone());
        let sources = publish::Sources {
            view: cluster.view.clone(),
            zones: secondary.zones,
            former_serial: cluster.former_serial.clone(),
            zone_serials: cluster.zone_serials.clone(),
            keys: zone_keys,
        };
        let is_new = handover.run.is_none();
        let waits = Waits { peers: is_new && !cluster.is_alone, updates: is_new && updates.is_some() };
        let (published, awaited) = answers::publish(&mut core, serial, ceiling, sources, outgoing.clone(), waits);
        if let Some(store) = &lasting.store {
            store.follow(&mut core, &cluster, published.catalog.clone());
        }
        let (tables, changed) = (published.tables.clone(), outgoing.published.subscribe());
        let zone_problems = zone_problems::start(&mut core, tables, changed);
        let tap = dnstap::start(&mut upstreams);
        let resolution = resolver::start(&mut upstreams, dns_addresses.clone(), &published.tables, &tap).await?;
        services.look_up_hosts(config, &published.tables, &resolution);
        let sources = state_store::Sources {
            commands: cluster.commands.clone(),
            view: cluster.view.clone(),
            results: services.results.clone(),
            known_hosts: services.known_hosts.clone(),
            last_valid: folders.last_valid(),
        };
        let storing = state_store::run(sources.clone(), lasting.data_dir.clone(), core.shutdown.clone());
        core.tasks.spawn("state store", storing);
        let bind::Sockets { dns, tls, https, quic, http: tcp, unix, etcd, .. } = sockets;
        let tables = &published.tables;
        let engine = dns::engine_settings(config, resolution.recursion.clone(), lasting.metrics.dnssec.clone())?;
        let for_updates = updates.clone().filter(|_| waits.updates);
        let server = transfers::server(&datagrams, &keys, &outgoing, tables, &engine, updates, secondary.notified);
        let backends = Backends { resolver: resolution.resolver.clone(), transfers: server, tap };
        let started = dns::serve_datagrams(&mut datagrams, dns, tables, &engine, backends, awaited.clone())?;
        if let Some(awaited) = awaited {
            let (ended, ()) = tokio::join!(
                async {
                    waits.peers
                        && !first_exchange(cluster.synced.clone(), &cluster.view, published.catalog.clone()).await
                },
                first_updates(for_updates, &published.tables, &outgoing),
            );
            // This run knows neither the view of its peers nor the serials of the former run.
            if ended && let Ok(Ok(End::Superseded { above })) = timeout(NODE_END, &mut cluster.ended).await {
                let [mut core, mut datagrams, mut upstreams] = [core, datagrams, upstreams].map(Context::into_group);
                datagrams.end(IN_FLIGHT).await;
                tokio::join!(core.end(STOP), upstreams.end(STOP));
                return Ok(Started::Superseded(above));
            }
            awaited.end();
        }

        // Serve.
        let notifying = transfers::notify(&mut connections, keys, &outgoing, tables, &dns_addresses);
        let encrypted = encrypted::Listeners { tls, https, quic };
        let quota = dns::serve_connections(&mut connections, started, encrypted, tables)?;
        let shown = http_api::Shown {
            address_problem: addresses.problem,
            zone_problems,
            services: &services,
            cluster: &cluster,
            published,
            copies: secondary.copies,
            notifying,
            resolution,
            connections: quota,
            dns: dns_addresses,
            control: control.clone(),
            stopping: stopping.clone(),
            store: lasting.store.as_ref().map(|store| store.store.clone()),
        };
        let guard = http_api::serve(&mut http, http_api::Listeners { tcp, unix }, &mut folders, shown).await?;
        if let Some(store) = &lasting.store {
            etcd_api::serve(&mut http, etcd, &store.store, &guard, cluster.members.clone())?;
        }
        info!(node = %config.node, domain = %config.domain, services = services.loaded, "answering");
        let servers = Servers {
            http: http.into_group(),
            connections: connections.into_group(),
            datagrams: datagrams.into_group(),
            resolver: upstreams.into_group(),
        };
        let stages = Self {
            core: core.into_group(),
            servers,
            folders,
            sockets: pool,
            services,
            cluster,
            host: addresses.host,
            drain,
            stopping,
            known: state.peers,
            state: sources,
        };
        Ok(Started::Running(Box::new(stages)))
    }

    /// Waits for the first task that ends by itself and returns its name. The end of the node has a reason of its own.
    pub(super) async fn ended(&mut self) -> &'static str {
        let Servers { http, connections, datagrams, resolver } = &mut self.servers;
        tokio::select! {
            name = self.core.ended() => name,
            name = http.ended() => name,
            name = connections.ended() => name,
            name = datagrams.ended() => name,
            name = resolver.ended() => name,
        }
    }

    /// Reads all files again and returns their problems.
    pub(super) async fn reread(&self) -> Vec<Diagnostic> {
        self.folders.reread().await
    }

    /// The current problems of all files.
    pub(super) fn file_problems(&self) -> Vec<Diagnostic> {
        self.folders.problems()
    }

    /// The run of the node if it goes on after another start.
    pub(super) fn next_run(&self) -> Option<Run> {
        self.cluster.run.next_incarnation()
    }

    /// The run of the node under another configuration: a changed gossip address needs a new one.
    pub(super) fn run_under(&self, active: &Config, config: &Config) -> NextRun {
        let address =
            |config: &Config| (config.gossip.listen, cluster::own_address(config, self.cluster.address.port()));
        if address(active) == address(config) { NextRun::Same } else { NextRun::Above(0) }
    }

    /// The state that another start would go on with.
    pub(super) async fn state(&self) -> SavedState {
        self.state.collect().await.unwrap_or_else(|| self.state.with_peers(Vec::new()))
    }

    /// Tells load balancers that the agent stops.
    pub(super) fn stopping(&self) {
        self.stopping.cancel();
    }

    /// Ends the servers of connections, within some seconds. The others go on.
    pub(super) async fn end_connections(&mut self) {
        let Servers { http, connections, .. } = &mut self.servers;
        tokio::join!(http.end(CONNECTIONS), connections.end(CONNECTIONS));
    }

    /// Begins to withdraw all instances of the node.
    pub(super) fn drain(&self) -> Drain {
        self.stopping.cancel();
        self.drain.cancel();
        let LocalServices { withdrawn, announcements, .. } = &self.services;
        Drain { withdrawn: withdrawn.clone(), announcements: announcements.clone() }
    }

    /// Ends all stages, within some seconds. The node leaves the cluster.
    pub(super) async fn end(mut self) {
        self.stopping.cancel();
        // No task takes the requests that it leaves.
        drop(self.services);
        tokio::join!(self.core.end(STOP), self.servers.end(STOP));
    }

    /// Ends the node without a leave, and everything but the servers, which go on answering. Without a `run` that goes on, the
    /// peers are told of a restart first.
    pub(super) async fn hand_over(mut self, run: Option<Run>) -> (Handover, Servers) {
        self.servers.http.shutdown.cancel();
        if run.is_none() {
            cluster::ask(&self.cluster.commands, |done| Command::AnnounceRestart { done }).await;
        }
        let peers = cluster::ask(&self.cluster.commands, |done| Command::Suspend { done }).await;
        self.core.end(STOP).await;
        // The results of the checks are final now.
        let known = std::mem::take(&mut self.known);
        let state = self.state.with_peers(peers.unwrap_or(known));
        let state = SavedState { valid_files: self.folders.valid(), ..state };
        let requests = self.services.requests;
        (Handover { sockets: self.sockets, run, state: Some(state), requests, ..Handover::default() }, self.servers)
    }
}

/// Waits until the tables have the dynamic zones as the store has them.
async fn first_updates(updates: Option<Updates>, tables: &Arc<ArcSwap<Tables>>, outgoing: &publish::Transfers) {
    let Some(updates) = updates else { return };
    let published = updates::Published { tables: tables.clone(), changes: outgoing.published.subscribe() };
    if timeout(FIRST_UPDATES, updates.reach(&published)).await.is_err() {
        warn!(
            "the store does not answer within {FIRST_UPDATES:?}: answering dynamic zones from the copy on this node, which may lack \
             the last updates before a crash"
        );
    }
}

/// Waits until this node knows what its peers announce, and until its tables have that. Returns false if the node has ended.
async fn first_exchange(
    mut synced: watch::Receiver<bool>,
    view: &watch::Receiver<View>,
    mut catalog: watch::Receiver<Catalog>,
) -> bool {
    match timeout(FIRST_EXCHANGE, synced.wait_for(|synced| *synced)).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) => return false,
        Err(_) => warn!("no exchange with a peer within {FIRST_EXCHANGE:?}: answering what was last known"),
    }
    let view = view.borrow().clone();
    let is_published = |catalog: &Catalog| {
        view.iter().all(|(name, known)| catalog.view().get(name).is_some_and(|shown| Arc::ptr_eq(shown, known)))
    };
    // A node that changes meanwhile is published with the change.
    if timeout(PUBLICATION, catalog.wait_for(is_published)).await.is_err() {
        debug!("the announcements of peers changed during the start");
    }
    true
}
