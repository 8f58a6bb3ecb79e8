//! The configuration: from the texts of `muster.yaml` to values that the agent can act on without asking again.
//!
//! Every key of every part is read and checked here, and a [`Config`] is made only if nothing was wrong. Defaults are
//! the constants below, each with its reason.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    diagnostic::Problem,
    model::{
        name::{Label, MAX_NAME, Name},
        service::{Endpoint, MAX_ADDRESSES},
    },
    yaml::{
        Document,
        reader::{Reader, Table, quote},
        tree::{Node, Value, overlay},
    },
};

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
}

/// `resolver:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// Who is asked.
    pub upstreams: Upstreams,
    /// Who is asked for names at and below a suffix, at least one each; no two suffixes alike.
    pub routes: Vec<(Name, Vec<SocketAddr>)>,
    /// Who may use recursion.
    pub allow: Vec<Allow>,
}

/// Who is asked for names outside our zones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstreams {
    /// The servers of the system's resolv.conf, less our own addresses.
    System,
    /// These: at least one, no port 0.
    Servers(Vec<SocketAddr>),
}

/// Clients that may use recursion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allow {
    /// 127.0.0.0/8 and ::1.
    Loopback,
    /// The networks of RFC 1918 and RFC 4193, and link-local addresses.
    Private,
    /// Everybody.
    Any,
    /// The addresses whose first `prefix` bits are `address`'s; its other bits are zero.
    Network {
        /// The first address.
        address: IpAddr,
        /// At most 32 or 128.
        prefix: u8,
    },
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
/// This version has no tokens for the API, so that whoever reaches it may use it. An address that is not loopback
/// therefore needs `insecure: true`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// None: no HTTP API. Port 0 takes any free one.
    pub listen: Vec<SocketAddr>,
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
/// Fast enough for a flip to cross 50 nodes in under half a second.
const DEFAULT_GOSSIP_INTERVAL: Duration = Duration::from_millis(200);
/// Below it a node's packets cost more than they tell.
const MIN_GOSSIP_INTERVAL: Duration = Duration::from_millis(50);
/// Beyond it a crashed node stays in answers for most of a minute.
const MAX_GOSSIP_INTERVAL: Duration = Duration::from_secs(10);
/// Our own host, and networks that the Internet cannot reach: no open resolver by default.
const DEFAULT_ALLOW: [Allow; 2] = [Allow::Loopback, Allow::Private];
/// Octets that names put before the zone, at most: `_PORT._tcp.SERVICE`.
const MAX_IN_ZONE: usize = 64 + 5 + 64;

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
    ) -> Result<Self, Vec<Problem>> {
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
        let config = roots.reduce(overlay).and_then(|root| read_config(&reader, &root, environment));
        reader.finish(config).map(|(config, _)| config)
    }

    /// What `--dev` needs no file for: loopback only, high ports, everything on disk below `folder`.
    ///
    /// # Errors
    /// None that a user could cause; the type is [`parse`](Self::parse)'s.
    pub fn dev(folder: &Path, environment: &Environment) -> Result<Self, Vec<Problem>> {
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

/// The keys at the top.
pub const CONFIG_KEYS: &[&str] = &[
    "node",
    "domain",
    "alias_domains",
    "datacenter",
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

fn read_config(reader: &Reader<'_, '_>, root: &Node<'_>, environment: &Environment) -> Option<Config> {
    let empty = Node { id: root.id, value: Value::Table(Vec::new()) };
    let root = if matches!(root.value, Value::Null) { &empty } else { root };
    let table = reader.table(root, "the configuration", CONFIG_KEYS)?;
    let part = |key, known| read_part(reader, &table, &empty, key, known);
    let path = |key, default: &str| match table.get(key) {
        Some(node) => reader.path(node),
        None => Some(PathBuf::from(default)),
    };

    let node = read_node(reader, &table, environment);
    let zones = read_zones(reader, &table);
    let datacenter = match table.get("datacenter") {
        Some(node) => reader.label(node, "a datacenter's name"),
        None => Label::parse(DEFAULT_DATACENTER).ok(),
    };
    let advertise = read_advertise(reader, &table, environment.default_address);
    let (data_dir, services_dir) = (path("data_dir", DEFAULT_DATA_DIR), path("services_dir", DEFAULT_SERVICES_DIR));
    let zones_dir = path("zones_dir", DEFAULT_ZONES_DIR);
    let dns = part("dns", &["listen", "ttl", "negative_ttl", "udp_payload"]).map(|part| read_dns(reader, &part));
    let resolver = part("resolver", &["upstreams", "routes", "allow"]).map(|part| read_resolver(reader, &part));
    let gossip = part("gossip", &["listen", "join", "key_file", "interval", "insecure"]);
    let gossip = gossip.map(|part| read_gossip(reader, &part));
    let http = part("http", &["listen", "insecure"]).map(|part| read_http(reader, &part));
    let checks = part("checks", &["allow_exec"]).map(|part| read_checks(reader, &part));
    let log = part("log", &["level", "format"]).map(|part| read_log(reader, &part));

    let (domain, alias_domains) = zones?;
    Some(Config {
        node: node?,
        domain,
        alias_domains,
        datacenter: datacenter?,
        advertise,
        data_dir: data_dir?,
        services_dir: services_dir?,
        zones_dir: zones_dir?,
        dns: dns?,
        resolver: resolver?,
        gossip: gossip?,
        http: http?,
        checks: checks?,
        log: log?,
    })
}

/// A table below the top; where the file has none, an empty one.
fn read_part<'n, 't>(
    reader: &Reader<'_, '_>,
    table: &Table<'n, 't>,
    empty: &'n Node<'t>,
    key: &str,
    known: &[&str],
) -> Option<Table<'n, 't>> {
    reader.table(table.get(key).unwrap_or(empty), &format!("the table `{key}`"), known)
}

fn read_node(reader: &Reader<'_, '_>, table: &Table<'_, '_>, environment: &Environment) -> Option<Label> {
    if let Some(node) = table.get("node") {
        return reader.label(node, "a node's name");
    }
    let host = first_label(&environment.host_name);
    match Label::parse(host) {
        Ok(label) => Some(label),
        Err(error) => {
            let message = format!("the host name {} cannot be the node's: {error}", quote(host));
            reader.error_with_hint(table.id, message, "set `node`");
            None
        }
    }
}

/// The discovery zone and its aliases.
fn read_zones(reader: &Reader<'_, '_>, table: &Table<'_, '_>) -> Option<(Name, Vec<Name>)> {
    let domain = match table.get("domain") {
        Some(node) => read_zone(reader, node),
        None => Name::parse(DEFAULT_DOMAIN).ok(),
    };
    let mut zones: Vec<Name> = domain.iter().cloned().collect();
    let aliases = table.get("alias_domains").map(|node| reader.one_or_list(node)).unwrap_or_default();
    for node in aliases {
        let Some(alias) = read_zone(reader, node) else { continue };
        match zones.iter().find(|zone| alias.within(zone).is_some() || zone.within(&alias).is_some()) {
            Some(zone) if *zone == alias => reader.error(node.id, format!("the zone `{alias}` is here already")),
            Some(zone) => {
                let hint = "one name cannot be in two zones";
                reader.error_with_hint(node.id, format!("the zones `{alias}` and `{zone}` overlap"), hint);
            }
            None => zones.push(alias),
        }
    }
    let aliases = zones.split_off(domain.is_some().into());
    Some((domain?, aliases))
}

fn read_zone(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<Name> {
    let zone = reader.domain(node, "a zone's name")?;
    let most = MAX_NAME - MAX_IN_ZONE;
    if zone.wire().len() > most {
        let message = format!("the zone's name has {} octets in wire form, more than {most}", zone.wire().len());
        reader.error_with_hint(node.id, message, "names of ports and services have to fit before it");
        return None;
    }
    Some(zone)
}

fn read_advertise(reader: &Reader<'_, '_>, table: &Table<'_, '_>, default: IpAddr) -> Vec<IpAddr> {
    let Some(node) = table.get("advertise") else { return vec![default] };
    let items = reader.one_or_list(node);
    let mut addresses = Vec::new();
    if items.is_empty() {
        reader.mismatch(node, "at least one IP address");
    }
    if reader.is_within(node.id, items.len(), MAX_ADDRESSES, "addresses") {
        for item in items {
            match reader.host_address(item) {
                Some(again) if addresses.contains(&again) => {
                    reader.error(item.id, format!("the address `{again}` is here already"));
                }
                address => addresses.extend(address),
            }
        }
    }
    addresses
}

fn read_dns(reader: &Reader<'_, '_>, part: &Table<'_, '_>) -> Dns {
    let ttl = |key, default| part.get(key).and_then(|node| reader.ttl(node)).unwrap_or(default);
    let listen = match part.get("listen") {
        Some(node) => {
            if reader.one_or_list(node).is_empty() {
                reader.mismatch(node, "at least one address");
            }
            read_listen(reader, node, DNS_PORT)
        }
        None => vec![SocketAddr::new(LOOPBACK, DNS_PORT)],
    };
    let payload = part.get("udp_payload");
    let payload = payload.and_then(|node| reader.integer(node, "a size", MIN_UDP_PAYLOAD..=MAX_UDP_PAYLOAD));
    Dns {
        listen,
        ttl: ttl("ttl", DEFAULT_TTL),
        negative_ttl: ttl("negative_ttl", DEFAULT_NEGATIVE_TTL),
        udp_payload: payload.unwrap_or(DEFAULT_UDP_PAYLOAD),
    }
}

/// Addresses to listen on: no two alike, unless the system chooses the port.
fn read_listen(reader: &Reader<'_, '_>, node: &Node<'_>, default_port: u16) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for item in reader.one_or_list(node) {
        match reader.socket_address(item, default_port) {
            Some(again) if again.port() > 0 && addresses.contains(&again) => {
                reader.error(item.id, format!("the address `{again}` is here already"));
            }
            address => addresses.extend(address),
        }
    }
    addresses
}

fn read_resolver(reader: &Reader<'_, '_>, part: &Table<'_, '_>) -> Resolver {
    let upstreams = part.get("upstreams").map(|node| read_servers(reader, node)).unwrap_or_default();
    let mut routes: Vec<(Name, Vec<SocketAddr>)> = Vec::new();
    let entries =
        part.get("routes").and_then(|node| reader.entries(node, "a table such as `{corp.example: 10.0.0.2}`"));
    for entry in entries.unwrap_or_default() {
        let suffix = reader.domain_of(entry.id, "a suffix of names", &entry.key);
        let servers = read_servers(reader, &entry.value);
        if servers.is_empty() && reader.one_or_list(&entry.value).is_empty() {
            reader.mismatch(&entry.value, "at least one address");
        }
        let Some(suffix) = suffix else { continue };
        if routes.iter().any(|(other, _)| *other == suffix) {
            reader.error(entry.id, format!("the suffix `{suffix}` is here already"));
        } else {
            routes.push((suffix, servers));
        }
    }
    let allow = match part.get("allow") {
        Some(node) => reader.one_or_list(node).iter().filter_map(|item| read_allow(reader, item)).collect(),
        None => DEFAULT_ALLOW.to_vec(),
    };
    let upstreams = if upstreams.is_empty() { Upstreams::System } else { Upstreams::Servers(upstreams) };
    Resolver { upstreams, routes, allow }
}

fn read_servers(reader: &Reader<'_, '_>, node: &Node<'_>) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for item in reader.one_or_list(node) {
        match reader.socket_address(item, DNS_PORT) {
            Some(server) if server.port() == 0 || server.ip().is_unspecified() => {
                reader.mismatch(item, "the address of a DNS server");
            }
            Some(again) if servers.contains(&again) => {
                reader.error(item.id, format!("the server `{again}` is here already"));
            }
            server => servers.extend(server),
        }
    }
    servers
}

fn read_allow(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<Allow> {
    const WHAT: &str = "`loopback`, `private`, `any` or a network such as `10.0.0.0/8`";
    let text = reader.line(node, WHAT)?;
    match text.as_str() {
        "loopback" => return Some(Allow::Loopback),
        "private" => return Some(Allow::Private),
        "any" => return Some(Allow::Any),
        _ => {}
    }
    let Some((address, prefix)) = parse_network(&text) else {
        reader.mismatch(node, WHAT);
        return None;
    };
    let first = first_address(address, prefix);
    if first != address {
        let hint = format!("did you mean `{first}/{prefix}`?");
        reader.mismatch_with_hint(node, "the first address of a network", hint);
        return None;
    }
    Some(Allow::Network { address, prefix })
}

/// `10.0.0.0/8`, or an address alone.
fn parse_network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: IpAddr = address.parse().ok()?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(digits) => digits.parse().ok().filter(|prefix| *prefix <= bits)?,
        None => bits,
    };
    Some((address, prefix))
}

