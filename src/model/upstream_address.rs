//! Address and transport of an upstream.

use std::{
    fmt,
    net::{IpAddr, SocketAddr, SocketAddrV6},
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
/// Longest name of an interface: IFNAMSIZ of Linux without the final NUL.
const MAX_INTERFACE: usize = 15;

/// An upstream DNS server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamAddress {
    /// Address and port.
    pub address: SocketAddr,
    /// Interface of a link-local address, by name or index (RFC 4007 §11); `None` for other addresses.
    pub interface: Option<Arc<str>>,
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
    #[error(
        "the host has to be an IP address, since its name could not be resolved; put the name after `#`. A link-local IPv6 \
         address needs its interface, as in `fe80::1%eth0`"
    )]
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
        Self { address, interface: None, transport: UpstreamTransport::Plain }
    }

    /// Parses `ADDRESS` or `ADDRESS:PORT` of plain DNS, where an IPv6 address with a port is in brackets. `None` for other text, for a
    /// link-local IPv6 address without an interface, and for an interface of another address.
    pub fn parse_plain(text: &str, default_port: u16) -> Option<Self> {
        let (address, interface) = parse_address(text, default_port)?;
        Some(Self { address, interface, transport: UpstreamTransport::Plain })
    }

    /// Returns the address to connect to. `index_of` returns the index of an interface. `None` if there is no such interface now.
    pub fn socket_address(&self, index_of: impl FnOnce(&str) -> Option<u32>) -> Option<SocketAddr> {
        match (self.address, &self.interface) {
            (SocketAddr::V6(address), Some(interface)) => {
                let index = interface.parse().ok().or_else(|| index_of(interface))?;
                Some(SocketAddrV6::new(*address.ip(), address.port(), 0, index).into())
            }
            (address, _) => Some(address),
        }
    }

    /// Returns the address as text, with its interface.
    fn shown_address(&self) -> String {
        match (&self.address, &self.interface) {
            (SocketAddr::V6(address), Some(interface)) => format!("[{}%{interface}]:{}", address.ip(), address.port()),
            (address, _) => address.to_string(),
        }
    }

    /// Returns a label for logs and metrics. It omits the path, which may be a secret between provider and customer.
    pub fn label(&self) -> String {
        match &self.transport {
            UpstreamTransport::Https { name: None, .. } => format!("https://{}", self.shown_address()),
            UpstreamTransport::Https { name: Some(name), .. } => format!("https://{}#{name}", self.shown_address()),
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
        let (address, interface) = parse_address(host, port).ok_or(UpstreamAddressError::Address)?;
        Ok(Self { address, interface, transport })
    }
}

/// Reports whether a certificate can have this name (RFC 6125 §6.4).
fn is_host(name: &str) -> bool {
    Name::parse(name).is_ok() && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-._".contains(&octet))
}

/// Parses an address, a port and the interface that a link-local IPv6 address must have, and other addresses must not have.
fn parse_address(host: &str, port: u16) -> Option<(SocketAddr, Option<Arc<str>>)> {
    let (host, interface) = match host.split_once('%') {
        None => (host.to_owned(), None),
        Some((address, rest)) => {
            let (interface, port) = rest.find(']').map_or((rest, ""), |at| rest.split_at(at));
            (format!("{address}{port}"), Some(interface).filter(|name| is_interface(name)).map(Some)?)
        }
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
    let alone = bare.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, port));
    let address: SocketAddr = alone.or_else(|| host.parse().ok())?;
    let is_link_local = matches!(address.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local());
    (is_link_local == interface.is_some()).then(|| (address, interface.map(Arc::from)))
}

/// Reports whether a text can be the name or index of an interface.
fn is_interface(name: &str) -> bool {
    (1..=MAX_INTERFACE).contains(&name.len())
        && name.bytes().all(|octet| octet.is_ascii_graphic() && !b"/%[]".contains(&octet))
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, path, name) = match &self.transport {
            UpstreamTransport::Plain => return f.write_str(&self.shown_address()),
            UpstreamTransport::Tls(name) => ("tls", "", name),
            UpstreamTransport::Https { name, path } => ("https", &**path, name),
        };
        write!(f, "{scheme}://{}{path}", self.shown_address())?;
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
    fn link_local_addresses_have_an_interface() {
        let cases = [
            ("fe80::1%eth0", Some("[fe80::1%eth0]:53")),
            ("[fe80::1%eth0]", Some("[fe80::1%eth0]:53")),
            ("[fe80::1%eth0.2]:5353", Some("[fe80::1%eth0.2]:5353")),
            ("fe80::1%2", Some("[fe80::1%2]:53")),
            ("2001:db8::1", Some("[2001:db8::1]:53")),
            ("169.254.0.1", Some("169.254.0.1:53")),
            ("fe80::1", None),
            ("fe80::1%", None),
            ("fe80::1%a/b", None),
            ("fe80::1%interface-of-many-letters", None),
            ("2001:db8::1%eth0", None),
            ("192.0.2.1%eth0", None),
            ("%eth0", None),
        ];
        for (text, expected) in cases {
            let found = UpstreamAddress::parse_plain(text, 53).map(|upstream| upstream.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
        let reachable = |text: &str| {
            let index_of = |name: &str| (name == "eth0").then_some(7);
            UpstreamAddress::parse_plain(text, 53).unwrap().socket_address(index_of).map(|address| address.to_string())
        };
        assert_eq!(reachable("fe80::1%eth0").as_deref(), Some("[fe80::1%7]:53"));
        assert_eq!(reachable("fe80::1%2").as_deref(), Some("[fe80::1%2]:53"));
        assert_eq!(reachable("fe80::1%eth1"), None);
        assert_eq!(reachable("192.0.2.1").as_deref(), Some("192.0.2.1:53"));
    }

    #[test]
    fn upstream_addresses_are_parsed() {
        let cases = [
            ("tls://192.0.2.1", Ok("tls://192.0.2.1:853")),
            ("tls://192.0.2.1:8853#dns.example", Ok("tls://192.0.2.1:8853#dns.example")),
            ("tls://2001:db8::1#dns.example", Ok("tls://[2001:db8::1]:853#dns.example")),
            ("tls://[2001:db8::1]", Ok("tls://[2001:db8::1]:853")),
            ("tls://[2001:db8::1]:99", Ok("tls://[2001:db8::1]:99")),
            ("tls://fe80::1%eth0#dns.example", Ok("tls://[fe80::1%eth0]:853#dns.example")),
            ("https://[fe80::1%eth0]:8443/q", Ok("https://[fe80::1%eth0]:8443/q")),
            ("tls://fe80::1", Err(UpstreamAddressError::Address)),
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
