//! Reverse names of announced addresses (RFC 1035 §3.5, RFC 3596 §2.5).
//!
//! They are answered although no zone holds them: each is a zone of its own name alone. Where a zone file has a reverse
//! zone, they appear in that zone, with its SOA; what the file says of exactly that name, or delegates, wins, and a
//! wildcard does not, since it stands for names that do not exist (RFC 4592 §2.2.1).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use super::{
    Tables,
    rrset::{RRset, Rdata},
    service::{MAX_STALE_TTL, Remark},
    static_names::{Found, Kind, Zone},
};
use crate::{
    dns::message::{codes::rtype, query::LookupName},
    model::service::RESERVED_SERVICE,
};

/// Names in one PTR answer. An address with more instances is a proxy's or a cluster's; nobody reads more names than
/// these, and every one of them costs a query time.
pub const MAX_POINTERS: usize = 32;
/// Instances that are looked at to find those; the rest may be there or not.
const MAX_EXAMINED: usize = 1024;

/// Instances at an address that are looked at while others wait. Each costs about as much as a whole answer.
const AT_ONCE: usize = 8;

/// The PTR records of an announced address.
pub(crate) struct Pointers<'t> {
    /// The records.
    pub(crate) set: RRset,
    /// Of the first instance among them that is as last known.
    pub(crate) remark: Option<&'t Remark>,
}

impl Tables {
    /// The PTR records of an announced address: the names of the instances that are answered there, else of the node.
    /// `None` where nothing is announced there, or a zone file says something of that very name.
    pub(crate) fn pointers(&self, name: &LookupName, zone: Option<&Zone>) -> Option<Pointers<'_>> {
        let address = addresses(name, 0).filter(|range| range.start() == range.end()).map(|range| *range.start())?;
        let mut instances = self.instances_at(address).take(MAX_EXAMINED).peekable();
        let node = self.node_at(&address);
        if instances.peek().is_none() && node.is_none() {
            return None;
        }
        if let Some(zone) = zone {
            let below = name.count() - zone.labels;
            match zone.names.find(name, zone.labels, below, rtype::PTR) {
                Found::Nothing | Found::Name([]) => {}
                Found::Name(_) | Found::Cut { .. } => return None,
            }
        }
        let mut records: Vec<Rdata> = Vec::new();
        let mut stale = None;
        for key in instances {
            let Some(service) = self.service(key.service.as_bytes()) else { continue };
            let Some(host) = service.host(key.id.as_bytes()) else { continue };
            // Where two nodes announce one id, the address may be the one that does not count.
            let remark = service.remark(host);
            if !matches!(remark, Some(Remark::NotReady(_))) && service.host_has(host, &address) {
                stale = stale.or(remark);
                records.push(Rdata::relative(&[], [key.id.as_bytes(), key.service.as_bytes()]));
                // One that two nodes announce at one address.
                records.dedup();
            }
            if records.len() == MAX_POINTERS {
                break;
            }
        }
        if let (true, Some(node)) = (records.is_empty(), node) {
            records.push(Rdata::relative(&[], [node.as_bytes(), RESERVED_SERVICE.as_bytes()]));
        }
        let ttl = if stale.is_some() { self.ttl().min(MAX_STALE_TTL) } else { self.ttl() };
        Some(Pointers { set: RRset { rtype: rtype::PTR, ttl, records }, remark: stale })
    }

    /// Whether an answer of this name takes so long that others should not wait for it.
    pub(crate) fn takes_long(&self, name: &LookupName) -> bool {
        let range = addresses(name, 0).filter(|range| range.start() == range.end());
        range.is_some_and(|range| self.instances_at(*range.start()).nth(AT_ONCE).is_some())
    }

    /// How many labels of a name below a static zone exist because an address below them is announced (RFC 8020).
    pub(crate) fn announced_labels(&self, name: &LookupName, zone: &Zone) -> usize {
        if zone.kind == Kind::Discovery || !is_reverse(name) {
            return 0;
        }
        let below = name.count() - zone.labels;
        let exists = |depth: &usize| {
            let range = addresses(name, below - depth);
            range.is_some_and(|range| self.any_address_in(&range))
        };
        (1..=below).rev().find(exists).unwrap_or(0)
    }
}

fn is_reverse(name: &LookupName) -> bool {
    name.count().checked_sub(1).is_some_and(|top| name.label(top) == b"arpa")
}

/// The addresses that stand at or below a reverse name, its first `skip` labels left out: one, or all with that prefix.
fn addresses(name: &LookupName, skip: usize) -> Option<RangeInclusive<IpAddr>> {
    let top = name.count().checked_sub(2)?;
    if top < skip || !is_reverse(name) {
        return None;
    }
    // The labels from the most significant one on.
    let labels = (skip..top).rev().map(|at| name.label(at));
    match name.label(top) {
        b"in-addr" if top - skip <= 4 => {
            let (mut low, mut high) = ([0; 4], [255; 4]);
            for (at, label) in labels.enumerate() {
                let text = std::str::from_utf8(label).ok()?;
                // `01` and `+1` are other names than `1`.
                low[at] = text.parse().ok().filter(|value: &u8| value.to_string() == text)?;
                high[at] = low[at];
            }
            Some(Ipv4Addr::from(low).into()..=Ipv4Addr::from(high).into())
        }
        b"ip6" if top - skip <= 32 => {
            let (mut low, mut high) = (0, u128::MAX);
            for (at, label) in labels.enumerate() {
                let [digit] = label else { return None };
                let shift = 124 - 4 * at;
                let nibble = u128::from(char::from(*digit).to_digit(16)?) << shift;
                low |= nibble;
                high = high & !(0xf << shift) | nibble;
            }
            Some(Ipv6Addr::from(low).into()..=Ipv6Addr::from(high).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::Name;

    #[test]
    fn reverse_names_stand_for_ranges_of_addresses() {
        let nibbles = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        let cases = [
            ("7.0.0.10.in-addr.arpa", 0, Some("10.0.0.7..=10.0.0.7")),
            ("7.0.0.10.in-addr.arpa", 2, Some("10.0.0.0..=10.0.255.255")),
            ("0.10.IN-ADDR.arpa", 0, Some("10.0.0.0..=10.0.255.255")),
            ("in-addr.arpa", 0, Some("0.0.0.0..=255.255.255.255")),
            ("07.0.0.10.in-addr.arpa", 0, None),
            ("256.0.0.10.in-addr.arpa", 0, None),
            ("1.7.0.0.10.in-addr.arpa", 0, None),
            ("arpa", 0, None),
            ("7.0.0.10.in-addr.example", 0, None),
            (nibbles, 0, Some("fd00::7..=fd00::7")),
            (nibbles, 30, Some("fd00::..=fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")),
            ("10.ip6.arpa", 0, None),
            ("g.ip6.arpa", 0, None),
        ];
        for (name, skip, expected) in cases {
            let name = LookupName::from_wire(Name::parse(name).unwrap().wire()).unwrap();
            let got = addresses(&name, skip).map(|range| format!("{}..={}", range.start(), range.end()));
            assert_eq!(got.as_deref(), expected, "{name:?}", name = String::from_utf8_lossy(name.wire()));
        }
    }
}
