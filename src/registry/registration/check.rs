//! Checks that clients register, with a service or separately.

use std::time::Duration;

use serde_json::Value;
use smol_str::SmolStr;
use url::Url;

use super::{
    NAME,
    fields::{Fields, mismatch},
};
use crate::{
    model::{
        announcement::MAX_CHECK_TEXT,
        health::Status,
        registered_name::RegisteredName,
        service::{
            Check, CheckTitle, DEFAULT_INTERVAL, DEFAULT_TIMEOUT, Endpoint, HttpProbe, MAX_INTERVAL, MAX_STREAK,
            MIN_INTERVAL, Probe,
        },
    },
    registry::error::FieldError,
    yaml::scalar::{parse_endpoint, show_duration},
};

/// Lowest `DeregisterCriticalServiceAfter`, as in Consul, so that a restart of the service does not deregister it.
const MIN_DEREGISTER: Duration = Duration::from_secs(60);
/// Longest URL, in octets; same limit as in service files.
const MAX_URL: usize = 8 * 1024;

/// A check that a client registered for a service.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckRegistration {
    /// Id of the service.
    pub service: String,
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
        let what = "the id of the service that the check is for; muster has no checks of a node as a whole";
        let service = fields.text("ServiceID")?.ok_or(FieldError::Missing { field: "ServiceID", what })?;
        check_text(&fields, given, id)?;
        Ok(Self { service: service.to_owned(), id: SmolStr::new(id), body: body.clone() })
    }
}

/// Parses a check and its `DeregisterCriticalServiceAfter`. `link_local`: the check may connect to link-local addresses.
pub(super) fn read_check(
    body: &Value,
    place: &str,
    own: &RegisteredName,
    link_local: bool,
) -> Result<(Check, Option<Duration>), FieldError> {
    let fields = Fields::new(body, place)?;
    for (field, why) in [
        ("Args", "commands are not accepted over HTTP: use an `exec` check in a service file"),
        ("ScriptArgs", "commands are not accepted over HTTP: use an `exec` check in a service file"),
        ("Script", "commands are not accepted over HTTP: use an `exec` check in a service file"),
        ("DockerContainerID", "commands are not accepted over HTTP: use an `exec` check in a service file"),
        ("UDP", "muster has no check over UDP"),
        ("H2PING", "muster has no HTTP/2 ping: use GRPC or HTTP"),
        ("OSService", "use a `systemd` check in a service file"),
        ("AliasNode", "only aliases of services are supported"),
        ("GRPCUseTLS", "gRPC checks do not use TLS: use HTTP, or omit the field"),
    ] {
        if !fields.is_empty(field) {
            return Err(fields.unsupported(field, why));
        }
    }
    let kinds: Vec<&str> =
        ["TTL", "HTTP", "TCP", "GRPC", "AliasService"].into_iter().filter(|kind| !fields.is_empty(kind)).collect();
    let [kind] = kinds[..] else {
        let reason = "a check needs exactly one of TTL, HTTP, TCP, GRPC and AliasService";
        let found = if kinds.is_empty() { String::new() } else { format!(", got {}", kinds.join(" and ")) };
        return Err(FieldError::Conflict { field: fields.place().to_owned(), reason: format!("{reason}{found}") });
    };
    let bounded = |field: &'static str, default: Duration, least: Duration| match fields.duration(field)? {
        None | Some(Duration::ZERO) => Ok(default),
        Some(span) if (least..=MAX_INTERVAL).contains(&span) => Ok(span),
        Some(_) => {
            let (least, most) = (show_duration(least), show_duration(MAX_INTERVAL));
            Err(fields.mismatch(field, &format!("a duration from {least} to {most}")))
        }
    };
    let interval = bounded("Interval", DEFAULT_INTERVAL, MIN_INTERVAL)?;
    let timeout = bounded("Timeout", DEFAULT_TIMEOUT, Duration::from_millis(1))?.min(interval);
    let probe = match kind {
        "TTL" => Probe::Ttl { ttl: bounded("TTL", DEFAULT_INTERVAL, MIN_INTERVAL)? },
        "HTTP" => Probe::Http(http(&fields)?),
        "TCP" => Probe::Tcp(endpoint(&fields, "TCP", fields.text("TCP")?.unwrap_or_default())?),
        "GRPC" => {
            let (address, service) =
                fields.text("GRPC")?.map_or(("", ""), |text| text.split_once('/').unwrap_or((text, "")));
            Probe::Grpc { endpoint: endpoint(&fields, "GRPC", address)?, service: service.to_owned() }
        }
        _ => {
            let text = fields.text("AliasService")?.unwrap_or_default();
            let service = RegisteredName::parse(text).map_err(|_| fields.mismatch("AliasService", NAME))?;
            if service == *own {
                let reason = "the service is an alias of itself".to_owned();
                return Err(FieldError::Conflict { field: fields.path("AliasService"), reason });
            }
            Probe::Alias { service }
        }
    };
    let word = fields.text("Status")?.unwrap_or("critical");
    let initial =
        Status::from_word(word).ok_or_else(|| fields.mismatch("Status", "\"passing\", \"warning\" or \"critical\""))?;
    let streak = |field| Ok::<_, FieldError>(fields.integer(field, &MAX_STREAK)?.unwrap_or(1).max(1));
    let (id, name) = (fields.text("CheckID")?.or(fields.text("ID")?), fields.text("Name")?);
    let title = match id {
        Some(id) => {
            let name = name.unwrap_or(id);
            check_text(&fields, if fields.is_empty("CheckID") { "ID" } else { "CheckID" }, id)?;
            check_text(&fields, "Name", name)?;
            Some(CheckTitle { id: id.into(), name: name.into() })
        }
        None => None,
    };
    let after = fields.duration("DeregisterCriticalServiceAfter")?.filter(|after| !after.is_zero());
    let check = Check {
        probe,
        interval,
        timeout,
        rise: streak("SuccessBeforePassing")?,
        fall: streak("FailuresBeforeCritical")?,
        initial,
        title,
        link_local,
    };
    Ok((check, after.map(|after| after.max(MIN_DEREGISTER))))
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
        tls_skip_verify: fields.flag("TLSSkipVerify")?,
    })
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

pub(super) fn check_text(fields: &Fields<'_>, field: &str, text: &str) -> Result<(), FieldError> {
    if (1..=MAX_CHECK_TEXT).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(fields.mismatch(field, &format!("a string of 1 to {MAX_CHECK_TEXT} octets without control characters")))
}
