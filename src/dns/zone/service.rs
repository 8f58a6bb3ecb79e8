//! Records of one service, precomputed in wire form.
//!
//! A change of an instance rebuilds its service and no other. The records do not depend on the name of the zone, so that a
//! domain and its aliases share them. The RDATA of all instances is contiguous in one block of octets ([`Service::wire`]); the
//! names below the service are lists of indices into it. The cost of a query does not depend on the number of services. It
//! grows with the number of the service's instances, whose weights are summed.

pub mod consul;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use smallvec::SmallVec;

use self::consul::ConsulNames;
use super::{Settings, nearness::Nearness};
use crate::model::{
    announcement::InstanceState,
    catalog::{self, Catalog, CatalogEntry, Freshness},
    name::Label,
    nearest::Tier,
    reason,
    registered_name::RegisteredName,
    service::{Instance, Protocol},
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
    Both { tcp: Box<Set>, udp: Box<Set> },
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

    /// Returns the memory of the records in octets, without names of the scheme of Consul.
    pub fn size(&self) -> usize {
        let ports: usize = self.ports.iter().map(|port| size_of_val(&*port.srv)).sum();
        let tags: usize =
            self.tags.iter().map(|(_, set)| size_of::<Set>() + set.srv.len() * size_of::<HostIndex>()).sum();
        self.wire.len() + size_of_val(&*self.hosts) + ports + tags
    }

    /// Reports whether the transport has named ports, which make `_PROTOCOL.SERVICE` an empty non-terminal (RFC 8020).
    pub fn has_ports(&self, protocol: Protocol) -> bool {
        self.ports.iter().any(|port| port.protocol == protocol)
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

/// Builder of a [`Service`].
struct Builder<'c> {
    name: &'c RegisteredName,
    /// Instances in the order of [`Service::hosts`].
    instances: Vec<&'c CatalogEntry>,
    /// Texts of [`Remark::Stale`] by unreachable node.
    stale: BTreeMap<&'c Label, Arc<str>>,
    /// Selection of near instances; `None`: all healthy instances are answered.
    nearness: Option<Nearness>,
    default_ttl: u32,
}

impl<'c> Builder<'c> {
    fn new(
        name: &'c RegisteredName,
        instances: Vec<&'c CatalogEntry>,
        nearness: Option<Nearness>,
        default_ttl: u32,
    ) -> Self {
        let nodes = instances.iter().filter(|entry| is_stale(entry)).map(|entry| &entry.node);
        let nodes: BTreeSet<&Label> = nodes.collect();
        let stale = nodes.into_iter().map(|node| (node, reason::out_of_reach(node, 0).into())).collect();
        Self { name, instances, stale, nearness, default_ttl }
    }

    fn finish(&self) -> Service {
        let mut wire = Vec::new();
        let hosts = self.instances.iter().map(|entry| self.host(entry, &mut wire)).collect();
        let all: Vec<HostIndex> = (0..self.instances.len() as HostIndex).collect();
        let remarks = all.iter().filter_map(|&at| Some((at, self.remark(&[at])?))).collect();
        Service {
            wire: wire.into(),
            hosts,
            remarks,
            apex: self.set(&all),
            protocols: self.protocols(&all),
            tags: self.tags(),
            ports: self.ports(),
            consul: None,
        }
    }

    fn host(&self, entry: &CatalogEntry, wire: &mut Vec<u8>) -> Host {
        let (instance, at) = (instance(entry), wire.len());
        let weight = state(entry).weight(instance.weight);
        for field in [instance.priority, weight, instance.port.unwrap_or(0)] {
            wire.extend(field.to_be_bytes());
        }
        for label in [instance.key.id.as_bytes(), self.name.as_bytes()] {
            wire.push(label.len() as u8);
            wire.extend(label);
        }
        let srv = wire.len() - at;
        let (mut v4, mut v6) = (0_u16, 0_u16);
        for address in &instance.addresses {
            if let IpAddr::V4(ip) = address {
                wire.extend(ip.octets());
                v4 += 1;
            }
        }
        for address in &instance.addresses {
            if let IpAddr::V6(ip) = address {
                wire.extend(ip.octets());
                v6 += 1;
            }
        }
        let txt_at = wire.len();
        for (key, value) in instance.meta.iter() {
            // One character-string per entry; service files bound its length (RFC 1035 §3.3).
            wire.push((key.len() + 1 + value.len()).min(255) as u8);
            wire.extend(key.bytes().chain([b'=']).chain(value.bytes()).take(255));
        }
        Host { at: at as u32, ttl: self.ttl(entry), txt: (wire.len() - txt_at) as u32, weight, srv: srv as u8, v4, v6 }
    }

    fn ttl(&self, entry: &CatalogEntry) -> u32 {
        let ttl = instance(entry).ttl.unwrap_or(self.default_ttl);
        if is_stale(entry) { ttl.min(MAX_STALE_TTL) } else { ttl }
    }

    fn entries(&self, members: &[HostIndex]) -> impl Iterator<Item = (HostIndex, &'c CatalogEntry)> {
        members.iter().map(|&at| (at, self.instances[at as usize]))
    }

    fn answered(&self, members: &[HostIndex]) -> impl Iterator<Item = (HostIndex, &'c CatalogEntry)> {
        self.entries(members).filter(|(_, entry)| entry.is_answered())
    }

    /// Returns the lowest TTL of the answered instances, or of all if none is answered.
    fn least_ttl(&self, members: &[HostIndex]) -> u32 {
        let answered = self.answered(members).map(|(_, entry)| self.ttl(entry)).min();
        let all = self.entries(members).map(|(_, entry)| self.ttl(entry)).min();
        answered.or(all).unwrap_or(self.default_ttl)
    }

    /// Returns the instances of the tier that is answered among the members of a name.
    fn nearest<'m>(&self, members: &'m [HostIndex]) -> (Cow<'m, [HostIndex]>, Option<Tier>) {
        let answered = self.nearness.as_ref().and_then(|nearness| nearness.answered(&self.instances, members));
        match answered {
            Some((tier, near)) => (near.into(), Some(tier)),
            None => (members.into(), None),
        }
    }

    fn set(&self, members: &[HostIndex]) -> Set {
        let (members, tier) = self.nearest(members);
        let members = &*members;
        let mut v4 = BTreeMap::new();
        let mut v6 = BTreeMap::new();
        for (_, entry) in self.answered(members) {
            let instance = instance(entry);
            let weight = state(entry).weight(instance.weight);
            for address in &instance.addresses {
                let total: &mut u16 = match address {
                    IpAddr::V4(ip) => v4.entry(ip.octets()).or_default(),
                    IpAddr::V6(ip) => v6.entry(ip.octets()).or_default(),
                };
                *total = total.saturating_add(weight);
            }
        }
        // Collecting a filtered list leaves spare capacity of up to its length.
        let mut srv: Few<HostIndex> =
            self.answered(members).filter(|(_, p)| instance(p).port.is_some()).map(|(at, _)| at).collect();
        srv.shrink_to_fit();
        let mut v4: Few<Weighted<4>> = v4.into_iter().map(|(octets, weight)| Weighted { octets, weight }).collect();
        v4.shrink_to_fit();
        Set {
            srv,
            v4,
            v6: v6.into_iter().map(|(octets, weight)| Weighted { octets, weight }).collect(),
            ttl: self.least_ttl(members),
            remark: self.remark(members),
            tier,
        }
    }

    fn protocols(&self, all: &[HostIndex]) -> Protocols {
        let with_protocol = |protocol| -> Vec<HostIndex> {
            self.entries(all).filter(|(_, p)| instance(p).protocol == protocol).map(|(at, _)| at).collect()
        };
        match (with_protocol(Protocol::Tcp), with_protocol(Protocol::Udp)) {
            (_, udp) if udp.is_empty() => Protocols::Only(Protocol::Tcp),
            (tcp, _) if tcp.is_empty() => Protocols::Only(Protocol::Udp),
            (tcp, udp) => Protocols::Both { tcp: Box::new(self.set(&tcp)), udp: Box::new(self.set(&udp)) },
        }
    }

    fn tags(&self) -> Box<[(RegisteredName, Set)]> {
        let mut members: BTreeMap<RegisteredName, Vec<HostIndex>> = BTreeMap::new();
        for (at, entry) in self.instances.iter().enumerate() {
            // A tag that is no label of a DNS name has none; the HTTP API still lists it.
            let tags = instance(entry).tags.iter().filter_map(|tag| RegisteredName::parse(tag).ok());
            for tag in tags.filter(|tag| tag.tag_label().is_ok()) {
                let hosts = members.entry(tag).or_default();
                if hosts.last() != Some(&(at as HostIndex)) {
                    hosts.push(at as HostIndex);
                }
            }
        }
        members.into_iter().map(|(tag, hosts)| (tag, self.set(&hosts))).collect()
    }

    fn ports(&self) -> Box<[NamedPort]> {
        let mut members: BTreeMap<(Label, u8), (Protocol, Vec<HostIndex>)> = BTreeMap::new();
        for (at, entry) in self.instances.iter().enumerate() {
            let instance = instance(entry);
            for (name, _) in &instance.ports {
                let key = (name.clone(), instance.protocol as u8);
                members.entry(key).or_insert((instance.protocol, Vec::new())).1.push(at as HostIndex);
            }
        }
        let named = |((name, _), (protocol, hosts)): ((Label, u8), (Protocol, Vec<HostIndex>))| {
            let port_of = |instance: &Instance| instance.ports.iter().find(|(n, _)| *n == name).map(|(_, port)| *port);
            let (hosts, tier) = self.nearest(&hosts);
            NamedPort {
                srv: self.answered(&hosts).filter_map(|(at, p)| Some((at, port_of(instance(p))?))).collect(),
                ttl: self.least_ttl(&hosts),
                remark: self.remark(&hosts),
                tier,
                name,
                protocol,
            }
        };
        members.into_iter().map(named).collect()
    }

    fn remark(&self, members: &[HostIndex]) -> Option<Remark> {
        if self.answered(members).next().is_none() {
            return Some(Remark::NotReady(reason::none_answered(self.entries(members).map(|(_, p)| p)).into()));
        }
        if self.stale.is_empty() {
            return None;
        }
        let stale = self.answered(members).filter(|(_, entry)| is_stale(entry));
        let nodes: BTreeSet<&Label> = stale.map(|(_, entry)| &entry.node).collect();
        let first = nodes.first()?;
        let text = match nodes.len() - 1 {
            0 => self.stale.get(first).cloned(),
            more => Some(reason::out_of_reach(first, more).into()),
        };
        text.map(Remark::Stale)
    }
}

fn instance(entry: &CatalogEntry) -> &Instance {
    &entry.announcement.instance
}

fn state(entry: &CatalogEntry) -> &InstanceState {
    &entry.announcement.state
}

fn is_stale(entry: &CatalogEntry) -> bool {
    entry.freshness == Freshness::LastKnown
}
