//! Conversion of catalog entries to Consul's JSON. Core: values in, values out.

use std::{collections::BTreeMap, net::IpAddr};

use uuid::Uuid;

use crate::{
    api::{
        Problem,
        catalog::{CatalogService, Check, Entry, Locality, Node, Nothing, Service, TaggedAddress, Texts, Weights},
    },
    diagnostic::Diagnostic,
    model::{
        announcement::{Announcement, HoldReason, InstanceState, Node as ModelNode},
        catalog::{Catalog, CatalogEntry, Freshness, NodeView},
        health::Status,
        name::Label,
    },
    printable,
};

/// Namespace of node ids (RFC 9562 §5.5), unique to muster.
const NAMESPACE: Uuid = Uuid::from_u128(0x9cab_b0be_5064_49eb_9973_518b_dc81_2026);
/// Consul's check id for the health of a node, which clients look for.
pub(crate) const NODE_CHECK: &str = "serfHealth";
/// Consul's check id for maintenance of a node.
const NODE_MAINTENANCE: &str = "_node_maintenance";
/// Consul's check id for maintenance of an instance; a colon and the instance's id follow.
const SERVICE_MAINTENANCE: &str = "_service_maintenance";

/// Returns the node's id, which depends only on its name: restarts do not change it, and all nodes return the same.
pub(crate) fn node_id(name: &Label) -> String {
    Uuid::new_v5(&NAMESPACE, name.as_bytes()).to_string()
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
    pub(crate) view: &'a NodeView,
    pub(crate) announcement: &'a Announcement,
    /// Catalog version of the service's last change.
    pub(crate) version: u64,
}

impl<'a> NodeInstance<'a> {
    /// Joins a catalog entry with its node; `None`: the node has just gone.
    pub(crate) fn new(catalog: &'a Catalog, entry: &'a CatalogEntry, version: u64) -> Option<Self> {
        let view = catalog.view().get(&entry.node)?;
        Some(Self { view, announcement: &entry.announcement, version })
    }

    fn node(&self) -> &ModelNode {
        &self.view.node
    }

    pub(crate) fn service(&self) -> Service {
        let instance = &self.announcement.instance;
        Service {
            id: instance.api_id().to_owned(),
            service: instance.service_name().to_owned(),
            tags: instance.tags.to_vec(),
            meta: instance.meta.to_map(),
            port: instance.port.unwrap_or(0),
            address: first(&instance.addresses),
            tagged_addresses: self.tagged(),
            weights: self.weights(),
            locality: locality(self.node()),
            enable_tag_override: false,
            datacenter: self.node().datacenter.to_string(),
            proxy: Nothing {},
            connect: Nothing {},
            create_index: self.version,
            modify_index: self.version,
            content_hash: String::new(),
        }
    }

    pub(crate) fn catalog_service(&self) -> CatalogService {
        let (node, service) = (node(self.view, self.version), self.service());
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
            service_enable_tag_override: false,
            service_proxy: Nothing {},
            service_connect: Nothing {},
            create_index: self.version,
            modify_index: self.version,
        }
    }

    pub(crate) fn entry(&self) -> Entry {
        let mut checks = node_checks(self.view, self.version);
        checks.extend(self.checks());
        Entry { node: node(self.view, self.version), service: self.service(), checks }
    }

    /// Returns the instance's checks, and a critical check for its hold.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let instance = &self.announcement.instance;
        let id = instance.api_id();
        let check = |check_id: String, name: &str, status: Status| Check {
            node: self.node().name.to_string(),
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
            // `node_checks` returns the check for the node's maintenance.
            InstanceState::Withheld(HoldReason::NodeMaintenance, _) => {}
            InstanceState::Withheld(kind, why) => {
                let name = match kind {
                    HoldReason::Draining => "Draining",
                    HoldReason::Flapping => "Flapping",
                    HoldReason::Maintenance | HoldReason::NodeMaintenance => "Service Maintenance Mode",
                };
                checks.push(held(name, why));
            }
            _ => {}
        }
        let reported = self.announcement.report.iter().flat_map(|report| &report.checks);
        let own = reported.map(|known| Check {
            output: known.output.to_string(),
            ..check(known.id.to_string(), &known.name, known.status)
        });
        checks.extend(own);
        if checks.is_empty() {
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
        if self.view.freshness == Freshness::Gone {
            return Status::Critical.as_str();
        }
        match &self.announcement.state {
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
        let port = instance.port.unwrap_or(0);
        let of = |address: String| TaggedAddress { address, port };
        families(&instance.addresses).into_iter().map(|(key, address)| (key, of(address))).collect()
    }
}

/// Returns the zone of a node. Consul has zones within a region only.
fn locality(node: &ModelNode) -> Option<Locality> {
    let zone = node.zone.as_ref()?;
    Some(Locality { region: node.datacenter.to_string(), zone: zone.to_string() })
}

/// Converts a node.
pub(crate) fn node(view: &NodeView, version: u64) -> Node {
    let node = &view.node;
    let mut tagged: Texts = families(&node.addresses);
    for key in ["lan", "wan"] {
        tagged.insert(key.to_owned(), first(&node.addresses));
    }
    Node {
        id: node_id(&node.name),
        node: node.name.to_string(),
        address: first(&node.addresses),
        datacenter: node.datacenter.to_string(),
        tagged_addresses: tagged,
        meta: node.meta.clone(),
        locality: locality(node),
        create_index: version,
        modify_index: version,
    }
}

/// Returns the checks of a node: reachability and maintenance.
pub(crate) fn node_checks(view: &NodeView, version: u64) -> Vec<Check> {
    let check = |id: &str, name: &str, status: Status, output: &str| Check {
        node: view.node.name.to_string(),
        check_id: id.to_owned(),
        name: name.to_owned(),
        status: status.as_str().to_owned(),
        output: output.to_owned(),
        create_index: version,
        modify_index: version,
        ..Check::default()
    };
    let (status, output) = match view.freshness {
        Freshness::Live => (Status::Passing, "Agent alive and reachable"),
        Freshness::LastKnown => (Status::Passing, "Unreachable in a partition: last known state is answered"),
        Freshness::Gone => (Status::Critical, "Agent not live or unreachable"),
    };
    let mut checks = vec![check(NODE_CHECK, "Serf Health Status", status, output)];
    let maintenance = view.announcements.values().find_map(|announcement| match &announcement.state {
        InstanceState::Withheld(HoldReason::NodeMaintenance, why) => Some(why),
        _ => None,
    });
    if let Some(why) = maintenance {
        let name = "Node Maintenance Mode";
        checks.push(Check { notes: why.to_string(), ..check(NODE_MAINTENANCE, name, Status::Critical, why) });
    }
    checks
}

fn first(addresses: &[IpAddr]) -> String {
    addresses.first().map(ToString::to_string).unwrap_or_default()
}

fn families(addresses: &[IpAddr]) -> Texts {
    let mut tagged = Texts::new();
    for address in addresses {
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        for reach in ["lan", "wan"] {
            tagged.entry(format!("{reach}_{family}")).or_insert_with(|| address.to_string());
        }
    }
    tagged
}
