//! The configuration: from the texts of `muster.yaml` to values that the agent can act on without asking again.
//!
//! Every key of every part is read and checked, in `read`, and a [`Config`] is made only if nothing was wrong. Defaults
//! are the constants below, each with its reason.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    diagnostic::Diagnostic,
    dns::{engine::rrl::ResponseRate, recursion::cache::Bounds},
    model::{
        access::ClientRange,
        name::{Label, MAX_NAME, Name},
        service::Endpoint,
        upstream_address::UpstreamAddress,
    },
    yaml::{Document, reader::Reader, tree::overlay},
};

mod parse;

/// Everything that the files decide, with defaults in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node's name.
    pub node: Label,
    /// The discovery zone; neither within an alias domain nor around one.
    pub domain: Name,
    /// Further zones with the same content; none of them within another.
    pub alias_domains: Vec<Name>,
    /// The name of the node's site.
    pub datacenter: Label,
    /// What is to be known of the node: `key=value` pairs within [`node_meta`](crate::model::bounds::node_meta).
    pub meta: BTreeMap<String, String>,
    /// Where other hosts reach this one: at least one address, no two alike.
    pub advertise: Vec<IpAddr>,
    /// What the node has to remember.
    pub data_dir: PathBuf,
    /// Service files.
    pub services_dir: PathBuf,
    /// Zone files.
    pub zones_dir: PathBuf,
    /// How DNS questions are answered.
    pub dns: Dns,
    /// What is not in our zones, and who may ask for it.
    pub resolver: Resolver,
    /// How nodes talk to each other.
    pub gossip: Gossip,
    /// The HTTP API.
    pub http: Http,
    /// What checks may do.
    pub checks: Checks,
    /// The log.
    pub log: Log,
}

/// `dns:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// At least one address; port 0 takes any free one.
    pub listen: Vec<SocketAddr>,
    /// Seconds: the TTL of records whose service names none.
    pub ttl: u32,
    /// Seconds: how long "no such instance" may be cached (the SOA minimum, RFC 2308 §4).
    pub negative_ttl: u32,
    /// Octets: the largest UDP answer (RFC 6891 §6.2.3), from [`MIN_UDP_PAYLOAD`] to [`MAX_UDP_PAYLOAD`].
    pub udp_payload: u16,
    /// How many answers a network gets over UDP; `None`: as many as it asks for.
    pub rate_limit: Option<ResponseRate>,
    /// Where questions are taken over TLS, HTTPS and QUIC; `None`: nowhere.
    pub encrypted: Option<Encrypted>,
}

/// `dns.encrypted:`; at least one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encrypted {
    /// DNS over TLS (RFC 7858); port 0 takes any free one.
    pub tls: Vec<SocketAddr>,
    /// DNS over HTTPS (RFC 8484).
    pub https: Vec<SocketAddr>,
    /// DNS over QUIC (RFC 9250).
    pub quic: Vec<SocketAddr>,
    /// The server's certificate and those between it and an authority, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
}

/// `resolver:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// Who is asked.
    pub upstreams: Upstreams,
    /// Who is asked for names at and below a suffix, at least one each; no two suffixes alike.
    pub routes: Vec<(Name, Vec<UpstreamAddress>)>,
    /// Who may use recursion; nobody: there is no resolver.
    pub allow: Vec<ClientRange>,
    /// What is remembered.
    pub cache: Cache,
}

/// `resolver.cache:`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Octets of memory.
    pub size: usize,
    /// How long replies are good for.
    pub bounds: Bounds,
}

/// Who is asked for names outside our zones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstreams {
    /// The servers of the system's resolv.conf, less our own addresses.
    System,
    /// These: at least one, no port 0.
    Servers(Vec<UpstreamAddress>),
}

/// `gossip:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gossip {
    /// Where other nodes' packets arrive.
    pub listen: SocketAddr,
    /// Nodes to join.
    pub join: Vec<Endpoint>,
    /// How packets are protected.
    pub seal: Seal,
    /// From one round to the next.
    pub interval: Duration,
    /// How long the instances of nodes that went out of reach together are still answered, as stale; zero: not at all.
    pub hold: Duration,
}

