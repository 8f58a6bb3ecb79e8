//! chitchat's UDP socket as the codec of its messages.
//!
//! chitchat encodes and decodes messages only inside its own UDP socket. So that socket, on loopback, is the codec: a second
//! socket, the relay, receives what it encodes and sends what it decodes. Nothing leaves the host on this path.
//!
//! The codec's socket decodes each datagram before it returns the source. So it is connected to the relay, and the kernel
//! drops all other datagrams.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::RawFd,
    time::Duration,
};

use chitchat::{
    ChitchatEnvelope,
    transport::{RecvOutcome, Socket, UdpSocket as ChitchatSocket},
};
use socket2::Type;
use tokio::time::{Instant, sleep};

use crate::{gossip::message::MAX_GOSSIP, inherited_fd};

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Time limit for a message in the codec. Loopback delivers at once; a message is lost only if the kernel has no memory.
pub(super) const TIMEOUT: Duration = Duration::from_millis(100);
/// Poll interval while the kernel has not delivered yet, or has no buffer space.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// Largest number of descriptors that a process may have by default (fs.nr_open).
const MAX_DESCRIPTORS: RawFd = 1 << 20;

/// The codec and its relay.
pub(super) struct Codec {
    codec: ChitchatSocket,
    /// A plain socket: data sent over loopback can be read at once, without the cost of a wake-up by the runtime.
    relay: UdpSocket,
    /// Address of `relay`.
    address: SocketAddr,
    /// A second descriptor of the codec's socket.
    twin: UdpSocket,
    buffer: Box<[u8]>,
}

impl Codec {
    /// Opens both sockets and connects them with each other.
    pub(super) async fn open() -> anyhow::Result<Self> {
        let codec = ChitchatSocket::open(LOOPBACK).await?;
        let relay = UdpSocket::bind(LOOPBACK)?;
        let (here, there) = (relay.local_addr()?, codec.local_addr()?);
        relay.connect(there)?;
        relay.set_nonblocking(true)?;
        let twin = twin(there)?;
        twin.connect(here)?;
        let codec = Self { codec, relay, address: here, twin, buffer: vec![0; MAX_GOSSIP].into() };
        // Other programs may have sent before.
        codec.discard();
        Ok(codec)
    }

    /// Address of the codec.
    pub(super) fn address(&self) -> anyhow::Result<SocketAddr> {
        self.codec.local_addr()
    }

    /// Encodes a message.
    pub(super) async fn encode(&mut self, envelope: ChitchatEnvelope) -> anyhow::Result<&[u8]> {
        // Drains late messages, which would otherwise be taken for this one.
        while self.relay.recv(&mut self.buffer).is_ok() {}
        self.codec.send(self.address, envelope).await?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match self.relay.recv(&mut self.buffer) {
                Ok(len) => return Ok(&self.buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    sleep(POLL_INTERVAL).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives an encoded message to the codec. Blocks only on a full buffer, and then fails.
    pub(super) fn feed(&self, octets: &[u8]) -> io::Result<()> {
        self.relay.send(octets).map(drop)
    }

    /// Drops all messages that are in the codec.
    pub(super) fn discard(&self) {
        // Both descriptors are of the same socket, which does not block.
        while self.twin.recv(&mut [0]).is_ok() {}
    }

    /// Returns the message that was fed. Cancel-safe.
    pub(super) async fn decoded(&mut self) -> anyhow::Result<RecvOutcome> {
        self.codec.recv().await
    }
}

/// Returns a second descriptor of the UDP socket of this process with this address: chitchat does not lend its own. Tries the
/// numbers in turn, since /proc may be absent; a new descriptor has the lowest free one.
fn twin(address: SocketAddr) -> io::Result<UdpSocket> {
    for socket in (0..MAX_DESCRIPTORS).filter_map(inherited_fd::duplicate).map(socket2::Socket::from) {
        let is_datagram = socket.r#type().is_ok_and(|kind| kind == Type::DGRAM);
        if is_datagram && socket.local_addr().is_ok_and(|local| local.as_socket() == Some(address)) {
            return Ok(socket.into());
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("no descriptor of the socket at {address}")))
}

#[cfg(test)]
mod tests {
    use chitchat::{ChitchatMessage, ProtocolVersion};

    use super::*;

    const OURS: &[u8] = &[0x53, 0xb0, 1, 3];
    /// A message with an empty delta.
    const FOREIGN: &[u8] = &[0x53, 0xb0, 1, 2, 0];

    #[tokio::test]
    async fn datagrams_of_other_sockets_are_dropped_before_they_are_decoded() {
        let mut codec = Codec::open().await.unwrap();
        let foreign = UdpSocket::bind(LOOPBACK).unwrap();
        for _ in 0..3 {
            // The kernel may report its refusal of an earlier datagram.
            let _ = foreign.send_to(FOREIGN, codec.address().unwrap());
        }
        codec.feed(FOREIGN).unwrap();
        codec.discard();
        codec.feed(OURS).unwrap();
        let received = codec.decoded().await.unwrap();
        assert_eq!(received.envelope.message, ChitchatMessage::BadCluster);
        assert_eq!(received.from_addr, codec.address);
        let more = tokio::time::timeout(TIMEOUT, codec.decoded()).await;
        assert!(more.is_err(), "{more:?}");
    }

    #[tokio::test]
    async fn datagrams_that_arrived_before_the_connection_are_dropped() {
        let socket = ChitchatSocket::open(LOOPBACK).await.unwrap();
        let address = socket.local_addr().unwrap();
        let foreign = UdpSocket::bind(LOOPBACK).unwrap();
        foreign.send_to(FOREIGN, address).unwrap();
        let twin = twin(address).unwrap();
        assert_eq!(twin.local_addr().unwrap(), address);
        assert_eq!(twin.recv(&mut [0]).unwrap(), 1);
        assert_eq!(twin.recv(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn message_is_encoded_by_chitchat() {
        let mut codec = Codec::open().await.unwrap();
        let envelope = ChitchatEnvelope { version: ProtocolVersion::V1, message: ChitchatMessage::BadCluster };
        assert_eq!(codec.encode(envelope).await.unwrap(), OURS);
    }
}
