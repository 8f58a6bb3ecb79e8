//! Records of one service, precomputed in wire form.
//!
//! A change of an instance rebuilds its service and no other. The records do not depend on the name of the zone, so that a
//! domain and its aliases share them. The RDATA of all instances is contiguous in one block of octets ([`Service::wire`]); the
//! names below the service are lists of indices into it. The cost of a query does not depend on the number of services. It
//! grows with the number of the service's instances, whose weights are summed.

pub mod bindings;
mod builder;
pub mod consul;
pub mod dns_sd;

use std::{net::IpAddr, sync::Arc};

use smallvec::SmallVec;

use self::{bindings::Bindings, builder::Builder, consul::ConsulNames, dns_sd::WrittenNames};
use super::{Settings, nearness::Nearness};
use crate::model::{
    catalog::{self, Catalog, CatalogEntry},
    name::Label,
    nearest::Tier,
    registered_name::RegisteredName,
    service::Protocol,
};

/// Index of an instance in [`Service::hosts`].
pub type HostIndex = u32;

/// Maximum TTL in seconds of records of unreachable nodes.
///
/// RFC 8767 §4 recommends 30 s for stale data, to limit queries to servers that do not respond. Here a query is cheap, and an
/// unreachable node is back or gone within seconds; caches should not keep its records longer. The TTL is not 0, so that caches
/// still collapse bursts of equal questions.
pub const MAX_STALE_TTL: u32 = 1;

/// Inline storage for the number of instances that most services have, which spares a cache miss.
pub type Few<T> = SmallVec<[T; 4]>;

/// Everything at and below `SERVICE.ZONE`.
#[derive(Debug)]
pub struct Service {
    wire: Box<[u8]>,
    /// Declared instances, sorted by id.
    hosts: Box<[Host]>,
    /// Remarks, sorted by index; most instances have none.
    remarks: Box<[(HostIndex, Remark)]>,
    /// `SERVICE`
    apex: Set,
    /// `_SERVICE._tcp` and `_SERVICE._udp`
    protocols: Protocols,
    /// `TAG.SERVICE` and `_SERVICE._TAG`, sorted by tag.
    tags: Box<[(RegisteredName, Set)]>,
    /// `_PORT._tcp.SERVICE`, sorted by name, then transport.
    ports: Box<[NamedPort]>,
    /// Names of instances in DNS-SD that differ from the labels of their ids; `None` if there are none.
    written_names: Option<Box<WrittenNames>>,
    /// SVCB and HTTPS records, those of the service first, then by the name of the port; most services have none.
    bindings: Box<[Bindings]>,
    /// Records in zones with the scheme of Consul; `None` if there is no such zone.
    consul: Option<Box<ConsulNames>>,
}

/// Records of a name that selects instances.
#[derive(Debug, PartialEq, Eq)]
pub struct Set {
    /// Answered instances with a default port.
    pub srv: Few<HostIndex>,
    /// A RRset without duplicates (RFC 2181 §5); the weight of an address is the sum over its instances.
    pub v4: Few<Weighted<4>>,
    /// AAAA RRset, likewise.
    pub v6: Box<[Weighted<16>]>,
    /// Lowest TTL of the instances, in seconds.
    pub ttl: u32,
    /// Content of the Extended DNS Error.
    pub remark: Option<Remark>,
    /// Tier that is answered; `None`: no instance is, or the service does not prefer near ones.
    pub tier: Option<Tier>,
}

/// Content of an Extended DNS Error about instances. Staleness is reported only for answered instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// No instance is answered; holds the reason.
    NotReady(Box<str>),
    /// Some answered instances are on unreachable nodes; holds the text, which the instances of a node share.
    Stale(Arc<str>),
}

/// An address and its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weighted<const N: usize> {
    /// Address in wire form.
    pub octets: [u8; N],
    /// Sum of the SRV weights.
    pub weight: u16,
}

/// A named port of the service.
#[derive(Debug, PartialEq, Eq)]
pub struct NamedPort {
    name: Label,
    protocol: Protocol,
    /// Answered instances, each with its port of that name.
    pub srv: Box<[(HostIndex, u16)]>,
    /// TTL in seconds.
    pub ttl: u32,
    /// Content of the Extended DNS Error.
    pub remark: Option<Remark>,
    /// Tier that is answered, as in [`Set`].
    pub tier: Option<Tier>,
}

