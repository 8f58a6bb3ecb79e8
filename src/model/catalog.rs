//! What all nodes announced, seen by service.
//!
//! The catalog is fed with a [`View`] (node → its announcements), whole state each time. [`Catalog::update`] compares
//! it with the view before and touches only the services that changed, so that a flip costs what it flips. Nothing
//! here decides what is answered: that is the DNS tables' part, which are told what was [`Touched`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::RangeInclusive,
    sync::Arc,
};

use imbl::ordmap::DiffItem;

use super::{
    announcement::{Announcement, Announcements, Node},
    name::Label,
    service::InstanceKey,
};

/// Hash maps of names and addresses that the operator chose.
pub type Map<K, V> = imbl::GenericHashMap<K, V, foldhash::fast::RandomState, imbl::shared_ptr::DefaultSharedPtr>;

/// One node and all it announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// The node itself.
    pub node: Arc<Node>,
    /// Its instances.
    pub announcements: Announcements,
    /// Whether both are as they are now.
    pub freshness: Freshness,
}

/// How current what a node announced is. Ordered from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Freshness {
    /// The node is there and says so.
    Live,
    /// The node is out of reach: this is what it said last.
    LastKnown,
    /// The node is gone, without good-bye: nothing of it is answered, but its services are not as if they had never been.
    Gone,
}

/// What every node announces, by node name; nodes that left, or are gone for long, are not in it. Clones share structure.
pub type View = imbl::OrdMap<Label, Arc<NodeView>>;

/// An instance where it was announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogEntry {
    /// The announcing node's name.
    pub node: Label,
    /// What it announced.
    pub announcement: Arc<Announcement>,
    /// How current that is.
    pub freshness: Freshness,
}

impl CatalogEntry {
    /// Whether DNS answers carry the instance.
    pub fn is_answered(&self) -> bool {
        self.freshness != Freshness::Gone && self.announcement.standing.is_answered()
    }

    fn order(&self) -> (&Label, Freshness, &Label) {
        (&self.announcement.instance.key.id, self.freshness, &self.node)
    }
}

/// One service: who announced which instance of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Sorted by id, then by freshness, then by node. An id that two nodes announce stands here twice; the first one
    /// counts, so that what a live node says goes before what is last known of another.
    entries: Vec<CatalogEntry>,
    /// Of the catalog, when something here changed last.
    version: u64,
}

impl Service {
    /// The catalog's version when something of the service, its reports included, changed last.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The instances that count: one an id, sorted by id.
    pub fn instances(&self) -> impl Iterator<Item = &CatalogEntry> {
        self.with_shadowed().filter(|(_, counts)| *counts).map(|(entry, _)| entry)
    }

    /// All that was announced, those that do not count included; each id's first one counts.
    pub fn entries(&self) -> impl Iterator<Item = &CatalogEntry> {
        self.entries.iter()
    }

    /// The same, each with whether it counts.
    pub fn with_shadowed(&self) -> impl Iterator<Item = (&CatalogEntry, bool)> {
        let mut last: Option<&Label> = None;
        self.entries.iter().map(move |entry| {
            let id = &entry.announcement.instance.key.id;
            (entry, last.replace(id) != Some(id))
        })
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

/// All services, nodes and addresses that are announced.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    view: View,
    services: Map<Label, Arc<Service>>,
    addresses: Addresses,
    versions: Versions,
}

/// Grows with every update that changes something; each part has that of its last change, so that whoever saw a part at
/// some version can tell whether there is news.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// Of the whole.
    pub all: u64,
    /// When a service came or went last, or changed its tags.
    pub names: u64,
    /// When a node came, went or changed last.
    pub nodes: u64,
}

/// Which instances are announced at which address, whatever their standing. Clones share structure, and a change costs
/// the same however many instances an address has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses(imbl::OrdSet<Announced>);

/// An instance at an address, or the address alone, which sorts before all that is announced there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Announced {
    address: IpAddr,
    by: Option<(InstanceKey, Label)>,
}

impl Addresses {
    /// The instances at an address, in their order. One that two nodes announce there comes twice.
    pub fn at(&self, address: IpAddr) -> impl Iterator<Item = &InstanceKey> {
        let from = Announced { address, by: None };
        let here = self.0.range(from..).take_while(move |announced| announced.address == address);
        here.filter_map(|announced| announced.by.as_ref().map(|(key, _)| key))
    }

    /// Whether anything is announced at an address of that range.
    pub fn any_in(&self, addresses: &RangeInclusive<IpAddr>) -> bool {
        let from = Announced { address: *addresses.start(), by: None };
        self.0.range(from..).next().is_some_and(|announced| announced.address <= *addresses.end())
    }
}

