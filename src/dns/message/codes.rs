//! Protocol numbers that muster interprets: record types, classes, options, response codes and EDE codes.

use std::fmt;

/// Record and query types (IANA "Resource Record (RR) TYPEs").
pub mod rtype {
    use std::borrow::Cow;

    use crate::dns::message::record_types::TYPES;

    /// RFC 1035 §3.4.1
    pub const A: u16 = 1;
    /// RFC 1035 §3.3.11
    pub const NS: u16 = 2;
    /// RFC 1035 §3.3.1
    pub const CNAME: u16 = 5;
    /// RFC 1035 §3.3.13
    pub const SOA: u16 = 6;
    /// RFC 1035 §3.3.12
    pub const PTR: u16 = 12;
    /// RFC 1035 §3.3.9
    pub const MX: u16 = 15;
    /// RFC 1035 §3.3.14
    pub const TXT: u16 = 16;
    /// RFC 3596 §2.1
    pub const AAAA: u16 = 28;
    /// RFC 2782
    pub const SRV: u16 = 33;
    /// RFC 6672
    pub const DNAME: u16 = 39;
    /// RFC 6891 §6.1.1
    pub const OPT: u16 = 41;
    /// RFC 4034 §5
    pub const DS: u16 = 43;
    /// RFC 4034 §3
    pub const RRSIG: u16 = 46;
    /// RFC 4034 §4
    pub const NSEC: u16 = 47;
    /// RFC 5155 §3
    pub const NSEC3: u16 = 50;
    /// Parameters of a chain of NSEC3 records (RFC 5155 §4).
    pub const NSEC3PARAM: u16 = 51;
    /// RFC 4034 §2
    pub const DNSKEY: u16 = 48;
    /// RFC 7344 §3.1
    pub const CDS: u16 = 59;
    /// RFC 7344 §3.2
    pub const CDNSKEY: u16 = 60;
    /// RFC 9460 §14.1
    pub const SVCB: u16 = 64;
    /// RFC 9460 §14.2
    pub const HTTPS: u16 = 65;
    /// RFC 8945 §4.2: the last record of a signed message; never a question.
    pub const TSIG: u16 = 250;
    /// RFC 1995
    pub const IXFR: u16 = 251;
    /// RFC 5936
    pub const AXFR: u16 = 252;
    /// RFC 1035 §3.2.3, obsolete.
    pub const MAILB: u16 = 253;
    /// RFC 1035 §3.2.3, obsolete.
    pub const MAILA: u16 = 254;
    /// RFC 8482
    pub const ANY: u16 = 255;

    /// Mnemonics of types without a presentation form here.
    const OTHERS: [(&str, u16); 2] = [("DHCID", 49), ("ANY", ANY)];

    /// Mnemonics; other types are `TYPE` and their number (RFC 3597 §5).
    fn names() -> impl Iterator<Item = (&'static str, u16)> {
        TYPES.iter().map(|(name, number, _)| (*name, *number)).chain(OTHERS)
    }

    /// The mnemonic of a type.
    pub fn name(rtype: u16) -> Cow<'static, str> {
        match names().find(|(_, number)| *number == rtype) {
            Some((name, _)) => Cow::Borrowed(name),
            None => Cow::Owned(format!("TYPE{rtype}")),
        }
    }

    /// Reads a mnemonic, in any letter case.
    pub fn parse(text: &str) -> Option<u16> {
        let known = names().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, number)| number);
        let number =
            || text.get(..4).filter(|word| word.eq_ignore_ascii_case("TYPE")).and_then(|_| text.get(4..)?.parse().ok());
        known.or_else(number)
    }
}

/// Options of the OPT record (IANA "DNS EDNS0 Option Codes").
pub mod option {
    /// RFC 5001
    pub const NSID: u16 = 3;
    /// RFC 7873
    pub const COOKIE: u16 = 10;
    /// RFC 7828
    pub const KEEPALIVE: u16 = 11;
    /// RFC 7830
    pub const PADDING: u16 = 12;
    /// RFC 8914
    pub const EDE: u16 = 15;

    /// Reports whether an option is hop-by-hop, so that a forwarder does not pass it on.
    pub const fn is_for_one_hop(code: u16) -> bool {
        matches!(code, NSID | COOKIE | KEEPALIVE | PADDING)
    }
}

/// Opcodes other than that of queries (IANA "DNS OpCodes").
pub mod opcode {
    /// RFC 1996
    pub const NOTIFY: u8 = 4;
    /// RFC 2136 §1.3
    pub const UPDATE: u8 = 5;
}

/// Classes (RFC 1035 §3.2.4).
pub mod class {
    /// Internet, the only class that muster serves.
    pub const IN: u16 = 1;
}

