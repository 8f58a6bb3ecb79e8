//! Very large services: replies decode, and contain only correct records.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    op::Message,
    rr::{RData, RecordType},
};
use muster::{
    dns::{
        engine::{Client, Engine, Origin, Transport},
        zone::{Settings, Tables},
    },
    model::{
        announcement::{Announcement, Announcements, InstanceState, Node},
        catalog::{Catalog, Freshness, NodeView, View},
        name::Name,
        service::{Instance, InstanceKey},
    },
};
use support::{Ask, decode, label};

/// Returns tables of a service `web` with `addresses` addresses per instance; 0 puts all instances at one address.
fn tables(instances: u32, addresses: u32) -> Tables {
    let announcements: Announcements = (0..instances)
        .map(|number| {
            let key = InstanceKey { service: label("web").into(), id: label(&format!("i{number}")) };
            let of = |at: u32| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number * addresses + at));
            let instance = Instance {
                port: Some(80),
                ..Instance::new(key, if addresses == 0 { vec![of(0)] } else { (0..addresses).map(of).collect() })
            };
            Announcement::new(Arc::new(instance), InstanceState::Passing).into_entry()
        })
        .collect();
    let node = Node {
        name: label("host-a"),
        addresses: vec![],
        datacenter: label("dc1"),
        zone: None,
        meta: Default::default(),
        checks: None,
    };
    let view = View::unit(
        label("host-a"),
        Arc::new(NodeView {
            external: Default::default(),
            node: Arc::new(node),
            announcements,
            freshness: Freshness::Live,
        }),
    );
    let domain = Name::parse("service.local").unwrap();
    let settings = Settings::new(label("host-a"), label("dc1"), domain);
    let mut catalog = Catalog::default();
    let touched = catalog.update(view);
    let mut tables = Tables::new(settings);
    tables.update(&catalog, &touched);
    tables
}

fn ask(tables: &Tables, name: &str, qtype: u16, transport: Transport) -> Message {
    let mut out = Vec::new();
    let packet = Ask { name: name.into(), qtype, edns: Some(1232), dnssec_ok: false }.packet(1);
    Engine::new(1232, fastrand::Rng::with_seed(1)).respond(tables, &packet, transport, &mut out).unwrap();
    decode(&out)
}

#[test]
fn owner_names_beyond_the_pointer_range_are_uncompressed() {
    // RFC 1035 §4.1.4: a pointer offset has 14 bits.
    let message = ask(&tables(1000, 1), "web.service.local.", 33, Transport::Tcp);
    assert!(!message.metadata.truncation);
    let targets: BTreeSet<String> = message
        .answers
        .iter()
        .map(|record| match &record.data {
            RData::SRV(srv) => srv.target.to_string(),
            other => panic!("{other} among SRV records"),
        })
        .collect();
    assert_eq!(targets.len(), 1000);
    let addresses: Vec<_> = message.additionals.iter().filter(|r| r.record_type() == RecordType::A).collect();
    assert!(addresses.len() > 600, "{} addresses", addresses.len());
    for record in addresses {
        let name = record.name.to_string();
        assert!(targets.contains(&name), "{name}");
        let number: u32 = name[1..].split('.').next().unwrap().parse().unwrap();
        assert_eq!(record.data.to_string(), Ipv4Addr::from(0x0a00_0000 + number).to_string());
    }
}

#[test]
fn oversized_answers_are_truncated_with_tc() {
    for (instances, addresses) in [(5000, 1), (20, 300)] {
        let tables = tables(instances, addresses);
        for (qtype, transport) in [(33, Transport::Tcp), (33, Transport::Udp), (1, Transport::Tcp), (1, Transport::Udp)]
        {
            let message = ask(&tables, "web.service.local.", qtype, transport);
            let all = if qtype == 33 { instances } else { instances * addresses };
            assert_eq!(message.metadata.truncation, message.answers.len() < all as usize);
            assert!(message.answers.len() >= 20);
        }
    }
}

#[test]
fn pointers_to_very_many_instances_are_truncated_with_tc() {
    let tables = tables(10_000, 1);
    for (transport, least) in [(Transport::Udp, 50), (Transport::Tcp, 2_500)] {
        let message = ask(&tables, "_web._tcp.service.local.", 12, transport);
        assert!(message.metadata.truncation);
        assert!(message.answers.len() >= least, "{transport:?}: {} records", message.answers.len());
    }
}

/// RFC 6763 §12.1: SRV, TXT and addresses of the instances, as far as they fit.
#[test]
fn names_of_instances_beyond_the_pointer_range_are_uncompressed() {
    let message = ask(&tables(1000, 1), "_web._tcp.service.local.", 12, Transport::Tcp);
    assert!(!message.metadata.truncation);
    let instances: BTreeSet<String> = message.answers.iter().map(|record| record.data.to_string()).collect();
    assert_eq!(instances.len(), 1000);
    let of = |rtype| message.additionals.iter().filter(move |r| r.record_type() == rtype).map(|r| r.name.to_string());
    let described: Vec<String> = of(RecordType::SRV).collect();
    assert!(described.len() > 300, "{} SRV records", described.len());
    assert!(described.iter().all(|name| instances.contains(name)));
    assert!(of(RecordType::TXT).all(|name| instances.contains(&name)));
    assert!(of(RecordType::A).all(|name| name.ends_with(".web.service.local.")));
}

/// HAProxy ignores TC, and removes servers that are missing from the answer.
#[test]
fn truncated_answer_is_stable_per_client() {
    let tables = tables(100, 1);
    for qtype in [33, 1] {
        let packet = Ask { name: "web.service.local.".into(), qtype, edns: Some(1232), dnssec_ok: false }.packet(1);
        let kept = |client: u8, seed: u64| {
            let client = Client { address: IpAddr::from([10, 0, 0, client]), now: Duration::ZERO };
            let origin = Origin { transport: Transport::Udp, client: Some(client) };
            let mut out = Vec::new();
            Engine::new(1232, fastrand::Rng::with_seed(seed)).respond(&tables, &packet, origin, &mut out).unwrap();
            let message = decode(&out);
            assert!(message.metadata.truncation);
            message.answers.iter().map(|record| record.data.to_string()).collect::<BTreeSet<_>>()
        };
        let clients: Vec<_> = (0..50).map(|client| kept(client, 1)).collect();
        for (client, first) in clients.iter().enumerate() {
            assert_eq!(kept(client as u8, 2), *first, "{qtype} {client}");
        }
        let all: BTreeSet<&String> = clients.iter().flatten().collect();
        assert_eq!(all.len(), 100, "{qtype}: the clients together get all records");
    }
}

#[test]
fn number_of_ptr_records_is_bounded() {
    let message = ask(&tables(5000, 0), "0.0.0.10.in-addr.arpa.", 12, Transport::Tcp);
    assert_eq!(message.answers.len(), 32);
}
