//! Services, nodes and checks, as Consul's API has them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Strings by key.
pub type Texts = BTreeMap<String, String>;

/// A node: `GET /v1/catalog/nodes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Node {
    /// UUID derived from the node's name.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name of the node.
    pub node: String,
    /// First address of the node.
    pub address: String,
    /// Datacenter of the node.
    pub datacenter: String,
    /// `lan` and `wan`: the first address; `lan_ipv4` and so on: the first address of that family.
    pub tagged_addresses: Texts,
    /// Metadata of the node.
    pub meta: Texts,
    /// Zone of the node; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// Index of this agent at which the node was added.
    pub create_index: u64,
    /// Index of this agent at the last change of the node's own data.
    pub modify_index: u64,
}

/// Zone of a node, in Consul's terms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Locality {
    /// Datacenter of the node: a zone is part of one.
    pub region: String,
    /// Zone of the node.
    pub zone: String,
}

/// An address with a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaggedAddress {
    /// An IP address or a host name.
    pub address: String,
    /// Port; 0: none.
    pub port: u16,
}

/// SRV weights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Weights {
    /// Weight while all checks pass.
    pub passing: u16,
    /// Weight while a check warns.
    pub warning: u16,
}

/// Empty object that Consul's clients expect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Nothing {}

/// An instance on its node: in `GET /v1/agent/services`, `/v1/health/service/{service}` and `/v1/catalog/node/{node}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Service {
    /// Id of the instance, as registered.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name of the service.
    pub service: String,
    /// Tags, as written in the file or the registration.
    pub tags: Vec<String>,
    /// Metadata, as written in the file or the registration.
    pub meta: Texts,
    /// Port; 0: none.
    pub port: u16,
    /// First address of the instance.
    pub address: String,
    /// As registered; by default all addresses, by family.
    pub tagged_addresses: BTreeMap<String, TaggedAddress>,
    /// SRV weights.
    pub weights: Weights,
    /// Zone of the node; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// True if `catalog/register` may replace the tags.
    pub enable_tag_override: bool,
    /// Datacenter of the node.
    pub datacenter: String,
    /// Empty: there are no proxies.
    pub proxy: Nothing,
    /// Empty: there is no service mesh.
    pub connect: Nothing,
    /// Index of the last change.
    pub create_index: u64,
    /// Same as `CreateIndex`.
    pub modify_index: u64,
    /// Digest of the content; only in `GET /v1/agent/service/{id}`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub content_hash: String,
}

/// An instance with its node: `GET /v1/catalog/service/{service}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct CatalogService {
    /// Id of the node.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name of the node.
    pub node: String,
    /// First address of the node.
    pub address: String,
    /// Datacenter of the node.
    pub datacenter: String,
    /// Addresses of the node.
    pub tagged_addresses: Texts,
    /// Metadata of the node.
    pub node_meta: Texts,
    /// Always empty: a typical service.
    pub service_kind: String,
    /// Id of the instance, as registered.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// Name of the service.
    pub service_name: String,
    /// Tags, as written in the file or the registration.
    pub service_tags: Vec<String>,
    /// First address of the instance.
    pub service_address: String,
    /// As registered; by default all addresses of the instance, by family.
    pub service_tagged_addresses: BTreeMap<String, TaggedAddress>,
    /// SRV weights.
    pub service_weights: Weights,
    /// Metadata, as written in the file or the registration.
    pub service_meta: Texts,
    /// Port; 0: none.
    pub service_port: u16,
    /// Zone of the node; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_locality: Option<Locality>,
    /// True if `catalog/register` may replace the tags.
    pub service_enable_tag_override: bool,
    /// Always empty.
    pub service_proxy: Nothing,
    /// Always empty.
    pub service_connect: Nothing,
    /// Index of the last change.
    pub create_index: u64,
    /// Same as `CreateIndex`.
    pub modify_index: u64,
}