fn first_address(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & !u32::MAX.checked_shr(prefix.into()).unwrap_or(0)).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::MAX.checked_shr(prefix.into()).unwrap_or(0)).into()),
    }
}

fn read_gossip(reader: &Reader<'_, '_>, part: &Table<'_, '_>) -> Gossip {
    let listen = part.get("listen").and_then(|node| reader.socket_address(node, GOSSIP_PORT));
    let listen = listen.unwrap_or(SocketAddr::new(LOOPBACK, GOSSIP_PORT));
    let join = part.get("join").map(|node| reader.one_or_list(node)).unwrap_or_default();
    let join = join.iter().filter_map(|node| reader.endpoint(node, Some(GOSSIP_PORT))).collect();
    let key_file = part.get("key_file").map(|node| reader.path(node));
    let insecure = part.get("insecure").and_then(|node| reader.boolean(node)).unwrap_or(false);
    let interval = part.get("interval");
    let interval = interval.and_then(|node| reader.duration(node, MIN_GOSSIP_INTERVAL..=MAX_GOSSIP_INTERVAL));
    if let Some(node) = part.get("listen")
        && !listen.ip().is_loopback()
        && key_file.is_none()
        && !insecure
    {
        let message = format!("gossip on `{listen}` without a key: whoever reaches it could announce instances");
        reader.error_with_hint(node.id, message, "set `key_file`, or `insecure: true` if the network is trusted");
    }
    let seal = key_file.flatten().map_or(Seal::Open, Seal::KeyFile);
    Gossip { listen, join, seal, interval: interval.unwrap_or(DEFAULT_GOSSIP_INTERVAL) }
}

