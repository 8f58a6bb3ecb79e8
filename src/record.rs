//! What one node tells the others, as pairs of a key and a value, both text.
//!
//! | key | value |
//! | --- | --- |
//! | `i/SERVICE/ID` | the instance, as JSON |
//! | `h/SERVICE/ID` | how it stands: `p`, `u WEIGHT`, `w REASON`, `c REASON`, `d` or `x GATE REASON` |
//! | `r/SERVICE/ID` | what its checks found, as JSON |
//! | `n/node` | the node itself, as JSON |
//! | `e/0` … `e/15` | the last user events that were fired on it, as JSON |
//! | `n/view` | the digest of what the node answers: `FORMAT HEX`, once it has settled |
//! | `n/left` | `1`: the node leaves |
//!
//! A health flip is a pair of some ten octets, and the instance is not said again. Newer nodes may say more: keys and
//! JSON fields that are not known are passed over. What is known is held to the bounds of a service file, since a peer
//! may be faulty or hostile.

use std::{borrow::Cow, collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use smol_str::SmolStr;

mod user_event;

use crate::model::{
    announcement::{CheckReport, HealthReport, HoldReason, InstanceState, MAX_CHECK_TEXT, bounded},
    bounds::{self, BoundsError},
    digest::FORMAT,
    health::Status,
    name::{Label, LabelError},
    service::{Instance, InstanceKey, MAX_CHECKS, MAX_TTL, Protocol},
    user_event::{self as user, SLOTS, UserEvent},
};

/// Octets of a key: two labels and a prefix have 129, the rest is for newer nodes.
pub const MAX_KEY: usize = 256;
/// Octets of a value: what the transport of gossip carries in one piece with room to spare, and some 30 times what an
/// instance has.
pub const MAX_VALUE: usize = 8192;
/// Octets of a program's version.
pub const MAX_VERSION: usize = 64;

/// One thing that a node says of itself or of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// What an instance is.
    Instance(Arc<Instance>),
    /// How an instance stands.
    Standing(InstanceKey, InstanceState),
    /// What an instance's checks found.
    Report(InstanceKey, Arc<HealthReport>),
    /// What the node is. Its name is not said here: whoever hears it knows from whom.
    Node {
        /// Where it can be reached: within the bounds of an instance's addresses.
        addresses: Vec<IpAddr>,
        /// The name of its site.
        datacenter: Label,
        /// Of its program: 1 to [`MAX_VERSION`] octets of printable ASCII.
        version: String,
        /// What its configuration says of it, within [`bounds::node_meta`].
        meta: BTreeMap<String, String>,
        /// Seconds, at most [`MAX_TTL`]: with what it answers instances that name none. `None`: it has not told.
        ttl: Option<u32>,
    },
    /// A user event that was fired on it, and its slot: below [`SLOTS`].
    Event(u8, Arc<UserEvent>),
    /// The digest of its view; see [`crate::model::digest`].
    View(u64),
    /// The node leaves.
    Left,
}

/// What a key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// What an instance is.
    Instance(InstanceKey),
    /// How an instance stands.
    Standing(InstanceKey),
    /// What an instance's checks found.
    Report(InstanceKey),
    /// What the node is.
    Node,
    /// A user event.
    Event(u8),
    /// The digest of its view.
    View,
    /// The node leaves.
    Left,
    /// Something that only newer nodes know.
    Unknown,
}

/// What is wrong with a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// A key of more than [`MAX_KEY`] octets; holds how many.
    KeyLength(usize),
    /// A key without the name of a service or without an id.
    KeyParts,
    /// A service's name or an id that is no label.
    KeyLabel(LabelError),
    /// A service's name or an id with upper case: one instance would have two keys.
    KeyCase,
    /// A value of more than [`MAX_VALUE`] octets; holds how many.
    ValueLength(usize),
    /// A value that is not the JSON it should be; holds what the parser says, on one line and bounded.
    Json(String),
    /// An instance or a node out of bounds.
    Fault(BoundsError),
    /// A standing that is none of those there are.
    Standing,
    /// A report with more checks than an instance has, or of a check with an empty id or too long a text.
    Report,
    /// A version that is empty, too long or not printable ASCII.
    Version,
    /// A user event out of bounds.
    Event(user::UserEventError),
    /// A greater TTL than there is.
    Ttl,
    /// A digest that is none.
    View,
    /// `n/left` with another value than `1`.
    Left,
}

