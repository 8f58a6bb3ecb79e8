//! JSON of the HTTP API, which the agent writes and the commands read.
//!
//! Fields follow Consul's API, for its clients; additions of muster are under the key `Muster`. A command may be older
//! or newer than its agent, so missing fields are empty and unknown fields are ignored.

pub mod catalog;
pub mod events;
pub mod explain;
pub mod kv;
pub mod metrics;
pub mod store;
pub mod zones;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Consul's `Status` of a live member.
pub const ALIVE: u8 = 1;
/// Consul's `Status` of a member that left gracefully.
pub const LEFT: u8 = 3;
/// Consul's `Status` of an unreachable member.
pub const FAILED: u8 = 4;

/// `GET /v1/agent/self`: the keys of Consul and no others, since clients compare them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Agent {
    /// Configuration, as far as Consul shows it.
    pub config: Config,
    /// Network coordinate.
    #[serde(default)]
    pub coord: Coordinate,
    /// Consul's debug configuration: only keys that its clients use.
    pub debug_config: DebugConfig,
    /// Membership of this node.
    pub member: Member,
    /// Statistics by group; values are strings.
    pub stats: BTreeMap<String, BTreeMap<String, String>>,
    /// Metadata of the node.
    pub meta: BTreeMap<String, String>,
    /// Server of proxy configurations: there is none.
    #[serde(rename = "xDS", default)]
    pub xds: Xds,
}

/// `GET /v1/muster/status`: [`Agent`] with the additions of muster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct AgentStatus {
    /// The response of `GET /v1/agent/self`.
    #[serde(flatten)]
    pub agent: Agent,
    /// State of the node and its cluster.
    pub muster: Status,
}

/// Network coordinate of a node. muster measures none: the values are those of a Consul agent without a measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Coordinate {
    /// Offset in seconds.
    pub adjustment: f64,
    /// Confidence: 1.5 is none.
    pub error: f64,
    /// Height above the plane, in seconds.
    pub height: f64,
    /// Position, in seconds.
    pub vec: [f64; 8],
}

impl Default for Coordinate {
    fn default() -> Self {
        Self { adjustment: 0.0, error: 1.5, height: 1e-5, vec: [0.0; 8] }
    }
}

/// Coordinates of a datacenter, in `GET /v1/coordinate/datacenters`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct DatacenterCoordinates {
    /// Name of the datacenter.
    pub datacenter: String,
    /// Always `wan`, as in Consul.
    #[serde(rename = "AreaID")]
    pub area_id: String,
    /// Always empty.
    pub coordinates: Vec<NodeCoordinate>,
}

/// Coordinate of a node, in `GET /v1/coordinate/nodes`, which is always empty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NodeCoordinate {
    /// Name of the node.
    pub node: String,
    /// Always empty.
    pub segment: String,
    /// Its coordinate.
    pub coord: Coordinate,
}

/// `xDS` of [`Agent`]: as in Consul, port -1 is a disabled server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Xds {
    /// Always -1.
    pub port: i32,
    /// Always -1 for both.
    pub ports: XdsPorts,
    /// Always empty.
    pub supported_proxies: BTreeMap<String, Vec<String>>,
}

/// `Ports` of [`Xds`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct XdsPorts {
    /// Port without TLS.
    pub plaintext: i32,
    /// Port with TLS.
    #[serde(rename = "TLS")]
    pub tls: i32,
}

impl Default for Xds {
    fn default() -> Self {
        let ports = XdsPorts { plaintext: NO_PORT, tls: NO_PORT };
        Self { port: NO_PORT, ports, supported_proxies: BTreeMap::new() }
    }
}

/// Consul's port of a disabled server.
pub const NO_PORT: i32 = -1;

/// `GET /v1/agent/version`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Version {
    /// Always empty.
    #[serde(rename = "SHA")]
    pub sha: String,
    /// Always empty.
    #[serde(rename = "BuildDate")]
    pub build_date: String,
    /// `http.consul_version`; default: the version of muster.
    #[serde(rename = "HumanVersion")]
    pub human_version: String,
    /// Always empty.
    #[serde(rename = "FIPS")]
    pub fips: String,
}

/// `Config` of [`Agent`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    /// Datacenter of the node.
    pub datacenter: String,
    /// Consul's primary datacenter; here the node's own.
    pub primary_datacenter: String,
    /// Name of the node.
    pub node_name: String,
    /// UUID derived from the node's name.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// Always empty.
    pub revision: String,
    /// Always false: there are no server nodes.
    pub server: bool,
    /// `http.consul_version`; default: the version of muster.
    pub version: String,
}

