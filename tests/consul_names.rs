//! Names in the scheme of Consul: both schemes have the same instances, all targets resolve, and `explain` knows the names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use hickory_proto::{
    op::Message,
    rr::{RData, Record, RecordType},
};
use muster::{
    dns::{
        engine::{Engine, Transport},
        message::codes::rtype,
        zone::{Settings, Tables},
    },
    http::muster::explain::Explainer,
    model::{
        alias_domain::AliasDomain,
        announcement::{Announcement, InstanceState, Node},
        catalog::{Catalog, Freshness, NodeView, View},
        external_node::ExternalNode,
        health::Status,
        member::Membership,
        name::Name,
        nearest::Nearest,
        registered_name::RegisteredName,
        service::{Instance, InstanceKey, Protocol},
    },
};
use proptest::prelude::*;
use support::{Ask, agent::Agent, decode, extended_error, label, process, show_data, skip};

const DOMAIN: &str = "service.local";
const CONSUL: &str = "consul";
const SERVICES: [&str; 3] = ["web", "db", "node-1"];
const TAGS: [&str; 3] = ["v1", "master", "udp"];
const DATACENTERS: [&str; 3] = ["dc1", "dc2", "service"];

// Generators.

fn addresses() -> impl Strategy<Value = Vec<IpAddr>> {
    let one = prop::sample::select(vec!["10.0.0.1", "10.0.0.2", "192.0.2.7", "fd00::1", "2001:db8::2"]);
    prop::collection::btree_set(one, 1..3).prop_map(|set| set.into_iter().map(|a| a.parse().unwrap()).collect())
}

fn state() -> impl Strategy<Value = InstanceState> {
    prop_oneof![
        4 => Just(InstanceState::Passing),
        1 => Just(InstanceState::new(Status::Warning, "slow")),
        1 => Just(InstanceState::new(Status::Critical, "connection refused")),
    ]
}

prop_compose! {
    /// An announcement; half of the instances have the addresses of their node.
    fn announcement()(
        service in prop::sample::select(SERVICES.to_vec()),
        id in prop::sample::select(vec!["i1", "i2", "i3", "i4", "web"]),
        own in prop::option::of(addresses()),
        port in prop::option::weighted(0.9, 80..83u16),
        metrics in prop::option::of(80..83u16),
        udp in any::<bool>(),
        tags in prop::collection::btree_set(prop::sample::select(TAGS.to_vec()), 0..3),
        weight in prop::sample::select(vec![0, 1, 10]),
        ttl in prop::option::of(0u32..10),
        state in state(),
    ) -> (Option<Vec<IpAddr>>, Instance, InstanceState) {
        let key = InstanceKey { service: label(service).into(), id: label(id) };
        let instance = Instance {
            port,
            ports: metrics.into_iter().map(|port| (label("metrics"), port)).collect(),
            protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
            tags: tags.into_iter().map(str::to_owned).collect(),
            meta: [("version", "1")].into(),
            weight,
            ttl,
            ..Instance::new(key, vec![])
        };
        (own, instance, state)
    }
}

