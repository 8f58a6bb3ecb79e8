//! Messages of a transfer in, the content of a zone or its changes out.
//!
//! A [`Stream`] takes the messages of one reply in their order. Everything in them is untrusted: records outside the zone, a wrong
//! order of versions and streams without an end are errors.

use thiserror::Error;

use crate::{
    dns::{
        message::{
            codes::{Rcode, class, rtype},
            query::{HEADER, LookupName},
            reader::Reader,
            record_walk::{Walk, names_in},
        },
        zone::serial::is_later,
    },
    model::{name::Name, service::MAX_TTL, zone::StaticRecord},
};

/// Largest number of records of a transfer, as of a zone file.
pub(super) const MAX_RECORDS: usize = 1_000_000;
/// Largest number of octets of owner names and RDATA, uncompressed, of a transfer: those of a million usual records. Compression
/// makes a thousandfold of the octets that are sent.
pub(super) const MAX_OCTETS: usize = 128 << 20;
/// Octets of the numbers of an SOA record (RFC 1035 §3.3.13), the first of which is the serial.
const SOA_NUMBERS: usize = 20;

/// Part of the zone that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The whole zone (AXFR).
    Whole,
    /// Changes since a serial (IXFR).
    Since(u32),
}

/// Changes from one version to the next. Both lists begin with the SOA of their version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Records that the older version has.
    pub removed: Vec<StaticRecord>,
    /// Records that the newer version has.
    pub added: Vec<StaticRecord>,
}

/// A complete reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// The primary has no later version; holds its serial, which may be older than the one that was asked for (RFC 1995 §2).
    NoLater(u32),
    /// All records of the zone, the SOA first.
    Whole(Vec<StaticRecord>),
    /// Changes, the oldest first.
    Changes(Vec<Change>),
}

/// Reasons why a reply is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StreamError {
    /// Not a DNS message, or none that replies to the request.
    #[error("malformed message")]
    Malformed,
    /// The id, the question or the opcode is not that of the request.
    #[error("the message does not reply to the request")]
    OtherRequest,
    /// The primary refuses; holds the response code.
    #[error("the primary answers {}", code(*.0))]
    Refused(u8),
    /// An SOA that is not an authoritative answer: a server has lost the zone, or never had it.
    #[error("its SOA is not authoritative: is the zone loaded there, and has it not expired?")]
    NotAuthoritative,
    /// No SOA in the reply to an SOA query.
    #[error("it has no SOA of the zone: does it serve the zone?")]
    NoZone,
    /// A message without records.
    #[error("a message of the transfer has no records")]
    Empty,
    /// The first record is no SOA of the zone.
    #[error("the transfer does not begin with the SOA of the zone")]
    NoSoa,
    /// An owner name outside the zone.
    #[error("record of `{0}`, which is not in the zone")]
    OutsideZone(Name),
    /// An SOA that is neither the end nor that of the expected version; holds its serial.
    #[error("unexpected SOA with serial {0}")]
    UnexpectedSoa(u32),
    /// A class other than IN, or a type that no record has.
    #[error("record of type {0} of `{1}`: no zone can have it")]
    Type(u16, Name),
    /// RDATA that is malformed for its type.
    #[error("malformed record of type {0} of `{1}`")]
    Rdata(u16, Name),
    /// Records behind the last SOA.
    #[error("records follow the end of the transfer")]
    AfterEnd,
    /// The limits on records or octets are exceeded.
    #[error("the transfer has more than {MAX_RECORDS} records or {MAX_OCTETS} octets")]
    TooLarge,
}

/// Returns the mnemonic of a response code.
fn code(rcode: u8) -> String {
    match Rcode::from_number(rcode.into()) {
        Some(refused @ Rcode::Refused) => format!("{refused}: does it allow transfers to this host or key?"),
        Some(unknown @ Rcode::NotAuth) => format!("{unknown}: does it serve the zone, and is the key known there?"),
        Some(code) => code.to_string(),
        None => format!("with code {rcode}"),
    }
}

/// Reader of the messages of one reply.
#[derive(Debug)]
pub struct Stream {
    origin: Name,
    id: u16,
    asked: Asked,
    state: State,
    records: usize,
    octets: usize,
}

/// Progress of a reply.
#[derive(Debug)]
enum State {
    /// No record was read.
    Begin,
    /// The SOA of the newest version was read.
    First(StaticRecord),
    /// Records of the whole zone.
    Whole { last: u32, records: Vec<StaticRecord> },
    /// Records that a version adds, or removes from the one before.
    Changes { last: u32, changes: Vec<Change>, is_adding: bool },
    /// The last SOA was read.
    End,
}

