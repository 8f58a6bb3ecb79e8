//! Zone data as one immutable snapshot.
//!
//! [`Tables`] uses persistent maps: a clone increments a few reference counts, and an update of a clone copies only the changed
//! paths. One task owns the newest snapshot and publishes clones. DNS workers load a clone for each packet or batch without
//! blocking.

pub mod generated_part;
mod generated_soa;
mod nearness;
mod node_names;
pub mod presigned;
pub mod reverse;
pub mod rrset;
pub mod serial;
pub mod service;
pub mod signature_validity;
pub mod signing;
pub mod static_names;
pub mod why_records;
pub mod zone_problems;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    ops::RangeInclusive,
    sync::Arc,
};

use foldhash::fast::RandomState;

use self::{
    generated_soa::live_soa,
    node_names::NodeNames,
    rrset::{RRset, Rdata},
    service::{Service, consul::node_labels},
    static_names::{Kind, Soa, StaticNames, Zone},
    why_records::Reasons,
};
use super::{
    dnssec::zone_keys::SignedZones,
    message::{codes::rtype, query::LookupName},
};
use crate::{
    model::{
        alias_domain::{AliasDomain, NameScheme},
        announcement::Node,
        catalog::{Addresses, Catalog, Map, Touched},
        name::{Label, Name},
        nearest::{Place, Policy},
        registered_name::{RESERVED_SERVICE, RegisteredName},
        service::InstanceKey,
        zone::{Source, ZoneFile},
    },
    parallel,
};

/// Configuration of the tables.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node, which is the first name server of the zone.
    pub node: Label,
    /// Datacenter of this node.
    pub datacenter: Label,
    /// The discovery zone.
    pub domain: Name,
    /// Alias domains.
    pub aliases: Vec<AliasDomain>,
    /// Zone of the targets of PTR records: the discovery zone or an alias domain.
    pub ptr_domain: Name,
    /// Zone of this node, if it has one.
    pub zone: Option<Label>,
    /// Default policy of services.
    pub nearest: Policy,
    /// Default TTL in seconds.
    pub ttl: u32,
    /// SOA minimum in seconds.
    pub negative_ttl: u32,
}

impl Settings {
    fn place(&self) -> Place<'_> {
        Place { datacenter: &self.datacenter, zone: self.zone.as_ref() }
    }
}

/// Maximum number of name servers at the apex, so that NS records and their glue fit one packet.
pub const MAX_NAME_SERVERS: usize = 8;

/// Number of changed services for each thread that builds their records: some milliseconds of work.
const SERVICES_PER_THREAD: usize = 4_000;

/// A snapshot of all zones.
#[derive(Clone, Debug)]
pub struct Tables {
    settings: Arc<Settings>,
    zones: Arc<Zones>,
    services: Map<RegisteredName, Arc<Service>>,
    /// Services with an instance that is not plainly answered.
    reasons: Map<RegisteredName, Arc<Reasons>>,
    nodes: Map<Label, Arc<NodeNames>>,
    external: Map<RegisteredName, Arc<NodeNames>>,
    name_servers: NameServers,
    /// Datacenters of all nodes, gone ones included.
    datacenters: Arc<BTreeSet<Label>>,
    addresses: Addresses,
    node_addresses: Arc<BTreeMap<IpAddr, RegisteredName>>,
    serial: u32,
    keys: Arc<SignedZones>,
}

/// NS RRset of the zones with live names; empty while no node is known.
#[derive(Clone, Debug, Default)]
struct NameServers {
    /// With the names of the discovery zone.
    own: Arc<[RRset]>,
    /// With the names of Consul.
    consul: Arc<[RRset]>,
}

#[derive(Clone, Debug)]
struct Zones {
    by_origin: HashMap<Name, Zone, RandomState>,
    /// Bit set of origin lengths: bit `n` is set if an origin has `n` labels.
    depths: u128,
}

