//! `GET /v1/muster/explain/{name}`: what is answered under a name, and why the rest is not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a name comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", default)]
pub struct Explained {
    /// As it was asked for.
    pub name: String,
    /// `service`, `instance`, `node`, `zone` (the discovery zone itself), `static` (a zone file's name), `outside` (a name in
    /// none of the node's zones) or `unknown`.
    pub kind: String,
    /// One sentence: what is answered.
    pub summary: String,
    /// Seconds: the TTL of its answers.
    #[serde(rename = "TTLSeconds")]
    pub ttl: u32,
    /// Where the TTL comes from.
    #[serde(rename = "TTLFrom")]
    pub ttl_from: String,
    /// Every instance, whether it is answered or not.
    pub instances: Vec<Instance>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

/// One instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ExplainedInstance")]
#[serde(rename_all = "PascalCase", default)]
pub struct Instance {
    /// The service's name.
    pub service: String,
    /// Its id: its name in the zone is `ID.SERVICE`.
    #[serde(rename = "ID")]
    pub id: String,
    /// The id that a client registered it with; `None`: a file defines it.
    pub registered_as: Option<String>,
    /// The node that announces it.
    pub node: String,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// 0: none, so that it has no SRV record.
    pub port: u16,
    /// As announced.
    pub tags: Vec<String>,
    /// The weight of its SRV records while it is answered.
    pub weight: u16,
    /// Seconds: the TTL of its records.
    #[serde(rename = "TTLSeconds")]
    pub ttl: u32,
    /// Where that comes from.
    #[serde(rename = "TTLFrom")]
    pub ttl_from: String,
    /// Whether answers carry it.
    pub answered: bool,
    /// `passing`, `warming`, `warning`, `critical`, `disabled`, `draining`, `maintenance`, `node-maintenance`, `flapping`,
    /// `stale`, `gone` or `shadowed`.
    pub state: String,
    /// One sentence: why it is answered as it is, or why not.
    pub why: String,
    /// Since when (RFC 3339); empty where nobody told.
    pub since: String,
    /// Its checks.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ExplainedCheck")]
#[serde(rename_all = "PascalCase", default)]
pub struct Check {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// For people.
    pub name: String,
    /// `passing`, `warning` or `critical`.
    pub status: String,
    /// What it found.
    pub output: String,
    /// Since when it stands so (RFC 3339).
    pub since: String,
}