/// How gossip packets are protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seal {
    /// With the key in this file.
    KeyFile(PathBuf),
    /// Not at all: whoever reaches the address can announce instances. Only on loopback, or with `insecure: true`.
    Open,
}

/// `http:`
///
/// An address that is not loopback needs tokens, or `insecure: true`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// None: no HTTP API over TCP. Port 0 takes any free one.
    pub listen: Vec<SocketAddr>,
    /// A Unix socket, which needs no tokens; `None`: none.
    pub socket: Option<PathBuf>,
    /// The folder of the files with tokens; `None`: whoever reaches the API may use it.
    pub tokens_dir: Option<PathBuf>,
    /// The server's certificate with those between it and an authority, and its key, in PEM; `None`: no TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// `checks:`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checks {
    /// Whether service files may run programs.
    pub allow_exec: bool,
}

/// `log:`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least important events that are shown.
    pub level: Level,
    /// How they look.
    pub format: Format,
}

/// How important an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something does not work.
    Error,
    /// Something may stop working.
    Warn,
    /// What an operator wants to read.
    Info,
    /// What somebody looking for a fault wants to read.
    Debug,
    /// Everything.
    Trace,
}

/// How the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// What the host says of itself: core asks no system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// The host's name; its first label is the node's name where the file has none.
    pub host_name: String,
    /// The address of the default route's interface, else a loopback one.
    pub default_address: IpAddr,
}

/// The keys at the top.
pub const CONFIG_KEYS: &[&str] = &[
    "node",
    "domain",
    "alias_domains",
    "datacenter",
    "meta",
    "advertise",
    "data_dir",
    "services_dir",
    "zones_dir",
    "dns",
    "resolver",
    "gossip",
    "http",
    "checks",
    "log",
];

/// Where the configuration is without `--config`.
pub const DEFAULT_PATH: &str = "/etc/muster/muster.yaml";
/// The zone: `local` alone belongs to multicast DNS (RFC 6762 §3), a name below it is what the field is used to.
const DEFAULT_DOMAIN: &str = "service.local";
/// What Consul calls a site without a name.
const DEFAULT_DATACENTER: &str = "dc1";
/// Where a Linux daemon keeps its state (FHS 3.0 §5.8).
const DEFAULT_DATA_DIR: &str = "/var/lib/muster";
/// Beside the configuration, in a folder that packages may add to.
const DEFAULT_SERVICES_DIR: &str = "/etc/muster/services.d";
/// Beside the configuration.
const DEFAULT_ZONES_DIR: &str = "/etc/muster/zones";
/// Nothing is open to other hosts before somebody says so.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// DNS (RFC 1035 §4.2).
pub const DNS_PORT: u16 = 53;
/// DNS over TLS (RFC 7858 §3.1), and over QUIC (RFC 9250 §4.1.1).
pub const TLS_PORT: u16 = 853;
/// DNS over HTTPS (RFC 8484 §4).
pub const HTTPS_PORT: u16 = 443;
/// Serf's and Consul's: firewalls that know one of them know ours.
pub const GOSSIP_PORT: u16 = 7946;
/// Consul's.
pub const HTTP_PORT: u16 = 8500;
/// Seconds. Short, since instances come and go, yet long enough for a client's burst to cost one question.
const DEFAULT_TTL: u32 = 5;
/// Seconds. A client that looked a moment too early must not wait for long.
const DEFAULT_NEGATIVE_TTL: u32 = 1;
/// Octets: fits one unfragmented packet over any path (DNS Flag Day 2020).
const DEFAULT_UDP_PAYLOAD: u16 = 1232;
/// Octets that every client takes (RFC 1035 §4.2.1).
pub const MIN_UDP_PAYLOAD: u16 = 512;
/// Octets: beyond it answers arrive in so many fragments that TCP is the better choice (RFC 6891 §6.2.5).
pub const MAX_UDP_PAYLOAD: u16 = 4096;
/// Answers a second: more is a limit on nobody.
const MAX_RATE: u32 = 1_000_000;
/// Every other one: an honest client among attackers comes through at its second attempt (as in BIND, NSD and Knot).
const DEFAULT_SLIP: u8 = 2;
/// As in BIND, NSD and Knot, so that what is known of their limits holds for ours: a site's network of IPv4,
const DEFAULT_IPV4_PREFIX: u8 = 24;
/// and of IPv6.
const DEFAULT_IPV6_PREFIX: u8 = 56;
/// Fast enough for a flip to cross 50 nodes in under half a second.
const DEFAULT_GOSSIP_INTERVAL: Duration = Duration::from_millis(200);
/// Below it a node's packets cost more than they tell.
const MIN_GOSSIP_INTERVAL: Duration = Duration::from_millis(50);
/// Beyond it a crashed node stays in answers for most of a minute.
const MAX_GOSSIP_INTERVAL: Duration = Duration::from_secs(10);
/// Long enough for a switch that restarts, short enough that nobody relies on what may be long dead.
const DEFAULT_HOLD: Duration = Duration::from_secs(10 * 60);
/// Beyond it nothing of what was known is of use.
const MAX_HOLD: Duration = Duration::from_secs(24 * 60 * 60);
/// Our own host, and networks that the Internet cannot reach: no open resolver by default.
const DEFAULT_ALLOW: [ClientRange; 2] = [ClientRange::Loopback, ClientRange::Private];
/// Megabytes for what upstreams said: some 100,000 names.
const DEFAULT_CACHE: u32 = 32;
/// Megabytes: beyond it a host has no room for anything else.
const MAX_CACHE: u32 = 16_384;
/// Seconds. A day, as in unbound: whoever moves a name should not wait for longer.
const DEFAULT_MAX_TTL: u32 = 24 * 60 * 60;
/// Seconds. An hour, as in unbound; RFC 2308 §5 asks for at most three.
const DEFAULT_MAX_NEGATIVE_TTL: u32 = 60 * 60;
/// Seconds. RFC 8767 §5 asks for one to three days.
const DEFAULT_STALE: u32 = 24 * 60 * 60;
/// Octets of a zone's name in wire form: `_PORT._tcp.SERVICE` has to fit before it.
const MAX_ZONE: usize = MAX_NAME - (64 + 5 + 64);