impl Settings {
    /// Returns settings without aliases, with the default TTLs of the configuration.
    pub fn new(node: Label, datacenter: Label, domain: Name) -> Self {
        Self {
            node,
            datacenter,
            ptr_domain: domain.clone(),
            domain,
            aliases: Vec::new(),
            zone: None,
            nearest: Policy::default(),
            ttl: 5,
            negative_ttl: 1,
        }
    }

    /// Returns the zones with names of services and nodes, each with the scheme of the names; the discovery zone first.
    fn live_zones(&self) -> impl Iterator<Item = (&Name, NameScheme)> {
        let aliases = self.aliases.iter().map(|alias| (&alias.domain, alias.scheme));
        std::iter::once((&self.domain, NameScheme::Muster)).chain(aliases)
    }

    fn has_consul_names(&self) -> bool {
        self.aliases.iter().any(|alias| alias.scheme == NameScheme::Consul)
    }
}

impl Tables {
    /// Returns tables of an empty discovery zone and its aliases.
    pub fn new(settings: Settings) -> Self {
        let settings = Arc::new(settings);
        Self {
            zones: Arc::new(Zones::new(&settings, &[], |_| None)),
            settings,
            services: Map::default(),
            reasons: Map::default(),
            nodes: Map::default(),
            external: Map::default(),
            name_servers: NameServers::default(),
            datacenters: Arc::default(),
            addresses: Addresses::default(),
            node_addresses: Arc::default(),
            serial: 0,
            keys: Arc::default(),
        }
    }

    /// Applies the touched services and nodes of the catalog.
    pub fn update(&mut self, catalog: &Catalog, touched: &Touched) {
        let (settings, has_consul_names) = (&*self.settings, self.settings.has_consul_names());
        let services = self.affected_services(catalog, touched);
        // Services without a DNS name are in the catalog only.
        let names: Vec<&RegisteredName> = services.into_iter().filter(|name| name.dns_label().is_ok()).collect();
        let built = parallel::map(&names, names.len() / SERVICES_PER_THREAD, |name| {
            let service = catalog.service(name)?;
            Some(Arc::new(match has_consul_names {
                false => Service::new(name, service, catalog, settings),
                true => Service::with_consul_names(name, service, catalog, settings),
            }))
        });
        for (name, service) in names.into_iter().zip(built) {
            match service {
                Some(service) => drop(self.services.insert(name.clone(), service)),
                None => drop(self.services.remove(name)),
            }
            self.update_reasons(catalog, name);
        }
        self.addresses = catalog.addresses().clone();
        for name in touched.external.iter().filter(|name| name.dns_label().is_ok()) {
            match catalog.external(name).and_then(|claim| NodeNames::of_external(catalog, claim, self.settings.ttl)) {
                Some(names) => drop(self.external.insert(name.clone(), Arc::new(names))),
                None => drop(self.external.remove(name)),
            }
        }
        if !touched.nodes.is_empty() {
            self.update_nodes(catalog, touched);
        }
        if !touched.nodes.is_empty() || !touched.external.is_empty() {
            self.update_node_addresses(catalog);
        }
    }

    /// Returns the services whose records follow from touched services and nodes: in the scheme of Consul, targets have the names
    /// of external nodes.
    pub fn affected_services<'t>(&self, catalog: &'t Catalog, touched: &'t Touched) -> BTreeSet<&'t RegisteredName> {
        let mut services: BTreeSet<&RegisteredName> = touched.services.iter().collect();
        if self.settings.has_consul_names() {
            let on_external = touched.external.iter().flat_map(|name| catalog.instances_on(name));
            services.extend(on_external.map(|(key, _)| &key.service));
        }
        services
    }

    /// Updates the `_why` texts of these services from their check reports; returns whether a text has changed.
    pub fn update_reports(&mut self, catalog: &Catalog, services: &BTreeSet<RegisteredName>) -> bool {
        // Services without an entry are plainly answered: their reports change no text.
        let explained = services.iter().filter(|name| self.reasons.contains_key(*name)).cloned().collect::<Vec<_>>();
        explained.iter().filter(|name| self.update_reasons(catalog, name)).count() > 0
    }

