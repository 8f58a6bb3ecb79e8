//! chitchat's messages in the form of their first version: read and checked before chitchat decodes them.
//!
//! chitchat trusts its peers: some messages make it allocate a gigabyte, and others end its task. So every message is read
//! here first, from any sender, and refused as a whole if chitchat would not have written it.

mod local;

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use chitchat::{ChitchatId, Serializable};
use thiserror::Error;

pub(super) use self::local::{changes_of, completed, heartbeats};
use super::stream::{self, MAX_BLOCKS, StreamError};
use crate::{
    gossip::{liveness::MAX_PEERS, message::is_destination, peer_replica::Change},
    model::{
        member::{INCARNATIONS, MAX_GENERATION},
        name::Label,
    },
    record::{MAX_KEY, MAX_VALUE},
};

/// First octets of a message, little-endian.
const MAGIC: u16 = 45_139;
/// Version of the form: digests are compressed streams.
const VERSION: u8 = 1;
/// Octets before the content: magic, version, type.
const HEADER: usize = 4;

const SYN: u8 = 0;
const SYN_ACK: u8 = 1;
const ACK: u8 = 2;
const BAD_CLUSTER: u8 = 3;

const NODE: u8 = 0;
const KEY_VALUE: u8 = 1;
const SET_MAX_VERSION: u8 = 2;

const V4: u8 = 4;
const V6: u8 = 6;

const SET: u8 = 0;
const DELETE: u8 = 1;

/// Largest number of runs in a digest: each known node's current and former run.
pub(super) const MAX_RUNS: usize = 2 * MAX_PEERS;
/// Longest name of a cluster in octets: that of a domain.
const MAX_CLUSTER: usize = 255;
/// Longest key and value in octets. A record that exceeds its own bound is skipped later, without the loss of the node's
/// other records. A much longer one would fill messages, so that no node could pass on what follows.
pub(super) const LONGEST_KEY: usize = 4 * MAX_KEY;
pub(super) const LONGEST_VALUE: usize = 4 * MAX_VALUE;
/// Largest version and heartbeat plus one: ten thousand changes a second for three years. chitchat and muster add to both.
pub(super) const COUNTER_END: u64 = 1 << 40;

/// A message that chitchat decodes without an error, with its digest decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Envelope<'a> {
    /// Starts an exchange.
    Syn { digest: Vec<Versions>, cluster: &'a str },
    /// Answers a SYN.
    SynAck { digest: Vec<Versions>, delta: Delta<'a> },
    /// Ends an exchange.
    Ack { delta: Delta<'a> },
    /// Refuses a SYN of another cluster.
    BadCluster,
}

/// Entry of a digest: what the sender knows of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Versions {
    pub(super) id: ChitchatId,
    pub(super) heartbeat: u64,
    /// Version up to which tombstones were collected.
    pub(super) collected: u64,
    /// Version up to which the changes of the run are known.
    pub(super) max: u64,
}

/// Changes of several runs: a checked stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delta<'a> {
    octets: &'a [u8],
    /// Runs that have changes.
    pub(super) runs: Vec<ChitchatId>,
}

/// Reasons for refusing a message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// The message is none of chitchat's, or of another version of its form.
    #[error("not a chitchat message of version {VERSION}")]
    Form,
    /// The message ends too early.
    #[error("the message is incomplete")]
    Truncated,
    /// There are octets behind the message; holds their number.
    #[error("{0} octets behind the message")]
    Trailing(usize),
    /// A block stream breaks a bound.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A text is not UTF-8, too long, or has control characters; holds its role.
    #[error("invalid {0}")]
    Text(&'static str),
    /// A run has an invalid generation; holds it.
    #[error("invalid generation {0}")]
    Generation(u64),
    /// The address of a run cannot be a destination.
    #[error("invalid address of a run")]
    Address,
    /// A version or heartbeat is too large; holds it.
    #[error("a counter of {0}")]
    Counter(u64),
    /// The runs of a digest are not in ascending order.
    #[error("a digest is not in order")]
    Order,
    /// A digest has more than [`MAX_RUNS`] runs.
    #[error("a digest of more than {MAX_RUNS} runs")]
    Runs,
    /// The operations of a delta are unknown or in the wrong order.
    #[error("invalid series of changes")]
    Operations,
    /// A delta has changes of the receiver's own run, which only that run makes. A peer sends them if a change reached it before an
    /// older digest did.
    #[error("changes of the receiver's own run")]
    OwnRun,
}

