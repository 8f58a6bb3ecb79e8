//! Readers of scalars: durations, addresses, labels, numbers, words.
//!
//! A message states what was expected and what was found. A hint states what to write, above all where quotes matter:
//! `port: "8080"` is text, `enabled: yes` is text, `interval: 10` lacks its unit. Hints fit the written form: only a quoted
//! scalar gets the hint to drop its quotes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

use super::{
    reader::{Reader, did_you_mean},
    tree::{Node, Value},
};
use crate::{
    diagnostic::quote,
    model::{
        bounds,
        name::{Label, LabelError, Name},
        nearest::{MinHealthy, Nearest},
        registered_name::RegisteredName,
        service::{Endpoint, MAX_META, MAX_TTL},
    },
};

/// Longest host name in text form (RFC 1035 §2.3.4, less the octets of the wire form).
const MAX_HOST: usize = 253;

impl Reader<'_, '_> {
    /// Reads `key: value` pairs that fit in a TXT record.
    pub fn meta(&self, node: &Node<'_>) -> BTreeMap<String, String> {
        let mut meta = BTreeMap::new();
        let entries = self.entries(node, "a table such as `{version: \"2.3.1\"}`").unwrap_or_default();
        if !self.is_within(node.id, entries.len(), MAX_META, "entries of `meta`") {
            return meta;
        }
        for entry in entries {
            if bounds::meta_key(&entry.key).is_err() {
                let message = format!("{} cannot be a key of `meta`", quote(&entry.key));
                self.error_with_hint(entry.id, message, "keys are printable ASCII without `=`");
                continue;
            }
            let Some(text) = self.text(&entry.value, "a text") else { continue };
            if let Err(fault) = bounds::meta_entry(&entry.key, &text) {
                self.error_with_hint(entry.value.id, fault.to_string(), "a TXT record has no more room");
                continue;
            }
            meta.insert(entry.key.to_string(), text);
        }
        meta
    }

    /// Reads text as written. Numbers and booleans are taken literally: a version `1.10` is the text `1.10`.
    pub fn text(&self, node: &Node<'_>, what: &str) -> Option<String> {
        match &node.value {
            Value::Text(text) => return Some(text.to_string()),
            Value::Bool(_) | Value::Integer(_) | Value::Float => {
                if let Some(written) = self.written(node.id) {
                    return Some(written.to_owned());
                }
                self.mismatch_with_hint(node, what, "put it in quotes");
            }
            Value::Null => self.mismatch_with_hint(node, what, "an empty text is written \"\""),
            Value::List(_) | Value::Table(_) => self.mismatch(node, what),
        }
        None
    }