    fn update_reasons(&mut self, catalog: &Catalog, name: &RegisteredName) -> bool {
        let now = catalog.service(name).and_then(|service| Reasons::new(service));
        if self.reasons.get(name).map(|known| &**known) == now.as_ref() {
            return false;
        }
        match now {
            Some(reasons) => drop(self.reasons.insert(name.clone(), Arc::new(reasons))),
            None => drop(self.reasons.remove(name)),
        }
        true
    }

    /// Replaces the static zones.
    pub fn set_zones(&mut self, files: &[Arc<ZoneFile>]) {
        self.zones = Arc::new(Zones::new(&self.settings, files, |_| None).signed_with(&self.keys));
    }

    /// Replaces the static zones `former`, which are those of the tables. A zone that is the same value in both is not built again:
    /// an update of a dynamic zone costs what this zone costs.
    pub fn update_zones(&mut self, former: &[Arc<ZoneFile>], files: &[Arc<ZoneFile>]) {
        let kept = |file: &Arc<ZoneFile>| {
            let is_same = former.iter().any(|former| Arc::ptr_eq(former, file));
            self.zones.by_origin.get(&file.origin).filter(|_| is_same).cloned()
        };
        self.zones = Arc::new(Zones::new(&self.settings, files, kept).signed_with(&self.keys));
    }

    /// Sets the serial of the generated SOA.
    pub fn set_serial(&mut self, serial: u32) {
        self.serial = serial;
    }

    /// Returns the serial of the generated SOA.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Returns the zone of a name: the one with the longest matching origin.
    pub fn zone(&self, name: &LookupName) -> Option<&Zone> {
        self.zone_of_suffix(name, name.count())
    }

    /// Returns the parent zone of the zone with apex `name`.
    pub fn zone_above(&self, name: &LookupName) -> Option<&Zone> {
        self.zone_of_suffix(name, name.count().checked_sub(1)?)
    }

    /// Returns the discovery zone that contains a static zone.
    pub fn zone_around(&self, zone: &Zone) -> Option<&Zone> {
        self.zones.by_origin.get(zone.inside.as_ref()?)
    }

    /// Returns the zone with the longest matching origin of at most `most` labels.
    fn zone_of_suffix(&self, name: &LookupName, most: usize) -> Option<&Zone> {
        let mut depths = self.zones.depths & (u128::MAX >> (127 - most.min(127)));
        while depths != 0 {
            let depth = 127 - depths.leading_zeros() as usize;
            let suffix = &name.wire()[name.offset(name.count() - depth)..];
            if let Some(zone) = self.zones.by_origin.get(suffix) {
                return Some(zone);
            }
            depths &= !(1 << depth);
        }
        None
    }

    /// Returns the name of this node.
    pub fn node_name(&self) -> &Label {
        &self.settings.node
    }

    /// Returns the zone with this origin.
    pub fn zone_named(&self, origin: &[u8]) -> Option<&Zone> {
        self.zones.by_origin.get(origin)
    }

    /// Returns the serial of a zone: that of its file, or the generated one.
    pub fn serial_of(&self, zone: &Zone) -> u32 {
        zone.soa.serial.unwrap_or(self.serial)
    }

    /// Returns the origins of the discovery zone and its aliases.
    pub fn discovery_zones(&self) -> impl Iterator<Item = &Name> {
        self.settings.live_zones().map(|(zone, _)| zone)
    }

    /// Returns the discovery zone.
    pub fn domain(&self) -> Option<&Zone> {
        self.zones.by_origin.get(self.settings.domain.wire())
    }

    /// Returns the zone that contains all targets of generated PTR records.
    pub fn ptr_domain(&self) -> Option<&Zone> {
        self.zones.by_origin.get(self.settings.ptr_domain.wire())
    }

    /// Returns the kind of the zone with this origin.
    pub fn zone_kind(&self, origin: &Name) -> Option<Kind> {
        self.zones.by_origin.get(origin).map(|zone| zone.kind)
    }

