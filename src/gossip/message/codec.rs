//! Binary encoding of messages.
//!
//! Numbers are big-endian; a text is preceded by its length in two octets, a name by its length in one.

mod keyring;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use self::keyring::{write_change, write_keyring, write_outcome};
use super::{Change, Identity, MAX_CHANGES, MAX_GOSSIP, Message, MessageError, Push};
use crate::{
    gossip::{claim::Claim, liveness::IndirectProbeResult},
    model::{
        member::{Cause, MAX_GENERATION, PeerId},
        name::{Label, MAX_LABEL},
    },
    record::{MAX_KEY, MAX_VALUE},
};

impl<'a> Message<'a> {
    /// Decodes a message that fills `octets`. Allocations are bounded by the input's length.
    pub fn decode(octets: &'a [u8]) -> Result<Self, MessageError> {
        let mut reader = Reader { rest: octets };
        let message = match reader.octet()? {
            kind::HELLO => Self::Hello(reader.identity()?),
            kind::WELCOME => Self::Welcome(reader.identity()?),
            kind::GOSSIP => {
                let rest = std::mem::take(&mut reader.rest);
                Self::Gossip(bounded(rest, MAX_GOSSIP, "chitchat message")?)
            }
            kind::PUSH => Self::Push(reader.push()?),
            kind::PING => Self::Ping { sequence: reader.number()?, state: reader.number()? },
            kind::ACK => Self::Ack { sequence: reader.number()?, state: reader.number()? },
            kind::INDIRECT_PROBE => Self::IndirectProbe { sequence: reader.number()?, target: reader.peer()? },
            kind::INDIRECT_RESULT => Self::IndirectResult {
                sequence: reader.number()?,
                target: reader.peer()?,
                result: reader.indirect_result()?,
            },
            kind::DEAD => Self::Dead { peer: reader.peer()?, cause: reader.cause()? },
            kind::CONFLICT => Self::Conflict { holder: reader.identity()? },
            kind::OUTDATED => Self::Outdated { known: reader.peer()? },
            kind::CLAIM => Self::Claim(reader.claim()?),
            kind::PAUSE => Self::Pause,
            kind::KEYRING => Self::Keyring { sequence: reader.number()?, change: reader.keyring_change()? },
            kind::KEYRING_DONE => Self::KeyringDone { sequence: reader.number()?, outcome: reader.outcome()? },
            kind::SERIAL => Self::Serial(reader.array().map(u32::from_be_bytes)?),
            kind::KEYS => Self::Keys(reader.keyring()?),
            kind::BULK_REQUEST => Self::BulkRequest { transfer: reader.number()?, known: reader.state()? },
            kind::BULK_PART => Self::BulkPart {
                transfer: reader.number()?,
                part: reader.array().map(u32::from_be_bytes)?,
                last: reader.truth()?,
                content: reader.state()?,
            },
            kind::BULK_BUSY => Self::BulkBusy { transfer: reader.number()? },
            unknown => return Err(MessageError::Kind(unknown)),
        };
        match reader.rest.len() {
            0 => Ok(message),
            more => Err(MessageError::Trailing(more)),
        }
    }

    /// Appends the encoded message to `out`. On an error, for a message that `decode` would refuse, `out` is unchanged.
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
                out.extend(bounded(octets, MAX_GOSSIP, "chitchat message")?);
                Ok(())
            }
            Self::Push(push) => {
                out.push(kind::PUSH);
                write_push(push, out)
            }
            Self::Ping { sequence, state } => {
                out.push(kind::PING);
                write_number(*sequence, out);
                write_number(*state, out);
                Ok(())
            }
            Self::Ack { sequence, state } => {
                out.push(kind::ACK);
                write_number(*sequence, out);
                write_number(*state, out);
                Ok(())
            }
            Self::IndirectProbe { sequence, target } => {
                out.push(kind::INDIRECT_PROBE);
                write_number(*sequence, out);
                write_peer(target, out)?;
                Ok(())
            }
            Self::IndirectResult { sequence, target, result } => {
                out.push(kind::INDIRECT_RESULT);
                write_number(*sequence, out);
                write_peer(target, out)?;
                out.push(result_octet(*result));
                Ok(())
            }
            Self::Dead { peer, cause } => {
                out.push(kind::DEAD);
                write_peer(peer, out)?;
                out.push(cause_octet(*cause));
                Ok(())
            }
            Self::Conflict { holder } => {
                out.push(kind::CONFLICT);
                write_identity(holder, out)
            }
            Self::Outdated { known } => {
                out.push(kind::OUTDATED);
                write_peer(known, out)?;
                Ok(())
            }
            Self::Pause => {
                out.push(kind::PAUSE);
                Ok(())
            }
            Self::Claim(Claim { known_for, uptime }) => {
                out.push(kind::CLAIM);
                for time in [known_for, uptime] {
                    write_number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), out);
                }
                Ok(())
            }
            Self::Keyring { sequence, change } => {
                out.push(kind::KEYRING);
                write_number(*sequence, out);
                write_change(change, out);
                Ok(())
            }
            Self::KeyringDone { sequence, outcome } => {
                out.push(kind::KEYRING_DONE);
                write_number(*sequence, out);
                write_outcome(outcome, out)
            }
            Self::Keys(ring) => {
                out.push(kind::KEYS);
                write_keyring(ring, out);
                Ok(())
            }
            Self::BulkRequest { transfer, known } => {
                out.push(kind::BULK_REQUEST);
                write_number(*transfer, out);
                write_state(known, out)
            }
            Self::BulkPart { transfer, part, last, content } => {
                out.push(kind::BULK_PART);
                write_number(*transfer, out);
                out.extend(part.to_be_bytes());
                out.push(if *last { YES } else { NO });
                write_state(content, out)
            }
            Self::BulkBusy { transfer } => {
                out.push(kind::BULK_BUSY);
                write_number(*transfer, out);
                Ok(())
            }
            Self::Serial(serial) => {
                out.push(kind::SERIAL);
                out.extend(serial.to_be_bytes());
                Ok(())
            }
        }
    }
}