impl<'a> Envelope<'a> {
    /// Reads a whole message.
    ///
    /// # Errors
    /// Fails on any input that chitchat's writer does not produce from valid state. The cost is linear in the decompressed
    /// size, at most 2 MiB.
    pub(super) fn read(octets: &'a [u8]) -> Result<Self, EnvelopeError> {
        let Some(([a, b, version, kind], rest)) = octets.split_first_chunk::<HEADER>() else {
            return Err(EnvelopeError::Form);
        };
        if u16::from_le_bytes([*a, *b]) != MAGIC || *version != VERSION {
            return Err(EnvelopeError::Form);
        }
        let (envelope, rest) = match *kind {
            SYN => {
                let (digest, rest) = read_digest(rest)?;
                let mut rest = Reader(rest);
                let cluster = rest.text(MAX_CLUSTER, "name of a cluster")?;
                (Self::Syn { digest, cluster }, rest.0)
            }
            SYN_ACK => {
                let (digest, rest) = read_digest(rest)?;
                let (delta, rest) = Delta::read(rest)?;
                (Self::SynAck { digest, delta }, rest)
            }
            ACK => {
                let (delta, rest) = Delta::read(rest)?;
                (Self::Ack { delta }, rest)
            }
            BAD_CLUSTER => (Self::BadCluster, rest),
            _ => return Err(EnvelopeError::Form),
        };
        if rest.is_empty() { Ok(envelope) } else { Err(EnvelopeError::Trailing(rest.len())) }
    }

    /// Returns the octets of the message.
    pub(super) fn write(&self) -> Vec<u8> {
        let [a, b] = MAGIC.to_le_bytes();
        let mut out = vec![a, b, VERSION];
        match self {
            Self::Syn { digest, cluster } => {
                out.push(SYN);
                write_digest(digest, &mut out);
                cluster.serialize(&mut out);
            }
            Self::SynAck { digest, delta } => {
                out.push(SYN_ACK);
                write_digest(digest, &mut out);
                out.extend_from_slice(delta.octets);
            }
            Self::Ack { delta } => {
                out.push(ACK);
                out.extend_from_slice(delta.octets);
            }
            Self::BadCluster => out.push(BAD_CLUSTER),
        }
        out
    }
}

pub(super) fn read_digest(octets: &[u8]) -> Result<(Vec<Versions>, &[u8]), EnvelopeError> {
    let (content, rest) = stream::read(octets)?;
    let mut content = Reader(&content);
    let mut digest: Vec<Versions> = Vec::new();
    while !content.0.is_empty() {
        if digest.len() == MAX_RUNS {
            return Err(EnvelopeError::Runs);
        }
        let id = content.run()?;
        if digest.last().is_some_and(|last| last.id >= id) {
            return Err(EnvelopeError::Order);
        }
        let (heartbeat, collected, max) = (content.counter()?, content.counter()?, content.counter()?);
        digest.push(Versions { id, heartbeat, collected, max });
    }
    Ok((digest, rest))
}

pub(super) fn write_digest(digest: &[Versions], out: &mut Vec<u8>) {
    let mut content = Vec::new();
    for Versions { id, heartbeat, collected, max } in digest {
        id.serialize(&mut content);
        for counter in [heartbeat, collected, max] {
            counter.serialize(&mut content);
        }
    }
    stream::write(&content, out);
}

impl<'a> Delta<'a> {
    /// Octets of the encoded changes.
    pub(super) fn len(&self) -> usize {
        self.octets.len()
    }

    /// A delta without changes.
    pub(super) const EMPTY: Self = Delta { octets: &[0], runs: Vec::new() };

    fn read(octets: &'a [u8]) -> Result<(Self, &'a [u8]), EnvelopeError> {
        let (content, rest) = stream::read(octets)?;
        let mut operations = Operations::new(&content);
        while !operations.content.0.is_empty() {
            operations.read_next()?;
        }
        let octets = &octets[..octets.len() - rest.len()];
        Ok((Self { octets, runs: operations.runs }, rest))
    }
}

/// Length of the digest in an own message, encoded; `None` if it has none.
pub(super) fn digest_len(octets: &[u8]) -> Option<usize> {
    let (header, rest) = octets.split_first_chunk::<HEADER>()?;
    let has_digest = matches!(header[HEADER - 1], SYN | SYN_ACK);
    let (_, behind) = has_digest.then(|| stream::measure(rest).ok())??;
    Some(rest.len() - behind.len())
}

/// Reports whether a message starts an exchange. Looks at its type only.
pub fn starts_exchange(octets: &[u8]) -> bool {
    octets.get(HEADER - 1) == Some(&SYN)
}

/// Shortens an own message to the size that receivers accept; `None` if it is within.
///
/// # Errors
/// Fails if chitchat's form has changed.
pub(super) fn shortened(octets: &[u8]) -> Result<Option<Vec<u8>>, EnvelopeError> {
    let header = octets.get(..HEADER).ok_or(EnvelopeError::Form)?;
    let delta = match header[HEADER - 1] {
        SYN_ACK => stream::measure(&octets[HEADER..])?.1,
        ACK => &octets[HEADER..],
        _ => return Ok(None),
    };
    if stream::measure(delta)?.0 <= MAX_BLOCKS {
        return Ok(None);
    }
    let (content, _) = stream::read_part(delta)?;
    // Changes are in ascending order of versions, so their first part is valid.
    let mut operations = Operations::new(&content);
    let mut complete = content.len();
    while !operations.content.0.is_empty() {
        complete = content.len() - operations.content.0.len();
        match operations.read_next() {
            Ok(()) => {}
            Err(EnvelopeError::Truncated) => break,
            Err(error) => return Err(error),
        }
    }
    let mut short = octets[..octets.len() - delta.len()].to_vec();
    stream::write(&content[..complete], &mut short);
    Ok(Some(short))
}