    /// Returns the service of that name.
    pub fn service(&self, name: &[u8]) -> Option<&Service> {
        self.services.get(name).map(|service| &**service)
    }

    /// Returns all services with a DNS name, unordered.
    pub fn services(&self) -> impl Iterator<Item = (&RegisteredName, &Service)> {
        self.services.iter().map(|(name, service)| (name, &**service))
    }

    /// Returns the labels of all nodes and external nodes, unordered; a label may be there twice.
    pub fn node_names(&self) -> impl Iterator<Item = &[u8]> {
        self.nodes.keys().map(Label::as_bytes).chain(self.external.keys().map(RegisteredName::as_bytes))
    }

    /// Returns the `_why` texts of a service; `None` if it is plainly answered.
    pub fn reasons(&self, name: &[u8]) -> Option<&Reasons> {
        self.reasons.get(name).map(|reasons| &**reasons)
    }

    /// Returns the negative TTL in seconds, which `_why` records use too.
    pub fn negative_ttl(&self) -> u32 {
        self.settings.negative_ttl
    }

    /// Returns a node and its records.
    pub fn node(&self, name: &[u8]) -> Option<(&Label, &[RRset])> {
        self.nodes.get_key_value(name).map(|(name, node)| (name, node.rrsets.as_slice()))
    }

    /// Returns an external node and its records.
    pub fn external_node(&self, name: &[u8]) -> Option<(&RegisteredName, &[RRset])> {
        self.external.get_key_value(name).map(|(name, node)| (name, node.rrsets.as_slice()))
    }

    /// Returns all zones, unordered.
    pub fn zones(&self) -> impl Iterator<Item = &Zone> {
        self.zones.by_origin.values()
    }

    /// Returns the datacenter of a node.
    pub fn node_datacenter(&self, name: &[u8]) -> Option<&Label> {
        self.nodes.get(name).or_else(|| self.external.get(name)).map(|node| &node.datacenter)
    }

    /// Returns the datacenter of that name, if a node is or was in it.
    pub fn datacenter(&self, name: &[u8]) -> Option<&Label> {
        self.datacenters.get(name)
    }

    /// Returns the NS RRset of a zone with live names; the slice is empty while no node is known.
    pub fn name_servers(&self, zone: &Zone) -> &[RRset] {
        match zone.kind {
            Kind::Discovery | Kind::Static => &self.name_servers.own,
            Kind::Consul => &self.name_servers.consul,
        }
    }

    /// Returns the announced instances at an address.
    pub fn instances_at(&self, address: IpAddr) -> impl Iterator<Item = &InstanceKey> {
        self.addresses.at(address)
    }

    /// Reports whether an instance or a node announces an address in the range.
    pub fn any_address_in(&self, addresses: &RangeInclusive<IpAddr>) -> bool {
        self.addresses.any_in(addresses) || self.node_addresses.range(addresses.clone()).next().is_some()
    }

    /// Returns the node or the external node at an address.
    pub fn node_at(&self, address: &IpAddr) -> Option<&RegisteredName> {
        self.node_addresses.get(address)
    }

    /// Returns the default policy of services.
    pub fn nearest(&self) -> Policy {
        self.settings.nearest
    }

