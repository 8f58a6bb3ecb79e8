//! Conversion of catalog entries to Consul's JSON. Core: values in, values out.

mod node_ref;

use std::{borrow::Borrow, collections::BTreeMap, net::IpAddr};

use uuid::Uuid;

pub(crate) use self::node_ref::NodeRef;
use crate::{
    api::{
        Problem,
        catalog::{CatalogService, Check, Entry, Locality, Node, Nothing, Service, TaggedAddress, Texts, Weights},
    },
    diagnostic::Diagnostic,
    model::{
        announcement::{Announcement, HoldReason, InstanceState, NODE_CHECK, Node as ModelNode, SERVICE_MAINTENANCE},
        catalog::{Catalog, CatalogEntry, Freshness, NodeVersions, NodeView},
        followed_host::FollowedHost,
        health::Status,
        tagged_addresses::{self, by_family},
    },
    printable,
};

/// Namespace of node ids (RFC 9562 §5.5), unique to muster.
const NAMESPACE: Uuid = Uuid::from_u128(0x9cab_b0be_5064_49eb_9973_518b_dc81_2026);

/// Returns the node's id, which depends only on its name: restarts do not change it, and all nodes return the same.
pub(crate) fn node_id(name: &impl Borrow<[u8]>) -> String {
    Uuid::new_v5(&NAMESPACE, name.borrow()).to_string()
}

/// Returns a problem of a file.
pub(crate) fn problem(problem: &Diagnostic) -> Problem {
    Problem {
        file: printable::path(&problem.path).to_string(),
        line: problem.line,
        column: problem.column,
        severity: if problem.is_error() { "error" } else { "warning" }.to_owned(),
        message: problem.message.clone(),
        hint: problem.hint.clone(),
    }
}

/// An instance with its node.
pub(crate) struct NodeInstance<'a> {
    /// Node on which the instance is.
    pub(crate) host: NodeRef<'a>,
    pub(crate) announcement: &'a Announcement,
    /// Catalog version of the service's last change.
    pub(crate) version: u64,
}

impl<'a> NodeInstance<'a> {
    /// Joins a catalog entry with its node; `None`: the node has just gone, or the record of the external node has not arrived.
    pub(crate) fn new(catalog: &'a Catalog, entry: &'a CatalogEntry, version: u64) -> Option<Self> {
        let view = catalog.view().get(&entry.node)?;
        let host = match entry.announcement.instance.external.as_deref() {
            Some(name) => NodeRef::external(catalog, view, &catalog.claims(name).first()?.node),
            None => NodeRef::member(catalog, view),
        };
        Some(Self { host, announcement: &entry.announcement, version })
    }

    pub(crate) fn host(&self) -> NodeRef<'a> {
        self.host
    }

    fn node(&self) -> &ModelNode {
        &self.host.view.node
    }

    pub(crate) fn service(&self) -> Service {
        let instance = &self.announcement.instance;
        Service {
            id: instance.api_id().to_owned(),
            service: instance.service_name().to_owned(),
            tags: instance.tags.to_vec(),
            meta: instance.meta.to_map(),
            port: instance.port.unwrap_or(0),
            address: shown_address(instance.host.as_deref(), &instance.addresses),
            tagged_addresses: self.tagged(),
            weights: self.weights(),
            locality: locality(self.node()),
            enable_tag_override: instance.tag_override,
            datacenter: self.node().datacenter.to_string(),
            proxy: Nothing {},
            connect: Nothing {},
            create_index: self.version,
            modify_index: self.version,
            content_hash: String::new(),
        }
    }

    pub(crate) fn catalog_service(&self) -> CatalogService {
        let (node, service) = (self.host.node(), self.service());
        CatalogService {
            id: node.id,
            node: node.node,
            address: node.address,
            datacenter: node.datacenter,
            tagged_addresses: node.tagged_addresses,
            node_meta: node.meta,
            service_kind: String::new(),
            service_id: service.id,
            service_name: service.service,
            service_tags: service.tags,
            service_address: service.address,
            service_tagged_addresses: service.tagged_addresses,
            service_weights: service.weights,
            service_meta: service.meta,
            service_port: service.port,
            service_locality: service.locality,
            service_enable_tag_override: service.enable_tag_override,
            service_proxy: Nothing {},
            service_connect: Nothing {},
            create_index: self.version,
            modify_index: self.version,
        }
    }

    pub(crate) fn entry(&self) -> Entry {
        let host = self.host();
        let mut checks = host.checks();
        checks.extend(self.checks());
        Entry { node: host.node(), service: self.service(), checks }
    }

    /// Returns the instance's checks, and a critical check for its hold.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let instance = &self.announcement.instance;
        let id = instance.api_id();
        let check = |check_id: String, name: &str, status: Status| Check {
            node: self.host().name().to_owned(),
            check_id,
            name: name.to_owned(),
            status: status.as_str().to_owned(),
            service_id: id.to_owned(),
            service_name: instance.service_name().to_owned(),
            service_tags: instance.tags.to_vec(),
            create_index: self.version,
            modify_index: self.version,
            ..Check::default()
        };
        let mut checks = Vec::new();
        // One id for all kinds of hold: Fabio and other clients use an instance with any passing check, unless this
        // check exists.
        let held = |name: &str, why: &str| Check {
            notes: why.to_owned(),
            output: if why.is_empty() { name.to_owned() } else { format!("{name}: {why}") },
            ..check(format!("{SERVICE_MAINTENANCE}:{id}"), name, Status::Critical)
        };
        match &self.announcement.state {
            InstanceState::Disabled => checks.push(held("Disabled", "enabled: false in the service file")),
            // `node_checks` returns the check that is the cause.
            InstanceState::Withheld(HoldReason::NodeMaintenance | HoldReason::NodeCritical, _) => {}
            InstanceState::Withheld(kind, why) => {
                let name = match kind {
                    HoldReason::Draining => "Draining",
                    HoldReason::Flapping => "Flapping",
                    HoldReason::Unresolved => "Unresolved Address",
                    HoldReason::Maintenance | HoldReason::NodeMaintenance | HoldReason::NodeCritical => {
                        "Service Maintenance Mode"
                    }
                };
                checks.push(held(name, why));
            }
            _ => {}
        }
        let reported = self.announcement.report.iter().flat_map(|report| &report.checks);
        let own = reported.map(|known| Check {
            notes: known.notes.to_string(),
            output: known.output.to_string(),
            ..check(known.id.to_string(), &known.name, known.status)
        });
        checks.extend(own);
        checks.iter_mut().for_each(|check| self.host().add_definition(check));
        if checks.is_empty() && self.host.external.is_none() {
            // Without a report, the state is still known.
            let (status, why) = match &self.announcement.state {
                InstanceState::Critical(why) => (Status::Critical, &**why),
                InstanceState::Warning(why) => (Status::Warning, &**why),
                _ => return checks,
            };
            checks.push(Check { output: why.to_owned(), ..check(format!("service:{id}"), "Service check", status) });
        }
        checks
    }

    /// Worst status of the checks of the instance and its node, in Consul's terms.
    pub(crate) fn aggregated_status(&self) -> &'static str {
        if self.host.view.freshness == Freshness::Gone {
            return Status::Critical.as_str();
        }
        match &self.announcement.state {
            InstanceState::Withheld(HoldReason::NodeCritical, _) => Status::Critical.as_str(),
            InstanceState::Disabled | InstanceState::Withheld(..) => "maintenance",
            InstanceState::Passing | InstanceState::Warming(_) => Status::Passing.as_str(),
            InstanceState::Warning(_) => Status::Warning.as_str(),
            InstanceState::Critical(_) => Status::Critical.as_str(),
        }
    }

    fn weights(&self) -> Weights {
        let weight = self.announcement.instance.weight;
        let passing = match &self.announcement.state {
            warming @ InstanceState::Warming(_) => warming.weight(weight),
            _ => weight,
        };
        Weights { passing, warning: InstanceState::Warning("".into()).weight(weight) }
    }

    fn tagged(&self) -> BTreeMap<String, TaggedAddress> {
        let instance = &self.announcement.instance;
        let shown = |tag: &str, known: &tagged_addresses::TaggedAddress| {
            (tag.to_owned(), TaggedAddress { address: known.address.to_string(), port: known.port })
        };
        if !instance.tagged.is_empty() {
            return instance.tagged.iter().map(|(tag, known)| shown(tag, known)).collect();
        }
        by_family(&instance.addresses, instance.port).iter().map(|(tag, known)| shown(tag, known)).collect()
    }
}