    /// Reads text that is not empty and has no control characters or line ends.
    pub fn line(&self, node: &Node<'_>, what: &str) -> Option<String> {
        let text = self.text(node, what)?;
        if text.is_empty() {
            self.error(node.id, format!("expected {what}, found an empty text"));
            return None;
        }
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            self.error(node.id, format!("expected {what} without control characters, found {control:?}"));
            return None;
        }
        Some(text)
    }

    /// Reads `true` or `false`.
    pub fn boolean(&self, node: &Node<'_>) -> Option<bool> {
        const WHAT: &str = "true or false";
        match &node.value {
            Value::Bool(value) => return Some(*value),
            Value::Text(text) => match text.to_ascii_lowercase().as_str() {
                "yes" | "on" => self.mismatch_with_hint(node, WHAT, "in YAML 1.2 that is text: write `true`"),
                "no" | "off" => self.mismatch_with_hint(node, WHAT, "in YAML 1.2 that is text: write `false`"),
                plain @ ("true" | "false") => self.mismatch_with_hint(node, WHAT, self.as_plain(node, plain)),
                _ => self.mismatch(node, WHAT),
            },
            _ => self.mismatch(node, WHAT),
        }
        None
    }

    /// Reads an integer within bounds; `what` is the singular, such as "a port".
    pub fn integer<N>(&self, node: &Node<'_>, what: &str, range: RangeInclusive<N>) -> Option<N>
    where
        N: TryFrom<i64> + PartialOrd + std::fmt::Display,
    {
        let within = |value: i64| N::try_from(value).ok().filter(|value| range.contains(value));
        let what = format!("{what} from {} to {}", range.start(), range.end());
        match &node.value {
            Value::Integer(value) => {
                if let Some(value) = within(*value) {
                    return Some(value);
                }
                self.mismatch(node, &what);
            }
            Value::Text(text) => match digits_of(text).filter(|value| within(*value).is_some()) {
                Some(value) => self.mismatch_with_hint(node, &what, self.as_plain(node, &value.to_string())),
                None => self.mismatch(node, &what),
            },
            _ => self.mismatch(node, &what),
        }
        None
    }

    /// Hint for text that should be the plain scalar `plain`.
    fn as_plain(&self, node: &Node<'_>, plain: &str) -> String {
        match &node.value {
            Value::Text(text) if self.is_quoted(node.id) && *text == plain => {
                "that is text: write it without quotes".to_owned()
            }
            _ => format!("that is text: write `{plain}`"),
        }
    }

    /// Reads a port from 1 to 65535.
    pub fn port(&self, node: &Node<'_>) -> Option<u16> {
        self.integer(node, "a port", 1..=u16::MAX)
    }

    /// Reads a duration such as `500ms`, `5s`, `1m` or `1h`, within bounds.
    pub fn duration(&self, node: &Node<'_>, range: RangeInclusive<Duration>) -> Option<Duration> {
        const WHAT: &str = "a duration such as `5s`";
        const FORM: &str = "a duration is a whole number and one unit: ms, s, m or h";
        let duration = match &node.value {
            Value::Text(text) => match parse_duration(text) {
                Some(duration) => duration,
                None => {
                    let hint = similar_duration(text).map(|similar| format!("did you mean `{similar}`?"));
                    self.mismatch_with_hint(node, WHAT, hint.unwrap_or_else(|| FORM.to_owned()));
                    return None;
                }
            },
            Value::Integer(value @ 0..) => {
                self.mismatch_with_hint(node, WHAT, format!("did you mean `{value}s`?"));
                return None;
            }
            _ => {
                self.mismatch_with_hint(node, WHAT, FORM);
                return None;
            }
        };
        if !range.contains(&duration) {
            let (least, most) = (show_duration(*range.start()), show_duration(*range.end()));
            self.mismatch(node, &format!("a duration from {least} to {most}"));
            return None;
        }
        Some(duration)
    }

    /// Reads a TTL in whole seconds, at most [`MAX_TTL`].
    pub fn ttl(&self, node: &Node<'_>) -> Option<u32> {
        let duration = self.duration(node, Duration::ZERO..=Duration::from_secs(MAX_TTL.into()))?;
        if duration.subsec_nanos() > 0 {
            self.mismatch_with_hint(node, "whole seconds", "DNS TTLs are whole seconds");
            return None;
        }
        u32::try_from(duration.as_secs()).ok()
    }

    /// Reads `nearest`.
    pub fn nearest(&self, node: &Node<'_>) -> Option<Nearest> {
        self.word(node, &Nearest::WORDS)
    }

    /// Reads `min_healthy`: a number of instances, or a share such as `50%`.
    pub fn min_healthy(&self, node: &Node<'_>) -> Option<MinHealthy> {
        let what = MinHealthy::EXPECTED;
        match &node.value {
            Value::Integer(value) => match value.to_string().parse() {
                Ok(number) => return Some(number),
                Err(_) => self.mismatch(node, what),
            },
            Value::Text(text) => match text.parse() {
                Ok(share @ MinHealthy::Share(_)) => return Some(share),
                Ok(MinHealthy::Number(number)) => {
                    self.mismatch_with_hint(node, what, self.as_plain(node, &number.to_string()));
                }
                Err(_) => self.mismatch(node, what),
            },
            Value::Float => self.mismatch_with_hint(node, what, "write a share as a whole percentage, such as `50%`"),
            _ => self.mismatch(node, what),
        }
        None
    }

    /// Reads a DNS label; `what` describes it, such as "a service's name".
    pub fn label(&self, node: &Node<'_>, what: &str) -> Option<Label> {
        let text = self.line(node, what)?;
        self.label_of(node, what, &text)
    }

    /// As [`label`](Self::label), for a given text of the node.
    pub fn label_of(&self, node: &Node<'_>, what: &str, text: &str) -> Option<Label> {
        Label::parse(text).map_err(|error| self.report_label(node.id, what, text, &error)).ok()
    }

    /// Reads the given text of the node as a registered name; `what` describes it.
    pub fn registered_name_of(&self, node: &Node<'_>, what: &str, text: &str) -> Option<RegisteredName> {
        let invalid = |error| self.error(node.id, format!("{} cannot be {what}: {error}", quote(text)));
        RegisteredName::parse(text).map_err(invalid).ok()
    }

    /// Reports an invalid label and suggests a valid one if there is an obvious one.
    pub fn report_label(&self, id: super::tree::Id, what: &str, text: &str, error: &LabelError) {
        let message = format!("{} cannot be {what}: {error}", quote(text));
        let fixed: String = text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        match Label::parse(fixed.trim_matches('-')) {
            Ok(label) => self.error_with_hint(id, message, format!("did you mean `{label}`?")),
            Err(_) => self.error(id, message),
        }
    }

    /// Reads a domain of host name labels, other than the root.
    pub fn domain(&self, node: &Node<'_>, what: &str) -> Option<Name> {
        let text = self.line(node, what)?;
        self.domain_of(node.id, what, &text)
    }

    /// As [`domain`](Self::domain), for a given text of the node or key.
    pub fn domain_of(&self, id: super::tree::Id, what: &str, text: &str) -> Option<Name> {
        let relative = text.strip_suffix('.').unwrap_or(text);
        for label in relative.split('.') {
            if let Err(error) = Label::parse(label) {
                self.error(id, format!("{} cannot be {what}: {error}", quote(text)));
                return None;
            }
        }
        Name::parse(text).map_err(|error| self.error(id, format!("{} cannot be {what}: {error}", quote(text)))).ok()
    }

    /// Reads one of a set of words.
    pub fn word<T: Copy>(&self, node: &Node<'_>, words: &[(&str, T)]) -> Option<T> {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let what = format!("`{}`", known.join("`, `"));
        let what = what.rsplit_once(", ").map_or(what.clone(), |(first, last)| format!("{first} or {last}"));
        let Value::Text(text) = &node.value else {
            self.mismatch(node, &what);
            return None;
        };
        let found = words.iter().find(|(word, _)| word == text).map(|(_, value)| *value);
        if found.is_none() {
            match did_you_mean(text, &known) {
                Some(hint) => self.mismatch_with_hint(node, &what, hint),
                None => self.mismatch(node, &what),
            }
        }
        found
    }

    /// Reads the address of an instance or a node, neither unspecified nor multicast.
    pub fn host_address(&self, node: &Node<'_>) -> Option<IpAddr> {
        const WHAT: &str = "an IP address";
        let text = self.line(node, WHAT)?;
        let Ok(address) = text.parse::<IpAddr>() else {
            match text.parse::<SocketAddr>() {
                Ok(both) => self.mismatch_with_hint(node, WHAT, format!("did you mean `{}`?", both.ip())),
                Err(_) if is_host_name(&text) => {
                    self.mismatch_with_hint(node, WHAT, "host names are not resolved here");
                }
                Err(_) => self.mismatch(node, WHAT),
            }
            return None;
        };
        if bounds::host_address(&address).is_ok() {
            return Some(address);
        }
        match address.to_canonical() {
            canonical if canonical == address => self.mismatch(node, "the IP address of a host"),
            canonical => self.mismatch_with_hint(node, WHAT, format!("did you mean `{canonical}`?")),
        }
        None
    }

    /// Reads `ip`, `ip:port`, `[v6]` or `[v6]:port`. Port 0 is valid: listeners then take any free port.
    pub fn socket_address(&self, node: &Node<'_>, default_port: u16) -> Option<SocketAddr> {
        let what = format!("an address such as `127.0.0.1:{default_port}` or `[::1]:{default_port}`");
        let what = what.as_str();
        let text = self.line(node, what)?;
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&text);
        let address = text.parse().or_else(|_| bare.parse().map(|ip: IpAddr| SocketAddr::new(ip, default_port)));
        if address.is_err() {
            let host = text.rsplit_once(':').map_or(&*text, |(host, _)| host);
            let port = text.rsplit_once(':').map_or(String::new(), |(_, port)| format!(":{port}"));
            match host {
                "localhost" => self.mismatch_with_hint(node, what, format!("did you mean `127.0.0.1{port}`?")),
                "" | "*" => self.mismatch_with_hint(node, what, format!("did you mean `0.0.0.0{port}`?")),
                _ => self.mismatch(node, what),
            }
        }
        address.ok()
    }

    /// Reads a host, by address or name, and a port, which is required without a default.
    pub fn endpoint(&self, node: &Node<'_>, default_port: Option<u16>) -> Option<Endpoint> {
        let what = match default_port {
            Some(port) => format!("a host or `host:port`, such as `10.0.0.7` or `[::1]:{port}`"),
            None => "`host:port`, such as `127.0.0.1:8080` or `[::1]:8080`".to_owned(),
        };
        let what = what.as_str();
        if let Value::Integer(port @ 1..=65535) = &node.value {
            self.mismatch_with_hint(node, what, format!("did you mean `127.0.0.1:{port}`?"));
            return None;
        }
        let text = self.line(node, what)?;
        let endpoint = parse_endpoint(&text, default_port);
        if endpoint.is_none() {
            match text.parse::<IpAddr>() {
                Ok(_) => self.mismatch_with_hint(node, what, "the port is missing"),
                Err(_) => self.mismatch(node, what),
            }
        }
        endpoint
    }
}

