//! Names that mean something on this host or network only, and that no upstream should hear of.
//!
//! They are answered as if each were a zone of ours: RFC 6761 (`localhost`, `invalid`, `test`), RFC 6303 and RFC 7793
//! (reverse names of private and special addresses), RFC 7686 (`onion`), RFC 8375 (`home.arpa`), RFC 9462
//! (`resolver.arpa`), RFC 9476 (`alt`). Zone files and routes go before. `local` is not among them: RFC 6762 §22.1 would
//! have it so, but many networks have names there that only their own servers know.

use crate::dns::{
    answer::{Answer, Authority, Data, Group, Owner},
    message::{
        codes::{Rcode, rtype},
        query::LookupName,
    },
    zone::{
        rrset::{RRset, Rdata},
        static_names::Zone,
    },
};

/// Seconds, of all records: RFC 6303 §3 has 10800 for what is not there, and nothing of this ever changes.
const TTL: u32 = 10_800;
/// Behind the names in the SOA's RDATA: serial, refresh, retry, expire, minimum (RFC 6303 §3).
const SOA: [u32; 5] = [1, 3600, 1200, 604_800, TTL];
/// Whom to write to: nobody (RFC 6303 §3).
const NOBODY: &[u8] = b"\x06nobody\x07invalid\0";
/// What the loopback addresses are called.
const LOCALHOST: &[u8] = b"\x09localhost\0";

/// A zone of which a name is part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialUse {
    /// The labels of its origin.
    labels: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The origin exists, nothing below it does.
    Empty,
    /// Everything is this host (RFC 6761 §6.3).
    Localhost,
    /// The reverse name of a loopback address is `localhost`.
    Loopback,
}

impl SpecialUse {
    /// The zone of a name; `None` for names of the world.
    pub fn find(name: &LookupName) -> Option<Self> {
        let count = name.count();
        let label = |from_right: usize| count.checked_sub(from_right).map_or(&b""[..], |at| name.label(at));
        let zone = |labels, kind| Some(Self { labels, kind });
        match label(1) {
            b"localhost" => zone(1, Kind::Localhost),
            b"invalid" | b"test" | b"onion" | b"alt" => zone(1, Kind::Empty),
            b"arpa" => match label(2) {
                b"home" | b"resolver" => zone(2, Kind::Empty),
                b"in-addr" => reverse_v4([number(label(3)), number(label(4)), number(label(5)), number(label(6))]),
                b"ip6" => reverse_v6(name, label),
                _ => None,
            },
            _ => None,
        }
        .filter(|zone| zone.labels <= count)
    }

    /// How many labels its origin has.
    pub fn labels(self) -> usize {
        self.labels
    }

    /// What is said of a name in it; `any` is any zone, for there is none of its own.
    pub fn answer<'t>(self, name: &'t LookupName, qtype: u16, any: &'t Zone) -> Answer<'t> {
        let below = name.count() - self.labels;
        let origin = &name.wire()[name.offset(below)..];
        let is_loopback = self.kind == Kind::Loopback && is_first_address(name, below);
        let octets = match (self.kind, qtype) {
            (_, rtype::SOA) if below == 0 => Some(soa(origin)),
            (_, rtype::NS) if below == 0 => Some(origin.to_vec()),
            (Kind::Localhost, rtype::A) => Some(vec![127, 0, 0, 1]),
            (Kind::Localhost, rtype::AAAA) => Some([[0; 15].as_slice(), &[1]].concat()),
            (Kind::Loopback, rtype::PTR) if is_loopback => Some(LOCALHOST.to_vec()),
            _ => None,
        };
        let group = |owner, rtype, octets: Vec<u8>| Group {
            owner,
            zone: any,
            data: Data::Made(RRset { rtype, ttl: TTL, records: vec![Rdata::fixed(octets)] }),
        };
        let exists = below == 0 || self.kind == Kind::Localhost || is_loopback;
        let mut answer = Answer::empty(if exists { Rcode::NoError } else { Rcode::NxDomain });
        match octets {
            Some(octets) => answer.answer.push(group(Owner::Question, qtype, octets)),
            None => answer.authority = Authority::Soa(group(Owner::Absolute(origin), rtype::SOA, soa(origin))),
        }
        answer
    }
}

fn soa(origin: &[u8]) -> Vec<u8> {
    let mut rdata = [origin, NOBODY].concat();
    rdata.extend(SOA.iter().flat_map(|field| field.to_be_bytes()));
    rdata
}

/// Whether these labels are the last octet or nibbles of 127.0.0.1 or ::1.
fn is_first_address(name: &LookupName, below: usize) -> bool {
    match below {
        0 => name.count() == 34,
        3 => [&b"1"[..], b"0", b"0"].iter().enumerate().all(|(at, label)| name.label(at) == *label),
        _ => false,
    }
}

