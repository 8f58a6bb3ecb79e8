//! Serves DNS on all transports, with one engine configuration. Datagrams are served first: connections wait in the sockets.

use std::{
    net::{self, SocketAddr},
    sync::Arc,
};

use arc_swap::ArcSwap;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::TcpListener;

use super::{Context, DaemonError, Purpose, bind::DnsListener, encrypted};
use crate::{
    config::Config,
    dns::{
        dnssec::signer::Signer,
        engine::{Audience, Engine, Settings, first_exchange::FirstExchange, rrl::ResponseRateLimiter},
        message::cookie::Secret,
        recursion::Recursion,
        server::{backends::Backends, connection_quota::ConnectionQuota, tcp, udp},
        zone::Tables,
    },
    metrics::{Dnssec, Transport, Writers},
};

/// DNS servers, of which those of datagrams are started.
pub(super) struct Started {
    settings: Arc<Settings>,
    backends: Backends,
    connections: Vec<(SocketAddr, net::TcpListener)>,
}

/// Starts the servers of datagrams. Answers that a peer may add to wait until `first_exchange` is over.
pub(super) fn serve_datagrams(
    context: &mut Context<'_>,
    listeners: Vec<DnsListener>,
    tables: &Arc<ArcSwap<Tables>>,
    settings: &Arc<Settings>,
    backends: Backends,
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
            let (engine, shutdown) = (engine.clone(), context.shutdown.clone());
            let metrics = &context.metrics.dns;
            let workers = udp::serve(socket, tables.clone(), engine, backends.clone(), metrics, shutdown);
            context.tasks.spawn("DNS over UDP", workers.map_err(failed)?);
        }
        waiting.push((address, connections));
    }
    Ok(Started { settings: settings.clone(), backends, connections: waiting })
}

/// Starts the servers of connections. Returns the quota that counts them.
pub(super) fn serve_connections(
    context: &mut Context<'_>,
    Started { settings, backends, connections }: Started,
    encrypted: encrypted::Listeners,
    tables: &Arc<ArcSwap<Tables>>,
) -> Result<Arc<ConnectionQuota>, DaemonError> {
    let engine = move || Engine::with(settings.clone(), fastrand::Rng::new());
    let shared = tcp::Shared {
        tables: tables.clone(),
        clients: ConnectionQuota::new(tcp::most_connections()),
        backends,
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
    signatures: Dnssec,
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
        signer: (!config.dns.dnssec.is_empty())
            .then(|| Arc::new(Signer::new(Box::new(SystemRandom::new()), signatures))),
        serves_transfers: !config.dns.transfer.allow.is_empty()
            || config.dns.keys_dir.is_some()
            || !config.dns.secondary.is_empty(),
        serves_updates: !config.dns.dynamic.is_empty(),
    }))
}
