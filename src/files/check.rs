//! Parser of the `checks` of a service file.
//!
//! A check is a table with exactly one key for its probe ([`KINDS`]), and keys for its schedule and thresholds.

use std::time::Duration;

use smol_str::format_smolstr;
use url::Url;

use crate::{
    diagnostic::quote,
    model::{
        bounds,
        health::Status,
        registered_name::RegisteredName,
        service::{
            AliasTarget, Check, CheckTitle, DEFAULT_FALL, DEFAULT_INTERVAL, DEFAULT_RISE, DEFAULT_TIMEOUT, HttpProbe,
            MAX_CHECKS, MAX_INTERVAL, MAX_NODE_CHECKS, MAX_STREAK, MIN_INTERVAL, Probe, ProbeTls, is_server_name,
            unit_name,
        },
    },
    yaml::{
        reader::{Reader, Table, unexpected},
        scalar::parse_endpoint,
        tree::{Node, Value},
    },
};

/// Keys of probes.
const KINDS: &[&str] = &["http", "tcp", "udp", "grpc", "h2ping", "exec", "systemd", "alias", "ttl"];
/// Keys that are valid in some kinds of checks only, with those kinds.
const KEYS_OF_KINDS: &[(&str, &[&str])] = &[
    ("method", &["http"]),
    ("headers", &["http"]),
    ("body", &["http"]),
    ("expect_status", &["http"]),
    ("warn_status", &["http"]),
    ("follow_redirects", &["http"]),
    ("tls", &["grpc", "h2ping"]),
    ("tls_skip_verify", &["http", "grpc", "h2ping"]),
    ("tls_server_name", &["http", "grpc", "h2ping"]),
];
/// All keys of a check.
const CHECK_KEYS: &[&str] = &[
    "http",
    "tcp",
    "udp",
    "grpc",
    "h2ping",
    "exec",
    "systemd",
    "alias",
    "ttl",
    "interval",
    "timeout",
    "rise",
    "fall",
    "warn_after",
    "initial",
    "output_max",
    "method",
    "headers",
    "body",
    "expect_status",
    "warn_status",
    "follow_redirects",
    "tls",
    "tls_skip_verify",
    "tls_server_name",
];

/// Shortest timeout: with none every probe would fail.
const MIN_TIMEOUT: Duration = Duration::from_millis(1);
/// Longest URL in octets, as servers accept it.
const MAX_URL: usize = 8 * 1024;
/// Maximum number of headers of a probe.
const MAX_HEADERS: usize = 64;
/// Reads one check or a list of checks of the node as a whole. Their ids are `node:1`, `node:2` and so on.
pub(crate) fn read_node_checks(reader: &Reader<'_, '_>, node: &Node<'_>, allow_exec: bool) -> Vec<Check> {
    let mut checks = read_checks(reader, node, None, allow_exec);
    if checks.len() > MAX_NODE_CHECKS {
        reader.error(node.id, format!("a node has at most {MAX_NODE_CHECKS} checks, found {}", checks.len()));
    }
    for (at, check) in checks.iter_mut().enumerate() {
        check.title = Some(CheckTitle { id: Some(format_smolstr!("node:{}", at + 1)), ..CheckTitle::default() });
    }
    checks
}

/// Reads one check or a list of checks of the service `own`; `None`: of the node.
pub(super) fn read_checks(
    reader: &Reader<'_, '_>,
    node: &Node<'_>,
    own: Option<&RegisteredName>,
    allow_exec: bool,
) -> Vec<Check> {
    let items = reader.one_or_list(node);
    let mut checks = Vec::new();
    if reader.is_within(node.id, items.len(), MAX_CHECKS, "checks") {
        for item in items {
            match read_check(reader, item, own, allow_exec) {
                Some(again) if checks.contains(&again) => {
                    reader.warning(item.id, "duplicate check", "remove one of them");
                }
                check => checks.extend(check),
            }
        }
    }
    checks
}

