//! The TSIG record in wire form, and what a MAC covers of it.

use crate::{
    dns::message::{
        codes::rtype,
        query::{HEADER, LookupName},
        reader::Reader,
    },
    model::name::Name,
};

/// Class of the record (RFC 8945 §4.2).
const CLASS_ANY: u16 = 255;
/// Octets of RDATA before and behind the MAC, without the name of the algorithm: time, fudge, length of the MAC; id, error,
/// length of the other data.
pub(super) const RDATA_FIELDS: usize = 6 + 2 + 2 + 2 + 2 + 2;
/// Octets of a record between its name and its RDATA: type, class, TTL, length.
pub(super) const RECORD_FIELDS: usize = 10;

/// Fields of a TSIG record but the MAC (RFC 8945 §4.2).
#[derive(Clone, Copy)]
pub(super) struct Fields<'r> {
    /// Name of the key in wire form and lower case.
    pub(super) key: &'r [u8],
    /// Name of the algorithm in wire form.
    pub(super) algorithm: &'r [u8],
    pub(super) time: u64,
    pub(super) fudge: u16,
    pub(super) id: u16,
    pub(super) error: u16,
    pub(super) other: &'r [u8],
}

impl Fields<'_> {
    /// Appends the record with a MAC to a message and counts it.
    pub(super) fn append_to(&self, mac: &[u8], message: &mut Vec<u8>) {
        let rdata_len = self.algorithm.len() + RDATA_FIELDS + mac.len() + self.other.len();
        message.extend_from_slice(self.key);
        message.extend_from_slice(&rtype::TSIG.to_be_bytes());
        message.extend_from_slice(&CLASS_ANY.to_be_bytes());
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(&(rdata_len as u16).to_be_bytes());
        message.extend_from_slice(self.algorithm);
        message.extend_from_slice(&self.timers());
        message.extend_from_slice(&(mac.len() as u16).to_be_bytes());
        message.extend_from_slice(mac);
        for field in [self.id, self.error, self.other.len() as u16] {
            message.extend_from_slice(&field.to_be_bytes());
        }
        message.extend_from_slice(self.other);
        let additional = u16::from_be_bytes([message[10], message[11]]).saturating_add(1);
        message[10..HEADER].copy_from_slice(&additional.to_be_bytes());
    }

    /// Returns the TSIG timers that a MAC covers (RFC 8945 §5.3.1).
    pub(super) fn timers(&self) -> [u8; 8] {
        let mut octets = [0; 8];
        octets[..6].copy_from_slice(&self.time.to_be_bytes()[2..]);
        octets[6..].copy_from_slice(&self.fudge.to_be_bytes());
        octets
    }

    /// Returns the TSIG variables that a MAC covers (RFC 8945 §4.3.3).
    pub(super) fn variables(&self) -> Vec<u8> {
        let mut octets = self.key.to_vec();
        octets.extend_from_slice(&CLASS_ANY.to_be_bytes());
        octets.extend_from_slice(&[0; 4]);
        octets.extend_from_slice(self.algorithm);
        octets.extend_from_slice(&self.timers());
        octets.extend_from_slice(&self.error.to_be_bytes());
        octets.extend_from_slice(&(self.other.len() as u16).to_be_bytes());
        octets.extend_from_slice(self.other);
        octets
    }
}

/// The TSIG record of a message.
pub(super) struct Tsig<'p> {
    /// Offset of the record.
    pub(super) start: usize,
    /// Name of the key.
    pub(super) key: Name,
    /// MAC.
    pub(super) mac: &'p [u8],
    rdata: Fields<'p>,
}

impl<'p> Tsig<'p> {
    /// Returns the fields of the record, with the name of the key in lower case.
    pub(super) fn fields(&self) -> Fields<'_> {
        Fields { key: self.key.wire(), ..self.rdata }
    }

    /// Parses the last record of a message, which has to be the only TSIG record; `None` if the message is malformed.
    pub(super) fn parse(packet: &'p [u8]) -> Option<Self> {
        let count = |at: usize| Some(usize::from(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?])));
        let mut reader = Reader::new(packet.get(HEADER..)?);
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
        let start = packet.len() - reader.rest.len();
        // The name of a key is not compressed (RFC 8945 §4.2).
        let key = reader.take_plain_name()?;
        let (rtype, class) = (reader.u16()?, reader.u16()?);
        let (ttl, len) = (reader.take(4)?, reader.u16()?);
        if rtype != rtype::TSIG || class != CLASS_ANY || ttl != [0; 4] || usize::from(len) != reader.rest.len() {
            return None;
        }
        let algorithm = reader.take_plain_name()?;
        let time = reader.take(6)?.iter().fold(0, |time, octet| time << 8 | u64::from(*octet));
        let (fudge, len) = (reader.u16()?, reader.u16()?);
        let mac = reader.take(len.into())?;
        let (id, error, len) = (reader.u16()?, reader.u16()?, reader.u16()?);
        let other = reader.take(len.into())?;
        let rdata = Fields { key, algorithm, time, fudge, id, error, other };
        let key = Name::from_labels(LookupName::from_wire(key)?.labels()).ok()?;
        reader.rest.is_empty().then_some(Self { start, key, mac, rdata })
    }
}