/// Addresses, datacenter, instances and freshness of a node.
type Parts = (Vec<IpAddr>, &'static str, Vec<(Option<Vec<IpAddr>>, Instance, InstanceState)>, Freshness);

fn view() -> impl Strategy<Value = View> {
    let freshness =
        prop_oneof![6 => Just(Freshness::Live), 1 => Just(Freshness::LastKnown), 1 => Just(Freshness::Gone)];
    let datacenter = prop::sample::select(DATACENTERS.to_vec());
    let parts = (addresses(), datacenter, prop::collection::vec(announcement(), 0..8), freshness);
    prop::collection::btree_map(prop::sample::select(vec!["host-a", "host-b", "host-c"]), parts, 1..=3).prop_map(
        |nodes| {
            let one = |(name, (addresses, datacenter, instances, freshness)): (&str, Parts)| {
                let announcements = instances.into_iter().map(|(own, instance, state)| {
                    let addresses = own.unwrap_or_else(|| addresses.clone()).into();
                    Announcement::new(Arc::new(Instance { addresses, ..instance }), state).into_entry()
                });
                let announcements = announcements.collect();
                let node = node(name, datacenter, addresses);
                (
                    label(name),
                    Arc::new(NodeView { external: Default::default(), node: Arc::new(node), announcements, freshness }),
                )
            };
            nodes.into_iter().map(one).collect()
        },
    )
}

fn node(name: &str, datacenter: &str, addresses: Vec<IpAddr>) -> Node {
    Node::new(label(name), addresses, label(datacenter))
}

// Questions.

fn settings() -> Settings {
    Settings {
        aliases: vec![AliasDomain::consul(Name::parse(CONSUL).unwrap())],
        ptr_domain: Name::parse(CONSUL).unwrap(),
        ..Settings::new(label("host-a"), label("dc1"), Name::parse(DOMAIN).unwrap())
    }
}

fn publish(view: View) -> (Catalog, Tables) {
    let (mut catalog, mut tables) = (Catalog::default(), Tables::new(settings()));
    let touched = catalog.update(view);
    tables.update(&catalog, &touched);
    (catalog, tables)
}

fn ask(tables: &Tables, name: &str, qtype: u16) -> Message {
    let ask = Ask { name: name.to_owned(), qtype, edns: Some(1232), dnssec_ok: false };
    let mut out = Vec::new();
    Engine::new(1232, fastrand::Rng::with_seed(7)).respond(tables, &ask.packet(7), Transport::Tcp, &mut out).unwrap();
    decode(&out)
}

/// Returns type, TTL and data of all records of an answer, sorted.
fn records(message: &Message) -> Vec<(RecordType, u32, String)> {
    let of = |record: &Record| (record.record_type(), record.ttl, show_data(&record.data));
    let mut records: Vec<_> = message.answers.iter().map(of).collect();
    records.sort();
    records
}

fn address(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(a) => Some(a.0.into()),
        RData::AAAA(aaaa) => Some(aaaa.0.into()),
        _ => None,
    }
}

fn addresses_of(tables: &Tables, name: &str) -> BTreeSet<IpAddr> {
    let types = [rtype::A, rtype::AAAA];
    types.iter().flat_map(|qtype| ask(tables, name, *qtype).answers).filter_map(|record| address(&record)).collect()
}

/// Returns priority, weight, port and the addresses of the target of each SRV record. All targets resolve, to the addresses in the
/// additional section.
fn endpoints(tables: &Tables, message: &Message) -> Vec<(u16, u16, u16, BTreeSet<IpAddr>)> {
    let mut added: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for record in message.additionals.iter().filter(|record| address(record).is_some()) {
        added.entry(record.name.to_string()).or_default().extend(address(record));
    }
    let endpoint = |record: &Record| {
        let RData::SRV(srv) = &record.data else { panic!("{record}") };
        let target = srv.target.to_string();
        let addresses = addresses_of(tables, &target);
        assert!(!addresses.is_empty(), "{target} does not resolve");
        let in_packet = added.get(&target).cloned().unwrap_or_default();
        assert_eq!(addresses.iter().copied().collect::<Vec<_>>().len(), in_packet.len(), "{target}: duplicates");
        assert_eq!(addresses, in_packet.into_iter().collect(), "{target}");
        (srv.priority, srv.weight, srv.port, addresses)
    };
    let mut all: Vec<_> = message.answers.iter().map(endpoint).collect();
    all.sort();
    let distinct: BTreeSet<String> = message.answers.iter().map(|record| show_data(&record.data)).collect();
    assert_eq!(distinct.len(), message.answers.len(), "duplicate records");
    all
}

/// Names in the scheme of muster and in that of Consul, relative to their zones.
fn pairs() -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for service in SERVICES {
        pairs.push((service.to_owned(), format!("{service}.service")));
        pairs.push((format!("_metrics._tcp.{service}"), format!("_metrics._tcp.{service}.service")));
        pairs.push((format!("_why.{service}"), format!("_why.{service}.service")));
        for tag in TAGS {
            pairs.push((format!("{tag}.{service}"), format!("{tag}.{service}.service")));
            if tag != "udp" {
                pairs.push((format!("_{service}._{tag}"), format!("_{service}._{tag}.service")));
                pairs.push((format!("_{service}._{tag}"), format!("_{service}._{tag}")));
            }
        }
        for id in ["i1", "i2", "i3", "i4", "web"] {
            pairs.push((format!("{id}.{service}"), format!("{id}.{service}.service")));
        }
    }
    for host in ["host-a", "host-b", "host-c"] {
        pairs.push((format!("{host}.node"), format!("{host}.node")));
    }
    pairs
}