impl Push<'_> {
    /// Octets of an encoded push without changes.
    pub const EMPTY_LEN: usize = 1 + 8 + 2;
}

impl Change<'_> {
    /// Octets that this change adds to an encoded push, for filling datagrams.
    pub fn encoded_len(&self) -> usize {
        MIN_CHANGE + self.key.len() + self.value.map_or(0, |value| 2 + value.len())
    }
}

/// First octet of each message. Numbers are never reused.
mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const WELCOME: u8 = 2;
    pub(super) const GOSSIP: u8 = 3;
    pub(super) const PUSH: u8 = 4;
    pub(super) const PING: u8 = 5;
    pub(super) const ACK: u8 = 6;
    pub(super) const INDIRECT_PROBE: u8 = 7;
    pub(super) const INDIRECT_RESULT: u8 = 8;
    pub(super) const DEAD: u8 = 9;
    pub(super) const CONFLICT: u8 = 10;
    pub(super) const KEYRING: u8 = 11;
    pub(super) const KEYRING_DONE: u8 = 12;
    pub(super) const OUTDATED: u8 = 13;
    pub(super) const CLAIM: u8 = 14;
    pub(super) const PAUSE: u8 = 15;
    pub(super) const KEYS: u8 = 16;
    pub(super) const SERIAL: u8 = 17;
    pub(super) const BULK_REQUEST: u8 = 24;
    pub(super) const BULK_PART: u8 = 25;
    pub(super) const BULK_BUSY: u8 = 26;
}

const NO: u8 = 0;
const YES: u8 = 1;
const IPV4: u8 = 4;
const IPV6: u8 = 6;

/// Octets of the shortest change: an empty key that is deleted.
const MIN_CHANGE: usize = 2 + 8 + 1;

fn cause_octet(cause: Cause) -> u8 {
    match cause {
        Cause::Left => 1,
        Cause::Refused => 2,
        Cause::Silent => 3,
        Cause::Unresponsive => 4,
        Cause::Unreachable => 5,
        Cause::Expired => 6,
        Cause::Forgotten => 7,
        Cause::NotReturned => 8,
    }
}

fn result_octet(result: IndirectProbeResult) -> u8 {
    match result {
        IndirectProbeResult::Acked => 1,
        IndirectProbeResult::TcpOnly => 2,
        IndirectProbeResult::Unreachable => 3,
    }
}

// --- Encoding --------------------------------------------------------------------------------------------------------

fn write_number(number: u64, out: &mut Vec<u8>) {
    out.extend(number.to_be_bytes());
}

/// Writes a length and a text.
fn write_text(text: &str, most: usize, what: &'static str, out: &mut Vec<u8>) -> Result<(), MessageError> {
    let octets = bounded(text.as_bytes(), most, what)?;
    out.extend((octets.len() as u16).to_be_bytes());
    out.extend(octets);
    Ok(())
}

/// Writes a length and the content of a part of a transfer.
fn write_state(state: &[u8], out: &mut Vec<u8>) -> Result<(), MessageError> {
    let state = bounded(state, MAX_GOSSIP, "part of the state")?;
    out.extend((state.len() as u16).to_be_bytes());
    out.extend(state);
    Ok(())
}

fn write_name(name: &Label, out: &mut Vec<u8>) {
    // A label has at most 63 octets.
    out.push(name.as_bytes().len() as u8);
    out.extend(name.as_bytes());
}

fn write_peer(peer: &PeerId, out: &mut Vec<u8>) -> Result<(), MessageError> {
    write_name(&peer.name, out);
    write_number(valid(peer.generation)?, out);
    Ok(())
}

/// Returns a valid generation.
fn valid(generation: u64) -> Result<u64, MessageError> {
    if generation > MAX_GENERATION { Err(MessageError::Generation(generation)) } else { Ok(generation) }
}

