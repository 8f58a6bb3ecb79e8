//! How messages look on the wire: writing on the one side, reading on the other, and what holds in both directions.
//!
//! Numbers are big-endian; a text has its length in front, in two octets.

use std::net::{IpAddr, SocketAddr};

use super::{
    Change, Identity, KeyringChange, KeyringOutcome, MAX_CHANGES, MAX_GOSSIP, MAX_REASON_LEN, Message, MessageError,
    Push,
};
use crate::{
    gossip::liveness::Finding,
    model::{
        keyring::{KEY_LEN, Key, KeyId, MAX_KEYS},
        member::{Cause, PeerId},
        name::{Label, MAX_LABEL},
    },
    record::{MAX_KEY, MAX_VALUE},
};

impl<'a> Message<'a> {
    /// Reads a message, which ends where `octets` do. Allocates no more than is there.
    pub fn decode(octets: &'a [u8]) -> Result<Self, MessageError> {
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
            kind::ASK => Self::Ask { sequence: reader.number()?, target: reader.peer()? },
            kind::TELL => Self::Tell { sequence: reader.number()?, target: reader.peer()?, finding: reader.finding()? },
            kind::VERDICT => Self::Verdict { peer: reader.peer()?, cause: reader.cause()? },
            kind::CONFLICT => Self::Conflict { holder: reader.identity()? },
            kind::KEYRING => Self::Keyring { sequence: reader.number()?, change: reader.keyring_change()? },
            kind::KEYRING_DONE => Self::KeyringDone { sequence: reader.number()?, outcome: reader.outcome()? },
            unknown => return Err(MessageError::Kind(unknown)),
        };
        match reader.rest.len() {
            0 => Ok(message),
            more => Err(MessageError::Trailing(more)),
        }
    }

    /// Writes the message behind what is in `out`. On an error `out` is as it was: the message is one that `decode` would
    /// refuse.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), MessageError> {
        let start = out.len();
        let written = self.write(out);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), MessageError> {
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
            Self::Ask { sequence, target } => {
                out.push(kind::ASK);
                write_number(*sequence, out);
                write_peer(target, out);
                Ok(())
            }
            Self::Tell { sequence, target, finding } => {
                out.push(kind::TELL);
                write_number(*sequence, out);
                write_peer(target, out);
                out.push(finding_octet(*finding));
                Ok(())
            }
            Self::Verdict { peer, cause } => {
                out.push(kind::VERDICT);
                write_peer(peer, out);
                out.push(cause_octet(*cause));
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
    pub(super) const ASK: u8 = 7;
    pub(super) const TELL: u8 = 8;
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
        Cause::Dismissed => 7,
    }
}

fn finding_octet(finding: Finding) -> u8 {
    match finding {
        Finding::Answers => 1,
        Finding::Listens => 2,
        Finding::Nothing => 3,
    }
}

// --- Writing ---------------------------------------------------------------------------------------------------------

fn write_number(number: u64, out: &mut Vec<u8>) {
    out.extend(number.to_be_bytes());
}

