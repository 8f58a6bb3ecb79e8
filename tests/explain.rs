//! `explain` agrees with the DNS answer of every name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    op::Message,
    rr::{RData, RecordType},
};
use muster::{
    api::explain::Explained,
    dns::{
        engine::{Audience, Client, Decision, Engine, Origin, Settings as EngineSettings, Transport},
        message::codes::{Rcode, rtype},
        recursion::{Recursion, cache::Cache, loop_detection::LoopDetector},
        zone::{Settings, Tables},
    },
    files::zone_file,
    http::muster::explain::Explainer,
    model::{
        alias_domain::AliasDomain,
        announcement::{Announcement, InstanceState, Node},
        catalog::{Catalog, Freshness, NodeView},
        dns_limits::CacheTtls,
        health::Status,
        member::Membership,
        name::{Label, Name},
        recursion_access::ClientRange,
        service::{Instance, InstanceKey, Protocol, instance_ref::InstanceRef},
        upstream_address::UpstreamAddress,
    },
};
use proptest::prelude::*;
use support::{Ask, decode};

const DOMAIN: &str = "service.local";
const ALIAS: &str = "svc.example";
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn server(address: &str) -> UpstreamAddress {
    UpstreamAddress::plain(address.parse().unwrap())
}

/// An announced instance.
#[derive(Clone, Debug)]
struct Declared {
    service: &'static str,
    id: &'static str,
    address: &'static str,
    tags: Vec<&'static str>,
    port: Option<&'static str>,
    protocol: Protocol,
    passing: bool,
    node: &'static str,
    nearest: Option<&'static str>,
    min_healthy: Option<&'static str>,
}

/// Datacenters and zones of nodes. The first node answers.
const NODES: [(&str, &str, Option<&str>); 4] = [
    ("host-a", "dc1", Some("z1")),
    ("host-b", "dc1", Some("z1")),
    ("host-c", "dc1", Some("z2")),
    ("host-d", "dc2", None),
];

impl Declared {
    fn new(service: &'static str, id: &'static str, address: &'static str) -> Self {
        Self {
            service,
            id,
            address,
            tags: vec!["v2"],
            port: Some("http"),
            protocol: Protocol::Tcp,
            passing: true,
            node: NODES[0].0,
            nearest: None,
            min_healthy: None,
        }
    }

    fn announcement(&self) -> (InstanceRef, Arc<Announcement>) {
        let key = InstanceKey { service: label(self.service).into(), id: label(self.id) };
        let instance = Instance {
            external: None,
            tag_override: false,
            key,
            addresses: vec![self.address.parse().unwrap()].into(),
            port: Some(80),
            ports: self.port.iter().map(|port| (label(port), 8080)).collect(),
            protocol: self.protocol,
            tags: self.tags.iter().map(|tag| (*tag).to_owned()).collect(),
            meta: Default::default(),
            priority: 1,
            weight: 10,
            ttl: None,
            nearest: self.nearest.map(|text| text.parse().unwrap()),
            min_healthy: self.min_healthy.map(|text| text.parse().unwrap()),
            alpn: Default::default(),
            registered_as: Some(format!("{}:{}", self.service, self.id).into()),
            service_case: None,
            tagged: Default::default(),
            host: None,
        };
        let state = if self.passing { InstanceState::Passing } else { InstanceState::new(Status::Critical, "down") };
        Announcement::new(Arc::new(instance), state).into_entry()
    }
}

/// Catalog, tables and zone files of a node.
struct World {
    catalog: Catalog,
    tables: Tables,
    zones: BTreeMap<String, String>,
    recursion: Option<Arc<Recursion>>,
}

