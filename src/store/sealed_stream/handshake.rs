//! The handshake of a connection, from both sides. The parent module describes the octets.

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};

use super::{
    HandshakeError, SealedStream,
    frames::{Cipher, Reader, Writer},
};
use crate::{
    gossip::STORE_PREFIX,
    model::{
        keyring::{KEY_LEN, Key, KeyId, Keyring},
        name::Label,
    },
};

const VERSION: u8 = 1;
const OPEN: u8 = 0;
const SEALED: u8 = 1;

const ACCEPTED: u8 = 0;
const OTHER_NODE: u8 = 1;
const UNKNOWN_KEY: u8 = 1;
const SERVER_IS_OPEN: u8 = 2;
const CLIENT_IS_OPEN: u8 = 3;
const OTHER_VERSION: u8 = 4;

/// Octets of a random number.
const RANDOM: usize = 32;
/// Octets of the client's hello behind the prefix: version, mode, key id, random number.
const HELLO: usize = 1 + 1 + 4 + RANDOM;
/// Longest frame of the handshake: two names.
const NAMES: usize = 256;

const TO_SERVER: &[u8] = b"muster store aes-256-gcm client to server";
const TO_CLIENT: &[u8] = b"muster store aes-256-gcm server to client";
const PROOF: &[u8] = b"muster store proof of the server";

/// Names of the nodes at both ends, as one of them knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Names<'n> {
    /// The sender.
    pub(super) own: &'n str,
    /// The receiver.
    pub(super) peer: &'n str,
}

impl<'n> Names<'n> {
    fn decode(octets: &'n [u8]) -> Result<Self, HandshakeError> {
        let names: Self = postcard::from_bytes(octets).map_err(|_| HandshakeError::Malformed)?;
        let is_name = |name| Label::parse(name).is_ok();
        if is_name(names.own) && is_name(names.peer) { Ok(names) } else { Err(HandshakeError::Malformed) }
    }
}

/// Everything that both sides have seen of the handshake before the first frame: the salt of all secrets.
struct Transcript {
    hello: [u8; HELLO],
    random: [u8; RANDOM],
}

impl Transcript {
    fn derive(&self, key: &Key, info: &[u8]) -> [u8; KEY_LEN] {
        key.derive(&[&STORE_PREFIX[..], &self.hello, &self.random].concat(), info)
    }

    fn cipher(&self, key: Option<&Key>, info: &[u8]) -> Option<Cipher> {
        key.and_then(|key| Cipher::new(&self.derive(key, info)))
    }

    /// Proof of the server that it holds the key; zeros without keys.
    fn proof(&self, key: Option<&Key>) -> [u8; KEY_LEN] {
        key.map_or([0; KEY_LEN], |key| self.derive(key, PROOF))
    }
}

/// Performs the client's part.
pub(super) async fn of_client(
    mut stream: TcpStream,
    key: Option<&Key>,
    keyring: watch::Receiver<Option<Keyring>>,
    names: Names<'_>,
) -> Result<SealedStream, HandshakeError> {
    let hello = hello(key)?;
    stream.write_all(&[&STORE_PREFIX[..], &hello].concat()).await?;
    match stream.read_u8().await? {
        ACCEPTED => {}
        UNKNOWN_KEY => return Err(key.map_or(HandshakeError::Malformed, |key| HandshakeError::UnknownKey(key.id()))),
        SERVER_IS_OPEN => return Err(HandshakeError::ServerIsOpen),
        CLIENT_IS_OPEN => return Err(HandshakeError::ClientIsOpen),
        OTHER_VERSION => return Err(HandshakeError::Version),
        _ => return Err(HandshakeError::Malformed),
    }
    let (mut random, mut proof) = ([0; RANDOM], [0; KEY_LEN]);
    stream.read_exact(&mut random).await?;
    stream.read_exact(&mut proof).await?;
    let transcript = Transcript { hello, random };
    if !bool::from(transcript.proof(key).ct_eq(&proof)) {
        return Err(HandshakeError::Proof);
    }
    let (read, write) = stream.into_split();
    let mut writer = Writer::new(write, transcript.cipher(key, TO_SERVER));
    let mut reader = Reader::new(read, transcript.cipher(key, TO_CLIENT), NAMES, key.map(Key::id), keyring);
    let introduction = postcard::to_stdvec(&names).map_err(|_| HandshakeError::Malformed)?;
    writer.queue(&[&introduction])?;
    writer.flush().await?;
    let answer = reader.read().await?;
    match answer.split_first() {
        Some((&ACCEPTED, _)) => {}
        Some((&OTHER_NODE, name)) => {
            let name = std::str::from_utf8(name).ok().filter(|name| Label::parse(name).is_ok());
            return Err(name.map_or(HandshakeError::Malformed, |name| HandshakeError::OtherNode(name.to_owned())));
        }
        _ => return Err(HandshakeError::Malformed),
    }
    reader.lift_limit();
    Ok(SealedStream { reader, writer, peer: names.peer.to_owned() })
}

