//! Golden answers: YAML in, `dig`-like text out. Each file of `tests/golden/` describes a small cluster and its queries.
//!
//! A file consists of sections, each opened by a line that begins with `== `:
//!
//! - `== node NAME[@DATACENTER] ADDRESS...`: a node; the first one answers. Default: `host-a` at 10.0.0.7, in `dc1`.
//! - `== out-of-reach NODE`: that node is unreachable; its state is last known.
//! - `== gone NODE`: that node crashed.
//! - `== service [on NODE]`: the text of a service file follows.
//! - `== zone NAME`: the text of a zone file follows.
//! - `== external NODE ADDRESS...`: an external node, owned by the first node.
//! - `== service at NODE`: the text of a service file, whose instances are on that external node.
//! - `== state SERVICE/ID critical|warning REASON`: the state of an instance; the default is passing.
//! - `== domain NAME`: the discovery zone, instead of `service.local`.
//! - `== alias NAME [consul]`: an alias domain, with the scheme of Consul.
//! - `== ptr NAME`: the zone of PTR targets, instead of the discovery zone.
//! - `== only-passing`: instances in state warning are not answered.
//! - `== ask NAME TYPE [edns[=PAYLOAD]] [do] [tcp]`: a query; the reply follows as text, the records of each
//!   section sorted, since their order is random.
//!
//! `MUSTER_BLESS=1 cargo test --test golden` writes the current answers; review the difference.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{collections::BTreeMap, env, fmt::Write as _, fs, net::IpAddr, path::Path, sync::Arc};

use hickory_proto::rr::RecordType;
use muster::{
    dns::{
        engine::{Engine, Transport},
        zone::{Settings, Tables},
    },
    files::{
        service_file::{self, Defaults},
        zone_file,
    },
    model::{
        alias_domain::AliasDomain,
        announcement::{Announcement, Announcements, InstanceState, Node},
        catalog::{Catalog, Freshness, NodeView, View},
        external_node::{ExternalNode, ExternalNodes},
        health::Status,
        name::{Label, Name},
        registered_name::RegisteredName,
        service::Instance,
    },
};
use support::{Ask, decode, extended_error, label, show};

const PAYLOAD: u16 = 1232;
const TTL: u32 = 5;

#[test]
fn answers_equal_the_golden_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "golden files found");
    let mut wrong = String::new();
    for file in files {
        let expected = fs::read_to_string(&file).unwrap();
        let actual = replay(&expected);
        if actual == expected {
            continue;
        }
        if env::var_os("MUSTER_BLESS").is_some() {
            fs::write(&file, &actual).unwrap();
        }
        let name = file.file_name().unwrap().to_string_lossy();
        for (at, (got, want)) in
            actual.lines().zip(expected.lines()).enumerate().filter(|(_, (got, want))| got != want).take(5)
        {
            writeln!(wrong, "{name}:{}: got {got:?}, expected {want:?}", at + 1).unwrap();
        }
        writeln!(wrong, "{name}: got {} lines, expected {}", actual.lines().count(), expected.lines().count()).unwrap();
    }
    assert!(wrong.is_empty(), "\n{wrong}MUSTER_BLESS=1 writes the current answers");
}

/// Returns the text with the current reply to every query.
fn replay(text: &str) -> String {
    let mut sections: Vec<(&str, String)> = vec![("", String::new())];
    for line in text.lines() {
        match line.strip_prefix("== ") {
            Some(head) => sections.push((head, String::new())),
            None => {
                let body = &mut sections.last_mut().unwrap().1;
                body.push_str(line);
                body.push('\n');
            }
        }
    }
    let tables = World::read(&sections).tables();
    let mut out = String::new();
    for (head, body) in &sections {
        if !head.is_empty() {
            writeln!(out, "== {head}").unwrap();
        }
        match head.strip_prefix("ask ") {
            Some(ask) => writeln!(out, "{}", answer(&tables, ask)).unwrap(),
            None => out.push_str(body),
        }
    }
    format!("{}\n", out.trim_end())
}

