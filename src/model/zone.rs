//! Records of a static zone, as parsed from a zone file.

use super::name::Name;
use crate::diagnostic::Diagnostic;

// Type numbers of the IANA registry of DNS resource record types.
const NS: u16 = 2;
const CNAME: u16 = 5;
const PTR: u16 = 12;
const MX: u16 = 15;
const SRV: u16 = 33;
const DNAME: u16 = 39;

/// Suffix of a zone file's name.
pub const EXTENSION: &str = ".zone";
/// Content of one zone file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneFile {
    /// Name of the zone, from the name of the file.
    pub origin: Name,
    /// Records without duplicates (RFC 2181 §5). The records of an RRset are adjacent, sorted by RDATA in canonical form
    /// (RFC 4034 §6.3), and share the
    /// smallest TTL of the file for that RRset (RFC 2181 §5.2).
    pub records: Vec<StaticRecord>,
    /// Warnings about records that are valid and probably not intended, such as a name without final dot.
    pub warnings: Vec<Diagnostic>,
}

/// One record of class IN with its position in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticRecord {
    /// Absolute owner name, within the zone.
    pub owner: Name,
    /// Type number.
    pub rtype: u16,
    /// TTL in seconds, at most [`MAX_TTL`](super::service::MAX_TTL).
    pub ttl: u32,
    /// RDATA in wire form, at most 65,535 octets, valid for its type; names are uncompressed and in the
    /// letter case of the file.
    pub rdata: Vec<u8>,
    /// Line of the entry, counted from 1.
    pub line: usize,
    /// Column of the first token of the entry in characters, counted from 1.
    pub column: usize,
}

/// Returns the offset of the host name in RDATA of this type, if the RDATA is fixed fields followed by one name.
pub fn target_at(rtype: u16) -> Option<usize> {
    match rtype {
        NS | CNAME | PTR | DNAME => Some(0),
        MX => Some(2),
        SRV => Some(6),
        _ => None,
    }
}