/// Returns the entries that count, by service and id: those of live nodes take precedence.
fn counted(view: &View) -> BTreeMap<(String, String), (Arc<NodeView>, Arc<Announcement>)> {
    let mut counted = BTreeMap::new();
    for freshness in [Freshness::Live, Freshness::LastKnown, Freshness::Gone] {
        for node in view.values().filter(|node| node.freshness == freshness) {
            for (key, announcement) in &node.announcements {
                let key = (key.service.to_string(), key.id.to_string());
                counted.entry(key).or_insert_with(|| (node.clone(), announcement.clone()));
            }
        }
    }
    counted
}

fn check(view: &View) {
    let (_, tables) = publish(view.clone());
    for (own, consul) in pairs() {
        let (own, consul) = (format!("{own}.{DOMAIN}"), format!("{consul}.{CONSUL}"));
        for qtype in [rtype::A, rtype::AAAA, rtype::TXT, rtype::SRV] {
            let (one, other) = (ask(&tables, &own, qtype), ask(&tables, &consul, qtype));
            let context = format!("{own} and {consul}, type {qtype}");
            assert_eq!(one.metadata.response_code, other.metadata.response_code, "{context}");
            assert_eq!(extended_error(&one), extended_error(&other), "{context}");
            match qtype {
                rtype::SRV => assert_eq!(endpoints(&tables, &one), endpoints(&tables, &other), "{context}"),
                _ => assert_eq!(records(&one), records(&other), "{context}"),
            }
        }
    }
    check_datacenters(view, &tables);
    check_pointers(view, &tables);
}

/// Names with a datacenter have the instances in it; those of all datacenters together are those of the name without one.
fn check_datacenters(view: &View, tables: &Tables) {
    let counted = counted(view);
    for service in SERVICES {
        let mut union = BTreeSet::new();
        for datacenter in ["dc1", "dc2"] {
            let here = counted
                .iter()
                .filter(|((name, _), (node, _))| name == service && node.node.datacenter.as_str() == datacenter);
            let entries: Vec<_> = here.map(|(_, entry)| entry).collect();
            let answered = entries
                .iter()
                .filter(|(node, announcement)| node.freshness != Freshness::Gone && announcement.state.is_answered());
            let expected: BTreeSet<IpAddr> =
                answered.flat_map(|(_, announcement)| announcement.instance.addresses.iter().copied()).collect();
            let name = format!("{service}.service.{datacenter}.{CONSUL}");
            let code = ask(tables, &name, rtype::A).metadata.response_code.to_string();
            let exists = if entries.is_empty() { "Non-Existent Domain" } else { "No Error" };
            assert_eq!(code, exists, "{name}");
            assert_eq!(addresses_of(tables, &name), expected, "{name}");
            assert_eq!(addresses_of(tables, &format!("{service}.service.{datacenter}.dc.{CONSUL}")), expected);
            endpoints(tables, &ask(tables, &format!("_{service}._tcp.{datacenter}.{CONSUL}"), rtype::SRV));
            union.extend(expected);
        }
        let all = addresses_of(tables, &format!("{service}.service.{CONSUL}"));
        assert!(union.is_subset(&all), "{service}");
        let is_everywhere = view.values().all(|node| node.node.datacenter.as_str() != "service");
        assert!(!is_everywhere || union == all, "{service}");
    }
}

