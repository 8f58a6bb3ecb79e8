//! Parser of the table `resolver`.

use std::net::{IpAddr, Ipv6Addr};

use super::{
    super::{
        Cache, DEFAULT_ALLOW, DEFAULT_CACHE, DEFAULT_MAX_NEGATIVE_TTL, DEFAULT_MAX_TTL, DEFAULT_STALE, DNS_PORT,
        MAX_CACHE, Resolver, Upstreams, Validation,
    },
    table_below,
    zones::Zones,
};
use crate::{
    model::{dns_limits::CacheTtls, name::Name, recursion_access::ClientRange, upstream_address::UpstreamAddress},
    yaml::{
        reader::{Reader, Table},
        tree::{Node, Value},
    },
};

/// Keys of the table.
pub(super) const RESOLVER_KEYS: &[&str] = &[
    "upstreams",
    "routes",
    "allow",
    "rebind_protection",
    "rebind_exceptions",
    "dnssec",
    "trust_anchors",
    "dnssec_insecure",
    "cache",
];

/// Reads the table. A route within one of the `zones` is an error, since it has no effect.
pub(super) fn read_resolver<'n, 't>(
    reader: &Reader<'_, '_>,
    part: &Table<'n, 't>,
    empty: &'n Node<'t>,
    zones: Option<&Zones>,
) -> Resolver {
    let upstreams = part.get("upstreams").map(|node| read_servers(reader, node)).unwrap_or_default();
    let mut routes: Vec<(Name, Vec<UpstreamAddress>)> = Vec::new();
    let entries =
        part.get("routes").and_then(|node| reader.entries(node, "a table such as `{corp.example: 10.0.0.2}`"));
    for entry in entries.unwrap_or_default() {
        let suffix = reader.domain_of(entry.id, "a domain suffix", &entry.key);
        let servers = read_servers(reader, &entry.value);
        if servers.is_empty() && reader.one_or_list(&entry.value).is_empty() {
            reader.mismatch(&entry.value, "at least one address");
        }
        let Some(suffix) = suffix else { continue };
        if let Some(zone) = zones.and_then(|zones| zones.around(&suffix)) {
            let message =
                format!("the route for `{suffix}` has no effect: names in the zone `{zone}` are never forwarded");
            reader.error_with_hint(entry.id, message, "remove the route, or the zone from `alias_domains`");
        }
        if routes.iter().any(|(other, _)| *other == suffix) {
            reader.error(entry.id, format!("duplicate suffix `{suffix}`"));
        } else {
            routes.push((suffix, servers));
        }
    }
    let allow = match part.get("allow") {
        Some(node) => reader.one_or_list(node).iter().filter_map(|item| read_allow(reader, item)).collect(),
        None => DEFAULT_ALLOW.to_vec(),
    };
    let upstreams = if upstreams.is_empty() { Upstreams::System } else { Upstreams::Servers(upstreams) };
    let rebind_protection = read_rebind_protection(reader, part);
    let validation = read_validation(reader, part);
    Resolver { upstreams, routes, allow, rebind_protection, validation, cache: read_cache(reader, part, empty) }
}

/// Reads the settings of validation; `None` if it is off.
fn read_validation(reader: &Reader<'_, '_>, part: &Table<'_, '_>) -> Option<Validation> {
    let words = [("off", false), ("validate", true)];
    let is_on = part.get("dnssec").and_then(|node| reader.word(node, &words)).unwrap_or(false);
    for key in ["trust_anchors", "dnssec_insecure"] {
        let node = part.get(key).filter(|node| !is_on && !reader.one_or_list(node).is_empty());
        if let Some(node) = node {
            reader.error_with_hint(node.id, format!("`{key}` without validation"), "set `dnssec: validate`");
        }
    }
    let insecure = part.get("dnssec_insecure").map(|node| reader.one_or_list(node)).unwrap_or_default();
    let insecure = insecure.iter().filter_map(|item| reader.domain(item, "a domain suffix")).collect();
    let trust_anchors = part.get("trust_anchors").and_then(|node| reader.path(node));
    is_on.then_some(Validation { trust_anchors, insecure })
}

