//! DNS engine without sockets: `cargo bench --bench engine`.
//!
//! Times each kind of answer with criterion; `-- --instructions` counts instructions with valgrind instead, independent of
//! other load. Metrics are updated per answer, as in the UDP threads. Names are drawn at random from 1,000 and from 33,333
//! services of three instances each, which do and do not fit the processor's cache.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot continue ends")]

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    process::Command,
    sync::Arc,
    time::Duration,
};

use criterion::{BenchmarkId, Criterion};
use muster::{
    dns::{
        dnssec::{
            key::{ENTRY_POINT, Key, ZONE_KEY},
            signer::Signer,
            zone_keys::ZoneKeys,
        },
        engine::{Audience, Client, Engine, Origin, Settings as EngineSettings, Transport},
        message::query::{LookupName, Query},
        recursion::{
            Recursion,
            cache::{self, Cache},
            loop_detection::LoopDetector,
            upstream_reply::Reply,
        },
        zone::{Settings, Tables},
    },
    metrics::{self, Tally, Writers},
    model::{
        alias_domain::AliasDomain,
        announcement::{Announcement, Announcements, InstanceState, Node},
        catalog::{Catalog, Freshness, NodeView, View},
        dns_limits::CacheTtls,
        name::{Label, Name},
        nearest::Nearest,
        recursion_access::ClientRange,
        service::{Instance, InstanceKey},
    },
};
use ring::rand::SystemRandom;

/// Instances of each service.
const INSTANCES: usize = 3;
/// Number of distinct packets.
const PACKETS: usize = 4096;
/// Numbers of services.
const SIZES: [usize; 2] = [1_000, 33_333];
/// Answers of two runs under valgrind, whose difference counts.
const COUNTED: [usize; 2] = [1_000, 11_000];

/// Size of the cache of upstream replies in octets, which holds all that are asked for.
const CACHE: usize = 16 << 20;
/// Client of the questions that are forwarded.
const CLIENT: Client = Client { address: IpAddr::V4(Ipv4Addr::LOCALHOST), now: Duration::from_secs(1_000_000_000) };

/// Kinds of answers: description, name with the service's number for `N`, and type. Names that end neither in `consul` nor in
/// `example` are relative to the discovery zone. Those in `example` are answered from the cache of upstream replies.
const CASES: &[(&str, &str, u16)] = &[
    ("A of a service", "sN", 1),
    ("SRV of a service", "_sN._tcp", 33),
    ("AAAA that is not there", "sN", 28),
    ("A of an instance", "i1.sN", 1),
    ("TXT of an instance", "i1.sN", 16),
    ("A of a tag", "v2.sN", 1),
    ("a name that is not there", "xN", 1),
    ("signed: A of a service", "sN", 1),
    ("signed: SRV of a service", "_sN._tcp", 33),
    ("signed: AAAA that is not there", "sN", 28),
    ("signed: a name that is not there", "xN", 1),
    ("NS of the zone", "", 2),
    ("A of a cached name of an upstream", "fN.example", 1),
    ("A of the same service", "plain", 1),
    ("SRV of the same service", "_plain._tcp", 33),
    ("A of the same service, nearest first", "tiers", 1),
    ("SRV of the same service, nearest first", "_tiers._tcp", 33),
    ("A of a service of 1,000", "large", 1),
    ("SRV of a service of 1,000", "large", 33),
    ("A of a service in the scheme of Consul", "sN.service.consul", 1),
    ("SRV of a service in the scheme of Consul", "_sN._tcp.service.consul", 33),
    ("A of a tag in the scheme of Consul", "v2.sN.service.consul", 1),
    ("a name that is not there in the scheme of Consul", "xN.service.consul", 1),
    ("A of a service in a datacenter", "sN.service.dc1.consul", 1),
    ("A of an address in the scheme of Consul", "0a000001.addr.dc1.consul", 1),
    ("SRV of a service of 1,000 in the scheme of Consul", "large.service.consul", 33),
];
/// Start of the description of answers with signatures from the cache, of a zone that is signed online.
const SIGNED: &str = "signed:";
/// Instances of the large service.
const LARGE: usize = 1_000;

struct World {
    tables: Tables,
    /// The same tables with the discovery zone signed.
    signed: Tables,
    services: usize,
}

