//! `GET /v1/muster/explain/{name}`: the DNS answer of a name and its reasons.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Explanation of the DNS answer of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Explained {
    /// Name as requested.
    pub name: String,
    /// DNS name that was looked up; empty if the request is not a name.
    pub question: String,
    /// `service`, `instance`, `node`, `zone` (apex of a discovery zone), `address` (name of an
    /// address in the scheme of Consul), `static` (name in a zone file), `delegation` (name at
    /// or below a delegation), `browse` (types of services, or a zone to browse, in DNS-SD), `reverse` (reverse name of an announced address), `empty` (empty non-terminal), `outside` (name
    /// outside the node's zones) or `unknown`.
    pub kind: String,
    /// Source of the answer: `catalog` (a service or tag without a DNS name); `service`, `tag`, `protocol`, `port`, `instance`, `dns-sd`, `svcb`, `why`,
    /// `node`, `apex`, `static`, `wildcard`, `delegation`, `reverse`, `address`, `empty` or `nothing` in the node's zones;
    /// `special-use`, `route`, `upstream`, `loop` or `refused` outside them.
    pub source: String,
    /// Response code, such as `NXDOMAIN`; empty if an upstream decides.
    #[serde(rename = "RCode")]
    pub rcode: String,
    /// Record types of the name.
    pub records: Vec<String>,
    /// Owner name of the matching wildcard or of the delegation; empty otherwise.
    pub owner: String,
    /// File name of the zone with the matching record; empty if there is none.
    pub file: String,
    /// Line of the record; 0 if there is none.
    pub line: u32,
    /// Summary of the answer in one sentence.
    pub summary: String,
    /// TTL of the answer in seconds.
    #[serde(rename = "TTLSeconds")]
    pub ttl: u32,
    /// Source of the TTL.
    #[serde(rename = "TTLFrom")]
    pub ttl_from: String,
    /// Choice of near instances; null unless the name is of a service that prefers near ones.
    pub nearest: Option<Nearest>,
    /// Results of the checks of the node as a whole, with its maintenance; empty for other kinds.
    pub checks: Vec<Check>,
    /// All instances of the name, answered or not.
    pub instances: Vec<Instance>,
    /// Further notes, such as errors in service files.
    pub notes: Vec<String>,
}

/// Choice of near instances.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ExplainedNearest")]
#[serde(rename_all = "PascalCase", default)]
pub struct Nearest {
    /// First tier: `zone` or `datacenter`.
    pub nearest: String,
    /// Source of the first tier.
    pub nearest_from: String,
    /// Healthy instances that are enough: a number, or a share such as `50%`.
    pub min_healthy: String,
    /// Source of that number.
    pub min_healthy_from: String,
    /// Tier that is answered: `zone`, `datacenter` or `all`; empty if no instance is healthy.
    pub answered: String,
    /// Tiers that are looked at, nearest first. Each one contains the nearer ones.
    pub tiers: Vec<Tier>,
}

/// Instances of a tier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ExplainedTier")]
#[serde(rename_all = "PascalCase", default)]
pub struct Tier {
    /// `zone`, `datacenter` or `all`.
    pub tier: String,
    /// Name of the zone or the datacenter; empty for `all`, and if the node has no zone.
    pub name: String,
    /// Number of declared instances.
    pub declared: usize,
    /// Number of instances that are healthy: passing, warning, in a slow start, or last known.
    pub healthy: usize,
    /// Number of healthy instances in a slow start, which do not count.
    pub warming: usize,
    /// Number of healthy instances from which the tier is answered.
    pub required: usize,
    /// True for the tier that is answered.
    pub answered: bool,
}

/// An instance of an explained name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ExplainedInstance")]
#[serde(rename_all = "PascalCase", default)]
pub struct Instance {
    /// Name of the service.
    pub service: String,
    /// Instance id; the DNS name is `ID.SERVICE`.
    #[serde(rename = "ID")]
    pub id: String,
    /// Id as an HTTP client or a service file states it; null if it equals the DNS label.
    pub registered_as: Option<String>,
    /// Host name that was registered as the address; null if addresses were registered.
    pub host: Option<String>,
    /// Reason why the last lookup of the host name failed; null after a lookup that succeeded. The addresses are the former ones.
    pub host_problem: Option<String>,
    /// Node that announces the instance.
    pub node: String,
    /// Zone of the node; null without one.
    pub zone: Option<String>,
    /// Datacenter of the node.
    pub datacenter: String,
    /// External node on which the instance is, registered through `Node`; null for instances of `Node` itself.
    pub external_node: Option<String>,
    /// IP addresses.
    pub addresses: Vec<String>,
    /// Default port; 0 if it has none, and therefore no SRV record.
    pub port: u16,
    /// ALPN ids of SVCB and HTTPS records by the name of the port; the default port has an empty name.
    pub alpn: BTreeMap<String, Vec<String>>,
    /// Tags as announced.
    pub tags: Vec<String>,
    /// SRV weight while answered.
    pub weight: u16,
    /// TTL of the records in seconds.
    #[serde(rename = "TTLSeconds")]
    pub ttl: u32,
    /// Source of the TTL.
    #[serde(rename = "TTLFrom")]
    pub ttl_from: String,
    /// True if answers of the name contain the instance.
    pub answered: bool,
    /// `passing`, `warming`, `warning`, `critical`, `disabled`, `draining`, `maintenance`, `node-maintenance`, `node-critical`,
    /// `flapping`, `unresolved`, `stale`, `gone` or `shadowed`.
    pub state: String,
    /// Reason for the state, in one sentence.
    pub why: String,
    /// Time of the last state change (RFC 3339); empty if unknown.
    pub since: String,
    /// Results of the checks.
    pub checks: Vec<Check>,
}

/// Result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ExplainedCheck")]
#[serde(rename_all = "PascalCase", default)]
pub struct Check {
    /// Check id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Display name.
    pub name: String,
    /// `passing`, `warning` or `critical`.
    pub status: String,
    /// Output of the last run.
    pub output: String,
    /// Time of the last status change (RFC 3339).
    pub since: String,
}