#[derive(Default)]
struct World {
    nodes: Vec<Node>,
    freshness: BTreeMap<Label, Freshness>,
    external: ExternalNodes,
    announcements: BTreeMap<Label, Announcements>,
    states: BTreeMap<String, InstanceState>,
    zones: Vec<Arc<muster::model::zone::ZoneFile>>,
    domain: Option<Name>,
    aliases: Vec<AliasDomain>,
    ptr: Option<Name>,
    only_passing: bool,
}

impl World {
    fn read(sections: &[(&str, String)]) -> Self {
        let mut world = Self::default();
        for (head, body) in sections {
            let words: Vec<&str> = head.split_whitespace().collect();
            match words[..] {
                ["node", name, ref addresses @ ..] => {
                    let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
                    world.nodes.push(node(name, addresses));
                }
                ["external", name, ref addresses @ ..] => {
                    let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
                    let name = RegisteredName::parse(name).unwrap();
                    world.external.insert(name.clone(), Arc::new(ExternalNode::new(name, addresses)));
                }
                ["out-of-reach", node] => drop(world.freshness.insert(label(node), Freshness::LastKnown)),
                ["gone", node] => drop(world.freshness.insert(label(node), Freshness::Gone)),
                ["state", instance, status, ref reason @ ..] => {
                    let status = if status == "warning" { Status::Warning } else { Status::Critical };
                    world.states.insert(instance.to_owned(), InstanceState::new(status, &reason.join(" ")));
                }
                ["zone", name] => {
                    let path = format!("{name}.zone");
                    let file = zone_file::parse(Path::new(&path), body.as_bytes(), TTL);
                    world.zones.push(Arc::new(file.unwrap_or_else(|problems| panic!("{problems:#?}"))));
                }
                ["domain", name] => world.domain = Name::parse(name).ok(),
                ["alias", name] => world.aliases.push(AliasDomain::new(Name::parse(name).unwrap())),
                ["alias", name, "consul"] => world.aliases.push(AliasDomain::consul(Name::parse(name).unwrap())),
                ["ptr", name] => world.ptr = Name::parse(name).ok(),
                ["only-passing"] => world.only_passing = true,
                _ => {}
            }
        }
        if world.nodes.is_empty() {
            world.nodes.push(node("host-a", vec!["10.0.0.7".parse().unwrap()]));
        }
        for (head, body) in sections {
            let words: Vec<&str> = head.split_whitespace().collect();
            match words[..] {
                ["service"] => world.service(&world.nodes[0].name.clone(), None, body),
                ["service", "on", node] => world.service(&label(node), None, body),
                ["service", "at", node] => {
                    let external = world.external[&RegisteredName::parse(node).unwrap()].clone();
                    world.service(&world.nodes[0].name.clone(), Some(&external), body);
                }
                _ => {}
            }
        }
        world
    }

    fn service(&mut self, node: &Label, external: Option<&Arc<ExternalNode>>, text: &str) {
        let known = self.nodes.iter().find(|known| known.name == *node).expect("a declared node");
        let addresses = external.map_or(&*known.addresses, |external| &external.addresses);
        let defaults = Defaults { node, addresses, allow_exec: true };
        let file = service_file::parse(Path::new("golden.yaml"), text.as_bytes(), &defaults);
        let file = file.unwrap_or_else(|problems| panic!("{problems:#?}"));
        for entry in file.entries {
            let instance = Arc::new(Instance {
                external: external.map(|external| Box::new(external.name.clone())),
                ..Instance::clone(&entry.definition.instance)
            });
            let state = match self.states.get(&instance.key.to_string()) {
                _ if !entry.definition.enabled => InstanceState::Disabled,
                Some(state) => state.clone(),
                None => InstanceState::Passing,
            };
            let announcement = Announcement::new(instance, state);
            self.announcements.entry(node.clone()).or_default().extend([announcement.into_entry()]);
        }
    }

