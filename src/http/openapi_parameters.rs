//! Query parameters of the endpoints, for the OpenAPI description. [`query`](super::query) parses them.

use schemars::{Schema, json_schema};

/// A query parameter.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Description in one line.
    pub(super) about: &'static str,
}

/// The type of a parameter.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Set by `true` or without a value.
    Flag,
    /// A string.
    Text,
    /// A string; repeatable.
    Texts,
    /// An integer.
    Number,
    /// `30s`, `5m`, `1m30s`.
    Duration,
}

impl Parameter {
    const fn new(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, kind, about }
    }
}

impl Kind {
    pub(super) fn schema(self) -> Schema {
        match self {
            Self::Flag => json_schema!({"type": "string", "enum": ["", "true", "false"]}),
            Self::Text => json_schema!({"type": "string"}),
            Self::Texts => json_schema!({"type": "array", "items": {"type": "string"}}),
            Self::Number => json_schema!({"type": "integer", "format": "uint64", "minimum": 0}),
            Self::Duration => json_schema!({"type": "string", "pattern": "^([0-9]{1,6}(ms|s|m|h))+$"}),
        }
    }
}

use Kind::{Duration, Flag, Number, Text, Texts};

/// Parameters of JSON endpoints.
pub(super) const JSON: &[Parameter] = &[Parameter::new("pretty", Flag, "Indent the JSON.")];
/// Parameters of changes of the gossip keys.
pub(super) const FORCE: &[Parameter] =
    &[Parameter::new("force", Flag, "Change the nodes that answer although other members cannot be asked.")];
/// Name of the parameter that makes a query block.
pub(super) const INDEX: &str = "index";
/// Parameters of blocking queries.
pub(super) const WAIT: &[Parameter] = &[
    Parameter::new(INDEX, Number, "Wait until the X-Consul-Index differs from this one."),
    Parameter::new("wait", Duration, "Longest wait: 5m by default, 10m at most."),
];
/// Parameters of the catalog.
pub(super) const CATALOG: &[Parameter] = &[
    Parameter::new("filter", Text, "Expression on the fields of each item, such as `Service.Port == 80`."),
    Parameter::new("dc", Text, "Only nodes of this datacenter; all by default."),
    Parameter::new("node-meta", Texts, "Only nodes with this KEY:VALUE in their metadata."),
    Parameter::new("stale", Flag, "No effect, like `consistent` and `cached`: every node answers from its own state."),
    Parameter::new("consistent", Flag, "No effect."),
    Parameter::new("cached", Flag, "No effect."),
];
/// Parameters of reads of the store.
pub(super) const STORE: &[Parameter] = &[
    Parameter::new("dc", Text, "A datacenter of the cluster: all share one store."),
    Parameter::new("stale", Flag, "Any voter may answer, from a state that may be behind."),
    Parameter::new("consistent", Flag, "The answer reflects all acknowledged writes, as by default."),
];
/// Parameters of reads of keys.
pub(super) const KEYS: &[Parameter] = &[
    Parameter::new("recurse", Flag, "All keys that begin with the path. Any value sets it."),
    Parameter::new("keys", Flag, "Only the names of the keys that begin with the path. Any value sets it."),
    Parameter::new("separator", Text, "With `keys`: names up to this text, each once."),
    Parameter::new("raw", Flag, "The value itself, without JSON. Any value sets it."),
];
/// Parameters of writes of keys, of which `cas`, `acquire` and `release` exclude each other.
pub(super) const PUT_KEY: &[Parameter] = &[
    Parameter::new("flags", Number, "Number to store with the value."),
    Parameter::new("cas", Number, "Only if the key has this ModifyIndex; 0: only if there is no such key."),
    Parameter::new("acquire", Text, "Lock the key for this session."),
    Parameter::new("release", Text, "Release the lock of this session."),
];
/// Parameters of deletions of keys, which exclude each other.
pub(super) const DELETE_KEY: &[Parameter] = &[
    Parameter::new("recurse", Flag, "All keys that begin with the path. Any value sets it."),
    Parameter::new("cas", Number, "Only if the key has this ModifyIndex."),
];
/// Parameters of sorted lists.
pub(super) const NEAR: &[Parameter] = &[Parameter::new(
    "near",
    Text,
    "`_agent` or a node: its items first, then those of its zone and of its datacenter.",
)];
/// Parameters of the instances of a service.
pub(super) const TAG: &[Parameter] = &[Parameter::new("tag", Texts, "Only instances with all of these tags.")];
/// Parameters of instances with checks.
pub(super) const PASSING: &[Parameter] = &[Parameter::new("passing", Flag, "Only instances whose checks all pass.")];
/// Parameters of a service of this node.
pub(super) const HASH: &[Parameter] =
    &[Parameter::new("hash", Text, "Wait until the service's ContentHash differs from this one.")];
/// Parameters of the health of a service of this node.
pub(super) const FORMAT: &[Parameter] =
    &[Parameter::new("format", Text, "`text`: the status as one word instead of JSON.")];
/// Parameters of maintenance.
pub(super) const ENABLE: &[Parameter] = &[
    Parameter::new("enable", Text, "`true` or `false`; required."),
    Parameter::new("reason", Text, "Reason, for operators."),
    Parameter::new("for", Duration, "Duration after which it ends automatically."),
];
/// Parameters of drains.
pub(super) const DRAIN: &[Parameter] = &[
    Parameter::new("reason", Text, "Reason, for operators."),
    Parameter::new("for", Duration, "Duration after which it ends automatically."),
];
/// Parameters of registrations.
pub(super) const REGISTER: &[Parameter] =
    &[Parameter::new("replace-existing-checks", Flag, "Remove the separately registered checks of the service.")];
/// Parameters of TTL reports.
pub(super) const NOTE: &[Parameter] = &[Parameter::new("note", Text, "Output of the check.")];
/// Parameters of a fired event.
pub(super) const EVENT: &[Parameter] = &[
    Parameter::new("dc", Text, "Only nodes of this datacenter; all by default."),
    Parameter::new("node", Text, "Regular expression: only nodes with a matching name."),
    Parameter::new("service", Text, "Regular expression: only nodes with a matching service name."),
    Parameter::new("tag", Text, "Regular expression: only nodes whose matching service has a matching tag."),
];
/// Parameters of the members.
pub(super) const WAN: &[Parameter] =
    &[Parameter::new("wan", Flag, "Names as in Consul's WAN pool: `NODE.DATACENTER`.")];
/// Parameters of the list of user events.
pub(super) const NAME: &[Parameter] = &[Parameter::new("name", Text, "Only events with this name.")];
/// Parameters of the event stream.
pub(super) const EVENTS: &[Parameter] = &[
    Parameter::new("service", Text, "Only events about this service."),
    Parameter::new("node", Text, "Only events about this node."),
    Parameter::new("kind", Text, "Only events of this kind or group, such as `instance-down` or `instance`."),
    Parameter::new("since", Number, "Start after the event with this sequence number."),
    Parameter::new("follow", Flag, "`false`: return a JSON list instead of a stream."),
];
/// Parameters of an explanation.
pub(super) const EXPLAIN: &[Parameter] = &[
    Parameter::new("type", Text, "Record type of the question, such as `SRV`; any type by default."),
    Parameter::new("client", Text, "IP address of the client; 127.0.0.1 by default."),
];
/// Parameters of the metrics.
pub(super) const METRICS: &[Parameter] = &[Parameter::new("format", Text, "`prometheus`: the format of /metrics.")];
