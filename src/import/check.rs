//! A check definition of Consul as a check of a muster service file.

use std::time::Duration;

use super::{
    facts::{Facts, node_label},
    section::{Field, Section, is_empty},
    tree::Value,
    yaml_text::Yaml,
};
use crate::{
    model::service::{DEFAULT_INTERVAL, DEFAULT_RISE, MAX_INTERVAL, MAX_STREAK},
    yaml::scalar::show_duration,
};

/// Timeout of a probe in Consul that its definition does not set.
const CONSUL_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of a command in Consul that its definition does not set.
const CONSUL_COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// Shortest interval of probes in Consul, which it uses instead of a shorter one.
const CONSUL_MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Response of an HTTP probe that is a warning in Consul.
const TOO_MANY_REQUESTS: u16 = 429;
/// Reason of a TTL check of a service: programs report to its id.
const SERVICE_TTL_ID: &str =
    "The id of a TTL check changes: programs report to the id that /v1/agent/checks lists, `service:INSTANCE`";
/// Reason of a TTL check of the node.
const NODE_TTL_ID: &str = "The id of a TTL check changes: programs report to the id that /v1/agent/checks lists, \
                           `node:NUMBER`, where NUMBER is the position in `checks.node`, from 1";
/// Reason of a TCP probe over TLS.
const NO_TCP_TLS: &str = "A `tcp` check has no TLS: the probe opens the connection only, without a handshake. `http` and \
                          `h2ping` checks have TLS";
/// Searches the program of a command in PATH, as Consul does.
const SEARCH_PATH: &str = "/usr/bin/env";

/// Keys of the kinds of checks. Consul takes the first one that is set, in this order.
const KINDS: &[&str] = &[
    "ttl",
    "http",
    "tcp",
    "udp",
    "grpc",
    "h2ping",
    "alias_service",
    "alias_node",
    "os_service",
    "docker_container_id",
    "args",
    "script_args",
    "script",
];

/// Key of a check that runs a command.
pub(super) const COMMAND: &str = "exec";

/// The service that a check belongs to.
pub(super) struct Owner<'a> {
    /// Its id in Consul.
    pub(super) id: &'a str,
    /// True if its id is the same in muster.
    pub(super) keeps_id: bool,
}

/// Converts a check of a service, or of the node. `None`: the check is left out, and reported.
pub(super) fn convert(section: Section<'_>, facts: &Facts, owner: Option<&Owner<'_>>) -> Option<Yaml> {
    let set = |kind: &&'static str| {
        let field = section.take(kind)?;
        (!is_empty(field.node) && !is_zero_ttl(kind, &section, &field)).then_some((*kind, field))
    };
    let mut kinds = KINDS.iter().filter_map(set).collect::<Vec<_>>().into_iter();
    let Some((kind, field)) = kinds.next() else {
        let reason = match section.take("type") {
            Some(_) => "The API does not tell the probe of a check: write the check in the service file",
            None => "A check without a probe is left out",
        };
        section.abandon(reason);
        return None;
    };
    // `alias_node` and the command in a container belong to the kind before them.
    for (_, field) in kinds.filter(|_| !matches!(kind, "alias_service" | "docker_container_id")) {
        section.context.lost(&field.place, "A check has one probe: make it a separate check");
    }
    let origin = section.place.clone();
    let mut check = Yaml::table();
    let default_timeout = match kind {
        "ttl" => {
            let ttl = section.context.duration(&field)?;
            check.set("ttl", Yaml::plain(show_duration(ttl)));
            match owner {
                None => section.context.lost(&field.place, NODE_TTL_ID),
                Some(owner) if !owner.keeps_id => section.context.lost(&field.place, SERVICE_TTL_ID),
                Some(_) => {}
            }
            None
        }
        "http" => {
            set_http(&section, &field, &mut check)?;
            Some(CONSUL_TIMEOUT)
        }
        "tcp" | "udp" => {
            check.set(kind, Yaml::text(section.context.text(&field)?));
            if let Some((true, place)) = section.flag("tcp_use_tls") {
                section.context.lost(&place, NO_TCP_TLS);
                drop(section.take("tls_skip_verify"));
                drop(section.take("tls_server_name"));
            }
            Some(CONSUL_TIMEOUT)
        }
        "grpc" => {
            check.set("grpc", Yaml::text(section.context.text(&field)?));
            set_tls(&section, "grpc_use_tls", &mut check);
            Some(CONSUL_TIMEOUT)
        }
        "h2ping" => {
            check.set("h2ping", Yaml::text(section.context.text(&field)?));
            // Consul encrypts these probes unless told otherwise.
            let tls = section.flag("h2ping_use_tls").is_none_or(|(flag, _)| flag);
            if tls {
                check.set("tls", Yaml::plain(true).from(&field.place));
            }
            Some(CONSUL_TIMEOUT)
        }
        "alias_service" | "alias_node" => {
            let Some((id, _)) = section.text("alias_service") else {
                return left_out(&section, &field, "Only aliases of services are converted");
            };
            if let Some((node, place)) = section.text("alias_node")
                && node_label(node) != facts.node
            {
                let field = Field { node: field.node, place };
                return left_out(&section, &field, "Only aliases of services of the same node are converted");
            }
            if owner.is_some_and(|owner| owner.id == id) {
                return left_out(&section, &field, "An alias of the service itself is left out");
            }
            check.set("alias", alias(id, facts));
            None
        }
        "os_service" => {
            check.set("systemd", Yaml::text(section.context.text(&field)?));
            Some(CONSUL_TIMEOUT)
        }
        "docker_container_id" => {
            let reason =
                "muster runs no commands in containers: use an `http` or `tcp` check, or an `exec` check of the host";
            return left_out(&section, &field, reason);
        }
        _ => {
            set_command(&section, kind, &field, facts, &mut check)?;
            Some(CONSUL_COMMAND_TIMEOUT)
        }
    };
    if let Some(default) = default_timeout {
        set_schedule(&section, default, &mut check);
        set_thresholds(&section, &mut check);
    }
    if let Some((status, place)) = section.text("status") {
        let status = if status == "warn" { "warning" } else { status };
        if status != "critical" {
            check.set("initial", Yaml::text(status).from(&place));
        }
    }
    let comment = title(&section);
    report_rest(section);
    Some(check.from(&origin).with_comment(comment))
}