fn read_http(reader: &Reader<'_, '_>, part: &Table<'_, '_>) -> Http {
    let listen = match part.get("listen") {
        Some(node) => read_listen(reader, node, HTTP_PORT),
        None => vec![SocketAddr::new(LOOPBACK, HTTP_PORT)],
    };
    let insecure = part.get("insecure").and_then(|node| reader.boolean(node)).unwrap_or(false);
    if let Some(node) = part.get("listen")
        && let Some(open) = listen.iter().find(|address| !address.ip().is_loopback())
        && !insecure
    {
        let message = format!("the HTTP API on `{open}` without tokens: whoever reaches it could use it");
        reader.error_with_hint(
            node.id,
            message,
            "listen on 127.0.0.1, or set `insecure: true` if the network is trusted",
        );
    }
    Http { listen }
}

fn read_checks(reader: &Reader<'_, '_>, part: &Table<'_, '_>) -> Checks {
    Checks { allow_exec: part.get("allow_exec").and_then(|node| reader.boolean(node)).unwrap_or(false) }
}

fn read_log(reader: &Reader<'_, '_>, part: &Table<'_, '_>) -> Log {
    let levels = [
        ("error", Level::Error),
        ("warn", Level::Warn),
        ("info", Level::Info),
        ("debug", Level::Debug),
        ("trace", Level::Trace),
    ];
    let formats = [("text", Format::Text), ("json", Format::Json)];
    Log {
        level: part.get("level").and_then(|node| reader.word(node, &levels)).unwrap_or(Level::Info),
        format: part.get("format").and_then(|node| reader.word(node, &formats)).unwrap_or(Format::Text),
    }
}
