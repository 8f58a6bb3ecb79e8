//! Service definitions: the validated content of service files and API registrations.
//!
//! A [`Definition`] stays on its node; the [`Instance`] in it is announced to other nodes. Every bound is a named constant.
//! A file that exceeds one is refused with a message; nothing is cut silently.

pub mod check;
pub mod instance_ref;

use std::{net::IpAddr, sync::Arc, time::Duration};

use smol_str::{SmolStr, format_smolstr};

pub use self::check::{
    AliasTarget, Check, CheckTitle, DEFAULT_FALL, DEFAULT_INTERVAL, DEFAULT_RISE, DEFAULT_TIMEOUT, Endpoint, HttpProbe,
    MAX_INTERVAL, MAX_STREAK, MIN_INTERVAL, Origin, Probe, ProbeTls, is_server_name, unit_name,
};
use self::instance_ref::InstanceRef;
use super::{
    alpn::PortAlpn,
    flap_damping::Damping,
    followed_host::FollowedHost,
    list::List,
    meta::Meta,
    name::{Label, MAX_LABEL},
    nearest::{MinHealthy, Nearest},
    registered_name::RegisteredName,
    tagged_addresses::TaggedAddresses,
};

/// Maximum number of addresses of an instance: all of them have to fit an answer.
pub const MAX_ADDRESSES: usize = 16;
/// Maximum number of named ports of an instance.
pub const MAX_PORTS: usize = 32;
/// Maximum number of tags of an instance.
pub const MAX_TAGS: usize = 64;
/// Maximum length of a tag in octets.
pub const MAX_TAG: usize = 255;
/// Maximum number of entries of `meta`.
pub const MAX_META: usize = 64;
/// Maximum length of `key=value` in octets: one character-string of a TXT record (RFC 1035 §3.3).
pub const MAX_META_ENTRY: usize = 255;
/// Maximum length in octets of an id: container ids with host and port fit.
pub const MAX_REGISTERED_ID: usize = 255;
/// Maximum number of checks of an instance.
pub const MAX_CHECKS: usize = 32;
/// Maximum number of checks of the node as a whole: its maintenance is shown as one more.
pub const MAX_NODE_CHECKS: usize = MAX_CHECKS - 1;
/// Maximum TTL in seconds (RFC 2181 §8).
pub const MAX_TTL: u32 = 0x7fff_ffff;

/// Default priority of SRV records.
pub const DEFAULT_PRIORITY: u16 = 1;
/// Default weight: a tenth of it, the weight in state warning, is still 1.
pub const DEFAULT_WEIGHT: u16 = 10;

/// Identity of an instance, unique in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceKey {
    /// Name of the service.
    pub service: RegisteredName,
    /// Id of the instance, unique within the service.
    pub id: Label,
}

impl std::fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.service, self.id)
    }
}

/// Transport protocol of a service: the second label of RFC 2782 names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `_tcp`
    Tcp,
    /// `_udp`
    Udp,
}

/// One instance of a service, as every node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Service and id.
    pub key: InstanceKey,
    /// Listening addresses: 1 to [`MAX_ADDRESSES`], all different; none while those of `host` are unknown.
    pub addresses: List<IpAddr>,
    /// Host name that was registered as the address, and whose addresses these are. `None`: the addresses were registered.
    pub host: Option<Arc<FollowedHost>>,
    /// Further addresses for clients of the HTTP API, as registered. Empty: those by family.
    pub tagged: TaggedAddresses,
    /// Port of `SERVICE` and `_SERVICE._tcp`; `None`: no SRV records for them.
    pub port: Option<u16>,
    /// Named ports, for `_PORTNAME._tcp.SERVICE`, in file order with unique names.
    pub ports: List<(Label, u16)>,
    /// Application protocols by port, for SVCB and HTTPS records; ports without them are not listed.
    pub alpn: List<PortAlpn>,
    /// Transport protocol of all ports.
    pub protocol: Protocol,
    /// Tags in file order, all different. Tags that are valid labels have names in the zone.
    pub tags: List<String>,
    /// `key=value` pairs of the TXT record.
    pub meta: Meta,
    /// SRV priority (RFC 2782): clients try lower values first.
    pub priority: u16,
    /// SRV weight (RFC 2782): share among equal priorities.
    pub weight: u16,
    /// TTL in seconds, at most [`MAX_TTL`]; `None`: `dns.ttl` of the node.
    pub ttl: Option<u32>,
    /// Tier that answers look at first; `None`: `dns.nearest` of the node that answers.
    pub nearest: Option<Nearest>,
    /// Healthy instances that are enough for a tier; `None`: `dns.min_healthy` of the node that answers.
    pub min_healthy: Option<MinHealthy>,
    /// Id given by a client of the HTTP API or a service file: any characters, at most [`MAX_REGISTERED_ID`] octets, unique
    /// only on its node. `None`: the instance is defined in a file, and the id is that of the key.
    pub registered_as: Option<SmolStr>,
    /// External node on which it runs; `None`: the node that announces it.
    pub external: Option<Box<RegisteredName>>,
    /// True if `catalog/register` may replace the tags, which then survive registrations of the agent's clients.
    pub tag_override: bool,
    /// Name of the service in the letter case of its registration, for display and filters. `None`: as in the key.
    pub service_case: Option<SmolStr>,
}

