//! Digest of a view: one number by which nodes detect divergent views.
//!
//! The digest is the sum modulo 2^64 of one hash per live node, one per instance and one per external node. It is independent of order, and an
//! update costs time proportional to the change. Each hash is SipHash-1-3 with a key of zeros over the fields in the order
//! in which `Hash` writes them: a text as its length in eight octets followed by its octets, a number as eight octets, all
//! big-endian. Only fields that affect answers are hashed, not reports or times. A change to any of this raises
//! [`FORMAT`]; nodes compare digests of the same format only.

use std::{hash::Hasher, net::IpAddr};

use imbl::ordmap::DiffItem;
use siphasher::sip::SipHasher13;

use super::{
    announcement::Announcement,
    catalog::{Freshness, NodeView},
    external_node::ExternalNode,
    name::Label,
    nearest::{Nearest, Place},
    service::Protocol,
};

/// Version of the digest algorithm.
pub const FORMAT: u32 = 3;

/// Digest of a view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// Returns the digest as a number; 0 for an empty view.
    pub fn value(self) -> u64 {
        self.0
    }

    /// Applies a change of one node. Costs the difference, or the whole node if it is added or removed.
    pub fn change(&mut self, name: &Label, before: Option<&NodeView>, after: Option<&NodeView>) {
        let live = |view: &&NodeView| view.freshness == Freshness::Live;
        let (before, after) = (before.filter(live), after.filter(live));
        match (before, after) {
            (None, None) => {}
            (Some(removed), None) => self.0 = self.0.wrapping_sub(whole(name, removed)),
            (None, Some(added)) => self.0 = self.0.wrapping_add(whole(name, added)),
            (Some(before), Some(after)) => {
                self.0 = self.0.wrapping_sub(node(name, before)).wrapping_add(node(name, after));
                for item in before.announcements.diff(&after.announcements) {
                    let (old, new) = match item {
                        DiffItem::Add(_, new) => (None, Some(new)),
                        DiffItem::Remove(_, old) => (Some(old), None),
                        DiffItem::Update { old: (_, old), new: (_, new) } => (Some(old), Some(new)),
                    };
                    let of = |known: &std::sync::Arc<Announcement>| instance(name, known);
                    self.0 = self.0.wrapping_sub(old.map_or(0, of)).wrapping_add(new.map_or(0, of));
                }
                for item in before.external.diff(&after.external) {
                    let (old, new) = match item {
                        DiffItem::Add(_, new) => (None, Some(new)),
                        DiffItem::Remove(_, old) => (Some(old), None),
                        DiffItem::Update { old: (_, old), new: (_, new) } => (Some(old), Some(new)),
                    };
                    let of = |node: &std::sync::Arc<ExternalNode>| external(name, node);
                    self.0 = self.0.wrapping_sub(old.map_or(0, of)).wrapping_add(new.map_or(0, of));
                }
            }
        }
    }
}

/// Hashes the fields of a node that affect answers.
fn node(name: &Label, view: &NodeView) -> u64 {
    let Place { datacenter, zone } = view.node.place();
    let mut hash = Hash::new();
    hash.text(name.as_str());
    hash.text(datacenter.as_str());
    hash.text(zone.map_or("", Label::as_str));
    hash.finish()
}

fn whole(name: &Label, view: &NodeView) -> u64 {
    let own = node(name, view);
    let with = view.announcements.values().fold(own, |sum, known| sum.wrapping_add(instance(name, known)));
    view.external.values().fold(with, |sum, node| sum.wrapping_add(external(name, node)))
}

/// Hashes the fields of an external node that affect answers.
fn external(owner: &Label, node: &ExternalNode) -> u64 {
    let mut hash = Hash::new();
    // The name of a service is never empty.
    hash.text(owner.as_str());
    hash.text("");
    hash.text(node.name.as_str());
    hash.addresses(&node.addresses);
    hash.number(node.meta.len() as u64);
    for (key, value) in &node.meta {
        hash.text(key);
        hash.text(value);
    }
    hash.finish()
}

