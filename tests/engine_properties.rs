//! For random catalogs and questions, hickory-proto decodes the reply, and its records match the catalog.
//!
//! The reference is [`Zone`], which enumerates all names of the zone from the catalog, like a generator of a zone file. The engine
//! works in the opposite direction, from the name to its records. The set of labels is small, so that ids, tags, services,
//! ports and reserved words collide.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Deref,
    sync::Arc,
};

use hickory_proto::{
    op::Message,
    rr::{Record, RecordType},
};
use muster::{
    dns::{
        engine::{Engine, Transport},
        message::codes::rtype,
        zone::{Settings, Tables, service::MAX_STALE_TTL},
    },
    model::{
        alias_domain::AliasDomain,
        announcement::{Announcement, InstanceState, Node},
        catalog::{Catalog, Freshness, NodeView, View},
        external_node::ExternalNode,
        name::{Label, Name},
        nearest::{MinHealthy, Nearest},
        service::{Instance, InstanceKey, Protocol},
    },
};
use proptest::prelude::*;
use support::{
    Ask, decode, label, show_data,
    views::{PLACES, labels, view},
};

const TTL: u32 = 5;
const NEGATIVE_TTL: u32 = 1;
const PAYLOAD: u16 = 1232;
const DOMAINS: [&str; 2] = ["service.local.", "svc.example."];

// Questions.

/// A random question, mostly for an existing name, which is chosen once the names of the zone are known.
#[derive(Clone, Debug)]
struct Question {
    existing: Option<prop::sample::Index>,
    below: Option<String>,
    otherwise: String,
    case: u64,
    qtype: u16,
    edns: Option<u16>,
}

fn question() -> impl Strategy<Value = Question> {
    let word = || {
        prop_oneof![
            6 => labels().prop_map(str::to_owned),
            4 => labels().prop_map(|l| format!("_{l}")),
            1 => Just("node".to_owned()),
            1 => "[a-z0-9_][a-z0-9_-]{0,5}",
        ]
    };
    let domain = prop::sample::select(vec![DOMAINS[0], DOMAINS[0], DOMAINS[1], "other."]);
    let otherwise = (prop::collection::vec(word(), 0..5), domain)
        .prop_map(|(words, domain)| words.iter().map(|w| format!("{w}.")).collect::<String>() + domain);
    let existing = prop::option::weighted(0.7, any::<prop::sample::Index>());
    let qtype = prop::sample::select(vec![1, 1, 28, 33, 33, 16, 255, 6, 2, 5, 12, 12, 65, 64, 43, 64000]);
    let edns = prop::option::of(prop::sample::select(vec![0, 512, 1232, 4096, 65535]));
    (existing, prop::option::weighted(0.2, word()), otherwise, any::<u64>(), qtype, edns).prop_map(
        |(existing, below, otherwise, case, qtype, edns)| Question { existing, below, otherwise, case, qtype, edns },
    )
}

impl Question {
    fn of(&self, names: &[String]) -> Ask {
        let name = match &self.existing {
            Some(index) => self.below.iter().map(|w| format!("{w}.")).collect::<String>() + index.get::<String>(names),
            None => self.otherwise.clone(),
        };
        let cased = |(at, c): (usize, char)| if self.case >> (at % 64) & 1 == 1 { c.to_ascii_uppercase() } else { c };
        Ask {
            name: name.chars().enumerate().map(cased).collect(),
            qtype: self.qtype,
            edns: self.edns,
            dnssec_ok: false,
        }
    }
}

// Reference.

#[derive(Clone, Debug, Default, PartialEq)]
struct RRset {
    ttl: u32,
    data: BTreeSet<String>,
}

/// All names of one domain with their RRsets, including empty ones.
#[derive(Default)]
struct Zone {
    names: BTreeMap<String, BTreeMap<u16, RRset>>,
    /// Names with Extended DNS Error 14.
    not_ready: BTreeSet<String>,
    /// Text of Extended DNS Error 3 by name.
    stale: BTreeMap<String, String>,
    /// Policy of the service whose names are added.
    policy: (Nearest, MinHealthy),
}

/// An announcement that is not shadowed, with its node.
#[derive(Clone, Copy)]
struct Member<'v> {
    announcement: &'v Announcement,
    node: &'v str,
    freshness: Freshness,
    /// Distance of the node: 0 in the zone of the node that answers, 1 in its datacenter, 2 elsewhere.
    distance: usize,
}

type Members<'v> = Vec<Member<'v>>;

impl Deref for Member<'_> {
    type Target = Announcement;

    fn deref(&self) -> &Announcement {
        self.announcement
    }
}

