//! Health checks of an instance or of a node: probe, schedule and thresholds.

use std::{net::IpAddr, time::Duration};

use smol_str::SmolStr;
use url::{Host, Url};

use crate::model::{health::Status, registered_name::RegisteredName};

/// One health check: probe, schedule and thresholds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    /// Probe to execute.
    pub probe: Probe,
    /// Time from one start of the probe to the next.
    pub interval: Duration,
    /// Time after which a probe is aborted and counts as critical. A probe that takes longer than the interval delays the
    /// next one.
    pub timeout: Duration,
    /// Number of consecutive passes to become healthy, at least 1.
    pub rise: u32,
    /// Number of consecutive failures to become critical, at least 1.
    pub fall: u32,
    /// Number of consecutive failures after which a check that is not critical yet warns, at least 1. From `fall` on, failures
    /// never warn.
    pub warn_after: u32,
    /// Status until the first result.
    pub initial: Status,
    /// Maximum octets of the output, besides the limit for all checks.
    pub output_max: Option<u32>,
    /// Id, name and notes given by a client of the HTTP API; `None` for checks from files.
    pub title: Option<CheckTitle>,
    /// Author of the check, which decides what its probe may do.
    pub origin: Origin,
}

impl Check {
    /// Returns a check with the defaults of a service file.
    pub fn new(probe: Probe) -> Self {
        Self {
            probe,
            interval: DEFAULT_INTERVAL,
            timeout: DEFAULT_TIMEOUT,
            rise: DEFAULT_RISE,
            fall: DEFAULT_FALL,
            warn_after: DEFAULT_FALL,
            initial: Status::Critical,
            output_max: None,
            title: None,
            origin: Origin::File,
        }
    }

    /// Returns the id that was given to the check.
    pub fn id(&self) -> Option<&str> {
        self.title.as_ref()?.id.as_deref()
    }

    /// Returns the name for people: that of a client, else kind and target of the probe.
    pub fn display_name(&self) -> String {
        let name = self.title.as_ref().and_then(|title| title.name.as_ref());
        name.map_or_else(|| self.probe.to_string(), SmolStr::to_string)
    }
}

/// Author of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A file of this host.
    File,
    /// A client of the HTTP API.
    Client {
        /// True if the probe may connect to link-local addresses and metadata services.
        link_local: bool,
        /// True if the probe may run a command.
        exec: bool,
    },
}

impl Origin {
    /// Reports whether the probe may connect to link-local addresses and metadata services.
    pub fn may_reach_link_local(self) -> bool {
        match self {
            Self::File => true,
            Self::Client { link_local, .. } => link_local,
        }
    }

    /// Reports whether the probe may run a command.
    pub fn may_run_commands(self) -> bool {
        match self {
            Self::File => true,
            Self::Client { exec, .. } => exec,
        }
    }

    /// Reports whether the first result decides at once, whatever the thresholds, as in Consul.
    pub fn first_result_decides(self) -> bool {
        self != Self::File
    }
}

/// Id, name and notes of a check, given by a client of the HTTP API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CheckTitle {
    /// Check id of 1 to `MAX_CHECK_TEXT` octets; `None`: that of [`Definition::check_id`](super::Definition::check_id).
    pub id: Option<SmolStr>,
    /// Display name of at most `MAX_CHECK_TEXT` octets; `None`: the probe.
    pub name: Option<SmolStr>,
    /// Notes for people, of at most `MAX_CHECK_TEXT` octets; may be empty.
    pub notes: SmolStr,
}

/// Default interval between probes: a common value in Consul's documentation.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
/// Default timeout of a probe: a fifth of the default interval.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
/// Minimum interval: more frequent probes would load the service.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum interval and timeout: one day.
pub const MAX_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// Default `rise`: one pass makes healthy, so recovery is immediate.
pub const DEFAULT_RISE: u32 = 1;
/// Default `fall`: two failures make unhealthy, one lost packet does not.
pub const DEFAULT_FALL: u32 = 2;
/// Maximum `rise` and `fall`: larger values would take days to change the status.
pub const MAX_STREAK: u32 = 1000;

