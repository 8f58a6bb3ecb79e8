//! Copies of the generated zones: a transferred zone equals what is answered, name by name, and differences lead from one version
//! to the next.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
};

use hickory_proto::{rr::Record, serialize::binary::BinEncodable};
use muster::{
    dns::{
        answer::contents::ZoneRrset,
        engine::{Engine, Transport},
        message::codes::rtype,
        transfer::journal::Journal,
        zone::{Settings, Tables, static_names::Zone},
    },
    model::{
        alias_domain::AliasDomain,
        announcement::Node,
        catalog::{Catalog, Freshness, NodeView, Touched, View},
        external_node::ExternalNode,
        name::{Label, Name},
        registered_name::RegisteredName,
    },
};
use proptest::prelude::*;
use support::{
    decode, label,
    views::{PLACES, view},
};

/// The discovery zone, an alias with its names, and one with the names of Consul.
const ZONES: [&str; 3] = ["service.local", "svc.example", "consul"];
/// Types of generated records.
const TYPES: [u16; 8] =
    [rtype::A, rtype::AAAA, rtype::SRV, rtype::TXT, rtype::PTR, rtype::NS, rtype::SVCB, rtype::HTTPS];

type Records = BTreeSet<(Vec<u8>, u16, u32, Vec<u8>)>;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn tables() -> Tables {
    Tables::new(Settings {
        aliases: vec![AliasDomain::new(name(ZONES[1])), AliasDomain::consul(name(ZONES[2]))],
        zone: Some(label(PLACES[0].1)),
        ..Settings::new(label("host-a"), label("dc1"), name(ZONES[0]))
    })
}

fn zone<'t>(tables: &'t Tables, origin: &str) -> &'t Zone {
    tables.zone_named(name(origin).wire()).unwrap()
}

/// Returns the records of an RRset with absolute names. Names of DNS have no letter case.
fn absolute(set: &ZoneRrset, zone: &Zone) -> Records {
    let owner = [&*set.owner, zone.origin.wire()].concat().to_ascii_lowercase();
    set.rdata.iter().map(|rdata| (owner.clone(), set.rtype, set.ttl, lower_case(set.rtype, rdata))).collect()
}

/// A compressed name in RDATA takes the letter case of the question.
fn lower_case(of: u16, rdata: &[u8]) -> Vec<u8> {
    if of == rtype::TXT { rdata.to_vec() } else { rdata.to_ascii_lowercase() }
}

/// Returns all records of a zone as a transfer has them, except the SOA. No record is there twice.
fn copy(tables: &Tables, zone: &Zone) -> Records {
    let mut records = Records::new();
    let all = tables.visit_zone(zone, |set| {
        for record in absolute(&set, zone) {
            assert!(records.insert(record.clone()), "twice: {record:?}");
        }
        Ok::<(), Infallible>(())
    });
    all.unwrap();
    records
}

/// Returns the records of an answer.
fn answered(tables: &Tables, owner: &[u8], qtype: u16) -> Records {
    let mut packet = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    packet.extend(owner);
    packet.extend([qtype.to_be_bytes(), 1u16.to_be_bytes()].concat());
    let mut out = Vec::new();
    Engine::new(1232, fastrand::Rng::with_seed(7)).respond(tables, &packet, Transport::Tcp, &mut out).unwrap();
    let record = |record: &Record| {
        let rdata = lower_case(qtype, &record.data.to_bytes().unwrap());
        (owner.to_vec(), record.record_type().into(), record.ttl, rdata)
    };
    decode(&out).answers.iter().map(record).collect()
}

/// Reports whether a name only makes the name above it exist.
fn is_placeholder(owner: &[u8]) -> bool {
    owner.starts_with(b"\x04_why")
}

/// Returns the target of a record; `None` if the type has none.
fn target(of: u16, rdata: &[u8]) -> Option<&[u8]> {
    match of {
        rtype::SRV => Some(&rdata[6..]),
        rtype::NS | rtype::PTR => Some(rdata),
        _ => None,
    }
}

/// Names in the scheme of Consul that may exist, relative to the zone.
fn names_of_consul() -> Vec<String> {
    let labels = ["web", "db", "a", "tcp", "udp", "v2", "x-1", "host-a", "host-b", "https", "db1"];
    let mut names = Vec::new();
    for datacenter in ["", ".dc1", ".dc2", ".dc1.dc", ".dc2.dc"] {
        for service in ["web", "db", "tcp", "a"] {
            names.push(format!("{service}.service{datacenter}"));
            for label in labels {
                names.push(format!("{label}.{service}.service{datacenter}"));
                names.push(format!("_{service}._{label}{datacenter}"));
                names.push(format!("_{service}._{label}.service{datacenter}"));
                names.push(format!("_{label}._tcp.{service}.service{datacenter}"));
                names.push(format!("_{label}._udp.{service}.service{datacenter}"));
            }
        }
        names.extend(labels.map(|label| format!("{label}.node{datacenter}")));
    }
    names
}

fn wire(relative: &str, origin: &str) -> Vec<u8> {
    let labels = relative.split('.').chain(origin.split('.'));
    labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).chain([0]).collect()
}