/// Operations of a delta, checked one after the other.
struct Operations<'a> {
    content: Reader<'a>,
    runs: Vec<ChitchatId>,
    listed: HashSet<ChitchatId>,
    /// Last version of the current run; `None` behind an operation that has to be its last one.
    version: Option<u64>,
}

impl<'a> Operations<'a> {
    fn new(content: &'a [u8]) -> Self {
        Self { content: Reader(content), runs: Vec::new(), listed: HashSet::new(), version: None }
    }

    fn read_next(&mut self) -> Result<(), EnvelopeError> {
        let content = &mut self.content;
        match content.octet()? {
            NODE => {
                let run = content.run()?;
                // The version up to which tombstones were collected, and that of the receiver.
                for _ in 0..2 {
                    content.counter()?;
                }
                if !self.listed.insert(run.clone()) {
                    return Err(EnvelopeError::Operations);
                }
                self.runs.push(run);
                self.version = Some(0);
            }
            KEY_VALUE => {
                let Change { version, .. } = content.change()?.ok_or(EnvelopeError::Operations)?;
                if self.version.is_none_or(|last| version <= last) {
                    return Err(EnvelopeError::Operations);
                }
                self.version = Some(version);
            }
            // The only operation of a run without keys.
            SET_MAX_VERSION => {
                content.counter()?;
                if self.version != Some(0) {
                    return Err(EnvelopeError::Operations);
                }
                self.version = None;
            }
            _ => return Err(EnvelopeError::Operations),
        }
        Ok(())
    }
}

/// Appends a change of a key.
pub(super) fn write_change(change: &Change<'_>, out: &mut Vec<u8>) {
    let Change { key, version, value } = change;
    key.serialize(out);
    value.unwrap_or_default().serialize(out);
    version.serialize(out);
    out.push(if value.is_some() { SET } else { DELETE });
}

/// Octets that are not read yet. Numbers are little-endian.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], EnvelopeError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(EnvelopeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], EnvelopeError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(EnvelopeError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn octet(&mut self) -> Result<u8, EnvelopeError> {
        self.array().map(|[octet]| octet)
    }

    pub(super) fn counter(&mut self) -> Result<u64, EnvelopeError> {
        let counter = u64::from_le_bytes(self.array()?);
        if counter < COUNTER_END { Ok(counter) } else { Err(EnvelopeError::Counter(counter)) }
    }

    /// Text of at most `most` octets; `what` is its role.
    fn text(&mut self, most: usize, what: &'static str) -> Result<&'a str, EnvelopeError> {
        let len = u16::from_le_bytes(self.array()?).into();
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| EnvelopeError::Text(what))?;
        if len > most { Err(EnvelopeError::Text(what)) } else { Ok(text) }
    }

    /// A change of a key; `None` if its status is unknown.
    pub(super) fn change(&mut self) -> Result<Option<Change<'a>>, EnvelopeError> {
        let key = self.text(LONGEST_KEY, "key")?;
        // chitchat ends if a key starts with another character.
        if !key.starts_with(|first: char| first.is_ascii()) {
            return Err(EnvelopeError::Text("key"));
        }
        let value = self.text(LONGEST_VALUE, "value")?;
        let version = self.counter()?;
        let value = match self.octet()? {
            SET => Some(value),
            DELETE => None,
            _ => return Ok(None),
        };
        Ok(Some(Change { key, version, value }))
    }

    pub(super) fn run(&mut self) -> Result<ChitchatId, EnvelopeError> {
        let name = self.text(u8::MAX.into(), "name of a node")?;
        let label = Label::parse(name).ok().filter(|label| label.as_str() == name);
        let label = label.ok_or(EnvelopeError::Text("name of a node"))?;
        let generation = u64::from_le_bytes(self.array()?);
        if generation - generation % INCARNATIONS > MAX_GENERATION {
            return Err(EnvelopeError::Generation(generation));
        }
        let ip: IpAddr = match self.octet()? {
            V4 => self.array::<4>()?.into(),
            V6 => self.array::<16>()?.into(),
            _ => return Err(EnvelopeError::Address),
        };
        let address = SocketAddr::new(ip, u16::from_le_bytes(self.array()?));
        if !is_destination(address) {
            return Err(EnvelopeError::Address);
        }
        Ok(ChitchatId::new(label.as_str(), generation, address))
    }
}

#[cfg(test)]
mod tests;