impl Member<'_> {
    fn ttl(&self) -> u32 {
        let ttl = self.instance.ttl.unwrap_or(TTL);
        if self.freshness == Freshness::LastKnown { ttl.min(MAX_STALE_TTL) } else { ttl }
    }

    fn is_answered(&self) -> bool {
        self.freshness != Freshness::Gone && self.state.is_answered()
    }
}

impl Member<'_> {
    /// Returns state and reason; `None` if the instance is plainly answered.
    fn why(&self) -> Option<(&'static str, String)> {
        let node = self.node;
        Some(match (self.freshness, &self.state) {
            (Freshness::Gone, _) => ("gone", format!("node {node} is gone")),
            (_, InstanceState::Critical(reason)) => ("critical", format!("critical: {reason}")),
            (_, InstanceState::Disabled) => ("disabled", "disabled: `enabled: false` in its service file".to_owned()),
            (Freshness::LastKnown, _) => {
                ("stale", format!("answered as last known: node {node} is unreachable or restarting"))
            }
            (_, InstanceState::Warning(reason)) => {
                let weight = self.instance.weight;
                let weight = if weight > 0 { (weight / 10).max(1) } else { 0 };
                ("warning", format!("answered with weight {weight}: warning: {reason}"))
            }
            _ => return None,
        })
    }

    fn detail(&self, state: &str, text: &str) -> String {
        format!("\"{} on {}: {state}\" \"{text}\"", self.announcement.instance.key.id, self.node)
    }
}

fn distance(node: &Node, instance: &Instance) -> usize {
    let (datacenter, zone) = PLACES[0];
    // An external node has the datacenter of its owner and no zone.
    match node.zone.as_ref().filter(|_| instance.external.is_none()) {
        _ if node.datacenter.as_str() != datacenter => 2,
        Some(known) if known.as_str() == zone => 0,
        _ => 1,
    }
}

/// Returns the instances that are near enough, healthy or not.
fn near<'a>(members: &Members<'a>, (nearest, min_healthy): (Nearest, MinHealthy)) -> Members<'a> {
    let first = match nearest {
        Nearest::Zone => 0,
        Nearest::Datacenter => 1,
        Nearest::None => 2,
    };
    for most in first..2 {
        let tier: Members<'a> = members.iter().copied().filter(|member| member.distance <= most).collect();
        let healthy = tier.iter().filter(|member| member.is_answered()).count();
        let is_enough = match min_healthy.to_string().strip_suffix('%') {
            Some(percent) => healthy > 0 && healthy * 100 >= tier.len() * percent.parse::<usize>().unwrap(),
            None => healthy >= min_healthy.to_string().parse().unwrap(),
        };
        if is_enough {
            return tier;
        }
    }
    members.clone()
}

/// Returns the reason why none of the instances is answered.
fn none_answered(members: &Members<'_>) -> String {
    let there = || members.iter().filter(|member| member.freshness != Freshness::Gone);
    let critical = there().filter(|member| matches!(member.state, InstanceState::Critical(_))).count();
    let disabled = there().filter(|member| matches!(member.state, InstanceState::Disabled)).count();
    let gone: Vec<&str> = members.iter().filter(|m| m.freshness == Freshness::Gone).map(|m| m.node).collect();
    let nodes: BTreeSet<&&str> = gone.iter().collect();
    let mut text = format!("{} instance{}", members.len(), if members.len() == 1 { "" } else { "s" });
    if critical > 0 {
        text += &format!(", {critical} critical: connection refused");
    }
    if disabled > 0 {
        text += &format!(", {disabled} disabled");
    }
    match (nodes.first(), nodes.len()) {
        (None, _) => {}
        (Some(node), 1) => text += &format!(", {} gone (node {node})", gone.len()),
        (Some(node), len) => text += &format!(", {} gone (node {node} and {} more)", gone.len(), len - 1),
    }
    text
}

/// Returns the nodes in order of precedence: live nodes first.
fn by_freshness(view: &View) -> impl Iterator<Item = (&Label, &Arc<NodeView>)> {
    let of = |freshness| view.iter().filter(move |(_, node)| node.freshness == freshness);
    of(Freshness::Live).chain(of(Freshness::LastKnown)).chain(of(Freshness::Gone))
}

/// Returns the external nodes that are answered, each with its owner. A member takes precedence over an external node of its
/// name, whatever its state.
fn external_nodes(view: &View) -> BTreeMap<&str, (&ExternalNode, &Node)> {
    let mut nodes = BTreeMap::new();
    for (_, owner) in by_freshness(view).filter(|(_, owner)| owner.freshness != Freshness::Gone) {
        for (name, node) in &owner.external {
            let is_shown = name.dns_label().is_ok() && !view.keys().any(|member| member.as_str() == name.as_str());
            if is_shown {
                nodes.entry(name.as_str()).or_insert((&**node, &*owner.node));
            }
        }
    }
    nodes
}

