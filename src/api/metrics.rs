//! JSON of `GET /v1/agent/metrics`, as Consul has it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// All metrics of the agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Metrics {
    /// Time of the scrape, in Go's format.
    pub timestamp: String,
    /// Gauges.
    pub gauges: Vec<Number>,
    /// Always empty, as in Consul.
    pub points: Vec<Number>,
    /// Counters.
    pub counters: Vec<Summary>,
    /// Histograms, in seconds.
    pub samples: Vec<Summary>,
}

/// A gauge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Number {
    /// Name of the metric.
    pub name: String,
    /// Current value.
    pub value: f64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A counter or histogram. Consul's `Rate`, `Min`, `Max` and `Stddev` are not recorded and are omitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Summary {
    /// Name of the metric.
    pub name: String,
    /// Number of observations; of a counter, its integer part.
    pub count: u64,
    /// Sum of the observations.
    pub sum: f64,
    /// Mean of the observations; omitted for counters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}
