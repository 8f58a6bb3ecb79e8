//! Authenticated and encrypted connections between nodes, for the traffic of the store.
//!
//! A connection arrives at the TCP port of gossip and begins with [`STORE_PREFIX`]. Both sides prove that they hold a key of
//! the cluster's keyring. As with gossip, every holder of a key can impersonate every node, and a recorded connection can be
//! decrypted by a later finder of its key.
//!
//! # Handshake
//! | sender | octets | |
//! | --- | --- | --- |
//! | client | 4 | [`STORE_PREFIX`] |
//! | | 1 | version |
//! | | 1 | 1: sealed, 0: the client has no keys |
//! | | 4 | key id; zeros without keys |
//! | | 32 | random |
//! | server | 1 | 0: accepted, otherwise the reason of the refusal |
//! | | 32 | random |
//! | | 32 | proof: derived from the key and all octets above but the status; zeros without keys |
//! | client | a frame | names of both nodes, as the client knows them |
//! | server | a frame | 0: accepted, 1: another node; the name of the server |
//!
//! Both derive one AES-256-GCM key per direction from the cluster's key and both random numbers, so no two connections share
//! a key: frames of one are useless in another, and in the other direction. The nonce is a counter that is not sent. Frames
//! are therefore accepted once and in order. A frame is its length in four octets and the ciphertext. Without keys, the
//! frames are plain.
//!
//! # Rotation of keys
//! The server accepts every key of its ring; the client tries the primary key first. A connection ends on both sides when
//! its key is removed from the ring.

mod frames;
mod handshake;
#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, time::Duration};

use socket2::SockRef;
use thiserror::Error;
use tokio::{net::TcpStream, sync::watch, time::timeout};

pub use self::frames::{Reader, Writer};
use self::handshake::Names;
#[cfg(doc)]
use crate::gossip::STORE_PREFIX;
use crate::model::keyring::{Key, KeyId, Keyring};

/// Longest message in octets: a chunk of a snapshot, or a transaction of many values, with room to spare.
pub const MAX_MESSAGE: usize = 8 << 20;
/// Time without a received octet after which a connection counts as dead. The peer sends something each second.
pub const SILENCE: Duration = Duration::from_secs(3);
/// Time limit for connecting and for the handshake: three retransmissions of a lost SYN do not fit, one does.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// A connection after its handshake.
#[derive(Debug)]
pub struct SealedStream {
    /// Half that receives messages.
    pub reader: Reader,
    /// Half that sends messages.
    pub writer: Writer,
    /// Name of the node at the other end.
    pub peer: String,
}

/// Connects to the node of this name, with the first key that it accepts. `own` is the name of this node.
///
/// # Errors
/// The reason why there is no connection.
pub async fn connect(
    address: SocketAddr,
    keyring: &watch::Receiver<Option<Keyring>>,
    own: &str,
    peer: &str,
) -> Result<SealedStream, HandshakeError> {
    let names = Names { own, peer };
    timeout(HANDSHAKE, async {
        let ring = keyring.borrow().clone();
        let Some(ring) = ring else { return connect_with(address, None, keyring, names).await };
        let mut outcome = connect_with(address, Some(ring.primary()), keyring, names).await;
        for key in ring.iter().skip(1) {
            if !matches!(outcome, Err(HandshakeError::UnknownKey(_))) {
                break;
            }
            outcome = connect_with(address, Some(key), keyring, names).await;
        }
        outcome
    })
    .await
    .unwrap_or(Err(HandshakeError::TimedOut))
}

async fn connect_with(
    address: SocketAddr,
    key: Option<&Key>,
    keyring: &watch::Receiver<Option<Keyring>>,
    names: Names<'_>,
) -> Result<SealedStream, HandshakeError> {
    let stream = TcpStream::connect(address).await?;
    set_options(&stream)?;
    handshake::of_client(stream, key, keyring.clone(), names).await
}

/// Accepts a connection whose prefix has been read. `own` is the name of this node.
///
/// # Errors
/// The reason why the connection was refused or failed.
pub async fn accept(
    stream: TcpStream,
    keyring: watch::Receiver<Option<Keyring>>,
    own: &str,
) -> Result<SealedStream, HandshakeError> {
    set_options(&stream)?;
    timeout(HANDSHAKE, handshake::of_server(stream, keyring, own)).await.unwrap_or(Err(HandshakeError::TimedOut))
}

/// Sends at once, and lets the kernel close connections whose peer acknowledges nothing (tcp(7), `TCP_USER_TIMEOUT`).
fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_user_timeout(Some(SILENCE))
}

/// Reasons why a handshake fails.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The connection was refused or lost.
    #[error("no connection: {0}")]
    Io(#[from] io::Error),
    /// The handshake took longer than the limit.
    #[error("the node did not answer within {} s", HANDSHAKE.as_secs())]
    TimedOut,
    /// The peer sent octets that are no handshake.
    #[error("not a handshake of the store: another program uses the port")]
    Malformed,
    /// The other side does not speak this version of the handshake.
    #[error("the versions of muster on both nodes are too far apart: upgrade the older one")]
    Version,
    /// The server does not hold the key.
    #[error("the server does not have gossip key {0}: compare `muster keyring list` on both nodes")]
    UnknownKey(KeyId),
    /// The client has keys, the server has none.
    #[error("the client has gossip keys and the server has none: give all nodes the same gossip.key_file")]
    ServerIsOpen,
    /// The server has keys, the client has none.
    #[error("the server has gossip keys and the client has none: give all nodes the same gossip.key_file")]
    ClientIsOpen,
    /// The server did not prove that it holds the key.
    #[error("the peer did not prove that it has the gossip key")]
    Proof,
    /// Another node answers at the address; holds its name.
    #[error("node {0} answers at this address")]
    OtherNode(String),
    /// The system's random generator failed.
    #[error("the system's random generator failed")]
    Random,
    /// A frame of the handshake failed.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// Reasons why an established connection ends.
#[derive(Debug, Error)]
pub enum StreamError {
    /// The connection was lost.
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    /// The peer closed the connection.
    #[error("closed by the peer")]
    Closed,
    /// Nothing was received for [`SILENCE`].
    #[error("nothing received for {} s", SILENCE.as_secs())]
    Silent,
    /// A message exceeds the limit; holds its length.
    #[error("message of {0} octets exceeds the limit")]
    TooLong(usize),
    /// A frame was modified, replayed or made with another key.
    #[error("authentication failed: a frame was modified or made with another key")]
    Forged,
    /// The key of the connection was removed from the keyring.
    #[error("the key of the connection was removed from the keyring")]
    KeyRemoved,
    /// All nonces of the connection are used.
    #[error("the connection has sent as many messages as its key allows")]
    Exhausted,
}
