//! DNS over TLS, HTTPS and QUIC: loads the certificate, serves each address.

use std::net;

use tokio::net::{TcpListener, UdpSocket};

use super::{
    Context,
    error::{DaemonError, Purpose},
};
use crate::{
    config::Encrypted,
    dns::{
        engine::Engine,
        server::{
            encrypted::{serve_https, serve_quic, serve_tls},
            tcp::Shared,
        },
    },
    metrics::{Transport, Writers},
    tls::certificate::Certificate,
};

/// Bound listeners.
pub(super) struct Listeners {
    pub(super) tls: Vec<net::TcpListener>,
    pub(super) https: Vec<net::TcpListener>,
    pub(super) quic: Vec<net::UdpSocket>,
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
    let tls = |protocol| certificate.config(&[protocol]).map_err(|error| DaemonError::Certificate(error.to_string()));
    let failed = |purpose| move |error| DaemonError::Serve { purpose, error };
    let dns = context.metrics.dns.clone();
    let counted = |transport| Shared { tally: dns.tally(transport, Writers::Many), ..shared.clone() };
    for listener in listeners.tls {
        let listener = TcpListener::from_std(listener).map_err(failed(Purpose::Tls))?;
        let shared = counted(Transport::Tls);
        context.tasks.spawn("DNS over TLS", serve_tls(listener, shared, engine.clone(), tls(b"dot")?));
    }
    for listener in listeners.https {
        let listener = TcpListener::from_std(listener).map_err(failed(Purpose::Https))?;
        let shared = counted(Transport::Https);
        context.tasks.spawn("DNS over HTTPS", serve_https(listener, shared, engine.clone(), tls(b"h2")?));
    }
    for socket in listeners.quic {
        let socket = UdpSocket::from_std(socket).map_err(failed(Purpose::Quic))?;
        let shared = counted(Transport::Quic);
        context.tasks.spawn("DNS over QUIC", serve_quic(socket, shared, engine.clone(), tls(b"doq")?));
    }
    context.tasks.spawn("DNS certificate reloader", certificate.clone().follow(octets, shared.shutdown.clone()));
    Ok(())
}
