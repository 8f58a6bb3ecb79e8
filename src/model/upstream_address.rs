//! Address and transport of an upstream.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use thiserror::Error;

use super::name::Name;

/// Default port of DNS over TLS (RFC 7858 §3.1).
const TLS_PORT: u16 = 853;
/// Default port of DNS over HTTPS (RFC 8484 §4).
const HTTPS_PORT: u16 = 443;
/// Default path of DNS over HTTPS, the one of public resolvers.
const DEFAULT_PATH: &str = "/dns-query";

/// An upstream DNS server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamAddress {
    /// Address and port.
    pub address: SocketAddr,
    /// Transport.
    pub transport: UpstreamTransport,
}

/// Transport of queries to an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamTransport {
    /// UDP, with TCP for truncated replies.
    Plain,
    /// DNS over TLS (RFC 7858), with the name in the certificate; `None`: the address.
    Tls(Option<Arc<str>>),
    /// DNS over HTTPS (RFC 8484).
    Https {
        /// Name in the certificate; `None`: the address.
        name: Option<Arc<str>>,
        /// Path of the URL, with leading slash.
        path: Arc<str>,
    },
}

/// Invalid upstream address.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum UpstreamAddressError {
    /// Neither `tls://` nor `https://`.
    #[error("upstreams are addresses, `tls://ADDRESS#NAME` or `https://ADDRESS/PATH#NAME`")]
    Scheme,
    /// Host name instead of an address: it could not be resolved without an upstream.
    #[error("the host has to be an IP address, since its name could not be resolved; put the name after `#`")]
    Address,
    /// Invalid name after `#`.
    #[error("the text after `#` has to be the name in the server's certificate")]
    Name,
    /// Path with `tls://`, or path that is not valid in a URL.
    #[error("a path is for `https://` only, without spaces and quotes")]
    Path,
}

impl UpstreamAddress {
    /// Returns an upstream for plain DNS over UDP and TCP.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, transport: UpstreamTransport::Plain }
    }

    /// Returns a label for logs and metrics. It omits the path, which may be a secret between provider and customer.
    pub fn label(&self) -> String {
        match &self.transport {
            UpstreamTransport::Https { name: None, .. } => format!("https://{}", self.address),
            UpstreamTransport::Https { name: Some(name), .. } => format!("https://{}#{name}", self.address),
            UpstreamTransport::Plain | UpstreamTransport::Tls(_) => self.to_string(),
        }
    }

    /// Parses `tls://ADDRESS[:PORT][#NAME]` or `https://ADDRESS[:PORT][/PATH][#NAME]`.
    ///
    /// # Errors
    /// Another scheme, a host name, or an invalid name or path.
    pub fn parse(text: &str) -> Result<Self, UpstreamAddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(UpstreamAddressError::Scheme)?;
        let (rest, name) = rest.split_once('#').map_or((rest, None), |(rest, name)| (rest, Some(name)));
        let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let name = name.map(Arc::<str>::from);
        if name.as_ref().is_some_and(|name| name.parse::<IpAddr>().is_err() && !is_host(name)) {
            return Err(UpstreamAddressError::Name);
        }
        let (port, transport) = match scheme {
            "tls" if path.is_empty() => (TLS_PORT, UpstreamTransport::Tls(name)),
            "tls" => return Err(UpstreamAddressError::Path),
            "https" => {
                let path = if path.is_empty() { DEFAULT_PATH } else { path };
                if !path.bytes().all(|octet| octet.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&octet)) {
                    return Err(UpstreamAddressError::Path);
                }
                (HTTPS_PORT, UpstreamTransport::Https { name, path: path.into() })
            }
            _ => return Err(UpstreamAddressError::Scheme),
        };
        let address = parse_address(host, port).ok_or(UpstreamAddressError::Address)?;
        Ok(Self { address, transport })
    }
}

/// Reports whether a certificate can have this name (RFC 6125 §6.4).
fn is_host(name: &str) -> bool {
    Name::parse(name).is_ok() && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-._".contains(&octet))
}

fn parse_address(host: &str, port: u16) -> Option<SocketAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let alone = bare.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, port));
    alone.or_else(|| host.parse().ok())
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, path, name) = match &self.transport {
            UpstreamTransport::Plain => return self.address.fmt(f),
            UpstreamTransport::Tls(name) => ("tls", "", name),
            UpstreamTransport::Https { name, path } => ("https", &**path, name),
        };
        write!(f, "{scheme}://{}{path}", self.address)?;
        name.as_ref().map_or(Ok(()), |name| write!(f, "#{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_omits_the_path() {
        let cases = [
            ("tls://192.0.2.1#dns.example", "tls://192.0.2.1:853#dns.example"),
            ("https://192.0.2.1/secret", "https://192.0.2.1:443"),
            ("https://192.0.2.1/secret?key=1#dns.example", "https://192.0.2.1:443#dns.example"),
        ];
        for (text, expected) in cases {
            assert_eq!(UpstreamAddress::parse(text).unwrap().label(), expected, "{text}");
        }
    }

    #[test]
    fn upstream_addresses_are_parsed() {
        let cases = [
            ("tls://192.0.2.1", Ok("tls://192.0.2.1:853")),
            ("tls://192.0.2.1:8853#dns.example", Ok("tls://192.0.2.1:8853#dns.example")),
            ("tls://2001:db8::1#dns.example", Ok("tls://[2001:db8::1]:853#dns.example")),
            ("tls://[2001:db8::1]", Ok("tls://[2001:db8::1]:853")),
            ("tls://[2001:db8::1]:99", Ok("tls://[2001:db8::1]:99")),
            ("https://192.0.2.1", Ok("https://192.0.2.1:443/dns-query")),
            ("https://192.0.2.1:8443/q?x=1#dns.example", Ok("https://192.0.2.1:8443/q?x=1#dns.example")),
            ("tls://dns.example", Err(UpstreamAddressError::Address)),
            ("tls://192.0.2.1/dns-query", Err(UpstreamAddressError::Path)),
            ("https://192.0.2.1/a b", Err(UpstreamAddressError::Path)),
            ("quic://192.0.2.1", Err(UpstreamAddressError::Scheme)),
            ("192.0.2.1", Err(UpstreamAddressError::Scheme)),
            ("tls://192.0.2.1#", Err(UpstreamAddressError::Name)),
            ("tls://192.0.2.1#a b", Err(UpstreamAddressError::Name)),
        ];
        for (text, expected) in cases {
            let found = UpstreamAddress::parse(text).map(|upstream| upstream.to_string());
            assert_eq!(found.as_deref().map_err(|error| *error), expected, "{text}");
        }
    }
}