/// The target of an alias. Consul means the instance with that id, and muster also has aliases of whole services.
fn alias(id: &str, facts: &Facts) -> Yaml {
    match facts.names.get(id) {
        Some(name) if !facts.has_several(name) => Yaml::text(name),
        _ => {
            let mut target = Yaml::table();
            target.set("id", Yaml::text(facts.ids.get(id).map_or(id, String::as_str)));
            target
        }
    }
}

/// Reports whether a TTL is zero, which means none.
fn is_zero_ttl(kind: &str, section: &Section<'_>, field: &Field<'_>) -> bool {
    kind == "ttl" && section.context.duration(field).is_none_or(|ttl| ttl.is_zero())
}

/// Reports the kind of a check that is left out as a whole.
fn left_out(section: &Section<'_>, field: &Field<'_>, reason: &str) -> Option<Yaml> {
    section.context.lost(&field.place, reason);
    drop(section.rest());
    None
}

fn set_http(section: &Section<'_>, field: &Field<'_>, check: &mut Yaml) -> Option<()> {
    let context = section.context;
    check.set("http", Yaml::text(context.text(field)?));
    if let Some((method, place)) = section.text("method").filter(|(method, _)| !method.eq_ignore_ascii_case("GET")) {
        check.set("method", Yaml::text(method).from(&place));
    }
    if let Some(header) = section.take("header")
        && let Some(section) = Section::of(context, &header)
    {
        let mut headers = Yaml::table();
        for (name, field) in section.rest() {
            let values = field.node.items();
            if values.len() > 1 {
                context.lost(&field.place, "A header has one value in a service file: the first one is converted");
            }
            let Some(node) = values.first() else { continue };
            if let Some(value) = context.text(&Field { node, place: field.place.clone() }) {
                headers.set(name, Yaml::text(value).from(&field.place));
            }
        }
        check.set("headers", headers);
    }
    if let Some((body, place)) = section.text("body") {
        check.set("body", Yaml::text(body).from(&place));
    }
    check.set("warn_status", Yaml::plain(TOO_MANY_REQUESTS).from(&field.place));
    if section.flag("disable_redirects").is_none_or(|(disabled, _)| !disabled) {
        check.set("follow_redirects", Yaml::plain(true).from(&field.place));
    }
    set_tls_trust(section, check);
    Some(())
}

/// Sets `tls` of a probe for which Consul has a switch.
fn set_tls(section: &Section<'_>, switch: &str, check: &mut Yaml) {
    if let Some((true, place)) = section.flag(switch) {
        check.set("tls", Yaml::plain(true).from(&place));
        set_tls_trust(section, check);
    }
}

fn set_tls_trust(section: &Section<'_>, check: &mut Yaml) {
    if let Some((true, place)) = section.flag("tls_skip_verify") {
        check.set("tls_skip_verify", Yaml::plain(true).from(&place));
    }
    if let Some((name, place)) = section.text("tls_server_name") {
        check.set("tls_server_name", Yaml::text(name).from(&place));
    }
}

