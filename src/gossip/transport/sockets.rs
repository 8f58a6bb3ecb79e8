//! The sockets of gossip: UDP and TCP on one port, and how segments and buffers are sized.

use std::{io, net::SocketAddr};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

/// Octets of a TCP segment: fits every path, so that one that swallows "packet too big" does no harm.
const SEGMENT: u32 = 1200;
/// Octets that the kernel keeps while the task is busy.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Connections that the kernel takes while the agent is stopped: enough for all who knock until it counts as hung.
const BACKLOG: i32 = 1024;

/// The sockets of a node: UDP and TCP on one port.
#[derive(Debug)]
pub struct Sockets {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
}

impl Sockets {
    /// Binds both. Port 0 lets the kernel choose.
    ///
    /// # Errors
    /// What the system said.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let udp = open(address, Type::DGRAM, Protocol::UDP)?;
        // The kernel caps it at net.core.rmem_max without an error: what it grants is better than its default.
        udp.set_recv_buffer_size(RECEIVE_BUFFER)?;
        udp.bind(&address.into())?;
        let udp = UdpSocket::from_std(udp.into())?;
        let tcp = open(address, Type::STREAM, Protocol::TCP)?;
        // A restart must not wait for connections of before.
        tcp.set_reuse_address(true)?;
        tcp.set_tcp_mss(SEGMENT)?;
        tcp.bind(&udp.local_addr()?.into())?;
        tcp.listen(BACKLOG)?;
        Ok(Self { udp, tcp: TcpListener::from_std(tcp.into())? })
    }

    /// Where they are bound.
    ///
    /// # Errors
    /// What the system said.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }
}

/// A socket of the address's family, not bound yet, that never blocks.
fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A connection to where somebody gossips.
pub(super) async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    SockRef::from(&socket).set_tcp_mss(SEGMENT)?;
    socket.connect(to).await
}
