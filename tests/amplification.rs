//! Size of replies over UDP to clients outside `resolver.allow`, whose addresses may be forged, and the texts they receive.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{net::IpAddr, num::NonZero, path::Path, sync::Arc, time::Duration};

use hickory_proto::op::{Message, ResponseCode};
use muster::{
    dns::{
        engine::{Audience, Client, Engine, Origin, Settings, Transport, rrl::ResponseRateLimiter},
        message::codes::rtype,
        recursion::{Recursion, cache::Cache, loop_detection::LoopDetector},
        zone::Tables,
    },
    files::zone_file,
    model::{
        announcement::InstanceState,
        dns_limits::{CacheTtls, RateScope, ResponseRate},
        health::Status,
        recursion_access::ClientRange,
    },
};
use support::{Ask, decode, extended_error, world};

const OUTSIDE: &str = "198.51.100.9";
const ALLOWED: &str = "10.0.0.9";
const REASON: &str = "connection to 10.0.0.61 port 5432 refused";

/// `web` with 60 instances; `db` with a critical one, and a zone file with a long RRset beside a short one.
fn tables() -> Tables {
    let instances: String = (0..60)
        .map(|at| format!("- {{service: web, id: w{at}, address: 10.0.0.{at}, port: 80, meta: {{rack: r{at}}}}}\n"))
        .collect();
    let services = format!("services:\n{instances}- {{service: db, id: d1, address: 10.0.0.61, port: 5432}}\n");
    let mut tables = world::tables_with_states(&services, |key| match key.service.as_str() {
        "db" => InstanceState::new(Status::Critical, REASON),
        _ => InstanceState::Passing,
    });
    let text = "long text ".repeat(24);
    let records: String = (0..4).map(|at| format!("big TXT \"{at} {text}\"\n")).collect();
    let addresses: String = (0..40).map(|at| format!("many A 192.0.2.{at}\n")).collect();
    let zone = format!(
        "@ 60 SOA ns hostmaster 1 60 60 60 60\n@ NS ns\nns A 192.0.2.1\n{records}big A 192.0.2.9\n{addresses}many TXT x\n"
    );
    tables.set_zones(&[Arc::new(zone_file::parse(Path::new("example.org.zone"), zone.as_bytes(), 60).unwrap())]);
    tables
}

fn engine() -> Engine {
    engine_with(None)
}

fn engine_with(limit: Option<ResponseRateLimiter>) -> Engine {
    let ttls = CacheTtls { ttl: 60, negative_ttl: 60, stale: 0 };
    let recursion = Recursion {
        allow: vec![ClientRange::Loopback, ClientRange::Private],
        routes: vec![],
        rebind_protection: None,
        validation: None,
        cache: Arc::new(Cache::new(1 << 16, ttls)),
        loop_detector: Arc::new(LoopDetector::new(7)),
    };
    let settings = Settings {
        udp_payload: 1232,
        nsid: Box::default(),
        secret: None,
        limit,
        recursion: Some(Arc::new(recursion)),
        audience: Audience::Everyone,
        serves_transfers: false,
        serves_updates: false,
        signer: None,
    };
    Engine::with(Arc::new(settings), fastrand::Rng::with_seed(7))
}

/// Returns the octets of a query and of its reply, and the reply.
fn exchange(tables: &Tables, client: &str, name: &str, qtype: u16) -> (usize, usize, Message) {
    let packet = Ask { name: name.to_owned(), qtype, edns: Some(4096), dnssec_ok: false }.packet(7);
    let address: IpAddr = client.parse().unwrap();
    let client = Client { address, now: Duration::from_secs(1_700_000_000) };
    let mut reply = vec![];
    engine().respond(tables, &packet, Origin { transport: Transport::Udp, client: Some(client) }, &mut reply).unwrap();
    (packet.len(), reply.len(), decode(&reply))
}