fn read_check(
    reader: &Reader<'_, '_>,
    node: &Node<'_>,
    own: Option<&RegisteredName>,
    allow_exec: bool,
) -> Option<Check> {
    let table = reader.table(node, "a check", CHECK_KEYS)?;
    let interval = table.get("interval").and_then(|node| reader.duration(node, MIN_INTERVAL..=MAX_INTERVAL));
    let interval = interval.unwrap_or(DEFAULT_INTERVAL);
    let timeout = match table.get("timeout") {
        Some(node) => {
            let timeout = reader.duration(node, MIN_TIMEOUT..=MAX_INTERVAL).unwrap_or(MIN_TIMEOUT);
            if timeout > interval {
                let hint = "a probe must end before the next one starts";
                reader.error_with_hint(node.id, "the timeout is longer than the interval", hint);
            }
            timeout
        }
        None => DEFAULT_TIMEOUT.min(interval),
    };
    let streak = |key, what, default| {
        table.get(key).and_then(|node| reader.integer(node, what, 1..=MAX_STREAK)).unwrap_or(default)
    };
    let rise = streak("rise", "a number of passes", DEFAULT_RISE);
    let fall = streak("fall", "a number of failures", DEFAULT_FALL);
    let warn_after = streak("warn_after", "a number of failures", fall);
    if let Some(node) = table.get("warn_after").filter(|_| warn_after > fall) {
        let message = format!("`warn_after` is {warn_after}, and the check is critical after {fall} failures (`fall`)");
        reader.error_with_hint(node.id, message, "set it below `fall`");
    }
    let output_max = table.get("output_max").and_then(|node| reader.integer(node, "a number of octets", 1..=u32::MAX));
    let states = [Status::Passing, Status::Warning, Status::Critical].map(|status| (status.as_str(), status));
    let initial = table.get("initial").and_then(|node| reader.word(node, &states)).unwrap_or(Status::Critical);
    let probe = read_probe(reader, &table, own, allow_exec)?;
    Some(Check { interval, timeout, rise, fall, warn_after, initial, output_max, ..Check::new(probe) })
}

fn read_probe(
    reader: &Reader<'_, '_>,
    table: &Table<'_, '_>,
    own: Option<&RegisteredName>,
    allow_exec: bool,
) -> Option<Probe> {
    let mut kinds = table.entries().iter().filter(|entry| KINDS.contains(&&*entry.key));
    let Some(kind) = kinds.next() else {
        // A misspelt kind is already reported.
        if table.entries().iter().all(|entry| CHECK_KEYS.contains(&&*entry.key)) {
            let hint = format!("add one of {}", KINDS.join(", "));
            reader.error_with_hint(table.id, "the check has no probe", hint);
        }
        return None;
    };
    for other in kinds {
        let message = format!("a check has one probe, and this check already has `{}`", kind.key);
        reader.error_with_hint(other.id, message, "make it a separate check");
    }
    for entry in table.entries() {
        let kinds = KEYS_OF_KINDS.iter().find(|(key, _)| *key == entry.key).map(|(_, kinds)| *kinds);
        if let Some(kinds) = kinds.filter(|kinds| !kinds.contains(&&*kind.key)) {
            let kinds: Vec<String> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
            reader.error(entry.id, format!("`{}` is only valid in {} checks", entry.key, kinds.join(", ")));
        }
    }
    let node = &kind.value;
    match &*kind.key {
        "http" => read_http(reader, table, node).map(Probe::Http),
        "tcp" => reader.endpoint(node, None).map(Probe::Tcp),
        "udp" => reader.endpoint(node, None).map(Probe::Udp),
        "grpc" => read_grpc(reader, table, node),
        "h2ping" => {
            let (endpoint, tls) = (reader.endpoint(node, None), read_tls_of(reader, table, true));
            endpoint.map(|endpoint| Probe::H2Ping { endpoint, tls })
        }
        "exec" if !allow_exec => {
            let hint = "set `checks: {allow_exec: true}` in the node's configuration";
            reader.error_with_hint(kind.id, "this node does not allow `exec` checks", hint);
            None
        }
        "exec" => read_exec(reader, node),
        "systemd" => read_unit(reader, node).map(|unit| Probe::Systemd { unit }),
        "alias" => read_alias(reader, node, own).map(Probe::Alias),
        _ => {
            let invalid = ["interval", "timeout", "rise", "fall", "warn_after"];
            for entry in table.entries().iter().filter(|entry| invalid.contains(&&*entry.key)) {
                reader.error(entry.id, format!("a ttl check is not probed, so it has no `{}`", entry.key));
            }
            reader.duration(node, MIN_INTERVAL..=MAX_INTERVAL).map(|ttl| Probe::Ttl { ttl })
        }
    }
}

