//! Checks that clients register, with a service or separately.

use std::time::Duration;

use serde_json::Value;
use smol_str::SmolStr;
use url::Url;

use super::{
    Host,
    fields::{Fields, mismatch},
};
use crate::{
    model::{
        announcement::{MAX_CHECK_TEXT, cut, is_reserved_check},
        bounds,
        health::Status,
        service::{
            AliasTarget, Check, CheckTitle, DEFAULT_INTERVAL, Endpoint, HttpProbe, MAX_INTERVAL, MAX_REGISTERED_ID,
            MAX_STREAK, MIN_INTERVAL, Origin, Probe, ProbeTls, is_server_name, unit_name,
        },
    },
    registry::error::FieldError,
    yaml::scalar::{parse_endpoint, show_duration},
};

/// Lowest `DeregisterCriticalServiceAfter`, as in Consul, so that a restart of the service does not deregister it.
const MIN_DEREGISTER: Duration = Duration::from_secs(60);
/// Longest URL, in octets; same limit as in service files.
const MAX_URL: usize = 8 * 1024;
/// Default timeout of probes over the network, as in Consul.
const NETWORK_TIMEOUT: Duration = Duration::from_secs(10);
/// Default timeout of commands and of the state of units, as in Consul.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// HTTP status that warns, as in Consul.
const TOO_MANY_REQUESTS: u16 = 429;
/// Fields that name a probe.
const KINDS: [&str; 11] =
    ["TTL", "HTTP", "TCP", "UDP", "GRPC", "H2PING", "OSService", "Args", "ScriptArgs", "AliasService", "AliasNode"];

/// A check that a client registered separately.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckRegistration {
    /// Id of the service; `None`: it is a check of the node.
    pub service: Option<String>,
    /// Id of the check.
    pub id: SmolStr,
    /// Request body.
    pub body: Value,
}

impl CheckRegistration {
    /// Reads the body of `PUT /v1/agent/check/register`.
    ///
    /// # Errors
    /// The first invalid field.
    pub fn read(body: &Value) -> Result<Self, FieldError> {
        let fields = Fields::new(body, "")?;
        let name = fields.text("Name")?.ok_or(FieldError::Missing { field: "Name", what: "the check's name" })?;
        let given = ["CheckID", "ID"].into_iter().find(|field| !fields.is_empty(field)).unwrap_or("Name");
        let id = fields.text(given)?.unwrap_or(name);
        check_id(&fields, given, id)?;
        Ok(Self { service: fields.text("ServiceID")?.map(str::to_owned), id: SmolStr::new(id), body: body.clone() })
    }

    /// Returns the check as one of the node.
    ///
    /// # Errors
    /// The first invalid field.
    pub fn of_node(&self, host: &Host) -> Result<Check, FieldError> {
        let mut check = read_check(&self.body, "", None, host)?.check;
        check.title = Some(CheckTitle { id: Some(self.id.clone()), ..check.title.unwrap_or_default() });
        Ok(check)
    }
}

/// A check as a client wrote it, and what muster does with it.
pub(super) struct ReadCheck {
    pub(super) check: Check,
    /// `DeregisterCriticalServiceAfter`; `None`: never.
    pub(super) deregister_after: Option<Duration>,
}

