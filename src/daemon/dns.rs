//! Serves DNS on all transports, with one engine configuration. Datagrams are served first: connections wait in the sockets.

use std::{
    net::{self, SocketAddr},
    sync::Arc,
};

use arc_swap::ArcSwap;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::TcpListener;

use super::{Context, DaemonError, Purpose, bind::DnsListener, encrypted, resolver::Resolution};
use crate::{
    config::Config,
    dns::{
        engine::{Audience, Engine, Settings, first_exchange::FirstExchange, rrl::ResponseRateLimiter},
        message::cookie::Secret,
        recursion::Recursion,
        server::{connection_quota::ConnectionQuota, tcp, transfers::Transfers, udp},
        zone::Tables,
    },
    metrics::{Transport, Writers},
};

/// DNS servers, of which those of datagrams are started.
pub(super) struct Started {
    settings: Arc<Settings>,
    transfers: Option<Transfers>,
    connections: Vec<(SocketAddr, net::TcpListener)>,
}

/// Starts the servers of datagrams. Answers that a peer may add to wait until `first_exchange` is over.
pub(super) fn serve_datagrams(
    context: &mut Context<'_>,
    listeners: Vec<DnsListener>,
    tables: &Arc<ArcSwap<Tables>>,
    resolution: &Resolution,
    settings: &Arc<Settings>,
    transfers: &Option<Transfers>,
    first_exchange: Option<Arc<FirstExchange>>,
) -> Result<Started, DaemonError> {
    let engine = {
        let settings = settings.clone();
        move || Engine::with(settings.clone(), fastrand::Rng::new()).awaiting(first_exchange.clone())
    };
    let mut waiting = Vec::new();
    for DnsListener { address, datagrams, connections } in listeners {
        let failed = |error| DaemonError::Listen { purpose: Purpose::Dns, address, error };
        for socket in datagrams {
            let (resolver, shutdown) = (resolution.resolver.clone(), context.shutdown.clone());
            let (engine, transfers) = (engine.clone(), transfers.clone());
            let metrics = &context.metrics.dns;
            let workers = udp::serve(socket, tables.clone(), engine, resolver, transfers, metrics, shutdown);
            context.tasks.spawn("DNS over UDP", workers.map_err(failed)?);
        }
        waiting.push((address, connections));
    }
    Ok(Started { settings: settings.clone(), transfers: transfers.clone(), connections: waiting })
}

/// Starts the servers of connections. Returns the quota that counts them.
pub(super) fn serve_connections(
    context: &mut Context<'_>,
    Started { settings, transfers, connections }: Started,
    encrypted: encrypted::Listeners,
    tables: &Arc<ArcSwap<Tables>>,
    resolution: &Resolution,
) -> Result<Arc<ConnectionQuota>, DaemonError> {
    let engine = move || Engine::with(settings.clone(), fastrand::Rng::new());
    let shared = tcp::Shared {
        tables: tables.clone(),
        clients: ConnectionQuota::new(tcp::most_connections()),
        resolver: resolution.resolver.clone(),
        transfers,
        tally: context.metrics.dns.tally(Transport::Tcp, Writers::Many),
        shutdown: context.shutdown.clone(),
    };
    for (address, connections) in connections {
        let failed = |error| DaemonError::Listen { purpose: Purpose::Dns, address, error };
        let connections = TcpListener::from_std(connections).map_err(failed)?;
        context.tasks.spawn("DNS over TCP", tcp::serve(connections, shared.clone(), engine.clone()));
    }
    encrypted::serve(context, encrypted, &shared, &engine)?;
    Ok(shared.clients)
}

/// Returns the settings of all engines.
pub(super) fn engine_settings(
    config: &Config,
    recursion: Option<Arc<Recursion>>,
) -> Result<Arc<Settings>, DaemonError> {
    // A new secret at each start: a client with an old cookie receives a new one in the reply.
    let mut secret = [0; 16];
    SystemRandom::new().fill(&mut secret).map_err(|_| DaemonError::NoRandom)?;
    let (limit, unlimited) = (config.dns.rate_limit, config.resolver.unlimited_clients());
    Ok(Arc::new(Settings {
        udp_payload: config.dns.udp_payload,
        nsid: config.node.as_bytes().into(),
        secret: Some(Secret::new(secret)),
        limit: limit.map(|rate| ResponseRateLimiter::new(rate, unlimited, fastrand::u64(..))),
        recursion,
        audience: if config.advertise.is_usable() { Audience::Everyone } else { Audience::ThisHost },
        serves_transfers: !config.dns.transfer.allow.is_empty() || config.dns.keys_dir.is_some(),
    }))
}