/// Sets of the transports. Most services use a single transport, whose set is that of the apex.
#[derive(Debug)]
enum Protocols {
    Only(Protocol),
    Both {
        tcp: Box<Set>,
        udp: Box<Set>,
        /// Declared instances with UDP, sorted.
        udp_hosts: Box<[HostIndex]>,
    },
}

/// Offset and lengths of an instance's RDATA in [`Service::wire`].
///
/// The order is: SRV RDATA without the origin (priority, weight, port, `INSTANCE`, `SERVICE`), A, AAAA, TXT.
#[derive(Clone, Copy, Debug)]
struct Host {
    at: u32,
    ttl: u32,
    txt: u32,
    v4: u16,
    v6: u16,
    weight: u16,
    srv: u8,
}

/// Length of the fixed fields of SRV RDATA: priority, weight and port (RFC 2782).
pub const SRV_FIELDS: usize = 6;

impl Service {
    /// Builds the records of a service of the catalog.
    pub fn new(name: &RegisteredName, service: &catalog::Service, catalog: &Catalog, settings: &Settings) -> Self {
        let instances: Vec<&CatalogEntry> = service.instances().collect();
        let nearness = Nearness::new(service, &instances, catalog, settings);
        Builder::new(name, instances, nearness, settings.ttl).finish()
    }

    /// Returns the set of `SERVICE`: all instances.
    pub fn apex(&self) -> &Set {
        &self.apex
    }

    /// Returns the set of `_SERVICE._PROTOCOL`; `None` if no instance of that transport is declared.
    pub fn protocol(&self, protocol: Protocol) -> Option<&Set> {
        match (&self.protocols, protocol) {
            (Protocols::Only(only), asked) => (*only == asked).then_some(&self.apex),
            (Protocols::Both { tcp, .. }, Protocol::Tcp) => Some(tcp),
            (Protocols::Both { udp, .. }, Protocol::Udp) => Some(udp),
        }
    }

    /// Returns the set of `TAG.SERVICE`; `None` if no instance with that tag is declared.
    pub fn tag(&self, tag: &[u8]) -> Option<(&RegisteredName, &Set)> {
        let at = self.tags.binary_search_by(|(label, _)| label.as_bytes().cmp(tag)).ok()?;
        let (label, set) = &self.tags[at];
        Some((label, set))
    }

    /// Returns the port of `_PORT._PROTOCOL.SERVICE`; `None` if no instance with such a port is declared.
    pub fn port(&self, name: &[u8], protocol: Protocol) -> Option<&NamedPort> {
        let key = (name, protocol as u8);
        let at = self.ports.binary_search_by(|p| (p.name.as_bytes(), p.protocol as u8).cmp(&key)).ok()?;
        Some(&self.ports[at])
    }

    /// Returns the tags of the declared instances, sorted, each with its set.
    pub fn tags(&self) -> impl Iterator<Item = (&RegisteredName, &Set)> {
        self.tags.iter().map(|(tag, set)| (tag, set))
    }

    /// Returns the named ports, sorted by name.
    pub fn ports(&self) -> impl Iterator<Item = &NamedPort> {
        self.ports.iter()
    }

    /// Returns the ids of the declared instances, sorted.
    pub fn ids(&self) -> impl Iterator<Item = &[u8]> {
        self.hosts.iter().map(|host| self.id(host))
    }

    /// Returns the memory of the records in octets.
    pub fn size(&self) -> usize {
        let consul = self.consul.as_ref().map_or(0, |names| names.size());
        let ports: usize = self.ports.iter().map(|port| size_of_val(&*port.srv)).sum();
        let tags: usize =
            self.tags.iter().map(|(_, set)| size_of::<Set>() + set.srv.len() * size_of::<HostIndex>()).sum();
        self.wire.len() + size_of_val(&*self.hosts) + ports + tags + consul
    }

    /// Reports whether the transport has named ports, which make `_PROTOCOL.SERVICE` an empty non-terminal (RFC 8020).
    pub fn has_ports(&self, protocol: Protocol) -> bool {
        self.ports.iter().any(|port| port.protocol == protocol)
    }

    /// Returns the HTTPS records of `SERVICE`, or the SVCB records of the port with this name; `None` if no instance has ALPN ids
    /// for it.
    pub fn bindings(&self, port: Option<&[u8]>) -> Option<&Bindings> {
        let at = self.bindings.binary_search_by(|known| known.port().map(Label::as_bytes).cmp(&port)).ok()?;
        Some(&self.bindings[at])
    }