/// Returns the text of Extended DNS Error 3 for the unreachable nodes of these instances.
fn out_of_reach(members: &Members<'_>) -> Option<String> {
    let stale = members.iter().filter(|member| member.freshness == Freshness::LastKnown && member.is_answered());
    let nodes: BTreeSet<&str> = stale.map(|member| member.node).collect();
    match (nodes.first()?, nodes.len()) {
        (node, 1) => Some(format!("node {node} is unreachable or restarting: answered as last known")),
        (node, len) => {
            let more = len - 1;
            Some(format!("node {node} and {more} more are unreachable or restarting: answered as last known"))
        }
    }
}

impl Zone {
    fn of(view: &View, domain: &str) -> Self {
        let mut zone = Self::default();
        let mut services: BTreeMap<&str, BTreeMap<&str, Member<'_>>> = BTreeMap::new();
        let mut shadowed: BTreeMap<&str, Members<'_>> = BTreeMap::new();
        zone.exists(domain);
        zone.exists(&format!("node.{domain}"));
        for browse in ["b", "db", "lb"] {
            zone.add(&format!("{browse}._dns-sd._udp.{domain}"), rtype::PTR, TTL, domain.to_owned());
        }
        zone.exists(&format!("_services._dns-sd._udp.{domain}"));
        for (name, node) in by_freshness(view) {
            if node.freshness != Freshness::Gone {
                let owner = format!("{name}.node.{domain}");
                zone.exists(&owner);
                for address in &node.node.addresses {
                    zone.add(&owner, if address.is_ipv4() { 1 } else { 28 }, TTL, address.to_string());
                }
                let place = node.node.zone.iter().map(|zone| format!(" \"zone={zone}\"")).collect::<String>();
                zone.add(&owner, 16, TTL, format!("\"datacenter={}\"{place}", node.node.datacenter));
                zone.add(domain, 2, TTL, owner);
            }
            for announcement in node.announcements.values() {
                let key = &announcement.instance.key;
                let distance = distance(&node.node, &announcement.instance);
                let member = Member { announcement, node: name.as_str(), freshness: node.freshness, distance };
                let known = services.entry(key.service.as_str()).or_default();
                if known.contains_key(key.id.as_str()) {
                    shadowed.entry(key.service.as_str()).or_default().push(member);
                } else {
                    known.insert(key.id.as_str(), member);
                }
            }
        }
        for (name, (node, owner)) in external_nodes(view) {
            let name = format!("{name}.node.{domain}");
            for address in &node.addresses {
                zone.add(&name, if address.is_ipv4() { 1 } else { 28 }, TTL, address.to_string());
            }
            zone.add(&name, 16, TTL, format!("\"datacenter={}\"", owner.datacenter));
        }
        for (service, instances) in &services {
            zone.service(service, instances, shadowed.get(service).unwrap_or(&Vec::new()), domain);
        }
        zone
    }