/// Reads the target of an alias: the name of a service, or the id of one instance in a table.
fn read_alias(reader: &Reader<'_, '_>, node: &Node<'_>, own: Option<&RegisteredName>) -> Option<AliasTarget> {
    if matches!(node.value, Value::Table(_)) {
        let table = reader.table(node, "an alias", &["id"])?;
        let given = reader.required(&table, "id", "alias: {id: db-1}")?;
        let id = reader.line(given, "an instance's id")?;
        if let Err(fault) = bounds::registered_id(&id) {
            reader.error(given.id, fault.to_string());
            return None;
        }
        return Some(AliasTarget::Registered(id.into()));
    }
    let text = reader.line(node, "a service's name")?;
    let service = reader.registered_name_of(node, "a service's name", &text)?;
    if own == Some(&service) {
        reader.error_with_hint(node.id, "the service is an alias of itself", "name another service, or `{id: ID}`");
        return None;
    }
    Some(AliasTarget::Service(service))
}

fn read_http(reader: &Reader<'_, '_>, table: &Table<'_, '_>, node: &Node<'_>) -> Option<HttpProbe> {
    let url = read_url(reader, node);
    let method = table.get("method").and_then(|node| read_method(reader, node)).unwrap_or_else(|| "GET".to_owned());
    let headers = table.get("headers").map(|node| read_headers(reader, node)).unwrap_or_default();
    let body = table.get("body").and_then(|node| reader.text(node, "a text"));
    let statuses = |key| {
        let statuses = table.get(key).map(|node| reader.one_or_list(node)).unwrap_or_default();
        statuses.iter().filter_map(|node| reader.integer(node, "an HTTP status", 200..=599)).collect()
    };
    let (expect_status, warn_status) = (statuses("expect_status"), statuses("warn_status"));
    let follow_redirects = table.get("follow_redirects").and_then(|node| reader.boolean(node)).unwrap_or(false);
    let tls = read_tls(reader, table);
    Some(HttpProbe { url: url?, method, headers, body, expect_status, warn_status, follow_redirects, tls })
}

/// Reads `tls` and the keys for it; `default` is the value of `tls`.
fn read_tls_of(reader: &Reader<'_, '_>, table: &Table<'_, '_>, default: bool) -> Option<ProbeTls> {
    let tls = read_tls(reader, table);
    let is_on = table.get("tls").and_then(|node| reader.boolean(node)).unwrap_or(default);
    if !is_on {
        for key in ["tls_skip_verify", "tls_server_name"] {
            if let Some(node) = table.get(key) {
                reader.error_with_hint(node.id, format!("`{key}` without TLS"), "set `tls: true`");
            }
        }
    }
    is_on.then_some(tls)
}

fn read_tls(reader: &Reader<'_, '_>, table: &Table<'_, '_>) -> ProbeTls {
    const WHAT: &str = "the server's name in its certificate";
    let skip_verify = table.get("tls_skip_verify").and_then(|node| reader.boolean(node)).unwrap_or(false);
    let server_name = table.get("tls_server_name").and_then(|node| {
        let name = reader.line(node, WHAT)?;
        if !is_server_name(&name) {
            reader.mismatch(node, WHAT);
            return None;
        }
        Some(name)
    });
    ProbeTls { skip_verify, server_name }
}

