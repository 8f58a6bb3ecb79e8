//! Records of a service in zones with the scheme of Consul: the targets of its SRV records, and the instances of each
//! datacenter.
//!
//! They are built only if such a zone is configured. Addresses and sets of instances are those of the [`Service`].

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use foldhash::fast::RandomState;

use super::{
    super::{Settings, nearness::Nearness, node_names::is_answered},
    Builder, HostIndex, SRV_FIELDS, Service,
};
use crate::model::{
    alias_domain::is_consul_kind,
    catalog::{self, Catalog, CatalogEntry},
    name::Label,
    registered_name::{RESERVED_SERVICE, RegisteredName},
    service::Instance,
};

/// Label above the names of services.
pub const SERVICE: &[u8] = b"service";
/// Label above the names of nodes.
pub const NODE: &[u8] = RESERVED_SERVICE.as_bytes();
/// Label above the names of addresses.
pub const ADDRESS: &[u8] = b"addr";
/// Label after a datacenter in the longer form.
pub const DATACENTER: &[u8] = b"dc";

/// Records of a service in zones with the scheme of Consul.
#[derive(Debug)]
pub struct ConsulNames {
    /// SRV RDATA of all instances without the origin.
    wire: Box<[u8]>,
    /// Targets of the instances, in the order of the service.
    targets: Box<[Target]>,
    /// TTL of the addresses of nodes in seconds.
    ttl: u32,
    datacenters: Datacenters,
}

/// Instances by datacenter.
#[derive(Debug)]
enum Datacenters {
    /// All instances are in one.
    One(Label),
    /// Services of the instances in each datacenter, sorted by its name.
    Many(Box<[(Label, Service)]>),
}

/// Target of an instance's SRV record.
#[derive(Clone, Copy, Debug)]
struct Target {
    /// End of the RDATA in [`ConsulNames::wire`].
    end: u32,
    /// First instance with the same target.
    first: HostIndex,
    /// True for the name of the instance; false for that of a node or an address.
    is_instance: bool,
}

/// Name of an SRV target and its addresses.
pub struct TargetAddresses<'s> {
    /// Labels of the target, relative to the origin.
    pub labels: &'s [u8],
    /// First instance with the same target; the targets of two instances are equal if this is.
    pub first: HostIndex,
    /// Contiguous A RDATA.
    pub v4: &'s [u8],
    /// Contiguous AAAA RDATA.
    pub v6: &'s [u8],
    /// TTL of the addresses in seconds.
    pub ttl: u32,
}

/// Host on which an instance runs.
#[derive(Clone, Copy)]
struct Host<'c> {
    /// Datacenter of the agent that announces the instance.
    datacenter: &'c Label,
    /// Member or external node; `None`: DNS has no name for the host.
    node: Option<NamedNode<'c>>,
}

/// A node with a DNS name.
#[derive(Clone, Copy)]
struct NamedNode<'c> {
    name: &'c [u8],
    datacenter: &'c Label,
    addresses: &'c [IpAddr],
}

impl<'c> Host<'c> {
    /// Returns the host of an instance; `None`: its node is unknown.
    fn of(entry: &'c CatalogEntry, catalog: &'c Catalog) -> Option<Self> {
        let member = &*catalog.view().get(&entry.node)?.node;
        let node = match entry.announcement.instance.external.as_deref() {
            None => Some(NamedNode {
                name: member.name.as_bytes(),
                datacenter: &member.datacenter,
                addresses: &member.addresses,
            }),
            Some(name) => NamedNode::external(name, catalog),
        };
        Some(Self { datacenter: &member.datacenter, node })
    }
}

impl<'c> NamedNode<'c> {
    /// Returns the external node of that name, as its name leads to it: another agent may own it than the one that announces
    /// the instance.
    fn external(name: &RegisteredName, catalog: &'c Catalog) -> Option<Self> {
        let claim = catalog.external(name).filter(|claim| is_answered(claim))?;
        let datacenter = catalog.node(&claim.owner)?.place_of_external().datacenter;
        Some(Self { name: claim.node.name.as_bytes(), datacenter, addresses: &claim.node.addresses })
    }
}