    fn service(&mut self, service: &str, instances: &BTreeMap<&str, Member<'_>>, shadowed: &Members<'_>, domain: &str) {
        let base = format!("{service}.{domain}");
        let all: Members<'_> = instances.values().copied().collect();
        let nearest = all.iter().find_map(|member| member.instance.nearest).unwrap_or_default();
        let min_healthy = all.iter().find_map(|member| member.instance.min_healthy).unwrap_or_default();
        self.policy = (nearest, min_healthy);
        self.set(&base, &all, domain, true);
        self.add_why_names(&base, instances, shadowed);
        for (protocol, word) in [(Protocol::Tcp, "tcp"), (Protocol::Udp, "udp")] {
            let with_protocol: Members<'_> = all.iter().copied().filter(|a| a.instance.protocol == protocol).collect();
            if !with_protocol.is_empty() {
                let owner = format!("_{service}._{word}.{domain}");
                self.set(&owner, &with_protocol, domain, false);
                let is_browsable = self.advertise(&owner, &all, &with_protocol, domain, |instance| instance.port);
                if is_browsable {
                    self.add(&format!("_services._dns-sd._udp.{domain}"), rtype::PTR, TTL, owner);
                }
            }
            let mut ports: BTreeMap<&str, Members<'_>> = BTreeMap::new();
            for member in with_protocol {
                for (port, _) in &member.announcement.instance.ports {
                    ports.entry(port.as_str()).or_default().push(member);
                }
            }
            for (port, members) in ports {
                self.exists(&format!("_{word}.{base}"));
                let owner = format!("_{port}._{word}.{base}");
                let number = |i: &Instance| i.ports.iter().find(|(n, _)| n.as_str() == port).map(|(_, number)| *number);
                self.srv(&owner, &members, domain, number);
                // Below the name of a port, every instance of the transport has a name.
                for member in all.iter().filter(|member| member.instance.protocol == protocol) {
                    for name in dns_sd_names(&all, member) {
                        let below = format!("{name}.{owner}");
                        self.exists(&below);
                        self.remark(&below, &vec![*member]);
                        if member.is_answered() {
                            self.add(&below, 16, member.ttl(), txt(member));
                        }
                    }
                }
                self.advertise(&owner, &all, &members, domain, number);
            }
        }
        self.add_bindings(&base, &all, domain);
        let mut tags: BTreeMap<String, Members<'_>> = BTreeMap::new();
        for member in &all {
            let folded: BTreeSet<String> = member.instance.tags.iter().map(|t| t.to_lowercase()).collect();
            for tag in folded.into_iter().filter(|tag| !tag.contains(' ')) {
                tags.entry(tag).or_default().push(*member);
            }
        }
        for (tag, members) in tags {
            if !instances.contains_key(&*tag) {
                self.set(&format!("{tag}.{base}"), &members, domain, true);
            }
            if tag != "tcp" && tag != "udp" {
                self.set(&format!("_{service}._{tag}.{domain}"), &members, domain, false);
            }
            for (protocol, word) in [(Protocol::Tcp, "tcp"), (Protocol::Udp, "udp")] {
                if !all.iter().any(|member| member.instance.protocol == protocol) {
                    continue;
                }
                let parent = format!("_{service}._{word}.{domain}");
                let owner = format!("_{tag}._sub.{parent}");
                self.exists(&owner);
                self.remark(&owner, &near(&members, self.policy));
                let near = near(&members, self.policy);
                let ttl = ttl(&near);
                let has =
                    |m: &&Member<'_>| m.is_answered() && m.instance.protocol == protocol && m.instance.port.is_some();
                for member in near.iter().filter(has) {
                    let name = dns_sd_names(&all, member).remove(0);
                    self.add(&owner, rtype::PTR, ttl, format!("{name}.{parent}"));
                }
            }
        }
        for (id, announcement) in instances {
            let owner = format!("{id}.{base}");
            self.set(&owner, &vec![*announcement], domain, true);
            let meta = announcement.instance.meta.iter();
            let strings: Vec<String> =
                meta.map(|(k, v)| format!("\"{}\"", format!("{k}={v}").escape_default())).collect();
            if announcement.is_answered() && !strings.is_empty() {
                self.add(&owner, 16, announcement.ttl(), strings.join(" "));
            }
        }
    }

    /// Adds the PTR records of a type, and the names of the instances among `members`; returns whether there are any.
    fn advertise(
        &mut self,
        owner: &str,
        all: &Members<'_>,
        members: &Members<'_>,
        domain: &str,
        port: impl Fn(&Instance) -> Option<u16>,
    ) -> bool {
        let near = near(members, self.policy);
        for member in members {
            for (at, name) in dns_sd_names(all, member).into_iter().enumerate() {
                let below = format!("{name}.{owner}");
                self.exists(&below);
                self.remark(&below, &vec![*member]);
                if !member.is_answered() {
                    continue;
                }
                self.add(&below, 16, member.ttl(), txt(member));
                let is_near = near.iter().any(|other| other.instance.key == member.instance.key);
                let Some(port) = port(&member.announcement.instance) else { continue };
                // The named port of an instance that is too far is not answered.
                let is_named = owner.matches('.').count() > domain.matches('.').count() + 2;
                if is_near || !is_named {
                    self.add(&below, 33, member.ttl(), srv_data(member, port, domain));
                }
                if is_near && at == 0 {
                    self.add(owner, rtype::PTR, ttl(&near), below);
                }
            }
        }
        near.iter().any(|member| member.is_answered() && port(&member.announcement.instance).is_some())
    }

    /// Adds SVCB and HTTPS records, without their parameters.
    fn add_bindings(&mut self, base: &str, all: &Members<'_>, domain: &str) {
        let record = |member: &Member<'_>, target: &str| format!("{} {target}", member.instance.priority + 1);
        let has = |member: &Member<'_>, port: Option<&str>| {
            member.announcement.instance.alpn.iter().any(|alpn| alpn.port.as_ref().map(Label::as_str) == port)
        };
        let is_https = |member: &Member<'_>| has(member, None) || has(member, Some("https"));
        let https: Members<'_> = all.iter().copied().filter(is_https).collect();
        for member in https.iter().filter(|member| member.is_answered()) {
            let owner = format!("{}.{base}", member.instance.key.id);
            self.add(&owner, rtype::HTTPS, member.ttl(), record(member, "."));
        }
        let names: BTreeSet<&str> = all
            .iter()
            .flat_map(|member| &member.announcement.instance.alpn)
            .filter_map(|alpn| alpn.port.as_ref().map(Label::as_str))
            .collect();
        let named = names.iter().map(|name| {
            (format!("_{name}.{base}"), rtype::SVCB, all.iter().copied().filter(|m| has(m, Some(name))).collect())
        });
        let all_names: Vec<(String, u16, Members<'_>)> =
            std::iter::once((base.to_owned(), rtype::HTTPS, https)).chain(named).collect();
        for (owner, rtype, members) in all_names {
            if members.is_empty() || self.names.keys().any(|name| is_below(name, &owner) && rtype == rtype::SVCB) {
                continue;
            }
            let near = near(&members, self.policy);
            if rtype == rtype::SVCB {
                self.exists(&owner);
                self.remark(&owner, &near);
            }
            for member in near.iter().filter(|member| member.is_answered()) {
                let target = format!("{}.{}.{domain}", member.instance.key.id, member.instance.key.service);
                self.add(&owner, rtype, ttl(&near), record(member, &target));
            }
        }
    }

