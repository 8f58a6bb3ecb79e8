//! What the host says of itself, for the defaults of the configuration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use crate::config::Environment;

/// The host's name and the address of its default route's interface.
pub fn environment() -> Environment {
    // Not from /proc, of which the unit shows nothing but processes.
    let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Environment { host_name, default_address: default_address() }
}

/// The address from which packets to the world would leave: connecting a UDP socket asks the routing table and sends
/// nothing. The target is of a network for documentation (RFC 5737).
fn default_address() -> IpAddr {
    let ask = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    };
    let address: std::io::Result<SocketAddr> = ask();
    address.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}
