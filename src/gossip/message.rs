//! Gossip messages: the plaintext of frames.
//!
//! One octet states the kind of the message; its fields follow in order. Each length has a bound, the same for both
//! directions: [`Message::encode`] refuses what [`Message::decode`] would. An unknown kind is an error of its own, since
//! newer peers may send more kinds.
//!
//! The frame authenticates the sender and the receiver: see [`super::crypto`].

mod codec;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use thiserror::Error;

pub use self::codec::is_destination;

use super::{claim::Claim, liveness::IndirectProbeResult};
use crate::model::{
    keyring::{Key, KeyId, Keyring},
    member::{Cause, PeerId},
    name::{Label, LabelError},
};

/// Longest chitchat message in octets: its largest datagram.
pub const MAX_GOSSIP: usize = 65_507;
/// Largest number of changes in one push. As many fit a frame only if they are very short.
pub const MAX_CHANGES: usize = 1024;
/// Longest reason of a refusal in octets.
pub const MAX_REASON_LEN: usize = 120;
/// Largest number of unreachable members in the outcome of a keyring request. More of them do not fit a datagram beside the
/// ring.
pub const MAX_UNREACHABLE: usize = 16;

/// A gossip message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Announces the sender's session and requests the receiver's. Sent in an unbound frame.
    Hello(Identity),
    /// Introduces the sender to a peer whose session is known; answers a hello.
    Welcome(Identity),
    /// An encoded chitchat message.
    Gossip(&'a [u8]),
    /// Changes of the sender's own state, sent without waiting for the next gossip round.
    Push(Push<'a>),
    /// Direct probe.
    Ping {
        /// Sequence number, echoed in the ack.
        sequence: u64,
        /// Hash of the state that the sender knows. Nodes with equal hashes have nothing to exchange.
        state: u64,
    },
    /// Answer to a ping.
    Ack {
        /// Sequence number of the ping.
        sequence: u64,
        /// Hash of the state that the sender knows, as in a ping.
        state: u64,
    },
    /// Request to probe a third node (SWIM's ping-req).
    IndirectProbe {
        /// Sequence number, echoed in the result.
        sequence: u64,
        /// Run of the node to probe.
        target: PeerId,
    },
    /// Result of an indirect probe.
    IndirectResult {
        /// Sequence number of the request.
        sequence: u64,
        /// Probed run of a node.
        target: PeerId,
        /// Result of the probe.
        result: IndirectProbeResult,
    },
    /// Announces that a peer is gone.
    Dead {
        /// Run of the node that is gone.
        peer: PeerId,
        /// Reason why it is gone.
        cause: Cause,
    },
    /// Reports to the receiver that another node holds its name.
    Conflict {
        /// Node that keeps the name.
        holder: Identity,
    },
    /// Reports to the receiver that its run is older than the last one that the sender knows, or has left.
    Outdated {
        /// Last known run of the receiver.
        known: PeerId,
    },
    /// Claims the receiver's name for the sender. The one of the lower generation decides and answers with a conflict or
    /// ends; the other one answers with its own claim.
    Claim(Claim),
    /// Announces that the sender's run pauses for a moment: its agent reloads or upgrades.
    Pause,
    /// Requests a change of the receiver's keyring. Only accepted in a sealed frame.
    Keyring {
        /// Sequence number, echoed in the answer.
        sequence: u64,
        /// Requested change.
        change: KeyringChange,
    },
    /// Answer to a keyring request.
    KeyringDone {
        /// Sequence number of the request.
        sequence: u64,
        /// Outcome of the change.
        outcome: KeyringOutcome<'a>,
    },
    /// The sender's keyring, for a peer that encrypts with another key: it was away during a rotation. Encrypted with that
    /// key. Only accepted in a sealed frame.
    Keys(Keyring),
    /// Requests a bulk transfer of the receiver's state.
    BulkRequest {
        /// Number of the transfer, echoed in its parts.
        transfer: u64,
        /// Versions that the sender knows: a digest of chitchat of at most [`MAX_GOSSIP`] octets.
        known: &'a [u8],
    },
    /// Part of a bulk transfer. The parts of a transfer follow each other on one connection.
    BulkPart {
        /// Number in the request.
        transfer: u64,
        /// Number of the part, from zero.
        part: u32,
        /// True for the last part.
        last: bool,
        /// Encoded states of at most [`MAX_GOSSIP`] octets.
        content: &'a [u8],
    },
    /// Refuses a bulk transfer: the sender already serves another one.
    BulkBusy {
        /// Number in the request.
        transfer: u64,
    },
    /// Bound that the SOA serials of a former run of the receiver do not exceed: it continues above, if it does not know it.
    Serial(u32),
}

/// Run of a node and its gossip address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Run of the node.
    pub id: PeerId,
    /// Gossip address, usable as a destination. The flow label and the scope of an IPv6 address are local to one host
    /// and are not sent.
    pub address: SocketAddr,
}