/// A check's result: `GET /v1/health/checks/{service}`, `/v1/health/state/{state}`, `/v1/agent/checks`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Check {
    /// Name of the node.
    pub node: String,
    /// `serfHealth` for the node itself; otherwise as registered, or `service:ID`.
    #[serde(rename = "CheckID")]
    pub check_id: String,
    /// Name, for operators.
    pub name: String,
    /// `passing`, `warning` or `critical`.
    pub status: String,
    /// Reason of a hold; otherwise empty.
    pub notes: String,
    /// Output of the check.
    pub output: String,
    /// Id of the instance; empty for checks of the node.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// Name of the service; empty for checks of the node.
    pub service_name: String,
    /// Tags of the instance.
    pub service_tags: Vec<String>,
    /// Always empty.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Definition, of a check that was reported to the catalog; otherwise empty.
    pub definition: BTreeMap<String, serde_json::Value>,
    /// Index of the last change; for a check of a node, the index at which the node was added.
    pub create_index: u64,
    /// Index of the last change of the service, or of the node with its checks.
    pub modify_index: u64,
}

/// An instance, its node and its checks: `GET /v1/health/service/{service}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Entry {
    /// Node of the instance.
    pub node: Node,
    /// The instance.
    pub service: Service,
    /// Checks; those of the node first.
    pub checks: Vec<Check>,
}

/// A node and its instances by id: `GET /v1/catalog/node/{node}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeServices {
    /// The node.
    pub node: Node,
    /// Instances of the node, by id.
    pub services: BTreeMap<String, Service>,
}

/// A node and the list of its instances: `GET /v1/catalog/node-services/{node}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeServiceList {
    /// The node; `None`: unknown.
    pub node: Option<Node>,
    /// Instances of the node.
    pub services: Vec<Service>,
}

/// A user event: `GET /v1/event/list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Event {
    /// UUID of the event.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name of the event.
    pub name: String,
    /// Payload in base64; `None`: empty.
    pub payload: Option<String>,
    /// Regular expression for the node's name; empty: all nodes.
    pub node_filter: String,
    /// Regular expression for a service of the node; empty: all.
    pub service_filter: String,
    /// Regular expression for a tag of that service; empty: all.
    pub tag_filter: String,
    /// Format version; always 1.
    pub version: u8,
    /// Lamport time: greater than that of every event known to the firing node.
    #[serde(rename = "LTime")]
    pub time: u64,
}

/// Health of an instance of this node: `GET /v1/agent/health/service/id/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct AgentHealth {
    /// Worst status of the checks: `passing`, `warning`, `critical` or `maintenance`.
    pub aggregated_status: String,
    /// The instance.
    pub service: Service,
    /// Checks of the node and the instance.
    pub checks: Vec<Check>,
}

/// Summary of a service: `GET /v1/internal/ui/services`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Summary {
    /// Name of the service.
    pub name: String,
    /// Datacenter.
    pub datacenter: String,
    /// Tags of all instances.
    pub tags: Vec<String>,
    /// Nodes with instances.
    pub nodes: Vec<String>,
    /// Number of instances.
    pub instance_count: usize,
    /// Number of passing checks, including those of the nodes.
    pub checks_passing: usize,
    /// Number of warning checks.
    pub checks_warning: usize,
    /// Number of critical checks.
    pub checks_critical: usize,
    /// Additions of muster.
    pub muster: Answered,
}

/// `Muster` of [`Summary`]: number of answered instances, and the states of all instances.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Answered {
    /// Number of healthy instances, which DNS answers contain if they are near enough.
    pub answered: usize,
    /// Tier that the requested agent answers: `zone`, `datacenter` or `all`; null unless the service prefers near instances and
    /// has a healthy one.
    pub tier: Option<String>,
    /// Number of instances by [state](super::explain::Instance::state); zero counts are omitted.
    pub states: BTreeMap<String, usize>,
}