impl World {
    fn new(services: usize) -> Self {
        let label = |text: &str| Label::parse(text).unwrap();
        let small =
            (0..services * INSTANCES).map(|number| (format!("s{:05}", number / INSTANCES), number % INSTANCES, number));
        let same =
            ["plain", "tiers"].into_iter().flat_map(|name| (0..INSTANCES).map(move |id| (name.to_owned(), id, id)));
        let large = (0..LARGE).map(|number| ("large".to_owned(), number, number));
        let announcement = |(service, id, number): (String, usize, usize)| {
            let key = InstanceKey { service: label(&service).into(), id: label(&format!("i{id}")) };
            let [_, a, b, c] = (number as u32).to_be_bytes();
            let instance = Instance {
                nearest: (service == "tiers").then_some(Nearest::Zone),
                port: Some(8080),
                tags: vec!["v2".to_owned()].into(),
                meta: [("version", "2.3.1")].into(),
                ..Instance::new(key, vec![[10, a, b, c].into()])
            };
            Announcement::new(Arc::new(instance), InstanceState::Passing).into_entry()
        };
        let announcements: Announcements = small.chain(same).chain(large).map(announcement).collect();
        let node = Node {
            name: label("host-a"),
            addresses: vec![[10, 0, 0, 1].into()],
            datacenter: label("dc1"),
            zone: Some(label("z1")),
            meta: Default::default(),
            checks: None,
        };
        let view =
            NodeView { external: Default::default(), node: Arc::new(node), announcements, freshness: Freshness::Live };
        let mut tables = Tables::new(Settings {
            aliases: vec![AliasDomain::consul(Name::parse("consul").unwrap())],
            zone: Some(label("z1")),
            ..Settings::new(label("host-a"), label("dc1"), Name::parse("service.local").unwrap())
        });
        let mut catalog = Catalog::default();
        let touched = catalog.update(View::from_iter([(label("host-a"), Arc::new(view))]));
        tables.update(&catalog, &touched);
        let zone = Name::parse("service.local").unwrap();
        let (key, _) = Key::generate(zone.clone(), ZONE_KEY | ENTRY_POINT, &SystemRandom::new()).unwrap();
        let keys = ZoneKeys::at(&zone, &[Arc::new(key)], CLIENT.now.as_secs()).unwrap();
        let mut signed = tables.clone();
        signed.set_keys(Arc::new([(zone, Arc::new(keys))].into()));
        Self { tables, signed, services }
    }

    /// Returns the tables for an answer.
    fn tables(&self, case: &str) -> &Tables {
        if case.starts_with(SIGNED) { &self.signed } else { &self.tables }
    }

    fn packets(&self, (case, name, qtype): (&str, &str, u16)) -> Vec<Vec<u8>> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut packet = || {
            let number = format!("{:05}", random.usize(..self.services));
            let name = name.replace('N', &number);
            let name = if name.ends_with("consul") || name.ends_with("example") {
                name
            } else {
                format!("{name}.service.local")
            };
            let labels = name.split('.').filter(|label| !label.is_empty());
            let wire: Vec<u8> = labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
            let dnssec_ok = if case.starts_with(SIGNED) { 0x80 } else { 0 };
            let opt = [0, 0, 41, 0x10, 0, 0, 0, dnssec_ok, 0, 0, 0];
            [&[0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1][..], &wire, &[0], &qtype.to_be_bytes(), &[0, 1], &opt].concat()
        };
        (0..PACKETS).map(|_| packet()).collect()
    }
}

/// Answers one packet as a UDP thread does.
fn answer(engine: &mut Engine, tables: &Tables, (packet, origin): (&[u8], Origin), out: &mut Vec<u8>, tally: &Tally) {
    let decision = engine.answer_at_once(tables, black_box(packet), origin, out);
    if let Some(account) = black_box(decision.account()) {
        tally.count(account);
    }
}

fn tally() -> Arc<Tally> {
    metrics::Dns::default().tally(metrics::Transport::Udp, Writers::One)
}

