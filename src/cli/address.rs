//! Where an agent is asked: over TCP in the clear, over TLS, or on a Unix socket.

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
    /// What the header `Host` says: on a Unix socket the host that it is on.
    pub(super) fn host(&self) -> String {
        match self {
            Self::Http(endpoint) | Self::Https(endpoint) => endpoint.to_string(),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }

    /// Whether others may read on the way what is sent there.
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Http(Endpoint { host, .. }) => {
                host != "localhost" && !host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
            }
            Self::Https(_) | Self::Unix(_) => false,
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Self::Unix(path)) } else { Err(EXPECTED.to_owned()) };
        }
        let (kind, bare): (fn(Endpoint) -> Self, _) = match text.strip_prefix("https://") {
            Some(bare) => (Self::Https, bare),
            None => (Self::Http, text.strip_prefix("http://").unwrap_or(text)),
        };
        let endpoint = parse_endpoint(bare.strip_suffix('/').unwrap_or(bare), Some(HTTP_PORT));
        endpoint.map(kind).ok_or_else(|| EXPECTED.to_owned())
    }
}

/// What an address looks like.
const EXPECTED: &str = "expected http://host:port, https://host:port, host:port, [v6]:port or unix:///path";

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
    fn an_address_has_many_forms() {
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
    fn a_token_is_open_on_the_way_where_others_are_on_it() {
        let cases = [
            ("http://127.0.0.1", false),
            ("http://[::1]", false),
            ("http://localhost:1", false),
            ("http://10.0.0.7", true),
            ("http://host-a", true),
            ("https://10.0.0.7", false),
            ("unix:///run/api", false),
        ];
        for (text, open) in cases {
            assert_eq!(text.parse::<Address>().unwrap().is_open(), open, "{text}");
        }
    }
}