/// What an update changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Services of which an instance came, went or changed, or is of a node whose freshness did.
    pub services: BTreeSet<Label>,
    /// Nodes that came, went, or changed their own data or their freshness.
    pub nodes: BTreeSet<Label>,
    /// Services of which no more than reports, or what is known of a node, changed: nothing is answered otherwise for that.
    pub reports: BTreeSet<Label>,
}

impl Touched {
    /// Whether nothing changed that answers depend on.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.nodes.is_empty()
    }
}

impl Catalog {
    /// Takes over a new view; costs what differs from the one before.
    pub fn update(&mut self, view: View) -> Touched {
        let mut changes = Changes::default();
        for item in self.view.diff(&view) {
            match item {
                DiffItem::Add(name, new) => changes.node(name, None, Some(new)),
                DiffItem::Remove(name, old) => changes.node(name, Some(old), None),
                DiffItem::Update { old: (name, old), new: (_, new) } => changes.node(name, Some(old), Some(new)),
            }
        }
        self.view = view;
        let nodes = std::mem::take(&mut changes.nodes);
        if nodes.is_empty() && changes.services.is_empty() {
            return Touched::default();
        }
        self.versions.all += 1;
        if !nodes.is_empty() {
            self.versions.nodes = self.versions.all;
        }
        let answers = |(_, changes): &(&Label, &Vec<Change>)| changes.iter().any(Change::alters_answers);
        let (services, reports) = changes.services.iter().partition::<Vec<_>, _>(answers);
        let names = |changes: Vec<(&Label, &Vec<Change>)>| changes.into_iter().map(|(name, _)| name.clone()).collect();
        let (services, reports) = (names(services), names(reports));
        for (name, changed) in changes.services {
            self.update_service(name, changed);
        }
        Touched { services, nodes, reports }
    }

    /// An empty catalog whose versions begin here.
    pub fn starting_at(version: u64) -> Self {
        Self { versions: Versions { all: version, names: version, nodes: version }, ..Self::default() }
    }

    /// When what changed last.
    pub fn versions(&self) -> Versions {
        self.versions
    }

    /// All services by name, in no order.
    pub fn services(&self) -> impl Iterator<Item = (&Label, &Arc<Service>)> {
        self.services.iter()
    }

    /// What every node announces, those that are gone included.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The service of that name, while anybody announces it.
    pub fn service(&self, name: &Label) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// All nodes by name that are not gone, each with how current it is.
    pub fn nodes(&self) -> impl Iterator<Item = (&Arc<Node>, Freshness)> {
        let there = self.view.values().filter(|view| view.freshness != Freshness::Gone);
        there.map(|view| (&view.node, view.freshness))
    }

    /// The node of that name, unless it is gone.
    pub fn node(&self, name: &Label) -> Option<&Arc<Node>> {
        self.view.get(name).filter(|view| view.freshness != Freshness::Gone).map(|view| &view.node)
    }

    /// The announced instances at each address, whatever their standing.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    fn update_service(&mut self, name: Label, changes: Vec<Change>) {
        if changes.iter().any(Change::alters_tags) {
            self.versions.names = self.versions.all;
        }
        let mut service = self.services.get(&name).map(|s| Service::clone(s)).unwrap_or_default();
        for change in changes {
            if change.old_addresses() != change.new_addresses() {
                self.move_addresses(&change);
            }
            // One whose freshness changes has its place elsewhere.
            if let Some(Known { freshness, .. }) = change.old
                && change.new.as_ref().is_none_or(|new| new.freshness != freshness)
            {
                service.remove(&change.id, freshness, &change.node);
            }
            if let Some(Known { announcement, freshness, .. }) = change.new {
                service.set(CatalogEntry { node: change.node, announcement, freshness });
            }
        }
        service.version = self.versions.all;
        if service.entries.is_empty() {
            self.services.remove(&name);
        } else {
            self.services.insert(name, Arc::new(service));
        }
    }

    fn move_addresses(&mut self, change: &Change) {
        let announced =
            |address: &IpAddr| Announced { address: *address, by: Some((change.key(), change.node.clone())) };
        for address in change.old_addresses() {
            self.addresses.0.remove(&announced(address));
        }
        for address in change.new_addresses() {
            self.addresses.0.insert(announced(address));
        }
    }
}

/// One instance of one node, before and after.
struct Change {
    service: Label,
    id: Label,
    node: Label,
    old: Option<Known>,
    new: Option<Known>,
}

