//! Defaults of the configuration that depend on the host: its name and its address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use crate::config::Environment;

/// The host's name and the address of its default route's interface.
pub fn environment() -> Environment {
    // uname rather than /proc/sys, which the systemd unit hides (ProcSubset=pid).
    let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Environment { host_name, default_address: default_address() }
}

/// The source address of packets on the default route. Connecting a UDP socket looks up the route and sends no packet; the
/// target is a documentation address (RFC 5737).
fn default_address() -> IpAddr {
    let source = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    };
    let address: std::io::Result<SocketAddr> = source();
    address.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}