/// Performs the server's part. The prefix has been read.
pub(super) async fn of_server(
    mut stream: TcpStream,
    keyring: watch::Receiver<Option<Keyring>>,
    own: &str,
) -> Result<SealedStream, HandshakeError> {
    let version = stream.read_u8().await?;
    if version != VERSION {
        stream.write_u8(OTHER_VERSION).await?;
        return Err(HandshakeError::Version);
    }
    let mut hello = [VERSION; HELLO];
    stream.read_exact(&mut hello[1..]).await?;
    let asked = key_of_hello(&hello, keyring.borrow().as_ref());
    let key = match asked {
        Ok(key) => key,
        Err((status, error)) => {
            stream.write_u8(status).await?;
            return Err(error);
        }
    };
    let transcript = Transcript { hello, random: random()? };
    let proof = transcript.proof(key.as_ref());
    stream.write_all(&[&[ACCEPTED][..], &transcript.random, &proof].concat()).await?;
    let (read, write) = stream.into_split();
    let mut writer = Writer::new(write, transcript.cipher(key.as_ref(), TO_CLIENT));
    let id = key.as_ref().map(Key::id);
    let mut reader = Reader::new(read, transcript.cipher(key.as_ref(), TO_SERVER), NAMES, id, keyring);
    let introduction = reader.read().await?;
    let names = Names::decode(&introduction)?;
    let is_own = names.peer == own;
    writer.queue(&[&[if is_own { ACCEPTED } else { OTHER_NODE }], own.as_bytes()])?;
    writer.flush().await?;
    if !is_own {
        return Err(HandshakeError::OtherNode(own.to_owned()));
    }
    reader.lift_limit();
    Ok(SealedStream { reader, writer, peer: names.own.to_owned() })
}

fn hello(key: Option<&Key>) -> Result<[u8; HELLO], HandshakeError> {
    let mut hello = [0; HELLO];
    hello[0] = VERSION;
    hello[1] = if key.is_some() { SEALED } else { OPEN };
    hello[2..6].copy_from_slice(&key.map_or([0; 4], |key| key.id().0));
    hello[6..].copy_from_slice(&random()?);
    Ok(hello)
}

/// Returns the key that the client asks for, or the status and the error of a refusal.
fn key_of_hello(hello: &[u8; HELLO], keyring: Option<&Keyring>) -> Result<Option<Key>, (u8, HandshakeError)> {
    let id = KeyId([hello[2], hello[3], hello[4], hello[5]]);
    match (hello[1], keyring) {
        (OPEN, None) => Ok(None),
        (OPEN, Some(_)) => Err((CLIENT_IS_OPEN, HandshakeError::ClientIsOpen)),
        (SEALED, None) => Err((SERVER_IS_OPEN, HandshakeError::ServerIsOpen)),
        (SEALED, Some(ring)) => match ring.get(id) {
            Some(key) => Ok(Some(key.clone())),
            None => Err((UNKNOWN_KEY, HandshakeError::UnknownKey(id))),
        },
        _ => Err((OTHER_VERSION, HandshakeError::Malformed)),
    }
}

fn random() -> Result<[u8; RANDOM], HandshakeError> {
    let mut octets = [0; RANDOM];
    SystemRandom::new().fill(&mut octets).map_err(|_| HandshakeError::Random)?;
    Ok(octets)
}
