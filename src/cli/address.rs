//! The address of an agent's HTTP API: plain TCP, TLS or a Unix socket.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

use crate::{config::HTTP_PORT, model::service::Endpoint, yaml::scalar::parse_endpoint};

/// The address of an agent's HTTP API.
#[derive(Clone, Debug)]
pub(super) enum Address {
    /// `http://host:port`, or `host:port`
    Http(Endpoint),
    /// `https://host:port`
    Https(Endpoint),
    /// `unix:///path`
    Unix(PathBuf),
}

impl Address {
    /// Value of the header `Host`; `localhost` for a Unix socket.
    pub(super) fn host(&self) -> String {
        match self {
            Self::Http(endpoint) | Self::Https(endpoint) => endpoint.to_string(),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }

    /// Reports whether requests cross the network unencrypted.
    pub(super) fn is_cleartext(&self) -> bool {
        match self {
            Self::Http(Endpoint { host, .. }) => {
                host != "localhost" && !host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
            }
            Self::Https(_) | Self::Unix(_) => false,
        }
    }
}

/// Reports whether a text is meant as the address of an agent, rather than as a path.
pub(super) fn is_url(text: &str) -> bool {
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    ["http", "https", "unix"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

/// The text without the user and the password of an address, which an error of the command line would show.
pub(super) fn without_user(text: &str) -> String {
    let start = text.find("://").map_or(0, |at| at + 3);
    match text.rfind('@').filter(|at| *at >= start) {
        Some(at) => format!("{}***{}", &text[..start], &text[at..]),
        None => text.to_owned(),
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").map(PathBuf::from).filter(|path| path.is_absolute());
            return path.map(Self::Unix).ok_or(AddressError::Socket);
        }
        let (kind, bare): (fn(Endpoint) -> Self, _) = match text.split_once("://") {
            None => (Self::Http, text),
            Some((scheme, bare)) if scheme.eq_ignore_ascii_case("http") => (Self::Http, bare),
            Some((scheme, bare)) if scheme.eq_ignore_ascii_case("https") => (Self::Https, bare),
            Some((scheme, _)) if scheme.contains('@') => return Err(AddressError::User),
            Some((scheme, _)) => return Err(AddressError::Scheme(scheme.to_owned())),
        };
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        parse_endpoint(bare, Some(HTTP_PORT)).map(kind).ok_or_else(|| AddressError::diagnose(bare))
    }
}

/// Invalid address of an agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AddressError {
    /// The host is missing.
    #[error("the host is missing; {FORMS}")]
    Empty,
    /// The path of a Unix socket is not absolute.
    #[error("the path of a Unix socket must be absolute, as in unix:///run/muster/api.sock")]
    Socket,
    /// The scheme is neither `http` nor `https`.
    #[error("the scheme {0:?} is unknown; {FORMS}")]
    Scheme(String),
    /// A path, query or fragment follows the port.
    #[error("an address ends with the port, got {0:?}")]
    Path(String),
    /// The address contains a user or a password.
    #[error("an address has no user; --token-file names a file with a token")]
    User,
    /// The port is invalid.
    #[error("the port must be an integer from 1 to 65535, got {0:?}")]
    Port(String),
    /// The host is neither an IP address nor a host name.
    #[error("{0:?} is neither an IP address nor a host name; {FORMS}")]
    Host(String),
}

/// The valid forms of an address.
const FORMS: &str = "an address is http://host:port, https://host:port, host:port, [v6]:port or unix:///path";

impl AddressError {
    /// Returns the error of a text that is not `host:port`.
    fn diagnose(text: &str) -> Self {
        if text.is_empty() {
            return Self::Empty;
        }
        // First, since no other error may show a password.
        if text.contains('@') {
            return Self::User;
        }
        if let Some(at) = text.find(['/', '?', '#']) {
            return Self::Path(text[at..].to_owned());
        }
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
            Some((host, port)) => (host, Some(port)),
            None => match text.split_once(':') {
                Some((host, port)) if !port.contains(':') => (host, Some(port)),
                _ => (text, None),
            },
        };
        match port {
            Some(port) if !port.parse::<u16>().is_ok_and(|port| port > 0) => Self::Port(port.to_owned()),
            Some(_) if host.is_empty() => Self::Empty,
            _ => Self::Host(host.to_owned()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(endpoint) => write!(f, "http://{endpoint}"),
            Self::Https(endpoint) => write!(f, "https://{endpoint}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_addresses_are_parsed() {
        let cases: &[(&str, Option<&str>)] = &[
            ("http://127.0.0.1:8500", Some("http://127.0.0.1:8500")),
            ("http://127.0.0.1:8500/", Some("http://127.0.0.1:8500")),
            ("127.0.0.1:1", Some("http://127.0.0.1:1")),
            ("10.0.0.7", Some("http://10.0.0.7:8500")),
            ("[::1]:8501", Some("http://[::1]:8501")),
            ("http://[fd00::7]", Some("http://[fd00::7]:8500")),
            ("::1", Some("http://[::1]:8500")),
            ("host-a.example:80", Some("http://host-a.example:80")),
            ("https://127.0.0.1:8501/", Some("https://127.0.0.1:8501")),
            ("https://host-a.example", Some("https://host-a.example:8500")),
            ("unix:///run/muster/api.sock", Some("unix:///run/muster/api.sock")),
            ("unix://run/muster", None),
            ("unix:/run/muster", None),
            ("http://127.0.0.1:8500/path", None),
            ("127.0.0.1:0", None),
            ("127.0.0.1:99999", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let got = text.parse::<Address>().ok().map(|address| address.to_string());
            assert_eq!(got.as_deref(), *expected, "{text:?}");
        }
    }

    #[test]
    fn malformed_addresses_are_refused_with_the_cause() {
        let cases = [
            ("", "the host is missing; an address is http://host:port"),
            ("http://", "the host is missing"),
            (":8500", "the host is missing"),
            ("unix:/run/muster/api.sock", "the path of a Unix socket must be absolute"),
            ("unix://run/muster", "the path of a Unix socket must be absolute"),
            ("ftp://host-a", "the scheme \"ftp\" is unknown"),
            ("http://host-a:8500/v1/", "an address ends with the port, got \"/v1\""),
            ("host-a?dc=dc1", "an address ends with the port, got \"?dc=dc1\""),
            ("http://root:secret@host-a", "an address has no user"),
            ("http://root:sec/ret@host-a", "an address has no user"),
            ("root:secret@x://host-a", "an address has no user"),
            ("host-a:0", "the port must be an integer from 1 to 65535, got \"0\""),
            ("host-a:99999", "the port must be an integer from 1 to 65535, got \"99999\""),
            ("host-a:http", "the port must be an integer from 1 to 65535, got \"http\""),
            ("host-a:", "the port must be an integer from 1 to 65535, got \"\""),
            ("[::1]:x", "the port must be an integer from 1 to 65535, got \"x\""),
            ("10.0.0.300", "\"10.0.0.300\" is neither an IP address nor a host name"),
            ("host a:8500", "\"host a\" is neither"),
            ("[::1", "\"[::1\" is neither"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<Address>().expect_err(text).to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
        assert!(matches!("HTTPS://host-a".parse(), Ok(Address::Https(_))));
    }

    #[test]
    fn users_of_addresses_are_not_shown() {
        let cases = [
            ("http://root:secret@host-a:1", "http://***@host-a:1"),
            ("root:se@cret@host-a", "***@host-a"),
            ("http://host-a:1", "http://host-a:1"),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(without_user(text), expected);
        }
        assert!(is_url("HTTP://a") && is_url("unix:/a") && !is_url("a.json") && !is_url("/etc/consul.d"));
    }

    #[test]
    fn only_http_beyond_loopback_is_cleartext() {
        let cases = [
            ("http://127.0.0.1", false),
            ("http://[::1]", false),
            ("http://localhost:1", false),
            ("http://10.0.0.7", true),
            ("http://host-a", true),
            ("https://10.0.0.7", false),
            ("unix:///run/api", false),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Address>().unwrap().is_cleartext(), expected, "{text}");
        }
    }
}
