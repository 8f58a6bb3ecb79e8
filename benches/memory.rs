//! Memory of the cluster state in a process, by layer: `cargo bench --bench memory`.
//!
//! 200 nodes have 500 instances each, then one node has 100,000; 1,000 services have 100 instances each. An instance has an
//! address, a port, a tag and one entry of `meta`. The DNS tables are measured without and with an alias domain in the scheme of
//! Consul, for which services with instances in several datacenters have records for each of them. Prints the octets per instance that each layer allocates on top of the layers
//! before it, as requested: the allocator's overhead is not in the figures, so they are the same in every profile.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot continue ends")]

use std::{net::IpAddr, sync::Arc};

use allocation_counter::measure;
use chitchat::NodeState;
use muster::{
    dns::zone::{Settings, Tables},
    gossip::peer_replica::{Change, Replica},
    model::{
        alias_domain::AliasDomain,
        announcement::{InstanceState, Node},
        catalog::{Catalog, Freshness, NodeView, Touched, View},
        name::{Label, Name},
        service::{Instance, InstanceKey},
        shared_lists::SharedLists,
    },
    record::Record,
};

const INSTANCES: usize = 100_000;
const SERVICES: usize = 1000;

fn main() {
    for nodes in [200, 1] {
        layers(nodes);
    }
}

fn layers(nodes: usize) {
    println!("{nodes} nodes with {} instances each", INSTANCES / nodes);
    let mut lists = SharedLists::default();
    let (mut states, mut replicas, mut view) = (Vec::new(), Vec::new(), View::new());
    let (mut catalog, mut touched, mut tables) = (Catalog::default(), Touched::default(), empty_tables());
    print("gossip: keys and values", || {
        states = (0..nodes).map(|node| state(node, INSTANCES / nodes)).collect();
    });
    print("replicas of the peers", || replicas = states.iter().map(|state| replica(state, &mut lists)).collect());
    print("view", || {
        let shown = |(node, replica): (usize, &Replica)| {
            let name = label(&format!("n{node}"));
            let node = Arc::new(replica.facts.as_ref().unwrap().node(&name, None));
            let announcements = replica.announcements.clone();
            (name, Arc::new(NodeView { external: Default::default(), node, announcements, freshness: Freshness::Live }))
        };
        view = replicas.iter().enumerate().map(shown).collect();
    });
    print("catalog", || touched = catalog.update(view.clone()));
    print("DNS tables", || tables.update(&catalog, &touched));
    for (what, view) in [("one datacenter", view.clone()), ("two datacenters", in_two_datacenters(&view))] {
        let (mut catalog, mut tables) = (Catalog::default(), tables_with_consul_names());
        let touched = catalog.update(view);
        print(&format!("DNS tables for Consul, {what}"), || tables.update(&catalog, &touched));
    }
    let snapshot = print("snapshot of the API", || catalog.clone());
    assert_eq!(snapshot.services().count(), SERVICES);
    let again = print("the same state, delivered again", || {
        for (replica, state) in replicas.iter_mut().zip(&states) {
            gossip(replica, state, &mut lists);
        }
        replicas.iter().map(|replica| replica.announcements.len()).sum::<usize>()
    });
    assert_eq!(again, INSTANCES);
}

/// Runs a step and prints what it has allocated and not released.
fn print<T>(layer: &str, step: impl FnOnce() -> T) -> T {
    let mut result = None;
    let allocated = measure(|| result = Some(step()));
    let each = |octets: i64| octets as f64 / INSTANCES as f64;
    println!(
        "{layer:<32} {:>7.0} octets, at most {:>7.0}",
        each(allocated.bytes_current),
        each(allocated.bytes_max as i64)
    );
    result.unwrap()
}

/// Returns what chitchat stores of a node, in the order in which a node announces.
fn state(node: usize, instances: usize) -> NodeState {
    let mut state = NodeState::for_test();
    let mut set = |record: &Record| {
        let (key, value) = record.encode();
        state.set(key, value);
    };
    for at in 0..instances {
        let instance = Arc::new(instance(node, node * instances + at));
        set(&Record::State(instance.key.clone(), InstanceState::Passing));
        set(&Record::Instance(instance));
    }
    set(&Record::Node {
        addresses: vec![address(node)],
        datacenter: label("dc1"),
        zone: None,
        version: "0.1.0".to_owned(),
        meta: Default::default(),
        ttl: Some(5),
    });
    state
}

fn replica(state: &NodeState, lists: &mut SharedLists) -> Replica {
    let mut replica = Replica::default();
    gossip(&mut replica, state, lists);
    replica
}

fn gossip(replica: &mut Replica, state: &NodeState, lists: &mut SharedLists) {
    let mut entries: Vec<_> = state.key_values_including_deleted().collect();
    entries.sort_by_key(|(_, value)| value.version);
    let change = |(key, value)| {
        let value: &chitchat::VersionedValue = value;
        Change { key, version: value.version, value: Some(&value.value) }
    };
    replica.gossiped(state.max_version(), true, entries.into_iter().map(change), lists, |key, error| {
        panic!("{key}: {error}")
    });
    replica.complete();
}

fn instance(node: usize, number: usize) -> Instance {
    let service = format!("service-{}", number % SERVICES);
    let key = InstanceKey { service: label(&service).into(), id: label(&format!("{service}-n{node}-{number}")) };
    Instance {
        port: Some(8000 + (number % 1000) as u16),
        tags: vec!["v2".to_owned()].into(),
        meta: [("version", "2.3.1")].into(),
        ..Instance::new(key, vec![address(node)])
    }
}

fn address(node: usize) -> IpAddr {
    [10, 0, (node / 250) as u8, (node % 250) as u8 + 1].into()
}

fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

fn settings() -> Settings {
    Settings::new(label("n0"), label("dc1"), Name::parse("service.local").unwrap())
}

fn empty_tables() -> Tables {
    Tables::new(settings())
}

fn tables_with_consul_names() -> Tables {
    Tables::new(Settings { aliases: vec![AliasDomain::consul(Name::parse("consul").unwrap())], ..settings() })
}

/// Moves every second node to another datacenter.
fn in_two_datacenters(view: &View) -> View {
    let moved = |(at, (name, known)): (usize, (&Label, &Arc<NodeView>))| {
        let datacenter = label(if at % 2 == 0 { "dc1" } else { "dc2" });
        let node = Arc::new(Node { datacenter, ..Node::clone(&known.node) });
        (name.clone(), Arc::new(NodeView { node, ..NodeView::clone(known) }))
    };
    view.iter().enumerate().map(moved).collect()
}
