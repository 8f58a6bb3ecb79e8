//! EDNS options, and the limit on rates, over the engine: who gets what, and who is cut short.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{net::IpAddr, num::NonZero, sync::Arc, time::Duration};

use muster::dns::{
    engine::{
        Client, Engine, Origin, Settings, Transport,
        rrl::{ResponseRate, ResponseRateLimiter},
    },
    message::{codes::Rcode, cookie::Secret},
    zone::Tables,
};
use support::world;

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
    let limit = limit.map(|rate| ResponseRateLimiter::new(rate, 7));
    let settings = Settings {
        udp_payload: 1232,
        nsid: b"host-a".as_slice().into(),
        secret: Some(Secret::new([7; 16])),
        limit,
        recursion: None,
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

/// A query for SRV of `web`, with these options in an OPT record of that version.
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

/// The options of a reply's OPT record, which is its last record.
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
fn rfc_7873_5_2_cookies_are_answered_with_cookies() {
    let (tables, mut engine, mut reply) = (tables(), engine(None), vec![]);
    let client = [1, 2, 3, 4, 5, 6, 7, 8];
    let mut ask = |origin, options: &[(u16, &[u8])]| {
        let rcode = engine.respond(&tables, &query(1232, 0, options), origin, &mut reply);
        (rcode, option(&reply, COOKIE))
    };
    assert_eq!(ask(udp(), &[]), (Some(Rcode::NoError), None), "§5.2.1: none");
    let (rcode, given) = ask(udp(), &[(COOKIE, &client)]);
    let given = given.expect("§5.2.3: a server cookie for a client cookie");
    assert_eq!((rcode, &given[..8], given.len()), (Some(Rcode::NoError), &client[..], 24));
    for transport in [Transport::Udp, Transport::Tcp] {
        let origin = from("192.0.2.1", transport);
        assert_eq!(ask(origin, &[(COOKIE, &given)]).1.as_ref(), Some(&given), "§5.2.5: it is good over {transport:?}");
    }
    let elsewhere = ask(from("192.0.2.2", Transport::Udp), &[(COOKIE, &given)]);
    assert_eq!(elsewhere.0, Some(Rcode::NoError), "§5.2.4: answered all the same");
    assert_ne!(elsewhere.1, Some(given.clone()), "with one for that address");
    assert_eq!(ask(udp(), &[(COOKIE, &client[..4])]).0, Some(Rcode::FormErr), "§5.2.2: a length that none has");
    let twice = ask(udp(), &[(COOKIE, &given), (COOKIE, &client[..4])]);
    assert_eq!(twice, (Some(Rcode::NoError), Some(given)), "§5.2: of two the first counts");
}

#[test]
fn rfc_5001_2_2_the_server_says_who_it_is_to_those_who_ask() {
    let (tables, mut engine, mut reply) = (tables(), engine(None), vec![]);
    for (asked, expected) in [(&[(NSID, &b""[..])][..], Some(b"host-a".to_vec())), (&[], None)] {
        engine.respond(&tables, &query(1232, 0, asked), udp(), &mut reply);
        assert_eq!(option(&reply, NSID), expected);
    }
}

/// §3.2.1: over UDP the option is ignored.
#[test]
fn rfc_7828_3_3_1_who_asks_over_tcp_is_told_how_long_a_connection_may_idle() {
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
fn rfc_6891_6_1_3_a_version_that_is_not_known_is_told_so_with_its_cookie() {
    let (tables, mut engine, mut reply) = (tables(), engine(None), vec![]);
    let rcode = engine.respond(&tables, &query(1232, 1, &[(COOKIE, &[1; 8])]), udp(), &mut reply);
    assert_eq!(rcode, Some(Rcode::BadVers));
    let message = support::decode(&reply);
    assert_eq!((message.edns.as_ref().unwrap().version(), message.answers.len()), (0, 0));
    assert_eq!(option(&reply, COOKIE).map(|cookie| cookie.len()), Some(24));
}

/// RFC 7830 §4: padding is for encrypted transports. RFC 6891 §6.1.2: options that are not known are ignored.
#[test]
fn options_that_say_nothing_change_nothing() {
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

/// RFC 7766 §3: one server, one answer.
#[test]
fn what_fits_is_the_same_over_udp_and_tcp() {
    let tables = world::tables(
        "services: [{service: web, id: a, address: 10.0.0.1, port: 80}, {service: web, id: b, address: 10.0.0.2, port: 80}]",
    );
    let names = ["web", "_web._tcp", "a.web", "nothing", "a.b.nothing", "host-a.node"];
    for (name, qtype) in names.iter().flat_map(|name| [1, 28, 33, 255, 6].map(|qtype| (name, qtype))) {
        let ask = support::Ask { name: format!("{name}.service.local"), qtype, edns: Some(1232), dnssec_ok: true };
        let [over_udp, over_tcp] = [Transport::Udp, Transport::Tcp].map(|transport| {
            let mut reply = vec![];
            // Each draws the same order.
            engine(None).respond(&tables, &ask.packet(7), from("192.0.2.1", transport), &mut reply);
            reply
        });
        assert_eq!(over_udp, over_tcp, "{name} {qtype}");
    }
}

/// Options have their place before records have theirs.
#[test]
fn options_never_make_a_reply_longer_than_the_client_takes() {
    let (tables, mut engine, mut reply) = (tables(), engine(None), vec![]);
    for payload in 512..1300 {
        let packet = query(payload, 0, &[(COOKIE, &[1; 8]), (NSID, &[])]);
        engine.respond(&tables, &packet, udp(), &mut reply);
        assert!(reply.len() <= usize::from(payload.min(1232)), "{} octets for {payload}", reply.len());
        let codes: Vec<u16> = options(&reply).into_iter().map(|(code, _)| code).collect();
        assert_eq!(codes, [NSID, COOKIE]);
        // RFC 1035 §4.1.4 names as elsewhere: the letters' case is the question's.
        assert_eq!(&reply[12..16], b"\x03wEb");
    }
}

#[test]
fn what_is_above_the_rate_is_cut_short_or_not_sent() {
    let tables = tables();
    let rate = |slip| ResponseRate { per_second: NonZero::new(100).unwrap(), slip, ipv4_prefix: 24, ipv6_prefix: 56 };
    // How many whole answers, how many that say "come by TCP", how much silence.
    let flood = |engine: &mut Engine, packet: &[u8], origin: Origin| {
        let (mut whole, mut cut, mut silence) = (0, 0, 0);
        let mut reply = vec![];
        for _ in 0..1100 {
            match engine.respond(&tables, packet, origin, &mut reply) {
                None => silence += 1,
                Some(_) if reply[2] & 2 != 0 && reply[7] == 0 => {
                    assert!(reply.len() <= packet.len(), "what is cut short amplifies nothing");
                    assert!(support::decode(&reply).edns.is_some());
                    cut += 1;
                }
                Some(_) => whole += 1,
            }
        }
        (whole, cut, silence)
    };
    let packet = query(1232, 0, &[]);
    assert_eq!(flood(&mut engine(Some(rate(0))), &packet, udp()), (100, 0, 1000), "slip 0");
    assert_eq!(flood(&mut engine(Some(rate(1))), &packet, udp()), (100, 1000, 0), "slip 1");
    let (whole, cut, silence) = flood(&mut engine(Some(rate(2))), &packet, udp());
    assert_eq!((whole, cut + silence), (100, 1000), "slip 2");
    assert!((400..600).contains(&cut), "slip 2: {cut} of 1000 cut short");

    let mut limited = engine(Some(rate(0)));
    let malformed = [&packet[..], b"junk"].concat();
    assert_eq!(flood(&mut limited, &malformed, udp()), (100, 0, 1000), "what cannot be read counts as well");
    assert_eq!(flood(&mut limited, &packet, from("192.0.2.99", Transport::Udp)).0, 0, "the network has had its share");
    assert_eq!(flood(&mut limited, &packet, from("198.51.100.1", Transport::Udp)).0, 100, "another has its own");
    assert_eq!(flood(&mut limited, &packet, from("192.0.2.1", Transport::Tcp)), (1100, 0, 0), "TCP proves the address");
    assert_eq!(flood(&mut limited, &packet, from("127.0.0.1", Transport::Udp)), (1100, 0, 0), "so does loopback");

    let mut reply = vec![];
    engine(None).respond(&tables, &query(1232, 0, &[(COOKIE, &[1; 8])]), udp(), &mut reply);
    let given = option(&reply, COOKIE).unwrap();
    let with_cookie = query(1232, 0, &[(COOKIE, &given)]);
    assert_eq!(flood(&mut limited, &with_cookie, udp()), (1100, 0, 0), "so does a cookie");
}