/// Response codes; those above 15 need EDNS (RFC 6891 §6.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Rcode {
    /// Success, also without data (RFC 2308 §2.2).
    NoError = 0,
    /// The query is malformed.
    FormErr = 1,
    /// Resolution failed.
    ServFail = 2,
    /// The name does not exist, nor anything below it (RFC 8020).
    NxDomain = 3,
    /// The opcode is not served.
    NotImp = 4,
    /// The zone or class is not served, or not for this client.
    Refused = 5,
    /// A name that a DNAME redirects would be too long (RFC 6672 §2.2), or that must not exist exists (RFC 2136 §2.2).
    YxDomain = 6,
    /// An RRset that must not exist exists (RFC 2136 §2.2).
    YxRrset = 7,
    /// An RRset that must exist does not (RFC 2136 §2.2).
    NxRrset = 8,
    /// The zone is not served (RFC 2136 §2.2), or the signature is not valid (RFC 8945 §5.2).
    NotAuth = 9,
    /// A name is outside the zone of an update (RFC 2136 §2.2).
    NotZone = 10,
    /// An EDNS version above 0 (RFC 6891 §6.1.3).
    BadVers = 16,
}

impl fmt::Display for Rcode {
    /// The mnemonic (IANA "DNS RCODEs").
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoError => "NOERROR",
            Self::FormErr => "FORMERR",
            Self::ServFail => "SERVFAIL",
            Self::NxDomain => "NXDOMAIN",
            Self::NotImp => "NOTIMP",
            Self::Refused => "REFUSED",
            Self::YxDomain => "YXDOMAIN",
            Self::YxRrset => "YXRRSET",
            Self::NxRrset => "NXRRSET",
            Self::NotAuth => "NOTAUTH",
            Self::NotZone => "NOTZONE",
            Self::BadVers => "BADVERS",
        })
    }
}

impl Rcode {
    /// Returns the code of a number; `None` for codes that muster never originates.
    pub fn from_number(number: u16) -> Option<Self> {
        let known = [
            Self::NoError,
            Self::FormErr,
            Self::ServFail,
            Self::NxDomain,
            Self::NotImp,
            Self::Refused,
            Self::YxDomain,
            Self::YxRrset,
            Self::NxRrset,
            Self::NotAuth,
            Self::NotZone,
            Self::BadVers,
        ];
        known.into_iter().find(|code| *code as u16 == number)
    }
}

/// INFO-CODEs of Extended DNS Errors (RFC 8914 §5.2).
pub mod ede {
    /// Other error (RFC 8914 §4.1).
    pub const OTHER: u16 = 0;
    /// Part of the answer is the last known state of an unreachable node (RFC 8914 §4.4).
    pub const STALE_ANSWER: u16 = 3;
    /// Whether a reply is secure cannot be determined (RFC 8914 §4.6).
    pub const DNSSEC_INDETERMINATE: u16 = 5;
    /// Validation failed (RFC 8914 §4.7).
    pub const DNSSEC_BOGUS: u16 = 6;
    /// The signatures have expired (RFC 8914 §4.8).
    pub const SIGNATURE_EXPIRED: u16 = 7;
    /// The signatures are not yet valid (RFC 8914 §4.9).
    pub const SIGNATURE_NOT_YET_VALID: u16 = 8;
    /// No key that a DS record names (RFC 8914 §4.10).
    pub const DNSKEY_MISSING: u16 = 9;
    /// No signatures in a signed zone (RFC 8914 §4.11).
    pub const RRSIGS_MISSING: u16 = 10;
    /// No proof of absence (RFC 8914 §4.13).
    pub const NSEC_MISSING: u16 = 12;
    /// Expired NXDOMAIN (RFC 8914 §4.20).
    pub const STALE_NXDOMAIN: u16 = 19;
    /// The service exists, but none of its instances is healthy.
    pub const NOT_READY: u16 = 14;
    /// The zone is not served.
    pub const NOT_AUTHORITATIVE: u16 = 20;
    /// The operator's policy withholds the answer (RFC 8914 §4.16).
    pub const BLOCKED: u16 = 15;
    /// The client is not permitted (RFC 8914 §4.19).
    pub const PROHIBITED: u16 = 18;
    /// The copy of a zone has expired (RFC 8914 §4.25).
    pub const INVALID_DATA: u16 = 24;
    /// No upstream responds (RFC 8914 §4.23).
    pub const NO_REACHABLE_AUTHORITY: u16 = 22;
    /// An upstream responds with an error to a question that validation needs (RFC 8914 §4.24).
    pub const NETWORK_ERROR: u16 = 23;
    /// Too many NSEC3 iterations (RFC 9276 §3.2).
    pub const UNSUPPORTED_NSEC3_ITERATIONS: u16 = 27;
    /// A zone transfer, a class or an opcode that is not served.
    pub const NOT_SUPPORTED: u16 = 21;
}
