//! Parser of UPDATE messages (RFC 2136 §2), the untrusted input of dynamic zones.
//!
//! It reads each octet once, except for names behind compression pointers, which only lead backwards. Meaning is left to
//! [`evaluate`](super::evaluate).

use thiserror::Error;

use super::{rdata, wire_name::read_name};
use crate::{
    dns::message::{
        codes::{class, opcode, rtype},
        query::{HEADER, LookupName},
        reader::Reader,
    },
    model::name::Name,
};

/// Largest number of records in the prerequisite section, and in the update section: more than fit a message with records of
/// usual length, so that the work for one message has a bound.
pub const MAX_RECORDS: usize = 4_000;

/// Class of records that stand for all records of a type or a name (RFC 2136 §2.4, §2.5).
pub const CLASS_ANY: u16 = 255;
/// Class of records that are absent, or are to be deleted.
pub const CLASS_NONE: u16 = 254;

/// An update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Zone to update.
    pub zone: Name,
    /// Prerequisites (RFC 2136 §2.4).
    pub prerequisites: Vec<Record>,
    /// Changes (RFC 2136 §2.5).
    pub changes: Vec<Record>,
}

/// A record of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Owner.
    pub owner: Name,
    /// Type.
    pub rtype: u16,
    /// Class: IN, [`CLASS_ANY`] or [`CLASS_NONE`], or one that is refused.
    pub class: u16,
    /// TTL in seconds, as received: it may exceed [`MAX_TTL`](crate::model::service::MAX_TTL).
    pub ttl: u32,
    /// RDATA with uncompressed names.
    pub rdata: Vec<u8>,
}

/// Reasons why a message is no update.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// The message is malformed (FORMERR); holds what is wrong.
    #[error("malformed update: {0}")]
    Malformed(&'static str),
    /// The zone is of another class than IN (NOTAUTH).
    #[error("a zone of class {0}")]
    Class(u16),
}

/// Reports whether a packet has the opcode of an update and is no response.
pub fn is_update(packet: &[u8]) -> bool {
    packet.get(2).is_some_and(|flags| flags & 0xf8 == opcode::UPDATE << 3)
}

/// Reports whether a record of the additional section has type TSIG. A malformed message has none.
pub fn is_signed(packet: &[u8]) -> bool {
    let mut is_signed = false;
    let _ = additional(packet, |rtype, _| is_signed |= rtype == rtype::TSIG);
    is_signed
}

/// Returns the size of replies over UDP that the client accepts; `None` if the update has no OPT record (RFC 6891).
pub fn edns_payload(packet: &[u8]) -> Option<u16> {
    let mut payload = None;
    additional(packet, |rtype, class| {
        if rtype == rtype::OPT {
            payload = Some(class);
        }
    })?;
    payload
}

/// Passes type and class of each record of the additional section to `visit`; `None` if the message is malformed.
fn additional(packet: &[u8], mut visit: impl FnMut(u16, u16)) -> Option<()> {
    let count = |at: usize| Some(usize::from(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?])));
    let mut reader = Reader::new(packet.get(HEADER..)?);
    for _ in 0..count(4)? {
        reader.skip_name()?;
        reader.take(4)?;
    }
    let before = count(6)? + count(8)?;
    for at in 0..before + count(10)? {
        reader.skip_name()?;
        let (rtype, class) = (reader.u16()?, reader.u16()?);
        reader.take(4)?;
        let len = reader.u16()?;
        reader.take(len.into())?;
        if at >= before {
            visit(rtype, class);
        }
    }
    Some(())
}

/// Returns the zone section as received; empty if it is malformed. A reply repeats it.
pub fn zone_section(packet: &[u8]) -> &[u8] {
    let mut reader = Reader::new(packet.get(HEADER..).unwrap_or_default());
    let body = reader.rest;
    let section = reader.take_plain_name().and_then(|name| reader.take(4).map(|fields| name.len() + fields.len()));
    let is_one = packet.get(4..6) == Some(&[0, 1]);
    section.filter(|_| is_one).map_or(&[], |len| &body[..len])
}

/// Returns the name in the zone section, or in the question of another message; `None` if it is malformed.
pub fn zone_name(packet: &[u8]) -> Option<LookupName> {
    let (name, _) = zone_section(packet).split_last_chunk::<4>()?;
    LookupName::from_wire(name)
}

impl Update {
    /// Parses a message without its TSIG record.
    ///
    /// # Errors
    /// The first fault.
    pub fn parse(packet: &[u8]) -> Result<Self, MessageError> {
        let malformed = MessageError::Malformed;
        let head = packet.get(..HEADER).ok_or(malformed("it is too short"))?;
        let count = |at: usize| usize::from(u16::from_be_bytes([head[at], head[at + 1]]));
        if count(4) != 1 {
            return Err(malformed("its zone section does not have exactly one record"));
        }
        if count(6).max(count(8)) > MAX_RECORDS {
            return Err(malformed("it has more than 4000 records in one section"));
        }
        let mut at = HEADER;
        let zone = name(packet, &mut at).ok_or(malformed("the name of the zone is invalid"))?;
        let fields = take(packet, &mut at, 4).ok_or(malformed("the zone section is cut"))?;
        if fields[..2] != rtype::SOA.to_be_bytes() {
            return Err(malformed("the type in the zone section is not SOA"));
        }
        let class = u16::from_be_bytes([fields[2], fields[3]]);
        if class != class::IN {
            return Err(MessageError::Class(class));
        }
        let mut section = |count: usize| -> Option<Vec<Record>> {
            (0..count).map(|_| record(packet, &mut at)).collect::<Option<Vec<Record>>>()
        };
        let prerequisites = section(count(6)).ok_or(malformed("a prerequisite is malformed"))?;
        let changes = section(count(8)).ok_or(malformed("a record of the update section is malformed"))?;
        section(count(10)).ok_or(malformed("the additional section is malformed"))?;
        if at != packet.len() {
            return Err(malformed("octets follow the last record"));
        }
        Ok(Self { zone, prerequisites, changes })
    }
}

