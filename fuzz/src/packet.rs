//! Packet target: any input gets a valid reply, or none.
//!
//! The tables are small and cover all features: services in each state, more instances than fit a packet, an alias domain, static
//! zones with a wildcard, a CNAME chain and a CNAME loop, a delegation, reverse names. hickory-proto is the reference decoder.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::{Arc, OnceLock},
};

use fastrand::Rng;
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name as HickoryName, RData, Record, RecordType},
    serialize::binary::{BinDecodable, BinDecoder},
};
use muster::{
    dns::{
        engine::{Engine, MAX_TCP, Transport},
        message::codes::Rcode,
        zone::{Settings, Tables},
    },
    files::zone_file,
    model::{
        alias_domain::AliasDomain,
        announcement::{Announcement, Announcements, HoldReason, InstanceState, Node},
        catalog::{Catalog, Freshness, NodeView, View},
        followed_host::{FollowedHost, HostName},
        health::Status,
        name::{Label, Name},
        registered_name::RegisteredName,
        service::{Instance, InstanceKey, Protocol},
        zone::ZoneFile,
    },
};

/// UDP payload in octets; the default.
const PAYLOAD: u16 = 1232;
/// Maximum UDP reply in octets without an OPT record (RFC 1035 §4.2.1).
const CLASSIC: usize = 512;
const HEADER: usize = 12;

/// Tests two queries: the input itself, and a well-formed query derived from it.
pub fn run(octets: &[u8]) {
    ask(octets);
    ask(&query(octets));
}

/// Sends a packet over UDP and TCP, and checks both replies.
fn ask(packet: &[u8]) {
    static TABLES: OnceLock<Tables> = OnceLock::new();
    let tables = TABLES.get_or_init(tables);
    let mut engine = Engine::new(PAYLOAD, Rng::with_seed(7));
    let mut over = |transport| {
        let mut reply = vec![];
        let rcode = engine.respond(tables, packet, transport, &mut reply)?;
        let limit = if transport == Transport::Udp { udp_limit(packet, &reply) } else { MAX_TCP };
        assert!(reply.len() <= limit, "{transport:?}: {} octets exceed {limit}", reply.len());
        Some(check_reply(packet, &reply, rcode))
    };
    match (over(Transport::Udp), over(Transport::Tcp)) {
        (None, None) => {
            let is_response = packet.get(2).is_none_or(|flags| flags & 0x80 != 0);
            assert!(packet.len() < HEADER || is_response, "no reply to a query");
        }
        (Some(udp), Some(tcp)) => {
            assert!(!tcp.metadata.truncation, "TC over TCP");
            assert_eq!(udp.metadata.response_code, tcp.metadata.response_code, "UDP and TCP differ");
            // Glue is a required part of a referral (RFC 9471 §3.1); other additional records are optional.
            let referral = tcp.answers.is_empty() && !tcp.metadata.authoritative;
            let needed =
                |m: &Message| (m.answers.len(), m.authorities.len(), if referral { m.additionals.len() } else { 0 });
            assert_eq!(
                udp.metadata.truncation,
                needed(&udp) != needed(&tcp),
                "TC does not match the omitted records: {udp}"
            );
        }
        _ => panic!("a reply over one transport only"),
    }
}

