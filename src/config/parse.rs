//! Parser of the configuration, one function per table.

use crate::model::member::GOSSIP_PORT;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    num::NonZero,
    path::PathBuf,
    time::Duration,
};

use super::{
    Advertise, AllowExec, CONFIG_KEYS, Checks, Config, DEFAULT_DATA_DIR, DEFAULT_DATACENTER, DEFAULT_DNSSEC_KEYS_DIR,
    DEFAULT_GOSSIP_INTERVAL, DEFAULT_HOLD, DEFAULT_IPV4_PREFIX, DEFAULT_IPV6_PREFIX, DEFAULT_NEGATIVE_TTL,
    DEFAULT_RATE_LIMIT, DEFAULT_RESTART_HOLD, DEFAULT_SERVICES_DIR, DEFAULT_SLIP, DEFAULT_TTL, DEFAULT_UDP_PAYLOAD,
    DEFAULT_ZONES_DIR, DNS_PORT, Dns, Encrypted, Environment, Format, Gossip, HTTP_PORT, HTTPS_PORT, Http, LOOPBACK,
    Level, Log, MAX_GOSSIP_INTERVAL, MAX_HOLD, MAX_RATE, MAX_UDP_PAYLOAD, MIN_GOSSIP_INTERVAL, MIN_UDP_PAYLOAD,
    SOCKET_NAME, Seal, TLS_PORT, first_label,
};
use crate::{
    diagnostic::quote,
    files::check::read_node_checks,
    model::{
        bounds,
        consul_version::ConsulVersion,
        dns_limits::{RateScope, ResponseRate},
        host_addresses::Family,
        name::{Label, Name},
        nearest::Policy,
        service::MAX_ADDRESSES,
    },
    yaml::{
        reader::{Reader, Table},
        tree::{Node, Value},
    },
};

mod dnstap;
mod dynamic;
mod resolver;
mod secondary;
mod store;
mod transfer;
mod zones;

use self::{
    dnstap::read_dnstap,
    dynamic::read_dynamic,
    resolver::{RESOLVER_KEYS, read_resolver},
    secondary::{check_not_dynamic, read_secondary_zones},
    store::{OtherListeners, read_store},
    transfer::read_transfer,
    zones::{Zones, check_datacenter, read_zones},
};

/// Keys of `dns`.
const DNS_KEYS: &[&str] = &[
    "listen",
    "ttl",
    "negative_ttl",
    "nearest",
    "min_healthy",
    "udp_payload",
    "rate_limit",
    "only_passing",
    "ptr_domain",
    "encrypted",
    "keys_dir",
    "transfer",
    "dynamic",
    "secondary",
    "dnssec",
    "dnssec_keys_dir",
    "dnstap",
];
/// Keys of `http`.
const HTTP_KEYS: &[&str] = &["listen", "socket", "tokens_dir", "certificate", "key", "insecure", "consul_version"];
/// Value of `dns.rate_limit` without a limit; `null` is the default.
const RATE_OFF: &str = "off";

/// Value of `checks.allow_exec` with which clients of the HTTP API may register commands, too.
const EXEC_BY_API: &str = "api";

