//! Configuration: the files of `muster.yaml`, parsed and validated.
//!
//! `parse` reads and checks every key. A [`Config`] is returned only without errors. Defaults are the constants below, each
//! with its reason.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZero,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    diagnostic::Diagnostic,
    files::zones::Rules,
    model::{
        alias_domain::AliasDomain,
        consul_version::ConsulVersion,
        dns_limits::{CacheTtls, RateScope, ResponseRate},
        host_addresses::HostAddresses,
        name::{Label, MAX_NAME, Name},
        recursion_access::ClientRange,
        service::{Check, Endpoint},
        upstream_address::UpstreamAddress,
    },
    yaml::{
        Document,
        reader::{Reader, did_you_mean, unexpected},
        tree::{Value, overlay},
    },
};

pub use self::{
    advertise::{AddressProblem, Advertise, NoAddress},
    dns::{Dns, Dnstap, Encrypted},
    store::{Etcd, Store},
    transfer::{Secondary, SecondaryZone, Transfer},
};

mod advertise;
mod despite_errors;
mod dns;
mod parse;
mod store;
mod transfer;

/// Validated configuration with defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of this node.
    pub node: Label,
    /// Discovery zone; overlaps with an alias domain only as `service.ZONE` of a `ZONE` with the scheme of Consul.
    pub domain: Name,
    /// Further zones with the same services and nodes, all different, with the same exception.
    pub alias_domains: Vec<AliasDomain>,
    /// Name of the datacenter of the node.
    pub datacenter: Label,
    /// Name of the zone of the node within its datacenter, if it has one.
    pub zone: Option<Label>,
    /// Metadata of the node: `key=value` pairs within [`node_meta`](crate::model::bounds::node_meta).
    pub meta: BTreeMap<String, String>,
    /// Addresses at which other hosts reach this node.
    pub advertise: Advertise,
    /// Folder of the persistent state.
    pub data_dir: PathBuf,
    /// Folder of the service files.
    pub services_dir: PathBuf,
    /// Folder of the zone files.
    pub zones_dir: PathBuf,
    /// DNS server.
    pub dns: Dns,
    /// Recursive resolver.
    pub resolver: Resolver,
    /// Gossip between nodes.
    pub gossip: Gossip,
    /// HTTP API.
    pub http: Http,
    /// Replicated store of the cluster; `None`: the cluster has none.
    pub store: Option<Store>,
    /// Permissions of health checks.
    pub checks: Checks,
    /// Logging.
    pub log: Log,
}

/// `resolver:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// Default upstreams.
    pub upstreams: Upstreams,
    /// Upstreams for names at and below a suffix: at least one each, no duplicate suffixes.
    pub routes: Vec<(Name, Vec<UpstreamAddress>)>,
    /// Clients that may use recursion. Empty: the resolver is disabled.
    pub allow: Vec<ClientRange>,
    /// Suffixes of names that may have private addresses, although the default upstreams resolve them; `None`: all names may.
    pub rebind_protection: Option<Vec<Name>>,
    /// Validation of replies (DNSSEC); `None`: off.
    pub validation: Option<Validation>,
    /// Cache.
    pub cache: Cache,
}

/// `resolver.dnssec: validate`, with its settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validation {
    /// File of trust anchors; `None`: the keys of the root that are built in.
    pub trust_anchors: Option<PathBuf>,
    /// Suffixes of names that are not validated.
    pub insecure: Vec<Name>,
}

/// `resolver.cache:`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Memory in octets.
    pub size: usize,
    /// Bounds on the TTL of cached replies.
    pub bounds: CacheTtls,
}

/// Upstreams for names outside the zones of this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstreams {
    /// Servers of the system's resolv.conf, except the addresses of this server.
    System,
    /// Configured servers: at least one, no port 0.
    Servers(Vec<UpstreamAddress>),
}

/// `gossip:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gossip {
    /// Listen address.
    pub listen: SocketAddr,
    /// Nodes to join.
    pub join: Vec<Endpoint>,
    /// Encryption of packets.
    pub seal: Seal,
    /// Interval of gossip rounds.
    pub interval: Duration,
    /// Time for which instances of nodes that became unreachable together are still answered as stale; zero: not at all.
    pub hold: Duration,
    /// Time for which the instances of a node that announced a restart are still answered as stale.
    pub restart_hold: Duration,
}

/// Encryption of gossip packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seal {
    /// Encrypted with the key in this file.
    KeyFile(PathBuf),
    /// Not encrypted: any host that reaches the address can announce instances. Loopback only, or with `insecure: true`.
    Open,
}