/// Probe of a check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    /// HTTP or HTTPS request.
    Http(HttpProbe),
    /// TCP connection.
    Tcp(Endpoint),
    /// Datagram without content; critical if the host refuses it, passing with or without an answer.
    Udp(Endpoint),
    /// gRPC health checking protocol.
    Grpc {
        /// Address of the server.
        endpoint: Endpoint,
        /// Name of the gRPC service; empty: the server as a whole.
        service: String,
        /// TLS; `None`: clear text.
        tls: Option<ProbeTls>,
    },
    /// Ping frame of HTTP/2.
    H2Ping {
        /// Address of the server.
        endpoint: Endpoint,
        /// TLS; `None`: clear text with prior knowledge of HTTP/2.
        tls: Option<ProbeTls>,
    },
    /// Command; exit status 0 is passing, 1 is warning, anything else is critical.
    Exec {
        /// Absolute path of the program, then its arguments.
        argv: Vec<String>,
    },
    /// systemd unit; passing while the unit is active.
    Systemd {
        /// Full name of the unit, suffix included.
        unit: String,
    },
    /// Status of another service or of the node.
    Alias(AliasTarget),
    /// No probe: the application sends reports; without a report within `ttl` the check is critical.
    Ttl {
        /// Validity of a report.
        ttl: Duration,
    },
}

impl Probe {
    /// Returns the target of an alias; `None` for other probes.
    pub fn alias(&self) -> Option<&AliasTarget> {
        match self {
            Self::Alias(target) => Some(target),
            Self::Http(_)
            | Self::Tcp(_)
            | Self::Udp(_)
            | Self::Grpc { .. }
            | Self::H2Ping { .. }
            | Self::Exec { .. }
            | Self::Systemd { .. }
            | Self::Ttl { .. } => None,
        }
    }
}

impl Probe {
    /// Returns the address that the probe connects to, if it is given as an address and not as a name.
    pub fn literal_address(&self) -> Option<IpAddr> {
        match self {
            Self::Http(http) => match http.url.host()? {
                Host::Ipv4(address) => Some(address.into()),
                Host::Ipv6(address) => Some(address.into()),
                Host::Domain(_) => None,
            },
            Self::Tcp(endpoint) | Self::Udp(endpoint) | Self::Grpc { endpoint, .. } | Self::H2Ping { endpoint, .. } => {
                endpoint.host.parse().ok()
            }
            Self::Exec { .. } | Self::Systemd { .. } | Self::Alias(_) | Self::Ttl { .. } => None,
        }
    }
}

impl std::fmt::Display for Probe {
    /// Writes kind and target for logs, without the credentials of a URL and the arguments of a command.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(http) => {
                write!(f, "{}://{}", http.url.scheme(), http.url.host_str().unwrap_or_default())?;
                http.url.port().map_or(Ok(()), |port| write!(f, ":{port}"))?;
                f.write_str(http.url.path())
            }
            Self::Tcp(endpoint) => write!(f, "tcp {endpoint}"),
            Self::Udp(endpoint) => write!(f, "udp {endpoint}"),
            Self::Grpc { endpoint, service, .. } if service.is_empty() => write!(f, "grpc {endpoint}"),
            Self::Grpc { endpoint, service, .. } => write!(f, "grpc {endpoint}/{service}"),
            Self::H2Ping { endpoint, .. } => write!(f, "h2ping {endpoint}"),
            Self::Exec { argv } => write!(f, "exec {}", argv.first().map_or("", String::as_str)),
            Self::Systemd { unit } => write!(f, "systemd {unit}"),
            Self::Alias(target) => write!(f, "alias {target}"),
            Self::Ttl { ttl } => write!(f, "ttl {ttl:?}"),
        }
    }
}

/// Target of an alias check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AliasTarget {
    /// Service of that name; healthy while one of its instances on this node is.
    Service(RegisteredName),
    /// Instance with that id in the HTTP API; without one, the service of that name.
    Registered(SmolStr),
    /// This node; it has the status of its worst check.
    Node,
}

