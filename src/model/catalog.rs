//! Catalog: the announcements of all nodes by service.
//!
//! [`Catalog::update`] takes a whole [`View`] (node to announcements), compares it with the previous one and updates only
//! the services that changed, so the cost of a flip is proportional to the flip. The DNS tables follow from [`Touched`].

mod addresses;
mod external;
mod node_versions;
mod view_diff;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

pub use self::{
    addresses::Addresses,
    external::{Claim, EXTERNAL_STATUSES},
    node_versions::NodeVersions,
};
use self::{
    addresses::Announced,
    external::External,
    node_versions::{ByNode, Described},
    view_diff::{Change, Known, ViewDiff},
};
use super::{
    announcement::{Announcement, Announcements, InstanceState, Node},
    external_node::ExternalNodes,
    name::Label,
    nearest::{Count, Place, Policy, Tier, Tiers},
    registered_name::RegisteredName,
    service::InstanceKey,
    stated_policy::StatedPolicy,
};

/// Hash map with a fast hash, for keys that operators choose, not clients.
pub type Map<K, V> = imbl::GenericHashMap<K, V, foldhash::fast::RandomState, imbl::shared_ptr::DefaultSharedPtr>;

/// One node with its announcements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Data of the node itself.
    pub node: Arc<Node>,
    /// Instances of the node.
    pub announcements: Announcements,
    /// External nodes that it announces.
    pub external: ExternalNodes,
    /// Freshness of all.
    pub freshness: Freshness,
}

/// Freshness of what a node announced. Ordered from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Freshness {
    /// The node is alive.
    Live,
    /// The node is unreachable or restarting; its last known state is answered.
    LastKnown,
    /// The node was declared dead. Its instances are not answered, but its services still exist: NODATA, not NXDOMAIN.
    Gone,
}

/// Announcements by node name, without nodes that left or have been gone for long. Clones share structure.
pub type View = imbl::OrdMap<Label, Arc<NodeView>>;

/// An instance with the node that announced it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogEntry {
    /// Name of the announcing node.
    pub node: Label,
    /// Instance, state and report.
    pub announcement: Arc<Announcement>,
    /// Freshness of the announcement.
    pub freshness: Freshness,
    /// True if this node does not answer instances in state warning (`dns.only_passing`).
    pub only_passing: bool,
}

impl CatalogEntry {
    /// Reports whether DNS answers of this node carry the instance.
    pub fn is_answered(&self) -> bool {
        self.freshness != Freshness::Gone && self.announcement.state.is_answered() && !self.is_withheld_warning()
    }

    /// Reports whether the instance is withheld only because it is in state warning.
    pub fn is_withheld_warning(&self) -> bool {
        self.only_passing && matches!(self.announcement.state, InstanceState::Warning(_))
    }

    /// Returns the count of this instance alone.
    pub fn count(&self) -> Count {
        let is_healthy = self.is_answered();
        let is_warming = is_healthy && matches!(self.announcement.state, InstanceState::Warming(_));
        Count { declared: 1, healthy: is_healthy.into(), warming: is_warming.into() }
    }

    fn order(&self) -> (&Label, Freshness, &Label) {
        (&self.announcement.instance.key.id, self.freshness, &self.node)
    }
}

/// One service with its instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Sorted by id, then by freshness, then by node. If several nodes announce an id, the first entry counts and shadows
    /// the others, so a live node takes precedence over an unreachable one.
    entries: Vec<CatalogEntry>,
    /// Version of the catalog at the last change of this service.
    version: u64,
}

impl Service {
    /// Returns the version of the catalog at the last change of this service or one of its reports.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Iterates over the entries that count: one per id, sorted by id.
    pub fn instances(&self) -> impl Iterator<Item = &CatalogEntry> {
        self.with_shadowed().filter(|(_, counts)| *counts).map(|(entry, _)| entry)
    }

    /// Iterates over all entries, shadowed ones included; the first one of each id counts.
    pub fn entries(&self) -> impl Iterator<Item = &CatalogEntry> {
        self.entries.iter()
    }

    /// Iterates over all entries, each with whether it counts or is shadowed.
    pub fn with_shadowed(&self) -> impl Iterator<Item = (&CatalogEntry, bool)> {
        let mut last: Option<&Label> = None;
        self.entries.iter().map(move |entry| {
            let id = &entry.announcement.instance.key.id;
            (entry, last.replace(id) != Some(id))
        })
    }