/// Hashes the fields of an instance that affect answers.
fn instance(node: &Label, known: &Announcement) -> u64 {
    let (instance, state) = (&known.instance, &known.state);
    let mut hash = Hash::new();
    hash.text(node.as_str());
    hash.text(instance.key.service.as_str());
    hash.text(instance.key.id.as_str());
    // The reason for which an instance is not answered does not matter.
    if !state.is_answered() {
        return hash.finish();
    }
    hash.number(state.weight(instance.weight).into());
    hash.number(instance.priority.into());
    hash.number(instance.ttl.map_or(u64::MAX, u64::from));
    hash.number(instance.port.unwrap_or(0).into());
    hash.text(instance.nearest.map_or("", Nearest::as_str));
    hash.text(&instance.min_healthy.map_or_else(String::new, |min| min.to_string()));
    hash.number(match instance.protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    });
    hash.addresses(&instance.addresses);
    hash.number(instance.ports.len() as u64);
    for (name, port) in &instance.ports {
        hash.text(name.as_str());
        hash.number((*port).into());
    }
    hash.number(instance.tags.len() as u64);
    instance.tags.iter().for_each(|tag| hash.text(tag));
    hash.number(instance.meta.len() as u64);
    for (key, value) in instance.meta.iter() {
        hash.text(key);
        hash.text(value);
    }
    for alpn in &instance.alpn {
        hash.text(alpn.port.as_ref().map_or("", Label::as_str));
        hash.number(alpn.ids.len() as u64);
        alpn.ids.iter().for_each(|id| hash.text(id));
    }
    if let Some(name) = instance.dns_sd_name() {
        hash.text("");
        hash.text(name);
    }
    hash.finish()
}

/// Writes fields unambiguously: different field lists never yield the same octets.
struct Hash(SipHasher13);

impl Hash {
    fn new() -> Self {
        Self(SipHasher13::new())
    }

    fn number(&mut self, number: u64) {
        self.0.write(&number.to_be_bytes());
    }

    fn octets(&mut self, octets: &[u8]) {
        self.number(octets.len() as u64);
        self.0.write(octets);
    }

    fn addresses(&mut self, addresses: &[IpAddr]) {
        self.number(addresses.len() as u64);
        for address in addresses {
            match address {
                IpAddr::V4(ip) => self.octets(&ip.octets()),
                IpAddr::V6(ip) => self.octets(&ip.octets()),
            }
        }
    }

    fn text(&mut self, text: &str) {
        self.octets(text.as_bytes());
    }

