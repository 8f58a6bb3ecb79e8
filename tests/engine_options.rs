//! EDNS options and response rate limiting of the engine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{net::IpAddr, num::NonZero, path::Path, sync::Arc, time::Duration};

use muster::{
    dns::{
        engine::{
            Audience, Client, Decision, Engine, Origin, Settings, Transport,
            first_exchange::{Awaited, FirstExchange},
            rrl::ResponseRateLimiter,
        },
        message::{codes::Rcode, cookie::Secret},
        zone::Tables,
    },
    files::zone_file,
    model::{
        alias_domain::AliasDomain,
        dns_limits::{RateScope, ResponseRate},
        name::Name,
        recursion_access::ClientRange,
        zone::{Source, ZoneFile},
    },
};
use support::{Ask, world};

const NSID: u16 = 3;
const COOKIE: u16 = 10;
const KEEPALIVE: u16 = 11;
const PADDING: u16 = 12;
const NOW: Duration = Duration::from_secs(1_700_000_000);

fn tables() -> Tables {
    let instances: String =
        (0..60).map(|at| format!("- {{service: web, id: w{at}, address: 10.0.0.{at}, port: 80}}\n")).collect();
    world::tables(&format!("services:\n{instances}"))
}

fn engine(limit: Option<ResponseRate>) -> Engine {
    let limit = limit.map(|rate| ResponseRateLimiter::new(rate, &[ClientRange::Private], 7));
    let settings = Settings {
        udp_payload: 1232,
        nsid: b"host-a".as_slice().into(),
        secret: Some(Secret::new([7; 16])),
        limit,
        recursion: None,
        audience: Audience::Everyone,
        serves_transfers: false,
        serves_updates: false,
        signer: None,
    };
    Engine::with(Arc::new(settings), fastrand::Rng::with_seed(7))
}

fn from(address: &str, transport: Transport) -> Origin {
    let address: IpAddr = address.parse().unwrap();
    Origin { transport, client: Some(Client { address, now: NOW }) }
}

fn udp() -> Origin {
    from("192.0.2.1", Transport::Udp)
}

