//! Record types in zone files: their mnemonics and numbers, and the types that a zone file may not have.
//!
//! Types without known fields can be written in the form of RFC 3597.

use super::{Fault, cursor::is_number, lexer::Token};
pub(super) use crate::dns::message::record_types::Kind;
use crate::dns::message::record_types::{self, TYPES};

pub(super) const A: u16 = 1;
pub(super) const NS: u16 = 2;
pub(super) const CNAME: u16 = 5;
pub(super) const SOA: u16 = 6;
pub(super) const PTR: u16 = 12;
pub(super) const MX: u16 = 15;
pub(super) const AAAA: u16 = 28;
pub(super) const SRV: u16 = 33;
pub(super) const DNAME: u16 = 39;
pub(super) const DS: u16 = 43;
pub(super) const SSHFP: u16 = 44;
pub(super) const RRSIG: u16 = 46;
pub(super) const NSEC: u16 = 47;
pub(super) const TLSA: u16 = 52;
pub(super) const SMIMEA: u16 = 53;
pub(super) const CDS: u16 = 59;

/// Mnemonics of other types, which are refused or accepted in the form of RFC 3597 only.
#[rustfmt::skip]
const OTHERS: &[(&str, u16)] = &[
    ("MD", 3), ("MF", 4), ("MB", 7), ("MG", 8), ("MR", 9), ("NULL", 10), ("WKS", 11), ("MINFO", 14), ("X25", 19),
    ("ISDN", 20), ("RT", 21), ("NSAP", 22), ("SIG", 24), ("KEY", 25), ("PX", 26), ("GPOS", 27), ("NXT", 30),
    ("KX", 36), ("CERT", 37), ("A6", 38), ("OPT", 41), ("APL", 42), ("IPSECKEY", 45), ("DHCID", 49), ("HIP", 55),
    ("DSYNC", 66), ("NID", 104), ("L32", 105), ("L64", 106), ("LP", 107), ("EUI48", 108), ("EUI64", 109),
    ("TKEY", 249), ("TSIG", 250), ("IXFR", 251), ("AXFR", 252), ("MAILB", 253), ("MAILA", 254), ("ANY", 255),
    ("AMTRELAY", 260),
];

/// Number of a type that a record may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Type(u16);

impl Type {
    /// Number in wire form.
    pub(super) fn number(self) -> u16 {
        self.0
    }

    /// Fields of the RDATA, if known.
    pub(super) fn fields(self) -> Option<&'static [(&'static str, Kind)]> {
        record_types::fields(self.0)
    }

    /// Parses a mnemonic, or `TYPEnnn` (RFC 3597 §5).
    pub(super) fn read(token: Token<'_>) -> Result<Self, Fault> {
        let Some(number) = number(token) else {
            let text = std::str::from_utf8(token.raw).unwrap_or_default();
            let fault = Fault::new(token.at, format!("unknown record type {}", token.shown()));
            return Err(match nearest(text) {
                Some(name) => fault.hint(format!("did you mean `{name}`?")),
                None => fault,
            });
        };
        let refused = |message: &str, hint: &str| Err(Fault::new(token.at, message).hint(hint));
        match number {
            24 | 25 | 30 => refused(
                &format!("{} is obsolete (RFC 3755)", token.shown()),
                "use RRSIG, DNSKEY and NSEC, as tools that sign zones write them",
            ),
            0 | 41 | 128..=255 | 65535 => refused(
                &format!("{} is a query or meta type: no record can have it (RFC 6895 §3.1)", token.shown()),
                "remove the line",
            ),
            _ => Ok(Self(number)),
        }
    }
}

/// Returns the number of a mnemonic, or of `TYPEnnn` (RFC 3597 §5).
pub(super) fn number(token: Token<'_>) -> Option<u16> {
    let text = std::str::from_utf8(token.raw).ok().filter(|_| !token.quoted)?;
    let known = mnemonics().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, number)| number);
    let generic = || text.get(..4).filter(|head| head.eq_ignore_ascii_case("TYPE")).map(|_| &text[4..]);
    known.or_else(|| generic().filter(|digits| is_number(digits))?.parse().ok())
}

/// Formats the mnemonic, or `TYPEnnn`.
impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match mnemonics().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "TYPE{}", self.0),
        }
    }
}

impl From<u16> for Type {
    fn from(number: u16) -> Self {
        Self(number)
    }
}

fn mnemonics() -> impl Iterator<Item = (&'static str, u16)> {
    TYPES.iter().map(|(name, number, _)| (*name, *number)).chain(OTHERS.iter().copied())
}

/// Finds a mnemonic at an edit distance of 1.
fn nearest(text: &str) -> Option<&'static str> {
    let text = text.get(..text.len().min(16)).unwrap_or_default().to_ascii_uppercase();
    let near = |name: &&str| text.len() > 1 && strsim::osa_distance(&text, name) == 1;
    TYPES.iter().map(|(name, ..)| *name).find(near)
}