/// Tables of several views, one after the other, with the changes between them.
fn publish(views: &[View]) -> (Vec<Arc<Tables>>, Journal) {
    let (mut catalog, mut tables, mut journal) = (Catalog::default(), tables(), Journal::default());
    let mut versions = Vec::new();
    for (serial, view) in (1..).zip(views) {
        let before = tables.clone();
        let touched = catalog.update(view.clone());
        tables.update(&catalog, &touched);
        tables.set_serial(serial);
        let services = tables.affected_services(&catalog, &touched).into_iter().cloned().collect();
        journal.push(&before, &tables, true, Touched { services, ..touched }, false);
        versions.push(Arc::new(tables.clone()));
    }
    (versions, journal)
}

/// Applies the differences from each earlier version to its copy, which must then be the newest one.
fn check_differences(views: &[View]) -> Result<(), TestCaseError> {
    let (mut versions, journal) = publish(views);
    let newest = versions.pop().unwrap();
    for origin in ZONES {
        let zone_now = zone(&newest, origin);
        for old in &versions {
            let zone_then = zone(old, origin);
            let mut records = copy(old, zone_then);
            let found = journal.differences(&newest, zone_now, old.serial()).expect("differences");
            for set in &found.removed {
                for record in absolute(set, zone_then) {
                    prop_assert!(records.remove(&record), "removed: {record:?}");
                }
            }
            for set in &found.added {
                for record in absolute(set, zone_now) {
                    prop_assert!(records.insert(record.clone()), "added: {record:?}");
                }
            }
            prop_assert_eq!(&records, &copy(&newest, zone_now), "{} from {}", origin, old.serial());
        }
    }
    Ok(())
}

/// A member at 10.0.0.1, with an external node if that is named.
fn at_shared_address(
    name: &str,
    datacenter: &str,
    freshness: Freshness,
    external: Option<&str>,
) -> (Label, Arc<NodeView>) {
    let addresses = vec!["10.0.0.1".parse().unwrap()];
    let external = external.map(|name| {
        let name = RegisteredName::parse(name).unwrap();
        (name.clone(), Arc::new(ExternalNode::new(name, addresses.clone())))
    });
    let node = Node {
        name: label(name),
        addresses: if external.is_some() { Vec::new() } else { addresses.clone() },
        datacenter: label(datacenter),
        zone: None,
        meta: Default::default(),
        checks: None,
    };
    let external = external.into_iter().collect();
    (label(name), Arc::new(NodeView { external, node: Arc::new(node), announcements: Default::default(), freshness }))
}

/// The first node at an address has its name: another node that comes or goes changes the datacenter of that name.
#[test]
fn differences_have_the_names_of_shared_addresses() {
    use Freshness::{Gone, LastKnown, Live};
    type Nodes = Vec<(Label, Arc<NodeView>)>;
    let web = || at_shared_address("web", "dc1", Live, None);
    let other = |freshness| at_shared_address("host-a", "dc2", freshness, None);
    let external = |name| at_shared_address("host-b", "dc2", Live, Some(name));
    let cases: [(&str, Nodes, Nodes); 5] = [
        ("a node comes", vec![web()], vec![web(), other(Live)]),
        ("a node returns", vec![web(), other(Gone)], vec![web(), other(Live)]),
        ("a node is last known", vec![web(), other(Live)], vec![web(), other(LastKnown)]),
        ("a node is replaced by an external one", vec![web(), external("db1")], vec![external("db1")]),
        ("an external node comes", vec![other(Live)], vec![other(Live), external("db1")]),
    ];
    for (case, one, another) in cases {
        let [one, another] = [one, another].map(|nodes| nodes.into_iter().collect::<View>());
        for views in [[&one, &another], [&another, &one]] {
            check_differences(&views.map(Clone::clone)).unwrap_or_else(|error| panic!("{case}: {error}"));
        }
        // What came and went leaves nothing.
        check_differences(&[one.clone(), another, one]).unwrap_or_else(|error| panic!("{case}, and back: {error}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn copy_has_what_is_answered(view in view()) {
        let (versions, _) = publish(&[view]);
        let tables = &versions[0];
        for origin in ZONES {
            let mut copied: BTreeMap<Vec<u8>, Records> = BTreeMap::new();
            for record in copy(tables, zone(tables, origin)) {
                copied.entry(record.0.clone()).or_default().insert(record);
            }
            for (owner, records) in copied.iter().filter(|(owner, _)| !is_placeholder(owner)) {
                let all: Records = TYPES.iter().flat_map(|qtype| answered(tables, owner, *qtype)).collect();
                prop_assert_eq!(&all, records, "{}", String::from_utf8_lossy(owner));
                for (_, of, _, rdata) in records {
                    if let Some(target) = target(*of, rdata).filter(|target| target.ends_with(name(origin).wire())) {
                        prop_assert!(copied.contains_key(target), "no target {}", String::from_utf8_lossy(target));
                    }
                }
            }
        }
    }

    #[test]
    fn copy_has_all_names_of_consul(view in view()) {
        let (versions, _) = publish(&[view]);
        let tables = &versions[0];
        let copied: BTreeSet<Vec<u8>> =
            copy(tables, zone(tables, "consul")).into_iter().map(|(owner, ..)| owner).collect();
        for name in names_of_consul() {
            let owner = wire(&name, "consul");
            let exists = !answered(tables, &owner, rtype::ANY).is_empty();
            prop_assert_eq!(copied.contains(&owner), exists, "{}", name);
        }
    }

    #[test]
    fn differences_lead_from_each_view_to_the_newest(views in prop::collection::vec(view(), 2..5)) {
        check_differences(&views)?;
    }
}