/// Reads the whole configuration.
pub(super) fn config(reader: &Reader<'_, '_>, root: &Node<'_>, environment: &Environment) -> Option<Config> {
    let empty = Node { id: root.id, value: Value::Table(Vec::new()) };
    let root = if matches!(root.value, Value::Null) { &empty } else { root };
    let table = reader.table(root, "the configuration", CONFIG_KEYS)?;
    let part = |key, known| table_below(reader, &table, &empty, key, known);
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
    if let (Some(datacenter), Some(zones)) = (&datacenter, &zones) {
        check_datacenter(reader, table.get("datacenter"), datacenter, zones);
    }
    let zone = table.get("zone").and_then(|node| reader.label(node, "a zone's name"));
    let meta = read_meta(reader, &table);
    let (data_dir, services_dir) = (path("data_dir", DEFAULT_DATA_DIR), path("services_dir", DEFAULT_SERVICES_DIR));
    let zones_dir = path("zones_dir", DEFAULT_ZONES_DIR);
    let dns_table = part("dns", DNS_KEYS);
    let dns = dns_table.as_ref().map(|part| read_dns(reader, part, zones.as_ref()));
    let resolver = part("resolver", RESOLVER_KEYS).map(|part| read_resolver(reader, &part, &empty, zones.as_ref()));
    let gossip_table = part("gossip", &["listen", "join", "key_file", "interval", "hold", "restart_hold", "insecure"]);
    let gossip = gossip_table.as_ref().map(|part| read_gossip(reader, part));
    let advertise = gossip.as_ref().map(|gossip| match table.get("advertise") {
        Some(node) => Advertise::Configured(read_advertise(reader, node, gossip.listen)),
        None => Advertise::select(gossip.listen.ip(), &environment.addresses, environment.in_use),
    });
    let http_table = part("http", HTTP_KEYS);
    if let (Some(http), Some(table), Some(gossip)) = (&http_table, &gossip_table, &gossip) {
        check_tokens(reader, http, table, gossip.listen);
    }
    let has_tokens = http_table.as_ref().is_some_and(|http| http.get("tokens_dir").is_some());
    let http = http_table.map(|part| read_http(reader, &part, environment));
    let store = table.get("store").and_then(|node| {
        let dns = dns.as_ref().and_then(Option::as_ref);
        let others = OtherListeners { dns, gossip: gossip.as_ref(), http: http.as_ref() };
        read_store(reader, node, has_tokens, &others)
    });
    let dynamic = dns_table.as_ref().and_then(|part| {
        let voters = store.as_ref().map(|store| &store.voters[..]);
        let has_keys = part.get("keys_dir").is_some();
        Some(read_dynamic(reader, part.get("dynamic")?, has_keys, zones.as_ref(), voters))
    });
    if let (Some(part), Some(Some(dns)), Some(dynamic)) = (&dns_table, &dns, &dynamic) {
        check_not_dynamic(reader, part, &dns.secondary, dynamic);
    }
    let checks = part("checks", &["allow_exec", "allow_link_local", "node"]).map(|part| read_checks(reader, &part));
    let log = part("log", &["level", "format"]).map(|part| read_log(reader, &part));

    let Zones { domain, aliases } = zones?;
    Some(Config {
        node: node?,
        domain,
        alias_domains: aliases,
        datacenter: datacenter?,
        zone,
        meta,
        advertise: advertise?,
        data_dir: data_dir?,
        services_dir: services_dir?,
        zones_dir: zones_dir?,
        dns: Dns { dynamic: dynamic.unwrap_or_default(), ..dns?? },
        resolver: resolver?,
        gossip: gossip?,
        http: http?,
        store,
        checks: checks?,
        log: log?,
    })
}

/// Reads a nested table, or `empty` if it is missing.
fn table_below<'n, 't>(
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
            let message = format!("the host name {} is not a valid node name: {error}", quote(host));
            reader.error_with_hint(table.id, message, "set `node`");
            None
        }
    }
}

fn read_meta(reader: &Reader<'_, '_>, table: &Table<'_, '_>) -> BTreeMap<String, String> {
    let Some(node) = table.get("meta") else { return BTreeMap::new() };
    let meta = reader.meta(node);
    if let Err(fault) = bounds::node_meta(&meta) {
        reader.error_with_hint(node.id, fault.to_string(), "every node stores the `meta` of all nodes");
    }
    meta
}

/// Reads addresses that other hosts can use, if gossip at `listen` is not loopback-only.
fn read_advertise(reader: &Reader<'_, '_>, node: &Node<'_>, listen: SocketAddr) -> Vec<IpAddr> {
    let items = reader.one_or_list(node);
    let mut addresses = Vec::new();
    if items.is_empty() {
        reader.mismatch(node, "at least one IP address");
    }
    if reader.is_within(node.id, items.len(), MAX_ADDRESSES, "addresses") {
        for item in items {
            match reader.host_address(item) {
                Some(again) if addresses.contains(&again) => {
                    reader.error(item.id, format!("duplicate address `{again}`"));
                }
                Some(own) if !listen.ip().is_loopback() && is_of_one_host(own) => {
                    let message = format!("other hosts cannot reach `{own}`, and `gossip.listen` is `{listen}`");
                    reader.error_with_hint(item.id, message, "set an address of the network, or omit `advertise`");
                }
                address => addresses.extend(address),
            }
        }
    }
    let family = Family::of(listen.ip());
    if listen.ip().is_unspecified()
        && !addresses.is_empty()
        && !addresses.iter().any(|address| Family::of(*address) == family)
    {
        let message = format!("no {} address, which peers need: `gossip.listen` is `{listen}`", family.as_str());
        let other = if family == Family::Ipv4 { "[::]" } else { "0.0.0.0" };
        reader.error_with_hint(node.id, message, format!("add one, or set `gossip.listen` to `{other}`"));
    }
    addresses
}