/// Entry of a service file: the instance, its checks and its pacing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Announced part of the definition.
    pub instance: Arc<Instance>,
    /// `false`: announced as disabled, not answered, not probed.
    pub enabled: bool,
    /// Health checks; without any, the instance is always healthy.
    pub checks: Vec<Check>,
    /// Damping and slow start.
    pub pace: Pace,
}

/// Pacing of a recovery; by default an instance is answered at once, with its full weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Flap damping; `None`: off.
    pub damping: Option<Damping>,
    /// Duration of the weight ramp after a recovery; zero: off.
    pub slow_start: Duration,
}

/// Default half-life: an instance that flaps every minute is withheld, a fall of an hour ago no longer counts.
pub const DEFAULT_HALF_LIFE: Duration = Duration::from_secs(60);
/// Default number of falls after which an instance is withheld: one or two falls may be an incident or a deployment.
pub const DEFAULT_HOLD_AT: u32 = 3;
/// Default release threshold in tenths of a fall: reached about 90 s after the third fall.
pub const RELEASE_BELOW: u32 = 10;
/// Maximum of `hold_at` in a service file.
pub const MAX_HOLD_AT: u32 = 100;

impl Definition {
    /// Returns the id of a check in the HTTP API: the id given by a client, else, as in Consul, `service:ID`, followed by a
    /// number from 1 if there are several checks.
    pub fn check_id(&self, at: usize) -> SmolStr {
        let title = self.checks.get(at).and_then(|check| check.title.as_ref());
        if let Some(id) = title.and_then(|title| title.id.as_ref()) {
            return id.clone();
        }
        let id = self.instance.api_id();
        if self.checks.len() > 1 { format_smolstr!("service:{id}:{}", at + 1) } else { format_smolstr!("service:{id}") }
    }
}

impl Instance {
    /// Returns an instance with the defaults of a service file: no port, TCP, default priority and weight.
    pub fn new(key: InstanceKey, addresses: Vec<IpAddr>) -> Self {
        Self {
            key,
            addresses: addresses.into(),
            host: None,
            tagged: TaggedAddresses::default(),
            port: None,
            ports: List::default(),
            alpn: List::default(),
            protocol: Protocol::Tcp,
            tags: List::default(),
            meta: Meta::default(),
            priority: DEFAULT_PRIORITY,
            weight: DEFAULT_WEIGHT,
            ttl: None,
            nearest: None,
            min_healthy: None,
            registered_as: None,
            external: None,
            tag_override: false,
            service_case: None,
        }
    }

    /// Returns the name of the service in the letter case of its registration.
    pub fn service_name(&self) -> &str {
        self.service_case.as_deref().unwrap_or_else(|| self.key.service.as_str())
    }

    /// Reports whether the instance is that of a definition: the addresses of a host name may differ.
    pub fn is_as_defined(&self, definition: &Self) -> bool {
        let host = |instance: &Self| instance.host.as_ref().map(|host| host.name.clone());
        if host(self).is_none() || host(self) != host(definition) {
            return self == definition;
        }
        let unresolved =
            Self { addresses: definition.addresses.clone(), host: definition.host.clone(), ..self.clone() };
        unresolved == *definition
    }

    /// Reports whether a person or a client means this instance by `text`: its id, its label, or `SERVICE/ID`. Labels and
    /// names of services compare without case.
    pub fn is_called(&self, text: &str) -> bool {
        let service = self.key.service.as_str();
        let in_service = text.split_at_checked(service.len()).filter(|(name, _)| name.eq_ignore_ascii_case(service));
        let id = in_service.and_then(|(_, rest)| rest.strip_prefix('/'));
        let is_id = |id: &str| id == self.api_id() || id.eq_ignore_ascii_case(self.key.id.as_str());
        is_id(text) || id.is_some_and(is_id)
    }

    /// Returns the id as a person wrote it, if DNS-SD names the instance by it (RFC 6763 §4.1.1) unless another instance of the
    /// service has the same. `None`: the label of the id is its name, since it has the same characters or the id is no label.
    pub fn dns_sd_name(&self) -> Option<&str> {
        let written = self.registered_as.as_deref()?;
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let is_name = written.len() <= MAX_LABEL && !written.starts_with('_') && !written.bytes().all(is_plain);
        is_name.then_some(written)
    }

    /// Returns the id in the HTTP API: the one it was registered with, else its own.
    pub fn api_id(&self) -> &str {
        self.registered_as.as_deref().unwrap_or_else(|| self.key.id.as_str())
    }
}

/// Definitions in service on a node, by instance. Clones share structure.
pub type Definitions = imbl::OrdMap<InstanceRef, Arc<Definition>>;
