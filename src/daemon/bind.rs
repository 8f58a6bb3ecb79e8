//! Binds every socket before anything else starts, so that a taken port ends the agent at once.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use tokio::net::TcpListener;
use tracing::info;

use super::{DaemonError, Purpose, encrypted, http_api};
use crate::{
    config::Config,
    dns::server::{tcp, udp},
    gossip::transport,
};

/// Attempts to find a port that is free for UDP and TCP where the configuration leaves the choice to the kernel.
const PORT_ATTEMPTS: usize = 20;

/// All sockets of an agent.
pub(super) struct Sockets {
    /// DNS over UDP and TCP, one per address.
    pub(super) dns: Vec<Listener>,
    /// DNS over TLS, HTTPS and QUIC, if configured.
    pub(super) encrypted: Option<encrypted::Listeners>,
    /// Gossip over UDP and TCP.
    pub(super) gossip: transport::Sockets,
    /// The HTTP API.
    pub(super) http: http_api::Listeners,
}

/// A DNS address, bound for UDP and TCP on one port.
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    /// One socket per worker thread.
    pub(super) datagrams: Vec<UdpSocket>,
    pub(super) connections: TcpListener,
}

/// Binds the sockets that the configuration names.
pub(super) async fn bind(config: &Config) -> Result<Sockets, DaemonError> {
    let payload = config.dns.udp_payload;
    Ok(Sockets {
        dns: config.dns.listen.iter().map(|address| bind_dns(*address, payload)).collect::<Result<_, _>>()?,
        encrypted: encrypted::bind(config).await?,
        gossip: bind_gossip(config.gossip.listen)?,
        http: http_api::bind(config)?,
    })
}

/// `payload` is the largest UDP response in octets, which sizes the socket buffers.
fn bind_dns(address: SocketAddr, payload: u16) -> Result<Listener, DaemonError> {
    let both = |address| {
        let connections = tcp::bind(address)?;
        let address = connections.local_addr()?;
        let datagrams = udp::bind(address, udp::workers(), payload)?;
        Ok(Listener { address, datagrams, connections })
    };
    let bound = try_ports(address, both);
    let listener = bound.map_err(|error| DaemonError::Listen { purpose: Purpose::Dns, address, error })?;
    info!(address = %listener.address, "listening for DNS over UDP and TCP");
    Ok(listener)
}

fn bind_gossip(address: SocketAddr) -> Result<transport::Sockets, DaemonError> {
    let failed = |error| DaemonError::Listen { purpose: Purpose::Gossip, address, error };
    let sockets = try_ports(address, transport::Sockets::bind).map_err(failed)?;
    let local = sockets.local_addr().map_err(failed)?;
    info!(address = %local, "listening for gossip over UDP and TCP");
    Ok(sockets)
}

/// Binds UDP and TCP on one port. If the kernel chooses the port, the one for TCP may be taken for UDP: tries others then.
fn try_ports<T>(address: SocketAddr, bind: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let mut bound = bind(address);
    if address.port() == 0 {
        for _ in 0..PORT_ATTEMPTS {
            match &bound {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => bound = bind(address),
                _ => break,
            }
        }
    }
    bound
}