    fn tables(self) -> Tables {
        let own = self.nodes[0].clone();
        let view: View = self
            .nodes
            .into_iter()
            .map(|node| {
                let name = node.name.clone();
                let announcements = self.announcements.get(&name).cloned().unwrap_or_default();
                let freshness = self.freshness.get(&name).copied().unwrap_or(Freshness::Live);
                let external = if name == own.name { self.external.clone() } else { ExternalNodes::new() };
                (name, Arc::new(NodeView { external, node: Arc::new(node), announcements, freshness }))
            })
            .collect();
        let domain = self.domain.unwrap_or_else(|| Name::parse("service.local").unwrap());
        let settings = Settings { aliases: self.aliases, ttl: TTL, ..Settings::new(own.name, own.datacenter, domain) };
        let ptr_domain = self.ptr.unwrap_or_else(|| settings.ptr_domain.clone());
        let mut tables = Tables::new(Settings { ptr_domain, ..settings });
        let mut catalog = Catalog::default().answering(self.only_passing);
        let touched = catalog.update(view);
        tables.set_zones(&self.zones);
        tables.update(&catalog, &touched);
        tables.set_serial(2_026_000_001);
        tables
    }
}

/// Returns a node; its name may end in `@DATACENTER`.
fn node(name: &str, addresses: Vec<IpAddr>) -> Node {
    let (name, datacenter) = name.split_once('@').unwrap_or((name, "dc1"));
    Node::new(label(name), addresses, label(datacenter))
}

fn answer(tables: &Tables, ask: &str) -> String {
    let mut words = ask.split_whitespace();
    let name = words.next().unwrap();
    let rtype = words.next().unwrap();
    let qtype: RecordType = rtype.parse().unwrap_or_else(|_| panic!("unknown type {rtype}"));
    let mut ask = Ask { name: name.to_owned(), qtype: qtype.into(), edns: None, dnssec_ok: false };
    let mut transport = Transport::Udp;
    for word in words {
        match word.split_once('=').unwrap_or((word, "1232")) {
            ("edns", payload) => ask.edns = Some(payload.parse().unwrap()),
            ("do", _) => ask.dnssec_ok = true,
            ("tcp", _) => transport = Transport::Tcp,
            other => panic!("unknown word {other:?}"),
        }
    }
    let mut out = Vec::new();
    let mut engine = Engine::new(PAYLOAD, fastrand::Rng::with_seed(1));
    if engine.respond(tables, &ask.packet(1), transport, &mut out).is_none() {
        return "silence\n".to_owned();
    }
    let message = decode(&out);
    let meta = &message.metadata;
    let mut text = format!("{:?}", meta.response_code).to_uppercase();
    for (flag, set) in [
        ("aa", meta.authoritative),
        ("tc", meta.truncation),
        ("rd", meta.recursion_desired),
        ("ra", meta.recursion_available),
        ("ad", meta.authentic_data),
        ("cd", meta.checking_disabled),
    ] {
        if set {
            write!(text, " {flag}").unwrap();
        }
    }
    writeln!(text, ", {} octets", out.len()).unwrap();
    if let Some(edns) = &message.edns {
        let dnssec_ok = if edns.flags().dnssec_ok { " do" } else { "" };
        writeln!(text, "; EDNS {}, udp {}{dnssec_ok}", edns.version(), edns.max_payload()).unwrap();
    }
    if let Some((code, explanation)) = extended_error(&message) {
        writeln!(text, "; EDE {code}: {explanation}").unwrap();
    }
    for (title, records) in
        [("answer", &message.answers), ("authority", &message.authorities), ("additional", &message.additionals)]
    {
        let mut lines: Vec<String> = records.iter().filter(|r| r.record_type() != RecordType::OPT).map(show).collect();
        // Only a chain of CNAMEs has an order.
        if !records.iter().any(|r| r.record_type() == RecordType::CNAME) {
            lines.sort();
        }
        if !lines.is_empty() {
            writeln!(text, "; {title}").unwrap();
            lines.iter().for_each(|line| writeln!(text, "{line}").unwrap());
        }
    }
    text
}