/// Returns a query for SRV of `web` with these EDNS options.
fn query(payload: u16, version: u8, options: &[(u16, &[u8])]) -> Vec<u8> {
    let options: Vec<u8> = options
        .iter()
        .flat_map(|(code, data)| [&code.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat())
        .collect();
    [
        &b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x03wEb\x07service\x05local\0\0\x21\0\x01\0\0\x29"[..],
        &payload.to_be_bytes(),
        &[0, version, 0, 0],
        &(options.len() as u16).to_be_bytes(),
        &options,
    ]
    .concat()
}

/// Returns the options of a reply's OPT record, which is its last record.
fn options(reply: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let message = support::decode(reply);
    assert!(message.edns.is_some(), "no OPT record in {reply:02x?}");
    let opt = (0..reply.len() - 10)
        .rev()
        .find(|at| {
            let rdlength = usize::from(u16::from_be_bytes([reply[at + 9], reply[at + 10]]));
            reply[*at..*at + 3] == [0, 0, 41] && at + 11 + rdlength == reply.len()
        })
        .expect("an OPT record at the end");
    let mut rest = &reply[opt + 11..];
    let mut found = vec![];
    while let [c0, c1, l0, l1, data @ ..] = rest {
        let (data, next) = data.split_at(usize::from(u16::from_be_bytes([*l0, *l1])));
        found.push((u16::from_be_bytes([*c0, *c1]), data.to_vec()));
        rest = next;
    }
    found
}

fn option(reply: &[u8], code: u16) -> Option<Vec<u8>> {
    options(reply).into_iter().find(|(found, _)| *found == code).map(|(_, data)| data)
}

#[test]
fn rfc_7873_5_2_replies_carry_server_cookies() {
    let (tables, mut engine, mut reply) = (tables(), engine(None), vec![]);
    let client = [1, 2, 3, 4, 5, 6, 7, 8];
    let mut ask = |origin, options: &[(u16, &[u8])]| {
        let rcode = engine.respond(&tables, &query(1232, 0, options), origin, &mut reply);
        (rcode, option(&reply, COOKIE))
    };
    assert_eq!(ask(udp(), &[]), (Some(Rcode::NoError), None), "§5.2.1: no cookie");
    let (rcode, given) = ask(udp(), &[(COOKIE, &client)]);
    let given = given.expect("§5.2.3: a server cookie for a client cookie");
    assert_eq!((rcode, &given[..8], given.len()), (Some(Rcode::NoError), &client[..], 24));
    for transport in [Transport::Udp, Transport::Tcp] {
        let origin = from("192.0.2.1", transport);
        assert_eq!(ask(origin, &[(COOKIE, &given)]).1.as_ref(), Some(&given), "§5.2.5: valid over {transport:?}");
    }
    let other_address = ask(from("192.0.2.2", Transport::Udp), &[(COOKIE, &given)]);
    assert_eq!(other_address.0, Some(Rcode::NoError), "§5.2.4: an invalid server cookie is not an error");
    assert_ne!(other_address.1, Some(given.clone()), "the reply carries a cookie for that address");
    assert_eq!(ask(udp(), &[(COOKIE, &client[..4])]).0, Some(Rcode::FormErr), "§5.2.2: invalid length");
    let twice = ask(udp(), &[(COOKIE, &given), (COOKIE, &client[..4])]);
    assert_eq!(twice, (Some(Rcode::NoError), Some(given)), "§5.2: only the first of two cookies counts");
}

#[test]
fn rfc_5001_2_2_nsid_is_sent_on_request() {
    let (tables, mut engine, mut reply) = (tables(), engine(None), vec![]);
    for (asked, expected) in [(&[(NSID, &b""[..])][..], Some(b"host-a".to_vec())), (&[], None)] {
        engine.respond(&tables, &query(1232, 0, asked), udp(), &mut reply);
        assert_eq!(option(&reply, NSID), expected);
    }
}

/// §3.2.1: the option is ignored over UDP.
#[test]
fn rfc_7828_3_3_1_idle_timeout_is_sent_on_request_over_tcp() {
    let (tables, mut engine, mut reply) = (tables(), engine(None), vec![]);
    let asked: &[(u16, &[u8])] = &[(KEEPALIVE, b"")];
    for (transport, options, expected) in [
        (Transport::Tcp, asked, Some(100_u16.to_be_bytes().to_vec())),
        (Transport::Tcp, &[], None),
        (Transport::Udp, asked, None),
    ] {
        engine.respond(&tables, &query(1232, 0, options), from("192.0.2.1", transport), &mut reply);
        assert_eq!(option(&reply, KEEPALIVE), expected, "{transport:?}");
    }
}

#[test]
fn rfc_6891_6_1_3_unknown_edns_version_gets_badvers_with_a_cookie() {
    let (tables, mut engine, mut reply) = (tables(), engine(None), vec![]);
    let rcode = engine.respond(&tables, &query(1232, 1, &[(COOKIE, &[1; 8])]), udp(), &mut reply);
    assert_eq!(rcode, Some(Rcode::BadVers));
    let message = support::decode(&reply);
    assert_eq!((message.edns.as_ref().unwrap().version(), message.answers.len()), (0, 0));
    assert_eq!(option(&reply, COOKIE).map(|cookie| cookie.len()), Some(24));
}

/// RFC 7830 §4: padding is for encrypted transports. RFC 6891 §6.1.2: unknown options are ignored.
#[test]
fn unsupported_options_do_not_change_the_reply() {
    let tables = tables();
    let answer = |options: &[(u16, &[u8])]| {
        let mut reply = vec![];
        engine(None).respond(&tables, &query(1232, 0, options), udp(), &mut reply);
        reply
    };
    let plain = answer(&[]);
    for (code, data) in [(PADDING, &[0; 400][..]), (KEEPALIVE, &[]), (65_001, b"x"), (8, &[0, 1, 24, 0, 192, 0, 2])] {
        assert_eq!(answer(&[(code, data)]), plain, "option {code}");
    }
}

/// RFC 7766 §3: UDP and TCP give equal answers.
#[test]
fn replies_that_fit_are_equal_over_udp_and_tcp() {
    let tables = world::tables(
        "services: [{service: web, id: a, address: 10.0.0.1, port: 80}, {service: web, id: b, address: 10.0.0.2, port: 80}]",
    );
    let names = ["web", "_web._tcp", "a.web", "nothing", "a.b.nothing", "host-a.node"];
    for (name, qtype) in names.iter().flat_map(|name| [1, 28, 33, 255, 6].map(|qtype| (name, qtype))) {
        let ask = Ask { name: format!("{name}.service.local"), qtype, edns: Some(1232), dnssec_ok: true };
        let [over_udp, over_tcp] = [Transport::Udp, Transport::Tcp].map(|transport| {
            let mut reply = vec![];
            // Both engines draw the same order.
            engine(None).respond(&tables, &ask.packet(7), from("192.0.2.1", transport), &mut reply);
            reply
        });
        assert_eq!(over_udp, over_tcp, "{name} {qtype}");
    }
}

/// Room for options is reserved before records are written.
#[test]
fn replies_with_options_respect_the_clients_limit() {
    let (tables, mut engine, mut reply) = (tables(), engine(None), vec![]);
    for payload in 512..1300 {
        let packet = query(payload, 0, &[(COOKIE, &[1; 8]), (NSID, &[])]);
        engine.respond(&tables, &packet, udp(), &mut reply);
        assert!(reply.len() <= usize::from(payload.min(1232)), "{} octets for {payload}", reply.len());
        let codes: Vec<u16> = options(&reply).into_iter().map(|(code, _)| code).collect();
        assert_eq!(codes, [NSID, COOKIE]);
        // The question keeps its letter case.
        assert_eq!(&reply[12..16], b"\x03wEb");
    }
}

#[test]
fn responses_above_the_rate_are_truncated_or_dropped() {
    let tables = tables();
    let rate = |slip| ResponseRate {
        per_second: NonZero::new(100).unwrap(),
        scope: RateScope::All,
        slip,
        ipv4_prefix: 24,
        ipv6_prefix: 56,
    };
    // Numbers of full replies, truncated replies (TC) and dropped replies.
    let flood = |engine: &mut Engine, packet: &[u8], origin: Origin| {
        let (mut full, mut truncated, mut dropped) = (0, 0, 0);
        let mut reply = vec![];
        for _ in 0..1100 {
            match engine.respond(&tables, packet, origin, &mut reply) {
                None => dropped += 1,
                Some(_) if reply[2] & 2 != 0 && reply[7] == 0 => {
                    assert!(reply.len() <= packet.len(), "truncated replies do not amplify");
                    assert!(support::decode(&reply).edns.is_some());
                    truncated += 1;
                }
                Some(_) => full += 1,
            }
        }
        (full, truncated, dropped)
    };
    let packet = query(1232, 0, &[]);
    assert_eq!(flood(&mut engine(Some(rate(0))), &packet, udp()), (100, 0, 1000), "slip 0");
    assert_eq!(flood(&mut engine(Some(rate(1))), &packet, udp()), (100, 1000, 0), "slip 1");
    let (full, truncated, dropped) = flood(&mut engine(Some(rate(2))), &packet, udp());
    assert_eq!((full, truncated + dropped), (100, 1000), "slip 2");
    assert!((400..600).contains(&truncated), "slip 2: {truncated} of 1000 truncated");

    let mut limited = engine(Some(rate(0)));
    let malformed = [&packet[..], b"junk"].concat();
    assert_eq!(flood(&mut limited, &malformed, udp()), (100, 0, 1000), "malformed queries count");
    assert_eq!(flood(&mut limited, &packet, from("192.0.2.99", Transport::Udp)).0, 0, "the /24 has used its rate");
    assert_eq!(
        flood(&mut limited, &packet, from("198.51.100.1", Transport::Udp)).0,
        100,
        "another network has its own rate"
    );
    assert_eq!(
        flood(&mut limited, &packet, from("192.0.2.1", Transport::Tcp)),
        (1100, 0, 0),
        "TCP is exempt: the address is verified"
    );
    assert_eq!(flood(&mut limited, &packet, from("127.0.0.1", Transport::Udp)), (1100, 0, 0), "loopback is exempt");

    let mut reply = vec![];
    engine(None).respond(&tables, &query(1232, 0, &[(COOKIE, &[1; 8])]), udp(), &mut reply);
    let given = option(&reply, COOKIE).unwrap();
    let with_cookie = query(1232, 0, &[(COOKIE, &given)]);
    assert_eq!(flood(&mut limited, &with_cookie, udp()), (1100, 0, 0), "a valid cookie is exempt");
}

/// A node without an address answers its own host with the loopback address, and no other host.
#[test]
fn audience_of_this_host_receives_names_of_services_and_nodes_only_from_loopback() {
    let (tables, mut reply) = (tables(), vec![]);
    let settings = Settings {
        udp_payload: 1232,
        nsid: Box::default(),
        secret: None,
        limit: None,
        recursion: None,
        audience: Audience::ThisHost,
        serves_transfers: false,
        serves_updates: false,
        signer: None,
    };
    let mut engine = Engine::with(Arc::new(settings), fastrand::Rng::with_seed(7));
    let mut ask = |name: &str, qtype, client| {
        let packet = Ask { name: name.to_owned(), qtype, edns: Some(1232), dnssec_ok: false }.packet(7);
        let rcode = engine.respond(&tables, &packet, from(client, Transport::Udp), &mut reply).unwrap();
        let message = support::decode(&reply);
        let ede = support::extended_error(&message).map(|(code, _)| code);
        (rcode, message.answers.len() + message.additionals.len(), ede)
    };
    for (name, qtype) in [("web.service.local.", 33), ("host-a.node.service.local.", 1), ("service.local.", 2)] {
        for client in ["127.0.0.1", "::1"] {
            assert_eq!(ask(name, qtype, client).0, Rcode::NoError, "{name} {client}");
        }
        for client in ["192.0.2.1", "2001:db8::1"] {
            assert_eq!(ask(name, qtype, client), (Rcode::Refused, 0, Some(14)), "{name} {client}");
        }
    }
    assert_eq!(ask("none.service.local.", 1, "192.0.2.1").0, Rcode::NxDomain);
}

#[test]
fn answers_that_a_peer_may_add_to_wait_for_the_first_exchange() {
    const OWN: &str = "{service: web, address: 10.0.0.1, port: 80}";
    let build = |services: &str| {
        let consul = AliasDomain::consul(Name::parse("consul").unwrap());
        world::tables_with_aliases(&format!("services: [{services}]"), vec![consul])
    };
    let own = build(OWN);
    let tables = build(&format!("{OWN}, {{service: db, address: 10.0.0.2, port: 80}}"));
    let first_exchange = Arc::new(FirstExchange::awaited(Awaited { own: Some(Arc::new(own)), updates: true }));
    let mut engine = engine(None).awaiting(Some(first_exchange.clone()));
    let waits = |engine: &mut Engine, name: &str, qtype| {
        let packet = Ask { name: name.to_owned(), qtype, edns: None, dnssec_ok: false }.packet(7);
        match engine.answer(&tables, &packet, udp(), &mut Vec::new()) {
            Decision::Await => true,
            Decision::Reply(_) => false,
            other => panic!("{name}: {other:?}"),
        }
    };
    // Of this node, or outside the zones.
    let at_once = [
        ("web-host-a.web.service.local.", 1),
        ("web-host-a.web.service.local.", 33),
        ("host-a.node.service.local.", 1),
        ("host-a.node.dc1.consul.", 1),
        ("web-host-a.web.service.consul.", 33),
        ("0a000009.addr.dc1.consul.", 1),
        ("example.org.", 1),
    ];
    let later = [
        ("db.service.local.", 1),
        ("web.service.local.", 1),
        ("_web._tcp.service.local.", 33),
        ("1.0.0.10.in-addr.arpa.", 12),
        ("web.service.local.", 28),
        ("none.service.local.", 1),
        ("service.local.", 6),
        ("2.0.0.10.in-addr.arpa.", 12),
        ("9.0.0.10.in-addr.arpa.", 12),
        ("web.service.consul.", 1),
        ("web.service.dc2.consul.", 1),
        ("host-b.node.consul.", 1),
        ("consul.", 2),
    ];
    for (name, qtype) in at_once {
        assert!(!waits(&mut engine, name, qtype), "{name} {qtype}");
    }
    for (name, qtype) in later {
        assert!(waits(&mut engine, name, qtype), "{name} {qtype}");
    }
    first_exchange.end();
    // The tables may be earlier ones.
    for (name, qtype) in later {
        assert!(waits(&mut engine, name, qtype), "{name} {qtype}");
    }
    assert!(engine.check_first_exchange());
    for (name, qtype) in at_once.into_iter().chain(later) {
        assert!(!waits(&mut engine, name, qtype), "{name} {qtype}");
    }
}

/// The copy of a node that crashed may lack updates that clients know to be carried out.
#[test]
fn answers_from_dynamic_zones_wait_for_the_store() {
    let mut tables = tables();
    let zone = |name: &str, source| {
        let text = "$TTL 60\n@ SOA ns h 1 1 1 1 1\n@ NS ns\nns A 192.0.2.1\nto CNAME ns.dyn.test.\n";
        let zone = zone_file::parse(Path::new(&format!("{name}.zone")), text.as_bytes(), 60).unwrap();
        Arc::new(ZoneFile { source, ..zone })
    };
    tables.set_zones(&[zone("dyn.test", Source::Updates), zone("static.test", Source::Files)]);
    let first_exchange = Arc::new(FirstExchange::awaited(Awaited { own: None, updates: true }));
    let mut engine = engine(None).awaiting(Some(first_exchange.clone()));
    let waits = |engine: &mut Engine, name: &str, qtype| {
        let packet = Ask { name: name.to_owned(), qtype, edns: None, dnssec_ok: false }.packet(7);
        matches!(engine.answer(&tables, &packet, udp(), &mut Vec::new()), Decision::Await)
    };
    let cases = [
        ("ns.dyn.test.", 1, true),
        ("none.dyn.test.", 1, true),
        ("ns.dyn.test.", 28, true),
        ("dyn.test.", 6, true),
        ("to.static.test.", 1, true),
        ("ns.static.test.", 1, false),
        ("none.static.test.", 1, false),
        ("static.test.", 6, false),
        ("web.service.local.", 1, false),
        ("none.service.local.", 1, false),
        ("example.org.", 1, false),
    ];
    for (name, qtype, expected) in cases {
        assert_eq!(waits(&mut engine, name, qtype), expected, "{name} {qtype}");
    }
    first_exchange.end();
    assert!(engine.check_first_exchange());
    for (name, qtype, _) in cases {
        assert!(!waits(&mut engine, name, qtype), "{name} {qtype}");
    }
}