    /// Returns the zone and the datacenter of this node.
    pub fn place(&self) -> Place<'_> {
        self.settings.place()
    }

    /// Returns the default TTL in seconds.
    pub fn ttl(&self) -> u32 {
        self.settings.ttl
    }

    fn update_nodes(&mut self, catalog: &Catalog, touched: &Touched) {
        for name in &touched.nodes {
            match catalog.node(name) {
                Some(node) => drop(self.nodes.insert(name.clone(), Arc::new(NodeNames::new(node, self.settings.ttl)))),
                None => drop(self.nodes.remove(name)),
            }
        }
        let mut nodes: Vec<_> = catalog.nodes().collect();
        // The sort is stable: nodes of equal freshness keep the order by name.
        nodes.sort_by_key(|(_, freshness)| *freshness);
        // Names of a gone node still exist.
        let datacenters = catalog.view().values().map(|view| view.node.datacenter.clone());
        self.datacenters = Arc::new(datacenters.chain([self.settings.datacenter.clone()]).collect());
        // This node is first, since the client has reached it. Unreachable nodes are last.
        let own = catalog.node(&self.settings.node);
        let others = nodes.iter().map(|(node, _)| *node).filter(|node| node.name != self.settings.node);
        let servers: Vec<&Arc<Node>> = own.into_iter().chain(others).take(MAX_NAME_SERVERS).collect();
        let rrset = |target: &dyn Fn(&Node) -> Rdata| -> Arc<[RRset]> {
            let records: Vec<Rdata> = servers.iter().map(|node| target(node)).collect();
            let ns = RRset { rtype: rtype::NS, ttl: self.settings.ttl, line: 0, records };
            if ns.records.is_empty() { Arc::default() } else { [ns].into() }
        };
        let own = rrset(&|node| node_name(NameScheme::Muster, &node.name, &node.datacenter));
        let consul = rrset(&|node| node_name(NameScheme::Consul, &node.name, &node.datacenter));
        self.name_servers = NameServers { own, consul };
    }
}

/// Returns RDATA with the name of a node, relative to the origin.
fn node_name(scheme: NameScheme, node: &Label, datacenter: &Label) -> Rdata {
    match scheme {
        NameScheme::Muster => Rdata::relative(&[], [node.as_bytes(), RESERVED_SERVICE.as_bytes()]),
        NameScheme::Consul => Rdata::below_origin(node_labels(node.as_bytes(), datacenter)),
    }
}

impl Zones {
    /// Builds the zones. `kept` returns the zone of a file that was built before.
    fn new(settings: &Settings, files: &[Arc<ZoneFile>], kept: impl Fn(&Arc<ZoneFile>) -> Option<Zone>) -> Self {
        let mut by_origin = HashMap::default();
        let is_live = |file: &&Arc<ZoneFile>| settings.live_zones().any(|(zone, _)| *zone == file.origin);
        for file in files.iter().filter(|file| !is_live(file)) {
            if let Some(zone) = kept(file) {
                by_origin.insert(file.origin.clone(), zone);
                continue;
            }
            let around = settings.live_zones().filter(|(zone, _)| file.origin.within(zone).is_some());
            let inside = around.max_by_key(|(zone, _)| zone.wire().len()).map(|(zone, _)| zone.clone());
            let soa = file.records.iter().find(|r| r.rtype == rtype::SOA).and_then(|r| Soa::of_zone(r, &file.origin));
            let zone = match (soa, file.source) {
                (Some(soa), _) => {
                    let names = Arc::new(StaticNames::new(file));
                    Zone::new(&file.origin, Kind::Static, names, Arc::new(soa))
                }
                (None, Source::Primary(state)) => Zone::without_copy(&file.origin, state),
                // The parser rejects zones without an SOA.
                (None, Source::Files | Source::Updates) => continue,
            };
            by_origin.insert(file.origin.clone(), Zone { inside, source: file.source, ..zone });
        }
        let content = |origin: &Name, scheme| {
            let file = files.iter().find(|file| file.origin == *origin);
            let kept = file.and_then(&kept).map(|zone| zone.names);
            let names = kept.unwrap_or_else(|| Arc::new(file.map(|file| StaticNames::new(file)).unwrap_or_default()));
            (names, Arc::new(live_soa(settings, origin, scheme, file)))
        };
        let own = content(&settings.domain, NameScheme::Muster);
        for (origin, scheme) in settings.live_zones() {
            // Static names lead to names of services, which differ between the schemes.
            let (kind, (names, soa)) = match scheme {
                NameScheme::Muster => (Kind::Discovery, own.clone()),
                NameScheme::Consul => (Kind::Consul, content(origin, scheme)),
            };
            by_origin.insert(origin.clone(), Zone::new(origin, kind, names, soa));
        }
        let depths = by_origin.values().fold(0, |depths, zone: &Zone| depths | 1 << zone.labels);
        Self { by_origin, depths }
    }
}
