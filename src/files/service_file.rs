//! Parser of a service file: octets in, definitions or problems out.
//!
//! A file holds one service, or a list of services under `services:`. One pass reports every problem of the file. A file
//! with an error defines nothing: half of a file is not what its author intended.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use smol_str::SmolStr;

pub use super::check::CHECK_KEYS;
use super::{
    check,
    ports::{self, Ports},
    tagged_addresses,
};
use crate::{
    diagnostic::{Diagnostic, quote},
    model::{
        alpn::ALPN_META,
        bounds,
        flap_damping::Damping,
        followed_host::{FollowedHost, HostName},
        id_label::label_of,
        name::{Label, MAX_LABEL},
        nearest::{MIN_HEALTHY_META, NEAREST_META},
        registered_name::RegisteredName,
        service::{
            DEFAULT_HALF_LIFE, DEFAULT_HOLD_AT, DEFAULT_PRIORITY, DEFAULT_WEIGHT, Definition, Instance, InstanceKey,
            MAX_ADDRESSES, MAX_HOLD_AT, MAX_INTERVAL, MAX_TAGS, Pace, Protocol, RELEASE_BELOW,
        },
        shared_lists::SharedLists,
    },
    record::{self, MAX_VALUE},
    yaml::{
        Document, MAX_TEXT,
        reader::{Reader, Table, did_you_mean, unexpected},
        tree::{Entry, Id, Node, Value},
    },
};

/// Largest service file in octets. [`parse`] refuses larger ones.
pub const MAX_FILE: usize = MAX_TEXT;

/// Defaults that the configuration of the node sets for its service files.
#[derive(Clone, Copy, Debug)]
pub struct Defaults<'a> {
    /// Name of the node: the suffix of default ids.
    pub node: &'a Label,
    /// Addresses of the node: the default of `address`.
    pub addresses: &'a [IpAddr],
    /// True if `exec` checks are allowed.
    pub allow_exec: bool,
}

/// Content of a service file without errors.
#[derive(Clone, Debug, Default)]
pub struct ServiceFile {
    /// Definitions in the order of the file; keys are unique.
    pub entries: Vec<Located>,
    /// Warnings for the author.
    pub warnings: Vec<Diagnostic>,
}

/// A definition and the position of its `service` key.
#[derive(Clone, Debug)]
pub struct Located {
    /// The definition.
    pub definition: Arc<Definition>,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
}

/// Parses a service file.
///
/// A file without content (empty, or comments only) is refused, so it withdraws nothing: an editor may have truncated it and
/// be about to write it. An empty list, `services: []`, defines no services.
///
/// # Errors
/// All problems of the file including warnings, sorted by position. For a file without content, one warning.
pub fn parse(path: &Path, bytes: &[u8], defaults: &Defaults<'_>) -> Result<ServiceFile, Vec<Diagnostic>> {
    let document = Document::read(path, bytes, 0).map_err(|problem| vec![problem])?;
    if let Some(what) = without_content(document.root(), bytes) {
        let hint = "to withdraw its services, delete the file or write `services: []`";
        return Err(vec![Diagnostic::whole(path, what).with_hint(hint).as_warning()]);
    }
    refuse_other_content(path, &document)?;
    let reader = Reader::new(std::slice::from_ref(&document));
    let entries = read_services(&reader, document.root(), defaults);
    let (entries, warnings) = reader.finish(Some(entries))?;
    Ok(ServiceFile { entries, warnings })
}