/// Checks the invariants of every reply.
fn check_reply(packet: &[u8], reply: &[u8], rcode: Rcode) -> Message {
    let mut decoder = BinDecoder::new(reply);
    let message = Message::read(&mut decoder).unwrap_or_else(|error| panic!("{error}: {reply:02x?}"));
    assert!(decoder.is_empty(), "trailing octets: {reply:02x?}");

    assert_eq!(reply[..2], packet[..2], "the id");
    // RD is a bit of QUERY; other opcodes are not served.
    let copied = if packet[2] & 0x78 == 0 { 0x79 } else { 0x78 };
    assert_eq!(reply[2] & 0xf9, packet[2] & copied | 0x80, "QR, the opcode and RD");
    assert_eq!(reply[3] & 0xf0, 0, "RA, Z, AD and CD");
    assert_eq!(u16::from(message.metadata.response_code), rcode as u16, "the rcode");
    if message.queries.is_empty() {
        assert!(matches!(rcode, Rcode::FormErr | Rcode::NotImp), "{rcode:?} without the question");
        assert_eq!(reply.len(), HEADER + if message.edns.is_some() { 11 } else { 0 });
    } else {
        let question = question_length(reply);
        assert_eq!(reply[HEADER..][..question], packet[HEADER..][..question], "the question");
    }
    if let Some(edns) = &message.edns {
        assert_eq!((edns.version(), edns.max_payload()), (0, PAYLOAD));
    }

    let soa = message.authorities.iter().filter(|record| record.record_type() == RecordType::SOA).count();
    let meta = &message.metadata;
    match rcode {
        Rcode::NoError if message.answers.is_empty() && !meta.truncation => {
            let expected = if meta.authoritative { RecordType::SOA } else { RecordType::NS };
            assert!(message.authorities.iter().all(|r| r.record_type() == expected), "{message}");
            assert!(!message.authorities.is_empty(), "negative answer without SOA or NS: {message}");
        }
        Rcode::NoError => {}
        Rcode::NxDomain => assert!(meta.truncation || soa == 1, "NXDOMAIN without SOA (RFC 2308 §3): {message}"),
        _ => assert!(message.all_sections().next().is_none() && !meta.authoritative, "{message}"),
    }
    check_owner_names(&message);
    if rcode == Rcode::FormErr {
        assert!(!is_well_formed(packet), "FORMERR to a query that hickory-proto encodes identically");
    }
    message
}

/// Checks owner names: answers belong to the question's name or the preceding CNAME target, additional records to a name in the
/// preceding sections.
fn check_owner_names(message: &Message) {
    let mut owners: Vec<&HickoryName> = message.queries.iter().map(Query::name).collect();
    for record in &message.answers {
        assert!(
            owners.last().is_some_and(|name| **name == record.name),
            "answer with an unexpected owner name: {message}"
        );
        if let RData::CNAME(target) = &record.data {
            owners.push(&target.0);
        }
    }
    let named: Vec<&HickoryName> = message.answers.iter().chain(&message.authorities).filter_map(target).collect();
    for record in &message.additionals {
        assert!(named.contains(&&record.name), "unreferenced additional record: {message}");
    }
}

/// Returns the host name in a record's RDATA.
fn target(record: &Record) -> Option<&HickoryName> {
    match &record.data {
        RData::NS(ns) => Some(&ns.0),
        RData::MX(mx) => Some(&mx.exchange),
        RData::SRV(srv) => Some(&srv.target),
        _ => None,
    }
}

/// Returns the maximum length of a UDP reply (RFC 6891 §6.2.3).
fn udp_limit(packet: &[u8], reply: &[u8]) -> usize {
    let edns = |octets: &[u8]| Message::from_vec(octets).ok().and_then(|message| message.edns);
    match (edns(reply), edns(packet)) {
        (None, _) => CLASSIC,
        (Some(_), None) => PAYLOAD.into(),
        (Some(_), Some(asked)) => usize::from(asked.max_payload().min(PAYLOAD)).max(CLASSIC),
    }
}

/// Reports whether hickory-proto decodes the packet as a plain query and encodes it to the same octets.
fn is_well_formed(packet: &[u8]) -> bool {
    let Ok(message) = Message::from_vec(packet) else { return false };
    let plain =
        |query: &Query| !matches!(u16::from(query.query_type()), 41 | 250) && query.query_class() == DNSClass::IN;
    message.metadata.message_type == MessageType::Query
        && message.metadata.op_code == OpCode::Query
        && message.metadata.response_code == ResponseCode::NoError
        && matches!(&message.queries[..], [query] if plain(query))
        && message.all_sections().next().is_none()
        && message.to_vec().is_ok_and(|octets| octets == packet)
}

/// Returns the length of the single question after the header.
fn question_length(reply: &[u8]) -> usize {
    let mut at = HEADER;
    while reply[at] != 0 {
        at += 1 + usize::from(reply[at]);
    }
    at + 1 + 4 - HEADER
}

