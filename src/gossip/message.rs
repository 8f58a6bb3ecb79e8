//! What nodes say to each other: the plaintext of frames.
//!
//! One octet says what kind of message follows, then its fields in order. Each length has a bound, the same for both
//! directions: what [`Message::decode`] would refuse, [`Message::encode`] does not write. A kind that is not known is an
//! error of its own, since newer peers may have more.
//!
//! Who sent a message, and whether it was made for this process, the frame says: see [`super::crypto`].

mod codec;
#[cfg(test)]
mod tests;

use std::{fmt, net::SocketAddr};

use super::liveness::Finding;
use crate::model::{
    keyring::{Key, KeyId},
    member::{Cause, PeerId},
    name::LabelError,
};

/// Octets of a message of chitchat: the largest datagram that it makes.
pub const MAX_GOSSIP: usize = 65_507;
/// Changes in one push. As many do not fit a frame, unless they are very short.
pub const MAX_CHANGES: usize = 1024;
/// Octets of a sentence that says why not.
pub const MAX_REASON_LEN: usize = 120;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// "Who are you? This is my session." In an unbound frame.
    Hello(Identity),
    /// Answers a hello, or introduces the sender to a peer whose session it knows.
    Welcome(Identity),
    /// A message of chitchat, as that encodes it.
    Gossip(&'a [u8]),
    /// Changes of the sender's own state, ahead of chitchat.
    Push(Push<'a>),
    /// "Are you there?"
    Ping {
        /// Comes back in the answer.
        sequence: u64,
    },
    /// "I am."
    Ack {
        /// Of the ping.
        sequence: u64,
    },
    /// "Do you reach that one?"
    Ask {
        /// Comes back in the answer.
        sequence: u64,
        /// Whom.
        target: PeerId,
    },
    /// What came of asking.
    Tell {
        /// Of the question.
        sequence: u64,
        /// Whom it was about.
        target: PeerId,
        /// What was found.
        finding: Finding,
    },
    /// "That peer is gone."
    Verdict {
        /// Which run of which node.
        peer: PeerId,
        /// Why.
        cause: Cause,
    },
    /// "Your name is taken."
    Conflict {
        /// By whom.
        holder: Identity,
    },
    /// Asks for a change of the receiver's keyring. Only ever in a sealed frame.
    Keyring {
        /// Comes back in the answer.
        sequence: u64,
        /// Which.
        change: KeyringChange,
    },
    /// What came of it.
    KeyringDone {
        /// Of the request.
        sequence: u64,
        /// Which.
        outcome: KeyringOutcome<'a>,
    },
}

/// Which run of which node, and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Which run of which node.
    pub id: PeerId,
    /// Where it takes gossip: an address that one can send to. The flow label and the scope of an IPv6 address mean
    /// something on one host only and are not sent.
    pub address: SocketAddr,
}

/// Changes of the sender's own state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push<'a> {
    /// Of the sender.
    pub generation: u64,
    /// In order of version, none twice; at most [`MAX_CHANGES`].
    pub changes: Vec<Change<'a>>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// At most [`MAX_KEY`](crate::record::MAX_KEY) octets.
    pub key: &'a str,
    /// Grows with each change of the state.
    pub version: u64,
    /// At most [`MAX_VALUE`](crate::record::MAX_VALUE) octets; `None`: deleted.
    pub value: Option<&'a str>,
}

/// What to do with a keyring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyringChange {
    /// Add this key.
    Install(Key),
    /// Seal with this one.
    Use(KeyId),
    /// Take this one out.
    Remove(KeyId),
    /// Nothing; say what is in it.
    List,
}

/// What came of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyringOutcome<'a> {
    /// These keys are in the ring now, the primary one first; at most [`MAX_KEYS`](crate::model::keyring::MAX_KEYS).
    Ring(Vec<KeyId>),
    /// It stays as it was, for this reason: one line of at most [`MAX_REASON_LEN`] octets.
    Refused(&'a str),
}

/// Why octets are no message, or a message has no octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// No kind that this version knows.
    Kind(u8),
    /// It ends too early.
    Cut,
    /// It goes on behind its end; holds for how many octets.
    Trailing(usize),
    /// Something is longer than it may be.
    TooLong {
        /// What.
        what: &'static str,
        /// Octets of a text, or how many changes or keys.
        len: usize,
        /// What it may be.
        most: usize,
    },
    /// An octet that stands for none of the things that it could.
    Choice {
        /// What was to be there.
        what: &'static str,
        /// What is.
        octet: u8,
    },
    /// A text is not UTF-8, or one to be shown has control characters.
    Text,
    /// No name of a node.
    Name(LabelError),
    /// No peer can be reached there.
    Address(SocketAddr),
    /// Changes are not in order of version.
    Order,
}

impl MessageError {
    /// One word, for counters.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Kind(_) => "kind",
            _ => "malformed",
        }
    }
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => {
                write!(f, "a message of a kind unknown here, {kind}: the peer may be of a newer version")
            }
            Self::Cut => f.write_str("a message that ends too early"),
            Self::Trailing(more) => write!(f, "a message with {more} octets behind its end"),
            Self::TooLong { what, len, most } => write!(f, "{what} has at most {most} in a message, this one {len}"),
            Self::Choice { what, octet } => {
                write!(f, "{octet} stands for no {what}", what = what.trim_start_matches("a "))
            }
            Self::Text => f.write_str("a text in a message is not UTF-8, or not one line"),
            Self::Name(error) => write!(f, "the name of a node: {error}"),
            Self::Address(address) => write!(f, "no peer can be reached at {address}"),
            Self::Order => f.write_str("the changes of a push are not in order of version"),
        }
    }
}

impl std::error::Error for MessageError {}
