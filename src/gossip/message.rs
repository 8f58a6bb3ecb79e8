//! What nodes say to each other: the plaintext of frames.
//!
//! One octet says what kind of message follows, then its fields in order. Numbers are big-endian; a text has its length in
//! front; each length has a bound, the same for both directions: what [`Message::decode`] would refuse,
//! [`Message::encode`] does not write. A kind that is not known is an error of its own, since newer peers may have more.
//!
//! Who sent a message, and whether it was made for this process, the frame says: see [`super::seal`].

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use super::keyring::{KEY_LEN, Key, KeyId, MAX_KEYS};
use crate::model::{
    member::{Cause, PeerId},
    name::{Label, LabelError, MAX_LABEL},
};

/// Octets of a message of chitchat: the largest datagram that it makes.
pub const MAX_GOSSIP: usize = 65_507;
/// Changes in one push. As many do not fit a frame, unless they are very short.
pub const MAX_CHANGES: usize = 1024;
/// Octets of a key of a node's state.
pub const MAX_KEY: usize = 256;
/// Octets of a value of a node's state.
pub const MAX_VALUE: usize = 8192;
/// Octets of a sentence that says why not.
pub const MAX_REASON: usize = 120;

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
    /// "Please ping that one for me."
    Relay {
        /// Comes back in the answer.
        sequence: u64,
        /// Whom.
        target: Identity,
    },
    /// What came of a relay.
    Relayed {
        /// Of the relay.
        sequence: u64,
        /// Whether the target answered.
        reached: bool,
    },
    /// "That peer is gone."
    Verdict {
        /// Which run of which node.
        peer: PeerId,
        /// Why.
        cause: Cause,
        /// The last heartbeat of its that the sender knows: a higher one proves the verdict wrong.
        heartbeat: u64,
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
    /// At most [`MAX_KEY`] octets.
    pub key: &'a str,
    /// Grows with each change of the state.
    pub version: u64,
    /// At most [`MAX_VALUE`] octets; `None`: deleted.
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
    /// These keys are in the ring now, the primary one first; at most [`MAX_KEYS`].
    Ring(Vec<KeyId>),
    /// It stays as it was, for this reason: one line of at most [`MAX_REASON`] octets.
    Refused(&'a str),
}

impl<'a> Message<'a> {
    /// Reads a message, which ends where `octets` do. Allocates no more than is there.
    pub fn decode(octets: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader { rest: octets };
        let message = match reader.octet()? {
            kind::HELLO => Self::Hello(reader.identity()?),
            kind::WELCOME => Self::Welcome(reader.identity()?),
            kind::GOSSIP => {
                let rest = std::mem::take(&mut reader.rest);
                Self::Gossip(bounded(rest, MAX_GOSSIP, "a message of chitchat")?)
            }
            kind::PUSH => Self::Push(reader.push()?),
            kind::PING => Self::Ping { sequence: reader.number()? },
            kind::ACK => Self::Ack { sequence: reader.number()? },
            kind::RELAY => Self::Relay { sequence: reader.number()?, target: reader.identity()? },
            kind::RELAYED => Self::Relayed { sequence: reader.number()?, reached: reader.truth()? },
            kind::VERDICT => {
                Self::Verdict { peer: reader.peer()?, cause: reader.cause()?, heartbeat: reader.number()? }
            }
            kind::CONFLICT => Self::Conflict { holder: reader.identity()? },
            kind::KEYRING => Self::Keyring { sequence: reader.number()?, change: reader.keyring_change()? },
            kind::KEYRING_DONE => Self::KeyringDone { sequence: reader.number()?, outcome: reader.outcome()? },
            unknown => return Err(Malformed::Kind(unknown)),
        };
        match reader.rest.len() {
            0 => Ok(message),
            more => Err(Malformed::Trailing(more)),
        }
    }

    /// Writes the message behind what is in `out`. On an error `out` is as it was: the message is one that `decode` would
    /// refuse.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let start = out.len();
        let written = self.write(out);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        match self {
            Self::Hello(identity) => {
                out.push(kind::HELLO);
                write_identity(identity, out)
            }
            Self::Welcome(identity) => {
                out.push(kind::WELCOME);
                write_identity(identity, out)
            }
            Self::Gossip(octets) => {
                out.push(kind::GOSSIP);
                out.extend(bounded(octets, MAX_GOSSIP, "a message of chitchat")?);
                Ok(())
            }
            Self::Push(push) => {
                out.push(kind::PUSH);
                write_push(push, out)
            }
            Self::Ping { sequence } => {
                out.push(kind::PING);
                write_number(*sequence, out);
                Ok(())
            }
            Self::Ack { sequence } => {
                out.push(kind::ACK);
                write_number(*sequence, out);
                Ok(())
            }
            Self::Relay { sequence, target } => {
                out.push(kind::RELAY);
                write_number(*sequence, out);
                write_identity(target, out)
            }
            Self::Relayed { sequence, reached } => {
                out.push(kind::RELAYED);
                write_number(*sequence, out);
                out.push((*reached).into());
                Ok(())
            }
            Self::Verdict { peer, cause, heartbeat } => {
                out.push(kind::VERDICT);
                write_peer(peer, out);
                out.push(cause_octet(*cause));
                write_number(*heartbeat, out);
                Ok(())
            }
            Self::Conflict { holder } => {
                out.push(kind::CONFLICT);
                write_identity(holder, out)
            }
            Self::Keyring { sequence, change } => {
                out.push(kind::KEYRING);
                write_number(*sequence, out);
                write_keyring_change(change, out);
                Ok(())
            }
            Self::KeyringDone { sequence, outcome } => {
                out.push(kind::KEYRING_DONE);
                write_number(*sequence, out);
                write_outcome(outcome, out)
            }
        }
    }
}