/// Derives a query for a plausible name, since most inputs are not packets. The first four octets select the EDNS payload, the
/// type, the zone and the number of labels below it; each further octet selects a label.
fn query(octets: &[u8]) -> Vec<u8> {
    let [edns, qtype, zone, count, labels @ ..] = octets else { return vec![] };
    let pick = |from: &[&'static [u8]], by: u8| from[usize::from(by) % from.len()];
    // Half of the types are supported ones.
    let qtype = TYPES.get(usize::from(*qtype) % (TYPES.len() * 2)).unwrap_or(qtype);
    let labels: Vec<&[u8]> = labels.iter().take(usize::from(*count) % 5).map(|by| pick(LABELS, *by)).collect();
    let wire = labels.iter().flat_map(|label| [&[label.len() as u8], *label].concat());
    let mut packet = vec![0x2a, *qtype, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(*edns > 0)];
    packet.extend(wire.chain(pick(ZONES, *zone).iter().copied()));
    packet.extend([0, *qtype, 0, 1]);
    if *edns > 0 {
        // Payloads from 32 to some 8,000 octets, without options.
        packet.extend([0, 0, 41]);
        packet.extend((u16::from(*edns) * 32).to_be_bytes());
        packet.extend([0; 6]);
    }
    packet
}

/// A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, OPT, DS, AXFR, MAILB, ANY.
const TYPES: &[u8] = &[1, 2, 5, 6, 12, 15, 16, 28, 33, 41, 43, 252, 253, 255];

const ZONES: &[&[u8]] = &[
    b"\x07service\x05local\0",
    b"\x05ALIAS\x07example\0",
    b"\x07example\x03org\0",
    b"\x010\x0210\x07in-addr\x04arpa\0",
    b"\0",
];

const LABELS: &[&[u8]] = &[
    b"web",
    b"Down",
    b"off",
    b"bare",
    b"time",
    b"many",
    b"v2",
    b"node",
    b"host-a",
    b"HOST-B",
    b"web-host-a",
    b"ill-host-a",
    b"off-host-b",
    b"many-7-host-b",
    b"bare-host-a",
    b"time-host-a",
    b"_tcp",
    b"_UDP",
    b"_web",
    b"_http",
    b"_metrics",
    b"_v2",
    b"_time",
    b"_many",
    b"_down",
    b"_bare",
    b"printer",
    b"www",
    b"out",
    b"*",
    b"wild",
    b"lab",
    b"ns",
    b"mail",
    b"long",
    b"c1",
    b"c2",
    b"ring",
    b"nowhere",
    b"_x",
    b"odd",
    b"deep",
    b"sub",
    b"0",
    b"1",
    b"10",
    b"01",
    b"in-addr",
    b"a.b\0\xff",
    b"a.b",
    b"my_svc",
    b"_my_svc",
    b"far",
    b"blue_green",
    b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

// --- Tables ----------------------------------------------------------------------------------------------------------

fn tables() -> Tables {
    let settings = Settings {
        aliases: vec![AliasDomain::new(name("alias.example")), AliasDomain::consul(name("consul"))],
        ..Settings::new(label("host-a"), label("dc1"), name("service.local"))
    };
    let mut catalog = Catalog::default();
    let touched =
        catalog.update(View::from_iter([node("host-a", 1, Freshness::Live), node("host-b", 2, Freshness::LastKnown)]));
    let mut tables = Tables::new(settings);
    tables.set_zones(&[
        zone("service.local.zone", OWN_ZONE),
        zone("example.org.zone", EXAMPLE_ZONE),
        zone("10.in-addr.arpa.zone", REVERSE_ZONE),
    ]);
    tables.update(&catalog, &touched);
    tables.set_serial(2026);
    tables
}

/// Returns a node with services in every state.
fn node(host: &str, number: u8, freshness: Freshness) -> (Label, Arc<NodeView>) {
    let node = Node {
        name: label(host),
        addresses: addresses(number),
        datacenter: label("dc1"),
        zone: None,
        meta: Default::default(),
        checks: None,
    };
    let mut announcements = Announcements::new();
    let mut add = |instance: Instance, state: InstanceState| {
        let announcement = Announcement::new(Arc::new(instance), state);
        announcements.extend([announcement.into_entry()]);
    };
    let critical = || InstanceState::new(Status::Critical, "connection refused");
    add(instance("web", &format!("web-{host}"), number), InstanceState::Passing);
    add(instance("web", &format!("ill-{host}"), number + 10), critical());
    add(instance("web", &format!("slow-{host}"), number + 20), InstanceState::new(Status::Warning, "slow"));
    add(instance("down", &format!("down-{host}"), number), critical());
    add(instance("off", &format!("off-{host}"), number), InstanceState::Disabled);
    add(
        Instance { port: None, ports: vec![].into(), ..instance("bare", &format!("bare-{host}"), number) },
        InstanceState::Passing,
    );
    add(
        Instance { protocol: Protocol::Udp, ..instance("time", &format!("time-{host}"), number) },
        InstanceState::Passing,
    );
    // A name with underscores, one that DNS has none for, and an instance without an address.
    for service in ["my_svc", "a.b", "api/v1", "node"] {
        add(instance(service, &format!("odd-{host}"), number), InstanceState::Passing);
    }
    let host_name = HostName::parse("db.example").unwrap_or_else(|error| panic!("{error}"));
    let followed = Arc::new(FollowedHost { name: host_name, problem: None });
    let unresolved = instance("far", &format!("far-{host}"), number);
    add(
        Instance { addresses: vec![].into(), host: Some(followed), ..unresolved },
        InstanceState::withheld(HoldReason::Unresolved, "db.example: NXDOMAIN"),
    );
    for at in 0..40 {
        add(instance("many", &format!("many-{at}-{host}"), number * 50 + at), InstanceState::Passing);
    }
    (label(host), Arc::new(NodeView { external: Default::default(), node: Arc::new(node), announcements, freshness }))
}

fn instance(service: &str, id: &str, number: u8) -> Instance {
    Instance {
        port: Some(8080),
        ports: vec![(label("http"), 80), (label("metrics"), 9100)].into(),
        tags: vec!["v2".into(), "no label".into(), "blue_green".into()].into(),
        meta: [("version", "2.3.1"), ("empty", "")].into(),
        weight: number.into(),
        ..Instance::new(InstanceKey { service: registered(service), id: label(id) }, addresses(number))
    }
}

fn addresses(number: u8) -> Vec<IpAddr> {
    vec![Ipv4Addr::new(10, 0, 0, number).into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into()]
}

/// Static names in the discovery zone.
const OWN_ZONE: &str = "\
printer A 10.0.0.99
www CNAME web
out CNAME a.ex.
*.wild TXT wild
lab NS ns.lab
ns.lab A 10.0.0.98
";

const EXAMPLE_ZONE: &str = "\
@ SOA ns admin 1 3600 600 86400 60
@ NS ns
@ MX 10 mail
ns A 10.0.1.1
* TXT any
c1 CNAME c2
c2 CNAME long
; A CNAME loop across two zones.
ring CNAME ring.service.local.
nowhere CNAME x.none.service.local.
_x._tcp SRV 1 1 80 mail
odd TYPE65280 \\# 4 00016f64
deep.sub NS ns.deep.sub
deep.sub NS mail
deep.sub NS a.ex.
ns.deep.sub A 10.0.1.3
ns.deep.sub A 10.0.1.4
; More addresses than fit a packet without EDNS.
$GENERATE 0-39 mail A 10.0.2.$
$GENERATE 0-199 long TXT text-number-$
";

const REVERSE_ZONE: &str = "\
@ SOA ns.example.org. admin.example.org. 1 3600 600 86400 60
@ NS ns.example.org.
1.1.0 PTR ns.example.org.
";

fn zone(file: &str, text: &str) -> Arc<ZoneFile> {
    Arc::new(zone_file::parse(Path::new(file), text.as_bytes(), 300).unwrap_or_else(|problems| panic!("{problems:?}")))
}

fn registered(text: &str) -> RegisteredName {
    RegisteredName::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn label(text: &str) -> Label {
    Label::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}
