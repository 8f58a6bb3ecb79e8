//! Record types: their mnemonics, numbers and fields, and the types that a zone file may not have.
//!
//! A type whose fields have the kinds here needs one line in [`TYPES`]. Other types can be written in the form of RFC 3597.

use super::{Fault, cursor::is_number, lexer::Token};
use Kind::{
    Algorithm, Base64, Bitmap, Date, Hash, Hex, Ipv4, Ipv6, Location, Name, Octets, Params, RType, Salt, Tag, Text,
    Texts, Time, U8, U16, U32,
};

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

/// Kinds of RDATA fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    U8,
    U16,
    U32,
    /// Seconds, in the form of a TTL.
    Time,
    Ipv4,
    Ipv6,
    /// A domain name, stored uncompressed and in the letter case of the file.
    Name,
    /// A character-string (RFC 1035 §3.3).
    Text,
    /// One or more character-strings, to the end.
    Texts,
    /// Letters and digits after a length octet (RFC 8659 §4.1).
    Tag,
    /// Text without a length octet, to the end.
    Octets,
    /// Hexadecimal digits in any number of tokens, to the end.
    Hex,
    /// Base64 in any number of tokens, to the end.
    Base64,
    /// A DNSSEC algorithm: a number, or its mnemonic (RFC 4034 §5.3).
    Algorithm,
    /// Service parameters (RFC 9460 §2.1), to the end.
    Params,
    /// A location (RFC 1876 §2), to the end.
    Location,
    /// A record type.
    RType,
    /// A time of a signature (RFC 4034 §3.2).
    Date,
    /// A salt after its length octet (RFC 5155 §3.3).
    Salt,
    /// A hash in Base32 after its length octet (RFC 5155 §3.3).
    Hash,
    /// Record types as a bitmap (RFC 4034 §4.1.2), to the end.
    Bitmap,
}

/// A type with known fields: mnemonic, number, and the fields in order with their names in messages.
type TypeFields = (&'static str, u16, &'static [(&'static str, Kind)]);

/// Fields of DS and CDS.
const DIGEST: &[(&str, Kind)] = &[("key tag", U16), ("algorithm", Algorithm), ("digest type", U8), ("digest", Hex)];
/// Fields of DNSKEY and CDNSKEY.
const KEY: &[(&str, Kind)] = &[("flags", U16), ("protocol", U8), ("algorithm", Algorithm), ("key", Base64)];

/// Types with known fields, from RFC 1035 §3.3 unless a comment cites another RFC.
const TYPES: &[TypeFields] = &[
    ("A", A, &[("address", Ipv4)]),
    ("NS", NS, &[("name server", Name)]),
    ("CNAME", CNAME, &[("canonical name", Name)]),
    (
        "SOA",
        SOA,
        &[
            ("primary server", Name),
            ("mailbox", Name),
            ("serial", U32),
            ("refresh", Time),
            ("retry", Time),
            ("expire", Time),
            ("minimum", Time),
        ],
    ),
    ("PTR", PTR, &[("name", Name)]),
    ("HINFO", 13, &[("CPU", Text), ("system", Text)]),
    ("MX", MX, &[("preference", U16), ("mail server", Name)]),
    ("TXT", 16, &[("text", Texts)]),
    // RFC 1183
    ("RP", 17, &[("mailbox", Name), ("name of a TXT record", Name)]),
    ("AFSDB", 18, &[("subtype", U16), ("server", Name)]),
    // RFC 3596
    ("AAAA", AAAA, &[("address", Ipv6)]),
    // RFC 1876
    ("LOC", 29, &[("location", Location)]),
    // RFC 2782
    ("SRV", SRV, &[("priority", U16), ("weight", U16), ("port", U16), ("target", Name)]),
    // RFC 3403 §4.1
    (
        "NAPTR",
        35,
        &[
            ("order", U16),
            ("preference", U16),
            ("flags", Text),
            ("service", Text),
            ("regular expression", Text),
            ("replacement", Name),
        ],
    ),
    // RFC 6672 §2.1
    ("DNAME", DNAME, &[("target", Name)]),
    // RFC 4034 §5.1, §3.1, §4.1, §2.1
    ("DS", DS, DIGEST),
    (
        "RRSIG",
        RRSIG,
        &[
            ("type covered", RType),
            ("algorithm", Algorithm),
            ("labels", U8),
            ("original TTL", Time),
            ("expiration", Date),
            ("inception", Date),
            ("key tag", U16),
            ("signer", Name),
            ("signature", Base64),
        ],
    ),
    ("NSEC", NSEC, &[("next name", Name), ("types", Bitmap)]),
    ("DNSKEY", 48, KEY),
    // RFC 5155 §3.2, §4.2
    (
        "NSEC3",
        50,
        &[
            ("algorithm", U8),
            ("flags", U8),
            ("iterations", U16),
            ("salt", Salt),
            ("next hash", Hash),
            ("types", Bitmap),
        ],
    ),
    ("NSEC3PARAM", 51, &[("algorithm", U8), ("flags", U8), ("iterations", U16), ("salt", Salt)]),
    // RFC 4255 §3.1
    ("SSHFP", SSHFP, &[("algorithm", U8), ("fingerprint type", U8), ("fingerprint", Hex)]),
    // RFC 6698 §2.1
    ("TLSA", TLSA, &[("usage", U8), ("selector", U8), ("matching type", U8), ("association data", Hex)]),
    // RFC 8162 §2
    ("SMIMEA", SMIMEA, &[("usage", U8), ("selector", U8), ("matching type", U8), ("association data", Hex)]),
    // RFC 7344 §3
    ("CDS", CDS, DIGEST),
    ("CDNSKEY", 60, KEY),
    // RFC 7929 §2.1
    ("OPENPGPKEY", 61, &[("key", Base64)]),
    // RFC 7477 §2.1
    ("CSYNC", 62, &[("serial", U32), ("flags", U16), ("types", Bitmap)]),
    // RFC 8976 §2.2
    ("ZONEMD", 63, &[("serial", U32), ("scheme", U8), ("hash algorithm", U8), ("digest", Hex)]),
    // RFC 9460 §2
    ("SVCB", 64, &[("priority", U16), ("target", Name), ("parameters", Params)]),
    ("HTTPS", 65, &[("priority", U16), ("target", Name), ("parameters", Params)]),
    // RFC 7208 §3.1: obsoleted by TXT, and harmless.
    ("SPF", 99, &[("text", Texts)]),
    // RFC 7553 §4
    ("URI", 256, &[("priority", U16), ("weight", U16), ("target", Octets)]),
    // RFC 8659 §4.1
    ("CAA", 257, &[("flags", U8), ("tag", Tag), ("value", Octets)]),
];

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
        TYPES.iter().find(|(_, number, _)| *number == self.0).map(|(.., fields)| *fields)
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