/// Parses a check. `own` is the id of its service; `None`: it is a check of the node.
pub(super) fn read_check(body: &Value, place: &str, own: Option<&str>, host: &Host) -> Result<ReadCheck, FieldError> {
    let fields = Fields::new(body, place)?;
    for (field, why) in [
        // Docker checks have a script or a shell, too.
        (
            "DockerContainerID",
            "muster runs no checks in Docker containers: use an HTTP, TCP or GRPC check of the container's address, or Args \
             with `docker exec`",
        ),
        ("Script", "muster runs no shell: use Args with the program and its arguments"),
        ("Shell", "muster runs no shell: use Args with the shell as its program"),
        ("TCPUseTLS", "muster has no TLS in TCP checks: use HTTP or H2PING"),
    ] {
        if !fields.is_empty(field) {
            return Err(fields.unsupported(field, why));
        }
    }
    let kind = kind(&fields)?;
    let interval = bounded(&fields, "Interval", MIN_INTERVAL)?.unwrap_or(DEFAULT_INTERVAL);
    let timeout = bounded(&fields, "Timeout", Duration::from_millis(1))?.unwrap_or(match kind {
        "Args" | "ScriptArgs" | "OSService" => COMMAND_TIMEOUT,
        _ => NETWORK_TIMEOUT,
    });
    let word = fields.text("Status")?.unwrap_or("critical");
    let initial =
        Status::from_word(word).ok_or_else(|| fields.mismatch("Status", "\"passing\", \"warning\" or \"critical\""))?;
    let number = |field| fields.integer(field, &MAX_STREAK);
    let (fall, warn_after) =
        (number("FailuresBeforeCritical")?.unwrap_or(0), number("FailuresBeforeWarning")?.unwrap_or(0));
    if warn_after > fall {
        let reason = format!("it must not exceed FailuresBeforeCritical, which is {fall}");
        return Err(FieldError::Conflict { field: fields.path("FailuresBeforeWarning"), reason });
    }
    let fall = fall.max(1);
    let after = fields.duration("DeregisterCriticalServiceAfter")?.filter(|after| !after.is_zero());
    let check = Check {
        probe: probe(kind, &fields, own, host)?,
        interval,
        timeout,
        rise: number("SuccessBeforePassing")?.unwrap_or(0).max(1),
        fall,
        warn_after: if warn_after == 0 { fall } else { warn_after },
        initial,
        output_max: fields.integer("OutputMaxSize", &u32::MAX)?.filter(|most| *most > 0),
        title: title(&fields)?,
        origin: Origin::Client { link_local: host.allow_link_local, exec: host.allow_exec },
    };
    Ok(ReadCheck { check, deregister_after: after.map(|after| after.max(MIN_DEREGISTER)) })
}

