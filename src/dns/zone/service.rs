//! One service's answers, ready to be copied into packets.
//!
//! A service is rebuilt whole when one of its instances changes, and no other service is touched. Nothing here depends
//! on the zone's name, so a domain and its aliases share it. Layout: what an instance contributes to an answer stands
//! back to back in one block of octets ([`Service::wire`]); the names below the service are lists of indices into it.
//! How many services there are costs a query nothing; how many instances
//! one service has does, since their weights are added up to draw from them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use smallvec::SmallVec;

use crate::model::{
    announcement::InstanceState,
    catalog::{self, CatalogEntry, Freshness},
    name::Label,
    reason,
    service::{Instance, Protocol},
};

/// The index of an instance in [`Service::hosts`].
pub type HostIndex = u32;

/// The longest TTL, in seconds, of what is answered of a node out of reach.
///
/// RFC 8767 §4 advises 30 s for stale data, to spare a resolver the asking of servers that do not answer. Here asking
/// again costs next to nothing, and a node out of reach is back, or gone, within seconds: its records should not outlive
/// that in anybody's cache. Not 0, so that a burst of the same question is still one question.
pub const MAX_STALE_TTL: u32 = 1;

/// As many as most services have stand beside the rest of the service: one wait for memory less, where it is not in the
/// processor's cache.
pub type Few<T> = SmallVec<[T; 4]>;

/// Everything at and below `SERVICE.ZONE`.
#[derive(Debug)]
pub struct Service {
    wire: Box<[u8]>,
    /// All that are declared, sorted by id.
    hosts: Box<[Host]>,
    /// Sorted by index; hosts of which nothing is to be said, as of most, have no entry.
    remarks: Box<[(HostIndex, Remark)]>,
    /// `SERVICE`
    apex: Set,
    /// `_SERVICE._tcp` and `_SERVICE._udp`
    protocols: Protocols,
    /// `TAG.SERVICE` and `_SERVICE._TAG`, sorted by tag.
    tags: Box<[(Label, Set)]>,
    /// `_PORT._tcp.SERVICE`, sorted by name, then transport.
    ports: Box<[NamedPort]>,
}

/// Which instances a name stands for, by record type.
#[derive(Debug, PartialEq, Eq)]
pub struct Set {
    /// Those that are answered and have a port.
    pub srv: Few<HostIndex>,
    /// The A RRset: no address twice (RFC 2181 §5), each with the weight of all instances that have it.
    pub v4: Few<Weighted<4>>,
    /// The AAAA RRset, likewise.
    pub v6: Box<[Weighted<16>]>,
    /// Seconds: the least of its instances'.
    pub ttl: u32,
    /// What is to be said beside the records.
    pub remark: Option<Remark>,
}

/// What an Extended DNS Error says of instances. They are either not answered or as last known: of those that are not
/// answered, it matters to nobody how current that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// None of them is healthy, and why.
    NotReady(Box<str>),
    /// Some that are answered are as last known, and of which nodes. The instances of one node share the text.
    Stale(Arc<str>),
}

/// An address and its share of the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weighted<const N: usize> {
    /// The address, as RDATA.
    pub octets: [u8; N],
    /// The SRV weight.
    pub weight: u16,
}

/// A named port of the service.
#[derive(Debug, PartialEq, Eq)]
pub struct NamedPort {
    name: Label,
    protocol: Protocol,
    /// Those that are answered, each with its port of that name.
    pub srv: Box<[(HostIndex, u16)]>,
    /// Seconds.
    pub ttl: u32,
    /// As [`Set::remark`].
    pub remark: Option<Remark>,
}

/// Most services speak one transport: then its set is the apex's.
#[derive(Debug)]
enum Protocols {
    Only(Protocol),
    Both { tcp: Box<Set>, udp: Box<Set> },
}

/// One instance: where its parts stand in [`Service::wire`], in this order.
///
/// SRV RDATA up to the origin (priority, weight, port, `INSTANCE`, `SERVICE`); A RDATA; AAAA RDATA; TXT RDATA.
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

/// The fixed fields of SRV RDATA: priority, weight, port (RFC 2782).
pub const SRV_FIELDS: usize = 6;

impl Service {
    /// Builds the answers; instances without a TTL of their own get `default_ttl` (seconds).
    pub fn new(name: &Label, service: &catalog::Service, default_ttl: u32) -> Self {
        Builder::new(name, service, default_ttl).finish()
    }

    /// The service's own name.
    pub fn apex(&self) -> &Set {
        &self.apex
    }

