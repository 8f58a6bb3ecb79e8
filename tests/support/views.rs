//! Random views of a cluster, for properties of what is answered.
//!
//! The set of labels is small, so that ids, tags, services, ports and reserved words collide.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use muster::model::{
    alpn::PortAlpn,
    announcement::{Announcement, InstanceState, Node},
    catalog::{Freshness, NodeView, View},
    external_node::ExternalNode,
    health::Status,
    name::Label,
    registered_name::RegisteredName,
    service::{Instance, InstanceKey, Protocol},
};
use proptest::prelude::*;

use super::label;

/// Datacenters and zones of nodes; an empty zone is none. The node that answers is in the first one.
pub const PLACES: [(&str, &str); 4] = [("dc1", "z1"), ("dc1", "z2"), ("dc1", ""), ("dc2", "z1")];

/// Names of external nodes: one of its own, one that is no label, and that of a member.
pub const EXTERNAL: [&str; 3] = ["db1", "rack 1/db", "host-b"];

/// Ids as people write them: two that are names in DNS-SD unless two instances have the same, one that differs from labels in its
/// letter case, and one that is its label.
const WRITTEN: [&str; 4] = ["Web One", "v1.2", "WEB", "web"];

/// Returns one of the labels of ids, tags and ports.
pub fn labels() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["web", "db", "a", "tcp", "udp", "v2", "x-1", "host-a", "host-b"])
}

fn addresses() -> impl Strategy<Value = Vec<IpAddr>> {
    let one = prop::sample::select(vec!["10.0.0.1", "10.0.0.2", "192.0.2.7", "fd00::1", "2001:db8::2"]);
    prop::collection::btree_set(one, 1..4).prop_map(|set| set.into_iter().map(|a| a.parse().unwrap()).collect())
}

fn state() -> impl Strategy<Value = InstanceState> {
    prop_oneof![
        4 => Just(InstanceState::Passing),
        1 => Just(InstanceState::new(Status::Warning, "slow")),
        2 => Just(InstanceState::new(Status::Critical, "connection refused")),
        1 => Just(InstanceState::Disabled),
    ]
}

prop_compose! {
    fn announcement()(
        service in prop::sample::select(vec!["web", "db", "tcp", "a"]),
        id in labels(),
        addresses in addresses(),
        port in prop::option::of(1..u16::MAX),
        ports in prop::collection::btree_map(prop_oneof![labels(), Just("https")], 1..u16::MAX, 0..3),
        alpn in prop::collection::vec(prop::option::weighted(0.3, prop::sample::select(vec!["h2", "h3,http/1.1"])), 4),
        written in prop::option::weighted(0.3, prop::sample::select(WRITTEN.to_vec())),
        udp in prop::bool::weighted(0.2),
        tags in prop::collection::btree_set(prop_oneof![labels(), Just("no label!"), Just("V2")], 0..4),
        meta in prop::collection::btree_map("[a-z]{1,4}", "[ -~]{0,12}", 0..3),
        weight in prop::sample::select(vec![0, 1, 10, 65535]),
        priority in 0u16..3,
        ttl in prop::option::of(0u32..100),
        state in state(),
        nearest in prop::option::weighted(0.3, prop::sample::select(vec!["none", "zone", "datacenter"])),
        min_healthy in prop::option::weighted(0.2, prop::sample::select(vec!["1", "2", "34%", "50%", "100%"])),
        external in prop::option::weighted(0.2, prop::sample::select(EXTERNAL.to_vec())),
    ) -> Announcement {
        let key = InstanceKey { service: label(service).into(), id: label(id) };
        let own = port.map(|_| None).into_iter();
        let alpn: Vec<PortAlpn> = own
            .chain(ports.keys().map(|name| Some(label(name))))
            .zip(alpn)
            .filter_map(|(port, ids)| Some(PortAlpn { port, ids: ids?.parse().unwrap() }))
            .collect();
        let instance = Instance {
            external: external.map(|name| Box::new(RegisteredName::parse(name).unwrap())),
            tag_override: false,
            key,
            addresses: addresses.into(),
            port,
            ports: ports.into_iter().map(|(name, port)| (label(name), port)).collect(),
            protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
            tags: tags.into_iter().map(str::to_owned).collect(),
            meta: meta.into(),
            priority,
            weight,
            ttl,
            nearest: nearest.map(|text| text.parse().unwrap()),
            min_healthy: min_healthy.map(|text| text.parse().unwrap()),
            alpn: alpn.into(),
            registered_as: written.map(Into::into),
            service_case: None,
            tagged: Default::default(),
            host: None,
        };
        Announcement::new(Arc::new(instance), state)
    }
}

/// Returns the view of a cluster of up to three nodes, of which one is not gone.
pub fn view() -> impl Strategy<Value = View> {
    let freshness =
        prop_oneof![3 => Just(Freshness::Live), 1 => Just(Freshness::LastKnown), 1 => Just(Freshness::Gone)];
    let place = prop::sample::select(PLACES.to_vec());
    let external = prop::collection::btree_map(prop::sample::select(EXTERNAL.to_vec()), addresses(), 0..3);
    let node = (addresses(), prop::collection::vec(announcement(), 0..8), (freshness, place, external));
    let views = prop::collection::btree_map(prop::sample::select(vec!["host-a", "host-b", "web"]), node, 1..=3);
    // The node that answers is not gone.
    let views = views.prop_filter("all nodes are gone", |nodes: &BTreeMap<_, (_, _, (Freshness, _, _))>| {
        nodes.values().any(|(_, _, (freshness, _, _))| *freshness != Freshness::Gone)
    });
    views.prop_map(|nodes| {
        type External = BTreeMap<&'static str, Vec<IpAddr>>;
        type Generated = (Vec<IpAddr>, Vec<Announcement>, (Freshness, (&'static str, &'static str), External));
        let one = |(name, (addresses, announcements, (freshness, place, external))): (&str, Generated)| {
            let node = Node {
                name: label(name),
                addresses,
                datacenter: label(place.0),
                zone: Label::parse(place.1).ok(),
                meta: Default::default(),
                checks: None,
            };
            let announcements = announcements.into_iter().map(Announcement::into_entry).collect();
            let external = external.into_iter().map(|(name, addresses)| {
                let name = RegisteredName::parse(name).unwrap();
                (name.clone(), Arc::new(ExternalNode::new(name, addresses)))
            });
            let external = external.collect();
            (label(name), Arc::new(NodeView { external, node: Arc::new(node), announcements, freshness }))
        };
        nodes.into_iter().map(one).collect()
    })
}
