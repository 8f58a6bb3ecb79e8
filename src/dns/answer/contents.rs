//! Every RRset of a zone, for transfers.
//!
//! The names of the zone are listed from the tables. Records of generated names come from the lookup that answers questions, so
//! that a copy of the zone answers as this server does. Of a zone without generated names, all records are copied. What depends on
//! the client or differs from node to node is left out: the order of records, reverse names of announced addresses, and the texts
//! of `_why` names.

mod consul;

use std::{collections::BTreeSet, iter::once};

use super::{
    BindingRecords, Data,
    provenance::{Match, Step},
    srv_rdata,
};
use crate::{
    dns::{
        message::{codes::rtype, query::LookupName},
        zone::{
            Tables,
            rrset::{RRset, Rdata, Tail},
            service::{SRV_FIELDS, Service, dns_sd::ServiceType},
            static_names::{Kind, Zone},
        },
    },
    model::{
        catalog::Touched,
        name::{Label, MAX_LABEL},
        registered_name::{RESERVED_SERVICE, RegisteredName},
        service::Protocol,
    },
};

/// Label of the name that a copy of the zone has below a declared name without records. It makes that name an empty
/// non-terminal, so that a secondary answers NODATA for an unhealthy service as this server does, and not NXDOMAIN.
const PLACEHOLDER: &[u8] = b"\x04_why";
/// Text of the placeholder: the reason itself would change the zone with each report of a check.
const PLACEHOLDER_TEXT: &[u8] = b"no healthy instance: a muster server has the reason";

/// An RRset of a zone as transfers carry it. Names are uncompressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneRrset {
    /// Owner name relative to the origin: labels in wire form without the root.
    pub owner: Box<[u8]>,
    /// Record type.
    pub rtype: u16,
    /// TTL in seconds.
    pub ttl: u32,
    /// RDATA of all records, sorted.
    pub rdata: Vec<Box<[u8]>>,
}

impl ZoneRrset {
    /// Reports whether both have the same owner and type, signatures also the same covered type.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.owner, self.rtype, self.covers()) == (&other.owner, other.rtype, other.covers())
    }

    /// Returns the type that signatures cover; `None` for other records.
    fn covers(&self) -> Option<[u8; 2]> {
        self.rdata.first().filter(|_| self.rtype == rtype::RRSIG)?.first_chunk().copied()
    }
}

/// Owner names of a part of a zone, relative to the origin.
pub type Owners = BTreeSet<Box<[u8]>>;

impl Tables {
    /// Passes every RRset of a zone but the SOA to `take`, until it fails.
    ///
    /// # Errors
    /// The error of `take`.
    pub fn visit_zone<E>(&self, zone: &Zone, mut take: impl FnMut(ZoneRrset) -> Result<(), E>) -> Result<(), E> {
        let mut visit = |owner: &[u8]| self.rrsets_of(zone, owner).into_iter().try_for_each(&mut take);
        visit(&[])?;
        match zone.kind {
            Kind::Discovery => {
                for (_, service) in self.services() {
                    names_of_service(service).iter().try_for_each(|owner| visit(owner))?;
                }
                browse_names(zone).iter().try_for_each(|owner| visit(owner))?;
                // A member and an external node may have the same name.
                let nodes: Owners = self.node_names().filter_map(name_of_node).collect();
                nodes.iter().try_for_each(|owner| visit(owner))?;
            }
            Kind::Consul => self.visit_consul(&mut visit)?,
            Kind::Static => {}
        }
        let owners: Owners = zone.names.iter().map(|(owner, _)| Box::from(owner)).collect();
        // Static names may be those of services and nodes as well.
        let is_static = |owner: &[u8]| !zone.kind.has_live_names() || self.is_static(zone, owner);
        owners.iter().filter(|owner| !owner.is_empty() && is_static(owner)).try_for_each(|owner| visit(owner))
    }

    /// Returns the owner names of these tables whose records belong to touched services and nodes.
    pub fn touched_names(&self, zone: &Zone, touched: &Touched) -> Owners {
        let mut owners = Owners::from([Box::default()]);
        match zone.kind {
            Kind::Static => return owners,
            Kind::Consul => {
                owners.append(&mut self.touched_consul_names(touched));
                return owners;
            }
            Kind::Discovery => {}
        }
        if !touched.services.is_empty() {
            owners.append(&mut browse_names(zone));
        }
        for service in touched.services.iter().filter_map(|name| self.service(name.as_bytes())) {
            owners.append(&mut names_of_service(service));
        }
        let nodes = touched.nodes.iter().map(Label::as_bytes);
        let nodes = nodes.chain(touched.external.iter().map(RegisteredName::as_bytes));
        owners.extend(nodes.filter_map(name_of_node));
        owners
    }