/// What is known of an instance at one node.
struct Known {
    announcement: Arc<Announcement>,
    node: Arc<Node>,
    freshness: Freshness,
}

impl Known {
    fn addresses(&self) -> &[IpAddr] {
        &self.announcement.instance.addresses
    }
}

impl Change {
    fn key(&self) -> InstanceKey {
        InstanceKey { service: self.service.clone(), id: self.id.clone() }
    }

    /// Whether more than a report changed.
    fn alters_answers(&self) -> bool {
        let (Some(old), Some(new)) = (&self.old, &self.new) else { return true };
        let (was, is) = (&old.announcement, &new.announcement);
        old.freshness != new.freshness || was.standing != is.standing || was.instance != is.instance
    }

    /// Whether the list of services with their tags may be another, of all nodes or of some.
    fn alters_tags(&self) -> bool {
        let (Some(old), Some(new)) = (&self.old, &self.new) else { return true };
        old.announcement.instance.tags != new.announcement.instance.tags || old.node != new.node
    }

    fn old_addresses(&self) -> &[IpAddr] {
        self.old.as_ref().map_or(&[], Known::addresses)
    }

    fn new_addresses(&self) -> &[IpAddr] {
        self.new.as_ref().map_or(&[], Known::addresses)
    }
}

#[derive(Default)]
struct Changes {
    nodes: BTreeSet<Label>,
    services: BTreeMap<Label, Vec<Change>>,
}