    /// Sets the Extended DNS Error of a name.
    fn remark(&mut self, owner: &str, members: &Members<'_>) {
        if !members.iter().any(Member::is_answered) {
            self.not_ready.insert(owner.to_owned());
        }
        if let Some(text) = out_of_reach(members) {
            self.stale.insert(owner.to_owned(), text);
        }
    }

    /// Adds the `_why` names, with a record per instance that is not plainly answered.
    fn add_why_names(&mut self, base: &str, instances: &BTreeMap<&str, Member<'_>>, shadowed: &Members<'_>) {
        let all: Members<'_> = instances.values().copied().collect();
        let mut details: Vec<(&str, String)> = Vec::new();
        for (id, member) in instances {
            details.extend(member.why().map(|(state, text)| (*id, member.detail(state, &text))));
        }
        let text = "another node announces the same instance id and takes precedence";
        for member in shadowed {
            details.push((member.announcement.instance.key.id.as_str(), member.detail("shadowed", text)));
        }
        let answered = all.iter().filter(|member| member.is_answered()).count();
        let summary = match answered {
            0 => format!("\"none answered\" \"{}\"", none_answered(&all)),
            _ => format!("\"{answered} of {} answered\"", all.len()),
        };
        let owner = format!("_why.{base}");
        self.add(&owner, 16, NEGATIVE_TTL, summary);
        for (id, member) in instances {
            let below = format!("_why.{id}.{base}");
            let own: Vec<&String> = details.iter().filter(|(of, _)| of == id).map(|(_, text)| text).collect();
            for text in &own {
                self.add(&below, 16, NEGATIVE_TTL, (*text).clone());
                self.add(&owner, 16, NEGATIVE_TTL, (*text).clone());
            }
            if own.is_empty() {
                let weight = member.announcement.instance.weight;
                let plain = format!("\"{id}: passing\" \"answered with weight {weight}\"");
                self.add(&below, 16, NEGATIVE_TTL, plain);
            }
        }
    }

    fn set(&mut self, owner: &str, members: &Members<'_>, domain: &str, addresses: bool) {
        let members = &near(members, self.policy);
        self.srv(owner, members, domain, |instance| instance.port);
        if addresses {
            let ttl = ttl(members);
            for announcement in members.iter().filter(|a| a.is_answered()) {
                for address in &announcement.instance.addresses {
                    self.add(owner, if address.is_ipv4() { 1 } else { 28 }, ttl, address.to_string());
                }
            }
        }
    }

    fn srv(&mut self, owner: &str, members: &Members<'_>, domain: &str, port: impl Fn(&Instance) -> Option<u16>) {
        self.exists(owner);
        let members = &near(members, self.policy);
        self.remark(owner, members);
        for announcement in members.iter().filter(|a| a.is_answered()) {
            let instance = &announcement.instance;
            let Some(port) = port(instance) else { continue };
            self.add(owner, 33, ttl(members), srv_data(announcement, port, domain));
        }
    }

    fn exists(&mut self, owner: &str) {
        self.names.entry(owner.to_owned()).or_default();
    }

    fn add(&mut self, owner: &str, rtype: u16, ttl: u32, data: String) {
        let set = self.names.entry(owner.to_owned()).or_default().entry(rtype).or_default();
        set.ttl = ttl;
        set.data.insert(data);
    }

    /// Reports whether a name exists: it has records, is an empty non-terminal, or may be one for tags.
    fn has(&self, owner: &str, domain: &str) -> bool {
        let relative = owner.strip_suffix(&format!(".{domain}")).unwrap_or_default();
        self.names.keys().any(|name| name == owner || is_below(name, owner))
            || (relative.starts_with('_') && !relative.contains('.'))
    }
}

/// Reports whether a name is below another one. Labels of DNS-SD may have dots, which are escaped.
fn is_below(name: &str, owner: &str) -> bool {
    let above = name.strip_suffix(owner).and_then(|rest| rest.strip_suffix('.'));
    above.is_some_and(|labels| !labels.ends_with('\\'))
}