    /// `_SERVICE._PROTOCOL`, while an instance with that transport is declared.
    pub fn protocol(&self, protocol: Protocol) -> Option<&Set> {
        match (&self.protocols, protocol) {
            (Protocols::Only(only), asked) => (*only == asked).then_some(&self.apex),
            (Protocols::Both { tcp, .. }, Protocol::Tcp) => Some(tcp),
            (Protocols::Both { udp, .. }, Protocol::Udp) => Some(udp),
        }
    }

    /// `TAG.SERVICE`, while an instance with that tag is declared.
    pub fn tag(&self, tag: &[u8]) -> Option<&Set> {
        let at = self.tags.binary_search_by(|(label, _)| label.as_bytes().cmp(tag)).ok()?;
        Some(&self.tags[at].1)
    }

    /// `_PORT._PROTOCOL.SERVICE`, while an instance with such a port is declared.
    pub fn port(&self, name: &[u8], protocol: Protocol) -> Option<&NamedPort> {
        let key = (name, protocol as u8);
        let at = self.ports.binary_search_by(|p| (p.name.as_bytes(), p.protocol as u8).cmp(&key)).ok()?;
        Some(&self.ports[at])
    }

    /// Whether a port of that transport has a name: then `_PROTOCOL.SERVICE` exists, empty (RFC 8020).
    pub fn has_ports(&self, protocol: Protocol) -> bool {
        self.ports.iter().any(|port| port.protocol == protocol)
    }

    /// How many instances are declared.
    pub fn declared(&self) -> usize {
        self.hosts.len()
    }

    /// The declared instance of that id.
    pub fn host(&self, id: &[u8]) -> Option<HostIndex> {
        self.hosts.binary_search_by(|host| self.id(host).cmp(id)).ok().map(|at| at as HostIndex)
    }

    /// What is to be said of the instance. [`Remark::NotReady`]: it is not answered.
    pub fn remark(&self, host: HostIndex) -> Option<&Remark> {
        let at = self.remarks.binary_search_by_key(&host, |(index, _)| *index).ok()?;
        Some(&self.remarks[at].1)
    }

    /// The SRV RDATA of an instance up to the origin; `None` where it has no default port.
    pub fn host_srv(&self, host: HostIndex) -> Option<&[u8]> {
        let srv = self.srv_parts(host);
        (srv[4..6] != [0, 0]).then_some(srv)
    }

    /// As [`Self::host_srv`], the port 0 where it has none: named ports replace it.
    pub fn srv_parts(&self, host: HostIndex) -> &[u8] {
        let host = &self.hosts[host as usize];
        &self.wire[host.at as usize..][..usize::from(host.srv)]
    }

    /// The A RDATA of an instance, back to back.
    pub fn host_v4(&self, host: HostIndex) -> &[u8] {
        let host = &self.hosts[host as usize];
        &self.wire[host.at as usize + usize::from(host.srv)..][..usize::from(host.v4) * 4]
    }

    /// The AAAA RDATA of an instance, back to back.
    pub fn host_v6(&self, host: HostIndex) -> &[u8] {
        let host = &self.hosts[host as usize];
        &self.wire[host.at as usize + usize::from(host.srv) + usize::from(host.v4) * 4..][..usize::from(host.v6) * 16]
    }

    /// Whether the instance announces that address.
    pub fn host_has(&self, host: HostIndex, address: &IpAddr) -> bool {
        match address {
            IpAddr::V4(ip) => self.host_v4(host).chunks_exact(4).any(|octets| octets == ip.octets()),
            IpAddr::V6(ip) => self.host_v6(host).chunks_exact(16).any(|octets| octets == ip.octets()),
        }
    }

    /// The TXT RDATA of an instance; empty where it has no `meta`.
    pub fn host_txt(&self, host: HostIndex) -> &[u8] {
        let host = &self.hosts[host as usize];
        let addresses = usize::from(host.v4) * 4 + usize::from(host.v6) * 16;
        &self.wire[host.at as usize + usize::from(host.srv) + addresses..][..host.txt as usize]
    }

    /// Seconds.
    pub fn host_ttl(&self, host: HostIndex) -> u32 {
        self.hosts[host as usize].ttl
    }

    /// The share of the traffic.
    pub fn host_weight(&self, host: HostIndex) -> u16 {
        self.hosts[host as usize].weight
    }

    /// RFC 2782: lower is tried first.
    pub fn host_priority(&self, host: HostIndex) -> u16 {
        let srv = self.srv_parts(host);
        u16::from_be_bytes([srv[0], srv[1]])
    }

    /// The id of an instance.
    pub fn host_id(&self, host: HostIndex) -> &[u8] {
        self.id(&self.hosts[host as usize])
    }