    /// Returns the policy by which near instances are preferred. `default` is that of the node that answers.
    pub fn policy(&self, default: Policy) -> StatedPolicy<'_> {
        StatedPolicy::of(self.instances().map(|entry| &*entry.announcement.instance), default)
    }

    fn set(&mut self, entry: CatalogEntry) {
        match self.entries.binary_search_by(|p| p.order().cmp(&entry.order())) {
            Ok(at) => self.entries[at] = entry,
            Err(at) => self.entries.insert(at, entry),
        }
    }

    fn remove(&mut self, id: &Label, freshness: Freshness, node: &Label) {
        if let Ok(at) = self.entries.binary_search_by(|p| p.order().cmp(&(id, freshness, node))) {
            self.entries.remove(at);
        }
    }
}

/// All announced services, nodes and addresses.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    view: View,
    services: Map<RegisteredName, Arc<Service>>,
    addresses: Addresses,
    external: External,
    conflicts: imbl::OrdSet<RegisteredName>,
    versions: Versions,
    node_versions: ByNode,
    only_passing: bool,
}

/// Versions for blocking queries. The version grows with every update that changes something; each part keeps the version
/// of its last change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// Version of the whole catalog.
    pub all: u64,
    /// Last time a service was added, removed or changed its tags.
    pub names: u64,
    /// Last time a node was added, removed or changed.
    pub nodes: u64,
}

/// Effect of an update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Services with an instance that was added, removed or changed, or whose node changed its freshness, zone or datacenter.
    pub services: BTreeSet<RegisteredName>,
    /// Nodes that were added or removed, or changed their data or their freshness.
    pub nodes: BTreeSet<Label>,
    /// External nodes that were added or removed, or changed their owner, their data or their freshness.
    pub external: BTreeSet<RegisteredName>,
    /// Services with changes to reports or to other data of a node only: their answers are unchanged.
    pub reports: BTreeSet<RegisteredName>,
}

impl Touched {
    /// Reports whether nothing changed that answers depend on.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.nodes.is_empty() && self.external.is_empty()
    }
}

impl Catalog {
    /// Applies a new view; the cost is proportional to the difference from the previous one.
    pub fn update(&mut self, view: View) -> Touched {
        let ViewDiff { nodes, external: claims, checks, services: changes } = ViewDiff::between(&self.view, &view);
        let before = std::mem::replace(&mut self.view, view);
        if nodes.is_empty() && claims.is_empty() && changes.is_empty() && checks.is_empty() {
            return Touched::default();
        }
        self.versions.all += 1;
        if !nodes.is_empty() || !claims.is_empty() {
            self.versions.nodes = self.versions.all;
        }
        let answers = |(_, changes): &(&RegisteredName, &Vec<Change>)| changes.iter().any(Change::alters_answers);
        let (services, reports) = changes.iter().partition::<Vec<_>, _>(answers);
        let names =
            |changes: Vec<(&RegisteredName, &Vec<Change>)>| changes.into_iter().map(|(name, _)| name.clone()).collect();
        let (services, mut reports): (BTreeSet<_>, BTreeSet<_>) = (names(services), names(reports));
        for (name, changed) in changes {
            self.update_service(name, changed);
        }
        let mut external: BTreeSet<RegisteredName> = BTreeSet::new();
        let described = Described::all(&claims, &self.external, &before);
        for (name, owner) in claims {
            reports.extend(self.show_again(&name).into_iter().filter(|service| !services.contains(service)));
            if self.external.update(&name, &owner, &before, &self.view) {
                external.insert(name);
            }
        }
        for (name, was) in described {
            let is = Described::of(&name, &self.external, &self.view);
            self.raise_node_version(&name, was.zip(is).is_some_and(|(was, is)| was.is_alike(&is)));
        }
        for name in nodes.union(&checks) {
            let both = before.get(name).zip(self.view.get(name));
            let is_alike = both.is_some_and(|(was, is)| was.node.is_described_alike(&is.node));
            self.raise_node_version(&RegisteredName::from(name.clone()), is_alike);
        }
        // A member takes precedence over external nodes of its name.
        let named = nodes.iter().map(|name| RegisteredName::from(name.clone()));
        external.extend(named.filter(|name| !self.external.claims(name).is_empty()));
        for name in &external {
            if self.announces_twice(name) {
                self.conflicts.insert(name.clone());
            } else {
                self.conflicts.remove(name);
            }
        }
        Touched { services, nodes, external, reports }
    }

