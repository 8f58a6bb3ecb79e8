//! The digest of a view: one number by which nodes see whether they know the same.
//!
//! It is the sum (modulo 2^64) of one hash for each live node and one for each of its instances, so that it does not depend
//! on an order and a change costs what it touches. A hash is SipHash-1-3 with a key of zeros over the fields in the order
//! in which `Hash` writes them: a text as its octets and a length in eight octets before them, a number in eight octets,
//! all big-endian. What is hashed is what is answered: neither reports nor times. Whoever changes any of this raises
//! [`FORMAT`], for nodes compare digests of one format alone.

use std::{hash::Hasher, net::IpAddr};

use imbl::ordmap::DiffItem;
use siphasher::sip::SipHasher13;

use super::{
    announcement::Announcement,
    catalog::{Freshness, NodeView},
    name::Label,
    service::Protocol,
};

/// Which way of making digests this is.
pub const FORMAT: u32 = 1;

/// The digest of a view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// As a number; 0 for a view of nobody.
    pub fn value(self) -> u64 {
        self.0
    }

    /// Takes over a change of one node's part of the view. Costs what differs, or all of the node where it comes or goes.
    pub fn change(&mut self, name: &Label, before: Option<&NodeView>, after: Option<&NodeView>) {
        let live = |view: &&NodeView| view.freshness == Freshness::Live;
        let (before, after) = (before.filter(live), after.filter(live));
        match (before, after) {
            (None, None) => {}
            (Some(gone), None) => self.0 = self.0.wrapping_sub(whole(name, gone)),
            (None, Some(come)) => self.0 = self.0.wrapping_add(whole(name, come)),
            (Some(before), Some(after)) => {
                for item in before.announcements.diff(&after.announcements) {
                    let (old, new) = match item {
                        DiffItem::Add(_, new) => (None, Some(new)),
                        DiffItem::Remove(_, old) => (Some(old), None),
                        DiffItem::Update { old: (_, old), new: (_, new) } => (Some(old), Some(new)),
                    };
                    let of = |known: &std::sync::Arc<Announcement>| instance(name, known);
                    self.0 = self.0.wrapping_sub(old.map_or(0, of)).wrapping_add(new.map_or(0, of));
                }
            }
        }
    }
}

fn whole(name: &Label, view: &NodeView) -> u64 {
    let mut hash = Hash::new();
    hash.text(name.as_str());
    let own = hash.finish();
    view.announcements.values().fold(own, |sum, known| sum.wrapping_add(instance(name, known)))
}

/// One instance, and what is answered of it.
fn instance(node: &Label, known: &Announcement) -> u64 {
    let (instance, standing) = (&known.instance, &known.standing);
    let mut hash = Hash::new();
    hash.text(node.as_str());
    hash.text(instance.key.service.as_str());
    hash.text(instance.key.id.as_str());
    // What is not answered is the same for whatever reason.
    if !standing.is_answered() {
        return hash.finish();
    }
    hash.number(standing.weight(instance.weight).into());
    hash.number(instance.priority.into());
    hash.number(instance.ttl.map_or(u64::MAX, u64::from));
    hash.number(instance.port.unwrap_or(0).into());
    hash.number(match instance.protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    });
    hash.number(instance.addresses.len() as u64);
    for address in &instance.addresses {
        match address {
            IpAddr::V4(ip) => hash.octets(&ip.octets()),
            IpAddr::V6(ip) => hash.octets(&ip.octets()),
        }
    }
    hash.number(instance.ports.len() as u64);
    for (name, port) in &instance.ports {
        hash.text(name.as_str());
        hash.number((*port).into());
    }
    hash.number(instance.tags.len() as u64);
    instance.tags.iter().for_each(|tag| hash.text(tag));
    hash.number(instance.meta.len() as u64);
    for (key, value) in &instance.meta {
        hash.text(key);
        hash.text(value);
    }
    hash.finish()
}

/// Writes fields so that no two lists of them are the same octets.
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

    fn text(&mut self, text: &str) {
        self.octets(text.as_bytes());
    }

    fn finish(self) -> u64 {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::model::{
        announcement::{Announcements, HealthReport, InstanceState, Node},
        name::label,
        service::{Instance, InstanceKey},
    };

    fn known(id: &str, standing: InstanceState) -> Arc<Announcement> {
        let instance = Instance {
            port: Some(80),
            ports: vec![(label("http"), 80)],
            tags: vec!["v2".to_owned()],
            meta: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            ttl: Some(5),
            ..Instance::new(
                InstanceKey { service: label("web"), id: label(id) },
                vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
            )
        };
        Arc::new(Announcement::new(Arc::new(instance), standing))
    }

    fn view(all: &[Arc<Announcement>]) -> NodeView {
        let node = Node { name: label("a"), addresses: vec![], datacenter: label("dc1"), meta: Default::default() };
        let announcements: Announcements =
            all.iter().map(|known| (known.instance.key.clone(), known.clone())).collect();
        NodeView { node: Arc::new(node), announcements, freshness: Freshness::Live }
    }

    fn of(name: &str, view: &NodeView) -> Digest {
        let mut digest = Digest::default();
        digest.change(&label(name), None, Some(view));
        digest
    }

    #[test]
    fn it_is_the_same_on_every_machine_and_in_every_version() {
        assert_eq!(of("a", &view(&[known("w1", InstanceState::Passing)])).value(), PINNED, "raise FORMAT with it");
    }

    /// Worked out once; a difference would make nodes of two versions suspect each other.
    const PINNED: u64 = 2_494_576_923_975_457_467;

    #[test]
    fn it_is_what_is_known_and_not_how_that_came_about() {
        let steps = [
            view(&[]),
            view(&[known("w1", InstanceState::Passing)]),
            view(&[known("w1", InstanceState::Passing), known("w2", InstanceState::Critical("refused".into()))]),
            view(&[known("w1", InstanceState::Warning("disk".into())), known("w2", InstanceState::Passing)]),
            NodeView { freshness: Freshness::LastKnown, ..view(&[known("w1", InstanceState::Passing)]) },
            view(&[known("w2", InstanceState::Disabled)]),
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
    fn what_is_answered_otherwise_differs_and_the_rest_does_not() {
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
        let others: [fn(&mut Announcement); 10] = [
            |known| known.standing = InstanceState::Warning("disk".into()),
            |known| known.standing = InstanceState::Critical("".into()),
            |known| Arc::make_mut(&mut known.instance).weight = 11,
            |known| Arc::make_mut(&mut known.instance).port = None,
            |known| Arc::make_mut(&mut known.instance).ttl = None,
            |known| Arc::make_mut(&mut known.instance).protocol = Protocol::Udp,
            |known| Arc::make_mut(&mut known.instance).addresses.truncate(1),
            |known| drop(Arc::make_mut(&mut known.instance).tags.pop()),
            |known| drop(Arc::make_mut(&mut known.instance).ports.pop()),
            |known| Arc::make_mut(&mut known.instance).meta.clear(),
        ];
        for (at, change) in others.into_iter().enumerate() {
            assert_ne!(of("a", &changed(change)), of("a", &passing), "{at}");
        }
        assert_ne!(of("b", &passing), of("a", &passing), "on another node");
        let critical = |reason: &str| of("a", &view(&[known("w1", InstanceState::Critical(reason.into()))]));
        assert_eq!(critical("refused"), critical("timed out"), "for whatever reason");
    }
}
