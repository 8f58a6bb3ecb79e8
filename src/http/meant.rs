//! What a name stands for that somebody asks about: as people write it, and as it stands in the zone.
//!
//! The order of the arms in [`live`] is that of `dns::lookup`: what is explained is what is answered.

use crate::model::{
    catalog::{Catalog, CatalogEntry},
    name::{Label, Name},
    service::{InstanceKey, Protocol, RESERVED_SERVICE},
};

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meant {
    /// A service, or some of its instances.
    Service(Label, Part),
    /// A node.
    Node(Label),
    /// The discovery zone itself.
    Apex,
    /// A name that is none of these.
    Name(Name),
    /// No name.
    Nothing,
}

/// Which instances of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All.
    All,
    /// The one of this id.
    Instance(Label),
    /// Those with this tag.
    Tag(Label),
    /// Those of this transport.
    Protocol(Protocol),
    /// Those with a port of this name and transport.
    Port(Label, Protocol),
}

impl Part {
    /// Whether the instance belongs to it.
    pub(super) fn has(&self, entry: &CatalogEntry) -> bool {
        let instance = &entry.announcement.instance;
        match self {
            Self::All => true,
            Self::Instance(id) => instance.key.id == *id,
            Self::Tag(tag) => instance.tags.iter().any(|known| known.eq_ignore_ascii_case(tag.as_str())),
            Self::Protocol(protocol) => instance.protocol == *protocol,
            Self::Port(name, protocol) => {
                instance.protocol == *protocol && instance.ports.iter().any(|(known, _)| known == name)
            }
        }
    }
}

/// What a text stands for: a service, an instance (also as `SERVICE/ID`, or by the id that it was registered with), a node,
/// or a name, whose final dot may be missing. What is in none of `zones` is taken as if it stood in them, first.
pub(super) fn meant(text: &str, catalog: &Catalog, zones: &[Name]) -> Meant {
    if let Some((service, id)) = text.split_once('/')
        && let (Ok(service), Ok(id)) = (Label::parse(service), Label::parse(id))
        && catalog.service(&service).is_some()
    {
        return Meant::Service(service, Part::Instance(id));
    }
    let name = Name::parse(text).ok().filter(|name| *name != Name::root());
    let zone = name.as_ref().and_then(|name| zones.iter().find(|zone| name.within(zone).is_some()));
    let root = Name::root();
    let live = name.as_ref().and_then(|name| live(name, zone.unwrap_or(&root), catalog));
    if let Some(meant) = live.or_else(|| plain(text, catalog)).or_else(|| registered(text, catalog)) {
        return meant;
    }
    name.map_or(Meant::Nothing, Meant::Name)
}

/// What a name is among services and nodes, where it is any of them.
pub(super) fn live(name: &Name, zone: &Name, catalog: &Catalog) -> Option<Meant> {
    name.within(zone)?;
    let above = name.labels().count() - zone.labels().count();
    let labels: Vec<String> =
        name.labels().take(above).map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let service = |text: &str| {
        let name = Label::parse(text).ok()?;
        catalog.service(&name).map(|service| (name, service))
    };
    // As in the tables, what nobody has declares no name.
    let part = |name: &str, part: Part| {
        let (name, service) = service(name)?;
        service.instances().any(|entry| part.has(entry)).then_some(Meant::Service(name, part))
    };
    match labels[..] {
        [] => Some(Meant::Apex),
        [node, RESERVED_SERVICE] => {
            let node = Label::parse(node).ok()?;
            catalog.view().contains_key(&node).then_some(Meant::Node(node))
        }
        [one, form] if form.starts_with('_') => {
            let (name, form) = (one.strip_prefix('_')?, form.strip_prefix('_')?);
            let asked = match protocol(form) {
                Some(protocol) => Part::Protocol(protocol),
                None => Part::Tag(Label::parse(form).ok()?),
            };
            part(name, asked)
        }
        [name] | ["_why", name] => part(name, Part::All),
        [port, form, name] if form.starts_with('_') => {
            let port = Label::parse(port.strip_prefix('_')?).ok()?;
            part(name, Part::Port(port, protocol(form.strip_prefix('_')?)?))
        }
        ["_why", id, name] => part(name, Part::Instance(Label::parse(id).ok()?)),
        [below, name] => {
            let below = Label::parse(below).ok()?;
            part(name, Part::Instance(below.clone())).or_else(|| part(name, Part::Tag(below)))
        }
        _ => None,
    }
}

