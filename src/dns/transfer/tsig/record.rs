//! The TSIG record in wire form, and what a MAC covers of it.

use crate::{
    dns::message::{codes::rtype, query::HEADER},
    model::name::Name,
};

/// Class of the record (RFC 8945 §4.2).
const CLASS_ANY: u16 = 255;
/// Octets of RDATA before and behind the MAC, without the name of the algorithm: time, fudge, length of the MAC; id, error,
/// length of the other data.
pub(super) const RDATA_FIELDS: usize = 6 + 2 + 2 + 2 + 2 + 2;
/// Octets of a record between its name and its RDATA: type, class, TTL, length.
pub(super) const RECORD_FIELDS: usize = 10;

/// Fields of a TSIG record (RFC 8945 §4.2).
pub(super) struct Record<'r> {
    pub(super) key: &'r Name,
    pub(super) algorithm: &'r [u8],
    pub(super) time: u64,
    pub(super) fudge: u16,
    pub(super) mac: &'r [u8],
    pub(super) id: u16,
    pub(super) error: u16,
    pub(super) other: &'r [u8],
}

impl Record<'_> {
    /// Appends the record to a message and counts it.
    pub(super) fn append_to(&self, message: &mut Vec<u8>) {
        let rdata_len = self.algorithm.len() + RDATA_FIELDS + self.mac.len() + self.other.len();
        message.extend_from_slice(self.key.wire());
        message.extend_from_slice(&rtype::TSIG.to_be_bytes());
        message.extend_from_slice(&CLASS_ANY.to_be_bytes());
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(&(rdata_len as u16).to_be_bytes());
        message.extend_from_slice(self.algorithm);
        message.extend_from_slice(&times(self.time, self.fudge));
        message.extend_from_slice(&(self.mac.len() as u16).to_be_bytes());
        message.extend_from_slice(self.mac);
        for field in [self.id, self.error, self.other.len() as u16] {
            message.extend_from_slice(&field.to_be_bytes());
        }
        message.extend_from_slice(self.other);
        let additional = u16::from_be_bytes([message[10], message[11]]).saturating_add(1);
        message[10..HEADER].copy_from_slice(&additional.to_be_bytes());
    }
}

/// Returns the time and the fudge as a MAC covers them (RFC 8945 §5.3.1).
pub(super) fn times(time: u64, fudge: u16) -> [u8; 8] {
    let mut octets = [0; 8];
    octets[..6].copy_from_slice(&time.to_be_bytes()[2..]);
    octets[6..].copy_from_slice(&fudge.to_be_bytes());
    octets
}

/// Returns the TSIG variables that a MAC covers (RFC 8945 §4.3.3).
pub(super) fn variables(key: &Name, algorithm: &[u8], time: u64, fudge: u16, error: u16, other: &[u8]) -> Vec<u8> {
    let mut octets = key.wire().to_vec();
    octets.extend_from_slice(&CLASS_ANY.to_be_bytes());
    octets.extend_from_slice(&[0; 4]);
    octets.extend_from_slice(algorithm);
    octets.extend_from_slice(&times(time, fudge));
    octets.extend_from_slice(&error.to_be_bytes());
    octets.extend_from_slice(&(other.len() as u16).to_be_bytes());
    octets.extend_from_slice(other);
    octets
}

/// The TSIG record of a message.
pub(super) struct Tsig<'p> {
    /// Offset of the record.
    pub(super) start: usize,
    pub(super) key: Name,
    pub(super) algorithm: &'p [u8],
    pub(super) time: u64,
    pub(super) fudge: u16,
    pub(super) mac: &'p [u8],
    pub(super) id: u16,
    pub(super) error: u16,
    pub(super) other: &'p [u8],
}

impl<'p> Tsig<'p> {
    /// Parses the last record of a message, which has to be the only TSIG record; `None` if the message is malformed.
    pub(super) fn parse(packet: &'p [u8]) -> Option<Self> {
        let count = |at: usize| Some(usize::from(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?])));
        let mut reader = Reader { packet, at: HEADER };
        for _ in 0..count(4)? {
            reader.skip_name()?;
            reader.take(4)?;
        }
        let records = count(6)? + count(8)? + count(10)?;
        for _ in 1..records {
            reader.skip_name()?;
            let rtype = reader.u16()?;
            reader.take(6)?;
            let len = reader.u16()?;
            reader.take(len.into())?;
            // Exactly one, at the end (RFC 8945 §5.1).
            if rtype == rtype::TSIG {
                return None;
            }
        }
        if records == 0 || count(10)? == 0 {
            return None;
        }
        let start = reader.at;
        let key = reader.name()?;
        let (rtype, class) = (reader.u16()?, reader.u16()?);
        let (ttl, len) = (reader.take(4)?, reader.u16()?);
        if rtype != rtype::TSIG || class != CLASS_ANY || ttl != [0; 4] || reader.at + usize::from(len) != packet.len() {
            return None;
        }
        let algorithm_at = reader.at;
        reader.skip_plain_name()?;
        let algorithm = &packet[algorithm_at..reader.at];
        let time = reader.take(6)?.iter().fold(0, |time, octet| time << 8 | u64::from(*octet));
        let fudge = reader.u16()?;
        let len = reader.u16()?;
        let mac = reader.take(len.into())?;
        let (id, error, len) = (reader.u16()?, reader.u16()?, reader.u16()?);
        let other = reader.take(len.into())?;
        let is_whole = reader.at == packet.len();
        is_whole.then_some(Self { start, key, algorithm, time, fudge, mac, id, error, other })
    }
}

struct Reader<'p> {
    packet: &'p [u8],
    at: usize,
}

impl<'p> Reader<'p> {
    fn take(&mut self, len: usize) -> Option<&'p [u8]> {
        let taken = self.packet.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|octets| u16::from_be_bytes([octets[0], octets[1]]))
    }

    /// Skips a name, compressed or not.
    fn skip_name(&mut self) -> Option<()> {
        loop {
            match self.take(1)?[0] {
                0 => return Some(()),
                len @ 1..=0x3f => drop(self.take(len.into())?),
                0xc0..=0xff => return self.take(1).map(|_| ()),
                0x40..=0xbf => return None,
            }
        }
    }

    /// Skips a name without compression.
    fn skip_plain_name(&mut self) -> Option<()> {
        loop {
            match self.take(1)?[0] {
                0 => return Some(()),
                len @ 1..=0x3f => drop(self.take(len.into())?),
                _ => return None,
            }
        }
    }

    /// Reads a name without compression, which the name of a key may not have (RFC 8945 §4.2).
    fn name(&mut self) -> Option<Name> {
        let start = self.at;
        self.skip_plain_name()?;
        let mut labels = Vec::new();
        let mut wire = &self.packet[start..self.at];
        while let Some((len @ 1.., rest)) = wire.split_first() {
            let (label, rest) = rest.split_at_checked(usize::from(*len))?;
            labels.push(label.to_ascii_lowercase());
            wire = rest;
        }
        Name::from_labels(labels.iter().map(Vec::as_slice)).ok()
    }
}