impl Stream {
    /// Returns a reader of the reply to a request with this id.
    pub fn new(origin: Name, id: u16, asked: Asked) -> Self {
        Self { origin, id, asked, state: State::Begin, records: 0, octets: 0 }
    }

    /// Takes the next message. Returns the content after the last one.
    ///
    /// # Errors
    /// The reply is refused; the rest of it is of no use.
    pub fn take(&mut self, message: &[u8]) -> Result<Option<Received>, StreamError> {
        let (mut walk, answers) = reply(message, self.id, &self.origin)?;
        if answers == 0 {
            return Err(StreamError::Empty);
        }
        let mut received = None;
        for _ in 0..answers {
            if received.is_some() {
                return Err(StreamError::AfterEnd);
            }
            let record = record(&mut walk, message, &self.origin)?;
            self.records += 1;
            self.octets += record.owner.wire().len() + record.rdata.len();
            if self.records > MAX_RECORDS || self.octets > MAX_OCTETS {
                return Err(StreamError::TooLarge);
            }
            received = self.push(record)?;
        }
        if let (None, State::First(soa), Asked::Since(since)) = (&received, &self.state, self.asked)
            && let Some(serial) = serial(&soa.rdata)
            && !is_later(serial, since)
        {
            self.state = State::End;
            return Ok(Some(Received::NoLater(serial)));
        }
        Ok(received)
    }

    fn push(&mut self, record: StaticRecord) -> Result<Option<Received>, StreamError> {
        let version = if record.rtype == rtype::SOA { serial(&record.rdata) } else { None };
        let (state, received) = match std::mem::replace(&mut self.state, State::End) {
            State::Begin => match version {
                Some(_) => (State::First(record), None),
                None => return Err(StreamError::NoSoa),
            },
            State::First(soa) => {
                let last = serial(&soa.rdata).ok_or(StreamError::NoSoa)?;
                match (version, self.asked) {
                    (Some(version), Asked::Since(since)) if version == since && version != last => {
                        let change = Change { removed: vec![record], added: Vec::new() };
                        (State::Changes { last, changes: vec![change], is_adding: false }, None)
                    }
                    (Some(version), _) if version == last => (State::End, Some(Received::Whole(vec![soa]))),
                    (Some(version), _) => return Err(StreamError::UnexpectedSoa(version)),
                    (None, _) => (State::Whole { last, records: vec![soa, record] }, None),
                }
            }
            State::Whole { last, mut records } => match version {
                Some(version) if version == last => (State::End, Some(Received::Whole(records))),
                Some(version) => return Err(StreamError::UnexpectedSoa(version)),
                None => {
                    records.push(record);
                    (State::Whole { last, records }, None)
                }
            },
            State::Changes { last, changes, is_adding } => {
                return self.push_change(last, changes, is_adding, version, record);
            }
            State::End => return Err(StreamError::AfterEnd),
        };
        self.state = state;
        Ok(received)
    }

    /// Takes a record of an incremental reply (RFC 1995 §4): each SOA begins a list.
    fn push_change(
        &mut self,
        last: u32,
        mut changes: Vec<Change>,
        is_adding: bool,
        version: Option<u32>,
        record: StaticRecord,
    ) -> Result<Option<Received>, StreamError> {
        let Some(current) = changes.last_mut() else { return Err(StreamError::Malformed) };
        let list = if is_adding { &mut current.added } else { &mut current.removed };
        let Some(version) = version else {
            list.push(record);
            self.state = State::Changes { last, changes, is_adding };
            return Ok(None);
        };
        let reached = list.first().and_then(|soa| serial(&soa.rdata)).ok_or(StreamError::Malformed)?;
        match is_adding {
            false if is_later(version, reached) && !is_later(version, last) => {
                current.added.push(record);
                self.state = State::Changes { last, changes, is_adding: true };
                Ok(None)
            }
            true if version == reached && version == last => Ok(Some(Received::Changes(changes))),
            true if version == reached => {
                changes.push(Change { removed: vec![record], added: Vec::new() });
                self.state = State::Changes { last, changes, is_adding: false };
                Ok(None)
            }
            _ => Err(StreamError::UnexpectedSoa(version)),
        }
    }
}