impl Push<'_> {
    /// Octets of an encoded push without changes.
    pub const EMPTY_LEN: usize = 1 + 8 + 2;
}

impl Change<'_> {
    /// Octets that this change adds to an encoded push, for whoever fills a datagram.
    pub fn encoded_len(&self) -> usize {
        MIN_CHANGE + self.key.len() + self.value.map_or(0, |value| 2 + value.len())
    }
}

/// The first octet of each message. Numbers are never given to another kind.
mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const WELCOME: u8 = 2;
    pub(super) const GOSSIP: u8 = 3;
    pub(super) const PUSH: u8 = 4;
    pub(super) const PING: u8 = 5;
    pub(super) const ACK: u8 = 6;
    pub(super) const RELAY: u8 = 7;
    pub(super) const RELAYED: u8 = 8;
    pub(super) const VERDICT: u8 = 9;
    pub(super) const CONFLICT: u8 = 10;
    pub(super) const KEYRING: u8 = 11;
    pub(super) const KEYRING_DONE: u8 = 12;
}

const NO: u8 = 0;
const YES: u8 = 1;
const IPV4: u8 = 4;
const IPV6: u8 = 6;
const INSTALL: u8 = 1;
const USE: u8 = 2;
const REMOVE: u8 = 3;
const LIST: u8 = 4;
const RING: u8 = 1;
const REFUSED: u8 = 2;

/// Octets of the shortest change: an empty key, deleted.
const MIN_CHANGE: usize = 2 + 8 + 1;

fn cause_octet(cause: Cause) -> u8 {
    match cause {
        Cause::Left => 1,
        Cause::Refused => 2,
        Cause::Silent => 3,
        Cause::Hung => 4,
        Cause::Deaf => 5,
        Cause::Expired => 6,
    }
}

// --- Writing ---------------------------------------------------------------------------------------------------------

fn write_number(number: u64, out: &mut Vec<u8>) {
    out.extend(number.to_be_bytes());
}

/// A length of two octets and the text.
fn write_text(text: &str, most: usize, what: &'static str, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let octets = bounded(text.as_bytes(), most, what)?;
    out.extend((octets.len() as u16).to_be_bytes());
    out.extend(octets);
    Ok(())
}

fn write_peer(peer: &PeerId, out: &mut Vec<u8>) {
    // A label has at most 63 octets.
    out.push(peer.name.as_bytes().len() as u8);
    out.extend(peer.name.as_bytes());
    write_number(peer.generation, out);
}

