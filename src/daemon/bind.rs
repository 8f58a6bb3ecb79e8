//! Binds every socket before anything else starts, so that a taken port ends the agent at once. Listeners that are open
//! already stay as they are.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::Path,
};

use tracing::info;

use super::{
    DaemonError, Purpose,
    sockets::{Binding, SocketName, SocketPool},
};
use crate::{
    config::{Config, Encrypted},
    dns::server::{tcp, udp},
    gossip::transport,
    http::server,
};

/// Attempts to find a port that is free for UDP and TCP where the configuration leaves the choice to the kernel.
const PORT_ATTEMPTS: usize = 20;

/// All sockets of an agent, non-blocking.
pub(super) struct Sockets {
    /// DNS over UDP and TCP, one per address.
    pub(super) dns: Vec<DnsListener>,
    /// DNS over TLS.
    pub(super) tls: Vec<TcpListener>,
    /// DNS over HTTPS.
    pub(super) https: Vec<TcpListener>,
    /// DNS over QUIC.
    pub(super) quic: Vec<UdpSocket>,
    /// Gossip over UDP and TCP.
    pub(super) gossip: (UdpSocket, TcpListener),
    /// The HTTP API.
    pub(super) http: Vec<TcpListener>,
    /// The HTTP API on a Unix socket.
    pub(super) unix: Option<UnixListener>,
    /// etcd's API.
    pub(super) etcd: Vec<TcpListener>,
}

/// A DNS address, bound for UDP and TCP on one port.
pub(super) struct DnsListener {
    pub(super) address: SocketAddr,
    /// One socket per worker thread.
    pub(super) datagrams: Vec<UdpSocket>,
    pub(super) connections: TcpListener,
}

/// Binds the sockets that the configuration names and that are not `open`. Returns the sockets for the stages, and the pool
/// that holds them open.
pub(super) fn bind(config: &Config, open: &SocketPool) -> Result<(Sockets, SocketPool), DaemonError> {
    let mut binding = Binding::new(open);
    let none: &[SocketAddr] = &[];
    let (tls, https, quic) = match &config.dns.encrypted {
        Some(Encrypted { tls, https, quic, .. }) => (tls.as_slice(), https.as_slice(), quic.as_slice()),
        None => (none, none, none),
    };
    let payload = config.dns.udp_payload;
    let dns =
        config.dns.listen.iter().map(|address| bind_dns(&mut binding, *address, payload)).collect::<Result<_, _>>()?;
    let quic = quic.iter().map(|address| bind_quic(&mut binding, *address)).collect::<Result<_, _>>()?;
    let mut streams = |purpose, addresses: &[SocketAddr], bind: fn(SocketAddr) -> io::Result<TcpListener>| {
        let listeners = addresses.iter().map(|address| bind_stream(&mut binding, purpose, *address, bind));
        listeners.collect::<Result<Vec<_>, _>>()
    };
    let tls = streams(Purpose::Tls, tls, tcp::bind)?;
    let https = streams(Purpose::Https, https, tcp::bind)?;
    let http = streams(Purpose::Http, &config.http.listen, server::bind)?;
    let etcd = streams(Purpose::Etcd, etcd_addresses(config), server::bind)?;
    let gossip = bind_gossip(&mut binding, config.gossip.listen)?;
    let unix = config.http.socket.as_deref().map(|path| bind_unix(&mut binding, path)).transpose()?;
    Ok((Sockets { dns, tls, https, quic, gossip, http, unix, etcd }, binding.finish()))
}

/// Names of the listeners that the configuration names.
pub(super) fn names(config: &Config) -> Vec<SocketName> {
    let mut names: Vec<_> =
        config.dns.listen.iter().flat_map(|address| SocketName::pair(Purpose::Dns, *address)).collect();
    if let Some(Encrypted { tls, https, quic, .. }) = &config.dns.encrypted {
        names.extend(tls.iter().map(|address| SocketName::Tcp(Purpose::Tls, *address)));
        names.extend(https.iter().map(|address| SocketName::Tcp(Purpose::Https, *address)));
        names.extend(quic.iter().map(|address| SocketName::Udp(Purpose::Quic, *address)));
    }
    names.extend(SocketName::pair(Purpose::Gossip, config.gossip.listen));
    names.extend(config.http.listen.iter().map(|address| SocketName::Tcp(Purpose::Http, *address)));
    names.extend(config.http.socket.clone().map(SocketName::Unix));
    names.extend(etcd_addresses(config).iter().map(|address| SocketName::Tcp(Purpose::Etcd, *address)));
    names
}

fn etcd_addresses(config: &Config) -> &[SocketAddr] {
    let etcd = config.store.as_ref().and_then(|store| store.etcd.as_ref());
    etcd.map_or(&[], |etcd| etcd.listen.as_slice())
}