/// Reads the exceptions of the protection against DNS rebinding; `None` if it is off.
fn read_rebind_protection(reader: &Reader<'_, '_>, part: &Table<'_, '_>) -> Option<Vec<Name>> {
    let is_on = part.get("rebind_protection").and_then(|node| reader.boolean(node)).unwrap_or(false);
    let Some(node) = part.get("rebind_exceptions") else { return is_on.then(Vec::new) };
    let exceptions = reader.one_or_list(node);
    if !is_on && !exceptions.is_empty() {
        reader.error_with_hint(node.id, "exceptions without a protection", "set `rebind_protection: true`");
    }
    let exceptions = exceptions.iter().filter_map(|item| reader.domain(item, "a domain suffix")).collect();
    is_on.then_some(exceptions)
}

fn read_cache<'n, 't>(reader: &Reader<'_, '_>, part: &Table<'n, 't>, empty: &'n Node<'t>) -> Cache {
    let table = table_below(reader, part, empty, "cache", &["megabytes", "max_ttl", "max_negative_ttl", "stale"]);
    let get = |key| table.as_ref().and_then(|table| table.get(key));
    let seconds = |key, default| get(key).and_then(|node| reader.ttl(node)).unwrap_or(default);
    let megabytes = get("megabytes").and_then(|node| reader.integer(node, "a number of megabytes", 1..=MAX_CACHE));
    Cache {
        size: (megabytes.unwrap_or(DEFAULT_CACHE) as usize) << 20,
        bounds: CacheTtls {
            ttl: seconds("max_ttl", DEFAULT_MAX_TTL),
            negative_ttl: seconds("max_negative_ttl", DEFAULT_MAX_NEGATIVE_TTL),
            stale: seconds("stale", DEFAULT_STALE),
        },
    }
}

fn read_servers(reader: &Reader<'_, '_>, node: &Node<'_>) -> Vec<UpstreamAddress> {
    let mut servers = Vec::new();
    for item in reader.one_or_list(node) {
        match read_server(reader, item) {
            Some(again) if servers.contains(&again) => {
                reader.error(item.id, format!("duplicate server `{again}`"));
            }
            server => servers.extend(server),
        }
    }
    servers
}

/// Reads an address in the spelling of `upstreams`.
pub(super) fn read_server(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<UpstreamAddress> {
    let server = parse_server(reader, node)?;
    if server.address.port() == 0 || server.address.ip().is_unspecified() {
        reader.mismatch(node, "the address of a DNS server");
        return None;
    }
    Some(server)
}

fn parse_server(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<UpstreamAddress> {
    match &node.value {
        Value::Text(text) if text.contains("://") => match UpstreamAddress::parse(text) {
            Ok(server) => Some(server),
            Err(error) => {
                reader.mismatch_with_hint(node, "a DNS server", error.to_string());
                None
            }
        },
        Value::Text(text) if is_link_local(text) => {
            let server = UpstreamAddress::parse_plain(text, DNS_PORT);
            if server.is_none() {
                let hint = "a link-local IPv6 address needs its interface; other addresses have none";
                reader.mismatch_with_hint(node, "an address such as `192.0.2.1` or `fe80::1%eth0`", hint.to_owned());
            }
            server
        }
        _ => reader.socket_address(node, DNS_PORT).map(UpstreamAddress::plain),
    }
}

/// Reports whether a text has an interface, or is a link-local IPv6 address.
fn is_link_local(text: &str) -> bool {
    let address = text.trim_start_matches('[').split(']').next().and_then(|address| address.parse::<Ipv6Addr>().ok());
    text.contains('%') || address.is_some_and(|address| address.is_unicast_link_local())
}

pub(super) fn read_allow(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<ClientRange> {
    const WHAT: &str = "`loopback`, `private`, `any` or a network such as `10.0.0.0/8`";
    let text = reader.line(node, WHAT)?;
    match text.as_str() {
        "loopback" => return Some(ClientRange::Loopback),
        "private" => return Some(ClientRange::Private),
        "any" => return Some(ClientRange::Any),
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
    Some(ClientRange::Network { address, prefix })
}

/// Parses `10.0.0.0/8`, or a single address.
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