/// Changes of the sender's own state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push<'a> {
    /// The sender's generation, its gossip incarnation included.
    pub generation: u64,
    /// Changes in ascending order of version, at most [`MAX_CHANGES`].
    pub changes: Vec<Change<'a>>,
}

/// Change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// Key of at most [`MAX_KEY`](crate::record::MAX_KEY) octets.
    pub key: &'a str,
    /// Version of the change; increases with each change of the state.
    pub version: u64,
    /// Value of at most [`MAX_VALUE`](crate::record::MAX_VALUE) octets; `None` deletes the key.
    pub value: Option<&'a str>,
}

/// A keyring request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyringChange {
    /// Install a key.
    Install(Key),
    /// Make a key the primary one.
    Use {
        /// Id of the key.
        key: KeyId,
        /// Number of the rotation: higher than that of any node that the sender could ask.
        rotation: u64,
    },
    /// Remove a key.
    Remove(KeyId),
    /// List the keys, without a change.
    List,
}

/// Outcome of a keyring request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyringOutcome<'a> {
    /// The ring after the change.
    Ring(RingState),
    /// Reason of the refusal: one line of at most [`MAX_REASON_LEN`] octets. The ring is unchanged.
    Refused(&'a str),
}

/// A node's keyring by the ids of its keys, and the members that it cannot reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RingState {
    /// Number of the last rotation that the ring took part in.
    pub rotation: u64,
    /// Ids of the keys, the primary one first; at most [`MAX_KEYS`](crate::model::keyring::MAX_KEYS).
    pub keys: Vec<KeyId>,
    /// Names of members that the node cannot reach and that have not left; at most [`MAX_UNREACHABLE`].
    pub unreachable: Vec<Label>,
}

/// Reasons why a message cannot be decoded or encoded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// The kind is unknown to this version.
    #[error("unknown message kind {0}: the peer may run a newer version")]
    Kind(u8),
    /// The message is truncated.
    #[error("message ends before its last field")]
    Cut,
    /// Octets follow the end of the message; holds their number.
    #[error("{0} octets follow the end of the message")]
    Trailing(usize),
    /// A field exceeds its bound.
    #[error("{what} of length {len} exceeds the limit of {most}")]
    TooLong {
        /// Name of the field.
        what: &'static str,
        /// Octets of a text, or number of changes or keys.
        len: usize,
        /// Largest permitted length.
        most: usize,
    },
    /// An octet is not among the permitted values.
    #[error("{octet} is not a valid {what}")]
    Choice {
        /// Name of the field.
        what: &'static str,
        /// Received octet.
        octet: u8,
    },
    /// A text is not UTF-8, or contains control characters where it must not.
    #[error("a text is not UTF-8 or not a single line")]
    Text,
    /// A node's name is invalid.
    #[error("node name: {0}")]
    Name(LabelError),
    /// A keyring has no key, or two keys of one id.
    #[error("the keys of a ring are missing or not distinct")]
    Keys,
    /// A generation exceeds [`MAX_GENERATION`](crate::model::member::MAX_GENERATION).
    #[error("{0} is not a valid generation")]
    Generation(u64),
    /// An address cannot be a destination.
    #[error("{0} is not a valid gossip address")]
    Address(SocketAddr),
    /// Changes are not in ascending order of version.
    #[error("the changes of a push are not in ascending order of version")]
    Order,
}

impl MessageError {
    /// Short name for counters.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Kind(_) => "kind",
            _ => "malformed",
        }
    }
}