/// `http:`
///
/// An address other than loopback requires tokens and TLS, or `insecure: true`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Listen addresses. Empty: no HTTP API over TCP. Port 0 takes any free port.
    pub listen: Vec<SocketAddr>,
    /// Path of a Unix socket, which needs no tokens; by default below [`Environment::runtime_dir`]. `None`: no socket.
    pub socket: Option<PathBuf>,
    /// Folder of the token files; `None`: no authentication.
    pub tokens_dir: Option<PathBuf>,
    /// Certificate chain and private key in PEM; `None`: no TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Version that programs for Consul see; `None`: the version of muster.
    pub consul_version: Option<ConsulVersion>,
}

/// `checks:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checks {
    /// Checks of the node as a whole, each with an id.
    pub node: Arc<[Check]>,
    /// Checks that may run commands.
    pub allow_exec: AllowExec,
    /// True if checks that HTTP clients register may connect to link-local addresses and metadata services.
    pub allow_link_local: bool,
}

/// `checks.allow_exec`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AllowExec {
    /// `false`: no check may run a command.
    #[default]
    No,
    /// `true`: those of service files may.
    Files,
    /// `api`: those of service files and those that HTTP clients register may.
    FilesAndApi,
}

impl AllowExec {
    /// Reports whether checks of files may run commands.
    pub fn in_files(self) -> bool {
        self != Self::No
    }

    /// Reports whether checks that HTTP clients register may run commands.
    pub fn over_http(self) -> bool {
        self == Self::FilesAndApi
    }
}

/// `log:`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Minimum level of logged events.
    pub level: Level,
    /// Output format.
    pub format: Format,
}

/// Level of a log event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A failure.
    Error,
    /// A condition that may lead to a failure.
    Warn,
    /// Normal operation.
    Info,
    /// Details for troubleshooting.
    Debug,
    /// All details.
    Trace,
}

/// Format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Human-readable lines.
    Text,
    /// One JSON object per line.
    Json,
}

/// Properties of the host, passed in because core modules do no I/O.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Host name; its first label is the default of `node`.
    pub host_name: String,
    /// Addresses of the host, for a configuration without `advertise`.
    pub addresses: HostAddresses,
    /// Address of the host that the agent advertises already; `None` at the start of a process.
    pub in_use: Option<IpAddr>,
    /// Folder that the service manager made for sockets of the agent, where `http.socket` is by default.
    pub runtime_dir: Option<PathBuf>,
}

/// Top-level keys.
pub const CONFIG_KEYS: &[&str] = &[
    "node",
    "domain",
    "alias_domains",
    "datacenter",
    "zone",
    "meta",
    "advertise",
    "data_dir",
    "services_dir",
    "zones_dir",
    "dns",
    "resolver",
    "gossip",
    "http",
    "store",
    "checks",
    "log",
];

