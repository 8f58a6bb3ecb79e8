//! Updates of the catalog by whole views.

use std::collections::BTreeMap;

use super::*;
use crate::model::{
    announcement::{HealthReport, InstanceState},
    external_node::ExternalNode,
    followed_host::{FollowedHost, HostName},
    health::Status,
    name::label,
    service::{Instance, instance_ref::InstanceRef},
};

fn announcement(service: &str, id: &str, address: &str, status: Status) -> (InstanceRef, Arc<Announcement>) {
    let key = InstanceKey { service: label(service).into(), id: label(id) };
    let instance = Arc::new(Instance { port: Some(80), ..Instance::new(key, vec![address.parse().unwrap()]) });
    Announcement::new(instance, InstanceState::new(status, "down")).into_entry()
}

fn node(name: &str, announcements: &[(&str, &str, &str, Status)]) -> (Label, Arc<NodeView>) {
    let node = Node {
        name: label(name),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        datacenter: label("dc1"),
        zone: None,
        meta: Default::default(),
        checks: None,
    };
    let announcements = announcements.iter().map(|(s, i, a, status)| announcement(s, i, a, *status)).collect();
    (
        label(name),
        Arc::new(NodeView {
            external: Default::default(),
            node: Arc::new(node),
            announcements,
            freshness: Freshness::Live,
        }),
    )
}

fn unreachable((name, view): (Label, Arc<NodeView>)) -> (Label, Arc<NodeView>) {
    (name, Arc::new(NodeView { freshness: Freshness::LastKnown, ..NodeView::clone(&view) }))
}

/// Returns the instances of a service that count, as `ID at NODE`.
fn counted(catalog: &Catalog, service: &str) -> Vec<String> {
    let service = catalog.service(&label(service).into()).unwrap();
    service.instances().map(|p| format!("{} at {}", p.announcement.instance.key.id, p.node)).collect()
}

/// Returns the services without their versions, which depend on the history.
fn entries(catalog: &Catalog) -> BTreeMap<&RegisteredName, &[CatalogEntry]> {
    catalog.services.iter().map(|(name, service)| (name, service.entries.as_slice())).collect()
}

fn touched(services: &[&str], nodes: &[&str]) -> Touched {
    Touched {
        services: services.iter().map(|s| label(s).into()).collect(),
        reports: BTreeSet::new(),
        nodes: nodes.iter().map(|s| label(s)).collect(),
        external: BTreeSet::new(),
    }
}

use Status::{Critical, Passing};

