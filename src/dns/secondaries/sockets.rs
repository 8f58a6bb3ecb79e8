//! UDP sockets of the NOTIFY sender, and the addresses that messages are sent from.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use tokio::net::UdpSocket;

/// Longest response in octets; more is cut off. A response with an SOA fits.
pub(super) const MAX_RESPONSE: usize = 1232;

/// Sockets for both families, opened when they are needed.
#[derive(Default)]
pub(super) struct Sockets {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
}

impl Sockets {
    pub(super) async fn send(&mut self, message: &[u8], to: SocketAddr, sources: &[IpAddr]) -> io::Result<()> {
        let socket = if to.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        if socket.is_none() {
            *socket = Some(UdpSocket::bind((source_for(to, sources), 0)).await?);
        }
        match socket {
            Some(socket) => socket.send_to(message, to).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// Receives a datagram; waits for ever without sockets.
    pub(super) async fn receive(&self, response: &mut [u8]) -> (usize, SocketAddr) {
        loop {
            let mut other = [0; MAX_RESPONSE];
            let received = match (&self.v4, &self.v6) {
                (None, None) => std::future::pending().await,
                (Some(socket), None) | (None, Some(socket)) => socket.recv_from(response).await,
                (Some(v4), Some(v6)) => tokio::select! {
                    received = v4.recv_from(response) => received,
                    received = v6.recv_from(&mut other) => {
                        if let Ok((len, _)) = &received {
                            response[..*len].copy_from_slice(&other[..*len]);
                        }
                        received
                    }
                },
            };
            // An error is that of an earlier message, whose secondary is not there.
            if let Ok(received) = received {
                return received;
            }
        }
    }
}

/// Returns the address that messages to a peer are sent from: that of a DNS listener, or any.
pub(in crate::dns) fn source_for(to: SocketAddr, sources: &[IpAddr]) -> IpAddr {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let mut sources = sources.iter().filter(|source| source.is_ipv4() == to.is_ipv4() && is_route(**source, to.ip()));
    sources.next().copied().unwrap_or(any)
}

/// Reports whether messages from an address reach another: a loopback address reaches this host only.
fn is_route(from: IpAddr, to: IpAddr) -> bool {
    !from.is_unspecified() && from.is_loopback() == to.is_loopback()
}