impl Changes {
    fn node(&mut self, name: &Label, old: Option<&Arc<NodeView>>, new: Option<&Arc<NodeView>>) {
        let own = |view: &Arc<NodeView>| (view.node.clone(), view.freshness);
        if old.map(own) != new.map(own) {
            self.nodes.insert(name.clone());
        }
        let none = Announcements::new();
        let before = old.map_or(&none, |view| &view.announcements);
        let after = new.map_or(&none, |view| &view.announcements);
        let mut change = |key: &InstanceKey, was: Option<&Arc<Announcement>>, is: Option<&Arc<Announcement>>| {
            let known = |view: Option<&Arc<NodeView>>, announcement: Option<&Arc<Announcement>>| {
                let view = view?;
                Some(Known { announcement: announcement?.clone(), node: view.node.clone(), freshness: view.freshness })
            };
            self.services.entry(key.service.clone()).or_default().push(Change {
                service: key.service.clone(),
                id: key.id.clone(),
                node: name.clone(),
                old: known(old, was),
                new: known(new, is),
            });
        };
        for item in before.diff(after) {
            match item {
                DiffItem::Add(key, new) => change(key, None, Some(new)),
                DiffItem::Remove(key, old) => change(key, Some(old), None),
                DiffItem::Update { old: (key, old), new: (_, new) } => change(key, Some(old), Some(new)),
            }
        }
        if let (Some(old), Some(new)) = (old, new)
            && own(old) != own(new)
        {
            // The rest says what it said, and counts for more or for less, or is shown with another node.
            for (key, was) in before {
                if let Some(is) = after.get(key).filter(|is| *is == was) {
                    change(key, Some(was), Some(is));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        announcement::{HealthReport, InstanceState},
        health::Status,
        name::label,
        service::Instance,
    };

    fn announcement(service: &str, id: &str, address: &str, status: Status) -> (InstanceKey, Arc<Announcement>) {
        let key = InstanceKey { service: label(service), id: label(id) };
        let instance =
            Arc::new(Instance { port: Some(80), ..Instance::new(key.clone(), vec![address.parse().unwrap()]) });
        (key, Arc::new(Announcement::new(instance, InstanceState::new(status, "down"))))
    }

    fn node(name: &str, announcements: &[(&str, &str, &str, Status)]) -> (Label, Arc<NodeView>) {
        let node = Node {
            name: label(name),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            datacenter: label("dc1"),
            meta: Default::default(),
        };
        let announcements = announcements.iter().map(|(s, i, a, status)| announcement(s, i, a, *status)).collect();
        (label(name), Arc::new(NodeView { node: Arc::new(node), announcements, freshness: Freshness::Live }))
    }

    fn out_of_reach((name, view): (Label, Arc<NodeView>)) -> (Label, Arc<NodeView>) {
        (name, Arc::new(NodeView { freshness: Freshness::LastKnown, ..NodeView::clone(&view) }))
    }

    /// Which node's instance counts, for each id of a service.
    fn counted(catalog: &Catalog, service: &str) -> Vec<String> {
        let service = catalog.service(&label(service)).unwrap();
        service.instances().map(|p| format!("{} at {}", p.announcement.instance.key.id, p.node)).collect()
    }

    /// The services without their versions, which say how they came to be so.
    fn entries(catalog: &Catalog) -> BTreeMap<&Label, &[CatalogEntry]> {
        catalog.services.iter().map(|(name, service)| (name, service.entries.as_slice())).collect()
    }

    fn touched(services: &[&str], nodes: &[&str]) -> Touched {
        Touched {
            services: services.iter().map(|s| label(s)).collect(),
            reports: BTreeSet::new(),
            nodes: nodes.iter().map(|s| label(s)).collect(),
        }
    }

    use Status::{Critical, Passing};

    #[test]
    fn an_update_touches_what_differs_and_nothing_else() {
        let mut catalog = Catalog::default();
        let steps: Vec<(&str, View, Touched)> = vec![
            (
                "a node joins with two services",
                View::from_iter([node("a", &[("web", "w1", "10.0.0.1", Passing), ("db", "d1", "10.0.0.2", Passing)])]),
                touched(&["web", "db"], &["a"]),
            ),
            (
                "the same again",
                View::from_iter([node("a", &[("web", "w1", "10.0.0.1", Passing), ("db", "d1", "10.0.0.2", Passing)])]),
                touched(&[], &[]),
            ),
            (
                "a flip",
                View::from_iter([node("a", &[("web", "w1", "10.0.0.1", Critical), ("db", "d1", "10.0.0.2", Passing)])]),
                touched(&["web"], &[]),
            ),
            (
                "a second node announces the same id",
                View::from_iter([
                    node("a", &[("web", "w1", "10.0.0.1", Critical), ("db", "d1", "10.0.0.2", Passing)]),
                    node("b", &[("web", "w1", "10.0.0.9", Passing)]),
                ]),
                touched(&["web"], &["b"]),
            ),
            (
                "the first node leaves",
                View::from_iter([node("b", &[("web", "w1", "10.0.0.9", Passing)])]),
                touched(&["web", "db"], &["a"]),
            ),
            ("all leave", View::new(), touched(&["web"], &["b"])),
        ];
        for (step, view, expected) in steps {
            assert_eq!(catalog.update(view), expected, "{step}");
        }
        assert!(catalog.services.is_empty());
        assert!(catalog.addresses.0.is_empty());
    }

    #[test]
    fn a_node_out_of_reach_touches_its_services_and_no_others() {
        let a = || node("a", &[("web", "w1", "10.0.0.1", Passing), ("db", "d1", "10.0.0.2", Passing)]);
        let b = |status| node("b", &[("web", "w2", "10.0.0.3", Passing), ("log", "l1", "10.0.0.4", status)]);
        let changed = || node("a", &[("web", "w1", "10.0.0.1", Critical), ("new", "n1", "10.0.0.2", Passing)]);
        let mut catalog = Catalog::default();
        let steps: Vec<(&str, View, Touched)> = vec![
            ("both live", View::from_iter([a(), b(Passing)]), touched(&["web", "db", "log"], &["a", "b"])),
            (
                "one goes out of reach",
                View::from_iter([out_of_reach(a()), b(Passing)]),
                touched(&["web", "db"], &["a"]),
            ),
            ("it stays so", View::from_iter([out_of_reach(a()), b(Passing)]), touched(&[], &[])),
            ("a flip of the other", View::from_iter([out_of_reach(a()), b(Critical)]), touched(&["log"], &[])),
            (
                "it comes back with news",
                View::from_iter([changed(), b(Critical)]),
                touched(&["web", "db", "new"], &["a"]),
            ),
            ("out of reach again, with other news", View::from_iter([out_of_reach(a()), b(Critical)]), {
                touched(&["web", "db", "new"], &["a"])
            }),
            ("it is gone", View::from_iter([b(Critical)]), touched(&["web", "db"], &["a"])),
            ("all are gone", View::new(), touched(&["web", "log"], &["b"])),
        ];
        for (step, view, expected) in steps {
            assert_eq!(catalog.update(view.clone()), expected, "{step}");
            // However it got there, it holds what it would from scratch.
            let mut fresh = Catalog::default();
            fresh.update(view);
            assert_eq!(entries(&catalog), entries(&fresh), "{step}");
            assert_eq!(catalog.addresses, fresh.addresses, "{step}");
        }
        assert!(catalog.services.is_empty() && catalog.addresses.0.is_empty());
    }

    #[test]
    fn versions_tell_what_changed() {
        let reported = |(name, view): (Label, Arc<NodeView>)| {
            let mut view = NodeView::clone(&view);
            for (key, known) in view.announcements.clone() {
                let report = Some(Arc::new(HealthReport { since: 1, checks: vec![] }));
                view.announcements.insert(key, Arc::new(Announcement { report, ..Announcement::clone(&known) }));
            }
            (name, Arc::new(view))
        };
        let described = |(name, view): (Label, Arc<NodeView>)| {
            let meta = BTreeMap::from([("rack".to_owned(), "r1".to_owned())]);
            let node = Arc::new(Node { meta, ..Node::clone(&view.node) });
            (name, Arc::new(NodeView { node, ..NodeView::clone(&view) }))
        };
        let a = |status| node("a", &[("web", "w1", "10.0.0.1", status)]);
        let b = || node("b", &[("db", "d1", "10.0.0.2", Passing)]);
        // The view, then when what changed: all, the names, the nodes, web, db.
        let steps: Vec<(&str, View, [u64; 5])> = vec![
            ("one service", View::from_iter([a(Passing)]), [101, 101, 101, 101, 0]),
            ("the same again", View::from_iter([a(Passing)]), [101, 101, 101, 101, 0]),
            ("a flip", View::from_iter([a(Critical)]), [102, 101, 101, 102, 0]),
            ("a node with another", View::from_iter([a(Critical), b()]), [103, 103, 103, 102, 103]),
            ("a report alone", View::from_iter([reported(a(Critical)), b()]), [104, 103, 103, 104, 103]),
            (
                "a node goes out of reach",
                View::from_iter([reported(a(Critical)), out_of_reach(b())]),
                [105, 103, 105, 104, 105],
            ),
            ("it is gone", View::from_iter([reported(a(Critical))]), [106, 106, 106, 104, 0]),
            ("a node has another meta", View::from_iter([described(reported(a(Critical)))]), [107, 107, 107, 107, 0]),
        ];
        let mut catalog = Catalog::starting_at(100);
        for (step, view, expected) in steps {
            let touched = catalog.update(view);
            let Versions { all, names, nodes } = catalog.versions();
            let of = |service| catalog.service(&label(service)).map_or(0, |service| service.version());
            assert_eq!([all, names, nodes, of("web"), of("db")], expected, "{step}");
            // Nothing is answered otherwise for a report.
            if step == "a report alone" {
                assert!(touched.is_empty() && touched.reports.contains(&label("web")), "{touched:?}");
            }
        }
    }

    #[test]
    fn of_two_nodes_with_one_id_a_live_one_counts_then_the_first_by_name() {
        let a = || node("a", &[("web", "w1", "10.0.0.1", Critical)]);
        let b = || node("b", &[("web", "w1", "10.0.0.9", Passing)]);
        let mut catalog = Catalog::default();
        let steps = [
            ("both live", View::from_iter([b(), a()]), "w1 at a"),
            ("the first out of reach", View::from_iter([b(), out_of_reach(a())]), "w1 at b"),
            ("both out of reach", View::from_iter([out_of_reach(b()), out_of_reach(a())]), "w1 at a"),
            ("the first is back", View::from_iter([out_of_reach(b()), a()]), "w1 at a"),
            ("the first is gone", View::from_iter([b()]), "w1 at b"),
        ];
        for (step, view, expected) in steps {
            catalog.update(view);
            assert_eq!(counted(&catalog, "web"), [expected], "{step}");
        }
    }

    #[test]
    fn addresses_follow_their_instances() {
        let mut catalog = Catalog::default();
        let shown = |catalog: &Catalog| -> BTreeMap<String, Vec<String>> {
            let all: BTreeSet<IpAddr> = catalog.addresses.0.iter().map(|announced| announced.address).collect();
            let keys = |address| catalog.addresses().at(address).map(ToString::to_string).collect();
            all.into_iter().map(|address| (address.to_string(), keys(address))).collect()
        };
        let expect = |pairs: &[(&str, &[&str])]| -> BTreeMap<String, Vec<String>> {
            pairs.iter().map(|(a, k)| ((*a).to_owned(), k.iter().map(|k| (*k).to_owned()).collect())).collect()
        };
        catalog.update(View::from_iter([node(
            "a",
            &[("web", "w1", "10.0.0.1", Passing), ("db", "d1", "10.0.0.1", Passing)],
        )]));
        assert_eq!(shown(&catalog), expect(&[("10.0.0.1", &["db/d1", "web/w1"])]));
        catalog.update(View::from_iter([node(
            "a",
            &[("web", "w1", "10.0.0.2", Passing), ("db", "d1", "10.0.0.1", Critical)],
        )]));
        assert_eq!(shown(&catalog), expect(&[("10.0.0.1", &["db/d1"]), ("10.0.0.2", &["web/w1"])]));
    }
}