fn write_identity(identity: &Identity, out: &mut Vec<u8>) -> Result<(), Malformed> {
    write_peer(&identity.id, out);
    let address = sendable(identity.address)?;
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(IPV4);
            out.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(IPV6);
            out.extend(ip.octets());
        }
    }
    out.extend(address.port().to_be_bytes());
    Ok(())
}

fn write_push(push: &Push<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    write_number(push.generation, out);
    let changes = bounded(&push.changes, MAX_CHANGES, "a push")?;
    out.extend((changes.len() as u16).to_be_bytes());
    let mut last = None;
    for change in changes {
        last = Some(in_order(last, change.version)?);
        write_text(change.key, MAX_KEY, "a key", out)?;
        write_number(change.version, out);
        match change.value {
            None => out.push(NO),
            Some(value) => {
                out.push(YES);
                write_text(value, MAX_VALUE, "a value", out)?;
            }
        }
    }
    Ok(())
}

fn write_keyring_change(change: &KeyringChange, out: &mut Vec<u8>) {
    match change {
        KeyringChange::Install(key) => {
            out.push(INSTALL);
            out.extend(key.octets());
        }
        KeyringChange::Use(id) => {
            out.push(USE);
            out.extend(id.0);
        }
        KeyringChange::Remove(id) => {
            out.push(REMOVE);
            out.extend(id.0);
        }
        KeyringChange::List => out.push(LIST),
    }
}

fn write_outcome(outcome: &KeyringOutcome<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    match outcome {
        KeyringOutcome::Ring(ids) => {
            out.push(RING);
            out.push(bounded(ids, MAX_KEYS, "a ring")?.len() as u8);
            out.extend(ids.iter().flat_map(|id| id.0));
            Ok(())
        }
        KeyringOutcome::Refused(reason) => {
            out.push(REFUSED);
            write_text(one_line(reason)?, MAX_REASON, "a reason", out)
        }
    }
}

// --- Reading ---------------------------------------------------------------------------------------------------------

/// What has not been read yet.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed::Cut)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed::Cut)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn octet(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[octet]| octet)
    }

    fn short(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    fn truth(&mut self) -> Result<bool, Malformed> {
        match self.octet()? {
            NO => Ok(false),
            YES => Ok(true),
            octet => Err(Malformed::Choice { what: "yes or no", octet }),
        }
    }

    /// A length of two octets and the text.
    fn text(&mut self, most: usize, what: &'static str) -> Result<&'a str, Malformed> {
        let len = self.short()?.into();
        within(len, most, what)?;
        str::from_utf8(self.take(len)?).map_err(|_| Malformed::Text)
    }

    fn peer(&mut self) -> Result<PeerId, Malformed> {
        let len = self.octet()?.into();
        within(len, MAX_LABEL, "a name")?;
        let text = str::from_utf8(self.take(len)?).map_err(|_| Malformed::Text)?;
        let name = Label::parse(text).map_err(Malformed::Name)?;
        Ok(PeerId { name, generation: self.number()? })
    }

    fn identity(&mut self) -> Result<Identity, Malformed> {
        let id = self.peer()?;
        let ip: IpAddr = match self.octet()? {
            IPV4 => self.array::<4>()?.into(),
            IPV6 => self.array::<16>()?.into(),
            octet => return Err(Malformed::Choice { what: "a kind of address", octet }),
        };
        let address = sendable(SocketAddr::new(ip, self.short()?))?;
        Ok(Identity { id, address })
    }

    fn cause(&mut self) -> Result<Cause, Malformed> {
        Ok(match self.octet()? {
            1 => Cause::Left,
            2 => Cause::Refused,
            3 => Cause::Silent,
            4 => Cause::Hung,
            5 => Cause::Deaf,
            6 => Cause::Expired,
            octet => return Err(Malformed::Choice { what: "a cause", octet }),
        })
    }

    fn push(&mut self) -> Result<Push<'a>, Malformed> {
        let generation = self.number()?;
        let count = self.short()?.into();
        within(count, MAX_CHANGES, "a push")?;
        // Before room is made for them.
        if self.rest.len() < count * MIN_CHANGE {
            return Err(Malformed::Cut);
        }
        let mut changes: Vec<Change<'a>> = Vec::with_capacity(count);
        for _ in 0..count {
            let key = self.text(MAX_KEY, "a key")?;
            let version = in_order(changes.last().map(|last| last.version), self.number()?)?;
            let value = if self.truth()? { Some(self.text(MAX_VALUE, "a value")?) } else { None };
            changes.push(Change { key, version, value });
        }
        Ok(Push { generation, changes })
    }

    fn keyring_change(&mut self) -> Result<KeyringChange, Malformed> {
        Ok(match self.octet()? {
            INSTALL => KeyringChange::Install(Key::from_random(self.array::<KEY_LEN>()?)),
            USE => KeyringChange::Use(KeyId(self.array()?)),
            REMOVE => KeyringChange::Remove(KeyId(self.array()?)),
            LIST => KeyringChange::List,
            octet => return Err(Malformed::Choice { what: "a change of a keyring", octet }),
        })
    }

    fn outcome(&mut self) -> Result<KeyringOutcome<'a>, Malformed> {
        match self.octet()? {
            RING => {
                let count = self.octet()?.into();
                within(count, MAX_KEYS, "a ring")?;
                (0..count).map(|_| self.array().map(KeyId)).collect::<Result<_, _>>().map(KeyringOutcome::Ring)
            }
            REFUSED => self.text(MAX_REASON, "a reason").and_then(one_line).map(KeyringOutcome::Refused),
            octet => Err(Malformed::Choice { what: "an outcome", octet }),
        }
    }
}

