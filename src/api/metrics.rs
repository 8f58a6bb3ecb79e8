//! What `/v1/agent/metrics` says: the shape that Consul has for it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Everything that is counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Metrics {
    /// When, as Go prints a time.
    pub timestamp: String,
    /// What is so at the moment.
    pub gauges: Vec<Number>,
    /// Nothing: Consul has none either.
    pub points: Vec<Number>,
    /// What grows.
    pub counters: Vec<Summary>,
    /// What took a time, in seconds.
    pub samples: Vec<Summary>,
}

/// One number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Number {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// What tells it from others of the name.
    pub labels: BTreeMap<String, String>,
}

/// What many additions, or observations, come to. Consul's `Rate`, `Min`, `Max` and `Stddev` are not kept, and left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// How many; of a counter, its whole part.
    pub count: u64,
    /// All together.
    pub sum: f64,
    /// The sum by the count; of a counter, which adds up ones, nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// What tells it from others of the name.
    pub labels: BTreeMap<String, String>,
}