/// Prints the factor of each kind of question (`--nocapture`). Questions whose answer the client cannot choose have small ones.
#[test]
fn replies_to_clients_outside_are_small() {
    let tables = tables();
    let cases: [(&str, u16, Option<usize>); 16] = [
        ("web.service.local.", rtype::ANY, None),
        ("w1.web.service.local.", rtype::ANY, Some(2)),
        ("host-a.node.service.local.", rtype::ANY, Some(2)),
        ("service.local.", rtype::ANY, Some(3)),
        ("_db._tcp.service.local.", rtype::ANY, Some(3)),
        ("big.example.org.", rtype::ANY, Some(2)),
        ("many.example.org.", rtype::ANY, Some(2)),
        ("big.example.org.", rtype::TXT, None),
        ("web.service.local.", rtype::A, None),
        ("_web._tcp.service.local.", rtype::SRV, None),
        ("_why.db.service.local.", rtype::TXT, Some(2)),
        ("_why.web.service.local.", rtype::TXT, Some(2)),
        ("db.service.local.", rtype::A, Some(3)),
        ("none.service.local.", rtype::A, Some(3)),
        ("service.local.", 48, Some(3)),
        ("www.example.com.", rtype::A, Some(2)),
    ];
    println!("| question | query | reply | factor |\n| --- | --- | --- | --- |");
    let mut large = vec![];
    for (name, qtype, most) in cases {
        let (query, reply, _) = exchange(&tables, OUTSIDE, name, qtype);
        println!("| {} {name} | {query} | {reply} | {:.1} |", rtype::name(qtype), reply as f64 / query as f64);
        if most.is_some_and(|most| reply > most * query) {
            large.push(format!("{} {name}: {query} octets, {reply} in reply", rtype::name(qtype)));
        }
    }
    assert!(large.is_empty(), "{large:#?}");
}

/// RFC 8482 §4.1.
#[test]
fn any_returns_the_smallest_rrset() {
    let tables = tables();
    for (name, expected) in [
        ("big.example.org.", "A"),
        ("many.example.org.", "TXT"),
        ("w1.web.service.local.", "A"),
        ("host-a.node.service.local.", "A"),
        ("ns.example.org.", "A"),
        ("example.org.", "NS"),
    ] {
        for client in [OUTSIDE, ALLOWED] {
            let (.., reply) = exchange(&tables, client, name, rtype::ANY);
            let types: Vec<String> = reply.answers.iter().map(|record| record.record_type().to_string()).collect();
            assert_eq!(types, [expected], "{name}");
        }
    }
}

#[test]
fn rate_limit_for_clients_outside_does_not_concern_clients_in_resolver_allow() {
    let tables = tables();
    let per_second = NonZero::new(50).unwrap();
    let answered = |scope, client: &str| {
        let rate = ResponseRate { per_second, scope, slip: 0, ipv4_prefix: 24, ipv6_prefix: 56 };
        let mut engine = engine_with(Some(ResponseRateLimiter::new(rate, &[ClientRange::Private], 7)));
        let packet = Ask { name: "db.service.local.".to_owned(), qtype: 1, edns: None, dnssec_ok: false }.packet(7);
        let client = Client { address: client.parse().unwrap(), now: Duration::from_secs(1_700_000_000) };
        let origin = Origin { transport: Transport::Udp, client: Some(client) };
        let mut reply = vec![];
        (0..200).filter(|_| engine.respond(&tables, &packet, origin, &mut reply).is_some()).count()
    };
    for (client, outside, all) in [(OUTSIDE, 50, 50), (ALLOWED, 200, 50), ("127.0.0.1", 200, 200), ("::1", 200, 200)] {
        assert_eq!(answered(RateScope::Outside, client), outside, "{client}");
        assert_eq!(answered(RateScope::All, client), all, "{client}");
    }
}

#[test]
fn reasons_are_for_clients_in_resolver_allow() {
    let tables = tables();
    for client in [ALLOWED, "127.0.0.1", "::1", "::ffff:10.0.0.9"] {
        let (.., why) = exchange(&tables, client, "_why.db.service.local.", rtype::TXT);
        assert!(!why.answers.is_empty(), "{client}");
        let (.., empty) = exchange(&tables, client, "db.service.local.", rtype::A);
        let (code, text) = extended_error(&empty).unwrap();
        assert_eq!((code, text.contains(REASON)), (14, true), "{client}: {text}");
    }
    for client in [OUTSIDE, "2001:db8::1"] {
        for name in ["_why.db.service.local.", "_why.d1.db.service.local.", "_why.web.service.local."] {
            for qtype in [rtype::TXT, rtype::ANY, rtype::A] {
                let (.., why) = exchange(&tables, client, name, qtype);
                assert_eq!(why.metadata.response_code, ResponseCode::Refused, "{client} {name}");
                assert_eq!(extended_error(&why), Some((18, String::new())), "{client} {name}");
                assert_eq!(why.answers.len() + why.authorities.len(), 0, "{client} {name}");
            }
        }
        let (.., empty) = exchange(&tables, client, "db.service.local.", rtype::A);
        assert_eq!(empty.metadata.response_code, ResponseCode::NoError);
        assert_eq!(extended_error(&empty), Some((14, String::new())), "{client}: the code without the text");
    }
}