    /// Returns the names of the ports with SVCB records.
    pub fn scheme_names(&self) -> impl Iterator<Item = &Label> {
        self.bindings.iter().filter_map(Bindings::port)
    }

    /// Returns the number of declared instances.
    pub fn declared(&self) -> usize {
        self.hosts.len()
    }

    /// Returns the index of the declared instance with that id.
    pub fn host(&self, id: &[u8]) -> Option<HostIndex> {
        self.hosts.binary_search_by(|host| self.id(host).cmp(id)).ok().map(|at| at as HostIndex)
    }

    /// Returns the remark of an instance, which is [`Remark::NotReady`] if it is not answered.
    pub fn remark(&self, host: HostIndex) -> Option<&Remark> {
        let at = self.remarks.binary_search_by_key(&host, |(index, _)| *index).ok()?;
        Some(&self.remarks[at].1)
    }

    /// Returns the SRV RDATA of an instance without the origin; `None` if it has no default port.
    pub fn host_srv(&self, host: HostIndex) -> Option<&[u8]> {
        let srv = self.srv_parts(host);
        (srv[4..6] != [0, 0]).then_some(srv)
    }

    /// Returns the SRV RDATA like [`Self::host_srv`], with port 0 if it has none. Named ports replace it.
    pub fn srv_parts(&self, host: HostIndex) -> &[u8] {
        let host = &self.hosts[host as usize];
        &self.wire[host.at as usize..][..usize::from(host.srv)]
    }

    /// Returns the contiguous A RDATA of an instance.
    pub fn host_v4(&self, host: HostIndex) -> &[u8] {
        let host = &self.hosts[host as usize];
        &self.wire[host.at as usize + usize::from(host.srv)..][..usize::from(host.v4) * 4]
    }

    /// Returns the contiguous AAAA RDATA of an instance.
    pub fn host_v6(&self, host: HostIndex) -> &[u8] {
        let host = &self.hosts[host as usize];
        &self.wire[host.at as usize + usize::from(host.srv) + usize::from(host.v4) * 4..][..usize::from(host.v6) * 16]
    }

    /// Reports whether the instance announces that address.
    pub fn host_has(&self, host: HostIndex, address: &IpAddr) -> bool {
        match address {
            IpAddr::V4(ip) => self.host_v4(host).chunks_exact(4).any(|octets| octets == ip.octets()),
            IpAddr::V6(ip) => self.host_v6(host).chunks_exact(16).any(|octets| octets == ip.octets()),
        }
    }

    /// Returns the TXT RDATA of an instance; empty without `meta`.
    pub fn host_txt(&self, host: HostIndex) -> &[u8] {
        let host = &self.hosts[host as usize];
        let addresses = usize::from(host.v4) * 4 + usize::from(host.v6) * 16;
        &self.wire[host.at as usize + usize::from(host.srv) + addresses..][..host.txt as usize]
    }

    /// Returns the TTL of an instance in seconds.
    pub fn host_ttl(&self, host: HostIndex) -> u32 {
        self.hosts[host as usize].ttl
    }

    /// Returns the SRV weight of an instance.
    pub fn host_weight(&self, host: HostIndex) -> u16 {
        self.hosts[host as usize].weight
    }

    /// Returns the SRV priority of an instance; clients try the lowest first (RFC 2782).
    pub fn host_priority(&self, host: HostIndex) -> u16 {
        let srv = self.srv_parts(host);
        u16::from_be_bytes([srv[0], srv[1]])
    }

    /// Returns the name of the service, which is the last label of the first instance's SRV target.
    pub fn name(&self) -> &[u8] {
        let Some(host) = self.hosts.first() else { return &[] };
        let at = host.at as usize + SRV_FIELDS + 1 + self.id(host).len();
        &self.wire[at + 1..][..usize::from(self.wire[at])]
    }

    /// Returns the id of an instance.
    pub fn host_id(&self, host: HostIndex) -> &[u8] {
        self.id(&self.hosts[host as usize])
    }

    fn id(&self, host: &Host) -> &[u8] {
        let at = host.at as usize + SRV_FIELDS;
        &self.wire[at + 1..][..usize::from(self.wire[at])]
    }
}

impl NamedPort {
    /// Returns the name of the port.
    pub fn name(&self) -> &Label {
        &self.name
    }

    /// Returns the transport of the port.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }
}