fn write_identity(identity: &Identity, out: &mut Vec<u8>) -> Result<(), MessageError> {
    write_peer(&identity.id, out)?;
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
    let changes = bounded(&push.changes, MAX_CHANGES, "push")?;
    out.extend((changes.len() as u16).to_be_bytes());
    let mut last = None;
    for change in changes {
        last = Some(in_order(last, change.version)?);
        write_text(change.key, MAX_KEY, "key", out)?;
        write_number(change.version, out);
        match change.value {
            None => out.push(NO),
            Some(value) => {
                out.push(YES);
                write_text(value, MAX_VALUE, "value", out)?;
            }
        }
    }
    Ok(())
}

// --- Decoding --------------------------------------------------------------------------------------------------------

/// Unread rest of a message.
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
            octet => Err(MessageError::Choice { what: "boolean", octet }),
        }
    }

    /// Reads a length and a text.
    fn text(&mut self, most: usize, what: &'static str) -> Result<&'a str, MessageError> {
        let len = self.short()?.into();
        within(len, most, what)?;
        str::from_utf8(self.take(len)?).map_err(|_| MessageError::Text)
    }

    /// Reads a length and the content of a part of a transfer.
    fn state(&mut self) -> Result<&'a [u8], MessageError> {
        let len = self.short()?.into();
        within(len, MAX_GOSSIP, "part of the state")?;
        self.take(len)
    }

    fn name(&mut self) -> Result<Label, MessageError> {
        let len = self.octet()?.into();
        within(len, MAX_LABEL, "name")?;
        let text = str::from_utf8(self.take(len)?).map_err(|_| MessageError::Text)?;
        Label::parse(text).map_err(MessageError::Name)
    }

    fn peer(&mut self) -> Result<PeerId, MessageError> {
        Ok(PeerId { name: self.name()?, generation: valid(self.number()?)? })
    }

    fn identity(&mut self) -> Result<Identity, MessageError> {
        let id = self.peer()?;
        let ip: IpAddr = match self.octet()? {
            IPV4 => self.array::<4>()?.into(),
            IPV6 => self.array::<16>()?.into(),
            octet => return Err(MessageError::Choice { what: "address family", octet }),
        };
        let address = sendable(SocketAddr::new(ip, self.short()?))?;
        Ok(Identity { id, address })
    }

    fn claim(&mut self) -> Result<Claim, MessageError> {
        let mut time = || self.number().map(Duration::from_millis);
        Ok(Claim { known_for: time()?, uptime: time()? })
    }

    fn cause(&mut self) -> Result<Cause, MessageError> {
        Ok(match self.octet()? {
            1 => Cause::Left,
            2 => Cause::Refused,
            3 => Cause::Silent,
            4 => Cause::Unresponsive,
            5 => Cause::Unreachable,
            6 => Cause::Expired,
            7 => Cause::Forgotten,
            8 => Cause::NotReturned,
            octet => return Err(MessageError::Choice { what: "cause", octet }),
        })
    }

    fn indirect_result(&mut self) -> Result<IndirectProbeResult, MessageError> {
        Ok(match self.octet()? {
            1 => IndirectProbeResult::Acked,
            2 => IndirectProbeResult::TcpOnly,
            3 => IndirectProbeResult::Unreachable,
            octet => return Err(MessageError::Choice { what: "probe result", octet }),
        })
    }

    fn push(&mut self) -> Result<Push<'a>, MessageError> {
        let generation = self.number()?;
        let count = self.short()?.into();
        within(count, MAX_CHANGES, "push")?;
        // Checked before memory is allocated.
        if self.rest.len() < count * MIN_CHANGE {
            return Err(MessageError::Cut);
        }
        let mut changes: Vec<Change<'a>> = Vec::with_capacity(count);
        for _ in 0..count {
            let key = self.text(MAX_KEY, "key")?;
            let version = in_order(changes.last().map(|last| last.version), self.number()?)?;
            let value = if self.truth()? { Some(self.text(MAX_VALUE, "value")?) } else { None };
            changes.push(Change { key, version, value });
        }
        Ok(Push { generation, changes })
    }
}

// --- Validation in both directions -----------------------------------------------------------------------------------

fn within(len: usize, most: usize, what: &'static str) -> Result<(), MessageError> {
    if len <= most { Ok(()) } else { Err(MessageError::TooLong { what, len, most }) }
}

fn bounded<'a, T>(all: &'a [T], most: usize, what: &'static str) -> Result<&'a [T], MessageError> {
    within(all.len(), most, what).map(|()| all)
}

/// Accepts addresses that can be a destination.
pub(super) fn sendable(address: SocketAddr) -> Result<SocketAddr, MessageError> {
    if is_destination(address) { Ok(address) } else { Err(MessageError::Address(address)) }
}

/// Reports whether messages can be sent to an address.
pub fn is_destination(address: SocketAddr) -> bool {
    let ip = address.ip();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

fn in_order(last: Option<u64>, version: u64) -> Result<u64, MessageError> {
    if last.is_none_or(|last| last < version) { Ok(version) } else { Err(MessageError::Order) }
}

/// Accepts texts that can be printed on one line.
fn one_line(text: &str) -> Result<&str, MessageError> {
    if text.contains(char::is_control) { Err(MessageError::Text) } else { Ok(text) }
}
