//! A server that is asked: where it is, and how it is spoken to.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::name::Name;

/// DNS over TLS (RFC 7858 §3.1).
const TLS_PORT: u16 = 853;
/// DNS over HTTPS (RFC 8484 §4).
const HTTPS_PORT: u16 = 443;
/// What public resolvers have.
const DEFAULT_PATH: &str = "/dns-query";

/// A DNS server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamAddress {
    /// Where it is.
    pub address: SocketAddr,
    /// How it is spoken to.
    pub way: UpstreamTransport,
}

/// How a server is spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamTransport {
    /// UDP, and TCP for what is long.
    Plain,
    /// TLS (RFC 7858), where the certificate has this name; `None`: the address.
    Tls(Option<Arc<str>>),
    /// HTTPS (RFC 8484), where the certificate has this name.
    Https {
        /// `None`: the address.
        name: Option<Arc<str>>,
        /// Begins with a slash.
        path: Arc<str>,
    },
}

/// Why a text is no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamAddressError {
    /// Neither `tls://` nor `https://`.
    Scheme,
    /// A host's name in place of its address: who would resolve it?
    Address,
    /// What the certificate should have is no name.
    Name,
    /// Not what HTTP takes for a path.
    Path,
}

impl UpstreamAddress {
    /// A server that is spoken to in the plain.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, way: UpstreamTransport::Plain }
    }

    /// Its text without the path, in which providers put what only their customers know: for what others may read.
    pub fn label(&self) -> String {
        match &self.way {
            UpstreamTransport::Https { name: None, .. } => format!("https://{}", self.address),
            UpstreamTransport::Https { name: Some(name), .. } => format!("https://{}#{name}", self.address),
            UpstreamTransport::Plain | UpstreamTransport::Tls(_) => self.to_string(),
        }
    }

    /// Reads `tls://ADDRESS[:PORT][#NAME]` or `https://ADDRESS[:PORT][/PATH][#NAME]`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, UpstreamAddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(UpstreamAddressError::Scheme)?;
        let (rest, name) = rest.split_once('#').map_or((rest, None), |(rest, name)| (rest, Some(name)));
        let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let name = name.map(Arc::<str>::from);
        if name.as_ref().is_some_and(|name| name.parse::<IpAddr>().is_err() && !is_host(name)) {
            return Err(UpstreamAddressError::Name);
        }
        let (port, way) = match scheme {
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
        Ok(Self { address, way })
    }
}

/// Whether a certificate can have this name (RFC 6125 §6.4).
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
        let (scheme, path, name) = match &self.way {
            UpstreamTransport::Plain => return self.address.fmt(f),
            UpstreamTransport::Tls(name) => ("tls", "", name),
            UpstreamTransport::Https { name, path } => ("https", &**path, name),
        };
        write!(f, "{scheme}://{}{path}", self.address)?;
        name.as_ref().map_or(Ok(()), |name| write!(f, "#{name}"))
    }
}

impl fmt::Display for UpstreamAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "servers are addresses, `tls://ADDRESS#NAME` or `https://ADDRESS/PATH#NAME`",
            Self::Address => "the host is an address, since nobody could resolve its name; the name goes behind `#`",
            Self::Name => "behind `#` stands the name in the server's certificate",
            Self::Path => "a path is for `https://` only, and has neither spaces nor quotes",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_gives_no_path_away() {
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
    fn what_names_a_server() {
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
            let found = UpstreamAddress::parse(text).map(|server| server.to_string());
            assert_eq!(found.as_deref().map_err(|error| *error), expected, "{text}");
        }
    }
}