// --- What holds in both directions -----------------------------------------------------------------------------------

fn within(len: usize, most: usize, what: &'static str) -> Result<(), Malformed> {
    if len <= most { Ok(()) } else { Err(Malformed::TooLong { what, len, most }) }
}

fn bounded<'a, T>(all: &'a [T], most: usize, what: &'static str) -> Result<&'a [T], Malformed> {
    within(all.len(), most, what).map(|()| all)
}

/// An address that a peer can be reached at.
fn sendable(address: SocketAddr) -> Result<SocketAddr, Malformed> {
    let ip = address.ip();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    if address.port() == 0 || ip.is_unspecified() || ip.is_multicast() || broadcast {
        return Err(Malformed::Address(address));
    }
    Ok(address)
}

fn in_order(last: Option<u64>, version: u64) -> Result<u64, Malformed> {
    if last.is_none_or(|last| last < version) { Ok(version) } else { Err(Malformed::Order) }
}

/// A text that can be shown as it is.
fn one_line(text: &str) -> Result<&str, Malformed> {
    if text.contains(char::is_control) { Err(Malformed::Text) } else { Ok(text) }
}

/// Why octets are no message, or a message has no octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
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

impl Malformed {
    /// One word, for counters.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Kind(_) => "kind",
            _ => "malformed",
        }
    }
}

impl fmt::Display for Malformed {
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

impl std::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    use proptest::{collection, option, prelude::*};

    use super::*;

    fn encoded(message: &Message<'_>) -> Vec<u8> {
        let mut out = vec![];
        message.encode(&mut out).unwrap();
        out
    }

    fn peer() -> PeerId {
        PeerId { name: Label::parse("host-a").unwrap(), generation: 0x0102 }
    }

    fn identity(address: &str) -> Identity {
        Identity { id: peer(), address: address.parse().unwrap() }
    }

    fn change<'a>(key: &'a str, version: u64, value: Option<&'a str>) -> Change<'a> {
        Change { key, version, value }
    }