impl Record {
    /// The pair that says this.
    pub fn encode(&self) -> (String, String) {
        match self {
            Self::Instance(instance) => (Key::Instance(instance.key.clone()).to_string(), instance_value(instance)),
            Self::Standing(key, standing) => (Key::Standing(key.clone()).to_string(), standing_value(standing)),
            Self::Report(key, report) => (Key::Report(key.clone()).to_string(), report_value(report)),
            Self::Node { addresses, datacenter, version, meta, ttl } => {
                let value = NodeText {
                    addresses: addresses.into(),
                    datacenter: datacenter.as_str().into(),
                    version: version.into(),
                    meta: Cow::Borrowed(meta),
                    ttl: *ttl,
                };
                (Key::Node.to_string(), json(&value))
            }
            Self::Event(slot, event) => (Key::Event(*slot).to_string(), user_event::value(event)),
            Self::View(digest) => (Key::View.to_string(), format!("{FORMAT} {digest:016x}")),
            Self::Left => (Key::Left.to_string(), LEFT.to_owned()),
        }
    }
}

/// What a pair says; `None` where only newer nodes know.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn decode(key: &str, value: &str) -> Result<Option<Record>, RecordError> {
    let key = Key::parse(key)?;
    if key == Key::Unknown {
        return Ok(None);
    }
    if value.len() > MAX_VALUE {
        return Err(RecordError::ValueLength(value.len()));
    }
    let record = match key {
        Key::Instance(key) => Record::Instance(Arc::new(read_instance(key, value)?)),
        Key::Standing(key) => Record::Standing(key, read_standing(value)?),
        Key::Report(key) => Record::Report(key, Arc::new(read_report(value)?)),
        Key::Node => read_node(value)?,
        Key::Event(slot) => Record::Event(slot, Arc::new(user_event::read(value)?)),
        Key::View => return read_view(value),
        Key::Left if value == LEFT => Record::Left,
        Key::Left => return Err(RecordError::Left),
        Key::Unknown => return Ok(None),
    };
    Ok(Some(record))
}

/// How many octets an instance has as a value. [`MAX_VALUE`] is for whoever defines one to keep.
pub fn value_len(instance: &Instance) -> usize {
    instance_value(instance).len()
}

const INSTANCE: &str = "i/";
const STANDING: &str = "h/";
const REPORT: &str = "r/";
const EVENT: &str = "e/";
const NODE_KEY: &str = "n/node";
const VIEW_KEY: &str = "n/view";
const LEFT_KEY: &str = "n/left";
const LEFT: &str = "1";

impl Key {
    /// Reads a key.
    ///
    /// # Errors
    /// A key that is too long, or of an instance that cannot be.
    pub fn parse(key: &str) -> Result<Self, RecordError> {
        if key.len() > MAX_KEY {
            return Err(RecordError::KeyLength(key.len()));
        }
        if let Some(rest) = key.strip_prefix(INSTANCE) {
            return Ok(Self::Instance(read_key(rest)?));
        }
        if let Some(rest) = key.strip_prefix(STANDING) {
            return Ok(Self::Standing(read_key(rest)?));
        }
        if let Some(rest) = key.strip_prefix(REPORT) {
            return Ok(Self::Report(read_key(rest)?));
        }
        if let Some(rest) = key.strip_prefix(EVENT) {
            // A slot that this version does not have is a newer node's.
            let slot = (0..SLOTS).find(|slot| slot.to_string() == rest);
            return Ok(slot.map_or(Self::Unknown, Self::Event));
        }
        Ok(match key {
            NODE_KEY => Self::Node,
            VIEW_KEY => Self::View,
            LEFT_KEY => Self::Left,
            _ => Self::Unknown,
        })
    }
}