/// `DebugConfig` of [`Agent`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct DebugConfig {
    /// Datacenter of the node.
    pub datacenter: String,
    /// Name of the node.
    pub node_name: String,
    /// Discovery zone.
    #[serde(rename = "DNSDomain")]
    pub dns_domain: String,
    /// Listening addresses of DNS, each as `udp://ADDRESS` and `tcp://ADDRESS`.
    #[serde(rename = "DNSAddrs")]
    pub dns_addrs: Vec<String>,
    /// Port of the first listening address of DNS.
    #[serde(rename = "DNSPort")]
    pub dns_port: i32,
    /// Always false: there is no service mesh.
    pub connect_enabled: bool,
    /// Always -1: there is no gRPC server.
    #[serde(rename = "GRPCPort")]
    pub grpc_port: i32,
    /// Always -1: there is no gRPC server.
    #[serde(rename = "GRPCTLSPort")]
    pub grpc_tls_port: i32,
}

/// A member, in `GET /v1/agent/members` and in [`Agent`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Member {
    /// Name of the node.
    pub name: String,
    /// Gossip address.
    pub addr: String,
    /// Gossip port.
    pub port: u16,
    /// `role` and `id`; `dc` and `build` if known.
    pub tags: BTreeMap<String, String>,
    /// [`ALIVE`], [`LEFT`] or [`FAILED`].
    pub status: u8,
    /// Lowest protocol version.
    pub protocol_min: u8,
    /// Highest protocol version.
    pub protocol_max: u8,
    /// Protocol version in use.
    pub protocol_cur: u8,
    /// Lowest delegate protocol version.
    pub delegate_min: u8,
    /// Highest delegate protocol version.
    pub delegate_max: u8,
    /// Delegate protocol version in use.
    pub delegate_cur: u8,
    /// Additions of muster.
    pub muster: MemberState,
}

/// All nodes: `GET /v1/muster/nodes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Nodes {
    /// Members of the cluster, as in `GET /v1/agent/members`.
    pub members: Vec<Member>,
    /// External nodes, by name.
    pub external: Vec<ExternalNode>,
}

/// A host without an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExternalNode {
    /// Name of the node, as registered.
    pub name: String,
    /// Address as registered: a host name, or the first address.
    pub address: String,
    /// Datacenter of the owner.
    pub datacenter: String,
    /// Node of the agent through which it is registered.
    pub owner: String,
    /// Worst status of its own checks: `passing`, `warning` or `critical`; `gone` if the owner is.
    pub status: String,
    /// Number of announced instances, healthy or not.
    pub instances: usize,
}

/// `Muster` of [`Member`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Standing")]
#[serde(rename_all = "PascalCase", default)]
pub struct MemberState {
    /// `alive`, `suspect`, `held`, `left` or `gone`.
    pub reach: String,
    /// Reason for `gone`, for operators.
    pub cause: Option<String>,
    /// Start of this state (RFC 3339).
    pub since: String,
    /// Number of announced instances, healthy or not.
    pub instances: usize,
    /// Version of muster on the member, if known.
    pub version: Option<String>,
    /// Generation: increases with every start of the agent.
    pub generation: u64,
    /// Datacenter, if known.
    pub datacenter: Option<String>,
    /// Zone, if the node has one and it is known.
    pub zone: Option<String>,
    /// Digest of the member's view as 16 hexadecimal digits, if known. Nodes with equal views have equal digests.
    pub view: Option<String>,
    /// Time since when the view differs from the requested agent's view for longer than propagation takes (RFC 3339).
    pub view_differs_since: Option<String>,
}

/// `Muster` of [`AgentStatus`]: state of the node and its cluster, as seen by this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Status {
    /// Version of muster.
    pub version: String,
    /// Discovery zone.
    pub domain: String,
    /// Zone of the node; null without one.
    pub zone: Option<String>,
    /// Addresses at which other hosts reach this node; empty while it has none.
    pub advertise: Vec<String>,
    /// Problem of these addresses, with a hint; `None`: no problem.
    pub address_problem: Option<String>,
    /// Listening addresses.
    pub listen: Listen,
    /// Reports whether the configuration has a store.
    pub store: bool,
    /// Reason why writes to the store fail, with a hint; null: they do not.
    pub store_problem: Option<String>,
    /// Generation: increases with every start.
    pub generation: u64,
    /// Reports whether gossip is encrypted.
    pub sealed: bool,
    /// Time since when more than half of the peers are unreachable together (RFC 3339).
    pub partitioned: Option<String>,
    /// Time since when other nodes report this node as gone or its run as outdated (RFC 3339).
    pub doubted: Option<String>,
    /// Number of members by `Reach`; zero counts are omitted.
    pub members: BTreeMap<String, usize>,
    /// Members whose view differs for longer than propagation takes, with the start time (RFC 3339).
    pub diverging: BTreeMap<String, String>,
    /// Number of external nodes.
    pub external_nodes: usize,
    /// External nodes that several agents, or an agent and a member, announce.
    pub conflicts: Vec<Conflict>,
    /// Number of rejected gossip packets since the start, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Watched folders.
    pub files: Vec<Folder>,
    /// Problems of zones that make validators refuse answers.
    pub zone_problems: Vec<zones::ZoneProblem>,
    /// Holds on this node, which withhold instances whatever their checks report.
    pub held: Vec<Held>,
}

