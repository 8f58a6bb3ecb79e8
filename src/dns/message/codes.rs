//! The numbers of the protocol that muster gives a meaning to.

/// Record and query types (IANA "Resource Record (RR) TYPEs").
pub mod rtype {
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
    /// RFC 6891 §6.1.1
    pub const OPT: u16 = 41;
    /// RFC 4034 §5
    pub const DS: u16 = 43;
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

    /// Whether an option is between two neighbours, and none that a forwarder passes on.
    pub const fn is_for_one_hop(code: u16) -> bool {
        matches!(code, NSID | COOKIE | KEEPALIVE | PADDING)
    }
}

/// Classes (RFC 1035 §3.2.4).
pub mod class {
    /// The Internet: the one class that muster serves.
    pub const IN: u16 = 1;
}

/// Response codes; those above 15 need EDNS (RFC 6891 §6.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Rcode {
    /// All is well, even where there is no data (RFC 2308 §2.2).
    NoError = 0,
    /// The query could not be read.
    FormErr = 1,
    /// The answer could not be had.
    ServFail = 2,
    /// The name does not exist, nor anything below it (RFC 8020).
    NxDomain = 3,
    /// The opcode is not served.
    NotImp = 4,
    /// Not our zone, not our class, not for this client.
    Refused = 5,
    /// An EDNS version above 0 (RFC 6891 §6.1.3).
    BadVers = 16,
}

impl Rcode {
    /// The code of this number; `None` for those that we never send ourselves.
    pub fn from_number(number: u16) -> Option<Self> {
        let known =
            [Self::NoError, Self::FormErr, Self::ServFail, Self::NxDomain, Self::NotImp, Self::Refused, Self::BadVers];
        known.into_iter().find(|code| *code as u16 == number)
    }
}

/// INFO-CODEs of Extended DNS Errors (RFC 8914 §5.2).
pub mod ede {
    /// None of the others (RFC 8914 §4.1).
    pub const OTHER: u16 = 0;
    /// Some of what is answered is as last known: its node is out of reach (RFC 8914 §4.4).
    pub const STALE_ANSWER: u16 = 3;
    /// An absence that was true, and may be no more (RFC 8914 §4.20).
    pub const STALE_NXDOMAIN: u16 = 19;
    /// The service exists and none of its instances is healthy.
    pub const NOT_READY: u16 = 14;
    /// Not one of our zones.
    pub const NOT_AUTHORITATIVE: u16 = 20;
    /// Who asks may not (RFC 8914 §4.19).
    pub const PROHIBITED: u16 = 18;
    /// No upstream answers (RFC 8914 §4.23).
    pub const NO_REACHABLE_AUTHORITY: u16 = 22;
    /// A zone transfer, a class or an opcode that is not served.
    pub const NOT_SUPPORTED: u16 = 21;
}