fn read_key(text: &str) -> Result<InstanceKey, RecordError> {
    let (service, id) = text.split_once('/').ok_or(RecordError::KeyParts)?;
    let label = |text: &str| {
        let label = Label::parse(text).map_err(RecordError::KeyLabel)?;
        if label.as_str() == text { Ok(label) } else { Err(RecordError::KeyCase) }
    };
    let key = InstanceKey { service: label(service)?, id: label(id)? };
    bounds::service(&key.service).map_err(RecordError::Fault)?;
    Ok(key)
}

impl fmt::Display for Key {
    /// The key's text; nothing for what is not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(key) => write!(f, "{INSTANCE}{key}"),
            Self::Standing(key) => write!(f, "{STANDING}{key}"),
            Self::Report(key) => write!(f, "{REPORT}{key}"),
            Self::Node => f.write_str(NODE_KEY),
            Self::Event(slot) => write!(f, "{EVENT}{slot}"),
            Self::View => f.write_str(VIEW_KEY),
            Self::Left => f.write_str(LEFT_KEY),
            Self::Unknown => Ok(()),
        }
    }
}

// The instance.

/// An instance in JSON, less its key. What is left out has the value that `default` names: a part of the format, which
/// stays as it is when the defaults of service files change.
#[derive(Serialize, Deserialize)]
struct InstanceText<'a> {
    #[serde(rename = "addr")]
    addresses: Cow<'a, [IpAddr]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty", with = "port_table")]
    ports: Cow<'a, [(Label, u16)]>,
    #[serde(default = "tcp", skip_serializing_if = "is_tcp", rename = "proto", with = "ProtocolText")]
    protocol: Protocol,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    tags: Cow<'a, [String]>,
    #[serde(default, skip_serializing_if = "is_empty")]
    meta: Cow<'a, BTreeMap<String, String>>,
    #[serde(default = "priority", skip_serializing_if = "is_priority", rename = "prio")]
    priority: u16,
    #[serde(default = "weight", skip_serializing_if = "is_weight")]
    weight: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "as")]
    registered_as: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Protocol", rename_all = "lowercase")]
enum ProtocolText {
    Tcp,
    Udp,
}

fn tcp() -> Protocol {
    Protocol::Tcp
}

fn is_tcp(protocol: &Protocol) -> bool {
    *protocol == tcp()
}

fn is_empty(meta: &BTreeMap<String, String>) -> bool {
    meta.is_empty()
}

fn priority() -> u16 {
    1
}

fn is_priority(value: &u16) -> bool {
    *value == priority()
}

fn weight() -> u16 {
    10
}

fn is_weight(value: &u16) -> bool {
    *value == weight()
}

/// Named ports as a JSON object in their own order.
mod port_table {
    use super::{Cow, Deserializer, Label, MapAccess, PortName, Serializer, Visitor, fmt};

    pub(crate) fn serialize<S: Serializer>(ports: &[(Label, u16)], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(ports.iter().map(|(name, port)| (name.as_str(), port)))
    }

    pub(crate) fn deserialize<'de, 'a, D: Deserializer<'de>>(from: D) -> Result<Cow<'a, [(Label, u16)]>, D::Error> {
        struct Ports;
        impl<'de> Visitor<'de> for Ports {
            type Value = Vec<(Label, u16)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("named ports")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut ports = Vec::new();
                while let Some((PortName(name), port)) = map.next_entry()? {
                    ports.push((name, port));
                }
                Ok(ports)
            }
        }
        from.deserialize_map(Ports).map(Cow::Owned)
    }
}

/// A label straight from the parser's text.
struct PortName(Label);

impl<'de> Deserialize<'de> for PortName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = PortName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port's name")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<PortName, E> {
                Label::parse(text).map(PortName).map_err(E::custom)
            }
        }
        from.deserialize_str(Text)
    }
}

fn instance_value(instance: &Instance) -> String {
    json(&InstanceText {
        addresses: (&instance.addresses).into(),
        port: instance.port,
        ports: (&instance.ports).into(),
        protocol: instance.protocol,
        tags: (&instance.tags).into(),
        meta: Cow::Borrowed(&instance.meta),
        priority: instance.priority,
        weight: instance.weight,
        ttl: instance.ttl,
        registered_as: instance.registered_as.as_deref().map(Cow::Borrowed),
    })
}