/// Reports whether an address has a meaning on one host only, or on one of its links.
fn is_of_one_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    }
}

fn read_dns(reader: &Reader<'_, '_>, part: &Table<'_, '_>, zones: Option<&Zones>) -> Option<Dns> {
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
    let ptr_domain = zones.and_then(|zones| zones.read_ptr_domain(reader, part.get("ptr_domain")));
    let dnssec = part.get("dnssec").map(|node| read_zone_names(reader, node)).unwrap_or_default();
    Some(Dns {
        listen,
        ttl: ttl("ttl", DEFAULT_TTL),
        negative_ttl: ttl("negative_ttl", DEFAULT_NEGATIVE_TTL),
        nearest: Policy {
            nearest: part.get("nearest").and_then(|node| reader.nearest(node)).unwrap_or_default(),
            min_healthy: part.get("min_healthy").and_then(|node| reader.min_healthy(node)).unwrap_or_default(),
        },
        udp_payload: payload.unwrap_or(DEFAULT_UDP_PAYLOAD),
        rate_limit: part.get("rate_limit").map_or(Some(DEFAULT_RATE_LIMIT), |node| read_rate(reader, node)),
        only_passing: part.get("only_passing").and_then(|node| reader.boolean(node)).unwrap_or(false),
        encrypted: part.get("encrypted").and_then(|node| read_encrypted(reader, node)),
        ptr_domain: ptr_domain?,
        keys_dir: part.get("keys_dir").and_then(|node| reader.path(node)),
        transfer: part
            .get("transfer")
            .map(|node| read_transfer(reader, node, part.get("keys_dir").is_some(), &dnssec))
            .unwrap_or_default(),
        // Needs the store, which is read last.
        dynamic: Vec::new(),
        secondary: part
            .get("secondary")
            .map(|node| read_secondary_zones(reader, node, part.get("keys_dir").is_some(), zones))
            .unwrap_or_default(),
        dnstap: part.get("dnstap").and_then(|node| read_dnstap(reader, node)),
        dnssec,
        dnssec_keys_dir: part
            .get("dnssec_keys_dir")
            .and_then(|node| reader.path(node))
            .unwrap_or_else(|| DEFAULT_DNSSEC_KEYS_DIR.into()),
    })
}

/// Reads the names of zones, without duplicates.
fn read_zone_names(reader: &Reader<'_, '_>, node: &Node<'_>) -> Vec<Name> {
    let mut zones: Vec<Name> = Vec::new();
    for node in reader.one_or_list(node) {
        let Some(text) = reader.line(node, "a zone's name") else { continue };
        match Name::parse(&text) {
            Ok(zone) if zones.contains(&zone) => reader.error(node.id, format!("duplicate zone `{zone}`")),
            Ok(zone) => zones.push(zone),
            Err(error) => reader.error(node.id, format!("`{text}` cannot be a zone's name: {error}")),
        }
    }
    zones
}