fn take<'p>(packet: &'p [u8], at: &mut usize, len: usize) -> Option<&'p [u8]> {
    let taken = packet.get(*at..at.checked_add(len)?)?;
    *at += len;
    Some(taken)
}

fn name(packet: &[u8], at: &mut usize) -> Option<Name> {
    let mut wire = Vec::new();
    *at = read_name(packet, *at, &mut wire)?;
    Name::from_labels(LookupName::from_wire(&wire)?.labels()).ok()
}

fn record(packet: &[u8], at: &mut usize) -> Option<Record> {
    let owner = name(packet, at)?;
    let [t0, t1, c0, c1, l0, l1, l2, l3, r0, r1] = *take(packet, at, 10)? else { return None };
    let (rtype, class) = (u16::from_be_bytes([t0, t1]), u16::from_be_bytes([c0, c1]));
    let start = *at;
    take(packet, at, usize::from(u16::from_be_bytes([r0, r1])))?;
    let ttl = u32::from_be_bytes([l0, l1, l2, l3]);
    // The additional section has an OPT record. Records that stand for a type or a name have no RDATA.
    let has_fields = class == class::IN || class == CLASS_NONE;
    let rdata = match has_fields && *at > start {
        true => rdata::read(rtype, packet, start, *at)?,
        false => packet[start..*at].to_vec(),
    };
    Some(Record { owner, rtype, class, ttl, rdata })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Builds a message for the zone `z.` with these records.
    pub(in super::super) fn message(prerequisites: &[Vec<u8>], changes: &[Vec<u8>]) -> Vec<u8> {
        let mut message = vec![0, 7, opcode::UPDATE << 3, 0, 0, 1];
        message.extend_from_slice(&(prerequisites.len() as u16).to_be_bytes());
        message.extend_from_slice(&(changes.len() as u16).to_be_bytes());
        message.extend_from_slice(b"\0\0\x01z\0\0\x06\0\x01");
        prerequisites.iter().chain(changes).for_each(|record| message.extend_from_slice(record));
        message
    }

    /// Encodes a record whose owner is these labels in wire form, below the zone.
    pub(in super::super) fn wire(owner: &[u8], rtype: u16, class: u16, ttl: u32, rdata: &[u8]) -> Vec<u8> {
        let mut record = [owner, b"\xc0\x0c"].concat();
        record.extend_from_slice(&rtype.to_be_bytes());
        record.extend_from_slice(&class.to_be_bytes());
        record.extend_from_slice(&ttl.to_be_bytes());
        record.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
        record.extend_from_slice(rdata);
        record
    }

    #[test]
    fn messages_are_parsed_or_refused() {
        let add = wire(b"\x01A", 1, 1, 60, &[192, 0, 2, 1]);
        let with = |at: usize, octet: u8| {
            let mut message = message(&[], std::slice::from_ref(&add));
            message[at] = octet;
            message
        };
        let opt = [b"\0\0\x29\x10\0\0\0\0\0\0\0".as_slice()].concat();
        let mut with_opt = message(&[], std::slice::from_ref(&add));
        with_opt[11] = 1;
        with_opt.extend_from_slice(&opt);
        assert_eq!(edns_payload(&with_opt), Some(4096));
        let cases = [
            ("an added record", message(&[], std::slice::from_ref(&add)), "ok"),
            ("EDNS", with_opt, "ok"),
            ("no changes", message(&[], &[]), "ok"),
            ("a deleted type", message(&[], &[wire(b"\x01a", 1, CLASS_ANY, 0, b"")]), "ok"),
            ("a prerequisite", message(&[wire(b"\x01a", 255, CLASS_NONE, 0, b"")], &[]), "ok"),
            ("two zones", with(5, 2), "malformed update: its zone section does not have exactly one record"),
            ("another type", with(16, 1), "malformed update: the type in the zone section is not SOA"),
            ("another class", with(18, 3), "a zone of class 3"),
            ("a missing record", with(9, 2), "malformed update: a record of the update section is malformed"),
            ("too many records", with(8, 0xff), "malformed update: it has more than 4000 records in one section"),
            (
                "a short address",
                message(&[], &[wire(b"\x01a", 1, 1, 60, &[192])]),
                "malformed update: a record of the update section is malformed",
            ),
            ("no message", Vec::new(), "malformed update: it is too short"),
        ];
        for (case, message, expected) in cases {
            let found = Update::parse(&message).map_or_else(|error| error.to_string(), |_| "ok".to_owned());
            assert_eq!(found, expected, "{case}");
        }
        let update = Update::parse(&message(&[], &[add])).unwrap();
        let record =
            Record { owner: Name::parse("a.z").unwrap(), rtype: 1, class: 1, ttl: 60, rdata: vec![192, 0, 2, 1] };
        assert_eq!((update.zone, update.changes), (Name::parse("z").unwrap(), vec![record]));
    }
}
