//! What endpoints take beside their path: the words of the API's description. [`query`](super::query) reads them.

use schemars::{Schema, json_schema};

/// A parameter of the query.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// What it does, in one line.
    pub(super) about: &'static str,
}

/// What may stand behind a parameter.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// It is there, with `true` or without a value, or it is not.
    Flag,
    /// Any text.
    Text,
    /// Any text, and it may come several times.
    Texts,
    /// A whole number.
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

/// Of everything that answers JSON.
pub(super) const JSON: &[Parameter] = &[Parameter::new("pretty", Flag, "Indents.")];
/// Of everything that can be waited for.
pub(super) const WAIT: &[Parameter] = &[
    Parameter::new("index", Number, "Waits until the answer has another X-Consul-Index than this one."),
    Parameter::new("wait", Duration, "How long at most: 5m, and no more than 10m."),
];
/// Of everything that shows a part of the catalog.
pub(super) const CATALOG: &[Parameter] = &[
    Parameter::new("filter", Text, "An expression on the fields of each item, such as `Service.Port == 80`."),
    Parameter::new("dc", Text, "What is on nodes of that datacenter; without it, of all."),
    Parameter::new("node-meta", Texts, "What is on nodes with this KEY:VALUE."),
    Parameter::new(
        "stale",
        Flag,
        "Changes nothing, like `consistent` and `cached`: every node answers from what it knows.",
    ),
    Parameter::new("consistent", Flag, "Changes nothing."),
    Parameter::new("cached", Flag, "Changes nothing."),
];
/// Of what has an order.
pub(super) const NEAR: &[Parameter] =
    &[Parameter::new("near", Text, "`_agent` or a node: its own first, then those of its datacenter.")];
/// Of what shows instances of one service.
pub(super) const TAG: &[Parameter] = &[Parameter::new("tag", Texts, "Instances with all of these tags.")];
/// Of instances with their checks.
pub(super) const PASSING: &[Parameter] = &[Parameter::new("passing", Flag, "Instances all of whose checks pass.")];
/// Of one service of this node.
pub(super) const HASH: &[Parameter] =
    &[Parameter::new("hash", Text, "Waits until the service has another ContentHash than this one.")];
/// Of how a service of this node stands.
pub(super) const FORMAT: &[Parameter] = &[Parameter::new("format", Text, "`text`: one word instead of JSON.")];
/// Of maintenance.
pub(super) const ENABLE: &[Parameter] = &[
    Parameter::new("enable", Text, "`true` or `false`; it has to be there."),
    Parameter::new("reason", Text, "For people."),
    Parameter::new("for", Duration, "Ends by itself after so long."),
];
/// Of drains.
pub(super) const DRAIN: &[Parameter] =
    &[Parameter::new("reason", Text, "For people."), Parameter::new("for", Duration, "Ends by itself after so long.")];
/// Of registrations.
pub(super) const REGISTER: &[Parameter] = &[Parameter::new(
    "replace-existing-checks",
    Flag,
    "Takes away checks that were added to the service by themselves.",
)];
/// Of reports.
pub(super) const NOTE: &[Parameter] = &[Parameter::new("note", Text, "What the application has to say.")];
/// Of an event that is fired.
pub(super) const EVENT: &[Parameter] = &[
    Parameter::new("node", Text, "For nodes whose name fits this regular expression."),
    Parameter::new("service", Text, "For nodes with a service whose name fits this regular expression."),
    Parameter::new("tag", Text, "For nodes with such a service that has a tag which fits this regular expression."),
];
/// Of events.
pub(super) const NAME: &[Parameter] = &[Parameter::new("name", Text, "Events of this name.")];
/// Of what happens.
pub(super) const HAPPENED: &[Parameter] = &[
    Parameter::new("service", Text, "What is about this service."),
    Parameter::new("node", Text, "What is about this node."),
    Parameter::new("kind", Text, "Events of this kind, such as `flip`."),
    Parameter::new("since", Number, "Begins behind the event of this number."),
    Parameter::new("follow", Flag, "With `false` a list as JSON, and no stream."),
];
/// Of what is counted.
pub(super) const METRICS: &[Parameter] = &[Parameter::new("format", Text, "`prometheus`: as /metrics has it.")];