/// An external node that is announced more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Conflict {
    /// Name of the external node.
    pub node: String,
    /// Nodes through which it is registered.
    pub owners: Vec<String>,
    /// Owner whose registration counts; `None`: the member of that name counts.
    pub counts: Option<String>,
}

/// A folder of files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Folder {
    /// Path of the folder.
    pub path: String,
    /// Summary of the folder's content in service, such as `12 instances`.
    pub in_service: String,
    /// Problems and their effect; at most 100.
    pub problems: Vec<Problem>,
    /// Number of further problems.
    pub more_problems: usize,
}

/// A problem of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Problem {
    /// Path of the file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
    /// `error` (the file is refused) or `warning` (the file is used).
    pub severity: String,
    /// Description of the problem.
    pub message: String,
    /// Suggested fix.
    pub hint: Option<String>,
}

/// Outcome of a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Reloaded {
    /// Problems of files. An invalid file keeps its last valid content.
    pub problems: Vec<Problem>,
}

/// A hold: withholds an instance or the whole node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Held {
    /// Instance as `SERVICE/ID`; `None`: the whole node.
    pub instance: Option<String>,
    /// `draining`, `maintenance` or `node-maintenance`.
    pub gate: String,
    /// Reason, for operators; may be empty.
    pub reason: String,
    /// Start (RFC 3339).
    pub since: String,
    /// Automatic end (RFC 3339); `None`: until it is released.
    pub until: Option<String>,
}

/// Listening addresses with ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Listen {
    /// DNS over UDP and TCP.
    pub dns: Vec<String>,
    /// HTTP API.
    pub http: Vec<String>,
    /// Gossip.
    pub gossip: String,
}

/// `PUT /v1/agent/join/ADDRESS`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Joined {
    /// Addresses of the target.
    pub asked: Vec<String>,
    /// Addresses at which a node responded.
    pub answered: Vec<String>,
}

/// Body of `POST`, `PUT` and `DELETE /v1/operator/keyring`. It is a secret and has no `Debug`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Key {
    /// Key in base64, or the id of an installed key.
    pub key: String,
}

/// Element of the list in `GET /v1/operator/keyring`.
///
/// Consul shows keys; muster shows their ids, so that a response or a log does not grant access to the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Keyring {
    /// Always false.
    #[serde(rename = "WAN")]
    pub wan: bool,
    /// Datacenter of the requested node.
    pub datacenter: String,
    /// Always empty.
    pub segment: String,
    /// Nodes that failed, were not asked or did not answer, with the reason.
    pub messages: BTreeMap<String, String>,
    /// Number of nodes that have each key, by key id.
    pub keys: BTreeMap<String, usize>,
    /// Number of nodes whose primary key is each key, by key id.
    pub primary_keys: BTreeMap<String, usize>,
    /// Number of members that have not left.
    pub num_nodes: usize,
    /// Additions of muster.
    pub muster: KeyringResponses,
}

/// `Muster` of [`Keyring`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Answers")]
#[serde(rename_all = "PascalCase", default)]
pub struct KeyringResponses {
    /// Number of nodes that responded.
    pub answered: usize,
}

/// `PUT /v1/muster/drain/{target}` and `/v1/muster/resume/{target}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Drained {
    /// Affected instances, as `SERVICE/ID`.
    pub instances: Vec<String>,
    /// Seconds for which clients and resolvers may still cache one of the instances.
    #[serde(rename = "TTLSeconds")]
    pub ttl: u32,
    /// Seconds to wait before the instances are stopped: `TTLSeconds` plus the propagation time. 0: a stop is safe now.
    /// `None`: the agent does not report it.
    #[serde(rename = "WaitSeconds", skip_serializing_if = "Option::is_none")]
    pub wait: Option<u32>,
    /// Instances of the target that `resume` has not resumed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub still_held: Vec<StillHeld>,
}

/// An instance that another hold still withholds after a resume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct StillHeld {
    /// The instance, as `SERVICE/ID`.
    pub instance: String,
    /// `draining`, `maintenance` or `node-maintenance`.
    pub state: String,
    /// Target that ends the hold: the id of the instance, or the name of the node.
    pub target: String,
}