/// Parses an integer with separators or white space: `8_080`, ` 8080`, the line end of a block scalar.
fn digits_of(text: &str) -> Option<i64> {
    text.trim().replace('_', "").parse().ok()
}

/// Parses `500ms`, `5s`, `1m`, `1h`. A number that overflows is the longest duration, which is out of every range.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).filter(|digits| *digits > 0)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().unwrap_or(u64::MAX);
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.saturating_mul(60))),
        "h" => Some(Duration::from_secs(number.saturating_mul(60 * 60))),
        _ => None,
    }
}

/// Suggests a duration for a malformed one: `5 s`, `5S`, or `10` without a unit.
fn similar_duration(text: &str) -> Option<String> {
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_lowercase();
    let with_unit = if compact.bytes().all(|b| b.is_ascii_digit()) { format!("{compact}s") } else { compact };
    parse_duration(&with_unit).map(|_| with_unit)
}

/// Formats a duration in the largest unit without a fraction.
pub(crate) fn show_duration(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    match (seconds, millis) {
        (_, 1..) => format!("{}ms", duration.as_millis()),
        (0, 0) => "0s".to_owned(),
        _ if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        _ if seconds % 60 == 0 => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

/// Parses `host:port`, or `host` if there is a default port.
pub(crate) fn parse_endpoint(text: &str, default_port: Option<u16>) -> Option<Endpoint> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() > 0).then(|| Endpoint { host: address.ip().to_string(), port: address.port() });
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(Endpoint { host: address.to_string(), port: default_port? });
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, port.parse().ok()?),
        Some(_) => return None,
        None => (text, default_port?),
    };
    (port > 0 && is_host_name(host)).then(|| Endpoint { host: host.to_owned(), port })
}

/// Matches dotted labels of letters, digits, hyphens and underscores. The last label is not a number: `10.0.0.300` is a
/// mistyped address.
fn is_host_name(text: &str) -> bool {
    let relative = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    relative.len() <= MAX_HOST
        && relative.split('.').all(is_label)
        && !relative.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
}
