//! DNS over TLS, HTTPS and QUIC: binds the listeners, loads the certificate, serves each address.

use std::net::SocketAddr;

use tokio::net::{TcpListener, UdpSocket};
use tracing::info;

use super::{
    Context,
    error::{DaemonError, Purpose},
};
use crate::{
    config::{Config, Encrypted},
    dns::{
        engine::Engine,
        server::{
            encrypted::{serve_https, serve_quic, serve_tls},
            tcp::{self, Shared},
        },
    },
    metrics::{Transport, Writers},
    tls::certificate::Certificate,
};

/// Bound listeners.
pub(super) struct Listeners {
    tls: Vec<TcpListener>,
    https: Vec<TcpListener>,
    quic: Vec<UdpSocket>,
}

/// Binds the listeners that the configuration names; `None` if there are none.
pub(super) async fn bind(config: &Config) -> Result<Option<Listeners>, DaemonError> {
    let Some(Encrypted { tls, https, quic, .. }) = &config.dns.encrypted else { return Ok(None) };
    let stream = |purpose: Purpose| {
        move |address: &SocketAddr| {
            let listener =
                tcp::bind(*address).map_err(|error| DaemonError::Listen { purpose, address: *address, error })?;
            info!(address = %listener.local_addr().unwrap_or(*address), "listening for {}", purpose.name());
            Ok(listener)
        }
    };
    let mut sockets = Vec::new();
    for address in quic {
        let failed = |error| DaemonError::Listen { purpose: Purpose::Quic, address: *address, error };
        let socket = UdpSocket::bind(address).await.map_err(failed)?;
        info!(address = %socket.local_addr().unwrap_or(*address), "listening for DNS over QUIC");
        sockets.push(socket);
    }
    Ok(Some(Listeners {
        tls: tls.iter().map(stream(Purpose::Tls)).collect::<Result<_, _>>()?,
        https: https.iter().map(stream(Purpose::Https)).collect::<Result<_, _>>()?,
        quic: sockets,
    }))
}

/// Starts one server per listener, all with one certificate.
pub(super) fn serve<E>(
    context: &mut Context<'_>,
    listeners: Listeners,
    shared: &Shared,
    engine: &E,
) -> Result<(), DaemonError>
where
    E: Fn() -> Engine + Clone + Send + Sync + Unpin + 'static,
{
    let Some(Encrypted { certificate, key, .. }) = &context.config.dns.encrypted else { return Ok(()) };
    let (certificate, octets) =
        Certificate::read(certificate, key).map_err(|error| DaemonError::Certificate(error.to_string()))?;
    let tls = |protocol| certificate.config(protocol).map_err(|error| DaemonError::Certificate(error.to_string()));
    let dns = context.metrics.dns.clone();
    let counted = |transport| Shared { tally: dns.tally(transport, Writers::Many), ..shared.clone() };
    for listener in listeners.tls {
        let shared = counted(Transport::Tls);
        context.tasks.spawn("DNS over TLS", serve_tls(listener, shared, engine.clone(), tls(b"dot")?));
    }
    for listener in listeners.https {
        let shared = counted(Transport::Https);
        context.tasks.spawn("DNS over HTTPS", serve_https(listener, shared, engine.clone(), tls(b"h2")?));
    }
    for socket in listeners.quic {
        let shared = counted(Transport::Quic);
        context.tasks.spawn("DNS over QUIC", serve_quic(socket, shared, engine.clone(), tls(b"doq")?));
    }
    context.tasks.spawn("DNS certificate reloader", certificate.clone().follow(octets, shared.shutdown.clone()));
    Ok(())
}