    /// Returns the RRsets of an owner name, sorted by type, without the SOA.
    pub fn rrsets_of(&self, zone: &Zone, owner: &[u8]) -> Vec<ZoneRrset> {
        if !zone.kind.has_live_names() {
            return stored(owner, zone);
        }
        let Some(name) = absolute(owner, zone) else { return Vec::new() };
        let step = self.find(&name, rtype::A);
        // The name belongs to another zone of this server.
        if step.zone.is_none_or(|of| of.origin != zone.origin) {
            return Vec::new();
        }
        if let Match::Delegation { .. } = step.found {
            // The NS records of a delegation, and records below it: glue.
            return stored(owner, zone);
        }
        if let Match::Address(address) = step.found
            && !self.has_copied_address(address, owner)
        {
            return Vec::new();
        }
        let all = self.rrsets(&step).into_iter().filter(|data| !is_left_out(data.rtype(), zone));
        let mut rrsets: Vec<ZoneRrset> = all.map(|data| generated(owner, &data, zone)).collect();
        let signatures = step.found.rrsets().iter().filter(|set| set.rtype == rtype::RRSIG);
        rrsets.extend(signatures.map(|set| generated(owner, &Data::Stored(set), zone)));
        if rrsets.is_empty() && is_declared(&step) {
            let text = [&[PLACEHOLDER_TEXT.len() as u8], PLACEHOLDER_TEXT].concat();
            let owner = [PLACEHOLDER, owner].concat();
            if absolute(&owner, zone).is_some() {
                rrsets.push(ZoneRrset {
                    owner: owner.into(),
                    rtype: rtype::TXT,
                    ttl: self.ttl(),
                    rdata: vec![text.into()],
                });
            }
        }
        rrsets
    }

    /// Returns TTL and RDATA of the SOA of a zone.
    pub fn soa_rdata(&self, zone: &Zone) -> (u32, Box<[u8]>) {
        let data = Data::Soa { ttl: zone.soa.ttl, serial: self.serial_of(zone) };
        (zone.soa.ttl, data.rdata(0, zone))
    }

    /// Reports whether the records of an owner name come from the zone file.
    fn is_static(&self, zone: &Zone, owner: &[u8]) -> bool {
        let found = absolute(owner, zone).map(|name| self.find(&name, rtype::A).found);
        found.is_some_and(|found| !found.is_live() && !matches!(found, Match::Apex(_) | Match::Address(_)))
    }
}

/// Reports whether the records of a type are not listed by type: the SOA has a place of its own, signatures are listed by covered
/// type, and a copy has no keys of this server.
fn is_left_out(rtype: u16, zone: &Zone) -> bool {
    matches!(rtype, rtype::SOA | rtype::RRSIG)
        || zone.keys.is_some() && matches!(rtype, rtype::DNSKEY | rtype::CDS | rtype::CDNSKEY)
}

/// Reports whether a name without records exists because a service declares it.
fn is_declared(step: &Step<'_>) -> bool {
    matches!(
        step.found,
        Match::Set { .. }
            | Match::Instance { .. }
            | Match::Port { .. }
            | Match::Advertised { .. }
            | Match::Bindings { .. }
            | Match::Browse(_)
    )
}

/// Returns the owner names of a service in the discovery zone, those of DNS-SD and of SVCB records included.
fn names_of_service(service: &Service) -> Owners {
    let name = service.name();
    let mut owners = Owners::new();
    let mut add = |owner: Option<Box<[u8]>>| owners.extend(owner);
    add(relative([name]));
    let tags = || service.tags().map(|(tag, _)| tag.as_bytes());
    for tag in tags() {
        add(relative([tag, name]));
        add(relative([&*underscored(name), &*underscored(tag)]));
    }
    for protocol in [Protocol::Tcp, Protocol::Udp].into_iter().filter(|protocol| service.protocol(*protocol).is_some())
    {
        let of_type = labels_of_type(service, ServiceType::Transport(protocol));
        for tag in tags() {
            add(below([&*underscored(tag), b"_sub"], &of_type));
        }
        add(Some(of_type));
    }
    for port in service.ports() {
        add(Some(labels_of_type(service, ServiceType::Port(port))));
    }
    for host in 0..service.declared() as u32 {
        let (id, written, protocol) = (service.host_id(host), service.dns_sd_label(host), service.host_protocol(host));
        add(relative([id, name]));
        let ports = service.ports().filter(|port| port.protocol() == protocol).map(ServiceType::Port);
        for kind in once(ServiceType::Transport(protocol)).chain(ports) {
            let of_type = labels_of_type(service, kind);
            add(below([written], &of_type));
            // The same name in another letter case is one name.
            if !written.eq_ignore_ascii_case(id) {
                add(below([id], &of_type));
            }
        }
    }
    for port in service.scheme_names() {
        add(relative([&*underscored(port.as_bytes()), name]));
    }
    owners
}

/// Returns the names at which clients of DNS-SD begin to browse, unless the zone file has records of them.
fn browse_names(zone: &Zone) -> Owners {
    let names = [&b"_services"[..], b"b", b"db", b"lb"].map(|label| relative([label, b"_dns-sd", b"_udp"]));
    names.into_iter().flatten().filter(|owner| zone.names.at(owner).is_none_or(<[RRset]>::is_empty)).collect()
}