fn read_instance(key: InstanceKey, value: &str) -> Result<Instance, RecordError> {
    let text: InstanceText<'_> = parse(value)?;
    let instance = Instance {
        key,
        addresses: text.addresses.into_owned(),
        port: text.port,
        ports: text.ports.into_owned(),
        protocol: text.protocol,
        tags: text.tags.into_owned(),
        meta: text.meta.into_owned(),
        priority: text.priority,
        weight: text.weight,
        ttl: text.ttl,
        registered_as: text.registered_as.map(SmolStr::new),
    };
    instance.check().map_err(RecordError::Fault)?;
    Ok(instance)
}

// The standing.

fn standing_value(standing: &InstanceState) -> String {
    match standing {
        InstanceState::Passing => "p".to_owned(),
        InstanceState::Warming(weight) => format!("u {weight}"),
        InstanceState::Warning(reason) => format!("w {reason}"),
        InstanceState::Critical(reason) => format!("c {reason}"),
        InstanceState::Disabled => "d".to_owned(),
        InstanceState::Withheld(gate, reason) => format!("x {} {reason}", gate.as_str()),
    }
}

fn read_standing(value: &str) -> Result<InstanceState, RecordError> {
    match value.split_once(' ') {
        None if value == "p" => Ok(InstanceState::Passing),
        None if value == "d" => Ok(InstanceState::Disabled),
        Some(("w", reason)) => Ok(InstanceState::new(Status::Warning, reason)),
        Some(("c", reason)) => Ok(InstanceState::new(Status::Critical, reason)),
        Some(("u", weight)) => weight.parse().map(InstanceState::Warming).map_err(|_| RecordError::Standing),
        Some(("x", rest)) => {
            let (word, reason) = rest.split_once(' ').ok_or(RecordError::Standing)?;
            let gate = HoldReason::ALL.into_iter().find(|gate| gate.as_str() == word).ok_or(RecordError::Standing)?;
            Ok(InstanceState::withheld(gate, reason))
        }
        _ => Err(RecordError::Standing),
    }
}

// What checks found.

#[derive(Serialize, Deserialize)]
struct ReportText<'a> {
    since: u64,
    #[serde(borrow)]
    checks: Vec<CheckText<'a>>,
}

#[derive(Serialize, Deserialize)]
struct CheckText<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    name: Cow<'a, str>,
    #[serde(rename = "is", with = "StatusText")]
    status: Status,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty", rename = "out")]
    output: Cow<'a, str>,
    since: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Status")]
enum StatusText {
    #[serde(rename = "p")]
    Passing,
    #[serde(rename = "w")]
    Warning,
    #[serde(rename = "c")]
    Critical,
}

fn report_value(report: &HealthReport) -> String {
    let check = |check: &CheckReport| CheckText {
        id: check.id.to_string().into(),
        name: check.name.to_string().into(),
        status: check.status,
        output: check.output.to_string().into(),
        since: check.since,
    };
    // What is too long for a value loses the checks at its end; those before decide more often.
    let mut checks: Vec<CheckText<'_>> = report.checks.iter().map(check).collect();
    loop {
        let value = json(&ReportText { since: report.since, checks });
        if value.len() <= MAX_VALUE {
            return value;
        }
        let kept = value.len().min(report.checks.len() * MAX_VALUE / value.len());
        checks = report.checks[..kept].iter().map(check).collect();
    }
}

fn read_report(value: &str) -> Result<HealthReport, RecordError> {
    let text: ReportText<'_> = parse(value)?;
    let long = |text: &str| text.len() > MAX_CHECK_TEXT;
    if text.checks.len() > MAX_CHECKS || text.checks.iter().any(|c| c.id.is_empty() || long(&c.id) || long(&c.name)) {
        return Err(RecordError::Report);
    }
    let checks = text.checks.into_iter().map(|check| CheckReport {
        id: bounded(&check.id).into(),
        name: bounded(&check.name).into(),
        status: check.status,
        output: bounded(&check.output).into(),
        since: check.since,
    });
    Ok(HealthReport { since: text.since, checks: checks.collect() })
}

// The node.