#[test]
fn update_touches_only_differences() {
    let mut catalog = Catalog::default();
    let steps: Vec<(&str, View, Touched)> = vec![
        (
            "a node joins with two services",
            View::from_iter([node("a", &[("web", "w1", "10.0.0.1", Passing), ("db", "d1", "10.0.0.2", Passing)])]),
            touched(&["web", "db"], &["a"]),
        ),
        (
            "no change",
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
fn an_unreachable_node_touches_only_its_services() {
    let a = || node("a", &[("web", "w1", "10.0.0.1", Passing), ("db", "d1", "10.0.0.2", Passing)]);
    let b = |status| node("b", &[("web", "w2", "10.0.0.3", Passing), ("log", "l1", "10.0.0.4", status)]);
    let changed = || node("a", &[("web", "w1", "10.0.0.1", Critical), ("new", "n1", "10.0.0.2", Passing)]);
    let mut catalog = Catalog::default();
    let steps: Vec<(&str, View, Touched)> = vec![
        ("both live", View::from_iter([a(), b(Passing)]), touched(&["web", "db", "log"], &["a", "b"])),
        ("one becomes unreachable", View::from_iter([unreachable(a()), b(Passing)]), touched(&["web", "db"], &["a"])),
        ("no change", View::from_iter([unreachable(a()), b(Passing)]), touched(&[], &[])),
        ("a flip of the other", View::from_iter([unreachable(a()), b(Critical)]), touched(&["log"], &[])),
        ("it is back with changes", View::from_iter([changed(), b(Critical)]), touched(&["web", "db", "new"], &["a"])),
        ("unreachable again, with other changes", View::from_iter([unreachable(a()), b(Critical)]), {
            touched(&["web", "db", "new"], &["a"])
        }),
        ("it is gone", View::from_iter([b(Critical)]), touched(&["web", "db"], &["a"])),
        ("all are gone", View::new(), touched(&["web", "log"], &["b"])),
    ];
    for (step, view, expected) in steps {
        assert_eq!(catalog.update(view.clone()), expected, "{step}");
        // The result does not depend on the history.
        let mut fresh = Catalog::default();
        fresh.update(view);
        assert_eq!(entries(&catalog), entries(&fresh), "{step}");
        assert_eq!(catalog.addresses, fresh.addresses, "{step}");
    }
    assert!(catalog.services.is_empty() && catalog.addresses.0.is_empty());
}

#[test]
fn each_version_grows_with_its_part() {
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
    // View, then versions: all, names, nodes, web, db.
    let steps: Vec<(&str, View, [u64; 5])> = vec![
        ("one service", View::from_iter([a(Passing)]), [101, 101, 101, 101, 0]),
        ("no change", View::from_iter([a(Passing)]), [101, 101, 101, 101, 0]),
        ("a flip", View::from_iter([a(Critical)]), [102, 101, 101, 102, 0]),
        ("a second node with another service", View::from_iter([a(Critical), b()]), [103, 103, 103, 102, 103]),
        ("a report alone", View::from_iter([reported(a(Critical)), b()]), [104, 103, 103, 104, 103]),
        (
            "a node becomes unreachable",
            View::from_iter([reported(a(Critical)), unreachable(b())]),
            [105, 103, 105, 104, 105],
        ),
        ("it is gone", View::from_iter([reported(a(Critical))]), [106, 106, 106, 104, 0]),
        ("the meta of a node changes", View::from_iter([described(reported(a(Critical)))]), [107, 107, 107, 107, 0]),
    ];
    let mut catalog = Catalog::starting_at(100);
    for (step, view, expected) in steps {
        let touched = catalog.update(view);
        let Versions { all, names, nodes } = catalog.versions();
        let of = |service| catalog.service(&label(service).into()).map_or(0, |service| service.version());
        assert_eq!([all, names, nodes, of("web"), of("db")], expected, "{step}");
        // A report does not change answers.
        if step == "a report alone" {
            assert!(touched.is_empty() && touched.reports.contains(&RegisteredName::from(label("web"))), "{touched:?}");
        }
    }
}

#[test]
fn of_a_duplicate_id_the_live_node_counts_then_the_first_by_name() {
    let a = || node("a", &[("web", "w1", "10.0.0.1", Critical)]);
    let b = || node("b", &[("web", "w1", "10.0.0.9", Passing)]);
    let mut catalog = Catalog::default();
    let steps = [
        ("both live", View::from_iter([b(), a()]), "w1 at a"),
        ("the first unreachable", View::from_iter([b(), unreachable(a())]), "w1 at b"),
        ("both unreachable", View::from_iter([unreachable(b()), unreachable(a())]), "w1 at a"),
        ("the first is back", View::from_iter([unreachable(b()), a()]), "w1 at a"),
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
    catalog
        .update(View::from_iter([node("a", &[("web", "w1", "10.0.0.1", Passing), ("db", "d1", "10.0.0.1", Passing)])]));
    assert_eq!(shown(&catalog), expect(&[("10.0.0.1", &["db/d1", "web/w1"])]));
    catalog.update(View::from_iter([node(
        "a",
        &[("web", "w1", "10.0.0.2", Passing), ("db", "d1", "10.0.0.1", Critical)],
    )]));
    assert_eq!(shown(&catalog), expect(&[("10.0.0.1", &["db/d1"]), ("10.0.0.2", &["web/w1"])]));
}

#[test]
fn addresses_share_the_instances_of_the_services() {
    let mut catalog = Catalog::default();
    let unchanged = node("a", &[("web", "w1", "10.0.0.1", Passing)]);
    let redefined = {
        let (_, known) = announcement("web", "w1", "10.0.0.1", Passing);
        let instance = Arc::new(Instance { weight: 7, ..Instance::clone(&known.instance) });
        let redefined = Announcement { instance, ..Announcement::clone(&known) };
        let announcements = Announcements::from_iter([redefined.into_entry()]);
        (label("a"), Arc::new(NodeView { announcements, ..NodeView::clone(&unchanged.1) }))
    };
    for view in [unchanged, redefined, node("a", &[("web", "w1", "10.0.0.1", Critical)])] {
        catalog.update(View::from_iter([view]));
        let service = catalog.service(&label("web").into()).unwrap();
        let of_service = &service.entries().next().unwrap().announcement.instance;
        let (of_address, _) = catalog.addresses.0.iter().next().unwrap().by.as_ref().unwrap();
        assert!(Arc::ptr_eq(of_service, of_address), "a former definition stays in memory");
    }
}

fn external_node(name: &str, address: &str) -> Arc<ExternalNode> {
    Arc::new(ExternalNode::new(crate::model::registered_name::name(name), vec![address.parse().unwrap()]))
}

/// A node that announces these external nodes, each with an instance `web-NAME` of `web`.
fn owner(name: &str, external: &[(&str, &str)], freshness: Freshness) -> (Label, Arc<NodeView>) {
    let (label, view) = node(name, &[]);
    let nodes = external.iter().map(|(name, address)| external_node(name, address));
    let announcements = external.iter().map(|(name, address)| {
        let (_, known) = announcement("web", &format!("web-{name}"), address, Passing);
        let external = Some(Box::new(crate::model::registered_name::name(name)));
        let instance = Arc::new(Instance { external, ..Instance::clone(&known.instance) });
        Announcement { instance, ..Announcement::clone(&known) }.into_entry()
    });
    let view = NodeView {
        external: nodes.map(|node| (node.name.clone(), node)).collect(),
        announcements: announcements.collect(),
        freshness,
        ..NodeView::clone(&view)
    };
    (label, Arc::new(view))
}

#[test]
fn first_claim_of_an_external_node_counts_by_freshness_and_owner() {
    use Freshness::{Gone, LastKnown, Live};
    let db = |address| [("db1", address)];
    // Owners by name with the address that each announces; the owner that counts, and whether there is a conflict.
    let (one, two) = (db("10.9.0.1"), db("10.9.0.2"));
    type Nodes = Vec<(Label, Arc<NodeView>)>;
    let cases: &[(&str, Nodes, Option<&str>, bool)] = &[
        ("one owner", vec![owner("b", &one, Live)], Some("b"), false),
        ("two owners", vec![owner("a", &two, Live), owner("b", &one, Live)], Some("a"), true),
        ("the first is unreachable", vec![owner("a", &two, LastKnown), owner("b", &one, Live)], Some("b"), true),
        ("the first is gone", vec![owner("a", &two, Gone), owner("b", &one, Live)], Some("b"), false),
        ("the only one is gone", vec![owner("a", &two, Gone)], Some("a"), false),
        ("a member has the name", vec![owner("a", &two, Live), node("db1", &[])], None, true),
        ("a member has the name of a gone claim", vec![owner("a", &two, Gone), node("db1", &[])], None, false),
    ];
    let name = crate::model::registered_name::name("db1");
    let mut reused = Catalog::default();
    for (case, nodes, counts, conflict) in cases {
        let view: View = nodes.iter().cloned().collect();
        let mut fresh = Catalog::default();
        fresh.update(view.clone());
        let touched = reused.update(view);
        for catalog in [&fresh, &reused] {
            assert_eq!(catalog.external(&name).map(|claim| claim.owner.as_str()), *counts, "{case}");
            assert_eq!(catalog.external_nodes().count(), usize::from(counts.is_some()), "{case}");
            assert_eq!(catalog.conflicts().contains(&name), *conflict, "{case}");
        }
        assert!(touched.external.contains(&name), "{case}");
        assert!(reused.update(nodes.iter().cloned().collect()).is_empty(), "{case}: unchanged");
    }
    reused.update(View::new());
    assert!(reused.claims(&name).is_empty() && reused.conflicts().is_empty());
    assert_eq!(reused.instances_on(&name).count(), 0);
}

#[test]
fn changed_check_of_an_external_node_raises_the_versions_of_its_services_only() {
    let (a, view) = owner("a", &[("db1", "10.9.0.1"), ("db2", "10.9.0.2")], Freshness::Live);
    let mut catalog = Catalog::default();
    catalog
        .update([(a.clone(), view.clone()), node("b", &[("cache", "c", "10.0.0.3", Passing)])].into_iter().collect());
    let name = crate::model::registered_name::name("db1");
    let on_node: Vec<String> = catalog.instances_on(&name).map(|(key, owner)| format!("{key} of {owner}")).collect();
    assert_eq!(on_node, ["web/web-db1 of a"]);
    let before = catalog.versions();
    let mut changed = NodeView::clone(&view);
    let check = crate::model::announcement::CheckReport {
        id: "ping".into(),
        name: "".into(),
        notes: "".into(),
        status: Critical,
        output: "".into(),
        since: 1,
    };
    let node_with = ExternalNode { checks: vec![check], ..ExternalNode::clone(&view.external[&name]) };
    changed.external.insert(name.clone(), Arc::new(node_with));
    let mut all = catalog.view().clone();
    all.insert(a, Arc::new(changed));
    let touched = catalog.update(all);
    // The answers of DNS are the same.
    assert!(touched.is_empty(), "{touched:?}");
    assert_eq!(touched.reports, [crate::model::registered_name::name("web")].into());
    assert!(catalog.versions().nodes > before.nodes);
    let version = |service: &str| catalog.service(&crate::model::registered_name::name(service)).unwrap().version();
    assert!(version("web") > before.all && version("cache") <= before.all);
}

#[test]
fn versions_of_a_node_follow_its_own_changes() {
    let a = |rack: &str, healthy: bool| {
        let (name, view) = node("a", &[("web", "w1", "10.0.0.1", Passing)]);
        let meta = BTreeMap::from([("rack".to_owned(), rack.to_owned())]);
        let checks = (!healthy).then(|| Arc::new(HealthReport { since: 1, checks: vec![] }));
        let node = Arc::new(Node { meta, checks, ..Node::clone(&view.node) });
        (name, Arc::new(NodeView { node, ..NodeView::clone(&view) }))
    };
    let b = |status| node("b", &[("db", "d1", "10.0.0.2", status)]);
    let host = |address| owner("c", &[("x", address)], Freshness::Live);
    let followed = |name: &str, problem: Option<&str>| {
        let (label, view) = host("10.9.0.2");
        let host = FollowedHost { name: HostName::parse(name).unwrap(), problem: problem.map(Arc::from) };
        let node = ExternalNode { host: Some(Arc::new(host)), ..ExternalNode::clone(&external_node("x", "10.9.0.2")) };
        let external = [(node.name.clone(), Arc::new(node))].into_iter().collect();
        (label, Arc::new(NodeView { external, ..NodeView::clone(&view) }))
    };
    let owned_by = |owner: &str, datacenter: &str| {
        let (_, view) = followed("two.example", None);
        let node = Arc::new(Node { name: label(owner), datacenter: label(datacenter), ..Node::clone(&view.node) });
        (label(owner), Arc::new(NodeView { node, ..NodeView::clone(&view) }))
    };
    // View, then the versions of a and of the external node x: added, described, changed.
    let steps: Vec<(&str, View, [u64; 3], [u64; 3])> = vec![
        ("a node", View::from_iter([a("r1", true)]), [1, 1, 1], [1, 1, 1]),
        ("others", View::from_iter([a("r1", true), b(Passing), host("10.9.0.1")]), [1, 1, 1], [2, 2, 2]),
        ("an instance", View::from_iter([a("r1", true), b(Critical), host("10.9.0.1")]), [1, 1, 1], [2, 2, 2]),
        ("metadata", View::from_iter([a("r2", true), b(Critical), host("10.9.0.1")]), [1, 4, 4], [2, 2, 2]),
        ("a check", View::from_iter([a("r2", false), b(Critical), host("10.9.0.1")]), [1, 4, 5], [2, 2, 2]),
        (
            "freshness",
            View::from_iter([unreachable(a("r2", false)), b(Critical), unreachable(host("10.9.0.1"))]),
            [1, 4, 6],
            [2, 2, 6],
        ),
        ("an address", View::from_iter([a("r2", false), host("10.9.0.2")]), [1, 4, 7], [2, 7, 7]),
        // Versions of a node that left are not kept.
        ("it left", View::from_iter([host("10.9.0.2")]), [8, 8, 8], [2, 7, 7]),
        ("it is back", View::from_iter([a("r2", true), host("10.9.0.2")]), [9, 9, 9], [2, 7, 7]),
        // The address is shown as registered.
        ("a host name", View::from_iter([a("r2", true), followed("one.example", None)]), [9, 9, 9], [2, 10, 10]),
        ("another one", View::from_iter([a("r2", true), followed("two.example", None)]), [9, 9, 9], [2, 11, 11]),
        (
            "a failed lookup",
            View::from_iter([a("r2", true), followed("two.example", Some("timeout"))]),
            [9, 9, 9],
            [2, 11, 12],
        ),
        // The datacenter is that of the owner.
        ("another datacenter", View::from_iter([a("r2", true), owned_by("c", "dc2")]), [9, 9, 9], [2, 13, 13]),
        ("another owner", View::from_iter([a("r2", true), owned_by("d", "dc2")]), [9, 9, 9], [2, 13, 14]),
        ("both at once", View::from_iter([a("r2", true), owned_by("e", "dc1")]), [9, 9, 9], [2, 15, 15]),
    ];
    let mut catalog = Catalog::default();
    for (step, view, of_a, of_x) in steps {
        catalog.update(view);
        for (name, expected) in [("a", of_a), ("x", of_x)] {
            let NodeVersions { added, described, changed } = catalog.node_versions(&label(name).into());
            assert_eq!([added, described, changed], expected, "{step}: {name}");
        }
    }
}

#[test]
fn external_nodes_move_to_another_datacenter_with_their_owner() {
    let (name, view) = owner("c", &[("x", "10.9.0.1")], Freshness::Live);
    let moved = Arc::new(Node { datacenter: label("dc2"), ..Node::clone(&view.node) });
    let mut catalog = Catalog::default();
    catalog.update(View::from_iter([(name.clone(), view.clone())]));
    let touched =
        catalog.update(View::from_iter([(name, Arc::new(NodeView { node: moved, ..NodeView::clone(&view) }))]));
    assert!(touched.external.contains(&crate::model::registered_name::name("x")), "{touched:?}");
}

#[test]
fn answered_instances_are_healthy_and_all_are_declared() {
    let cases = [
        (InstanceState::Passing, Freshness::Live, (1, 0)),
        (InstanceState::Passing, Freshness::LastKnown, (1, 0)),
        (InstanceState::Passing, Freshness::Gone, (0, 0)),
        (InstanceState::Warning("slow".into()), Freshness::Live, (1, 0)),
        (InstanceState::Warming(3), Freshness::Live, (1, 1)),
        (InstanceState::Warming(3), Freshness::Gone, (0, 0)),
        (InstanceState::Critical("down".into()), Freshness::Live, (0, 0)),
        (InstanceState::Disabled, Freshness::Live, (0, 0)),
    ];
    for (state, freshness, (healthy, warming)) in cases {
        let (_, known) = announcement("web", "w1", "10.0.0.8", Passing);
        let announcement = Arc::new(Announcement { state, ..Announcement::clone(&known) });
        let entry = CatalogEntry { node: label("a"), announcement, freshness, only_passing: false };
        assert_eq!(entry.count(), Count { declared: 1, healthy, warming }, "{entry:?}");
    }
}

/// A node that moves changes answers of its services, and of no other ones.
#[test]
fn another_zone_or_datacenter_touches_the_services_of_the_node() {
    let mut catalog = Catalog::default();
    let here = node("a", &[("web", "w1", "10.0.0.8", Passing)]);
    let other = node("b", &[("db", "d1", "10.0.0.9", Passing)]);
    catalog.update(View::from_iter([here.clone(), other.clone()]));
    let moved = |datacenter, zone| {
        let node = Node { datacenter: label(datacenter), zone, ..Node::clone(&here.1.node) };
        let view = NodeView { node: Arc::new(node), ..NodeView::clone(&here.1) };
        View::from_iter([(label("a"), Arc::new(view)), other.clone()])
    };
    assert_eq!(catalog.update(moved("dc1", Some(label("z1")))), touched(&["web"], &["a"]));
    assert_eq!(catalog.update(moved("dc1", Some(label("z1")))), Touched::default());
    assert_eq!(catalog.update(moved("dc2", Some(label("z1")))), touched(&["web"], &["a"]));
    assert_eq!(catalog.update(moved("dc2", None)), touched(&["web"], &["a"]));
    // Other data of the node changes no answer.
    let node = Node { meta: [("rack".to_owned(), "r1".to_owned())].into(), ..Node::clone(&here.1.node) };
    let renamed = NodeView { node: Arc::new(Node { datacenter: label("dc2"), ..node }), ..NodeView::clone(&here.1) };
    let shown = catalog.update(View::from_iter([(label("a"), Arc::new(renamed)), other.clone()]));
    assert!(shown.services.is_empty() && shown.reports == touched(&["web"], &[]).services, "{shown:?}");
}