/// Returns the SOA record in the reply to an SOA query with this id.
///
/// # Errors
/// The reply has none, or not with authority. A transfer needs no such flag (RFC 5936 §2.2.1).
pub fn soa_in(message: &[u8], id: u16, origin: &Name) -> Result<StaticRecord, StreamError> {
    let (mut walk, answers) = reply(message, id, origin)?;
    if message[2] & 0x04 == 0 {
        return Err(StreamError::NotAuthoritative);
    }
    for _ in 0..answers {
        let record = record(&mut walk, message, origin)?;
        if record.rtype == rtype::SOA {
            return Ok(record);
        }
    }
    Err(StreamError::NoZone)
}

/// Returns the serial in the RDATA of an SOA.
pub fn serial(rdata: &[u8]) -> Option<u32> {
    let numbers = rdata.get(rdata.len().checked_sub(SOA_NUMBERS)?..)?;
    Some(u32::from_be_bytes([numbers[0], numbers[1], numbers[2], numbers[3]]))
}

/// Checks the header and the question of a reply. Returns its records and the number of those in the answer section.
fn reply<'m>(message: &'m [u8], id: u16, origin: &Name) -> Result<(Walk<'m>, u16), StreamError> {
    let head: &[u8; HEADER] = message.first_chunk().ok_or(StreamError::Malformed)?;
    let count = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    // A response of opcode 0.
    if count(0) != id || head[2] & 0xf8 != 0x80 {
        return Err(StreamError::OtherRequest);
    }
    if head[3] & 0x0f != 0 {
        return Err(StreamError::Refused(head[3] & 0x0f));
    }
    // Truncated messages are for UDP, and retried over TCP before.
    if head[2] & 0x02 != 0 || count(4) > 1 {
        return Err(StreamError::Malformed);
    }
    let mut at = HEADER;
    if count(4) == 1 {
        let walk = Walk::new(message, HEADER);
        let name = walk.whole_name(HEADER).ok_or(StreamError::Malformed)?;
        if !name.eq_ignore_ascii_case(origin.wire()) {
            return Err(StreamError::OtherRequest);
        }
        at = walk.after_question().ok_or(StreamError::Malformed)?;
    }
    Ok((Walk::new(message, at), count(6)))
}

/// Reads a record of the zone.
fn record(walk: &mut Walk<'_>, message: &[u8], origin: &Name) -> Result<StaticRecord, StreamError> {
    let found = walk.record().ok_or(StreamError::Malformed)?;
    let owner = walk.whole_name(found.owner).ok_or(StreamError::Malformed)?;
    let owner = LookupName::from_wire(&owner).and_then(|name| Name::from_labels(name.labels()).ok());
    let owner = owner.ok_or(StreamError::Malformed)?;
    let Some(below) = owner.within(origin) else { return Err(StreamError::OutsideZone(owner)) };
    let (rtype, is_apex) = (found.rtype, below.is_empty());
    // Query and meta types (RFC 6895 §3.1), and types that DNSSEC has replaced (RFC 3755): as in zone files.
    if found.class != class::IN || matches!(rtype, 0 | 24 | 25 | 30 | 41 | 128..=255 | 65535) {
        return Err(StreamError::Type(rtype, owner));
    }
    let rdata = walk.whole_rdata(&found).filter(|rdata| is_valid(rtype, rdata));
    let Some(rdata) = rdata else { return Err(StreamError::Rdata(rtype, owner)) };
    if rtype == rtype::SOA && !is_apex {
        return Err(StreamError::UnexpectedSoa(serial(&rdata).unwrap_or_default()));
    }
    let ttl = message.get(found.ttl..found.ttl + 4).and_then(|octets| octets.first_chunk().copied());
    // RFC 2181 §8: a TTL above the limit counts as zero; the limit is closer to what was meant.
    let ttl = u32::from_be_bytes(ttl.ok_or(StreamError::Malformed)?).min(MAX_TTL);
    Ok(StaticRecord { owner, rtype, ttl, rdata, line: 0, column: 0 })
}

/// Reports whether RDATA with uncompressed names is valid for its type, as far as answers depend on it.
fn is_valid(rtype: u16, rdata: &[u8]) -> bool {
    match rtype {
        rtype::A => rdata.len() == 4,
        rtype::AAAA => rdata.len() == 16,
        _ => {
            let (fields, names) = names_in(rtype);
            if names == 0 {
                return true;
            }
            let mut reader = Reader::new(rdata.get(fields..).unwrap_or_default());
            let numbers = if rtype == rtype::SOA { SOA_NUMBERS } else { 0 };
            (0..names).all(|_| reader.take_plain_name().is_some()) && reader.rest.len() == numbers
        }
    }
}

#[cfg(test)]
mod tests;
