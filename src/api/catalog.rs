//! Services, nodes and checks, in Consul's shapes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Texts by key.
pub type Texts = BTreeMap<String, String>;

/// A node: `GET /v1/catalog/nodes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Node {
    /// A UUID made of the node's name.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub node: String,
    /// Its first address.
    pub address: String,
    /// The name of its site.
    pub datacenter: String,
    /// `lan` and `wan`: its first address; `lan_ipv4` and so on where it has one.
    pub tagged_addresses: Texts,
    /// What its configuration says of it.
    pub meta: Texts,
    /// When it was changed last, as an index for blocking queries.
    pub create_index: u64,
    /// The same.
    pub modify_index: u64,
}

/// An address with a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaggedAddress {
    /// An IP address.
    pub address: String,
    /// 0: none.
    pub port: u16,
}

/// The shares of traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Weights {
    /// While all checks pass.
    pub passing: u16,
    /// While one warns.
    pub warning: u16,
}

/// An object that Consul's clients expect and that has nothing in it here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Nothing {}

/// An instance on its node: in `GET /v1/agent/services`, `/v1/health/service/{service}` and `/v1/catalog/node/{node}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Service {
    /// The instance's id, as it was registered.
    #[serde(rename = "ID")]
    pub id: String,
    /// The service's name.
    pub service: String,
    /// As the file or the registration has them.
    pub tags: Vec<String>,
    /// The same.
    pub meta: Texts,
    /// 0: none.
    pub port: u16,
    /// The first of its addresses.
    pub address: String,
    /// All of them, by family.
    pub tagged_addresses: BTreeMap<String, TaggedAddress>,
    /// The shares of traffic.
    pub weights: Weights,
    /// Always false: nobody else writes tags.
    pub enable_tag_override: bool,
    /// The name of the node's site.
    pub datacenter: String,
    /// Empty: there are no proxies.
    pub proxy: Nothing,
    /// Empty: there is no service mesh.
    pub connect: Nothing,
    /// When it was changed last.
    pub create_index: u64,
    /// The same.
    pub modify_index: u64,
    /// What tells one content from another, in `GET /v1/agent/service/{id}` alone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub content_hash: String,
}

/// An instance with its node: `GET /v1/catalog/service/{service}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct CatalogService {
    /// The node's id.
    #[serde(rename = "ID")]
    pub id: String,
    /// The node's name.
    pub node: String,
    /// The node's first address.
    pub address: String,
    /// The name of the node's site.
    pub datacenter: String,
    /// The node's addresses.
    pub tagged_addresses: Texts,
    /// What the node's configuration says of it.
    pub node_meta: Texts,
    /// Always empty: an ordinary service.
    pub service_kind: String,
    /// The instance's id, as it was registered.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// The service's name.
    pub service_name: String,
    /// As the file or the registration has them.
    pub service_tags: Vec<String>,
    /// The instance's first address.
    pub service_address: String,
    /// All its addresses, by family.
    pub service_tagged_addresses: BTreeMap<String, TaggedAddress>,
    /// The shares of traffic.
    pub service_weights: Weights,
    /// As the file or the registration has it.
    pub service_meta: Texts,
    /// 0: none.
    pub service_port: u16,
    /// Always false.
    pub service_enable_tag_override: bool,
    /// Empty.
    pub service_proxy: Nothing,
    /// Empty.
    pub service_connect: Nothing,
    /// When it was changed last.
    pub create_index: u64,
    /// The same.
    pub modify_index: u64,
}

/// A check's result: `GET /v1/health/checks/{service}`, `/v1/health/state/{state}`, `/v1/agent/checks`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Check {
    /// The node's name.
    pub node: String,
    /// `serfHealth`: the node itself; else as it was registered, or `service:ID`.
    #[serde(rename = "CheckID")]
    pub check_id: String,
    /// For people.
    pub name: String,
    /// `passing`, `warning` or `critical`.
    pub status: String,
    /// Why something is held back, where it is.
    pub notes: String,
    /// What was found.
    pub output: String,
    /// The instance's id; empty for the node's own.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// The service's name; empty for the node's own.
    pub service_name: String,
    /// The instance's tags.
    pub service_tags: Vec<String>,
    /// Always empty.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Empty.
    pub definition: Nothing,
    /// When it was changed last.
    pub create_index: u64,
    /// The same.
    pub modify_index: u64,
}

/// An instance, its node and its checks: `GET /v1/health/service/{service}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Entry {
    /// Where it runs.
    pub node: Node,
    /// What it is.
    pub service: Service,
    /// How it stands; the node's own checks first.
    pub checks: Vec<Check>,
}

/// A node and its instances by id: `GET /v1/catalog/node/{node}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeServices {
    /// The node.
    pub node: Node,
    /// Its instances.
    pub services: BTreeMap<String, Service>,
}

/// A node and the list of its instances: `GET /v1/catalog/node-services/{node}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeServiceList {
    /// The node; `None` where none of that name is known.
    pub node: Option<Node>,
    /// Its instances.
    pub services: Vec<Service>,
}

/// A user event: `GET /v1/event/list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Event {
    /// A UUID.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// In base64; `None`: nothing.
    pub payload: Option<String>,
    /// The nodes that it is for, as a regular expression; empty: all.
    pub node_filter: String,
    /// The same for their services.
    pub service_filter: String,
    /// The same for the tags of these.
    pub tag_filter: String,
    /// Of the shape: always 1.
    pub version: u8,
    /// Greater than that of every event that was known where it was fired.
    #[serde(rename = "LTime")]
    pub time: u64,
}

/// One instance of this node and how it stands: `GET /v1/agent/health/service/id/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct AgentHealth {
    /// The worst of its checks: `passing`, `warning`, `critical` or `maintenance`.
    pub aggregated_status: String,
    /// What it is.
    pub service: Service,
    /// How it stands.
    pub checks: Vec<Check>,
}

/// A service as a whole: `GET /v1/internal/ui/services`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// The name of the site.
    pub datacenter: String,
    /// Of all its instances.
    pub tags: Vec<String>,
    /// The nodes that have instances.
    pub nodes: Vec<String>,
    /// How many.
    pub instance_count: usize,
    /// Checks that pass, the nodes' own included.
    pub checks_passing: usize,
    /// Checks that warn.
    pub checks_warning: usize,
    /// Checks that are critical.
    pub checks_critical: usize,
    /// What only muster has.
    pub muster: Answered,
}

/// `Muster` of [`Summary`]: how many of the instances are answered, and how all stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Answered {
    /// Instances that answers carry.
    pub answered: usize,
    /// Instances by [state](super::explain::Instance::state); a word that counts none is left out.
    pub states: BTreeMap<String, usize>,
}