/// Returns the message for a file without content.
fn without_content(root: &Node<'_>, bytes: &[u8]) -> Option<&'static str> {
    let is_empty = || bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii().is_empty();
    match &root.value {
        Value::Null if is_empty() => Some("the file is empty"),
        Value::Null => Some("the file has no content"),
        Value::Table(entries) => match entries.as_slice() {
            [only] if only.key == "services" && matches!(only.value.value, Value::Null) => {
                Some("`services` has no content")
            }
            _ => None,
        },
        _ => None,
    }
}

/// Refuses a file that is not a service file: its top level has neither `service` nor `services`, nor a misspelling of them.
///
/// Such a file may be any other: a link may lead to a key or a password. The message has none of its content, and no other
/// problem is reported.
fn refuse_other_content(path: &Path, document: &Document<'_>) -> Result<(), Vec<Diagnostic>> {
    let refused = |message: String, hint: &str| {
        let (line, column) = document.position(document.root().id);
        Err(vec![Diagnostic::at(path, line, column, message).with_hint(hint)])
    };
    let root = document.root();
    match &root.value {
        Value::Table(entries) if has_key_like(entries, &["service", "services"]) => Ok(()),
        Value::Table(_) => refused("`service` is missing".to_owned(), "as in `service: web`"),
        Value::List(_) => refused(unexpected(root, "a service"), "put a list of services under the key `services`"),
        _ => refused(unexpected(root, "a service"), "a service file has keys such as `service: web`"),
    }
}

/// Reports whether a key is one of `keys` or a misspelling of one.
fn has_key_like(entries: &[Entry<'_>], keys: &[&str]) -> bool {
    entries.iter().any(|entry| keys.contains(&&*entry.key))
        || entries.iter().any(|entry| did_you_mean(&entry.key, keys).is_some())
}

/// Keys of a file with several services.
const FILE_KEYS: &[&str] = &["services"];
/// Keys of a service.
pub const SERVICE_KEYS: &[&str] = &[
    "service",
    "id",
    "address",
    "tagged_addresses",
    "port",
    "ports",
    "alpn",
    "protocol",
    "tags",
    "meta",
    "priority",
    "weight",
    "ttl",
    "nearest",
    "min_healthy",
    "enabled",
    "checks",
    "damping",
    "slow_start",
];
/// Keys of `damping`.
const DAMPING_KEYS: &[&str] = &["half_life", "falls"];
/// Shortest half-life and slow start.
const MIN_PACE: Duration = Duration::from_secs(1);

fn read_services(reader: &Reader<'_, '_>, root: &Node<'_>, defaults: &Defaults<'_>) -> Vec<Located> {
    let services = match &root.value {
        Value::Table(entries) if entries.iter().any(|entry| entry.key == "services") => {
            let Some(table) = reader.table(root, "a file with `services`", FILE_KEYS) else { return Vec::new() };
            match table.get("services").map(|node| (node, &node.value)) {
                None => return Vec::new(),
                Some((node, Value::List(items))) => {
                    if items.is_empty() && table.entries().len() == 1 {
                        reader.warning(node.id, "the list of services is empty", "the file defines no service");
                    }
                    items.as_slice()
                }
                Some((node, _)) => {
                    let hint = "write each service as a list item that begins with `- service: NAME`";
                    reader.error_with_hint(node.id, unexpected(node, "a list of services"), hint);
                    return Vec::new();
                }
            }
        }
        _ => std::slice::from_ref(root),
    };
    let (mut read, mut lists) = (Vec::new(), SharedLists::default());
    let mut seen: HashMap<InstanceKey, usize> = HashMap::new();
    for node in services {
        let Some((definition, id)) = read_service(reader, node, defaults, &mut lists) else { continue };
        let (line, column) = reader.position(id);
        let key = &definition.instance.key;
        match seen.get(key) {
            Some(first) => reader.error_with_hint(
                id,
                format!("duplicate instance `{key}`; the first one is in line {first}"),
                "give each instance its own `id`",
            ),
            None => {
                seen.insert(key.clone(), line);
                read.push(Located { definition: Arc::new(definition), line, column });
            }
        }
    }
    // The positions stay in memory as long as the file is in use.
    read.shrink_to_fit();
    read
}

/// Reads one service. `None`: it has no valid key. All problems are reported in either case.
fn read_service(
    reader: &Reader<'_, '_>,
    node: &Node<'_>,
    defaults: &Defaults<'_>,
    lists: &mut SharedLists,
) -> Option<(Definition, Id)> {
    if let Value::Table(entries) = &node.value
        && !has_key_like(entries, &["service"])
    {
        // As for the whole file: no other problem is reported.
        reader.error_with_hint(node.id, "`service` is missing", "as in `service: web`");
        return None;
    }
    let table = reader.table(node, "a service", SERVICE_KEYS)?;
    let named = read_name(reader, &table);
    let service = named.as_ref().map(|(service, _)| service);
    let identified = read_id(reader, &table, service, defaults.node);
    let id = identified.as_ref().map(|(id, _)| id);
    let Ports { default: port, named: named_ports, alpn } = ports::read(reader, &table);
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let (addresses, host) = read_addresses(reader, &table, defaults.addresses);
    let tagged = table.get("tagged_addresses").map(|node| tagged_addresses::read(reader, node, &addresses, port));
    let tags = read_tags(reader, &table, id);
    let meta = table.get("meta").map(|node| read_service_meta(reader, node).into()).unwrap_or_default();
    let protocol = table.get("protocol").and_then(|node| reader.word(node, &protocols)).unwrap_or(Protocol::Tcp);
    let number = |key, what, default| {
        table.get(key).and_then(|node| reader.integer(node, what, 0..=u16::MAX)).unwrap_or(default)
    };
    let priority = number("priority", "a priority", DEFAULT_PRIORITY);
    let weight = number("weight", "a weight", DEFAULT_WEIGHT);
    let ttl = table.get("ttl").and_then(|node| reader.ttl(node));
    let nearest = table.get("nearest").and_then(|node| reader.nearest(node));
    let min_healthy = table.get("min_healthy").and_then(|node| reader.min_healthy(node));
    let enabled = table.get("enabled").and_then(|node| reader.boolean(node)).unwrap_or(true);
    let checks = match table.get("checks") {
        Some(node) => check::read_checks(reader, node, service, defaults.allow_exec),
        None => Vec::new(),
    };
    let pace = read_pace(reader, &table);
    let ((service, service_case), (id, registered_as)) = (named?, identified?);
    let key = InstanceKey { service, id };
    let mut instance = Instance {
        key,
        addresses: addresses.into(),
        host,
        tagged: tagged.unwrap_or_default(),
        port,
        ports: named_ports.into(),
        alpn: alpn.into(),
        protocol,
        tags: tags.into(),
        meta,
        priority,
        weight,
        ttl,
        nearest,
        min_healthy,
        registered_as,
        external: None,
        tag_override: false,
        service_case,
    };
    lists.share(&mut instance);
    let id = table.entry("service")?.id;
    refuse_large(reader, &table, &instance, id);
    let instance = Arc::new(instance);
    Some((Definition { instance, enabled, checks, pace }, id))
}

/// Reads `meta`. Warns of entries that only the HTTP API takes for settings.
fn read_service_meta(reader: &Reader<'_, '_>, node: &Node<'_>) -> BTreeMap<String, String> {
    if let Value::Table(entries) = &node.value {
        for (meta, key) in [(NEAREST_META, "nearest"), (MIN_HEALTHY_META, "min_healthy"), (ALPN_META, "alpn")] {
            if let Some(entry) = entries.iter().find(|entry| entry.key == meta) {
                let message = format!("`{meta}` has no effect in a service file");
                reader.warning(
                    entry.id,
                    message,
                    format!("set `{key}` of the service; only the HTTP API reads `{meta}`"),
                );
            }
        }
    }
    reader.meta(node)
}

/// Reports an instance that is too large to gossip although each part of it is within its bounds.
fn refuse_large(reader: &Reader<'_, '_>, table: &Table<'_, '_>, instance: &Instance, fallback: Id) {
    let octets = record::value_len(instance);
    if octets <= MAX_VALUE {
        return;
    }
    let tags: usize = instance.tags.iter().map(String::len).sum();
    let meta: usize = instance.meta.iter().map(|(key, value)| key.len() + value.len()).sum();
    let largest = table.entry(if tags > meta { "tags" } else { "meta" }).map_or(fallback, |entry| entry.id);
    let message = format!("an instance has at most {MAX_VALUE} octets in gossip, this one has {octets}");
    let hint = format!("shorten `tags` ({tags} octets) or `meta` ({meta} octets)");
    reader.error_with_hint(largest, message, hint);
}

/// Reads `damping` and `slow_start`.
fn read_pace(reader: &Reader<'_, '_>, table: &Table<'_, '_>) -> Pace {
    let damping = table.get("damping").and_then(|node| {
        let table = reader.table(node, "`damping`, such as `{half_life: 1m, falls: 3}`", DAMPING_KEYS)?;
        let half_life = table.get("half_life").and_then(|node| reader.duration(node, MIN_PACE..=MAX_INTERVAL));
        let falls = table.get("falls").and_then(|node| reader.integer(node, "a number of falls", 2..=MAX_HOLD_AT));
        Some(Damping {
            half_life: half_life.unwrap_or(DEFAULT_HALF_LIFE),
            hold_at: falls.unwrap_or(DEFAULT_HOLD_AT),
            release_below: RELEASE_BELOW,
        })
    });
    let slow_start = table.get("slow_start").and_then(|node| reader.duration(node, MIN_PACE..=MAX_INTERVAL));
    Pace { damping, slow_start: slow_start.unwrap_or_default() }
}

/// Reads the name of the service, and the name in its letter case if that is another.
fn read_name(reader: &Reader<'_, '_>, table: &Table<'_, '_>) -> Option<(RegisteredName, Option<SmolStr>)> {
    const WHAT: &str = "a service's name";
    let node = reader.required(table, "service", "service: web")?;
    let text = reader.line(node, WHAT)?;
    let service = reader.registered_name_of(node, WHAT, &text)?;
    match service.dns_label() {
        Err(reason) => {
            let message = format!("DNS has no name for the service {}: {reason}", quote(&text));
            reader.warning(node.id, message, "the service is in the HTTP API only");
        }
        Ok(label) if label.len() == MAX_LABEL => {
            let message = format!("a service name of {MAX_LABEL} octets has no `_SERVICE._tcp` form");
            reader.warning(node.id, message, "shorten it by one octet");
        }
        Ok(_) => {}
    }
    let letter_case = (service.as_str() != text).then(|| SmolStr::new(&text));
    Some((service, letter_case))
}

/// Reads the id of the instance: its label, and the id as written if that is another.
fn read_id(
    reader: &Reader<'_, '_>,
    table: &Table<'_, '_>,
    service: Option<&RegisteredName>,
    node: &Label,
) -> Option<(Label, Option<SmolStr>)> {
    let Some(given) = table.get("id") else { return Some((default_id(service?, node), None)) };
    let text = reader.line(given, "an instance's id")?;
    if let Err(fault) = bounds::registered_id(&text) {
        reader.error(given.id, fault.to_string());
        return None;
    }
    let label = Label::parse(&text).unwrap_or_else(|_| label_of(&text, node));
    let registered_as = (label.as_str() != text).then(|| SmolStr::new(&text));
    Some((label, registered_as))
}

/// Returns the default id, `SERVICE-NODE`, or a label derived from both.
fn default_id(service: &RegisteredName, node: &Label) -> Label {
    Label::parse(&format!("{service}-{node}")).unwrap_or_else(|_| label_of(service.as_str(), node))
}

/// Reads the addresses, or a host name that is the only one.
fn read_addresses(
    reader: &Reader<'_, '_>,
    table: &Table<'_, '_>,
    default: &[IpAddr],
) -> (Vec<IpAddr>, Option<Arc<FollowedHost>>) {
    let Some(node) = table.get("address") else { return (default.to_vec(), None) };
    let items = reader.one_or_list(node);
    if let [only] = items
        && let Value::Text(text) = &only.value
        && let Ok(name) = HostName::parse(text)
    {
        return (Vec::new(), Some(Arc::new(FollowedHost { name, problem: None })));
    }
    if items.is_empty() {
        reader.mismatch_with_hint(node, "at least one IP address", "omit the key to use the node's addresses");
    }
    let mut addresses = Vec::new();
    if reader.is_within(node.id, items.len(), MAX_ADDRESSES, "addresses") {
        for item in items {
            if let Value::Text(text) = &item.value
                && HostName::parse(text).is_ok()
            {
                reader.mismatch_with_hint(item, "an IP address", "a host name is the only address of an instance");
                continue;
            }
            match reader.host_address(item) {
                Some(again) if addresses.contains(&again) => {
                    reader.warning(item.id, format!("duplicate address `{again}`"), "remove one of them");
                }
                address => addresses.extend(address),
            }
        }
    }
    (addresses, None)
}

fn read_tags(reader: &Reader<'_, '_>, table: &Table<'_, '_>, own_id: Option<&Label>) -> Vec<String> {
    let Some(node) = table.get("tags") else { return Vec::new() };
    let items = reader.one_or_list(node);
    let mut tags: Vec<String> = Vec::new();
    if !reader.is_within(node.id, items.len(), MAX_TAGS, "tags") {
        return tags;
    }
    for item in items {
        let Some(tag) = reader.line(item, "a tag") else { continue };
        if let Err(fault) = bounds::tag(&tag) {
            reader.error(item.id, fault.to_string());
        } else if tags.contains(&tag) {
            reader.warning(item.id, format!("duplicate tag {}", quote(&tag)), "remove one of them");
        } else {
            if own_id.is_some_and(|id| tag.eq_ignore_ascii_case(id.as_str())) {
                let message = format!("the tag {} is not reachable by name: it equals the instance's id", quote(&tag));
                reader.warning(item.id, message, "choose another `id`");
            } else if tag.eq_ignore_ascii_case("tcp") || tag.eq_ignore_ascii_case("udp") {
                // In the scheme of Consul, the tag `udp` wins over the transport, and `_tcp` is every instance.
                let consul = if tag.eq_ignore_ascii_case("tcp") {
                    ""
                } else {
                    ", except in an alias domain with `scheme: consul`"
                };
                let message = format!("`_SERVICE._{tag}` selects the protocol, not the tag {}{consul}", quote(&tag));
                reader.warning(item.id, message, "choose another tag; `protocol` sets the transport");
            }
            tags.push(tag);
        }
    }
    warn_of_nameless_tags(reader, node.id, &tags);
    tags
}

/// Warns once of all tags that DNS has no names for.
fn warn_of_nameless_tags(reader: &Reader<'_, '_>, id: Id, tags: &[String]) {
    let reason = |tag: &String| RegisteredName::parse(tag).ok()?.tag_label().err();
    let mut nameless = tags.iter().filter_map(|tag| Some((tag, reason(tag)?)));
    let Some((tag, reason)) = nameless.next() else { return };
    let others = match nameless.count() {
        0 => String::new(),
        1 => " and 1 other".to_owned(),
        more => format!(" and {more} others"),
    };
    let message = format!("DNS has no name for the tag {}{others}: {reason}", quote(tag));
    reader.warning(id, message, "such a tag is in the HTTP API only");
}
