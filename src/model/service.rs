//! What a service file says, once it is read and found right.
//!
//! A [`Definition`] stays on its node; the [`Instance`] inside it is what other nodes learn. Every bound here is a
//! named constant: what exceeds one is refused with a message when the file is read, never cut in silence.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use smol_str::{SmolStr, format_smolstr};
use url::Url;

use super::{health::Status, name::Label, pacing::Damping};

/// The label under which nodes have their names; no service can be called so.
pub const RESERVED_SERVICE: &str = "node";
/// Addresses of one instance. A host with more is rare, and all of them have to fit an answer.
pub const MAX_ADDRESSES: usize = 16;
/// Named ports of one instance.
pub const MAX_PORTS: usize = 32;
/// Tags of one instance.
pub const MAX_TAGS: usize = 64;
/// Octets of one tag.
pub const MAX_TAG: usize = 255;
/// Entries of `meta`.
pub const MAX_META: usize = 64;
/// Octets of `key=value`: one character-string of a TXT record (RFC 1035 §3.3).
pub const MAX_META_ENTRY: usize = 255;
/// Octets of an id that a client of the HTTP API may give: container ids with host and port fit.
pub const MAX_REGISTERED_ID: usize = 255;
/// Checks of one instance.
pub const MAX_CHECKS: usize = 32;
/// The longest TTL, in seconds (RFC 2181 §8).
pub const MAX_TTL: u32 = 0x7fff_ffff;

/// The priority of SRV records where the file names none.
pub const DEFAULT_PRIORITY: u16 = 1;
/// The weight where the file names none: a tenth of it is still 1, which is what a warning leaves.
pub const DEFAULT_WEIGHT: u16 = 10;

/// Which instance: unique in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceKey {
    /// The service's name.
    pub service: Label,
    /// The instance's id, unique within the service.
    pub id: Label,
}

impl std::fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.service, self.id)
    }
}

/// The transport that a service speaks: the second label of RFC 2782 names.
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
    /// Which service it belongs to and its id there.
    pub key: InstanceKey,
    /// Where it listens: 1 to [`MAX_ADDRESSES`], no two alike.
    pub addresses: Vec<IpAddr>,
    /// The port of `SERVICE` and `_SERVICE._tcp`; `None` leaves them without SRV records.
    pub port: Option<u16>,
    /// The ports of `_PORTNAME._tcp.SERVICE`, in the file's order, no two of one name.
    pub ports: Vec<(Label, u16)>,
    /// The transport of every port.
    pub protocol: Protocol,
    /// In the file's order, no two alike. Those that are labels have names in the zone.
    pub tags: Vec<String>,
    /// `key=value` pairs: the TXT record.
    pub meta: BTreeMap<String, String>,
    /// RFC 2782: lower is tried first.
    pub priority: u16,
    /// RFC 2782: the share among equal priorities.
    pub weight: u16,
    /// Seconds, at most [`MAX_TTL`]; `None`: the node's `dns.ttl`.
    pub ttl: Option<u32>,
    /// The id that a client of the HTTP API gave it: unique on its node alone, in any characters, at most
    /// [`MAX_REGISTERED_ID`] octets. `None`: its file defines it.
    pub registered_as: Option<SmolStr>,
}

/// A service file's entry: the instance and what decides whether it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// What is announced.
    pub instance: Arc<Instance>,
    /// `false`: announced as disabled, never answered, not probed.
    pub enabled: bool,
    /// None: always healthy.
    pub checks: Vec<Check>,
    /// How fast it may come back.
    pub pace: Pace,
}

/// How fast an instance may come back; by default at once, with its whole weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// When falls hold it back; `None`: never.
    pub damping: Option<Damping>,
    /// How long its weight grows after it has come up; zero: not at all.
    pub slow_start: Duration,
}

/// The half-life of a fall where the file names none: what flaps every minute is held, what fell an hour ago is forgotten.
pub const DEFAULT_HALF_LIFE: Duration = Duration::from_secs(60);
/// Falls in a row that hold an instance back: one is an incident, two a coincidence.
pub const DEFAULT_HOLD_AT: u32 = 3;
/// The penalty below which it is given back, in tenths: about a minute and a half after the third fall.
pub const RELEASE_BELOW: u32 = 10;
/// The most falls that a file may allow before the instance is held.
pub const MAX_HOLD_AT: u32 = 100;

impl Definition {
    /// What the HTTP API calls a check of this definition: by the id that a client gave it, else as Consul does,
    /// `service:ID`, with a number from 1 where there are several.
    pub fn check_id(&self, at: usize) -> SmolStr {
        if let Some(title) = self.checks.get(at).and_then(|check| check.title.as_ref()) {
            return title.id.clone();
        }
        let id = self.instance.api_id();
        if self.checks.len() > 1 { format_smolstr!("service:{id}:{}", at + 1) } else { format_smolstr!("service:{id}") }
    }
}

impl Instance {
    /// Creates an instance as a service file without further keys describes it: no port, TCP, default priority and weight.
    pub fn new(key: InstanceKey, addresses: Vec<IpAddr>) -> Self {
        Self {
            key,
            addresses,
            port: None,
            ports: Vec::new(),
            protocol: Protocol::Tcp,
            tags: Vec::new(),
            meta: BTreeMap::new(),
            priority: DEFAULT_PRIORITY,
            weight: DEFAULT_WEIGHT,
            ttl: None,
            registered_as: None,
        }
    }