    fn id(&self, host: &Host) -> &[u8] {
        let at = host.at as usize + SRV_FIELDS;
        &self.wire[at + 1..][..usize::from(self.wire[at])]
    }
}

/// Instances in the order of [`Service::hosts`].
struct Builder<'c> {
    name: &'c Label,
    instances: Vec<&'c CatalogEntry>,
    /// What is said of instances of one node out of reach.
    stale: BTreeMap<&'c Label, Arc<str>>,
    default_ttl: u32,
}

impl<'c> Builder<'c> {
    fn new(name: &'c Label, service: &'c catalog::Service, default_ttl: u32) -> Self {
        let instances: Vec<&CatalogEntry> = service.instances().collect();
        let nodes = instances.iter().filter(|entry| is_stale(entry)).map(|entry| &entry.node);
        let nodes: BTreeSet<&Label> = nodes.collect();
        let stale = nodes.into_iter().map(|node| (node, reason::out_of_reach(node, 0).into())).collect();
        Self { name, instances, stale, default_ttl }
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
        }
    }

    fn host(&self, entry: &CatalogEntry, wire: &mut Vec<u8>) -> Host {
        let (instance, at) = (instance(entry), wire.len());
        let weight = standing(entry).weight(instance.weight);
        for field in [instance.priority, weight, instance.port.unwrap_or(0)] {
            wire.extend(field.to_be_bytes());
        }
        for label in [&instance.key.id, self.name] {
            wire.push(label.as_bytes().len() as u8);
            wire.extend(label.as_bytes());
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
        for (key, value) in &instance.meta {
            // One character-string an entry; service files bound its length (RFC 1035 §3.3).
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

    /// The least TTL of those that are answered; of all where none is.
    fn least_ttl(&self, members: &[HostIndex]) -> u32 {
        let answered = self.answered(members).map(|(_, entry)| self.ttl(entry)).min();
        let all = self.entries(members).map(|(_, entry)| self.ttl(entry)).min();
        answered.or(all).unwrap_or(self.default_ttl)
    }

    fn set(&self, members: &[HostIndex]) -> Set {
        let mut v4 = BTreeMap::new();
        let mut v6 = BTreeMap::new();
        for (_, entry) in self.answered(members) {
            let instance = instance(entry);
            let weight = standing(entry).weight(instance.weight);
            for address in &instance.addresses {
                let total: &mut u16 = match address {
                    IpAddr::V4(ip) => v4.entry(ip.octets()).or_default(),
                    IpAddr::V6(ip) => v6.entry(ip.octets()).or_default(),
                };
                *total = total.saturating_add(weight);
            }
        }
        Set {
            srv: self.answered(members).filter(|(_, p)| instance(p).port.is_some()).map(|(at, _)| at).collect(),
            v4: v4.into_iter().map(|(octets, weight)| Weighted { octets, weight }).collect(),
            v6: v6.into_iter().map(|(octets, weight)| Weighted { octets, weight }).collect(),
            ttl: self.least_ttl(members),
            remark: self.remark(members),
        }
    }

    fn protocols(&self, all: &[HostIndex]) -> Protocols {
        let speaking = |protocol| -> Vec<HostIndex> {
            self.entries(all).filter(|(_, p)| instance(p).protocol == protocol).map(|(at, _)| at).collect()
        };
        match (speaking(Protocol::Tcp), speaking(Protocol::Udp)) {
            (_, udp) if udp.is_empty() => Protocols::Only(Protocol::Tcp),
            (tcp, _) if tcp.is_empty() => Protocols::Only(Protocol::Udp),
            (tcp, udp) => Protocols::Both { tcp: Box::new(self.set(&tcp)), udp: Box::new(self.set(&udp)) },
        }
    }

    fn tags(&self) -> Box<[(Label, Set)]> {
        let mut members: BTreeMap<Label, Vec<HostIndex>> = BTreeMap::new();
        for (at, entry) in self.instances.iter().enumerate() {
            // A tag that is no label has no name; it stays visible to those who list tags.
            for tag in instance(entry).tags.iter().filter_map(|tag| Label::parse(tag).ok()) {
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
            NamedPort {
                srv: self.answered(&hosts).filter_map(|(at, p)| Some((at, port_of(instance(p))?))).collect(),
                ttl: self.least_ttl(&hosts),
                remark: self.remark(&hosts),
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

fn standing(entry: &CatalogEntry) -> &InstanceState {
    &entry.announcement.standing
}

fn is_stale(entry: &CatalogEntry) -> bool {
    entry.freshness == Freshness::LastKnown
}
