//! Records: a node's replicated state as text keys and values.
//!
//! | key | value |
//! | --- | --- |
//! | `i/SERVICE/ID` | instance, as JSON |
//! | `h/SERVICE/ID` | instance state: `p`, `u WEIGHT`, `w REASON`, `c REASON`, `d` or `x HOLD REASON` |
//! | `r/SERVICE/ID` | results of the instance's checks, as JSON |
//! | `x/NODE` | an external node that the node announces, as JSON |
//! | `n/node` | the node itself, as JSON |
//! | `n/checks` | results of the checks of the node as a whole, and its maintenance, as JSON |
//! | `e/0` … `e/15` | the last user events fired on the node, as JSON |
//! | `n/view` | digest of the node's view, `FORMAT HEX`, once it has settled |
//! | `n/serial` | a number that the node's SOA serials do not exceed (RFC 1982), changed once in some 32,000 serials |
//! | `n/zone-serial` | SOA serial of the zones that are generated, announced by nodes that serve transfers |
//! | `n/left` | `1`: the node leaves |
//! | `n/restart` | `1`: the node restarts |
//!
//! `SERVICE` is escaped (`key`). A health flip changes one record of some ten octets; the instance is not sent again. Newer
//! nodes may add records: unknown keys and JSON fields are ignored. Known records have to meet the bounds of a service file,
//! since a peer may be faulty or hostile.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;

mod external_node;
mod health;
mod instance;
mod key;
mod user_event;

pub(crate) use self::health::{read_state, state_value};
pub use self::key::{Key, MAX_KEY};
pub(crate) use self::key::{instance_key, read_instance_key};
use self::{
    health::{read_report, report_value},
    instance::{instance_value, read_instance},
    key::{LEFT_KEY, RESTART_KEY},
};
use crate::model::{
    alpn::AlpnError,
    announcement::{HealthReport, InstanceState, MAX_CHECK_TEXT, bounded},
    bounds::{self, BoundsError},
    external_node::{ExternalNode, ExternalNodeError},
    followed_host::{FollowedHost, HostName},
    name::{Label, LabelError},
    registered_name::RegisteredNameError,
    service::{Instance, InstanceKey, MAX_CHECKS, MAX_TTL},
    user_event::{self as user, UserEvent},
    view_digest::FORMAT,
};

/// Longest value in octets: fits one gossip message with room to spare, and is some 30 times the size of an instance.
pub const MAX_VALUE: usize = 8192;
/// Longest version of muster in octets.
pub const MAX_VERSION: usize = 64;

/// A record of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An instance.
    Instance(Arc<Instance>),
    /// State of an instance.
    State(InstanceKey, InstanceState),
    /// Results of an instance's checks.
    Report(InstanceKey, Arc<HealthReport>),
    /// An external node.
    External(Arc<ExternalNode>),
    /// The node itself. Its name is the name of the record's owner.
    Node {
        /// Addresses, within the bounds of an instance's addresses.
        addresses: Vec<IpAddr>,
        /// Datacenter.
        datacenter: Label,
        /// Zone, if the node has one.
        zone: Option<Label>,
        /// Version of muster: 1 to [`MAX_VERSION`] octets of printable ASCII.
        version: String,
        /// Metadata of the configuration, within [`bounds::node_meta`].
        meta: BTreeMap<String, String>,
        /// TTL in seconds of instances that specify none, at most [`MAX_TTL`]. `None` if not published.
        ttl: Option<u32>,
    },
    /// Results of the checks of the node as a whole.
    NodeChecks(Arc<HealthReport>),
    /// A user event and its slot, below [`user::SLOTS`].
    Event(u8, Arc<UserEvent>),
    /// Digest of the node's view; see [`crate::model::view_digest`].
    View(u64),
    /// Bound that the node's SOA serials do not exceed; see [`crate::dns::zone::serial`].
    Serial(u32),
    /// SOA serial of the generated zones, of a node that serves transfers; see [`crate::dns::transfer::primary`].
    ZoneSerial(u32),
    /// The node leaves.
    Left,
    /// The node restarts.
    Restart,
}