/// The configuration of `muster agent --dev`, with paths below the folder it is given.
const DEV: &str = "
advertise: 127.0.0.1
data_dir: data
services_dir: services.d
zones_dir: zones
dns: {listen: [127.0.0.1:8600]}
http: {listen: [127.0.0.1:8500]}
gossip: {listen: 127.0.0.1:7946}
";
/// The node's name with `--dev` on a host whose own name is no label.
const DEV_NODE: &str = "dev";

impl Config {
    /// Reads the texts of one configuration in the order in which they are to be merged: tables key by key, and of
    /// everything else the later one stays. No text, or an empty one, leaves the defaults.
    ///
    /// Relative paths begin at the folder of the file that names them.
    ///
    /// # Errors
    /// All problems of all files, sorted by place. What a later file replaces is not looked at; nor is anything else
    /// while a file cannot be read as YAML, since what it says may be what the others lack.
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
        let reader = Reader::new(&documents);
        let roots = documents.iter().map(|document| document.root().clone());
        let config = roots.reduce(overlay).and_then(|root| parse::config(&reader, &root, environment));
        reader.finish(config).map(|(config, _)| config)
    }

    /// What `--dev` needs no file for: loopback only, high ports, everything on disk below `folder`.
    ///
    /// # Errors
    /// None that a user could cause; the type is [`parse`](Self::parse)'s.
    pub fn dev(folder: &Path, environment: &Environment) -> Result<Self, Vec<Diagnostic>> {
        let mut environment = environment.clone();
        if Label::parse(first_label(&environment.host_name)).is_err() {
            environment.host_name = DEV_NODE.to_owned();
        }
        Self::parse([(folder.join("dev.yaml").as_path(), DEV.as_bytes())], &environment)
    }
}

fn first_label(host_name: &str) -> &str {
    host_name.split('.').next().unwrap_or_default()
}