fn srv_data(member: &Member<'_>, port: u16, domain: &str) -> String {
    let instance = &member.announcement.instance;
    let weight = match member.state {
        InstanceState::Warning(_) if instance.weight > 0 => (instance.weight / 10).max(1),
        _ => instance.weight,
    };
    format!("{} {weight} {port} {}.{}.{domain}", instance.priority, instance.key.id, instance.key.service)
}

/// Returns the TXT data of an instance in DNS-SD.
fn txt(member: &Member<'_>) -> String {
    let meta = member.announcement.instance.meta.iter();
    let strings: Vec<String> = meta.map(|(k, v)| format!("\"{}\"", format!("{k}={v}").escape_default())).collect();
    if strings.is_empty() { "\"\"".to_owned() } else { strings.join(" ") }
}

/// Returns the names of an instance in DNS-SD, that of PTR records first, in lower case and presentation form.
fn dns_sd_names(all: &Members<'_>, member: &Member<'_>) -> Vec<String> {
    let written = |member: &Member<'_>| {
        let text = member.announcement.instance.registered_as.as_deref()?;
        text.contains(|c: char| !c.is_ascii_lowercase()).then(|| text.to_ascii_lowercase())
    };
    let id = member.instance.key.id.to_string();
    let others = || all.iter().filter(|other| other.instance.key.id != member.instance.key.id);
    let is_unique = |name: &String| {
        others().all(|other| written(other).as_ref() != Some(name) && other.instance.key.id.as_str() != name)
    };
    let escaped = written(member).filter(is_unique).map(|name| name.replace(' ', "\\040").replace('.', "\\."));
    let mut names: Vec<String> = escaped.into_iter().chain([id]).collect();
    names.dedup();
    names
}

fn ttl(members: &Members<'_>) -> u32 {
    let answered = members.iter().filter(|member| member.is_answered()).map(Member::ttl).min();
    answered.or(members.iter().map(Member::ttl).min()).unwrap()
}

/// Returns all names of the view, in both domains and in reverse.
fn existing_names(view: &View) -> Vec<String> {
    let zones = DOMAINS.iter().flat_map(|domain| Zone::of(view, domain).names.into_keys());
    zones.chain(reverse(view).into_keys()).collect()
}

// Comparison.

fn tables(view: &View) -> Tables {
    let mut tables = Tables::new(Settings {
        aliases: vec![AliasDomain::new(Name::parse(DOMAINS[1]).unwrap())],
        zone: Some(label(PLACES[0].1)),
        nearest: Default::default(),
        ttl: TTL,
        negative_ttl: NEGATIVE_TTL,
        ..Settings::new(label("host-a"), label("dc1"), Name::parse(DOMAINS[0]).unwrap())
    });
    let mut catalog = Catalog::default();
    let touched = catalog.update(view.clone());
    tables.update(&catalog, &touched);
    tables.set_serial(7);
    tables
}

fn reply(tables: &Tables, ask: &Ask, transport: Transport, seed: u64) -> (Vec<u8>, Message) {
    let mut engine = Engine::new(PAYLOAD, fastrand::Rng::with_seed(seed));
    let mut out = Vec::new();
    engine.respond(tables, &ask.packet(0xbeef), transport, &mut out).expect("an answer");
    let message = decode(&out);
    (out, message)
}