impl World {
    /// Returns a world with these instances on their nodes, and these zones with the text of their files.
    fn new(declared: &[Declared], zones: &[(&str, String)], recursion: Option<(ClientRange, &[&str])>) -> Self {
        let is_declared = |node: &str| node == NODES[0].0 || declared.iter().any(|instance| instance.node == node);
        let nodes = NODES.iter().filter(|(node, ..)| is_declared(node)).map(|(node, datacenter, zone)| {
            let own = declared.iter().filter(|instance| instance.node == *node);
            let data = Node {
                name: label(node),
                addresses: vec!["10.0.0.7".parse().unwrap()],
                datacenter: label(datacenter),
                zone: zone.map(label),
                meta: Default::default(),
                checks: None,
            };
            let announcements = own.map(Declared::announcement).collect();
            (
                label(node),
                Arc::new(NodeView {
                    external: Default::default(),
                    node: Arc::new(data),
                    announcements,
                    freshness: Freshness::Live,
                }),
            )
        });
        let view = nodes.collect();
        let settings = Settings {
            aliases: vec![AliasDomain::new(name(ALIAS))],
            zone: Some(label("z1")),
            ..Settings::new(label("host-a"), label("dc1"), name(DOMAIN))
        };
        let (mut catalog, mut tables) = (Catalog::default(), Tables::new(settings));
        let touched = catalog.update(view);
        let read = zones.iter().map(|(origin, text)| {
            let file = format!("{origin}.zone");
            let zone = zone_file::parse(Path::new(&file), text.as_bytes(), 60);
            (file, text.clone(), Arc::new(zone.unwrap_or_else(|problems| panic!("{problems:#?}"))))
        });
        let read: Vec<_> = read.collect();
        tables.set_zones(&read.iter().map(|(.., zone)| zone.clone()).collect::<Vec<_>>());
        tables.update(&catalog, &touched);
        let recursion = recursion.map(|(allow, routes)| {
            let ttls = CacheTtls { ttl: 60, negative_ttl: 60, stale: 0 };
            Arc::new(Recursion {
                allow: vec![allow],
                routes: routes.iter().map(|suffix| (name(suffix), vec![server("192.0.2.2:53")])).collect(),
                rebind_protection: None,
                validation: None,
                cache: Arc::new(Cache::new(1 << 16, ttls)),
                loop_detector: Arc::new(LoopDetector::new(7)),
            })
        });
        let zones = read.into_iter().map(|(file, text, _)| (file, text)).collect();
        Self { catalog, tables, zones, recursion }
    }

    fn explain(&self, text: &str, qtype: Option<u16>) -> Explained {
        self.explain_to(text, qtype, CLIENT)
    }

    fn explain_to(&self, text: &str, qtype: Option<u16>, client: IpAddr) -> Explained {
        let explainer = Explainer {
            tables: &self.tables,
            recursion: self.recursion.as_deref(),
            upstreams: &[server("192.0.2.1:53")],
            catalog: &self.catalog,
            members: &Membership::default(),
            node: &label("host-a"),
            problems: &[],
        };
        explainer.explain(text, qtype, client)
    }

