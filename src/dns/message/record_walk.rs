//! Walks the records of an untrusted message. Every offset is checked, and compression loops are rejected.

use std::ops::Range;

use super::query::HEADER;
use crate::model::name::MAX_NAME;

/// Maximum number of compression pointers in a name (RFC 1035 §4.1.4), equal to its maximum number of labels.
const MAX_POINTERS: usize = 127;
/// Octets of the fixed fields behind the owner: type, class, TTL, RDATA length.
const FIELDS: usize = 10;

/// A record, as offsets into the message.
pub(crate) struct Record {
    /// Offset of the owner name.
    pub(crate) owner: usize,
    pub(crate) rtype: u16,
    pub(crate) class: u16,
    /// Offset of the TTL.
    pub(crate) ttl: usize,
    pub(crate) rdata: Range<usize>,
}

/// An iterator over the records.
pub(crate) struct Walk<'m> {
    octets: &'m [u8],
    at: usize,
    /// Offsets of the TTLs of the records so far.
    ttls: Vec<usize>,
}

impl<'m> Walk<'m> {
    /// Returns a walk that starts at offset `at`.
    pub(crate) fn new(octets: &'m [u8], at: usize) -> Self {
        Self { octets, at, ttls: Vec::new() }
    }

    /// Returns the offset of the next record.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Returns the offset behind the question that starts here.
    pub(crate) fn after_question(&self) -> Option<usize> {
        Some(self.name(self.at)? + 4)
    }

    /// Returns the next record; `None` if it is incomplete.
    pub(crate) fn record(&mut self) -> Option<Record> {
        let owner = self.at;
        let fields = self.name(owner)?;
        let field = |at: usize| Some(u16::from_be_bytes([*self.octets.get(at)?, *self.octets.get(at + 1)?]));
        let (rtype, class) = (field(fields)?, field(fields + 2)?);
        let rdata = fields + FIELDS;
        let end = rdata + usize::from(field(fields + 8)?);
        if end > self.octets.len() {
            return None;
        }
        self.at = end;
        self.ttls.push(fields + 4);
        // The owner of a hostile record may lead into the record itself.
        self.name(owner)?;
        Some(Record { owner, rtype, class, ttl: fields + 4, rdata: rdata..end })
    }

    /// Returns the end of the name at `start`; `None` if it is incomplete, too long, or loops.
    fn name(&self, start: usize) -> Option<usize> {
        let (mut at, mut end, mut pointers, mut length) = (start, None, 0, 1);
        loop {
            match *self.octets.get(at)? {
                0 => return (length <= MAX_NAME && self.is_clear(at..at + 1)).then_some(end.unwrap_or(at + 1)),
                len @ 1..=0x3f => {
                    if !self.is_clear(at..at + 1 + usize::from(len)) {
                        return None;
                    }
                    at += 1 + usize::from(len);
                    length += 1 + usize::from(len);
                }
                high @ 0xc0..=0xff => {
                    let to = usize::from(high & 0x3f) << 8 | usize::from(*self.octets.get(at + 1)?);
                    end = end.or(Some(at + 2));
                    pointers += 1;
                    // Pointers go to prior occurrences only (RFC 1035 §4.1.4).
                    if to >= at || !self.is_clear(at..at + 2) || pointers > MAX_POINTERS {
                        return None;
                    }
                    at = to;
                }
                0x40..=0xbf => return None,
            }
        }
    }

    /// Reports whether a part of a name avoids the header and the TTLs, which change when the message is relayed.
    fn is_clear(&self, part: Range<usize>) -> bool {
        let next = self.ttls.partition_point(|ttl| ttl + 4 <= part.start);
        part.start >= HEADER && self.ttls.get(next).is_none_or(|ttl| *ttl >= part.end)
    }

    /// Reports whether the names in RDATA are valid and end within it.
    pub(crate) fn has_good_names(&self, record: &Record) -> bool {
        let (fields, names) = names_in(record.rtype);
        let first = record.rdata.start + fields;
        let last = (0..names).try_fold(first, |at, _| self.name(at));
        last.is_some_and(|end| names == 0 || end <= record.rdata.end)
    }

    /// Returns the name at `start`, uncompressed.
    pub(crate) fn whole_name(&self, start: usize) -> Option<Vec<u8>> {
        self.name(start)?;
        let (mut name, mut at) = (Vec::new(), start);
        loop {
            match *self.octets.get(at)? {
                0 => {
                    name.push(0);
                    return Some(name);
                }
                len @ 1..=0x3f => {
                    let label = self.octets.get(at..at + 1 + usize::from(len))?;
                    name.extend_from_slice(label);
                    at += label.len();
                }
                high => at = usize::from(high & 0x3f) << 8 | usize::from(*self.octets.get(at + 1)?),
            }
        }
    }

    /// Returns the RDATA of a record with uncompressed names.
    pub(crate) fn whole_rdata(&self, record: &Record) -> Option<Vec<u8>> {
        let (fields, names) = names_in(record.rtype);
        let (mut at, end) = (record.rdata.start + fields, record.rdata.end);
        let mut rdata = self.octets.get(record.rdata.start..at.min(end))?.to_vec();
        for _ in 0..names {
            let next = self.name(at).filter(|next| *next <= end)?;
            rdata.extend(self.whole_name(at)?);
            at = next;
        }
        rdata.extend_from_slice(self.octets.get(at.min(end)..end)?);
        Some(rdata)
    }
}

/// Returns the number of octets before the compressible names in RDATA of a type, and the number of these names. Types as in
/// RFC 3597 §4: those of RFC 1035, and some that older servers compressed.
pub(crate) fn names_in(rtype: u16) -> (usize, usize) {
    match rtype {
        // NS, MD, MF, CNAME, MB, MG, MR, PTR, DNAME
        2 | 3 | 4 | 5 | 7 | 8 | 9 | 12 | 39 => (0, 1),
        // SOA, MINFO, RP
        6 | 14 | 17 => (0, 2),
        // MX, AFSDB, RT, KX
        15 | 18 | 21 | 36 => (2, 1),
        // PX
        26 => (2, 2),
        // SRV
        33 => (6, 1),
        _ => (0, 0),
    }
}