    /// Returns an empty catalog whose versions begin at `version`.
    pub fn starting_at(version: u64) -> Self {
        Self { versions: Versions { all: version, names: version, nodes: version }, ..Self::default() }
    }

    /// Returns the catalog of a node that does not answer instances in state warning, if `only_passing`.
    #[must_use]
    pub fn answering(self, only_passing: bool) -> Self {
        Self { only_passing, ..self }
    }

    /// Reports whether this node does not answer instances in state warning.
    pub fn only_passing(&self) -> bool {
        self.only_passing
    }

    /// Returns the versions of the catalog and its parts.
    pub fn versions(&self) -> Versions {
        self.versions
    }

    /// Returns the versions of a node; those of all nodes for an unknown one.
    pub fn node_versions(&self, name: &RegisteredName) -> NodeVersions {
        let all = self.versions.nodes;
        self.node_versions.of(name).unwrap_or(NodeVersions { added: all, described: all, changed: all })
    }

    /// Iterates over all services, in no order.
    pub fn services(&self) -> impl Iterator<Item = (&RegisteredName, &Arc<Service>)> {
        self.services.iter()
    }

    /// Returns the current view, nodes that are gone included.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Returns the service of that name, if a node announces it.
    pub fn service(&self, name: &RegisteredName) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// Iterates over the nodes that are not gone, by name, with their freshness.
    pub fn nodes(&self) -> impl Iterator<Item = (&Arc<Node>, Freshness)> {
        let present = self.view.values().filter(|view| view.freshness != Freshness::Gone);
        present.map(|view| (&view.node, view.freshness))
    }

    /// Returns the node of that name, unless it is gone.
    pub fn node(&self, name: &Label) -> Option<&Arc<Node>> {
        self.view.get(name).filter(|view| view.freshness != Freshness::Gone).map(|view| &view.node)
    }

    /// Returns the freshness of what the node of that name announced; `None`: no agent has that name.
    pub fn freshness(&self, name: &str) -> Option<Freshness> {
        Some(self.view.get(&Label::parse(name).ok()?)?.freshness)
    }