    /// The id by which clients of the HTTP API know it: the one that they registered it with, else its own.
    pub fn api_id(&self) -> &str {
        self.registered_as.as_deref().unwrap_or_else(|| self.key.id.as_str())
    }
}

/// One health check: what to ask, when, and how results add up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// From one start to the next.
    pub interval: Duration,
    /// When an unanswered probe is ended and counts as critical; not longer than the interval.
    pub timeout: Duration,
    /// Passes in a row to become healthy; at least 1.
    pub rise: u32,
    /// Failures in a row to become unhealthy; at least 1.
    pub fall: u32,
    /// The standing until the first result.
    pub initial: Status,
    /// Its id and its name where a client of the HTTP API gave them; files give none.
    pub title: Option<CheckTitle>,
}

/// What a client of the HTTP API calls a check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CheckTitle {
    /// 1 to `MAX_CHECK_TEXT` octets.
    pub id: SmolStr,
    /// For people: at most as many.
    pub name: SmolStr,
}

/// From one probe's start to the next where the file names none: what Consul's users expect.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
/// How long a probe may take where the file says nothing: a fifth of the interval.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
/// The shortest interval: below it a check is a load test.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// The longest interval or time-out: beyond a day nothing is being checked.
pub const MAX_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// One pass makes healthy: what recovered serves at once.
pub const DEFAULT_RISE: u32 = 1;
/// Two failures make unhealthy: one lost packet does not.
pub const DEFAULT_FALL: u32 = 2;
/// The largest `rise` or `fall`: more would take days to turn.
pub const MAX_STREAK: u32 = 1000;

/// What a check asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    /// An HTTP or HTTPS request.
    Http(HttpProbe),
    /// A TCP connection that opens.
    Tcp(Endpoint),
    /// The standard gRPC health protocol, in clear text.
    Grpc {
        /// Where.
        endpoint: Endpoint,
        /// The service asked for; empty: the server as a whole.
        service: String,
    },
    /// A command by its exit status: 0 passing, 1 warning, else critical.
    Exec {
        /// Program and arguments; the program is an absolute path.
        argv: Vec<String>,
    },
    /// A systemd unit that is active.
    Systemd {
        /// The unit's full name, suffix included.
        unit: String,
    },
    /// Another service of this node: healthy while one of its instances here is.
    Alias {
        /// Its name.
        service: Label,
    },
    /// Nothing: the application reports by itself, and silence is critical.
    Ttl {
        /// How long a report is good for.
        ttl: Duration,
    },
}

impl std::fmt::Display for Probe {
    /// The kind and what is asked, for logs: neither the credentials of a URL nor the arguments of a command.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(http) => {
                write!(f, "{}://{}", http.url.scheme(), http.url.host_str().unwrap_or_default())?;
                http.url.port().map_or(Ok(()), |port| write!(f, ":{port}"))?;
                f.write_str(http.url.path())
            }
            Self::Tcp(endpoint) => write!(f, "tcp {endpoint}"),
            Self::Grpc { endpoint, service } if service.is_empty() => write!(f, "grpc {endpoint}"),
            Self::Grpc { endpoint, service } => write!(f, "grpc {endpoint}/{service}"),
            Self::Exec { argv } => write!(f, "exec {}", argv.first().map_or("", String::as_str)),
            Self::Systemd { unit } => write!(f, "systemd {unit}"),
            Self::Alias { service } => write!(f, "alias {service}"),
            Self::Ttl { ttl } => write!(f, "ttl {ttl:?}"),
        }
    }
}

/// What an HTTP probe sends and expects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpProbe {
    /// `http` or `https`, with a host.
    pub url: Url,
    /// An upper-case token.
    pub method: String,
    /// Sent as they are, in the file's order.
    pub headers: Vec<(String, String)>,
    /// Sent as it is.
    pub body: Option<String>,
    /// The statuses that pass; empty: any 2xx.
    pub expect_status: Vec<u16>,
    /// Accept any certificate.
    pub tls_skip_verify: bool,
}

/// A host, by address or by name, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// An IP address without brackets, or a host name.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// All definitions of a node that are in service, by instance. Clones share structure.
pub type Definitions = imbl::OrdMap<InstanceKey, Arc<Definition>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_shown_without_its_secrets() {
        let endpoint = Endpoint { host: "::1".into(), port: 9090 };
        let cases = [
            (
                Probe::Http(HttpProbe {
                    url: Url::parse("https://me:secret@[::1]:8443/healthz?token=secret").unwrap(),
                    method: "GET".into(),
                    headers: vec![],
                    body: None,
                    expect_status: vec![],
                    tls_skip_verify: false,
                }),
                "https://[::1]:8443/healthz",
            ),
            (Probe::Tcp(endpoint.clone()), "tcp [::1]:9090"),
            (Probe::Grpc { endpoint: endpoint.clone(), service: String::new() }, "grpc [::1]:9090"),
            (Probe::Grpc { endpoint, service: "my.Service".into() }, "grpc [::1]:9090/my.Service"),
            (Probe::Exec { argv: vec!["/bin/check".into(), "secret".into()] }, "exec /bin/check"),
            (Probe::Systemd { unit: "nginx.service".into() }, "systemd nginx.service"),
            (Probe::Alias { service: Label::parse("db").unwrap() }, "alias db"),
        ];
        for (probe, expected) in cases {
            assert_eq!(probe.to_string(), expected);
        }
    }
}