fn set_command(section: &Section<'_>, kind: &str, field: &Field<'_>, facts: &Facts, check: &mut Yaml) -> Option<()> {
    if !facts.allow_exec {
        let reason = "Commands are off without `enable_local_script_checks`, as in Consul since 1.0";
        section.context.lost(&field.place, reason);
        return None;
    }
    let is_shell = kind == "script" || !matches!(field.node.value, Value::List(_));
    let mut argv: Vec<&str> = Vec::new();
    for (number, node) in field.node.items().into_iter().enumerate() {
        argv.push(section.context.text(&Field { node, place: field.place.item(number, node.at) })?);
    }
    let prefix: &[&str] = match argv.first() {
        Some(_) if is_shell => &["/bin/sh", "-c"],
        Some(program) if !program.starts_with('/') => &[SEARCH_PATH],
        _ => &[],
    };
    check.set(COMMAND, Yaml::line_of(prefix.iter().chain(&argv)));
    Some(())
}

fn set_schedule(section: &Section<'_>, default_timeout: Duration, check: &mut Yaml) {
    let positive = |name| section.duration(name).filter(|(span, _)| !span.is_zero());
    // Converted within the bounds of muster: a refused interval would leave a timeout that belongs to another one.
    let interval = positive("interval").map(|(interval, place)| {
        if interval > MAX_INTERVAL {
            section
                .context
                .lost(&place, format!("An interval is at most {}, which is written", show_duration(MAX_INTERVAL)));
        }
        (interval.clamp(CONSUL_MIN_INTERVAL, MAX_INTERVAL), interval, place)
    });
    if let Some((bounded, interval, place)) = &interval {
        let is_raised = interval < bounded;
        let comment = if is_raised { "The shortest interval of Consul, which it uses here, too" } else { "" };
        check.set("interval", Yaml::plain(show_duration(*bounded)).from(place).with_comment(comment));
    }
    let most = interval.map_or(DEFAULT_INTERVAL, |(bounded, ..)| bounded);
    match positive("timeout") {
        Some((timeout, place)) if timeout > most => {
            section.context.lost(&place, "A timeout is at most the interval, which is written instead");
            check.set("timeout", Yaml::plain(show_duration(most)).from(&place));
        }
        Some((timeout, place)) => check.set("timeout", Yaml::plain(show_duration(timeout)).from(&place)),
        None => check.set("timeout", Yaml::plain(show_duration(default_timeout.min(most))).from(&section.place)),
    }
}

fn set_thresholds(section: &Section<'_>, check: &mut Yaml) {
    let most = i64::from(MAX_STREAK);
    let streak = |name| {
        let (count, place) = section.integer(name)?;
        if count > most {
            section.context.lost(&place, format!("A number of results in a row is at most {most}, which is written"));
        }
        Some((count.clamp(1, most), place))
    };
    if let Some((rise, place)) = streak("success_before_passing").filter(|(rise, _)| *rise != i64::from(DEFAULT_RISE)) {
        check.set("rise", Yaml::plain(rise).from(&place));
    }
    // The default of Consul is 1, of muster 2.
    match streak("failures_before_critical") {
        Some((fall, place)) => check.set("fall", Yaml::plain(fall).from(&place)),
        None => check.set("fall", Yaml::plain(1).from(&section.place)),
    }
    if let Some((warn_after, place)) = streak("failures_before_warning") {
        check.set("warn_after", Yaml::plain(warn_after).from(&place));
    }
    if let Some((octets, place)) = section.integer("output_max_size") {
        check.set("output_max", Yaml::plain(octets).from(&place));
    }
}

/// Name and notes of the check, as a comment.
fn title(section: &Section<'_>) -> String {
    let text = |names: &[&str]| {
        let field = section.take_any(names)?;
        section.context.text(&field).filter(|text| !text.is_empty())
    };
    let id = text(&["id", "check_id"]);
    let name = text(&["name"]).or(id);
    let notes = text(&["notes"]);
    [name, notes].into_iter().flatten().collect::<Vec<_>>().join(": ")
}

fn report_rest(section: Section<'_>) {
    for name in ["service_id", "interval", "timeout", "type"] {
        drop(section.take(name));
    }
    section.skip(&[("token", "A service file needs no token: it is not copied, like every secret")]);
    section.lose(&[
        ("deregister_critical_service_after", "A critical instance is not answered, and stays until its file is deleted. The key works for services that are \
             registered: `muster register`, or the HTTP API"),
        ("shell", "muster runs no commands in containers"),
        ("tls_skip_verify", "The probe has no TLS"),
        ("tls_server_name", "The probe has no TLS"),
        ("expose_path", "muster has no proxies"),
        ("proxy_http", "muster has no proxies"),
        ("proxy_grpc", "muster has no proxies"),
    ]);
    let of_other_kinds = [
        "method",
        "header",
        "body",
        "disable_redirects",
        "tcp_use_tls",
        "grpc_use_tls",
        "h2ping_use_tls",
        "success_before_passing",
        "failures_before_warning",
        "failures_before_critical",
        "output_max_size",
    ];
    for name in of_other_kinds {
        if let Some(field) = section.take_left(name) {
            section.context.unneeded(&field.place, "The key has no effect on a check of this kind");
        }
    }
    for name in ["namespace", "partition"] {
        drop(section.take(name));
    }
    section.finish();
}