/// Reasons why a record is invalid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The key exceeds [`MAX_KEY`] octets; holds its length.
    #[error("key of {0} octets exceeds the limit of {MAX_KEY}")]
    KeyLength(usize),
    /// The key lacks a service or an id.
    #[error("key lacks a service or an id")]
    KeyParts,
    /// The id in the key is no label.
    #[error("key: {0}")]
    KeyLabel(LabelError),
    /// The service in the key is no registered name.
    #[error("key: {0}")]
    KeyName(RegisteredNameError),
    /// A `%` in the key is not part of `%20`, `%25` or `%2F`.
    #[error("key has an escape other than `%20`, `%25` and `%2F`")]
    KeyEscape,
    /// The service or the id in the key has upper case or a space, which would give one instance two keys.
    #[error("key has upper case or a space")]
    KeyCase,
    /// The value exceeds [`MAX_VALUE`] octets; holds its length.
    #[error("value of {0} octets exceeds the limit of {MAX_VALUE}")]
    ValueLength(usize),
    /// The value is not the expected JSON; holds the parser's message, one line of bounded length.
    #[error("{0}")]
    Json(String),
    /// An instance or a node is out of bounds.
    #[error("{0}")]
    Bounds(BoundsError),
    /// Invalid application protocols.
    #[error("{0}")]
    Alpn(AlpnError),
    /// An external node is out of bounds.
    #[error("{0}")]
    External(ExternalNodeError),
    /// An instance's state is invalid.
    #[error("instance state must be `p`, `u WEIGHT`, `w REASON`, `c REASON`, `d` or `x HOLD REASON`")]
    State,
    /// A report has too many checks, or a check with an empty id or too long a text.
    #[error("health report must have at most {MAX_CHECKS} checks and texts of at most {MAX_CHECK_TEXT} octets")]
    Report,
    /// A version is empty, too long or not printable ASCII.
    #[error("version must be 1 to {MAX_VERSION} characters of printable ASCII")]
    Version,
    /// A user event is out of bounds.
    #[error("{0}")]
    Event(user::UserEventError),
    /// A TTL exceeds its limit.
    #[error("TTL exceeds the limit of {MAX_TTL} s")]
    Ttl,
    /// A view's digest is invalid.
    #[error("view digest must be a number and 16 hexadecimal digits")]
    View,
    /// A serial or a bound of serials is not a number of 32 bits.
    #[error("serial must be a number from 0 to 4294967295")]
    Serial,
    /// The value of `n/left` or `n/restart` is not `1`.
    #[error("the value of `{LEFT_KEY}` and `{RESTART_KEY}` must be `{SET}`")]
    Mark,
}

impl Record {
    /// Encodes the record as a key and a value.
    pub fn encode(&self) -> (String, String) {
        match self {
            Self::Instance(instance) => (Key::Instance(instance.key.clone()).to_string(), instance_value(instance)),
            Self::State(key, state) => (Key::State(key.clone()).to_string(), state_value(state)),
            Self::Report(key, report) => (Key::Report(key.clone()).to_string(), report_value(report)),
            Self::External(node) => (Key::External(node.name.clone()).to_string(), external_node::value(node)),
            Self::Node { addresses, datacenter, zone, version, meta, ttl } => {
                let value = NodeText {
                    addresses: addresses.into(),
                    datacenter: datacenter.as_str().into(),
                    zone: zone.as_ref().map(|zone| zone.as_str().into()),
                    version: version.into(),
                    meta: Cow::Borrowed(meta),
                    ttl: *ttl,
                };
                (Key::Node.to_string(), json(&value))
            }
            Self::NodeChecks(report) => (Key::NodeChecks.to_string(), report_value(report)),
            Self::Event(slot, event) => (Key::Event(*slot).to_string(), user_event::value(event)),
            Self::View(digest) => (Key::View.to_string(), format!("{FORMAT} {digest:016x}")),
            Self::Serial(serial) => (Key::Serial.to_string(), serial.to_string()),
            Self::ZoneSerial(serial) => (Key::ZoneSerial.to_string(), serial.to_string()),
            Self::Left => (Key::Left.to_string(), SET.to_owned()),
            Self::Restart => (Key::Restart.to_string(), SET.to_owned()),
        }
    }
}

/// Decodes a record; `None` if only newer versions know it.
///
/// # Errors
/// Returns the first error found.
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
        Key::State(key) => Record::State(key, read_state(value)?),
        Key::Report(key) => Record::Report(key, Arc::new(read_report(value)?)),
        Key::External(name) => Record::External(Arc::new(external_node::read(name, value)?)),
        Key::Node => read_node(value)?,
        Key::NodeChecks => Record::NodeChecks(Arc::new(read_report(value)?)),
        Key::Event(slot) => Record::Event(slot, Arc::new(user_event::read(value)?)),
        Key::View => return read_view(value),
        Key::Serial => Record::Serial(value.parse().map_err(|_| RecordError::Serial)?),
        Key::ZoneSerial => Record::ZoneSerial(value.parse().map_err(|_| RecordError::Serial)?),
        Key::Left if value == SET => Record::Left,
        Key::Restart if value == SET => Record::Restart,
        Key::Left | Key::Restart => return Err(RecordError::Mark),
        Key::Unknown => return Ok(None),
    };
    Ok(Some(record))
}