fn check(view: &View, ask: &Ask, seed: u64) -> Result<(), TestCaseError> {
    let tables = tables(view);
    let (datagram, over_udp) = reply(&tables, ask, Transport::Udp, seed);
    let (_, over_tcp) = reply(&tables, ask, Transport::Tcp, seed.wrapping_add(1));

    let limit = ask.edns.map_or(512, |payload| payload.clamp(512, PAYLOAD));
    prop_assert!(datagram.len() <= usize::from(limit), "{} octets exceed {limit}", datagram.len());
    prop_assert_eq!(
        &datagram[12..][..ask.packet(0)[12..].len().min(ask.name.len() + 1)],
        &ask.packet(0)[12..][..ask.name.len() + 1]
    );
    prop_assert_eq!(over_udp.edns.is_some(), ask.edns.is_some());
    prop_assert!(!over_tcp.metadata.truncation);
    prop_assert_eq!(over_udp.metadata.response_code, over_tcp.metadata.response_code);

    let name = ask.name.to_lowercase();
    let code = over_tcp.metadata.response_code.to_string();
    let answered = answers(&over_tcp);
    let Some(domain) = DOMAINS.iter().find(|d| name == **d || name.ends_with(&format!(".{d}"))) else {
        match reverse(view).get(&name) {
            None => prop_assert_eq!(code, "Query Refused"),
            // A reverse name is a zone with a single name.
            Some(_) if matches!(ask.qtype, rtype::SOA | rtype::NS) => prop_assert!(!answered.is_empty()),
            // RFC 8482 §4.1: the smallest RRset.
            Some(_) if ask.qtype == rtype::ANY => {
                let types: BTreeSet<u16> = answered.iter().map(|(rtype, ..)| *rtype).collect();
                prop_assert_eq!(types.len(), 1);
            }
            Some(_) if ask.qtype != rtype::PTR => {
                prop_assert_eq!((code.as_str(), answered.len()), ("No Error", 0));
            }
            Some((targets, stale)) => {
                let ttl = if stale.is_some() { TTL.min(MAX_STALE_TTL) } else { TTL };
                let expected: BTreeSet<_> = targets.iter().map(|t| (rtype::PTR, ttl, t.clone())).collect();
                prop_assert_eq!(answered, expected);
                let expected_error = stale.clone().filter(|_| ask.edns.is_some()).map(|text| (3, text));
                prop_assert_eq!(support::extended_error(&over_tcp), expected_error);
            }
        }
        return Ok(());
    };
    let has_additional = over_tcp.additionals.iter().any(|record| record.record_type() != RecordType::OPT);
    prop_assert!(ask.qtype != rtype::ANY || !has_additional, "ANY has no additional records");
    let zone = Zone::of(view, domain);
    let rrsets = zone.names.get(&name).cloned().unwrap_or_default();
    prop_assert!(over_tcp.metadata.authoritative);

    prop_assert_eq!(code == "Non-Existent Domain", !zone.has(&name, domain), "{} is {}", name, code);
    let expected = |rtype: u16| -> BTreeSet<(u16, u32, String)> {
        let set = rrsets.get(&rtype).cloned().unwrap_or_default();
        set.data.into_iter().map(|data| (rtype, set.ttl, data)).collect()
    };
    match ask.qtype {
        rtype::SOA if name == *domain => prop_assert_eq!(over_tcp.answers.len(), 1),
        // RFC 8482 §4.1: a single RRset.
        rtype::ANY if name != *domain => {
            let one = answered.first().map(|(rtype, ..)| *rtype);
            prop_assert_eq!(one.is_none(), rrsets.is_empty());
            prop_assert_eq!(&answered, &one.map(expected).unwrap_or_default());
        }
        rtype::ANY => {}
        rtype => prop_assert_eq!(&answered, &expected(rtype)),
    }
    prop_assert_eq!(over_tcp.answers.len(), answered.len(), "duplicate record");
    prop_assert!(answers(&over_udp).is_subset(&answered) || ask.qtype == rtype::ANY);
    prop_assert!(over_udp.metadata.truncation || over_udp.answers.len() == over_tcp.answers.len());

    if answered.is_empty() {
        // RFC 2308 §3: the TTL of the SOA is its minimum.
        let [soa] = &over_tcp.authorities[..] else { return Err(TestCaseError::fail("no SOA in a negative answer")) };
        prop_assert_eq!((soa.name.to_lowercase().to_string(), soa.ttl), ((*domain).to_owned(), NEGATIVE_TTL));
    }
    let error = support::extended_error(&over_tcp);
    match zone.stale.get(&name).filter(|_| ask.edns.is_some()) {
        Some(stale) => prop_assert_eq!(error, Some((3, stale.clone()))),
        None => {
            prop_assert_eq!(error.is_some(), ask.edns.is_some() && zone.not_ready.contains(&name), "extended error");
            prop_assert!(error.is_none_or(|(code, text)| code == 14 && !text.is_empty()));
        }
    }
    // Every address in the additional section belongs to the zone.
    for record in over_tcp.additionals.iter().filter(|r| r.record_type() != RecordType::OPT) {
        let set =
            zone.names.get(&record.name.to_lowercase().to_string()).and_then(|s| s.get(&record.record_type().into()));
        prop_assert!(set.is_some_and(|set| set.data.contains(&show_data(&record.data))), "{}", record);
    }
    if ask.qtype == rtype::SRV {
        let targets: BTreeSet<String> =
            answered.iter().filter_map(|(_, _, data)| data.split(' ').nth(3).map(str::to_owned)).collect();
        let glued: BTreeSet<String> =
            over_tcp.additionals.iter().map(|r| r.name.to_string()).filter(|n| n != ".").collect();
        prop_assert_eq!(targets, glued, "every target has its addresses in the additional section");
    }
    Ok(())
}