impl Service {
    /// Builds the records of a service as [`new`](Self::new) does, with those for zones of the scheme of Consul.
    pub fn with_consul_names(
        name: &RegisteredName,
        service: &catalog::Service,
        catalog: &Catalog,
        settings: &Settings,
    ) -> Self {
        let instances: Vec<(&CatalogEntry, Option<Host<'_>>)> =
            service.instances().map(|entry| (entry, Host::of(entry, catalog))).collect();
        let mut by_datacenter: BTreeMap<&Label, Vec<(&CatalogEntry, Option<Host<'_>>)>> = BTreeMap::new();
        for (entry, host) in &instances {
            let Some(host) = host else { continue };
            by_datacenter.entry(host.datacenter).or_default().push((entry, Some(*host)));
        }
        let build = |instances: &[(&CatalogEntry, Option<Host<'_>>)], datacenters| {
            let entries: Vec<&CatalogEntry> = instances.iter().map(|(entry, _)| *entry).collect();
            let nearness = Nearness::new(service, &entries, catalog, settings);
            let mut service = Builder::new(name, entries, nearness, settings.ttl).finish();
            service.consul = Some(ConsulNames::new(name, &service, instances, datacenters, settings.ttl).into());
            service
        };
        let one = |datacenter: &Label| Datacenters::One(datacenter.clone());
        let datacenters = match by_datacenter.first_key_value() {
            Some((only, _)) if by_datacenter.len() == 1 => one(only),
            _ => {
                let subsets = by_datacenter.iter();
                Datacenters::Many(subsets.map(|(name, some)| ((*name).clone(), build(some, one(name)))).collect())
            }
        };
        build(&instances, datacenters)
    }

    /// Returns the service with the instances of a datacenter only; `None` if none is declared there.
    pub fn in_datacenter(&self, datacenter: &Label) -> Option<&Self> {
        match &self.consul.as_ref()?.datacenters {
            Datacenters::One(only) => (only == datacenter).then_some(self),
            Datacenters::Many(all) => {
                let at = all.binary_search_by(|(known, _)| known.cmp(datacenter)).ok()?;
                Some(&all[at].1)
            }
        }
    }

    /// Returns the datacenters of the instances, each with the service of its instances only.
    pub fn by_datacenter(&self) -> impl Iterator<Item = (&Label, &Self)> {
        let (one, many) = match self.consul.as_ref().map(|names| &names.datacenters) {
            Some(Datacenters::One(only)) => (Some((only, self)), &[][..]),
            Some(Datacenters::Many(many)) => (None, &many[..]),
            None => (None, &[][..]),
        };
        one.into_iter().chain(many.iter().map(|(datacenter, part)| (datacenter, part)))
    }

    /// Returns the labels of the name in the scheme of Consul that has this address of an instance: that of the service in its
    /// datacenter, or that of the instance if the name of the service leads to others only.
    pub fn consul_pointer(&self, host: HostIndex, address: &IpAddr) -> Vec<u8> {
        let id = self.host_id(host);
        let subset = self.by_datacenter().find(|(_, service)| service.host(id).is_some());
        let (service, datacenter) = subset.map_or((self, None), |(name, service)| (service, Some(name)));
        let set = service.apex();
        let leads_here = match address {
            IpAddr::V4(ip) => set.v4.iter().any(|known| known.octets == ip.octets()),
            IpAddr::V6(ip) => set.v6.iter().any(|known| known.octets == ip.octets()),
        };
        let name = self.name();
        if leads_here { labels([name, SERVICE], datacenter) } else { labels([id, name, SERVICE], datacenter) }
    }

    /// Returns the SRV RDATA of an instance without the origin in the scheme of Consul, with port 0 if it has no default port.
    pub fn consul_srv(&self, host: HostIndex) -> &[u8] {
        self.consul.as_ref().map_or_else(|| self.srv_parts(host), |names| names.srv(host))
    }

    /// Returns the SRV target of an instance in the scheme of Consul.
    pub fn consul_target(&self, host: HostIndex) -> TargetAddresses<'_> {
        let target = self.consul.as_ref().map(|names| (names.targets[host as usize], names.ttl));
        let (first, ttl) = match target {
            Some((Target { first, is_instance: false, .. }, ttl)) => (first, ttl),
            _ => (host, self.host_ttl(host)),
        };
        let labels = &self.consul_srv(host)[SRV_FIELDS..];
        TargetAddresses { labels, first, v4: self.host_v4(host), v6: self.host_v6(host), ttl }
    }
}

impl ConsulNames {
    fn new(
        name: &RegisteredName,
        service: &Service,
        instances: &[(&CatalogEntry, Option<Host<'_>>)],
        datacenters: Datacenters,
        ttl: u32,
    ) -> Self {
        let mut wire = Vec::new();
        let mut targets = Vec::with_capacity(instances.len());
        // First instance and used ports of each shared target.
        let mut used: HashMap<Vec<u8>, (HostIndex, Vec<u16>), RandomState> = HashMap::default();
        for (index, (entry, host)) in (0..).zip(instances) {
            let instance = &*entry.announcement.instance;
            let shared = shared_target(instance, *host);
            let ports = || instance.port.into_iter().chain(instance.ports.iter().map(|(_, port)| *port));
            let first = shared.as_ref().and_then(|target| {
                let (first, taken) = used.entry(target.clone()).or_insert((index, Vec::new()));
                // Two records with one target and port would be one record (RFC 2181 §5).
                let is_free = !ports().any(|port| taken.contains(&port));
                taken.extend(ports());
                is_free.then_some(*first)
            });
            wire.extend_from_slice(&service.srv_parts(index)[..SRV_FIELDS]);
            match (shared, first) {
                (Some(target), Some(_)) => wire.extend(target),
                _ => wire.extend(instance_labels(instance, name, *host)),
            }
            targets.push(Target {
                end: wire.len() as u32,
                first: first.unwrap_or(index),
                is_instance: first.is_none(),
            });
        }
        Self { wire: wire.into(), targets: targets.into(), ttl, datacenters }
    }

    /// Returns the memory of the records in octets.
    pub fn size(&self) -> usize {
        let parts = match &self.datacenters {
            Datacenters::One(_) => 0,
            Datacenters::Many(many) => many.iter().map(|(_, part)| part.size()).sum(),
        };
        self.wire.len() + size_of_val(&*self.targets) + parts
    }

    fn srv(&self, host: HostIndex) -> &[u8] {
        let at = host as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.targets[before].end);
        &self.wire[start as usize..self.targets[at].end as usize]
    }
}

/// Returns the name of the node if it has the addresses of the instance, else that of the instance's only address. Other
/// instances may share it.
fn shared_target(instance: &Instance, host: Option<Host<'_>>) -> Option<Vec<u8>> {
    let addresses = &instance.addresses;
    if let Some(node) = host.and_then(|host| host.node)
        && node.addresses.len() == addresses.len()
        && addresses.iter().all(|address| node.addresses.contains(address))
    {
        return Some(node_labels(node.name, node.datacenter));
    }
    let mut addresses = addresses.iter();
    match (addresses.next(), addresses.next()) {
        (Some(address), None) => {
            let hex = hex(*address);
            Some(labels([hex.as_bytes(), ADDRESS], host.map(|host| host.datacenter)))
        }
        _ => None,
    }
}

fn instance_labels(instance: &Instance, service: &RegisteredName, host: Option<Host<'_>>) -> Vec<u8> {
    let above = [instance.key.id.as_bytes(), service.as_bytes(), SERVICE];
    labels(above, host.map(|host| host.datacenter))
}

/// Returns the labels of a node's name, relative to the origin.
pub fn node_labels(node: &[u8], datacenter: &Label) -> Vec<u8> {
    labels([node, NODE], Some(datacenter))
}

/// Returns labels in wire form, followed by that of the datacenter if names may have it.
fn labels<const N: usize>(labels: [&[u8]; N], datacenter: Option<&Label>) -> Vec<u8> {
    let datacenter = datacenter.map(Label::as_bytes).filter(|label| !is_consul_kind(label));
    let mut wire = Vec::new();
    for label in labels.into_iter().chain(datacenter) {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label);
    }
    wire
}

/// Returns the label of an address: its octets in hexadecimal.
pub fn hex(address: IpAddr) -> String {
    match address {
        IpAddr::V4(ip) => format!("{:08x}", ip.to_bits()),
        IpAddr::V6(ip) => format!("{:032x}", ip.to_bits()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::alias_domain::address_of_label;

    #[test]
    fn labels_of_addresses_are_read_back() {
        for (text, expected) in [("10.0.0.7", "0a000007"), ("fd00::7", "fd000000000000000000000000000007")] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(hex(address), expected);
            assert_eq!(address_of_label(expected.as_bytes()), Some(address));
        }
        for text in ["", "0a00000", "+a000007", "0a00000g", "0a0000070", "fd00000000000000000000000000000"] {
            assert_eq!(address_of_label(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn datacenter_with_the_label_of_a_kind_is_left_out() {
        let label = |text| Label::parse(text).unwrap();
        assert_eq!(node_labels(b"a", &label("dc1")), b"\x01a\x04node\x03dc1");
        assert_eq!(node_labels(b"a", &label("service")), b"\x01a\x04node");
    }
}