/// Each PTR target leads back to the address.
fn check_pointers(view: &View, tables: &Tables) {
    let instances = view.values().flat_map(|node| node.announcements.values());
    let nodes = view.values().flat_map(|node| node.node.addresses.iter().copied());
    let all: BTreeSet<IpAddr> =
        instances.flat_map(|known| known.instance.addresses.iter().copied()).chain(nodes).collect();
    for address in all {
        let reverse = hickory_proto::rr::Name::from(address).to_string();
        for record in ask(tables, &reverse, rtype::PTR).answers {
            let target = show_data(&record.data);
            assert!(addresses_of(tables, &target).contains(&address), "{address} has the name {target}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn both_schemes_have_the_same_instances(view in view()) {
        check(&view);
    }
}

// Cases.

fn instance(service: &str, id: &str, addresses: &[&str], tags: &[&str]) -> Announcement {
    let key = InstanceKey { service: label(service).into(), id: label(id) };
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
    let instance = Instance { port: Some(80), tags: tags.into(), ..Instance::new(key, addresses) };
    Announcement::new(Arc::new(instance), InstanceState::Passing)
}

fn of_nodes(nodes: &[(&str, &str, &str, &[Announcement])]) -> View {
    let one = |(name, datacenter, address, announcements): &(&str, &str, &str, &[Announcement])| {
        let node = Arc::new(node(name, datacenter, vec![address.parse().unwrap()]));
        let announcements = announcements.iter().cloned().map(Announcement::into_entry).collect();
        (
            label(name),
            Arc::new(NodeView { external: Default::default(), node, announcements, freshness: Freshness::Live }),
        )
    };
    nodes.iter().map(one).collect()
}

fn data(tables: &Tables, name: &str, qtype: u16) -> Vec<String> {
    records(&ask(tables, name, qtype)).into_iter().map(|(_, _, data)| data).collect()
}

#[test]
fn rightmost_label_of_a_kind_decides() {
    let web = instance("web", "w1", &["10.0.0.1"], &["service", "node", "dc1"]);
    let service = instance("service", "s1", &["10.0.0.2"], &["web"]);
    let dc1 = instance("dc1", "d1", &["10.0.0.3"], &[]);
    let view = of_nodes(&[("service", "dc1", "10.0.0.9", &[web, service, dc1]), ("host-b", "node", "10.0.0.8", &[])]);
    let (_, tables) = publish(view);
    let cases = [
        ("web.service.consul", "10.0.0.1"),
        ("service.service.consul", "10.0.0.2"),
        // The tag `web` of the service `service`.
        ("web.service.service.consul", "10.0.0.2"),
        ("service.web.service.consul", "10.0.0.1"),
        ("node.web.service.dc1.consul", "10.0.0.1"),
        ("dc1.service.consul", "10.0.0.3"),
        ("dc1.service.dc1.consul", "10.0.0.3"),
        ("service.node.consul", "10.0.0.9"),
        ("service.node.dc1.consul", "10.0.0.9"),
        // The datacenter `node` has no names: its nodes have those without a datacenter.
        ("host-b.node.consul", "10.0.0.8"),
    ];
    for (name, expected) in cases {
        assert_eq!(data(&tables, name, rtype::A), [expected], "{name}");
    }
    assert_eq!(data(&tables, "consul", rtype::NS), ["host-b.node.consul.", "service.node.dc1.consul."]);
}

#[test]
fn changed_node_changes_the_targets_of_its_instances() {
    let web = instance("web", "w1", &["10.0.0.1"], &[]);
    let view = |datacenter, address| of_nodes(&[("host-a", datacenter, address, std::slice::from_ref(&web))]);
    let (mut catalog, mut tables) = publish(view("dc1", "10.0.0.1"));
    let steps = [
        ("dc1", "10.0.0.1", "1 10 80 host-a.node.dc1.consul."),
        ("dc2", "10.0.0.1", "1 10 80 host-a.node.dc2.consul."),
        ("dc2", "10.0.0.9", "1 10 80 0a000001.addr.dc2.consul."),
    ];
    for (datacenter, address, expected) in steps {
        let touched = catalog.update(view(datacenter, address));
        tables.update(&catalog, &touched);
        assert_eq!(data(&tables, "web.service.consul", rtype::SRV), [expected]);
        assert_eq!(data(&tables, &format!("web.service.{datacenter}.consul"), rtype::SRV), [expected]);
    }
}

#[test]
fn instances_of_external_nodes_have_the_names_of_their_nodes_as_targets() {
    let external = |address: &str| ExternalNode {
        name: RegisteredName::parse("DB1").unwrap(),
        letter_case: None,
        id: None,
        addresses: vec![address.parse().unwrap()].into(),
        host: None,
        tagged: BTreeMap::new(),
        meta: BTreeMap::new(),
        checks: Vec::new(),
        definitions: BTreeMap::new(),
    };
    let on_external = |address: &str| {
        let known = instance("pg", "pg-db1", &[address], &[]);
        let host = Some(Box::new(RegisteredName::parse("db1").unwrap()));
        Announcement::new(
            Arc::new(Instance { external: host, ..Instance::clone(&known.instance) }),
            InstanceState::Passing,
        )
    };
    let owned = |owner: &str, datacenter: &str, node: &str, announcement: Announcement| {
        let mut view = of_nodes(&[(owner, datacenter, "10.0.0.1", &[announcement])]);
        let mut known = NodeView::clone(view.get(&label(owner)).unwrap());
        known.external = [(RegisteredName::parse("db1").unwrap(), Arc::new(external(node)))].into_iter().collect();
        view.insert(label(owner), Arc::new(known));
        view
    };
    let (mut catalog, mut tables) = (Catalog::default(), Tables::new(settings()));
    let both = owned("host-a", "dc1", "10.9.0.1", on_external("10.9.0.1"));
    let conflict = owned("host-b", "dc2", "10.9.0.1", on_external("10.9.0.1")).union(both.clone());
    let member = of_nodes(&[("db1", "dc1", "10.9.0.7", &[])]).union(both.clone());
    let steps = [
        ("the address of the node", both, "1 10 80 db1.node.dc1.consul."),
        (
            "another address of the service",
            owned("host-a", "dc1", "10.9.0.1", on_external("10.9.0.2")),
            "1 10 80 0a090002.addr.dc1.consul.",
        ),
        // The announcement is the same: only the node has changed.
        ("a moved node", owned("host-a", "dc1", "10.9.0.2", on_external("10.9.0.2")), "1 10 80 db1.node.dc1.consul."),
        (
            "a moved node again",
            owned("host-a", "dc1", "10.9.0.3", on_external("10.9.0.2")),
            "1 10 80 0a090002.addr.dc1.consul.",
        ),
        (
            "an owner in another datacenter",
            owned("host-b", "dc2", "10.9.0.1", on_external("10.9.0.1")),
            "1 10 80 db1.node.dc2.consul.",
        ),
        ("two owners", conflict, "1 10 80 db1.node.dc1.consul."),
        ("a member of that name", member, "1 10 80 0a090001.addr.dc1.consul."),
    ];
    for (case, view, expected) in steps {
        let touched = catalog.update(view);
        tables.update(&catalog, &touched);
        let answer = ask(&tables, "pg.service.consul", rtype::SRV);
        assert_eq!(data(&tables, "pg.service.consul", rtype::SRV), [expected], "{case}");
        endpoints(&tables, &answer);
    }
}

#[test]
fn nearest_instances_are_those_of_the_name() {
    let [near, far, other, last] = [1, 2, 3, 4].map(|at| {
        let announcement = instance("web", &format!("w{at}"), &[&format!("10.0.0.{at}")], &[]);
        let instance = Instance { nearest: Some(Nearest::Zone), ..Instance::clone(&announcement.instance) };
        Announcement { instance: Arc::new(instance), ..announcement }
    });
    let in_zone = |name: &str, datacenter: &str, zone: &str, announcements: Vec<Announcement>| {
        let node = Node { zone: Some(label(zone)), ..node(name, datacenter, vec!["10.0.0.9".parse().unwrap()]) };
        let announcements = announcements.into_iter().map(Announcement::into_entry).collect();
        (
            label(name),
            Arc::new(NodeView {
                external: Default::default(),
                node: Arc::new(node),
                announcements,
                freshness: Freshness::Live,
            }),
        )
    };
    let view = View::from_iter([
        in_zone("host-a", "dc1", "z1", vec![near]),
        in_zone("host-b", "dc1", "z2", vec![far]),
        in_zone("host-c", "dc2", "z1", vec![other, last]),
    ]);
    let (mut catalog, mut tables) =
        (Catalog::default(), Tables::new(Settings { zone: Some(label("z1")), ..settings() }));
    let touched = catalog.update(view);
    tables.update(&catalog, &touched);
    let cases: [(&str, &[&str]); 5] = [
        ("web.service.local", &["10.0.0.1"]),
        ("web.service.consul", &["10.0.0.1"]),
        ("web.service.dc1.consul", &["10.0.0.1"]),
        ("web.service.dc2.consul", &["10.0.0.3", "10.0.0.4"]),
        ("w2.web.service.consul", &["10.0.0.2"]),
    ];
    for (name, expected) in cases {
        assert_eq!(data(&tables, name, rtype::A), expected, "{name}");
    }
    // The name of the service does not lead to the address: the name of the instance does.
    assert_eq!(data(&tables, "2.0.0.10.in-addr.arpa", rtype::PTR), ["w2.web.service.dc1.consul."]);
    assert_eq!(data(&tables, "3.0.0.10.in-addr.arpa", rtype::PTR), ["web.service.dc2.consul."]);
}

#[test]
fn explain_knows_the_names_of_consul() {
    let web = instance("web", "w1", &["10.0.0.1"], &["v1"]);
    let other = instance("web", "w2", &["10.0.0.2"], &[]);
    let db = instance("db", "d1", &["10.0.0.2"], &[]);
    let view = of_nodes(&[("host-a", "dc1", "10.0.0.1", &[web]), ("host-b", "dc2", "10.0.0.2", &[other, db])]);
    let (catalog, tables) = publish(view);
    let explainer = Explainer {
        tables: &tables,
        recursion: None,
        upstreams: &[],
        catalog: &catalog,
        members: &Membership::default(),
        node: &label("host-a"),
        problems: &[],
    };
    let cases = [
        ("web.service.consul", "2 of 2 answered"),
        ("web.service.dc2.consul", "1 of 1 answered"),
        ("v1.web.service.consul", "1 of 1 answered"),
        ("_web._tcp.consul", "2 of 2 answered"),
        ("host-b.node.dc2.consul", "node host-b is unknown; 2 of 2 answered"),
        ("0a000001.addr.dc1.consul", "name of the address 10.0.0.1"),
        ("consul", "apex of an alias domain with the names of Consul"),
        ("service.dc1.consul", "NODATA: empty non-terminal, names exist below it"),
        ("web.service.dc9.consul", "NXDOMAIN: no node is in the datacenter dc9"),
        ("db.service.dc1.consul", "NXDOMAIN: db is in other datacenters only"),
        ("host-b.node.dc1.consul", "NXDOMAIN: host-b is in other datacenters only"),
        ("web.connect.consul", "NXDOMAIN: muster has no `connect` names of Consul"),
        ("web.consul", "NXDOMAIN: names of services and nodes end in `service.consul.` and `node.consul.`"),
        ("nothing.service.consul", "NXDOMAIN: no node declares this name"),
    ];
    for (name, expected) in cases {
        let explained = explainer.explain(name, None, [127, 0, 0, 1].into());
        assert_eq!(explained.summary, expected, "{name}");
        assert_eq!(explained.question, format!("{name}."), "{name}");
    }
    let explained = explainer.explain("web.service.dc2.consul", None, [127, 0, 0, 1].into());
    let ids: Vec<&str> = explained.instances.iter().map(|instance| instance.id.as_str()).collect();
    assert_eq!(ids, ["w2"]);
}

#[test]
fn dig_resolves_the_names_of_consul() {
    const TEST: &str = "dig_resolves_the_names_of_consul";
    if !skip::tool(TEST, "dig", "bind9-dnsutils") {
        return;
    }
    let config =
        "alias_domains: [{domain: consul, scheme: consul}]\ndns: {listen: [127.0.0.1:0], ptr_domain: consul}\n";
    let agent = Agent::start_with(config, &[], |folder| {
        let text = "{service: web, id: w1, port: 8080, tags: [v1]}\n";
        std::fs::write(folder.join("services.d/web.yaml"), text).unwrap();
    });
    agent.wait_for_answers("web.service.consul", rtype::A, &["A 10.0.0.7"]);
    let port = agent.address().port().to_string();
    let dig = |question: &[&str]| {
        let output =
            process::command("dig").args(["@127.0.0.1", "-p", &port, "+short"]).args(question).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    };
    let cases: [(&[&str], &str); 10] = [
        (&["web.service.consul"], "10.0.0.7"),
        (&["web.service.dc1.consul"], "10.0.0.7"),
        (&["SRV", "v1.web.service.consul"], "1 10 8080 host-a.node.dc1.consul."),
        (&["SRV", "_web._tcp.consul"], "1 10 8080 host-a.node.dc1.consul."),
        (&["host-a.node.dc1.consul"], "10.0.0.7"),
        (&["TXT", "host-a.node.consul"], "\"datacenter=dc1\""),
        (&["0a000007.addr.dc1.consul"], "10.0.0.7"),
        (&["NS", "consul"], "host-a.node.dc1.consul."),
        (&["-x", "10.0.0.7"], "host-a.node.dc1.consul."),
        (&["web.service.dc9.consul"], ""),
    ];
    for (question, expected) in cases {
        assert_eq!(dig(question), expected, "{question:?}");
    }
}