impl std::fmt::Display for AliasTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service(service) => write!(f, "{service}"),
            Self::Registered(id) => f.write_str(id),
            Self::Node => f.write_str("node"),
        }
    }
}

/// Longest unit name in octets, including the suffix (systemd.unit(5)).
const MAX_UNIT: usize = 255;
/// Suffixes of systemd units (systemd.unit(5)).
const UNIT_SUFFIXES: &[&str] =
    &["service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope"];

/// Returns the full name of a systemd unit; `None` if the text cannot be one. As in systemctl(1), a name without a unit suffix
/// is a service.
pub fn unit_name(text: &str) -> Option<String> {
    let mut unit = text.to_owned();
    if !unit.rsplit_once('.').is_some_and(|(_, suffix)| UNIT_SUFFIXES.contains(&suffix)) {
        unit.push_str(".service");
    }
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    (unit.len() <= MAX_UNIT && !unit.starts_with(['.', '-']) && unit.bytes().all(is_allowed)).then_some(unit)
}

/// Request and expected response of an HTTP probe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpProbe {
    /// URL with scheme `http` or `https` and a host.
    pub url: Url,
    /// Method, in upper case.
    pub method: String,
    /// Headers, sent unchanged in file order.
    pub headers: Vec<(String, String)>,
    /// Body, sent unchanged.
    pub body: Option<String>,
    /// Status codes that pass; empty: any 2xx.
    pub expect_status: Vec<u16>,
    /// Status codes that warn, unless they pass.
    pub warn_status: Vec<u16>,
    /// True if redirects are followed.
    pub follow_redirects: bool,
    /// TLS of `https` URLs, redirected ones included.
    pub tls: ProbeTls,
}

impl HttpProbe {
    /// Returns a GET request for which any 2xx passes.
    pub fn get(url: Url) -> Self {
        Self {
            url,
            method: "GET".to_owned(),
            headers: Vec::new(),
            body: None,
            expect_status: Vec::new(),
            warn_status: Vec::new(),
            follow_redirects: false,
            tls: ProbeTls::default(),
        }
    }
}

/// TLS of a probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProbeTls {
    /// Accept any server certificate.
    pub skip_verify: bool,
    /// Name of the server in its certificate and in SNI; `None`: the host of the URL or endpoint.
    pub server_name: Option<String>,
}

/// Reports whether a certificate can be for this name: a host name or an IP address.
pub fn is_server_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.parse::<IpAddr>().is_ok() || (text.len() <= 253 && text.split('.').all(is_label))
}

/// Host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// IP address without brackets, or host name.
    pub host: String,
    /// Port; never 0.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_text_has_no_secrets() {
        let endpoint = Endpoint { host: "::1".into(), port: 9090 };
        let cases = [
            (
                Probe::Http(HttpProbe::get(Url::parse("https://me:secret@[::1]:8443/healthz?token=secret").unwrap())),
                "https://[::1]:8443/healthz",
            ),
            (Probe::Tcp(endpoint.clone()), "tcp [::1]:9090"),
            (Probe::Udp(endpoint.clone()), "udp [::1]:9090"),
            (Probe::Grpc { endpoint: endpoint.clone(), service: String::new(), tls: None }, "grpc [::1]:9090"),
            (
                Probe::Grpc { endpoint: endpoint.clone(), service: "my.Service".into(), tls: None },
                "grpc [::1]:9090/my.Service",
            ),
            (Probe::H2Ping { endpoint, tls: Some(ProbeTls::default()) }, "h2ping [::1]:9090"),
            (Probe::Exec { argv: vec!["/bin/check".into(), "secret".into()] }, "exec /bin/check"),
            (Probe::Systemd { unit: "nginx.service".into() }, "systemd nginx.service"),
            (Probe::Alias(AliasTarget::Service(RegisteredName::parse("db").unwrap())), "alias db"),
        ];
        for (probe, expected) in cases {
            assert_eq!(probe.to_string(), expected);
        }
    }
}