    /// One of each kind, with the octets behind its first.
    fn examples() -> Vec<(u8, Message<'static>, Vec<u8>)> {
        const HOST: &[u8] = b"\x06host-a\0\0\0\0\0\0\x01\x02";
        const HERE: &[u8] = b"\x04\x0a\0\0\x07\x1f\x0a";
        let here = || identity("10.0.0.7:7946");
        let id = |number| KeyId([number; 4]);
        let number = |last: u8| [0, 0, 0, 0, 0, 0, 0, last];
        let push = Push { generation: 9, changes: vec![change("k", 1, Some("vw")), change("", 3, None)] };
        let outcome = |outcome| Message::KeyringDone { sequence: 5, outcome };
        let keyring = |change| Message::Keyring { sequence: 5, change };
        vec![
            (1, Message::Hello(here()), [HOST, HERE].concat()),
            (2, Message::Welcome(identity("[::1]:1")), [HOST, b"\x06", &[0; 15], b"\x01\0\x01"].concat()),
            (3, Message::Gossip(b"any"), b"any".into()),
            (3, Message::Gossip(b""), vec![]),
            (
                4,
                Message::Push(push),
                [&number(9)[..], b"\0\x02\0\x01k", &number(1), b"\x01\0\x02vw\0\0", &number(3), b"\0"].concat(),
            ),
            (5, Message::Ping { sequence: 7 }, number(7).into()),
            (6, Message::Ack { sequence: 7 }, number(7).into()),
            (7, Message::Relay { sequence: 7, target: here() }, [&number(7)[..], HOST, HERE].concat()),
            (8, Message::Relayed { sequence: 7, reached: true }, [&number(7)[..], b"\x01"].concat()),
            (
                9,
                Message::Verdict { peer: peer(), cause: Cause::Silent, heartbeat: 8 },
                [HOST, b"\x03", &number(8)].concat(),
            ),
            (10, Message::Conflict { holder: here() }, [HOST, HERE].concat()),
            (11, keyring(KeyringChange::List), [&number(5)[..], b"\x04"].concat()),
            (11, keyring(KeyringChange::Use(id(6))), [&number(5)[..], b"\x02\x06\x06\x06\x06"].concat()),
            (11, keyring(KeyringChange::Remove(id(6))), [&number(5)[..], b"\x03\x06\x06\x06\x06"].concat()),
            (
                11,
                keyring(KeyringChange::Install(Key::from_random([3; 32]))),
                [&number(5)[..], b"\x01", &[3; 32]].concat(),
            ),
            (12, outcome(KeyringOutcome::Refused("no")), [&number(5)[..], b"\x02\0\x02no"].concat()),
            (
                12,
                outcome(KeyringOutcome::Ring(vec![id(1), id(2)])),
                [&number(5)[..], b"\x01\x02\x01\x01\x01\x01\x02\x02\x02\x02"].concat(),
            ),
        ]
    }

    #[test]
    fn messages_look_as_they_always_did() {
        for (kind, message, octets) in examples() {
            let octets = [&[kind][..], &octets].concat();
            assert_eq!(encoded(&message), octets, "{message:?}");
            assert_eq!(Message::decode(&octets), Ok(message));
        }
    }

    #[test]
    fn messages_cut_short_or_gone_on_are_refused() {
        for (_, message, _) in examples().into_iter().filter(|(kind, ..)| *kind != kind::GOSSIP) {
            let octets = encoded(&message);
            for len in 0..octets.len() {
                assert_eq!(Message::decode(&octets[..len]), Err(Malformed::Cut), "{message:?}, {len} octets");
            }
            let more = [&octets[..], b"!!"].concat();
            assert_eq!(Message::decode(&more), Err(Malformed::Trailing(2)), "{message:?}");
        }
    }

