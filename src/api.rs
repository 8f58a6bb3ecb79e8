//! The JSON of the HTTP API: what the agent writes and the commands read.
//!
//! The shapes are those of Consul's API, so that its clients find what they know; what only muster has stands under a key
//! of its own, `Muster`. A command may be older or newer than the agent that it asks: there, what is missing is read as
//! empty and what is unknown is left out.

pub mod catalog;
pub mod event;
pub mod explain;
pub mod metrics;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Consul's `Status` of a member that is reached.
pub const ALIVE: u8 = 1;
/// Consul's `Status` of a member that said good-bye.
pub const LEFT: u8 = 3;
/// Consul's `Status` of a member that is out of reach.
pub const FAILED: u8 = 4;

/// `GET /v1/agent/self`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Agent {
    /// What Consul shows of the configuration.
    pub config: Config,
    /// What Consul shows of the configuration when debugging: here a few keys that its clients look for.
    pub debug_config: DebugConfig,
    /// This node as a member.
    pub member: Member,
    /// Numbers as text, by part.
    pub stats: BTreeMap<String, BTreeMap<String, String>>,
    /// What its configuration says of it.
    pub meta: BTreeMap<String, String>,
    /// What only muster has.
    pub muster: Status,
}

/// `Config` of [`Agent`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    /// The name of the node's site.
    pub datacenter: String,
    /// Consul's first site of several; here the node's own.
    pub primary_datacenter: String,
    /// The node's name.
    pub node_name: String,
    /// A UUID made of the node's name.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// Always empty: a version says enough.
    pub revision: String,
    /// Always false: all nodes are alike, and none is a server.
    pub server: bool,
    /// muster's version.
    pub version: String,
}

/// `DebugConfig` of [`Agent`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct DebugConfig {
    /// The name of the node's site.
    pub datacenter: String,
    /// The node's name.
    pub node_name: String,
    /// The discovery zone.
    #[serde(rename = "DNSDomain")]
    pub dns_domain: String,
}

/// A member, in `GET /v1/agent/members` and in [`Agent`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Member {
    /// The node's name.
    pub name: String,
    /// The IP address at which it gossips.
    pub addr: String,
    /// The port at which it gossips.
    pub port: u16,
    /// `role`, `id`, and where they are known `dc` and `build`.
    pub tags: BTreeMap<String, String>,
    /// [`ALIVE`], [`LEFT`] or [`FAILED`].
    pub status: u8,
    /// The least version of the protocol that it speaks.
    pub protocol_min: u8,
    /// The greatest.
    pub protocol_max: u8,
    /// The one in use.
    pub protocol_cur: u8,
    /// As for the protocol.
    pub delegate_min: u8,
    /// As for the protocol.
    pub delegate_max: u8,
    /// As for the protocol.
    pub delegate_cur: u8,
    /// What only muster has.
    pub muster: Standing,
}

/// `Muster` of [`Member`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Standing {
    /// `alive`, `suspect`, `held`, `left` or `gone`.
    pub reach: String,
    /// Why it is gone, for people.
    pub cause: Option<String>,
    /// Since when it stands so (RFC 3339).
    pub since: String,
    /// Instances that it announces, healthy or not.
    pub instances: usize,
    /// The version of its program, where it has told.
    pub version: Option<String>,
    /// Grows with every start of its agent.
    pub generation: u64,
    /// The name of its site, where it has told.
    pub datacenter: Option<String>,
    /// The digest of what it answers, in 16 hexadecimal digits, where it has told: nodes that answer the same have the same.
    pub view: Option<String>,
    /// Since when that differs from the asked agent's, for longer than news take (RFC 3339).
    pub view_differs_since: Option<String>,
}

/// `Muster` of [`Agent`]: how the node and its cluster are, as this node sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Status {
    /// The discovery zone.
    pub domain: String,
    /// Where other hosts reach this one.
    pub advertise: Vec<String>,
    /// What the agent listens on.
    pub listen: Listen,
    /// Grows with every start.
    pub generation: u64,
    /// Whether what nodes tell each other is sealed with a key.
    pub sealed: bool,
    /// Since when more than half of the peers are out of reach together (RFC 3339).
    pub partitioned: Option<String>,
    /// Members by `Reach`; a word that counts none is left out.
    pub members: BTreeMap<String, usize>,
    /// Members that answer otherwise than this node, for longer than news take, each with since when (RFC 3339).
    pub diverging: BTreeMap<String, String>,
    /// What was wrong with what arrived from other nodes, and how often since the start.
    pub rejected: BTreeMap<String, u64>,
    /// The folders whose files are in service.
    pub files: Vec<Folder>,
    /// What is held back on this node, whatever its checks find.
    pub held: Vec<Held>,
}

/// A folder of files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Folder {
    /// Where it is.
    pub path: String,
    /// What is in service, in a few words: `12 instances`.
    pub in_service: String,
    /// What is wrong, and what it means for what is in service; at most a hundred.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub more_problems: usize,
}

/// A problem of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// `error`: the file is refused; `warning`: it is used.
    pub severity: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Something that is held back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Held {
    /// An instance as `SERVICE/ID`; `None`: all of the node.
    pub instance: Option<String>,
    /// `draining`, `maintenance` or `node-maintenance`.
    pub gate: String,
    /// Why, for people; may be empty.
    pub reason: String,
    /// Since when (RFC 3339).
    pub since: String,
    /// When it ends by itself (RFC 3339); `None`: when somebody says so.
    pub until: Option<String>,
}

/// Addresses with ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Listen {
    /// DNS over UDP and TCP.
    pub dns: Vec<String>,
    /// This API.
    pub http: Vec<String>,
    /// Other nodes.
    pub gossip: String,
}

/// `PUT /v1/agent/join/ADDRESS`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Joined {
    /// The addresses that the target stands for.
    pub asked: Vec<String>,
    /// Those at which a node answered.
    pub answered: Vec<String>,
}

/// What `POST`, `PUT` and `DELETE /v1/operator/keyring` are sent. It is a secret, so it has no `Debug`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Key {
    /// A key in base64 or, where it is known already, its id.
    pub key: String,
}

/// `GET /v1/operator/keyring`: a list of one such.
///
/// Where Consul shows keys, muster shows their ids: whoever reads an answer or a log must not get into the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Keyring {
    /// Always false.
    #[serde(rename = "WAN")]
    pub wan: bool,
    /// The site of the node that was asked.
    pub datacenter: String,
    /// Always empty.
    pub segment: String,
    /// Nodes that could not do it, and why.
    pub messages: BTreeMap<String, String>,
    /// Ids of keys, and how many nodes have each.
    pub keys: BTreeMap<String, usize>,
    /// Ids of the keys that nodes seal with, and how many do with each.
    pub primary_keys: BTreeMap<String, usize>,
    /// Nodes that were asked.
    pub num_nodes: usize,
    /// What only muster has.
    pub muster: Answers,
}

/// `Muster` of [`Keyring`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Answers {
    /// Nodes that answered.
    pub answered: usize,
}

/// `PUT /v1/muster/drain/{target}` and `/v1/muster/resume/{target}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Drained {
    /// The instances that it is about, as `SERVICE/ID`.
    pub instances: Vec<String>,
    /// For how many seconds clients and resolvers may still have one of them.
    #[serde(rename = "TTLSeconds")]
    pub ttl: u32,
    /// How many seconds to wait before they are stopped: the same, and the time that a change takes to be everywhere. 0: it
    /// is safe now. `None`: an agent that does not say.
    #[serde(rename = "WaitSeconds", skip_serializing_if = "Option::is_none")]
    pub wait: Option<u32>,
}