/// Returns the field that names the probe. As in Consul, a TTL of zero is none.
fn kind(fields: &Fields<'_>) -> Result<&'static str, FieldError> {
    let is_given = |kind: &&str| match *kind {
        "TTL" => fields.duration("TTL").map_or(true, |ttl| ttl.is_some_and(|ttl| !ttl.is_zero())),
        // An alias of a service on a node is one alias.
        "AliasNode" => !fields.is_empty("AliasNode") && fields.is_empty("AliasService"),
        kind => !fields.is_empty(kind),
    };
    let kinds: Vec<&str> = KINDS.into_iter().filter(is_given).collect();
    let [kind] = kinds[..] else {
        let reason = format!("a check needs exactly one of {}", KINDS.join(", "));
        let found = if kinds.is_empty() { String::new() } else { format!(", got {}", kinds.join(" and ")) };
        let field = if fields.place().is_empty() { "the check" } else { fields.place() };
        return Err(FieldError::Conflict { field: field.to_owned(), reason: format!("{reason}{found}") });
    };
    Ok(kind)
}

/// A duration from `least` on; a shorter one counts as `least`. `None` if it is missing or zero.
fn bounded(fields: &Fields<'_>, field: &'static str, least: Duration) -> Result<Option<Duration>, FieldError> {
    match fields.duration(field)? {
        None | Some(Duration::ZERO) => Ok(None),
        Some(span) if span <= MAX_INTERVAL => Ok(Some(span.max(least))),
        Some(_) => Err(fields.mismatch(field, &format!("a duration of at most {}", show_duration(MAX_INTERVAL)))),
    }
}

fn probe(kind: &'static str, fields: &Fields<'_>, own: Option<&str>, host: &Host) -> Result<Probe, FieldError> {
    let text = fields.text(kind);
    Ok(match kind {
        "TTL" => Probe::Ttl { ttl: bounded(fields, "TTL", MIN_INTERVAL)?.unwrap_or(DEFAULT_INTERVAL) },
        "HTTP" => Probe::Http(http(fields)?),
        "TCP" => Probe::Tcp(endpoint(fields, kind, text?.unwrap_or_default())?),
        "UDP" => Probe::Udp(endpoint(fields, kind, text?.unwrap_or_default())?),
        "H2PING" => {
            // As in Consul, TLS is the default of this kind.
            let secure = fields.is_missing("H2PingUseTLS") || fields.flag("H2PingUseTLS")?;
            let endpoint = endpoint(fields, kind, text?.unwrap_or_default())?;
            Probe::H2Ping { endpoint, tls: secure.then(|| tls(fields)).transpose()? }
        }
        "GRPC" => {
            let (address, service) = text?.map_or(("", ""), |text| text.split_once('/').unwrap_or((text, "")));
            let secure = fields.flag("GRPCUseTLS")?;
            let endpoint = endpoint(fields, kind, address)?;
            Probe::Grpc { endpoint, service: service.to_owned(), tls: secure.then(|| tls(fields)).transpose()? }
        }
        "OSService" => {
            let unit = unit_name(text?.unwrap_or_default());
            let unit = unit.ok_or_else(|| fields.mismatch(kind, "a systemd unit such as \"nginx.service\""))?;
            Probe::Systemd { unit }
        }
        "AliasService" | "AliasNode" => Probe::Alias(alias(fields, own, host)?),
        _ => Probe::Exec { argv: argv(fields, kind)? },
    })
}

/// The target of an alias: a service's id, or this node.
fn alias(fields: &Fields<'_>, own: Option<&str>, host: &Host) -> Result<AliasTarget, FieldError> {
    if let Some(node) = fields.text("AliasNode")?.filter(|node| !node.eq_ignore_ascii_case(host.node.as_str())) {
        let reason = format!("only this node can be an alias, which is {:?}, got {node:?}", host.node.as_str());
        return Err(FieldError::Conflict { field: fields.path("AliasNode"), reason });
    }
    let Some(id) = fields.text("AliasService")? else {
        if own.is_none() {
            let reason = "the check is one of the node, which would be an alias of itself: set ServiceID".to_owned();
            return Err(FieldError::Conflict { field: fields.path("AliasNode"), reason });
        }
        return Ok(AliasTarget::Node);
    };
    if own == Some(id) {
        let reason = "the service is an alias of itself".to_owned();
        return Err(FieldError::Conflict { field: fields.path("AliasService"), reason });
    }
    bounds::registered_id(id).map_err(|_| {
        let what = format!("the id of a service: 1 to {MAX_REGISTERED_ID} octets without control characters");
        fields.mismatch("AliasService", &what)
    })?;
    Ok(AliasTarget::Registered(id.into()))
}

/// A program and its arguments.
fn argv(fields: &Fields<'_>, kind: &str) -> Result<Vec<String>, FieldError> {
    let argv: Vec<String> = fields.list(kind)?.into_iter().map(str::to_owned).collect();
    // The working directory of a command is `/`.
    let is_found = argv.first().is_some_and(|program| program.starts_with('/') || !program.contains('/'));
    if !is_found || argv.iter().any(|argument| argument.contains('\0')) || argv.first().is_some_and(String::is_empty) {
        let what = "the name or absolute path of a program, then its arguments, without NUL octets";
        return Err(fields.mismatch(kind, what));
    }
    Ok(argv)
}

/// Notes of a check, on one line and cut to [`MAX_CHECK_TEXT`] octets.
pub(super) fn check_notes(notes: Option<&str>) -> SmolStr {
    cut(notes.unwrap_or_default(), MAX_CHECK_TEXT).into()
}

/// Id, name and notes. `None` if the check has none of them.
fn title(fields: &Fields<'_>) -> Result<Option<CheckTitle>, FieldError> {
    let field = if fields.is_empty("CheckID") { "ID" } else { "CheckID" };
    let (id, name, notes) = (fields.text(field)?, fields.text("Name")?, fields.text("Notes")?);
    if let Some(id) = id {
        check_id(fields, field, id)?;
    }
    if let Some(name) = name {
        check_text(fields, "Name", name)?;
    }
    let title =
        CheckTitle { id: id.map(SmolStr::from), name: name.or(id).map(SmolStr::from), notes: check_notes(notes) };
    Ok((title != CheckTitle::default()).then_some(title))
}

fn http(fields: &Fields<'_>) -> Result<HttpProbe, FieldError> {
    let text = fields.text("HTTP")?.unwrap_or_default();
    let url = Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && url.port() != Some(0) && text.len() <= MAX_URL
    });
    let expected = format!("a URL of at most {MAX_URL} octets that begins with http:// or https://");
    let url = url.ok_or_else(|| fields.mismatch("HTTP", &expected))?;
    let method = fields.text("Method")?.unwrap_or("GET").to_ascii_uppercase();
    if !method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
        return Err(fields.mismatch("Method", "an HTTP method such as \"GET\""));
    }
    Ok(HttpProbe {
        url,
        method,
        headers: headers(fields)?,
        body: fields.text("Body")?.map(str::to_owned),
        expect_status: Vec::new(),
        warn_status: vec![TOO_MANY_REQUESTS],
        follow_redirects: !fields.flag("DisableRedirects")?,
        tls: tls(fields)?,
    })
}

