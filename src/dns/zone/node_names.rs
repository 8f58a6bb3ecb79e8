//! Records of members and external nodes.

use std::{collections::BTreeMap, net::IpAddr};

use super::rrset::{RRset, Rdata};
use crate::{
    dns::message::codes::rtype,
    model::{
        announcement::Node,
        catalog::{Catalog, Claim, Freshness},
        name::Label,
        nearest::Place,
    },
};

/// Records of `NODE.node.ZONE`: A, AAAA and TXT.
#[derive(Debug)]
pub(super) struct NodeNames {
    pub(super) datacenter: Label,
    pub(super) rrsets: Vec<RRset>,
}

/// Returns whether an owner's external node is answered.
pub(super) fn is_answered(claim: &Claim) -> bool {
    claim.freshness != Freshness::Gone && claim.node.name.dns_label().is_ok()
}

impl NodeNames {
    /// Returns the records of an external node, whose datacenter is that of its owner; `None` if it is not answered.
    pub(super) fn of_external(catalog: &Catalog, claim: &Claim, ttl: u32) -> Option<Self> {
        let owner = catalog.node(&claim.owner).filter(|_| is_answered(claim))?;
        Some(Self::with(&claim.node.addresses, owner.place_of_external(), &claim.node.meta, ttl))
    }

    /// Returns the records of a member.
    pub(super) fn new(node: &Node, ttl: u32) -> Self {
        Self::with(&node.addresses, node.place(), &node.meta, ttl)
    }

    fn with(addresses: &[IpAddr], place: Place<'_>, meta: &BTreeMap<String, String>, ttl: u32) -> Self {
        let Place { datacenter, zone } = place;
        let set = |rtype, records: Vec<Rdata>| (!records.is_empty()).then_some(RRset { rtype, ttl, line: 0, records });
        let v4 = addresses.iter().filter_map(|a| if let IpAddr::V4(ip) = a { Some(ip.octets()) } else { None });
        let v6 = addresses.iter().filter_map(|a| if let IpAddr::V6(ip) = a { Some(ip.octets()) } else { None });
        // One character-string per pair: the length of `meta` entries is bounded accordingly.
        let zone = zone.iter().map(|zone| ("zone", zone.as_str()));
        let pairs = std::iter::once(("datacenter", datacenter.as_str()))
            .chain(zone)
            .chain(meta.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        let mut txt = Vec::new();
        for (key, value) in pairs {
            txt.push((key.len() + 1 + value.len()) as u8);
            txt.extend_from_slice(format!("{key}={value}").as_bytes());
        }
        let rrsets = [
            set(rtype::A, v4.map(Rdata::fixed).collect()),
            set(rtype::AAAA, v6.map(Rdata::fixed).collect()),
            set(rtype::TXT, vec![Rdata::fixed(txt)]),
        ];
        Self { datacenter: datacenter.clone(), rrsets: rrsets.into_iter().flatten().collect() }
    }
}