    #[test]
    fn what_is_malformed_is_named() {
        let number = [0; 8];
        let push = |changes: &[u8]| [&[4][..], &number, changes].concat();
        let choice = |what, octet| Malformed::Choice { what, octet };
        let long = |what, len, most| Malformed::TooLong { what, len, most };
        let hello = |rest: &[u8]| [b"\x01\x01a", &number[..], rest].concat();
        let address = |text: &str| Malformed::Address(text.parse().unwrap());
        let cases = [
            (vec![0], Malformed::Kind(0)),
            (vec![13, 1, 2], Malformed::Kind(13)),
            (vec![255], Malformed::Kind(255)),
            (b"\x01\x00".into(), Malformed::Name(LabelError::Empty)),
            (b"\x01\x03a.b".into(), Malformed::Name(LabelError::Character('.'))),
            (b"\x01\x02\xff\xfe".into(), Malformed::Text),
            (b"\x01\x40".into(), long("a name", 64, 63)),
            (hello(b"\x05"), choice("a kind of address", 5)),
            (hello(b"\x04\x0a\0\0\x01\0\0"), address("10.0.0.1:0")),
            (hello(b"\x04\0\0\0\0\0\x01"), address("0.0.0.0:1")),
            (hello(b"\x04\xe0\0\0\x01\0\x01"), address("224.0.0.1:1")),
            (hello(b"\x04\xff\xff\xff\xff\0\x01"), address("255.255.255.255:1")),
            (push(b"\x04\x01"), long("a push", 1025, MAX_CHANGES)),
            (push(b"\x04\x00"), Malformed::Cut),
            (push(&[b"\0\x01\x01\x01", &[b'k'; 300][..]].concat()), long("a key", 257, MAX_KEY)),
            (push(&[b"\0\x01\0\x00", &number[..], b"\x01\x20\x01"].concat()), long("a value", 8193, MAX_VALUE)),
            (push(&[b"\0\x01\0\x00", &number[..], b"\x02"].concat()), choice("yes or no", 2)),
            (push(&[b"\0\x02", &[0; 22][..]].concat()), Malformed::Order),
            ([&[8][..], &number, &[7]].concat(), choice("yes or no", 7)),
            ([b"\x09\x01a", &number[..], b"\0"].concat(), choice("a cause", 0)),
            ([&[11][..], &number, &[5]].concat(), choice("a change of a keyring", 5)),
            ([&[12][..], &number, &[3]].concat(), choice("an outcome", 3)),
            ([&[12][..], &number, &[1, 9]].concat(), long("a ring", 9, MAX_KEYS)),
            ([&[12][..], &number, b"\x02\0\x79"].concat(), long("a reason", 121, MAX_REASON)),
            ([&[12][..], &number, b"\x02\0\x01\x1b"].concat(), Malformed::Text),
            ([&[3][..], &[0; MAX_GOSSIP + 1]].concat(), long("a message of chitchat", MAX_GOSSIP + 1, MAX_GOSSIP)),
        ];
        for (octets, expected) in cases {
            let error = Message::decode(&octets).unwrap_err();
            assert_eq!(error, expected, "{octets:.40?}");
            assert!(error.to_string().split(' ').count() > 4, "{error}");
        }
    }

    #[test]
    fn what_would_be_refused_is_not_written() {
        let (key, value, reason) = ("k".repeat(MAX_KEY + 1), "v".repeat(MAX_VALUE + 1), "r".repeat(MAX_REASON + 1));
        let push = |changes| Message::Push(Push { generation: 1, changes });
        let done = |outcome| Message::KeyringDone { sequence: 1, outcome };
        let cases = [
            Message::Hello(identity("0.0.0.0:7946")),
            Message::Welcome(identity("[::]:7946")),
            Message::Conflict { holder: identity("10.0.0.1:0") },
            Message::Relay { sequence: 1, target: identity("[ff02::1]:1") },
            Message::Gossip(&[0; MAX_GOSSIP + 1]),
            push(vec![change(&key, 1, None)]),
            push(vec![change("k", 1, Some(&value))]),
            push(vec![change("k", 2, None), change("k", 2, None)]),
            push((0..=MAX_CHANGES as u64).map(|version| change("", version, None)).collect()),
            done(KeyringOutcome::Ring(vec![KeyId([0; 4]); MAX_KEYS + 1])),
            done(KeyringOutcome::Refused(&reason)),
            done(KeyringOutcome::Refused("two\nlines")),
        ];
        for message in cases {
            let mut out = b"before".to_vec();
            assert!(message.encode(&mut out).is_err(), "{message:.80?}");
            assert_eq!(out, b"before");
        }
    }

    #[test]
    fn a_push_has_the_length_that_it_tells() {
        for value in [None, Some(""), Some("value")] {
            let changes = vec![change("key", 1, value), change("", 2, value)];
            let told: usize = changes.iter().map(Change::encoded_len).sum();
            let push = Message::Push(Push { generation: 1, changes });
            assert_eq!(encoded(&push).len(), Push::EMPTY_LEN + told, "{value:?}");
        }
    }

    #[test]
    fn a_key_on_its_way_is_not_shown() {
        let message = Message::Keyring { sequence: 1, change: KeyringChange::Install(Key::from_random([77; 32])) };
        assert!(!format!("{message:?}").contains("77, 77"));
    }

