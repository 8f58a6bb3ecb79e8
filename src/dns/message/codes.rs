//! Protocol numbers that muster interprets: record types, classes, options, response codes and EDE codes.

use std::fmt;

/// Record and query types (IANA "Resource Record (RR) TYPEs").
pub mod rtype {
    use std::borrow::Cow;

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

    /// Mnemonics; other types are `TYPE` and their number (RFC 3597 §5).
    const NAMES: [(u16, &str); 20] = [
        (A, "A"),
        (NS, "NS"),
        (CNAME, "CNAME"),
        (SOA, "SOA"),
        (PTR, "PTR"),
        (MX, "MX"),
        (TXT, "TXT"),
        (AAAA, "AAAA"),
        (SRV, "SRV"),
        (35, "NAPTR"),
        (DNAME, "DNAME"),
        (DS, "DS"),
        (44, "SSHFP"),
        (48, "DNSKEY"),
        (52, "TLSA"),
        (SVCB, "SVCB"),
        (HTTPS, "HTTPS"),
        (ANY, "ANY"),
        (256, "URI"),
        (257, "CAA"),
    ];

    /// The mnemonic of a type.
    pub fn name(rtype: u16) -> Cow<'static, str> {
        match NAMES.iter().find(|(number, _)| *number == rtype) {
            Some((_, name)) => Cow::Borrowed(name),
            None => Cow::Owned(format!("TYPE{rtype}")),
        }
    }

    /// Reads a mnemonic, in any letter case.
    pub fn parse(text: &str) -> Option<u16> {
        let known = NAMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text)).map(|(number, _)| *number);
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
    /// A name that a DNAME redirects would be too long (RFC 6672 §2.2).
    YxDomain = 6,
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
    /// No upstream responds (RFC 8914 §4.23).
    pub const NO_REACHABLE_AUTHORITY: u16 = 22;
    /// A zone transfer, a class or an opcode that is not served.
    pub const NOT_SUPPORTED: u16 = 21;
}