/// Returns the zone of a node. Consul has zones within a region only.
fn locality(node: &ModelNode) -> Option<Locality> {
    let zone = node.zone.as_ref()?;
    Some(Locality { region: node.datacenter.to_string(), zone: zone.to_string() })
}

/// Converts a node.
pub(crate) fn node(view: &NodeView, versions: NodeVersions) -> Node {
    let node = &view.node;
    Node {
        id: node_id(&node.name),
        node: node.name.to_string(),
        address: first(&node.addresses),
        datacenter: node.datacenter.to_string(),
        tagged_addresses: tagged_addresses(&first(&node.addresses), &node.addresses),
        meta: node.meta.clone(),
        locality: locality(node),
        create_index: versions.added,
        modify_index: versions.described,
    }
}

/// Returns the checks of a node: reachability, maintenance and its own checks.
pub(crate) fn node_checks(node: &NodeRef<'_>) -> Vec<Check> {
    let (status, output) = match node.view.freshness {
        Freshness::Live => (Status::Passing, "Agent alive and reachable"),
        Freshness::LastKnown => (Status::Passing, "Unreachable in a partition: last known state is answered"),
        Freshness::Gone => (Status::Critical, "Agent not live or unreachable"),
    };
    let reachable = Check {
        check_id: NODE_CHECK.to_owned(),
        name: "Serf Health Status".to_owned(),
        status: status.as_str().to_owned(),
        output: output.to_owned(),
        ..node.check()
    };
    let mut checks = vec![reachable];
    checks.extend(own_node_checks(node));
    checks
}

/// Returns the maintenance of a node and its own checks: what its agent reports about it.
pub(crate) fn own_node_checks(node: &NodeRef<'_>) -> impl Iterator<Item = Check> {
    node.view.node.checks.iter().flat_map(|report| &report.checks).map(move |known| Check {
        check_id: known.id.to_string(),
        name: known.name.to_string(),
        notes: known.notes.to_string(),
        status: known.status.as_str().to_owned(),
        output: known.output.to_string(),
        ..node.check()
    })
}

/// Returns Consul's tagged addresses of a node with this `Address`.
pub(crate) fn tagged_addresses(address: &str, addresses: &[IpAddr]) -> Texts {
    let families = by_family(addresses, None).into_iter();
    let mut tagged: Texts = families.map(|(tag, known)| (tag.to_string(), known.address.to_string())).collect();
    for key in ["lan", "wan"] {
        tagged.insert(key.to_owned(), address.to_owned());
    }
    tagged
}

/// Returns the address as registered: the host name, or the first address.
pub(crate) fn shown_address(host: Option<&FollowedHost>, addresses: &[IpAddr]) -> String {
    host.map_or_else(|| first(addresses), |host| host.name.to_string())
}

pub(crate) fn first(addresses: &[IpAddr]) -> String {
    addresses.first().map(ToString::to_string).unwrap_or_default()
}