/// Room for the addresses of a host name and the reason of a failed lookup, in octets: 16 addresses of at most 42 octets in JSON, and
/// a reason of 120 octets, each of which may be escaped.
const FOLLOWED: usize = 1024;

/// Maximum length of an instance's value in octets, whatever the addresses of its host name are. Definitions have to keep it within
/// [`MAX_VALUE`].
pub fn value_len(instance: &Instance) -> usize {
    instance_value(instance).len() + instance.host.as_ref().map_or(0, |_| FOLLOWED)
}

/// Maximum length of an external node's value in octets, whatever the addresses of its host name are. Registrations have to keep it
/// within [`MAX_VALUE`].
pub fn external_value_len(node: &ExternalNode) -> usize {
    external_node::value(node).len() + node.host.as_ref().map_or(0, |_| FOLLOWED)
}

/// Value of the keys that only exist or not.
const SET: &str = "1";

#[derive(Serialize, Deserialize)]
struct NodeText<'a> {
    #[serde(rename = "addr")]
    addresses: Cow<'a, [IpAddr]>,
    #[serde(borrow, rename = "dc")]
    datacenter: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    zone: Option<Cow<'a, str>>,
    #[serde(borrow)]
    version: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    meta: Cow<'a, BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<u32>,
}

fn read_node(value: &str) -> Result<Record, RecordError> {
    let NodeText { addresses, datacenter, zone, version, meta, ttl } = parse(value)?;
    bounds::addresses(&addresses).map_err(RecordError::Bounds)?;
    bounds::node_meta(&meta).map_err(RecordError::Bounds)?;
    let label = |key, text: &str| Label::parse(text).map_err(|error| RecordError::Json(format!("{key}: {error}")));
    let datacenter = label("dc", &datacenter)?;
    let zone = zone.map(|zone| label("zone", &zone)).transpose()?;
    if !(1..=MAX_VERSION).contains(&version.len()) || !version.bytes().all(|b| matches!(b, 0x20..=0x7e)) {
        return Err(RecordError::Version);
    }
    let (addresses, version, meta) = (addresses.into_owned(), version.into_owned(), meta.into_owned());
    if ttl.is_some_and(|ttl| ttl > MAX_TTL) {
        return Err(RecordError::Ttl);
    }
    Ok(Record::Node { addresses, datacenter, zone, version, meta, ttl })
}

/// Returns `None` for a digest of another format, which cannot be compared.
fn read_view(value: &str) -> Result<Option<Record>, RecordError> {
    let (format, digest) = value.split_once(' ').ok_or(RecordError::View)?;
    if format.parse() != Ok(FORMAT) {
        return Ok(None);
    }
    let plain = digest.len() == 16 && digest.bytes().all(|octet| octet.is_ascii_hexdigit());
    let digest = u64::from_str_radix(digest, 16).ok().filter(|_| plain).ok_or(RecordError::View)?;
    Ok(Some(Record::View(digest)))
}

/// Reads the host name of an instance or a node, with the reason why its last lookup failed.
fn followed_host(name: Option<&str>, problem: Option<&str>) -> Result<Option<Arc<FollowedHost>>, RecordError> {
    let name = name.map(HostName::parse).transpose();
    let name = name.map_err(|error| RecordError::Json(format!("host: {error}")))?;
    let problem = problem.map(|problem| bounded(problem).into());
    Ok(name.map(|name| Arc::new(FollowedHost { name, problem })))
}

fn json(value: &impl Serialize) -> String {
    // Serialization cannot fail: all keys are strings. An empty value would be rejected by the reader.
    serde_json::to_string(value).unwrap_or_default()
}

fn parse<'a, T: Deserialize<'a>>(value: &'a str) -> Result<T, RecordError> {
    serde_json::from_str(value).map_err(|error| RecordError::Json(bounded(&error.to_string())))
}

impl RecordError {
    /// Short name of the error, for counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::KeyLength(_) => "key too long",
            Self::KeyParts | Self::KeyLabel(_) | Self::KeyName(_) | Self::KeyEscape | Self::KeyCase => "bad key",
            Self::ValueLength(_) => "value too long",
            Self::Json(_) => "bad json",
            Self::Bounds(_) | Self::Alpn(_) | Self::External(_) => "out of bounds",
            Self::State => "bad state",
            Self::Report => "bad report",
            Self::Version => "bad version",
            Self::Event(_) => "bad event",
            Self::Ttl => "bad ttl",
            Self::View => "bad view",
            Self::Serial => "bad serial",
            Self::Mark => "bad mark",
        }
    }
}

#[cfg(test)]
mod tests;
