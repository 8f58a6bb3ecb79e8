//! Record types with a presentation form: their mnemonics, numbers and fields.
//!
//! Zone files are read, and records are shown, by this table. A type whose fields have the kinds here needs one line in it.

use Kind::{
    Algorithm, Base64, Bitmap, Date, Hash, Hex, Ipv4, Ipv6, Location, Name, Octets, Params, RType, Salt, Tag, Text,
    Texts, Time, U8, U16, U32,
};

/// Kinds of RDATA fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Number of one octet.
    U8,
    /// Number of two octets.
    U16,
    /// Number of four octets.
    U32,
    /// Seconds, in the form of a TTL.
    Time,
    /// IPv4 address.
    Ipv4,
    /// IPv6 address.
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
pub type TypeFields = (&'static str, u16, &'static [(&'static str, Kind)]);

/// Fields of DS and CDS.
const DIGEST: &[(&str, Kind)] = &[("key tag", U16), ("algorithm", Algorithm), ("digest type", U8), ("digest", Hex)];
/// Fields of DNSKEY and CDNSKEY.
const KEY: &[(&str, Kind)] = &[("flags", U16), ("protocol", U8), ("algorithm", Algorithm), ("key", Base64)];

/// Types with known fields, from RFC 1035 §3.3 unless a comment cites another RFC.
pub const TYPES: &[TypeFields] = &[
    ("A", 1, &[("address", Ipv4)]),
    ("NS", 2, &[("name server", Name)]),
    ("CNAME", 5, &[("canonical name", Name)]),
    (
        "SOA",
        6,
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
    ("PTR", 12, &[("name", Name)]),
    ("HINFO", 13, &[("CPU", Text), ("system", Text)]),
    ("MX", 15, &[("preference", U16), ("mail server", Name)]),
    ("TXT", 16, &[("text", Texts)]),
    // RFC 1183
    ("RP", 17, &[("mailbox", Name), ("name of a TXT record", Name)]),
    ("AFSDB", 18, &[("subtype", U16), ("server", Name)]),
    // RFC 3596
    ("AAAA", 28, &[("address", Ipv6)]),
    // RFC 1876
    ("LOC", 29, &[("location", Location)]),
    // RFC 2782
    ("SRV", 33, &[("priority", U16), ("weight", U16), ("port", U16), ("target", Name)]),
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
    ("DNAME", 39, &[("target", Name)]),
    // RFC 4034 §5.1, §3.1, §4.1, §2.1
    ("DS", 43, DIGEST),
    (
        "RRSIG",
        46,
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
    ("NSEC", 47, &[("next name", Name), ("types", Bitmap)]),
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
    ("SSHFP", 44, &[("algorithm", U8), ("fingerprint type", U8), ("fingerprint", Hex)]),
    // RFC 6698 §2.1
    ("TLSA", 52, &[("usage", U8), ("selector", U8), ("matching type", U8), ("association data", Hex)]),
    // RFC 8162 §2
    ("SMIMEA", 53, &[("usage", U8), ("selector", U8), ("matching type", U8), ("association data", Hex)]),
    // RFC 7344 §3
    ("CDS", 59, DIGEST),
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

/// Returns the fields of a type, each with its name in messages; `None` if it has no presentation form here.
pub fn fields(rtype: u16) -> Option<&'static [(&'static str, Kind)]> {
    TYPES.iter().find(|(_, number, _)| *number == rtype).map(|(.., fields)| *fields)
}