/// The length and the text.
fn write_text(text: &str, most: usize, what: &'static str, out: &mut Vec<u8>) -> Result<(), MessageError> {
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

fn write_identity(identity: &Identity, out: &mut Vec<u8>) -> Result<(), MessageError> {
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

fn write_push(push: &Push<'_>, out: &mut Vec<u8>) -> Result<(), MessageError> {
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

fn write_outcome(outcome: &KeyringOutcome<'_>, out: &mut Vec<u8>) -> Result<(), MessageError> {
    match outcome {
        KeyringOutcome::Ring(ids) => {
            out.push(RING);
            out.push(bounded(ids, MAX_KEYS, "a ring")?.len() as u8);
            out.extend(ids.iter().flat_map(|id| id.0));
            Ok(())
        }
        KeyringOutcome::Refused(reason) => {
            out.push(REFUSED);
            write_text(one_line(reason)?, MAX_REASON_LEN, "a reason", out)
        }
    }
}

// --- Reading ---------------------------------------------------------------------------------------------------------

/// What has not been read yet.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], MessageError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(MessageError::Cut)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(MessageError::Cut)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn octet(&mut self) -> Result<u8, MessageError> {
        self.array().map(|[octet]| octet)
    }

    fn short(&mut self) -> Result<u16, MessageError> {
        self.array().map(u16::from_be_bytes)
    }

    fn number(&mut self) -> Result<u64, MessageError> {
        self.array().map(u64::from_be_bytes)
    }

    fn truth(&mut self) -> Result<bool, MessageError> {
        match self.octet()? {
            NO => Ok(false),
            YES => Ok(true),
            octet => Err(MessageError::Choice { what: "yes or no", octet }),
        }
    }

    /// The length and the text.
    fn text(&mut self, most: usize, what: &'static str) -> Result<&'a str, MessageError> {
        let len = self.short()?.into();
        within(len, most, what)?;
        str::from_utf8(self.take(len)?).map_err(|_| MessageError::Text)
    }

    fn peer(&mut self) -> Result<PeerId, MessageError> {
        let len = self.octet()?.into();
        within(len, MAX_LABEL, "a name")?;
        let text = str::from_utf8(self.take(len)?).map_err(|_| MessageError::Text)?;
        let name = Label::parse(text).map_err(MessageError::Name)?;
        Ok(PeerId { name, generation: self.number()? })
    }

    fn identity(&mut self) -> Result<Identity, MessageError> {
        let id = self.peer()?;
        let ip: IpAddr = match self.octet()? {
            IPV4 => self.array::<4>()?.into(),
            IPV6 => self.array::<16>()?.into(),
            octet => return Err(MessageError::Choice { what: "a kind of address", octet }),
        };
        let address = sendable(SocketAddr::new(ip, self.short()?))?;
        Ok(Identity { id, address })
    }

    fn cause(&mut self) -> Result<Cause, MessageError> {
        Ok(match self.octet()? {
            1 => Cause::Left,
            2 => Cause::Refused,
            3 => Cause::Silent,
            4 => Cause::Hung,
            5 => Cause::Deaf,
            6 => Cause::Expired,
            7 => Cause::Dismissed,
            octet => return Err(MessageError::Choice { what: "a cause", octet }),
        })
    }

    fn finding(&mut self) -> Result<Finding, MessageError> {
        Ok(match self.octet()? {
            1 => Finding::Answers,
            2 => Finding::Listens,
            3 => Finding::Nothing,
            octet => return Err(MessageError::Choice { what: "a finding", octet }),
        })
    }

    fn push(&mut self) -> Result<Push<'a>, MessageError> {
        let generation = self.number()?;
        let count = self.short()?.into();
        within(count, MAX_CHANGES, "a push")?;
        // Before room is made for them.
        if self.rest.len() < count * MIN_CHANGE {
            return Err(MessageError::Cut);
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

    fn keyring_change(&mut self) -> Result<KeyringChange, MessageError> {
        Ok(match self.octet()? {
            INSTALL => KeyringChange::Install(Key::from_random(self.array::<KEY_LEN>()?)),
            USE => KeyringChange::Use(KeyId(self.array()?)),
            REMOVE => KeyringChange::Remove(KeyId(self.array()?)),
            LIST => KeyringChange::List,
            octet => return Err(MessageError::Choice { what: "a change of a keyring", octet }),
        })
    }

    fn outcome(&mut self) -> Result<KeyringOutcome<'a>, MessageError> {
        match self.octet()? {
            RING => {
                let count = self.octet()?.into();
                within(count, MAX_KEYS, "a ring")?;
                (0..count).map(|_| self.array().map(KeyId)).collect::<Result<_, _>>().map(KeyringOutcome::Ring)
            }
            REFUSED => self.text(MAX_REASON_LEN, "a reason").and_then(one_line).map(KeyringOutcome::Refused),
            octet => Err(MessageError::Choice { what: "an outcome", octet }),
        }
    }
}

// --- What holds in both directions -----------------------------------------------------------------------------------

fn within(len: usize, most: usize, what: &'static str) -> Result<(), MessageError> {
    if len <= most { Ok(()) } else { Err(MessageError::TooLong { what, len, most }) }
}

fn bounded<'a, T>(all: &'a [T], most: usize, what: &'static str) -> Result<&'a [T], MessageError> {
    within(all.len(), most, what).map(|()| all)
}

/// An address that a peer can be reached at.
pub(super) fn sendable(address: SocketAddr) -> Result<SocketAddr, MessageError> {
    let ip = address.ip();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    if address.port() == 0 || ip.is_unspecified() || ip.is_multicast() || broadcast {
        return Err(MessageError::Address(address));
    }
    Ok(address)
}

fn in_order(last: Option<u64>, version: u64) -> Result<u64, MessageError> {
    if last.is_none_or(|last| last < version) { Ok(version) } else { Err(MessageError::Order) }
}

/// A text that can be shown as it is.
fn one_line(text: &str) -> Result<&str, MessageError> {
    if text.contains(char::is_control) { Err(MessageError::Text) } else { Ok(text) }
}