/// Path of the configuration without `--config`.
pub const DEFAULT_PATH: &str = "/etc/muster/muster.yaml";
/// Default zone. `local` itself belongs to multicast DNS (RFC 6762 §3); a name below it is common practice.
const DEFAULT_DOMAIN: &str = "service.local";
/// The default datacenter of Consul.
const DEFAULT_DATACENTER: &str = "dc1";
/// State of Linux daemons (FHS 3.0 §5.8).
const DEFAULT_DATA_DIR: &str = "/var/lib/muster";
/// Next to the configuration, in a folder to which packages may add files.
const DEFAULT_SERVICES_DIR: &str = "/etc/muster/services.d";
/// Next to the configuration.
pub const DEFAULT_DNSSEC_KEYS_DIR: &str = "/etc/muster/dnssec";
/// Next to the configuration.
const DEFAULT_ZONES_DIR: &str = "/etc/muster/zones";
/// Default listen address: no access from other hosts unless configured.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// DNS (RFC 1035 §4.2).
pub const DNS_PORT: u16 = 53;
/// DNS over TLS (RFC 7858 §3.1), and over QUIC (RFC 9250 §4.1.1).
pub const TLS_PORT: u16 = 853;
/// DNS over HTTPS (RFC 8484 §4).
pub const HTTPS_PORT: u16 = 443;
/// The HTTP port of Consul.
pub const HTTP_PORT: u16 = 8500;
/// File name of the Unix socket of the HTTP API, where its path is not configured.
pub const SOCKET_NAME: &str = "api.sock";
/// Seconds: short, since instances change, yet long enough that a burst of a client costs one query.
const DEFAULT_TTL: u32 = 5;
/// Seconds: short, so that a client that queries too early soon finds the instance.
const DEFAULT_NEGATIVE_TTL: u32 = 1;
/// Octets: avoids fragmentation on any path (DNS Flag Day 2020).
const DEFAULT_UDP_PAYLOAD: u16 = 1232;
/// Octets that every client accepts (RFC 1035 §4.2.1).
pub const MIN_UDP_PAYLOAD: u16 = 512;
/// Octets: larger responses have so many fragments that TCP is better (RFC 6891 §6.2.5).
pub const MAX_UDP_PAYLOAD: u16 = 4096;
/// Responses per second: a higher limit has no effect.
const MAX_RATE: u32 = 1_000_000;
/// Responses per second to a network of clients outside `resolver.allow`: 60 KB/s at most. NSD's default is 200, for servers of
/// public zones. A resolver that asks more has a cookie, or retries the truncated responses over TCP.
const DEFAULT_RATE: NonZero<u32> = NonZero::new(50).unwrap();
/// Every second one: a legitimate client in an attacking network succeeds at its second attempt (as in BIND, NSD and Knot).
const DEFAULT_SLIP: u8 = 2;
/// Prefix length of an IPv4 site, as in BIND, NSD and Knot.
const DEFAULT_IPV4_PREFIX: u8 = 24;
/// Prefix length of an IPv6 site, as in BIND, NSD and Knot.
const DEFAULT_IPV6_PREFIX: u8 = 56;
/// Propagates a health change to 50 nodes in less than half a second.
const DEFAULT_GOSSIP_INTERVAL: Duration = Duration::from_millis(200);
/// Shorter intervals cost packets without benefit.
const MIN_GOSSIP_INTERVAL: Duration = Duration::from_millis(50);
/// With longer intervals a crashed node stays in answers for almost a minute.
const MAX_GOSSIP_INTERVAL: Duration = Duration::from_secs(10);
/// Long enough for the restart of a switch, short enough to limit stale answers.
const DEFAULT_HOLD: Duration = Duration::from_secs(10 * 60);
/// Default of `gossip.restart_hold`: a restart takes a second or two, the boot of a large host's checks some more.
const DEFAULT_RESTART_HOLD: Duration = Duration::from_secs(30);
/// Older data is useless.
const MAX_HOLD: Duration = Duration::from_secs(24 * 60 * 60);
/// Loopback and private networks: no open resolver by default.
const DEFAULT_ALLOW: [ClientRange; 2] = [ClientRange::Loopback, ClientRange::Private];
/// Megabytes of cached replies: some 100,000 names.
const DEFAULT_CACHE: u32 = 32;
/// Megabytes: an upper bound for the memory of a host.
const MAX_CACHE: u32 = 16_384;
/// Seconds: a day, as in unbound, so that changes take effect within a day.
const DEFAULT_MAX_TTL: u32 = 24 * 60 * 60;
/// Seconds: an hour, as in unbound; RFC 2308 §5 recommends at most three.
const DEFAULT_MAX_NEGATIVE_TTL: u32 = 60 * 60;
/// Seconds: RFC 8767 §5 recommends one to three days.
const DEFAULT_STALE: u32 = 24 * 60 * 60;
/// Maximum octets of a zone name in wire form: `_PORT._tcp.SERVICE` must fit in front of it.
const MAX_ZONE: usize = MAX_NAME - (64 + 5 + 64);
/// The same for a zone with the scheme of Consul: `_PORT._tcp.SERVICE.service.DATACENTER` must fit in front of it.
const MAX_CONSUL_ZONE: usize = MAX_ZONE - (8 + 64);

/// Configuration of `muster agent --dev`, with paths relative to the given folder.
const DEV: &str = "
advertise: 127.0.0.1
data_dir: data
services_dir: services.d
zones_dir: zones
dns: {listen: [127.0.0.1:8600]}
http: {listen: [127.0.0.1:8500]}
gossip: {listen: 127.0.0.1:7946}
";
/// Node name with `--dev` if the host name is not a valid label.
const DEV_NODE: &str = "dev";

/// Response rate limit without a configured one.
const DEFAULT_RATE_LIMIT: ResponseRate = ResponseRate {
    per_second: DEFAULT_RATE,
    scope: RateScope::Outside,
    slip: DEFAULT_SLIP,
    ipv4_prefix: DEFAULT_IPV4_PREFIX,
    ipv6_prefix: DEFAULT_IPV6_PREFIX,
};

