//! Records of members and external nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    Tables,
    rrset::{RRset, Rdata},
};
use crate::{
    dns::message::codes::rtype,
    model::{
        announcement::Node,
        catalog::{Catalog, Claim, Freshness},
        name::Label,
        nearest::Place,
        registered_name::RegisteredName,
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

impl Tables {
    /// Updates the nodes by address.
    pub(super) fn update_node_addresses(&mut self, catalog: &Catalog) {
        let mut nodes: Vec<_> = catalog.nodes().collect();
        // The sort is stable: nodes of equal freshness keep the order by name.
        nodes.sort_by_key(|(_, freshness)| *freshness);
        let mut node_addresses = BTreeMap::new();
        for (node, _) in nodes {
            for address in &node.addresses {
                node_addresses.entry(*address).or_insert_with(|| RegisteredName::from(node.name.clone()));
            }
        }
        // An agent knows its own address better than the client that registered an external node.
        for claim in catalog.external_nodes().filter(|claim| is_answered(claim)) {
            for address in &claim.node.addresses {
                node_addresses.entry(*address).or_insert_with(|| claim.node.name.clone());
            }
        }
        self.node_addresses = Arc::new(node_addresses);
    }

    /// Returns the addresses of all instances and nodes, each once.
    pub fn announced_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let of_nodes = self.node_addresses.keys().copied();
        self.addresses.all().chain(of_nodes.filter(|address| self.addresses.at(*address).next().is_none()))
    }

    /// Returns the datacenters of the node and of the instances at an address; `None` if neither has a DNS name.
    pub fn datacenters_at(&self, address: IpAddr) -> Option<BTreeSet<&Label>> {
        let node = self.node_at(&address);
        let mut datacenters: BTreeSet<&Label> =
            node.and_then(|node| self.node_datacenter(node.as_bytes())).into_iter().collect();
        let mut is_announced = node.is_some();
        for key in self.instances_at(address) {
            let Some(service) = self.service(key.service.as_bytes()) else { continue };
            let id = key.id.as_bytes();
            // If two nodes announce the same id, the address may belong to the shadowed instance.
            if !service.host(id).is_some_and(|host| service.host_has(host, &address)) {
                continue;
            }
            is_announced = true;
            datacenters
                .extend(service.by_datacenter().filter(|(_, part)| part.host(id).is_some()).map(|(name, _)| name));
            // A proxy may have the address of many instances.
            if datacenters.len() == self.datacenters.len() {
                break;
            }
        }
        is_announced.then_some(datacenters)
    }
}
