//! Alias domains of the discovery zone, and the scheme of the names in a zone.

use std::net::IpAddr;

use super::name::Name;

/// A further zone with the services and nodes of the discovery zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasDomain {
    /// Name of the zone.
    pub domain: Name,
    /// Scheme of its names.
    pub scheme: NameScheme,
}

/// Scheme of the names of services and nodes in a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameScheme {
    /// `SERVICE.ZONE`, `NODE.node.ZONE`: the scheme of the discovery zone.
    Muster,
    /// `SERVICE.service[.DATACENTER].ZONE`, `NODE.node[.DATACENTER].ZONE`: the scheme of Consul.
    Consul,
}

/// Labels above the names of one kind in the scheme of Consul. Before them, no label is a datacenter.
const CONSUL_KINDS: [&[u8]; 7] = [b"service", b"node", b"addr", b"connect", b"virtual", b"ingress", b"query"];

/// Reports whether a label is that of a kind of names in the scheme of Consul, so that no datacenter can be named by it.
pub fn is_consul_kind(label: &[u8]) -> bool {
    CONSUL_KINDS.contains(&label)
}

/// Returns the address of a label `HEX` of `HEX.addr` in the scheme of Consul; `None` if it is not one.
pub fn address_of_label(label: &[u8]) -> Option<IpAddr> {
    let digits = std::str::from_utf8(label).ok().filter(|text| text.bytes().all(|octet| octet.is_ascii_hexdigit()))?;
    match label.len() {
        8 => u32::from_str_radix(digits, 16).ok().map(|bits| IpAddr::V4(bits.into())),
        32 => u128::from_str_radix(digits, 16).ok().map(|bits| IpAddr::V6(bits.into())),
        _ => None,
    }
}

impl AliasDomain {
    /// Returns an alias domain with the names of the discovery zone.
    pub fn new(domain: Name) -> Self {
        Self { domain, scheme: NameScheme::Muster }
    }

    /// Returns an alias domain with the names of Consul.
    pub fn consul(domain: Name) -> Self {
        Self { domain, scheme: NameScheme::Consul }
    }
}

impl NameScheme {
    /// Returns the scheme in one word, as in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Muster => "muster",
            Self::Consul => "consul",
        }
    }
}
