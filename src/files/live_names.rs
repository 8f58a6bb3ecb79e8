//! Names whose records follow the state of the cluster, and hide static records.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use crate::model::{
    alias_domain::{NameScheme, address_of_label, is_consul_kind},
    name::{Label, Name},
    registered_name::RegisteredName,
};

/// Second label of a datacenter's longer form in the scheme of Consul: `dc1.dc`.
const DATACENTER: &[u8] = b"dc";

/// A node whose names are known without the cluster.
#[derive(Clone, Debug)]
pub struct KnownNode {
    /// Name of the node.
    pub name: Label,
    /// Its datacenter, which is that of its services. Names of other datacenters are not known.
    pub datacenter: Label,
}

/// Subject of a name that hides static records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LiveName<'a> {
    /// At or below the name of a service.
    Service(&'a RegisteredName),
    /// Name of a node.
    Node(&'a Label),
    /// Name of an address in the scheme of Consul.
    Address(IpAddr),
}

impl fmt::Display for LiveName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "a name of the service `{name}`"),
            Self::Node(name) => write!(f, "the name of the node `{name}`"),
            Self::Address(address) => write!(f, "the name of the address {address}"),
        }
    }
}

impl LiveName<'_> {
    /// Origin of the records of the name.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Service(_) => "its records follow the health of the instances: choose another name",
            Self::Node(_) => "its records are the addresses of the node: choose another name",
            Self::Address(_) => "every such name has the address of its first label: choose another name",
        }
    }
}

/// Returns the subject of the name that a static record conflicts with: its owner is in the zone, at or below `SERVICE.ZONE` or
/// `_SERVICE._tcp.ZONE`, at `NODE.node.ZONE`, or at such names of another scheme. `services` are those of the node.
pub fn live_name_at<'a>(
    owner: &Name,
    zone: &Name,
    scheme: NameScheme,
    node: &'a KnownNode,
    services: &'a BTreeSet<RegisteredName>,
) -> Option<LiveName<'a>> {
    owner.within(zone)?;
    let above = owner.labels().count() - zone.labels().count();
    let labels = owner.labels().take(above).collect::<Vec<_>>();
    match scheme {
        NameScheme::Muster => match &labels[..] {
            [name, b"node"] => node_at(name, node),
            labels => service_at(labels, services),
        },
        NameScheme::Consul => {
            let kind = labels.iter().rposition(|label| is_consul_kind(label) || label.first() == Some(&b'_'))?;
            let is_of_node = match &labels[kind + 1..] {
                [] => true,
                [datacenter] | [datacenter, DATACENTER] => *datacenter == node.datacenter.as_bytes(),
                _ => false,
            };
            match (&labels[..kind], labels[kind]) {
                _ if !is_of_node => None,
                (labels, b"service") => service_at(labels, services),
                ([name], b"node") => node_at(name, node),
                ([address], b"addr") => address_of_label(address).map(LiveName::Address),
                (_, [b'_', ..]) => service_at(&labels[..=kind], services),
                _ => None,
            }
        }
    }
}

fn node_at<'a>(label: &[u8], node: &'a KnownNode) -> Option<LiveName<'a>> {
    (label == node.name.as_bytes()).then_some(LiveName::Node(&node.name))
}

/// Returns the service of a name in front of its zone, or of the label of its kind.
fn service_at<'a>(labels: &[&[u8]], services: &'a BTreeSet<RegisteredName>) -> Option<LiveName<'a>> {
    let mut labels = labels.iter().rev();
    let last = *labels.next()?;
    let service = match last.first() {
        // `_tcp`, `_udp` or `_TAG`: the service is the preceding label.
        Some(b'_') => labels.next()?.strip_prefix(b"_")?,
        _ => last,
    };
    services.get(service).filter(|service| service.dns_label().is_ok()).map(LiveName::Service)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::label;

    #[test]
    fn static_names_conflict_with_names_of_the_node() {
        let node = KnownNode { name: label("q"), datacenter: label("dc1") };
        let services = BTreeSet::from(["web"].map(|name| RegisteredName::parse(name).unwrap()));
        // Owner, subject in the discovery zone, subject in an alias domain with the scheme of Consul.
        let cases = [
            ("web", "a name of the service `web`", ""),
            ("x.web", "a name of the service `web`", ""),
            ("_web._tcp", "a name of the service `web`", "a name of the service `web`"),
            ("other", "", ""),
            ("q.node", "the name of the node `q`", "the name of the node `q`"),
            ("a.q.node", "", ""),
            ("r.node", "", ""),
            ("web.service", "", "a name of the service `web`"),
            ("a.web.service.dc1", "", "a name of the service `web`"),
            ("web.service.dc1.dc", "", "a name of the service `web`"),
            // Other datacenters may be unknown: DNS answers the static record then.
            ("web.service.dc9", "", ""),
            ("web.service.dc1.dc2", "", ""),
            ("_web._tcp.dc9", "", ""),
            ("q.node.dc1", "", "the name of the node `q`"),
            ("q.node.dc9", "", ""),
            ("0a000001.addr", "", "the name of the address 10.0.0.1"),
            ("0a000001.addr.dc1", "", "the name of the address 10.0.0.1"),
            ("a.0a000001.addr", "", ""),
            ("0a0001.addr", "", ""),
        ];
        for (owner, discovery, consul) in cases {
            for (scheme, expected) in [(NameScheme::Muster, discovery), (NameScheme::Consul, consul)] {
                let (zone, owner) = (Name::parse("zone").unwrap(), Name::parse(&format!("{owner}.zone")).unwrap());
                let found = live_name_at(&owner, &zone, scheme, &node, &services);
                assert_eq!(found.map(|found| found.to_string()).unwrap_or_default(), expected, "{owner} {scheme:?}");
            }
        }
    }
}