/// `TLSServerName` and `TLSSkipVerify`.
fn tls(fields: &Fields<'_>) -> Result<ProbeTls, FieldError> {
    let server_name = fields.text("TLSServerName")?.map(str::to_owned);
    if server_name.as_deref().is_some_and(|name| !is_server_name(name)) {
        return Err(fields.mismatch("TLSServerName", "a host name or an IP address"));
    }
    Ok(ProbeTls { skip_verify: fields.flag("TLSSkipVerify")?, server_name })
}

/// The object `Header`: its values are strings or arrays of strings.
fn headers(fields: &Fields<'_>) -> Result<Vec<(String, String)>, FieldError> {
    let Some(table) = fields.object("Header")? else { return Ok(Vec::new()) };
    let mut headers = Vec::new();
    for (name, values) in table.entries() {
        // RFC 9110 §5.1 and §5.6.2: a name is a token.
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(is_token) {
            let reason = format!("{name:?} cannot be the name of a header");
            return Err(FieldError::Conflict { field: fields.path("Header"), reason });
        }
        for value in values.as_array().map_or(std::slice::from_ref(values), Vec::as_slice) {
            let text = value.as_str().filter(|text| text.bytes().all(|b| matches!(b, b'\t' | 0x20..=0x7e)));
            let text = text.ok_or_else(|| mismatch(table.path(name), "a string of printable ASCII", value))?;
            headers.push((name.clone(), text.to_owned()));
        }
    }
    Ok(headers)
}

/// Parses `text`, the field or its part, as a host and port.
fn endpoint(fields: &Fields<'_>, field: &str, text: &str) -> Result<Endpoint, FieldError> {
    let expected = match field {
        "GRPC" => "`host:port` or `host:port/SERVICE`",
        _ => "`host:port`, such as \"127.0.0.1:8080\"",
    };
    parse_endpoint(text, None).ok_or_else(|| fields.mismatch(field, expected))
}

/// Verifies an id of a check.
pub(super) fn check_id(fields: &Fields<'_>, field: &str, id: &str) -> Result<(), FieldError> {
    check_text(fields, field, id)?;
    if is_reserved_check(id) {
        let reason = format!("the id {id:?} is reserved for the check that muster itself shows by it: use another one");
        return Err(FieldError::Conflict { field: fields.path(field), reason });
    }
    Ok(())
}

pub(super) fn check_text(fields: &Fields<'_>, field: &str, text: &str) -> Result<(), FieldError> {
    if (1..=MAX_CHECK_TEXT).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(fields.mismatch(field, &format!("a string of 1 to {MAX_CHECK_TEXT} octets without control characters")))
}

#[cfg(test)]
mod tests;
