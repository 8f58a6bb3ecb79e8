//! Messages of a transfer: records in, whole messages out.

use std::borrow::Cow;

use thiserror::Error;

use crate::{
    dns::message::{
        codes::{class, rtype},
        presentation,
        query::HEADER,
    },
    model::name::Name,
};

/// Longest message of a transfer in octets without its signature: several hundred records, so that the parts of a large zone
/// are sent while later ones are encoded. A longer record has a message of its own.
const MAX_MESSAGE: usize = 32 * 1024;
/// Longest message over TCP (RFC 1035 §4.2.2).
const MAX_TCP: usize = 65_535;
/// Octets of a record between its name and its RDATA: type, class, TTL, length (RFC 1035 §3.2.1).
const RECORD_FIELDS: usize = 10;
/// Pointer to the question's name at the end of the header (RFC 1035 §4.1.4).
const QUESTION: [u8; 2] = [0xc0, HEADER as u8];

/// A record of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneRecord<'r> {
    /// Owner name relative to the origin: labels in wire form without the root.
    pub owner: &'r [u8],
    /// Record type.
    pub rtype: u16,
    /// TTL in seconds.
    pub ttl: u32,
    /// RDATA with uncompressed names.
    pub rdata: &'r [u8],
}

impl ZoneRecord<'_> {
    /// Appends the record to a message whose question has the origin of the zone.
    pub fn append_to(&self, message: &mut Vec<u8>) {
        message.extend_from_slice(self.owner);
        message.extend_from_slice(&QUESTION);
        message.extend_from_slice(&self.rtype.to_be_bytes());
        message.extend_from_slice(&class::IN.to_be_bytes());
        message.extend_from_slice(&self.ttl.to_be_bytes());
        message.extend_from_slice(&(self.rdata.len() as u16).to_be_bytes());
        message.extend_from_slice(self.rdata);
    }
}

/// Fields of the request that each message repeats.
#[derive(Clone, Copy, Debug)]
pub struct Head<'q> {
    /// Transaction id.
    pub id: u16,
    /// Origin of the zone.
    pub origin: &'q Name,
    /// AXFR or IXFR.
    pub qtype: u16,
    /// RD bit.
    pub recursion_desired: bool,
}

impl Head<'_> {
    /// Returns a message without records. Its question is in each message, as BIND accepts and RFC 5936 §2.2.1 allows: owner
    /// names point to it.
    fn begin(&self) -> Vec<u8> {
        let [high, low] = self.id.to_be_bytes();
        let mut message = Vec::with_capacity(MAX_MESSAGE);
        // QR, AA and RD; no code.
        message.extend_from_slice(&[high, low, 0x84 | u8::from(self.recursion_desired), 0]);
        message.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        message.extend_from_slice(self.origin.wire());
        message.extend_from_slice(&self.qtype.to_be_bytes());
        message.extend_from_slice(&class::IN.to_be_bytes());
        message
    }
}

/// Packs records into messages.
pub struct MessageWriter<'q, S> {
    head: Head<'q>,
    message: Vec<u8>,
    records: u16,
    /// Octets that the signature of a message needs.
    reserve: usize,
    sink: S,
}

/// Reasons why a transfer cannot go on.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum TransferError {
    /// The receiver of the messages is gone.
    #[error("ended by the client")]
    Closed,
    /// A record with the signature of the message does not fit any message.
    #[error(
        "the {rtype} record of {owner} has {len} octets, and a message has room for {room}{}: shorten the record",
        if *.is_signed { " beside its TSIG signature" } else { "" }
    )]
    TooLong {
        /// Owner name.
        owner: String,
        /// Mnemonic of the type.
        rtype: Cow<'static, str>,
        /// Octets of the record.
        len: usize,
        /// Octets for records in a message.
        room: usize,
        /// True if the messages are signed.
        is_signed: bool,
    },
}

impl<'q, S: FnMut(Vec<u8>) -> Result<(), TransferError>> MessageWriter<'q, S> {
    /// Returns a writer that passes each full message to `sink`, which can end the transfer. `reserve` is the length of a
    /// signature in octets.
    pub fn new(head: Head<'q>, reserve: usize, sink: S) -> Self {
        Self { message: head.begin(), head, records: 0, reserve, sink }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// The transfer cannot go on.
    pub fn push(&mut self, record: ZoneRecord<'_>) -> Result<(), TransferError> {
        let len = record.owner.len() + QUESTION.len() + RECORD_FIELDS + record.rdata.len();
        if self.message.len() + len > MAX_MESSAGE.saturating_sub(self.reserve) && self.records > 0 {
            self.flush()?;
        }
        let room = MAX_TCP.saturating_sub(self.message.len() + self.reserve);
        if len > room {
            return Err(self.too_long(&record, len, room));
        }
        record.append_to(&mut self.message);
        self.records += 1;
        Ok(())
    }

    /// Passes the last message on.
    ///
    /// # Errors
    /// The transfer cannot go on.
    pub fn finish(mut self) -> Result<(), TransferError> {
        if self.records > 0 { self.flush() } else { Ok(()) }
    }

    fn too_long(&self, record: &ZoneRecord<'_>, len: usize, room: usize) -> TransferError {
        let owner = presentation::name(&[record.owner, self.head.origin.wire()].concat());
        TransferError::TooLong { owner, rtype: rtype::name(record.rtype), len, room, is_signed: self.reserve > 0 }
    }

    fn flush(&mut self) -> Result<(), TransferError> {
        let mut message = std::mem::replace(&mut self.message, self.head.begin());
        message[6..8].copy_from_slice(&std::mem::take(&mut self.records).to_be_bytes());
        (self.sink)(message)
    }
}

/// Returns the record of an SOA with this RDATA.
pub fn soa(ttl: u32, rdata: &[u8]) -> ZoneRecord<'_> {
    ZoneRecord { owner: &[], rtype: rtype::SOA, ttl, rdata }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Octets of a signature with a short key name.
    const SIGNATURE: usize = 120;

    fn send(len: usize, reserve: usize) -> Result<Vec<usize>, TransferError> {
        let origin = Name::parse("example.org").unwrap();
        let head = Head { id: 7, origin: &origin, qtype: rtype::AXFR, recursion_desired: false };
        let mut sent = Vec::new();
        let mut writer = MessageWriter::new(head, reserve, |message| {
            sent.push(message.len());
            Ok(())
        });
        let rdata = vec![1; len];
        let record = |rdata| ZoneRecord { owner: b"\x01a", rtype: rtype::TXT, ttl: 60, rdata };
        writer.push(record(&rdata[..9]))?;
        writer.push(record(&rdata))?;
        writer.push(record(&rdata[..9]))?;
        writer.finish()?;
        Ok(sent)
    }

    #[test]
    fn longest_record_has_a_message_of_its_own_and_a_longer_one_is_named() {
        // Header, question, and the fields of the record.
        let around = HEADER + b"\x07example\x03org\0".len() + 4 + 2 + QUESTION.len() + RECORD_FIELDS;
        for reserve in [0, SIGNATURE] {
            let longest = MAX_TCP - around - reserve;
            assert_eq!(send(longest, reserve).unwrap()[1], MAX_TCP - reserve);
            let error = send(longest + 1, reserve).unwrap_err().to_string();
            let room = longest + 2 + QUESTION.len() + RECORD_FIELDS;
            assert!(error.starts_with(&format!("the TXT record of a.example.org. has {} octets", room + 1)), "{error}");
            assert!(error.contains(&format!("room for {room}")), "{error}");
            assert_eq!(error.contains("TSIG"), reserve > 0, "{error}");
        }
    }
}