impl Resolver {
    /// Returns the clients outside the response rate limit of [`RateScope::Outside`]. If no client may use recursion, they are
    /// those that may by default: an empty `allow` disables the resolver, and must not limit the hosts of the network.
    pub fn unlimited_clients(&self) -> &[ClientRange] {
        if self.allow.is_empty() { &DEFAULT_ALLOW } else { &self.allow }
    }
}

impl Config {
    /// Returns what zone files are checked against.
    pub fn zone_rules(&self) -> Rules {
        Rules {
            domain: self.domain.clone(),
            aliases: self.alias_domains.clone(),
            secondary: self.dns.secondary.iter().map(|zone| zone.origin.clone()).collect(),
            dynamic: self.dns.dynamic.iter().map(|zone| zone.origin.clone()).collect(),
            ttl: self.dns.ttl,
        }
    }

    /// Parses the files of a configuration, merged in their order: tables key by key, other values are replaced by the later
    /// file. Missing and empty files leave the defaults.
    ///
    /// Relative paths are relative to the folder of their file.
    ///
    /// # Errors
    /// All problems of all files, sorted by position. Replaced values are not checked. If a file is not valid YAML, only
    /// syntax errors are reported, since the other files may depend on its content.
    pub fn parse<'a>(
        files: impl IntoIterator<Item = (&'a Path, &'a [u8])>,
        environment: &Environment,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut documents = Vec::new();
        let mut unreadable = Vec::new();
        for (source, (path, bytes)) in (0..=u16::MAX).zip(files) {
            match Document::read(path, bytes, source) {
                Ok(document) => documents.push(document),
                Err(problem) => unreadable.push(problem),
            }
        }
        if !unreadable.is_empty() {
            return Err(unreadable);
        }
        if documents.is_empty() {
            documents.extend(Document::read(Path::new(DEFAULT_PATH), b"", 0));
        }
        let others: Vec<Diagnostic> = documents.iter().filter_map(other_content).collect();
        if !others.is_empty() {
            return Err(others);
        }
        let reader = Reader::new(&documents);
        let roots = documents.iter().map(|document| document.root().clone());
        let config = roots.reduce(overlay).and_then(|root| parse::config(&reader, &root, environment));
        reader.finish(config).map(|(config, _)| config)
    }

    /// Returns the configuration of `--dev`: loopback only, high ports, a store of this node alone, all files below `folder`.
    ///
    /// # Errors
    /// None in practice; the type is that of [`parse`](Self::parse).
    pub fn dev(folder: &Path, environment: &Environment) -> Result<Self, Vec<Diagnostic>> {
        let mut environment = environment.clone();
        if Label::parse(first_label(&environment.host_name)).is_err() {
            environment.host_name = DEV_NODE.to_owned();
        }
        let config = Self::parse([(folder.join("dev.yaml").as_path(), DEV.as_bytes())], &environment)?;
        Ok(Self { store: Some(Store::with_one_voter(config.node.clone())), ..config })
    }

    /// Returns the configuration with the present addresses of the host; `None` if it is the same.
    pub fn follow(&self, host: &HostAddresses) -> Option<Self> {
        let advertise = self.advertise.follow(self.gossip.listen.ip(), host);
        (advertise != self.advertise).then(|| Self { advertise, ..self.clone() })
    }

    /// Returns the problem of the advertised addresses with the present addresses of the host.
    pub fn address_problem(&self, host: &HostAddresses) -> Option<AddressProblem> {
        self.advertise.problem(self.gossip.listen.ip(), host)
    }
}

/// Returns the problem of a file that is no configuration: its top level is not a table, or has no key of a configuration and
/// no misspelling of one. The file may be any other, so the message has none of its content.
fn other_content(document: &Document<'_>) -> Option<Diagnostic> {
    let root = document.root();
    let message = match &root.value {
        Value::Null => return None,
        Value::Table(entries) if entries.is_empty() => return None,
        Value::Table(entries) if entries.iter().any(|entry| did_you_mean(&entry.key, CONFIG_KEYS).is_some()) => {
            return None;
        }
        Value::Table(_) => "no key of this file is one of the configuration".to_owned(),
        _ => unexpected(root, "the configuration"),
    };
    let (line, column) = document.position(root.id);
    let problem = Diagnostic::at(document.path(), line, column, message);
    Some(problem.with_hint(format!("its keys are {}", CONFIG_KEYS.join(", "))))
}

fn first_label(host_name: &str) -> &str {
    host_name.split('.').next().unwrap_or_default()
}