/// Returns the PTR targets of announced addresses: the instances answered there, else the node. The text is that of Extended DNS
/// Error 3 for the first instance on an unreachable node.
fn reverse(view: &View) -> BTreeMap<String, (BTreeSet<String>, Option<String>)> {
    #[derive(Default)]
    struct At {
        instances: BTreeMap<InstanceKey, Option<String>>,
        node: Option<String>,
    }
    let mut counted = BTreeSet::new();
    let mut names: BTreeMap<IpAddr, At> = BTreeMap::new();
    for (node_name, node) in by_freshness(view) {
        for address in node.node.addresses.iter().filter(|_| node.freshness != Freshness::Gone) {
            let name = || format!("{node_name}.node.{}", DOMAINS[0]);
            names.entry(*address).or_default().node.get_or_insert_with(name);
        }
        for announcement in node.announcements.values() {
            let key = &announcement.instance.key;
            // The first node that announces an id takes precedence.
            let takes_precedence = counted.insert(key.clone());
            let member = Member { announcement, node: node_name.as_str(), freshness: node.freshness, distance: 0 };
            let stale = out_of_reach(&vec![member]);
            for address in &announcement.instance.addresses {
                let at = names.entry(*address).or_default();
                if takes_precedence && member.is_answered() {
                    at.instances.insert(key.clone(), stale.clone());
                }
            }
        }
    }
    for (name, (node, _)) in external_nodes(view) {
        for address in &node.addresses {
            let name = || format!("{name}.node.{}", DOMAINS[0]);
            names.entry(*address).or_default().node.get_or_insert_with(name);
        }
    }
    let one = |(address, at): (IpAddr, At)| {
        let stale = at.instances.values().flatten().next().cloned();
        let targets: BTreeSet<String> =
            at.instances.keys().map(|key| format!("{}.{}.{}", key.id, key.service, DOMAINS[0])).collect();
        let targets = if targets.is_empty() { at.node.into_iter().collect() } else { targets };
        (hickory_proto::rr::Name::from(address).to_string(), (targets, stale))
    };
    names.into_iter().map(one).collect()
}

fn answers(message: &Message) -> BTreeSet<(u16, u32, String)> {
    let one = |record: &Record| {
        let data = show_data(&record.data);
        // A compressed name takes the letter case of the question.
        let data = match record.record_type() {
            RecordType::NS | RecordType::PTR => data.to_lowercase(),
            // Priority and target; the golden answers have the parameters.
            RecordType::SVCB | RecordType::HTTPS => data.split(' ').take(2).collect::<Vec<_>>().join(" "),
            _ => data,
        };
        (record.record_type().into(), record.ttl, data)
    };
    message.answers.iter().map(one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replies_match_the_catalog(view in view(), questions in prop::collection::vec(question(), 8), seed in any::<u64>()) {
        let names = existing_names(&view);
        for question in &questions {
            let ask = question.of(&names);
            check(&view, &ask, seed).map_err(|error| TestCaseError::fail(format!("{ask:?}: {error}")))?;
        }
    }

    /// RFC 6763 §4: a client that browses finds SRV and TXT of each instance.
    #[test]
    fn instance_of_every_pointer_has_srv_and_txt(view in view()) {
        let tables = tables(&view);
        let ask = |name: &str, qtype| {
            let ask = Ask { name: name.to_owned(), qtype, edns: None, dnssec_ok: false };
            answers(&reply(&tables, &ask, Transport::Tcp, 7).1).into_iter().map(|(_, _, data)| data).collect::<Vec<_>>()
        };
        for domain in DOMAINS {
            let mut types = ask(&format!("_services._dns-sd._udp.{domain}"), rtype::PTR);
            let names = Zone::of(&view, domain).names;
            types.extend(names.into_iter().filter(|(_, sets)| sets.contains_key(&rtype::PTR)).map(|(name, _)| name));
            for kind in types.iter().filter(|name| !name.contains("._dns-sd.")) {
                let instances = ask(kind, rtype::PTR);
                prop_assert!(!instances.is_empty(), "{}", kind);
                for instance in instances {
                    prop_assert_eq!(ask(&instance, rtype::SRV).len(), 1, "SRV of {}", instance);
                    prop_assert_eq!(ask(&instance, rtype::TXT).len(), 1, "TXT of {}", instance);
                }
            }
        }
    }

    #[test]
    fn incremental_updates_equal_a_rebuild(views in prop::collection::vec(view(), 2..5), questions in prop::collection::vec(question(), 8)) {
        let mut catalog = Catalog::default();
        let mut incremental = tables(&View::new());
        for view in &views {
            let touched = catalog.update(view.clone());
            incremental.update(&catalog, &touched);
        }
        let rebuilt = tables(views.last().unwrap());
        let names: Vec<String> = views.iter().flat_map(existing_names).collect();
        for question in &questions {
            let ask = &question.of(&names);
            let (incremental, _) = reply(&incremental, ask, Transport::Tcp, 1);
            let (rebuilt, _) = reply(&rebuilt, ask, Transport::Tcp, 1);
            prop_assert_eq!(incremental, rebuilt, "{:?}", ask);
        }
    }
}