    /// Returns the reply of the engine; `None` if an upstream is queried.
    fn ask(&self, name: &str, qtype: u16) -> Option<Message> {
        let settings = EngineSettings {
            udp_payload: 1232,
            nsid: Box::default(),
            secret: None,
            limit: None,
            recursion: self.recursion.clone(),
            audience: Audience::Everyone,
            serves_transfers: false,
            serves_updates: false,
            signer: None,
        };
        let packet = Ask { name: name.to_owned(), qtype, edns: Some(1232), dnssec_ok: false }.packet(7);
        let client = Client { address: CLIENT, now: Duration::from_secs(1_000_000_000) };
        let origin = Origin { transport: Transport::Tcp, client: Some(client) };
        let mut reply = Vec::new();
        let mut engine = Engine::with(Arc::new(settings), fastrand::Rng::with_seed(7));
        match engine.answer(&self.tables, &packet, origin, &mut reply) {
            Decision::Reply(_) => Some(decode(&reply)),
            Decision::Resolve(_) => None,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// Returns the absolute owner name in a line of a zone file.
    fn owner_at(&self, file: &str, line: u32) -> String {
        let origin = file.strip_suffix(".zone").unwrap();
        let line = self.zones[file].lines().nth(line as usize - 1).unwrap();
        match line.split_whitespace().next().unwrap() {
            "@" => format!("{origin}."),
            owner => format!("{owner}.{origin}."),
        }
    }
}

const STATIC_SOA: &str = "@ SOA ns hostmaster 1 60 60 60 60\n@ NS ns\nns A 192.0.2.1\n";

#[test]
fn explain_agrees_with_dns_in_former_disagreements() {
    let discovery = "* A 192.0.2.7\nold A 192.0.2.9\n*.wild TXT x\nout CNAME www.example.com.\nto CNAME web\n\
                     corp CNAME a.corp.example.\nhome CNAME localhost.\na.b.c A 192.0.2.3\ndeep NS ns.example.com.\n";
    let example = format!(
        "{STATIC_SOA}sub NS ns.sub\nns.sub A 192.0.2.3\nin CNAME web.service.local.\nfirst CNAME second\nsecond CNAME x\nx CNAME sub\n"
    );
    let zones = [
        (DOMAIN, discovery.to_owned()),
        ("example.org", example),
        ("static.service.local", format!("{STATIC_SOA}x A 192.0.2.4\n")),
    ];
    let declared =
        [Declared::new("web", "w1", "10.0.0.8"), Declared { passing: false, ..Declared::new("db", "d1", "10.0.0.9") }];
    let routes: &[&str] = &["corp.example", "test", "."];
    let world = World::new(&declared, &zones, Some((ClientRange::Loopback, routes)));
    // Input, type, resolved name, source, response code, file and line.
    let cases: &[(&str, u16, &str, &str, &str, &str)] = &[
        // Below a delegation.
        ("a.sub.example.org", 1, "a.sub.example.org.", "delegation", "NOERROR", "example.org.zone:4"),
        ("sub.example.org", 1, "sub.example.org.", "delegation", "NOERROR", "example.org.zone:4"),
        ("sub.example.org", 43, "sub.example.org.", "static", "NOERROR", "example.org.zone:4"),
        ("x.deep.service.local", 1, "x.deep.service.local.", "delegation", "NOERROR", "service.local.zone:9"),
        // Wildcards do not match below a service.
        ("x.web.service.local", 1, "x.web.service.local.", "nothing", "NXDOMAIN", ":0"),
        ("x.svc.example", 1, "x.svc.example.", "wildcard", "NOERROR", "service.local.zone:1"),
        ("x.web.svc.example", 1, "x.web.svc.example.", "nothing", "NXDOMAIN", ":0"),
        ("y.wild.service.local", 16, "y.wild.service.local.", "wildcard", "NOERROR", "service.local.zone:3"),
        // Absolute names with an answer outside the discovery zone.
        ("localhost", 1, "localhost.", "special-use", "NOERROR", ":0"),
        ("x.localhost", 1, "x.localhost.", "special-use", "NOERROR", ":0"),
        ("test", 1, "test.", "route", "", ":0"),
        ("invalid", 1, "invalid.", "special-use", "NOERROR", ":0"),
        ("x.invalid", 1, "x.invalid.", "special-use", "NXDOMAIN", ":0"),
        // A route for the root does not include special-use names.
        ("www.example.com", 1, "www.example.com.", "route", "", ":0"),
        ("1.0.0.127.in-addr.arpa", 12, "1.0.0.127.in-addr.arpa.", "special-use", "NOERROR", ":0"),
        // CNAME chains.
        ("out.service.local", 1, "out.service.local.", "static", "", "service.local.zone:4"),
        ("corp.service.local", 1, "corp.service.local.", "static", "", "service.local.zone:6"),
        ("home.service.local", 1, "home.service.local.", "static", "NOERROR", "service.local.zone:7"),
        ("to.service.local", 1, "to.service.local.", "static", "NOERROR", "service.local.zone:5"),
        ("in.example.org", 1, "in.example.org.", "static", "NOERROR", "example.org.zone:6"),
        ("first.example.org", 1, "first.example.org.", "static", "NOERROR", "example.org.zone:7"),
        // Empty non-terminals.
        ("b.c.service.local", 1, "b.c.service.local.", "empty", "NOERROR", ":0"),
        ("node.service.local", 1, "node.service.local.", "empty", "NOERROR", ":0"),
        ("_tcp.service.local", 1, "_tcp.service.local.", "empty", "NOERROR", ":0"),
        ("x.node.service.local", 1, "x.node.service.local.", "nothing", "NXDOMAIN", ":0"),
        ("x.host-a.node.service.local", 1, "x.host-a.node.service.local.", "nothing", "NXDOMAIN", ":0"),
        // Short forms of names.
        ("web", 1, "web.service.local.", "service", "NOERROR", ":0"),
        ("db", 1, "db.service.local.", "service", "NOERROR", ":0"),
        ("web/w1", 1, "w1.web.service.local.", "instance", "NOERROR", ":0"),
        ("w1", 1, "w1.web.service.local.", "instance", "NOERROR", ":0"),
        ("web:w1", 1, "w1.web.service.local.", "instance", "NOERROR", ":0"),
        ("v2.web", 1, "v2.web.service.local.", "tag", "NOERROR", ":0"),
        ("_web._tcp", 33, "_web._tcp.service.local.", "protocol", "NOERROR", ":0"),
        ("_web._v2.svc.example", 33, "_web._v2.svc.example.", "tag", "NOERROR", ":0"),
        ("_http._tcp.web", 33, "_http._tcp.web.service.local.", "port", "NOERROR", ":0"),
        ("_why.w1.web.service.local.", 16, "_why.w1.web.service.local.", "why", "NOERROR", ":0"),
        ("host-a", 1, "host-a.node.service.local.", "node", "NOERROR", ":0"),
        ("old", 1, "old.service.local.", "static", "NOERROR", "service.local.zone:2"),
        ("wep", 1, "wep.service.local.", "wildcard", "NOERROR", "service.local.zone:1"),
        ("x.static.service.local", 1, "x.static.service.local.", "static", "NOERROR", "static.service.local.zone:4"),
        ("y.static.service.local", 1, "y.static.service.local.", "nothing", "NXDOMAIN", "static.service.local.zone:0"),
        ("service.local", 6, "service.local.", "apex", "NOERROR", ":0"),
        ("example.org", 6, "example.org.", "apex", "NOERROR", "example.org.zone:2"),
        ("8.0.0.10.in-addr.arpa", 12, "8.0.0.10.in-addr.arpa.", "reverse", "NOERROR", ":0"),
        ("7.0.0.10.in-addr.arpa", 12, "7.0.0.10.in-addr.arpa.", "reverse", "NOERROR", ":0"),
    ];
    for (text, qtype, question, source, rcode, place) in cases {
        let explained = world.explain(text, Some(*qtype));
        let seen = format!("{}:{}", explained.file, explained.line);
        assert_eq!(
            (&*explained.question, &*explained.source, &*explained.rcode, &*seen),
            (*question, *source, *rcode, *place),
            "{text}: {explained:#?}"
        );
        compare(&world, question, *qtype).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    let summary = |text: &str| world.explain(text, None).summary;
    assert!(summary("to.service.local").ends_with("CNAME to web.service.local.: 1 of 1 answered"));
    assert!(summary("corp.service.local").ends_with("route corp.example. forwards it to 192.0.2.2:53"));
    assert!(summary("a.sub.example.org").starts_with("referral: "));
    assert_eq!(
        world.explain("8.0.0.10.in-addr.arpa", None).instances[0].id,
        "w1",
        "the reverse name includes its instance"
    );

    // Recursion is disabled, or not allowed for the client.
    for recursion in [None, Some((ClientRange::Private, &[][..]))] {
        let world = World::new(&declared, &zones, recursion);
        let explained = world.explain("localhost", None);
        assert_eq!((&*explained.source, &*explained.rcode), ("refused", "REFUSED"), "{explained:#?}");
        compare(&world, "localhost.", rtype::A).unwrap();
    }
}

#[test]
fn negative_answers_have_the_ttl_of_their_soa() {
    let zone = format!("{}www A 192.0.2.4\n", STATIC_SOA.replace("60 60 60 60", "60 60 60 7"));
    let down = Declared { passing: false, ..Declared::new("db", "d1", "10.0.0.9") };
    let world = World::new(&[Declared::new("web", "w1", "10.0.0.8"), down], &[("example.org", zone)], None);
    let configured = "dns.negative_ttl of this node's configuration";
    let cases = [
        ("db", None, 1, configured),
        ("db", Some(rtype::SRV), 1, configured),
        ("none.service.local", None, 1, configured),
        ("web", Some(rtype::TXT), 1, configured),
        ("web", None, 5, "dns.ttl of this node's configuration"),
        ("_web._tcp", None, 5, "dns.ttl of this node's configuration"),
        ("www.example.org", Some(rtype::TXT), 7, "the SOA of the zone file"),
        ("ftp.example.org", None, 7, "the SOA of the zone file"),
        ("www.example.org", None, 7, "the zone file"),
    ];
    for (name, qtype, ttl, from) in cases {
        let explained = world.explain(name, qtype);
        assert_eq!((explained.ttl, &*explained.ttl_from), (ttl, from), "{name} {qtype:?}: {explained:#?}");
    }
}

#[test]
fn why_names_have_txt_records_even_without_an_answered_instance() {
    let down = Declared { passing: false, ..Declared::new("db", "d1", "10.0.0.9") };
    let world = World::new(&[down], &[], None);
    let cases = [
        ("_why.db.service.local", "TXT records that explain service db: 0 of 1 answered"),
        ("_why.d1.db.service.local", "TXT records that explain instance db/d1: 0 of 1 answered"),
    ];
    for (name, summary) in cases {
        let explained = world.explain(name, None);
        assert_eq!((&*explained.summary, explained.ttl), (summary, 1), "{explained:#?}");
        assert_eq!((&*explained.source, &explained.records[..]), ("why", &["TXT".to_owned()][..]));
    }
}

#[test]
fn why_names_are_refused_to_clients_outside_resolver_allow() {
    let declared = [Declared::new("web", "w1", "10.0.0.8")];
    let world = World::new(&declared, &[], Some((ClientRange::Private, &[])));
    for (client, rcode) in [("127.0.0.1", "NOERROR"), ("10.0.0.9", "NOERROR"), ("192.0.2.1", "REFUSED")] {
        let explained = world.explain_to("_why.web.service.local", Some(rtype::TXT), client.parse().unwrap());
        assert_eq!((&*explained.rcode, explained.instances.is_empty()), (rcode, rcode == "REFUSED"), "{client}");
    }
}

/// A reverse name without a PTR record has those of its zone; a random catalog found it without any.
#[test]
fn any_of_a_reverse_name_without_pointers_has_a_record() {
    let down = Declared { passing: false, ..Declared::new("web", "w1", "10.0.0.8") };
    let world = World::new(&[down], &[], None);
    let explained = world.explain("8.0.0.10.in-addr.arpa.", Some(rtype::ANY));
    assert_eq!(explained.records, ["NS", "SOA"]);
    compare(&world, "8.0.0.10.in-addr.arpa.", rtype::ANY).unwrap();
}

#[test]
fn explanation_of_each_name_form_shows_tiers_and_the_answered_one() {
    let instance = |id, node, passing| Declared {
        node,
        passing,
        nearest: Some("zone"),
        min_healthy: Some("50%"),
        ..Declared::new("web", id, "10.0.0.8")
    };
    let declared = [
        Declared { tags: vec!["v2", "canary"], ..instance("w1", "host-a", true) },
        instance("w2", "host-b", false),
        instance("w3", "host-b", false),
        Declared { port: None, ..instance("w4", "host-c", true) },
        Declared { tags: vec!["canary"], min_healthy: Some("1"), ..instance("w5", "host-d", true) },
    ];
    let world = World::new(&declared, &[], None);
    let shown = |name: &str| {
        let explained = world.explain(name, None);
        let nearest = explained.nearest.unwrap();
        let tiers = nearest.tiers.iter().map(|tier| {
            let sign = if tier.answered { ">" } else { "" };
            let area = format!("{} {}", tier.tier, tier.name);
            format!("{sign}{} {} of {}, {}", area.trim(), tier.healthy, tier.declared, tier.required)
        });
        let answered = explained.instances.iter().filter(|one| one.answered).map(|one| one.id.as_str());
        let answered = answered.collect::<Vec<_>>().join(" ");
        (explained.summary, tiers.collect::<Vec<_>>().join("; "), answered)
    };
    let cases = [
        (
            "web",
            "2 of 5 answered, those of datacenter dc1",
            "zone z1 1 of 3, 2; >datacenter dc1 2 of 4, 2; all 3 of 5, 1",
            "w1 w4",
        ),
        (
            "canary.web",
            "1 of 2 answered, those of zone z1",
            ">zone z1 1 of 1, 1; datacenter dc1 1 of 1, 1; all 2 of 2, 1",
            "w1",
        ),
        (
            "_web._tcp",
            "2 of 5 answered, those of datacenter dc1",
            "zone z1 1 of 3, 2; >datacenter dc1 2 of 4, 2; all 3 of 5, 1",
            "w1 w4",
        ),
        ("_http._tcp.web", "2 of 4 answered", "zone z1 1 of 3, 2; datacenter dc1 1 of 3, 2; >all 2 of 4, 1", "w1 w5"),
    ];
    for (name, summary, tiers, answered) in cases {
        assert_eq!(shown(name), (summary.to_owned(), tiers.to_owned(), answered.to_owned()), "{name}");
        compare(&world, &world.explain(name, None).question, rtype::SRV).unwrap();
    }
    let explained = world.explain("web", None);
    let nearest = explained.nearest.unwrap();
    let from = (&*nearest.nearest, &*nearest.nearest_from, &*nearest.min_healthy, &*nearest.min_healthy_from);
    assert_eq!(from, ("zone", "the nearest of web/w1", "50%", "the min_healthy of web/w1"));
    let far = &explained.instances[4];
    assert_eq!((far.id.as_str(), far.zone.as_deref(), far.datacenter.as_str()), ("w5", None, "dc2"));
    assert_eq!((far.answered, &*far.state), (false, "passing"));
    assert_eq!(far.why, "not answered here: datacenter dc1 has enough healthy instances");
    let note = "Instance web/w5 states another nearest or min_healthy than web/w1: the first instance by id that states a \
                value counts.";
    assert!(explained.notes.iter().any(|shown| shown == note), "{:?}", explained.notes);

    // An instance asked for by its own name, `_why` and PTR are not filtered.
    for name in ["w5.web", "_why.web", "8.0.0.10.in-addr.arpa."] {
        let explained = world.explain(name, None);
        assert_eq!(explained.nearest, None, "{name}");
        assert!(explained.instances.iter().any(|one| one.id == "w5" && one.answered), "{name}: {explained:#?}");
    }
    let [answer] = &world.ask("w5.web.service.local.", rtype::A).unwrap().answers[..] else { panic!("one address") };
    assert_eq!(answer.data.to_string(), "10.0.0.8");
}

#[test]
fn explanation_names_a_tier_that_declares_fewer_than_required() {
    let instance = |id, node| Declared {
        node,
        nearest: Some("zone"),
        min_healthy: Some("2"),
        ..Declared::new("web", id, "10.0.0.8")
    };
    let note = "The zone z1 declares 1 instance, fewer than the 2 that `min_healthy` requires: it is never answered.";
    let cases: [(&[Declared], &[&str]); 2] = [
        (&[instance("w1", "host-a"), instance("w2", "host-c")], &[note]),
        (&[instance("w1", "host-a"), instance("w2", "host-b"), instance("w3", "host-c")], &[]),
    ];
    for (declared, expected) in cases {
        let notes = World::new(declared, &[], None).explain("web", None).notes;
        let shown: Vec<&str> = notes.iter().map(String::as_str).filter(|note| note.contains("min_healthy")).collect();
        assert_eq!(shown, expected);
    }
}

/// Compares the engine's reply with the explanation of the same name and type.
fn compare(world: &World, name: &str, qtype: u16) -> Result<(), TestCaseError> {
    let explained = world.explain(name, Some(qtype));
    prop_assert_eq!(&explained.question, name);
    let Some(reply) = world.ask(name, qtype) else {
        prop_assert_eq!(&explained.rcode, "", "an upstream decides");
        return Ok(());
    };
    let rcode = Rcode::from_number(reply.metadata.response_code.into()).unwrap();
    prop_assert_eq!(&explained.rcode, &rcode.to_string());
    let has = |name: &str| explained.records.iter().any(|rtype| rtype == name);
    let answered = match qtype {
        rtype::ANY => explained.source != "special-use" && !explained.records.is_empty(),
        _ => has(&rtype::name(qtype)) || has("CNAME"),
    };
    prop_assert_eq!(!reply.answers.is_empty(), answered, "records: {:?}", explained.records);
    if qtype == rtype::SRV && ["service", "tag", "protocol", "port"].contains(&explained.source.as_str()) {
        let targets = reply.answers.iter().map(|record| match &record.data {
            RData::SRV(srv) => srv.target.to_string().split('.').next().unwrap().to_owned(),
            data => panic!("{data}"),
        });
        let answered = explained.instances.iter().filter(|instance| instance.answered);
        let answered: BTreeSet<String> = answered.map(|instance| instance.id.clone()).collect();
        prop_assert_eq!(targets.collect::<BTreeSet<_>>(), answered);
    }
    let is_referral = reply.authorities.iter().any(|record| record.record_type() == RecordType::NS);
    prop_assert_eq!(is_referral, explained.summary.contains("referral: "), "{}", explained.summary);
    if explained.line > 0 && explained.source != "apex" {
        let owner = if explained.owner.is_empty() { &explained.question } else { &explained.owner };
        let written = world.owner_at(&explained.file, explained.line);
        let in_alias = written.replace("service.local.", "svc.example.");
        prop_assert!(*owner == written || *owner == in_alias, "{} is not the owner in line {}", owner, explained.line);
    }
    Ok(())
}

fn declared() -> impl Strategy<Value = Declared> {
    let service = prop::sample::select(vec!["web", "db", "static"]);
    let id = prop::sample::select(vec!["w1", "d1", "v2", "x"]);
    let address = prop::sample::select(vec!["10.0.0.7", "10.0.0.8", "10.1.0.9"]);
    let tags = prop::sample::subsequence(vec!["v2", "x", "w1"], 0..3);
    let port = prop::option::of(prop::sample::select(vec!["http", "x"]));
    let node = prop::sample::select(NODES.map(|(node, ..)| node).to_vec());
    let nearest = prop::option::of(prop::sample::select(vec!["none", "zone", "datacenter"]));
    let min_healthy = prop::option::of(prop::sample::select(vec!["1", "2", "50%", "100%"]));
    let near = (node, nearest, min_healthy);
    (service, id, address, tags, port, any::<bool>(), prop::bool::weighted(0.8), near).prop_map(
        |(service, id, address, tags, port, udp, passing, (node, nearest, min_healthy))| {
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            Declared { service, id, address, tags, port, protocol, passing, node, nearest, min_healthy }
        },
    )
}

/// Records of a zone, one per owner name.
fn records() -> impl Strategy<Value = String> {
    let owner = prop::sample::select(vec![
        "*",
        "web",
        "x",
        "x.web",
        "*.web",
        "w1.web",
        "_web._tcp",
        "old",
        "*.wild",
        "a.b.old",
        "sub",
        "ns.sub",
        "db",
        "*.x.old",
        "node",
        "host-a.node",
        "*.node",
        "8.0.0",
        "*.0",
        "_tcp",
    ]);
    let data = prop::sample::select(vec![
        "A 192.0.2.7",
        "A 192.0.2.7",
        "TXT text",
        "MX 10 old",
        "NS ns.sub",
        "NS ns.example.com.",
        "CNAME web.service.local.",
        "CNAME x.old",
        "CNAME x.web.service.local.",
        "CNAME sub.example.org.",
        "CNAME old.example.org.",
        "CNAME www.outside.example.",
        "CNAME a.corp.example.",
        "CNAME localhost.",
        "CNAME nothing.service.local.",
    ]);
    prop::collection::btree_map(owner, data, 0..8).prop_map(|records| {
        let line = |(owner, data): (&str, &str)| format!("{owner} {data}\n");
        records.into_iter().map(line).collect()
    })
}

fn question() -> impl Strategy<Value = (String, u16)> {
    let word = prop::sample::select(vec![
        "web", "db", "x", "old", "wild", "a", "b", "sub", "ns", "node", "host-a", "_tcp", "_udp", "_web", "_http",
        "_why", "_v2", "_x", "v2", "w1", "d1", "static", "*", "0", "8", "7",
    ]);
    let suffix = prop::sample::select(vec![
        "service.local.",
        "service.local.",
        "svc.example.",
        "example.org.",
        "static.service.local.",
        "10.in-addr.arpa.",
        "8.0.0.10.in-addr.arpa.",
        "9.0.1.10.in-addr.arpa.",
        "1.0.0.127.in-addr.arpa.",
        "localhost.",
        "test.",
        "corp.example.",
        "outside.example.",
    ]);
    let qtype = prop::sample::select(vec![1, 1, 1, 28, 33, 16, 5, 43, 15, 2, 6, 12, 255]);
    (prop::collection::vec(word, 0..4), suffix, qtype).prop_map(|(words, suffix, qtype)| {
        let labels: String = words.iter().map(|word| format!("{word}.")).collect();
        (labels + suffix, qtype)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn explain_agrees_with_dns(
        declared in prop::collection::vec(declared(), 0..5),
        zones in [records(), records(), records(), records()],
        recursion in prop::option::of((
            prop::sample::select(vec![ClientRange::Loopback, ClientRange::Any, ClientRange::Private]),
            prop::sample::subsequence(vec!["corp.example", "test", ".", "a.corp.example"], 0..4),
        )),
        questions in prop::collection::vec(question(), 16),
    ) {
        let [discovery, example, inside, reverse] = zones;
        let with_soa = |text: String| format!("{text}{STATIC_SOA}");
        let zones = [
            (DOMAIN, discovery),
            ("example.org", with_soa(example)),
            ("static.service.local", with_soa(inside)),
            ("10.in-addr.arpa", with_soa(reverse)),
        ];
        // Some random records are not a valid zone, for example with a CNAME loop.
        let is_zone = |(origin, text): &(&str, String)| {
            zone_file::parse(Path::new(&format!("{origin}.zone")), text.as_bytes(), 60).is_ok()
        };
        let zones: Vec<_> = zones.into_iter().filter(is_zone).collect();
        let recursion = recursion.as_ref().map(|(allow, routes)| (*allow, &routes[..]));
        let world = World::new(&declared, &zones, recursion);
        for (name, qtype) in &questions {
            compare(&world, name, *qtype)
                .map_err(|error| TestCaseError::fail(format!("{name} {}: {error}", rtype::name(*qtype))))?;
        }
    }
}
