//! The part of Consul's Go client that programs use: `api/*.go` of hashicorp/consul.
//!
//! All fields are declared, also unused ones, since Go's decoder fails on any field of a wrong type.

use std::collections::BTreeMap;

use serde::{Deserialize, de::DeserializeOwned};

use crate::support::{
    agent::Agent,
    http::{Answer, ask},
};

pub(crate) type Texts = BTreeMap<String, String>;

/// `api/catalog.go`: `Node`.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Node {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) node: String,
    pub(crate) address: String,
    pub(crate) datacenter: String,
    pub(crate) tagged_addresses: Texts,
    pub(crate) meta: Texts,
    pub(crate) create_index: u64,
    pub(crate) modify_index: u64,
}

/// `api/agent.go`: `AgentService`.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AgentService {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) service: String,
    pub(crate) tags: Vec<String>,
    pub(crate) meta: Texts,
    pub(crate) port: i64,
    pub(crate) address: String,
    pub(crate) tagged_addresses: BTreeMap<String, ServiceAddress>,
    pub(crate) weights: Weights,
    pub(crate) enable_tag_override: bool,
    pub(crate) create_index: u64,
    pub(crate) modify_index: u64,
}

/// `api/agent.go`: `ServiceAddress`.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ServiceAddress {
    pub(crate) address: String,
    pub(crate) port: i64,
}

/// `api/agent.go`: `AgentWeights`.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Weights {
    pub(crate) passing: i64,
    pub(crate) warning: i64,
}

/// `api/health.go`: `HealthCheck`.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HealthCheck {
    pub(crate) node: String,
    #[serde(rename = "CheckID")]
    pub(crate) check_id: String,
    pub(crate) name: String,
    pub(crate) status: String,
    pub(crate) notes: String,
    pub(crate) output: String,
    #[serde(rename = "ServiceID")]
    pub(crate) service_id: String,
    pub(crate) service_name: String,
    pub(crate) service_tags: Vec<String>,
    #[serde(rename = "Type")]
    pub(crate) kind: String,
    /// Contains durations, which Go parses.
    pub(crate) definition: serde_json::Map<String, serde_json::Value>,
    pub(crate) create_index: u64,
    pub(crate) modify_index: u64,
}

/// `api/health.go`: `ServiceEntry`.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ServiceEntry {
    pub(crate) node: Node,
    pub(crate) service: AgentService,
    pub(crate) checks: Vec<HealthCheck>,
}

/// `api/catalog.go`: `CatalogService`.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CatalogService {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) node: String,
    pub(crate) address: String,
    pub(crate) datacenter: String,
    pub(crate) tagged_addresses: Texts,
    pub(crate) node_meta: Texts,
    #[serde(rename = "ServiceID")]
    pub(crate) service_id: String,
    pub(crate) service_name: String,
    pub(crate) service_address: String,
    pub(crate) service_tagged_addresses: BTreeMap<String, ServiceAddress>,
    pub(crate) service_tags: Vec<String>,
    pub(crate) service_meta: Texts,
    pub(crate) service_port: i64,
    pub(crate) service_weights: Weights,
    pub(crate) service_enable_tag_override: bool,
    pub(crate) create_index: u64,
    pub(crate) modify_index: u64,
}

/// `api/catalog.go`: `CatalogNode`.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CatalogNode {
    pub(crate) node: Node,
    pub(crate) services: BTreeMap<String, AgentService>,
}

/// `HealthChecks.AggregatedStatus` of `api/health.go`.
pub(crate) fn aggregated(checks: &[HealthCheck]) -> &'static str {
    let is_maintenance = |check: &HealthCheck| {
        check.check_id == "_node_maintenance" || check.check_id.starts_with("_service_maintenance:")
    };
    let has = |status: &str| checks.iter().any(|check| check.status == status);
    if checks.iter().any(is_maintenance) {
        "maintenance"
    } else if has("critical") {
        "critical"
    } else if has("warning") {
        "warning"
    } else {
        assert!(checks.iter().all(|check| check.status == "passing"), "{checks:?}");
        "passing"
    }
}

/// Returns the response to a read, with the headers that `parseQueryMeta` of `api/api.go` parses.
pub(crate) fn get<T: DeserializeOwned>(agent: &Agent, path: &str) -> (T, u64) {
    let answer = ask(agent.http(), "GET", &format!("/v1/{path}"), "");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    let header = |name: &str| answer.header(name).unwrap_or_else(|| panic!("{path} has no {name}: {}", answer.head));
    let index: u64 = header("X-Consul-Index").parse().unwrap();
    assert!(index > 0, "{path}: blocking queries would always return at once");
    header("X-Consul-LastContact").parse::<u64>().unwrap();
    assert_eq!(header("X-Consul-KnownLeader"), "true");
    (decode(path, &answer), index)
}

/// Returns the response to a read without these headers.
pub(crate) fn get_plain<T: DeserializeOwned>(agent: &Agent, path: &str) -> T {
    let answer = ask(agent.http(), "GET", &format!("/v1/{path}"), "");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    decode(path, &answer)
}

fn decode<T: DeserializeOwned>(path: &str, answer: &Answer) -> T {
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{path}: {error}: {}", answer.body))
}

/// Sends a mutation and asserts that it succeeds.
pub(crate) fn put(agent: &Agent, path: &str, body: &str) {
    let answer = ask(agent.http(), "PUT", &format!("/v1/{path}"), body);
    assert_eq!(answer.status, 200, "{path} {body}: {}", answer.body);
}