/// `payload` is the largest UDP response in octets, which sizes the socket buffers.
fn bind_dns(binding: &mut Binding<'_>, address: SocketAddr, payload: u16) -> Result<DnsListener, DaemonError> {
    let both = |address| {
        let connections = tcp::bind(address)?;
        let local = connections.local_addr()?;
        let datagrams = udp::bind(local, udp::workers(), payload)?;
        info!(address = %local, "listening for DNS over UDP and TCP");
        Ok([owned(datagrams), owned([connections])])
    };
    let names = SocketName::pair(Purpose::Dns, address);
    let listener = || {
        let [datagrams, connections] = binding.obtain(names, || try_ports(address, both))?;
        let (datagrams, connections) = (taken::<UdpSocket>(datagrams), only::<TcpListener>(connections)?);
        datagrams.iter().try_for_each(|socket| udp::set_payload(socket, payload))?;
        Ok(DnsListener { address: connections.local_addr()?, datagrams, connections })
    };
    listener().map_err(|error| DaemonError::Listen { purpose: Purpose::Dns, address, error })
}

fn bind_gossip(binding: &mut Binding<'_>, address: SocketAddr) -> Result<(UdpSocket, TcpListener), DaemonError> {
    let names = SocketName::pair(Purpose::Gossip, address);
    let bind = || {
        let (udp, tcp) = try_ports(address, transport::bind)?;
        info!(address = %udp.local_addr()?, "listening for gossip over UDP and TCP");
        Ok([owned([udp]), owned([tcp])])
    };
    let bound = binding.obtain(names, bind).and_then(|[udp, tcp]| Ok((only(udp)?, only(tcp)?)));
    bound.map_err(|error| DaemonError::Listen { purpose: Purpose::Gossip, address, error })
}

fn bind_stream(
    binding: &mut Binding<'_>,
    purpose: Purpose,
    address: SocketAddr,
    bind: fn(SocketAddr) -> io::Result<TcpListener>,
) -> Result<TcpListener, DaemonError> {
    let names = [SocketName::Tcp(purpose, address)];
    let bind = || {
        let listener = bind(address)?;
        info!(address = %listener.local_addr()?, "listening for {}", purpose.name());
        Ok([owned([listener])])
    };
    let bound = binding.obtain(names, bind).and_then(|[listener]| only(listener));
    bound.map_err(|error| DaemonError::Listen { purpose, address, error })
}

fn bind_quic(binding: &mut Binding<'_>, address: SocketAddr) -> Result<UdpSocket, DaemonError> {
    let names = [SocketName::Udp(Purpose::Quic, address)];
    let bind = || {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        info!(address = %socket.local_addr()?, "listening for DNS over QUIC");
        Ok([owned([socket])])
    };
    let bound = binding.obtain(names, bind).and_then(|[socket]| only(socket));
    bound.map_err(|error| DaemonError::Listen { purpose: Purpose::Quic, address, error })
}

fn bind_unix(binding: &mut Binding<'_>, path: &Path) -> Result<UnixListener, DaemonError> {
    let names = [SocketName::Unix(path.to_owned())];
    let bind = || {
        let listener = server::bind_unix(path)?;
        info!(path = %path.display(), "listening for HTTP on a Unix socket");
        Ok([owned([listener])])
    };
    // The path of an open socket may be gone with its directory.
    let bound = if path.exists() { binding.obtain(names, bind) } else { binding.bind(names, bind) };
    let bound = bound.and_then(|[listener]| only(listener));
    bound.map_err(|error| DaemonError::Socket { path: path.to_owned(), error })
}

fn owned<S: Into<OwnedFd>>(sockets: impl IntoIterator<Item = S>) -> Vec<OwnedFd> {
    sockets.into_iter().map(Into::into).collect()
}

fn taken<S: From<OwnedFd>>(sockets: Vec<OwnedFd>) -> Vec<S> {
    sockets.into_iter().map(S::from).collect()
}

/// Returns the one socket of a listener.
fn only<S: From<OwnedFd>>(sockets: Vec<OwnedFd>) -> io::Result<S> {
    sockets.into_iter().next().map(S::from).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{config::Environment, model::host_addresses::HostAddresses};

    #[test]
    fn names_are_those_of_the_bound_listeners() {
        let folder = tempfile::tempdir().unwrap();
        let text = "
node: host-a
dns:
  listen: [127.0.0.1:0, 127.0.0.2:0]
  encrypted: {tls: [127.0.0.1:0], https: [127.0.0.1:0], quic: [127.0.0.1:0], certificate: c, key: k}
http: {listen: [127.0.0.1:0], socket: api.sock}
gossip: {listen: 127.0.0.1:0}
store: {voters: [host-a], etcd: {listen: [127.0.0.1:0]}}
";
        let path = folder.path().join("muster.yaml");
        let environment = Environment {
            host_name: "host-a".to_owned(),
            addresses: HostAddresses::default(),
            in_use: None,
            runtime_dir: None,
        };
        let files = [(path.as_path(), text.as_bytes())];
        let config = Config::parse(files, &environment).unwrap();
        let (_, pool) = bind(&config, &SocketPool::default()).unwrap();
        let bound: BTreeSet<SocketName> = pool.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(names(&config).into_iter().collect::<BTreeSet<_>>(), bound);
        assert_eq!(bound.len(), 12);
    }
}