    /// Returns the place of a node, or of an external node; `None`: no node has that name.
    pub fn place_of(&self, name: &RegisteredName) -> Option<Place<'_>> {
        if let Some(member) = Label::parse(name.as_str()).ok().and_then(|name| self.view.get(&name)) {
            return Some(member.node.place());
        }
        let claim = self.external(name)?;
        self.view.get(&claim.owner).map(|owner| owner.node.place_of_external())
    }

    /// Returns the nearest tier that contains an instance, as seen from `here`.
    pub fn tier(&self, here: Place<'_>, entry: &CatalogEntry) -> Tier {
        let Some(view) = self.view.get(&entry.node) else { return Tier::All };
        let is_external = entry.announcement.instance.external.is_some();
        Tier::of(here, if is_external { view.node.place_of_external() } else { view.node.place() })
    }

    /// Counts instances by tier, as seen from `here`.
    pub fn tiers<'a>(&self, here: Place<'_>, entries: impl Iterator<Item = &'a CatalogEntry>) -> Tiers {
        let mut tiers = Tiers::default();
        entries.for_each(|entry| tiers.add(self.tier(here, entry), entry.count()));
        tiers
    }

    /// Returns the external node of that name; `None` if a member has the name.
    pub fn external(&self, name: &RegisteredName) -> Option<&Claim> {
        self.claims(name).first().filter(|_| !self.has_member(name))
    }

    /// Iterates over all external nodes, by name, those of owners that are gone included.
    pub fn external_nodes(&self) -> impl Iterator<Item = &Claim> {
        self.external.all().filter(|(name, _)| !self.has_member(name)).filter_map(|(_, claims)| claims.first())
    }

    /// Returns the number of names of external nodes, those of members included.
    pub fn external_count(&self) -> usize {
        self.external.len()
    }

    /// Returns the claims of an external node: several in a conflict. The first one counts unless a member has the name.
    pub fn claims(&self, name: &RegisteredName) -> &[Claim] {
        self.external.claims(name)
    }

    /// Returns the names that several agents that are not gone, or an agent and a member, announce.
    pub fn conflicts(&self) -> &imbl::OrdSet<RegisteredName> {
        &self.conflicts
    }

    fn announces_twice(&self, name: &RegisteredName) -> bool {
        let present = self.claims(name).iter().filter(|claim| claim.freshness != Freshness::Gone).count();
        present > 1 || (present > 0 && self.has_member(name))
    }

    /// Reports whether a node of the cluster has this name.
    pub fn has_member(&self, name: &RegisteredName) -> bool {
        Label::parse(name.as_str()).is_ok_and(|name| self.view.contains_key(&name))
    }

    /// Iterates over the instances on an external node, each with the node that announces it.
    pub fn instances_on(&self, name: &RegisteredName) -> impl Iterator<Item = (&InstanceKey, &Label)> {
        self.external.instances_on(name)
    }

    /// Returns the instances by address, whatever their state.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    fn update_service(&mut self, name: RegisteredName, changes: Vec<Change>) {
        if changes.iter().any(Change::alters_tags) {
            self.versions.names = self.versions.all;
        }
        let mut service = self.services.get(&name).map(|s| Service::clone(s)).unwrap_or_default();
        for change in changes {
            if change.alters_instance() {
                self.move_addresses(&change);
                let instance = |known: &Option<Known>| known.as_ref().map(|known| known.announcement.instance.clone());
                let (old, new) = (instance(&change.old), instance(&change.new));
                self.external.move_instance(&change.node, old.as_ref(), new.as_ref());
            }
            // Freshness is part of the sort order.
            if let Some(Known { freshness, .. }) = change.old
                && change.new.as_ref().is_none_or(|new| new.freshness != freshness)
            {
                service.remove(&change.id, freshness, &change.node);
            }
            if let Some(Known { announcement, freshness, .. }) = change.new {
                service.set(CatalogEntry {
                    node: change.node,
                    announcement,
                    freshness,
                    only_passing: self.only_passing,
                });
            }
        }
        service.version = self.versions.all;
        // Entries that were added one by one leave spare capacity of up to their number.
        service.entries.shrink_to_fit();
        if service.entries.is_empty() {
            self.services.remove(&name);
        } else {
            self.services.insert(name, Arc::new(service));
        }
    }

    /// Records a change of a node, or its removal.
    fn raise_node_version(&mut self, name: &RegisteredName, is_described_alike: bool) {
        if self.has_member(name) || !self.claims(name).is_empty() {
            self.node_versions.change(name, is_described_alike, self.versions.all);
        } else {
            self.node_versions.remove(name);
        }
    }

    /// Raises the versions of the services on an external node, which are shown with other data of the node.
    fn show_again(&mut self, node: &RegisteredName) -> BTreeSet<RegisteredName> {
        let names: BTreeSet<_> = self.external.instances_on(node).map(|(key, _)| key.service.clone()).collect();
        for name in &names {
            if let Some(service) = self.services.get(name) {
                let service = Service { version: self.versions.all, ..Service::clone(service) };
                self.services.insert(name.clone(), Arc::new(service));
            }
        }
        names
    }

    fn move_addresses(&mut self, change: &Change) {
        let announced = |known: &Known, address: &IpAddr| Announced {
            address: *address,
            by: Some((known.announcement.instance.clone(), known.node.clone())),
        };
        // `insert` replaces an equal entry, and with it the shared instance. Nothing else keeps the former one.
        let addresses = |known: &Known| known.announcement.instance.addresses.clone();
        let new = change.new.as_ref().map(addresses).unwrap_or_default();
        if let Some(old) = &change.old {
            for address in addresses(old).iter().filter(|address| !new.contains(address)) {
                self.addresses.0.remove(&announced(old, address));
            }
        }
        for (known, address) in change.new.iter().flat_map(|known| new.iter().map(move |address| (known, address))) {
            self.addresses.0.insert(announced(known, address));
        }
    }
}

#[cfg(test)]
mod tests;