fn protocol(text: &str) -> Option<Protocol> {
    match text {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    }
}

/// A node, or an instance by its id alone.
fn plain(text: &str, catalog: &Catalog) -> Option<Meant> {
    let label = Label::parse(text).ok()?;
    if catalog.view().contains_key(&label) {
        return Some(Meant::Node(label));
    }
    let mut all = catalog.view().values().flat_map(|view| view.announcements.keys());
    all.find(|key| key.id == label).map(|key| Meant::Service(key.service.clone(), Part::Instance(label)))
}

/// The id that a client registered an instance with.
fn registered(text: &str, catalog: &Catalog) -> Option<Meant> {
    let mut all = catalog.view().values().flat_map(|view| view.announcements.values());
    let found = all.find(|announcement| announcement.instance.api_id() == text)?;
    let InstanceKey { service, id } = found.instance.key.clone();
    Some(Meant::Service(service, Part::Instance(id)))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::model::{
        announcement::{Announcement, InstanceState, Node},
        catalog::{Freshness, NodeView},
        service::Instance,
    };

    fn label(text: &str) -> Label {
        Label::parse(text).unwrap()
    }

    #[test]
    fn a_name_is_understood_as_it_is_answered() {
        let instance = Instance {
            key: InstanceKey { service: label("web"), id: label("web-1") },
            addresses: vec!["10.0.0.7".parse().unwrap()],
            port: Some(80),
            ports: vec![(label("http"), 80)],
            protocol: Protocol::Tcp,
            tags: vec!["V2".to_owned(), "web-1".to_owned()],
            meta: BTreeMap::new(),
            priority: 1,
            weight: 10,
            ttl: None,
            registered_as: Some("web:1.a".into()),
        };
        let key = instance.key.clone();
        let announcement = Announcement::new(Arc::new(instance), InstanceState::Passing);
        let node = Node {
            name: label("host-a"),
            addresses: vec!["10.0.0.7".parse().unwrap()],
            datacenter: label("dc1"),
            meta: Default::default(),
        };
        let announcements = [(key, Arc::new(announcement))].into_iter().collect();
        let view = NodeView { node: Arc::new(node), announcements, freshness: Freshness::Live };
        let mut catalog = Catalog::default();
        catalog.update([(label("host-a"), Arc::new(view))].into_iter().collect());
        let zones = ["service.local", "svc.example"].map(|zone| Name::parse(zone).unwrap());
        let cases = [
            ("web", "Service web All"),
            ("WEB.", "Service web All"),
            ("web.service.local", "Service web All"),
            ("Web.svc.example.", "Service web All"),
            ("_why.web", "Service web All"),
            ("web/web-1", "Service web Instance web-1"),
            ("web-1", "Service web Instance web-1"),
            ("web-1.web.service.local.", "Service web Instance web-1"),
            ("_why.web-1.web.service.local", "Service web Instance web-1"),
            ("web:1.a", "Service web Instance web-1"),
            ("v2.web", "Service web Tag v2"),
            ("_web._V2.service.local", "Service web Tag v2"),
            ("_web._tcp.service.local.", "Service web Protocol Tcp"),
            ("_web._udp.service.local", "Name _web._udp.service.local."),
            ("_http._tcp.web.service.local", "Service web Port http Tcp"),
            ("_metrics._tcp.web.service.local", "Name _metrics._tcp.web.service.local."),
            ("v1.web", "Name v1.web."),
            ("x.web-1.web.service.local", "Name x.web-1.web.service.local."),
            ("host-a", "Node host-a"),
            ("host-a.node.service.local.", "Node host-a"),
            ("host-b.node", "Name host-b.node."),
            ("service.local", "Apex"),
            ("www.example.com", "Name www.example.com."),
            ("wep", "Name wep."),
            ("a..b", "Nothing"),
        ];
        for (text, expected) in cases {
            let shown = match meant(text, &catalog, &zones) {
                Meant::Service(name, part) => format!("Service {name} {part:?}").replace(['(', ')', '"', ','], " "),
                Meant::Node(node) => format!("Node {node}"),
                Meant::Apex => "Apex".to_owned(),
                Meant::Name(name) => format!("Name {name}"),
                Meant::Nothing => "Nothing".to_owned(),
            };
            let shown: Vec<&str> = shown.split_whitespace().collect();
            assert_eq!(shown.join(" "), expected, "{text}");
        }
    }
}
