//! Owner names of an alias domain in the scheme of Consul, for copies of it.
//!
//! The lookup computes names of any address. A copy has those of addresses that an instance or a node announces, in the
//! datacenters of these. All targets of the zone's records are among them.

use std::{collections::BTreeSet, iter::once, net::IpAddr};

use super::{Owners, below, labels_of_type, relative, underscored};
use crate::{
    dns::{
        message::codes::rtype,
        zone::{
            Tables,
            rrset::RRset,
            service::{
                Service,
                consul::{ADDRESS, DATACENTER, NODE, SERVICE, hex},
                dns_sd::ServiceType,
            },
            static_names::{Kind, Zone},
        },
    },
    model::{
        alias_domain::is_consul_kind, catalog::Touched, name::Label, registered_name::RegisteredName, service::Protocol,
    },
};

impl Tables {
    /// Passes the owner names of services, nodes and addresses to `visit`, until it fails.
    pub(super) fn visit_consul<E>(&self, mut visit: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        for (_, service) in self.services() {
            names_of_service(service).iter().try_for_each(|owner| visit(owner))?;
        }
        // A member and an external node may have the same name.
        let nodes: BTreeSet<&[u8]> = self.node_names().collect();
        for node in nodes {
            self.names_of_node(node).iter().try_for_each(|owner| visit(owner))?;
        }
        self.announced_addresses()
            .try_for_each(|address| self.names_of_address(address).iter().try_for_each(|owner| visit(owner)))
    }

    /// Returns the owner names of touched services and nodes in these tables.
    pub(super) fn touched_consul_names(&self, touched: &Touched) -> Owners {
        let mut owners = Owners::new();
        for service in touched.services.iter().filter_map(|name| self.service(name.as_bytes())) {
            owners.append(&mut names_of_service(service));
        }
        touched_nodes(touched).for_each(|node| owners.append(&mut self.names_of_node(node)));
        owners
    }

    /// Returns the addresses of touched services and nodes in these tables, if names of the zone are those of addresses.
    ///
    /// The names of an address depend on everything that announces it. A node that is in one version only changes the names of
    /// its addresses in the other version, too: take the [`names_of_addresses`](Self::names_of_addresses) of both.
    pub fn touched_addresses(&self, zone: &Zone, touched: &Touched) -> BTreeSet<IpAddr> {
        let mut addresses = BTreeSet::new();
        if zone.kind != Kind::Consul {
            return addresses;
        }
        for service in touched.services.iter().filter_map(|name| self.service(name.as_bytes())) {
            for host in 0..service.declared() as u32 {
                addresses.extend(addresses_in(service.host_v4(host), service.host_v6(host)));
            }
        }
        for node in touched_nodes(touched) {
            let member = self.node(node).map(|(_, rrsets)| rrsets);
            let external = self.external_node(node).map(|(_, rrsets)| rrsets);
            addresses.extend([member, external].into_iter().flatten().flatten().flat_map(addresses_of));
        }
        addresses
    }

    /// Returns the owner names of addresses in these tables.
    pub fn names_of_addresses(&self, addresses: &BTreeSet<IpAddr>) -> Owners {
        addresses.iter().flat_map(|address| self.names_of_address(*address)).collect()
    }

    /// Reports whether a copy has the records of an owner name that is that of an address.
    pub(super) fn has_copied_address(&self, address: IpAddr, owner: &[u8]) -> bool {
        self.names_of_address(address).contains(owner)
    }

    fn names_of_node(&self, node: &[u8]) -> Owners {
        spellings(self.node_datacenter(node)).filter_map(|suffix| below([node, NODE], &suffix)).collect()
    }

    /// Returns no names if the address is not announced.
    fn names_of_address(&self, address: IpAddr) -> Owners {
        let Some(datacenters) = self.datacenters_at(address) else { return Owners::new() };
        let hex = hex(address);
        spellings(datacenters).filter_map(|suffix| below([hex.as_bytes(), ADDRESS], &suffix)).collect()
    }
}

/// Returns the names of touched members and external nodes.
fn touched_nodes(touched: &Touched) -> impl Iterator<Item = &[u8]> {
    touched.nodes.iter().map(Label::as_bytes).chain(touched.external.iter().map(RegisteredName::as_bytes))
}

/// Returns the owner names of a service, in all datacenters and in each of its own.
fn names_of_service(service: &Service) -> Owners {
    let mut owners = Owners::new();
    let mut add = |part: &Service, suffix: &[u8]| {
        let (Some(above), srv) = (below([SERVICE], suffix), srv_names(part)) else { return };
        let short = srv.iter().map(|name| [name, suffix]);
        let long = plain_names(part).chain(srv.iter().cloned()).map(|name| [&*name, &above].concat().into());
        owners.extend(long.chain(short.map(|parts| parts.concat().into())));
    };
    add(service, &[]);
    for (datacenter, part) in service.by_datacenter() {
        in_datacenter(datacenter).iter().for_each(|suffix| add(part, suffix));
    }
    owners
}

/// Returns the labels of a service in front of the label of the kind, except those of RFC 2782 forms.
fn plain_names(service: &Service) -> impl Iterator<Item = Box<[u8]>> {
    let name = service.name();
    let tags = service.tags().map(move |(tag, _)| relative([tag.as_bytes(), name]));
    let instances = service.ids().map(move |id| relative([id, name]));
    let ports = service.ports().map(|port| Some(labels_of_type(service, ServiceType::Port(port))));
    once(relative([name])).chain(tags).chain(instances).chain(ports).flatten()
}

/// Returns the labels of the RFC 2782 forms of a service.
fn srv_names(service: &Service) -> Owners {
    let name = underscored(service.name());
    let udp = service.protocol(Protocol::Udp).map(|_| &b"udp"[..]);
    let forms = once(&b"tcp"[..]).chain(udp).chain(service.tags().map(|(tag, _)| tag.as_bytes()));
    forms.filter_map(|form| relative([&*name, &*underscored(form)])).collect()
}

/// Returns the labels after that of the kind: without a datacenter, and in each of these.
fn spellings<'l>(datacenters: impl IntoIterator<Item = &'l Label>) -> impl Iterator<Item = Box<[u8]>> {
    once(Box::default()).chain(datacenters.into_iter().flat_map(in_datacenter))
}

/// Returns the labels of a datacenter in both forms; none if names cannot have it.
fn in_datacenter(datacenter: &Label) -> Vec<Box<[u8]>> {
    let label = datacenter.as_bytes();
    if is_consul_kind(label) {
        return Vec::new();
    }
    [relative([label]), relative([label, DATACENTER])].into_iter().flatten().collect()
}

/// Returns the addresses of contiguous A and AAAA RDATA.
fn addresses_in(v4: &[u8], v6: &[u8]) -> impl Iterator<Item = IpAddr> {
    let v4 = v4.as_chunks::<4>().0.iter().map(|octets| IpAddr::from(*octets));
    v4.chain(v6.as_chunks::<16>().0.iter().map(|octets| IpAddr::from(*octets)))
}

/// Returns the addresses in an RRset of a node.
fn addresses_of(set: &RRset) -> impl Iterator<Item = IpAddr> {
    set.records.iter().filter_map(|rdata| match set.rtype {
        rtype::A => rdata.octets.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        rtype::AAAA => rdata.octets.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => None,
    })
}