/// Returns the owner name of a node.
fn name_of_node(label: &[u8]) -> Option<Box<[u8]>> {
    relative([label, RESERVED_SERVICE.as_bytes()])
}

fn underscored(label: &[u8]) -> Vec<u8> {
    [b"_", label].concat()
}

fn labels_of_type(service: &Service, kind: ServiceType<'_>) -> Box<[u8]> {
    let mut wire = Vec::new();
    service.push_type(kind, &mut wire);
    wire.into()
}

/// Returns labels in wire form; `None` if one is no label of DNS.
fn relative<'l>(labels: impl IntoIterator<Item = &'l [u8]>) -> Option<Box<[u8]>> {
    below(labels, &[])
}

/// Returns labels in wire form, in front of others; `None` if one is no label of DNS.
fn below<'l>(labels: impl IntoIterator<Item = &'l [u8]>, of: &[u8]) -> Option<Box<[u8]>> {
    let mut wire = Vec::new();
    for label in labels {
        if !(1..=MAX_LABEL).contains(&label.len()) {
            return None;
        }
        wire.push(label.len() as u8);
        wire.extend_from_slice(label);
    }
    wire.extend_from_slice(of);
    Some(wire.into())
}

/// Returns the absolute name of an owner; `None` if it is too long.
fn absolute(owner: &[u8], zone: &Zone) -> Option<LookupName> {
    LookupName::from_wire(&[owner, zone.origin.wire()].concat())
}

/// Returns the RRsets that a zone has besides generated ones. They include those that answers do not have since a delegation, a DNAME or
/// another zone of this server is above them (RFC 5936 §3.2, §3.5).
fn stored(owner: &[u8], zone: &Zone) -> Vec<ZoneRrset> {
    let all = zone.names.at(owner).unwrap_or_default().iter();
    let copied = all.filter(|set| set.rtype == rtype::RRSIG || !is_left_out(set.rtype, zone));
    let mut rrsets: Vec<ZoneRrset> = copied.map(|set| generated(owner, &Data::Stored(set), zone)).collect();
    rrsets.sort_by_key(|set| (set.rtype, set.covers()));
    rrsets
}

fn generated(owner: &[u8], data: &Data<'_>, zone: &Zone) -> ZoneRrset {
    let mut rdata: Vec<Box<[u8]>> = (0..data.len()).map(|at| data.rdata(at, zone)).collect();
    rdata.sort_unstable();
    ZoneRrset { owner: owner.into(), rtype: data.rtype(), ttl: data.ttl(), rdata }
}

impl Data<'_> {
    /// Returns the uncompressed RDATA of the record at index `at`.
    pub fn rdata(&self, at: usize, zone: &Zone) -> Box<[u8]> {
        let origin = zone.origin.wire();
        let stored = |rdata: &Rdata| match rdata.tail {
            Tail::Nothing => rdata.octets.clone(),
            Tail::Origin => [&rdata.octets, origin].concat().into(),
        };
        match self {
            Self::Stored(set) => stored(&set.records[at]),
            Self::Made(set) => stored(&set.records[at]),
            Self::Texts(texts, _) => stored(&texts[at]),
            Self::V4(addresses, _) => addresses[at].octets.into(),
            Self::V6(addresses, _) => addresses[at].octets.into(),
            Self::Host { size, octets, .. } => octets[at * size..][..*size].into(),
            Self::Address { octets, size, .. } => octets[..usize::from(*size)].into(),
            Self::Srv { service, members, kind, .. } => {
                let (host, port) = members.get(at);
                let mut rdata = [srv_rdata(service, *kind, host), origin].concat();
                if let Some(port) = port {
                    rdata[SRV_FIELDS - 2..SRV_FIELDS].copy_from_slice(&port.to_be_bytes());
                }
                rdata.into()
            }
            Self::Instances { service, members, kind, .. } => {
                let label = service.dns_sd_label(members.get(at).0);
                let mut rdata = [&[label.len() as u8], label].concat();
                service.push_type(*kind, &mut rdata);
                rdata.extend_from_slice(origin);
                rdata.into()
            }
            Self::Bindings { service, records, .. } => {
                let (binding, target) = match records {
                    BindingRecords::Answered(bindings) => {
                        let binding = bindings.answered(at);
                        (binding, [service.target(binding.host), origin].concat())
                    }
                    BindingRecords::Own(binding) => (*binding, vec![0]),
                };
                [&binding.priority.to_be_bytes()[..], &target, &binding.params].concat().into()
            }
            Self::Soa { serial, .. } => {
                let soa = &zone.soa;
                let numbers = [*serial, soa.timers[0], soa.timers[1], soa.timers[2], soa.minimum];
                let mut rdata = [stored(&soa.mname), stored(&soa.rname)].concat();
                rdata.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
                rdata.into()
            }
        }
    }
}