fn read_url(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<Url> {
    const WHAT: &str = "a URL such as `http://127.0.0.1:8080/healthz`";
    let text = reader.line(node, WHAT)?;
    let parse = |text: &str| {
        let url = Url::parse(text).ok().filter(|_| text.len() <= MAX_URL)?;
        (matches!(url.scheme(), "http" | "https") && url.has_host() && url.port() != Some(0)).then_some(url)
    };
    let url = parse(&text);
    if url.is_none() {
        let fixed = format!("http://{text}");
        // Credentials before the host, or a token in the query.
        if text.contains(['@', '?']) {
            reader.mismatch_described(node, WHAT);
        } else if !text.contains("://") && parse(&fixed).is_some() {
            reader.mismatch_with_hint(node, WHAT, format!("did you mean {}?", quote(&fixed)));
        } else {
            reader.mismatch(node, WHAT);
        }
    }
    url
}

fn read_method(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<String> {
    const WHAT: &str = "an HTTP method such as `GET`";
    let method = reader.line(node, WHAT)?.to_ascii_uppercase();
    if !method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
        reader.mismatch(node, WHAT);
        return None;
    }
    Some(method)
}

fn read_headers(reader: &Reader<'_, '_>, node: &Node<'_>) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    if let Some(entries) = reader.entries(node, "a table such as `{Host: example.org}`")
        && reader.is_within(node.id, entries.len(), MAX_HEADERS, "headers")
    {
        for entry in entries {
            // RFC 9110 §5.1 and §5.6.2: a name is a token.
            let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            if entry.key.is_empty() || !entry.key.bytes().all(is_token) {
                reader.error(entry.id, format!("{} is not a valid header name", quote(&entry.key)));
            }
            let Some(value) = reader.text(&entry.value, "a text") else { continue };
            if !value.bytes().all(|b| matches!(b, b'\t' | 0x20..=0x7e)) {
                reader.mismatch_described(&entry.value, "a header's value of printable ASCII");
            }
            headers.push((entry.key.to_string(), value));
        }
    }
    headers
}

fn read_grpc(reader: &Reader<'_, '_>, table: &Table<'_, '_>, node: &Node<'_>) -> Option<Probe> {
    const WHAT: &str = "`host:port` or `host:port/SERVICE`";
    let text = reader.line(node, WHAT)?;
    let (address, service) = text.split_once('/').unwrap_or((&text, ""));
    let endpoint = parse_endpoint(address, None);
    if endpoint.is_none() {
        match text.split_once("://") {
            Some((_, rest)) => reader.mismatch_with_hint(node, WHAT, format!("did you mean {}?", quote(rest))),
            None => reader.mismatch(node, WHAT),
        }
    }
    let tls = read_tls_of(reader, table, false);
    Some(Probe::Grpc { endpoint: endpoint?, service: service.to_owned(), tls })
}

fn read_exec(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<Probe> {
    const WHAT: &str = "a list of a program and its arguments";
    let Value::List(items) = &node.value else {
        match &node.value {
            Value::Text(text) => {
                // Arguments may be secrets.
                let mut words = text.split_whitespace();
                let program = words.next().unwrap_or_default();
                let list = match words.next() {
                    // A variable may be a secret.
                    _ if program.contains('=') => "[env, NAME=VALUE, PROGRAM]".to_owned(),
                    Some(_) => format!("[{program}, …]"),
                    None => format!("[{program}]"),
                };
                let hint = format!("no shell is involved: did you mean {}?", quote(&list));
                reader.error_with_hint(node.id, unexpected(node, WHAT), hint);
            }
            _ => reader.mismatch_described(node, WHAT),
        }
        return None;
    };
    let Some(program) = items.first() else {
        reader.error(node.id, format!("expected {WHAT}, found an empty list"));
        return None;
    };
    let argv: Vec<String> = items.iter().filter_map(|item| read_argument(reader, item)).collect();
    if argv.len() < items.len() {
        return None;
    }
    if !argv[0].starts_with('/') {
        reader.mismatch_with_hint(
            program,
            "the absolute path of a program",
            "PATH is not searched: write `/usr/bin/…`",
        );
    }
    Some(Probe::Exec { argv })
}

fn read_argument(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<String> {
    let argument = reader.text(node, "a text")?;
    if argument.contains('\0') {
        reader.error(node.id, "an argument cannot contain a NUL octet");
        return None;
    }
    Some(argument)
}

fn read_unit(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<String> {
    const WHAT: &str = "a systemd unit such as `nginx.service`";
    let unit = unit_name(&reader.line(node, WHAT)?);
    if unit.is_none() {
        reader.mismatch(node, WHAT);
    }
    unit
}