#[derive(Serialize, Deserialize)]
struct NodeText<'a> {
    #[serde(rename = "addr")]
    addresses: Cow<'a, [IpAddr]>,
    #[serde(borrow, rename = "dc")]
    datacenter: Cow<'a, str>,
    #[serde(borrow)]
    version: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "is_empty")]
    meta: Cow<'a, BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<u32>,
}

fn read_node(value: &str) -> Result<Record, RecordError> {
    let NodeText { addresses, datacenter, version, meta, ttl } = parse(value)?;
    bounds::addresses(&addresses).map_err(RecordError::Fault)?;
    bounds::node_meta(&meta).map_err(RecordError::Fault)?;
    let datacenter = Label::parse(&datacenter).map_err(|error| RecordError::Json(format!("dc: {error}")))?;
    if !(1..=MAX_VERSION).contains(&version.len()) || !version.bytes().all(|b| matches!(b, 0x20..=0x7e)) {
        return Err(RecordError::Version);
    }
    let (addresses, version, meta) = (addresses.into_owned(), version.into_owned(), meta.into_owned());
    if ttl.is_some_and(|ttl| ttl > MAX_TTL) {
        return Err(RecordError::Ttl);
    }
    Ok(Record::Node { addresses, datacenter, version, meta, ttl })
}

/// `None` where the digest is made in another way than ours: there is nothing to compare.
fn read_view(value: &str) -> Result<Option<Record>, RecordError> {
    let (format, digest) = value.split_once(' ').ok_or(RecordError::View)?;
    if format.parse() != Ok(FORMAT) {
        return Ok(None);
    }
    let plain = digest.len() == 16 && digest.bytes().all(|octet| octet.is_ascii_hexdigit());
    let digest = u64::from_str_radix(digest, 16).ok().filter(|_| plain).ok_or(RecordError::View)?;
    Ok(Some(Record::View(digest)))
}

fn json(value: &impl Serialize) -> String {
    // It cannot fail: a string takes all octets, and every key is a text. If it did, the reader would refuse the value.
    serde_json::to_string(value).unwrap_or_default()
}

fn parse<'a, T: Deserialize<'a>>(value: &'a str) -> Result<T, RecordError> {
    serde_json::from_str(value).map_err(|error| RecordError::Json(bounded(&error.to_string())))
}

impl RecordError {
    /// One word or two, the same for all pairs that are wrong alike: what counters are kept by.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::KeyLength(_) => "key too long",
            Self::KeyParts | Self::KeyLabel(_) | Self::KeyCase => "bad key",
            Self::ValueLength(_) => "value too long",
            Self::Json(_) => "bad json",
            Self::Fault(_) => "out of bounds",
            Self::Standing => "bad standing",
            Self::Report => "bad report",
            Self::Version => "bad version",
            Self::Event(_) => "bad event",
            Self::Ttl => "bad ttl",
            Self::View => "bad view",
            Self::Left => "bad leave",
        }
    }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyLength(octets) => write!(f, "a key has at most {MAX_KEY} octets, this one has {octets}"),
            Self::KeyParts => f.write_str("the key lacks the name of a service or an id"),
            Self::KeyLabel(error) => write!(f, "the key: {error}"),
            Self::KeyCase => f.write_str("the key has upper case"),
            Self::ValueLength(octets) => write!(f, "a value has at most {MAX_VALUE} octets, this one has {octets}"),
            Self::Json(error) => f.write_str(error),
            Self::Fault(fault) => fault.fmt(f),
            Self::Event(fault) => fault.fmt(f),
            Self::Standing => {
                f.write_str("a standing is `p`, `u WEIGHT`, `w REASON`, `c REASON`, `d` or `x GATE REASON`")
            }
            Self::Report => {
                write!(f, "a report is of at most {MAX_CHECKS} checks, each text of at most {MAX_CHECK_TEXT} octets")
            }
            Self::Version => write!(f, "a version is 1 to {MAX_VERSION} characters of printable ASCII"),
            Self::Ttl => write!(f, "a TTL is at most {MAX_TTL} s"),
            Self::View => f.write_str("the digest of a view is a number and 16 hexadecimal digits"),
            Self::Left => write!(f, "the value of `{LEFT_KEY}` is `{LEFT}`"),
        }
    }
}

impl std::error::Error for RecordError {}

#[cfg(test)]
mod tests;