    fn finish(self) -> u64 {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{
        alpn::PortAlpn,
        announcement::{Announcements, CheckReport, HealthReport, InstanceState, Node},
        list::List,
        name::label,
        service::{Instance, InstanceKey, instance_ref::InstanceRef},
    };

    fn known(id: &str, state: InstanceState) -> Arc<Announcement> {
        let instance = Instance {
            port: Some(80),
            ports: vec![(label("http"), 80)].into(),
            tags: vec!["v2".to_owned()].into(),
            meta: [("a", "b")].into(),
            ttl: Some(5),
            ..Instance::new(
                InstanceKey { service: label("web").into(), id: label(id) },
                vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
            )
        };
        Arc::new(Announcement::new(Arc::new(instance), state))
    }

    fn view(all: &[Arc<Announcement>]) -> NodeView {
        let node = Node {
            name: label("a"),
            addresses: vec![],
            datacenter: label("dc1"),
            zone: None,
            meta: Default::default(),
            checks: None,
        };
        let announcements: Announcements =
            all.iter().map(|known| (InstanceRef::from(&known.instance), known.clone())).collect();
        NodeView { external: Default::default(), node: Arc::new(node), announcements, freshness: Freshness::Live }
    }

    fn in_zone(zone: &str, view: NodeView) -> NodeView {
        let node = Node { zone: Some(label(zone)), ..Node::clone(&view.node) };
        NodeView { node: Arc::new(node), ..view }
    }

    fn of(name: &str, view: &NodeView) -> Digest {
        let mut digest = Digest::default();
        digest.change(&label(name), None, Some(view));
        digest
    }

    #[test]
    fn digest_is_stable_across_machines_and_versions() {
        assert_eq!(
            of("a", &view(&[known("w1", InstanceState::Passing)])).value(),
            PINNED,
            "a new digest needs a new FORMAT"
        );
    }

    /// Digest computed by an earlier version: nodes of two versions have to agree.
    const PINNED: u64 = 10_252_226_273_404_341_009;

    #[test]
    fn digest_does_not_depend_on_the_order_of_changes() {
        let steps = [
            view(&[]),
            view(&[known("w1", InstanceState::Passing)]),
            view(&[known("w1", InstanceState::Passing), known("w2", InstanceState::Critical("refused".into()))]),
            view(&[known("w1", InstanceState::Warning("disk".into())), known("w2", InstanceState::Passing)]),
            NodeView { freshness: Freshness::LastKnown, ..view(&[known("w1", InstanceState::Passing)]) },
            in_zone("eu-1a", view(&[known("w2", InstanceState::Disabled)])),
            in_zone("eu-1b", view(&[known("w2", InstanceState::Disabled)])),
            view(&[]),
        ];
        let mut digest = Digest::default();
        let mut before: Option<&NodeView> = None;
        for step in &steps {
            digest.change(&label("a"), before, Some(step));
            assert_eq!(digest, of("a", step));
            before = Some(step);
        }
        digest.change(&label("a"), before, None);
        assert_eq!(digest, Digest::default());
    }

    #[test]
    fn digest_depends_only_on_fields_that_affect_answers() {
        let passing = view(&[known("w1", InstanceState::Passing)]);
        let changed = |change: fn(&mut Announcement)| {
            let mut announcement = Announcement::clone(&known("w1", InstanceState::Passing));
            change(&mut announcement);
            view(&[Arc::new(announcement)])
        };
        let same: [fn(&mut Announcement); 2] = [
            |known| known.report = Some(Arc::new(HealthReport { since: 1, checks: vec![] })),
            |known| Arc::make_mut(&mut known.instance).registered_as = Some("web".into()),
        ];
        for change in same {
            assert_eq!(of("a", &changed(change)), of("a", &passing));
        }
        let others: [fn(&mut Announcement); 14] = [
            |known| known.state = InstanceState::Warning("disk".into()),
            |known| known.state = InstanceState::Critical("".into()),
            |known| Arc::make_mut(&mut known.instance).weight = 11,
            |known| Arc::make_mut(&mut known.instance).port = None,
            |known| Arc::make_mut(&mut known.instance).ttl = None,
            |known| Arc::make_mut(&mut known.instance).nearest = Some(Nearest::None),
            |known| Arc::make_mut(&mut known.instance).min_healthy = Some(Default::default()),
            |known| Arc::make_mut(&mut known.instance).protocol = Protocol::Udp,
            |known| Arc::make_mut(&mut known.instance).addresses = vec![[10, 0, 0, 7].into()].into(),
            |known| Arc::make_mut(&mut known.instance).tags = List::default(),
            |known| Arc::make_mut(&mut known.instance).ports = List::default(),
            |known| Arc::make_mut(&mut known.instance).meta = Default::default(),
            |known| Arc::make_mut(&mut known.instance).registered_as = Some("Web 1".into()),
            |known| {
                let ids = "h2".parse().unwrap();
                Arc::make_mut(&mut known.instance).alpn = vec![PortAlpn { port: None, ids }].into();
            },
        ];
        for (at, change) in others.into_iter().enumerate() {
            assert_ne!(of("a", &changed(change)), of("a", &passing), "{at}");
        }
        let hosting = |address: &str, checks: Vec<CheckReport>| {
            let name = crate::model::registered_name::name("db1");
            let node = ExternalNode { checks, ..ExternalNode::new(name, vec![address.parse().unwrap()]) };
            let external = [(node.name.clone(), Arc::new(node))].into_iter().collect();
            NodeView { external, ..passing.clone() }
        };
        let check = || CheckReport {
            id: "ping".into(),
            name: "".into(),
            notes: "".into(),
            status: crate::model::health::Status::Passing,
            output: "".into(),
            since: 1,
        };
        let (one, checked, other) =
            (hosting("10.9.0.1", vec![]), hosting("10.9.0.1", vec![check()]), hosting("10.9.0.2", vec![]));
        assert_eq!(of("a", &one), of("a", &checked), "checks of an external node");
        assert_ne!(of("a", &one), of("a", &other), "the address of an external node");
        assert_ne!(of("a", &one), of("a", &passing), "an external node");
        let mut changed = of("a", &passing);
        changed.change(&label("a"), Some(&passing), Some(&one));
        changed.change(&label("a"), Some(&one), Some(&other));
        assert_eq!(changed, of("a", &other));
        changed.change(&label("a"), Some(&other), Some(&passing));
        assert_eq!(changed, of("a", &passing));
        assert_ne!(of("b", &passing), of("a", &passing), "on another node");
        let moved = |datacenter, zone| {
            let node = Node { datacenter: label(datacenter), zone, ..Node::clone(&passing.node) };
            NodeView { node: Arc::new(node), ..NodeView::clone(&passing) }
        };
        assert_ne!(of("a", &moved("dc2", None)), of("a", &passing), "in another datacenter");
        assert_ne!(of("a", &moved("dc1", Some(label("z")))), of("a", &passing), "in another zone");
        let critical = |reason: &str| of("a", &view(&[known("w1", InstanceState::Critical(reason.into()))]));
        assert_eq!(critical("refused"), critical("timed out"), "the reason does not matter");
    }
}
