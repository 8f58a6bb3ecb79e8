//! The UDP and TCP sockets of gossip on one port, with their segment and buffer sizes.

use std::{
    io,
    net::{self, SocketAddr},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

/// TCP segment size in octets that fits every path, so that connections work where path MTU discovery fails.
const SEGMENT: u32 = 1200;
/// Kernel receive buffer in octets, for bursts while the task is busy.
const RECEIVE_BUFFER: usize = 4 << 20;
/// TCP backlog: holds the probes of all peers while the agent is stopped, until it counts as unresponsive.
const BACKLOG: i32 = 1024;

/// Bound sockets of a node, UDP and TCP on one port.
#[derive(Debug)]
pub struct Sockets {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
}

impl Sockets {
    /// Binds both sockets. Port 0 lets the kernel choose.
    ///
    /// # Errors
    /// Returns the system's error.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let (udp, tcp) = bind(address)?;
        Self::new(udp, tcp)
    }

    /// Takes over sockets of [`bind`].
    ///
    /// # Errors
    /// Returns the system's error.
    pub fn new(udp: net::UdpSocket, tcp: net::TcpListener) -> io::Result<Self> {
        Ok(Self { udp: UdpSocket::from_std(udp)?, tcp: TcpListener::from_std(tcp)? })
    }

    /// Bound address.
    ///
    /// # Errors
    /// Returns the system's error.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }
}

/// Binds both sockets of a node, non-blocking. Port 0 lets the kernel choose.
///
/// # Errors
/// Returns the system's error.
pub fn bind(address: SocketAddr) -> io::Result<(net::UdpSocket, net::TcpListener)> {
    let udp = open(address, Type::DGRAM, Protocol::UDP)?;
    // The kernel silently caps the size at net.core.rmem_max, which still exceeds its default.
    udp.set_recv_buffer_size(RECEIVE_BUFFER)?;
    udp.bind(&address.into())?;
    let udp = net::UdpSocket::from(udp);
    let tcp = open(address, Type::STREAM, Protocol::TCP)?;
    // A restart must not wait for connections of the previous process.
    tcp.set_reuse_address(true)?;
    tcp.set_tcp_mss(SEGMENT)?;
    tcp.bind(&udp.local_addr()?.into())?;
    tcp.listen(BACKLOG)?;
    Ok((udp, tcp.into()))
}

/// Opens an unbound, non-blocking socket of the address's family.
fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Connects to a gossip port.
pub(super) async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    SockRef::from(&socket).set_tcp_mss(SEGMENT)?;
    socket.connect(to).await
}