/// The octets of an address from the left, as far as the name has them (RFC 6303 §4.1, §4.2, RFC 7793 §2).
fn reverse_v4(octets: [Option<u8>; 4]) -> Option<SpecialUse> {
    let (count, kind) = match octets {
        [Some(127), ..] => (1, Kind::Loopback),
        [Some(0 | 10), ..] => (1, Kind::Empty),
        [Some(100), Some(64..=127), ..] | [Some(169), Some(254), ..] => (2, Kind::Empty),
        [Some(172), Some(16..=31), ..] | [Some(192), Some(168), ..] => (2, Kind::Empty),
        [Some(192), Some(0), Some(2), _] | [Some(198), Some(51), Some(100), _] | [Some(203), Some(0), Some(113), _] => {
            (3, Kind::Empty)
        }
        [Some(255), Some(255), Some(255), Some(255)] => (4, Kind::Empty),
        _ => return None,
    };
    Some(SpecialUse { labels: 2 + count, kind })
}

/// The same for nibbles (RFC 6303 §4.3 to §4.6).
fn reverse_v6<'n>(name: &LookupName, label: impl Fn(usize) -> &'n [u8]) -> Option<SpecialUse> {
    let (nibbles, kind) = match [label(3), label(4), label(5)] {
        [b"f", b"c" | b"d", _] => (2, Kind::Empty),
        [b"f", b"e", b"8" | b"9" | b"a" | b"b"] => (3, Kind::Empty),
        [b"2", b"0", b"0"] if (6..=10).map(&label).eq([b"1", b"0", b"d", b"b", b"8"]) => (8, Kind::Empty),
        // `::` and `::1`, whole.
        [b"0", ..] if name.count() == 34 && (1..32).all(|at| name.label(at) == b"0") => match name.label(0) {
            b"0" => (32, Kind::Empty),
            b"1" => (32, Kind::Loopback),
            _ => return None,
        },
        _ => return None,
    };
    Some(SpecialUse { labels: 2 + nibbles, kind })
}

/// A decimal number as reverse names have it.
fn number(label: &[u8]) -> Option<u8> {
    let is_plain = label.len() == 1 || label.first() != Some(&b'0');
    std::str::from_utf8(label).ok().filter(|_| is_plain)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::Name;

    #[test]
    fn what_stays_here() {
        let cases = [
            ("localhost", Some(1)),
            ("a.b.localhost", Some(1)),
            ("localhost.example", None),
            ("x.invalid", Some(1)),
            ("x.test", Some(1)),
            ("x.onion", Some(1)),
            ("x.alt", Some(1)),
            ("printer.local", None),
            ("router.home.arpa", Some(2)),
            ("_dns.resolver.arpa", Some(2)),
            ("arpa", None),
            ("in-addr.arpa", None),
            ("10.in-addr.arpa", Some(3)),
            ("4.3.2.10.in-addr.arpa", Some(3)),
            ("010.in-addr.arpa", None),
            ("11.in-addr.arpa", None),
            ("172.in-addr.arpa", None),
            ("15.172.in-addr.arpa", None),
            ("16.172.in-addr.arpa", Some(4)),
            ("9.9.31.172.in-addr.arpa", Some(4)),
            ("32.172.in-addr.arpa", None),
            ("1.1.168.192.in-addr.arpa", Some(4)),
            ("1.2.0.192.in-addr.arpa", Some(5)),
            ("1.3.0.192.in-addr.arpa", None),
            ("64.100.in-addr.arpa", Some(4)),
            ("128.100.in-addr.arpa", None),
            ("254.169.in-addr.arpa", Some(4)),
            ("1.0.0.127.in-addr.arpa", Some(3)),
            ("255.255.255.255.in-addr.arpa", Some(6)),
            ("8.8.8.8.in-addr.arpa", None),
            ("d.f.ip6.arpa", Some(4)),
            ("c.f.ip6.arpa", Some(4)),
            ("1.b.e.f.ip6.arpa", Some(5)),
            ("c.e.f.ip6.arpa", None),
            ("1.8.b.d.0.1.0.0.2.ip6.arpa", Some(10)),
            ("1.0.0.2.ip6.arpa", None),
        ];
        for (text, expected) in cases {
            let name = LookupName::from_wire(Name::parse(text).unwrap().wire()).unwrap();
            assert_eq!(SpecialUse::find(&name).map(SpecialUse::labels), expected, "{text}");
        }
        let reverse = |last: &str| format!("{last}{}.ip6.arpa", ".0".repeat(31));
        for (last, expected) in [("0", Some(34)), ("1", Some(34)), ("2", None)] {
            let name = LookupName::from_wire(Name::parse(&reverse(last)).unwrap().wire()).unwrap();
            assert_eq!(SpecialUse::find(&name).map(SpecialUse::labels), expected, "{last}");
        }
    }
}
