//! Special-use and private reverse names, which are never forwarded to the default upstreams.
//!
//! They are answered like zones of ours: RFC 6761 (`localhost`, `invalid`, `test`), RFC 6303 and RFC 7793 (reverse names of
//! private and special addresses), RFC 7686 (`onion`), RFC 8375 (`home.arpa`), RFC 9462 (`resolver.arpa`), RFC 9476 (`alt`).
//! Zone files and routes take precedence. `local` is not included, contrary to RFC 6762 §22.1: many networks have unicast DNS
//! names below it.

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

/// TTL of all records in seconds: the negative TTL of RFC 6303 §3.
const TTL: u32 = 10_800;
/// SOA serial, refresh, retry, expire and minimum (RFC 6303 §3).
const SOA: [u32; 5] = [1, 3600, 1200, 604_800, TTL];
/// SOA mailbox `nobody.invalid` (RFC 6303 §3).
const MAILBOX: &[u8] = b"\x06nobody\x07invalid\0";
/// PTR target of the loopback addresses.
const LOCALHOST: &[u8] = b"\x09localhost\0";

/// A special-use zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialUse {
    /// Number of labels of the origin.
    labels: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The origin exists; names below it do not.
    Empty,
    /// All names resolve to the loopback addresses (RFC 6761 §6.3).
    Localhost,
    /// The reverse name of the loopback address has a PTR record for `localhost`.
    Loopback,
}

impl SpecialUse {
    /// Returns the special-use zone of a name; `None` for all other names.
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

    /// Returns the number of labels of the origin.
    pub fn labels(self) -> usize {
        self.labels
    }

    /// Returns the response code for a name in the zone.
    pub fn rcode(self, name: &LookupName) -> Rcode {
        let exists = name.count() == self.labels || self.kind == Kind::Localhost || self.is_loopback(name);
        if exists { Rcode::NoError } else { Rcode::NxDomain }
    }

    /// Returns the record types of a name in the zone.
    pub fn types(self, name: &LookupName) -> Vec<u16> {
        let all = [rtype::A, rtype::NS, rtype::SOA, rtype::PTR, rtype::AAAA];
        all.into_iter().filter(|rtype| self.rdata(name, *rtype).is_some()).collect()
    }

    fn is_loopback(self, name: &LookupName) -> bool {
        self.kind == Kind::Loopback && is_first_address(name, name.count() - self.labels)
    }

    /// Returns the RDATA of this type at a name in the zone.
    fn rdata(self, name: &LookupName, qtype: u16) -> Option<Vec<u8>> {
        let below = name.count() - self.labels;
        let origin = &name.wire()[name.offset(below)..];
        match (self.kind, qtype) {
            (_, rtype::SOA) if below == 0 => Some(soa(origin)),
            (_, rtype::NS) if below == 0 => Some(origin.to_vec()),
            (Kind::Localhost, rtype::A) => Some(vec![127, 0, 0, 1]),
            (Kind::Localhost, rtype::AAAA) => Some([[0; 15].as_slice(), &[1]].concat()),
            (Kind::Loopback, rtype::PTR) if self.is_loopback(name) => Some(LOCALHOST.to_vec()),
            _ => None,
        }
    }

    /// Returns the answer for a name in the zone. `any` is an arbitrary zone of the tables, which records must refer to.
    pub fn answer<'t>(self, name: &'t LookupName, qtype: u16, any: &'t Zone) -> Answer<'t> {
        let origin = &name.wire()[name.offset(name.count() - self.labels)..];
        let group = |owner, rtype, octets: Vec<u8>| Group {
            owner,
            zone: any,
            signer: None,
            wildcard: None,
            data: Data::Made(RRset { rtype, ttl: TTL, line: 0, records: vec![Rdata::fixed(octets)] }),
        };
        let mut answer = Answer::empty(self.rcode(name));
        match self.rdata(name, qtype) {
            Some(octets) => answer.answer.push(group(Owner::Question, qtype, octets)),
            None => answer.authority = Authority::Soa(group(Owner::Absolute(origin), rtype::SOA, soa(origin))),
        }
        answer
    }
}

fn soa(origin: &[u8]) -> Vec<u8> {
    let mut rdata = [origin, MAILBOX].concat();
    rdata.extend(SOA.iter().flat_map(|field| field.to_be_bytes()));
    rdata
}

/// Reports whether the name, with `below` labels below the zone, is the reverse name of 127.0.0.1 or ::1.
fn is_first_address(name: &LookupName, below: usize) -> bool {
    match below {
        0 => name.count() == 34,
        3 => [&b"1"[..], b"0", b"0"].iter().enumerate().all(|(at, label)| name.label(at) == *label),
        _ => false,
    }
}

/// Returns the zone for the leading octets of an IPv4 address, as far as the name has them (RFC 6303 §4.1, §4.2, RFC 7793 §2).
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

/// Returns the zone for the leading nibbles of an IPv6 address (RFC 6303 §4.3 to §4.6).
fn reverse_v6<'n>(name: &LookupName, label: impl Fn(usize) -> &'n [u8]) -> Option<SpecialUse> {
    let (nibbles, kind) = match [label(3), label(4), label(5)] {
        [b"f", b"c" | b"d", _] => (2, Kind::Empty),
        [b"f", b"e", b"8" | b"9" | b"a" | b"b"] => (3, Kind::Empty),
        [b"2", b"0", b"0"] if (6..=10).map(&label).eq([b"1", b"0", b"d", b"b", b"8"]) => (8, Kind::Empty),
        // The full names of `::` and `::1`.
        [b"0", ..] if name.count() == 34 && (1..32).all(|at| name.label(at) == b"0") => match name.label(0) {
            b"0" => (32, Kind::Empty),
            b"1" => (32, Kind::Loopback),
            _ => return None,
        },
        _ => return None,
    };
    Some(SpecialUse { labels: 2 + nibbles, kind })
}

/// Parses an octet of a reverse name: decimal without leading zeros.
fn number(label: &[u8]) -> Option<u8> {
    let is_plain = label.len() == 1 || label.first() != Some(&b'0');
    std::str::from_utf8(label).ok().filter(|_| is_plain)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::Name;

    #[test]
    fn special_use_zones_of_names() {
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
