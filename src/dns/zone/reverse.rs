//! Reverse names of announced addresses (RFC 1035 §3.5, RFC 3596 §2.5).
//!
//! Outside our zones, each reverse name is a zone with a single name. In a static reverse zone, the names appear with the SOA
//! of that zone. Records of the exact name and delegations in its file take precedence. Wildcards do not, since they match only
//! names that do not exist (RFC 4592 §2.2.1).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use super::{
    Tables,
    rrset::{RRset, Rdata},
    service::{MAX_STALE_TTL, Remark, consul::node_labels},
    static_names::{Found, Kind, Zone},
};
use crate::{
    dns::message::{codes::rtype, query::LookupName},
    model::registered_name::RESERVED_SERVICE,
};

/// Maximum number of PTR records in an answer. An address with more instances belongs to a proxy or a cluster, and each record
/// costs query time.
pub const MAX_POINTERS: usize = 32;
/// Maximum number of instances examined to find them; further instances are ignored.
const MAX_EXAMINED: usize = 1024;

/// Maximum number of instances at an address for an answer on the fast path. Each costs about as much as a whole answer.
const MAX_FAST: usize = 8;

/// Labels of the name that lists the types of all services (RFC 6763 §9).
const SERVICE_TYPES: &[u8] = b"\x09_services\x07_dns-sd\x04_udp";

/// PTR records of an announced address.
pub(crate) struct Pointers<'t> {
    /// The PTR RRset.
    pub(crate) set: RRset,
    /// Remark of the first instance among them on an unreachable node.
    pub(crate) remark: Option<&'t Remark>,
}

impl Tables {
    /// Returns the announced address of this reverse name; `None` if the address is not announced, or if a zone file has records
    /// of the exact name or signatures.
    pub(crate) fn announced_address(&self, name: &LookupName, zone: Option<&Zone>) -> Option<IpAddr> {
        let address = address(name)?;
        if zone.is_some_and(|zone| zone.presigned().is_some()) {
            return None;
        }
        if self.instances_at(address).next().is_none() && self.node_at(&address).is_none() {
            return None;
        }
        if let Some(zone) = zone {
            let below = name.count() - zone.labels;
            match zone.names.find(name, zone.labels, below, rtype::PTR) {
                Found::Nothing | Found::Name([]) => {}
                Found::Name(_) | Found::Wildcard { .. } | Found::Cut { .. } | Found::Redirect { .. } => return None,
            }
        }
        Some(address)
    }

    /// Returns the PTR records of an announced address: the instances answered there, else the node.
    ///
    /// In an alias domain with the scheme of Consul, the node takes precedence, as in Consul.
    pub(crate) fn pointers(&self, address: IpAddr) -> Pointers<'_> {
        let is_consul = self.ptr_domain().is_some_and(|zone| zone.kind == Kind::Consul);
        let node = self.node_at(&address);
        let instances = self.instances_at(address).take(if is_consul && node.is_some() { 0 } else { MAX_EXAMINED });
        let mut records: Vec<Rdata> = Vec::new();
        let mut stale = None;
        for key in instances {
            let Some(service) = self.service(key.service.as_bytes()) else { continue };
            let Some(host) = service.host(key.id.as_bytes()) else { continue };
            // If two nodes announce the same id, the address may belong to the shadowed instance.
            let remark = service.remark(host);
            if !matches!(remark, Some(Remark::NotReady(_))) && service.host_has(host, &address) {
                stale = stale.or(remark);
                records.push(match is_consul {
                    true => Rdata::below_origin(service.consul_pointer(host, &address)),
                    false => Rdata::relative(&[], [key.id.as_bytes(), key.service.as_bytes()]),
                });
                // Two nodes may announce the same id at the same address. In the scheme of Consul, instances share a name.
                records.dedup();
            }
            if records.len() == MAX_POINTERS {
                break;
            }
        }
        if let (true, Some(node)) = (records.is_empty(), node) {
            records.push(match (is_consul, self.node_datacenter(node.as_bytes())) {
                (true, Some(datacenter)) => Rdata::below_origin(node_labels(node.as_bytes(), datacenter)),
                _ => Rdata::relative(&[], [node.as_bytes(), RESERVED_SERVICE.as_bytes()]),
            });
        }
        let ttl = if stale.is_some() { self.ttl().min(MAX_STALE_TTL) } else { self.ttl() };
        Pointers { set: RRset { rtype: rtype::PTR, ttl, line: 0, records }, remark: stale }
    }

    /// Reports whether an answer to this name is too expensive for the fast path.
    pub(crate) fn is_expensive(&self, name: &LookupName) -> bool {
        name.wire().starts_with(SERVICE_TYPES)
            || address(name).is_some_and(|address| self.instances_at(address).nth(MAX_FAST).is_some())
    }

    /// Returns the number of labels below the origin of a static zone that exist because an address below them is announced
    /// (RFC 8020).
    pub(crate) fn announced_labels(&self, name: &LookupName, zone: &Zone) -> usize {
        if zone.kind.has_live_names() || zone.presigned().is_some() || !is_reverse(name) {
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

/// Reports whether a name is below `arpa`.
pub(crate) fn is_reverse(name: &LookupName) -> bool {
    name.count().checked_sub(1).is_some_and(|top| name.label(top) == b"arpa")
}

/// Returns the address of a reverse name.
fn address(name: &LookupName) -> Option<IpAddr> {
    // Fast path for most names.
    if !name.wire().ends_with(b"\x04arpa\0") {
        return None;
    }
    addresses(name, 0).filter(|range| range.start() == range.end()).map(|range| *range.start())
}

/// Returns the addresses at or below a reverse name without its first `skip` labels: one address, or all with a prefix.
fn addresses(name: &LookupName, skip: usize) -> Option<RangeInclusive<IpAddr>> {
    let top = name.count().checked_sub(2)?;
    if top < skip || !is_reverse(name) {
        return None;
    }
    // Labels from the most significant one.
    let labels = (skip..top).rev().map(|at| name.label(at));
    match name.label(top) {
        b"in-addr" if top - skip <= 4 => {
            let (mut low, mut high) = ([0; 4], [255; 4]);
            for (at, label) in labels.enumerate() {
                let text = std::str::from_utf8(label).ok()?;
                // `01` and `+1` are different names from `1`.
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
    fn reverse_names_map_to_address_ranges() {
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
