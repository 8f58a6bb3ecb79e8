//! Building of a [`Service`] from the instances of the catalog.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{Few, Host, HostIndex, MAX_STALE_TTL, NamedPort, Protocols, Remark, Service, Set, Weighted};
use crate::{
    dns::zone::nearness::Nearness,
    model::{
        announcement::InstanceState,
        catalog::{CatalogEntry, Freshness},
        name::Label,
        nearest::Tier,
        reason,
        registered_name::RegisteredName,
        service::{Instance, Protocol},
    },
};

/// Builder of a [`Service`].
pub(super) struct Builder<'c> {
    name: &'c RegisteredName,
    /// Instances in the order of [`Service::hosts`].
    pub(super) instances: Vec<&'c CatalogEntry>,
    /// Texts of [`Remark::Stale`] by unreachable node.
    stale: BTreeMap<&'c Label, Arc<str>>,
    /// Selection of near instances; `None`: all healthy instances are answered.
    nearness: Option<Nearness>,
    default_ttl: u32,
}

impl<'c> Builder<'c> {
    pub(super) fn new(
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

    pub(super) fn finish(&self) -> Service {
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
            written_names: self.written_names(),
            bindings: self.bindings(),
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

    pub(super) fn answered(&self, members: &[HostIndex]) -> impl Iterator<Item = (HostIndex, &'c CatalogEntry)> {
        self.entries(members).filter(|(_, entry)| entry.is_answered())
    }

    /// Returns the lowest TTL of the answered instances, or of all if none is answered.
    pub(super) fn least_ttl(&self, members: &[HostIndex]) -> u32 {
        let answered = self.answered(members).map(|(_, entry)| self.ttl(entry)).min();
        let all = self.entries(members).map(|(_, entry)| self.ttl(entry)).min();
        answered.or(all).unwrap_or(self.default_ttl)
    }

    /// Returns the instances of the tier that is answered among the members of a name.
    pub(super) fn nearest<'m>(&self, members: &'m [HostIndex]) -> (Cow<'m, [HostIndex]>, Option<Tier>) {
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
            (tcp, udp) => {
                Protocols::Both { tcp: Box::new(self.set(&tcp)), udp: Box::new(self.set(&udp)), udp_hosts: udp.into() }
            }
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

    pub(super) fn remark(&self, members: &[HostIndex]) -> Option<Remark> {
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

pub(super) fn instance(entry: &CatalogEntry) -> &Instance {
    &entry.announcement.instance
}

fn state(entry: &CatalogEntry) -> &InstanceState {
    &entry.announcement.state
}

fn is_stale(entry: &CatalogEntry) -> bool {
    entry.freshness == Freshness::LastKnown
}