    // --- Any message -------------------------------------------------------------------------------------------------

    /// A message that owns what the real one borrows.
    #[derive(Clone, Debug)]
    enum Any {
        Short(Message<'static>),
        Gossip(Vec<u8>),
        Push(u64, Vec<(String, u64, Option<String>)>),
        Refused(u64, String),
    }

    fn any_identity() -> impl Strategy<Value = Identity> {
        ("[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", any::<(u64, IpAddr, u16)>())
            .prop_map(|(name, (generation, ip, port))| {
                let id = PeerId { name: Label::parse(&name).unwrap(), generation };
                Identity { id, address: SocketAddr::new(ip, port) }
            })
            .prop_filter("no peer is there", |identity| sendable(identity.address).is_ok())
    }

    fn any_cause() -> impl Strategy<Value = Cause> {
        use Cause::{Deaf, Expired, Hung, Left, Refused, Silent};
        prop::sample::select(&[Left, Refused, Silent, Hung, Deaf, Expired][..])
    }

    fn any_keyring_change() -> impl Strategy<Value = KeyringChange> {
        prop_oneof![
            any::<[u8; 32]>().prop_map(|octets| KeyringChange::Install(Key::from_random(octets))),
            any::<[u8; 4]>().prop_map(|id| KeyringChange::Use(KeyId(id))),
            any::<[u8; 4]>().prop_map(|id| KeyringChange::Remove(KeyId(id))),
            Just(KeyringChange::List),
        ]
    }

    fn any_message() -> impl Strategy<Value = Any> {
        let number = any::<u64>();
        let text = |most| format!("\\PC{{0,{most}}}");
        let short = prop_oneof![
            any_identity().prop_map(Message::Hello),
            any_identity().prop_map(Message::Welcome),
            number.prop_map(|sequence| Message::Ping { sequence }),
            number.prop_map(|sequence| Message::Ack { sequence }),
            (number, any_identity()).prop_map(|(sequence, target)| Message::Relay { sequence, target }),
            (number, any::<bool>()).prop_map(|(sequence, reached)| Message::Relayed { sequence, reached }),
            (any_identity(), any_cause(), number)
                .prop_map(|(peer, cause, heartbeat)| { Message::Verdict { peer: peer.id, cause, heartbeat } }),
            any_identity().prop_map(|holder| Message::Conflict { holder }),
            (number, any_keyring_change()).prop_map(|(sequence, change)| Message::Keyring { sequence, change }),
            (number, collection::vec(any::<[u8; 4]>().prop_map(KeyId), 0..=MAX_KEYS))
                .prop_map(|(sequence, ids)| { Message::KeyringDone { sequence, outcome: KeyringOutcome::Ring(ids) } }),
        ];
        let changes = collection::vec((text(60), number, option::of(text(300))), 0..20);
        prop_oneof![
            4 => short.prop_map(Any::Short),
            1 => collection::vec(any::<u8>(), 0..300).prop_map(Any::Gossip),
            2 => (number, changes).prop_map(|(generation, mut changes)| {
                changes.sort_by_key(|(_, version, _)| *version);
                changes.dedup_by_key(|(_, version, _)| *version);
                Any::Push(generation, changes)
            }),
            1 => (number, text(30)).prop_map(|(sequence, reason)| Any::Refused(sequence, reason)),
        ]
    }

    impl Any {
        fn message(&self) -> Message<'_> {
            match self {
                Self::Short(message) => message.clone(),
                Self::Gossip(octets) => Message::Gossip(octets),
                Self::Push(generation, changes) => {
                    let changes = changes.iter();
                    let changes = changes.map(|(key, version, value)| change(key, *version, value.as_deref()));
                    Message::Push(Push { generation: *generation, changes: changes.collect() })
                }
                Self::Refused(sequence, reason) => {
                    Message::KeyringDone { sequence: *sequence, outcome: KeyringOutcome::Refused(reason) }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read(any in any_message()) {
            let message = any.message();
            let octets = encoded(&message);
            prop_assert_eq!(Message::decode(&octets), Ok(message));
        }
    }
}