fn read_encrypted(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<Encrypted> {
    if matches!(node.value, Value::Null) {
        return None;
    }
    let table = reader.table(node, "the table `encrypted`", &["tls", "https", "quic", "certificate", "key"])?;
    let listen = |key, port| table.get(key).map(|node| read_listen(reader, node, port)).unwrap_or_default();
    let (tls, https, quic) = (listen("tls", TLS_PORT), listen("https", HTTPS_PORT), listen("quic", TLS_PORT));
    let path = |key, example| reader.required(&table, key, example).and_then(|node| reader.path(node));
    let certificate = path("certificate", "certificate: /etc/muster/tls/fullchain.pem");
    let (certificate, key) = (certificate?, path("key", "key: /etc/muster/tls/key.pem")?);
    let is_used = !(tls.is_empty() && https.is_empty() && quic.is_empty());
    is_used.then_some(Encrypted { tls, https, quic, certificate, key })
}

fn read_rate(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<ResponseRate> {
    if matches!(&node.value, Value::Text(text) if text == RATE_OFF) {
        return None;
    }
    let keys = ["per_second", "clients", "slip", "ipv4_prefix", "ipv6_prefix"];
    let table = reader.table(node, "the table `rate_limit`", &keys)?;
    let scopes = [("outside", RateScope::Outside), ("all", RateScope::All)];
    let scope = table.get("clients").and_then(|node| reader.word(node, &scopes));
    let number = |key, what, most: u8, default| {
        table.get(key).and_then(|node| reader.integer(node, what, 0..=most)).unwrap_or(default)
    };
    let per_second = reader.required(&table, "per_second", "per_second: 200");
    let per_second = per_second.and_then(|node| reader.integer(node, "a number of answers", 1..=MAX_RATE));
    Some(ResponseRate {
        scope: scope.unwrap_or(DEFAULT_RATE_LIMIT.scope),
        slip: number("slip", "a number of answers", u8::MAX, DEFAULT_SLIP),
        ipv4_prefix: number("ipv4_prefix", "a number of bits", 32, DEFAULT_IPV4_PREFIX),
        ipv6_prefix: number("ipv6_prefix", "a number of bits", 128, DEFAULT_IPV6_PREFIX),
        per_second: NonZero::new(per_second?)?,
    })
}

/// Reads listen addresses, without duplicates except for port 0.
fn read_listen(reader: &Reader<'_, '_>, node: &Node<'_>, default_port: u16) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for item in reader.one_or_list(node) {
        match reader.socket_address(item, default_port) {
            Some(again) if again.port() > 0 && addresses.contains(&again) => {
                reader.error(item.id, format!("duplicate address `{again}`"));
            }
            address => addresses.extend(address),
        }
    }
    addresses
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
    let hold = part.get("hold").and_then(|node| reader.duration(node, Duration::ZERO..=MAX_HOLD));
    let restart_hold = part.get("restart_hold");
    let restart_hold = restart_hold.and_then(|node| reader.duration(node, Duration::ZERO..=MAX_HOLD));
    if let Some(node) = part.get("listen")
        && !listen.ip().is_loopback()
        && key_file.is_none()
        && !insecure
    {
        let message = format!("gossip on `{listen}` without a key: any host that reaches it could announce instances");
        reader.error_with_hint(node.id, message, "set `key_file`, or `insecure: true` if the network is trusted");
    }
    let seal = key_file.flatten().map_or(Seal::Open, Seal::KeyFile);
    let interval = interval.unwrap_or(DEFAULT_GOSSIP_INTERVAL);
    Gossip {
        listen,
        join,
        seal,
        interval,
        hold: hold.unwrap_or(DEFAULT_HOLD),
        restart_hold: restart_hold.unwrap_or(DEFAULT_RESTART_HOLD),
    }
}

/// Reads `http` of a configuration with errors. Values that cannot be read have their default. `None`: the table is missing.
pub(super) fn http_despite_errors(reader: &Reader<'_, '_>, root: &Node<'_>, environment: &Environment) -> Option<Http> {
    let table = reader.table(root, "the configuration", CONFIG_KEYS)?;
    let part = reader.table(table.get("http")?, "the table `http`", HTTP_KEYS)?;
    let mut http = read_http(reader, &part, environment);
    // An empty list has no address on purpose.
    let is_unread = |node: &Node<'_>| http.listen.is_empty() && !reader.one_or_list(node).is_empty();
    if part.get("listen").is_some_and(is_unread) {
        http.listen = vec![SocketAddr::new(LOOPBACK, HTTP_PORT)];
    }
    Some(http)
}

fn read_http(reader: &Reader<'_, '_>, part: &Table<'_, '_>, environment: &Environment) -> Http {
    let listen = match part.get("listen") {
        Some(node) => read_listen(reader, node, HTTP_PORT),
        None => vec![SocketAddr::new(LOOPBACK, HTTP_PORT)],
    };
    let insecure = part.get("insecure").and_then(|node| reader.boolean(node)).unwrap_or(false);
    let path = |key| part.get(key).and_then(|node| reader.path(node));
    let default_socket = environment.runtime_dir.as_ref().map(|folder| folder.join(SOCKET_NAME));
    let (socket, tokens_dir) = (path("socket").or(default_socket), path("tokens_dir"));
    let tls = read_tls(reader, part);
    if let Some(node) = part.get("listen")
        && let Some(open) = listen.iter().find(|address| !address.ip().is_loopback())
        && !insecure
    {
        if tokens_dir.is_none() && part.get("tokens_dir").is_none() {
            let message = format!("the HTTP API on `{open}` without tokens: any host that reaches it could use it");
            let hint = "set `tokens_dir`, listen on 127.0.0.1, or set `insecure: true` if the network is trusted";
            reader.error_with_hint(node.id, message, hint);
        } else if tls.is_none() {
            let message = format!("the HTTP API on `{open}` without TLS: the tokens could be read on the network");
            let hint = "set `certificate` and `key`, or `insecure: true` if the network is trusted";
            reader.error_with_hint(node.id, message, hint);
        }
    }
    let consul_version = part.get("consul_version").and_then(|node| read_consul_version(reader, node));
    Http { listen, socket, tokens_dir, tls, consul_version }
}

/// Reads certificate chain and private key of a listener.
fn read_tls(reader: &Reader<'_, '_>, part: &Table<'_, '_>) -> Option<(PathBuf, PathBuf)> {
    match (part.get("certificate"), part.get("key")) {
        (None, None) => None,
        (Some(certificate), Some(key)) => reader.path(certificate).zip(reader.path(key)),
        (Some(node), None) | (None, Some(node)) => {
            reader.error(node.id, "TLS needs both `certificate` and `key`");
            None
        }
    }
}

fn read_consul_version(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<ConsulVersion> {
    let text = reader.line(node, "a version, such as `1.20.0`")?;
    match ConsulVersion::parse(&text) {
        Ok(version) => Some(version),
        Err(error) => {
            let message = format!("`consul_version` is not a semantic version: {}", quote(&text));
            reader.error_with_hint(node.id, message, error.to_string());
            None
        }
    }
}

/// Refuses tokens for the HTTP API if every local user can announce instances by gossip, which needs no token then. Gossip
/// without a key on another address than loopback is an error in any case.
fn check_tokens(reader: &Reader<'_, '_>, http: &Table<'_, '_>, gossip: &Table<'_, '_>, listen: SocketAddr) {
    let Some(tokens) = http.get("tokens_dir") else { return };
    let insecure = gossip.get("insecure").is_some_and(|node| matches!(node.value, Value::Bool(true)));
    if listen.ip().is_loopback() && !insecure && gossip.get("key_file").is_none() {
        let message = "tokens without a gossip key: every local user could join by gossip and announce instances";
        let hint = "set `gossip.key_file` to a file with a key, which `muster keygen` prints, or `gossip.insecure: true` if \
                    all local users are trusted";
        reader.error_with_hint(tokens.id, message, hint);
    }
}

fn read_checks(reader: &Reader<'_, '_>, part: &Table<'_, '_>) -> Checks {
    let flag = |key| part.get(key).and_then(|node| reader.boolean(node)).unwrap_or(false);
    let allow_exec = part.get("allow_exec").and_then(|node| read_allow_exec(reader, node)).unwrap_or_default();
    let checks = part.get("node").map(|node| read_node_checks(reader, node, allow_exec.in_files()));
    Checks { node: checks.unwrap_or_default().into(), allow_exec, allow_link_local: flag("allow_link_local") }
}

fn read_allow_exec(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<AllowExec> {
    match &node.value {
        Value::Bool(true) => Some(AllowExec::Files),
        Value::Bool(false) => Some(AllowExec::No),
        Value::Text(text) if text == EXEC_BY_API => Some(AllowExec::FilesAndApi),
        _ => {
            reader.mismatch(node, "`true`, `false` or `api`");
            None
        }
    }
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