/// Returns the engine for questions about `name`, with the origin of the questions.
fn engine(case: &str, name: &str, packets: &[Vec<u8>], tables: &Tables) -> (Engine, Origin) {
    let rng = fastrand::Rng::with_seed(7);
    let (is_signed, is_forwarded) = (case.starts_with(SIGNED), name.ends_with("example"));
    if !is_signed && !is_forwarded {
        return (Engine::new(1232, rng), Transport::Udp.into());
    }
    let origin = Origin { transport: Transport::Udp, client: Some(CLIENT) };
    let settings = EngineSettings {
        udp_payload: 1232,
        nsid: Box::default(),
        secret: None,
        limit: None,
        recursion: is_forwarded.then(|| recursion(packets)),
        audience: Audience::Everyone,
        serves_transfers: false,
        serves_updates: false,
        signer: is_signed.then(|| Arc::new(Signer::new(Box::new(SystemRandom::new()), metrics::Dnssec::default()))),
    };
    let mut engine = Engine::with(settings.into(), rng);
    if is_signed {
        // Fills the cache of signatures.
        packets.iter().for_each(|packet| drop(engine.answer(tables, packet, origin, &mut Vec::new())));
    }
    (engine, origin)
}

/// Returns a recursion whose cache has a reply with an address for each of these questions.
fn recursion(packets: &[Vec<u8>]) -> Arc<Recursion> {
    let bounds = CacheTtls { ttl: 300, negative_ttl: 300, stale: 0 };
    let cache = Cache::new(CACHE, bounds);
    for packet in packets {
        let mut name = LookupName::default();
        let query = Query::parse(packet, &mut name).unwrap_or_else(|_| panic!("an invalid packet"));
        let head = [&packet[..2], &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]].concat();
        let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 192, 0, 2, 1];
        let octets = [&head[..], query.question, &record].concat();
        let reply = Reply::read(&octets, query.header.id, query.question).unwrap();
        cache.put(cache::Key::new(&query, &name).as_bytes(), reply, CLIENT.now);
    }
    Arc::new(Recursion {
        allow: vec![ClientRange::Loopback],
        routes: Vec::new(),
        rebind_protection: None,
        validation: None,
        cache: Arc::new(cache),
        loop_detector: Arc::new(LoopDetector::new(7)),
    })
}

fn time() {
    let mut criterion = Criterion::default().configure_from_args();
    for services in SIZES {
        let world = World::new(services);
        let mut group = criterion.benchmark_group(format!("{services} services"));
        for (case, name, qtype) in CASES {
            let (packets, tables) = (world.packets((case, name, *qtype)), world.tables(case));
            let (mut engine, origin) = engine(case, name, &packets, tables);
            let (tally, mut out, mut at) = (tally(), Vec::new(), 0);
            group.bench_function(BenchmarkId::from_parameter(case), |bencher| {
                bencher.iter(|| {
                    at = (at + 1) % PACKETS;
                    answer(&mut engine, tables, (&packets[at], origin), &mut out, &tally);
                });
            });
        }
    }
    criterion.final_summary();
}

/// Answers `count` queries of one case, to run under valgrind.
fn answer_many(case: &str, count: usize) {
    let (_, name, qtype) = CASES.iter().find(|(name, ..)| *name == case).unwrap();
    let world = World::new(SIZES[0]);
    let (packets, tables) = (world.packets((case, name, *qtype)), world.tables(case));
    let (mut engine, origin) = engine(case, name, &packets, tables);
    let (tally, mut out) = (tally(), Vec::new());
    for packet in packets.iter().cycle().take(count) {
        answer(&mut engine, tables, (packet, origin), &mut out, &tally);
    }
}

fn count_instructions() {
    println!("| answer | instructions |\n| --- | --- |");
    for (case, ..) in CASES {
        let counts = COUNTED.map(|count| {
            let output = Command::new("valgrind")
                .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
                .arg(std::env::current_exe().unwrap())
                .args(["--answer", case, &count.to_string()])
                .output()
                .unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            let line = stderr.lines().find_map(|line| line.split_once("Collected :"));
            line.and_then(|(_, count)| count.trim().parse::<u64>().ok()).unwrap_or_else(|| panic!("{stderr}"))
        });
        println!("| {case} | {} |", (counts[1] - counts[0]) / (COUNTED[1] - COUNTED[0]) as u64);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().position(|word| word == "--answer" || word == "--instructions") {
        Some(at) if arguments[at] == "--answer" => answer_many(&arguments[at + 1], arguments[at + 2].parse().unwrap()),
        Some(_) => count_instructions(),
        None => time(),
    }
}
