//! Protection against DNS rebinding: a public name with a private address lets a web page reach hosts of the network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{is_within, upstream_reply::Reply};
use crate::model::name::Name;

/// Prefix of IPv4 addresses behind NAT64 (RFC 6052 §2.1).
const NAT64: [u8; 12] = [0x00, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0];

/// Names whose replies must not have private addresses: all public names with some exceptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RebindProtection {
    /// Suffixes of names that may have private addresses.
    pub exceptions: Vec<Name>,
}

impl RebindProtection {
    /// Reports whether a name, in wire form and lower case, must not have private addresses.
    pub fn covers(&self, name: &[u8]) -> bool {
        !self.exceptions.iter().any(|suffix| is_within(name, suffix.wire()))
    }

    /// Returns the first private address in the reply to a question for `name`, which is in wire form and lower case.
    pub fn violation(&self, name: &[u8], reply: &Reply) -> Option<IpAddr> {
        if !self.covers(name) {
            return None;
        }
        reply.find_address(is_private)
    }
}

/// Reports whether an address has no meaning outside a host, a link or a private network. An IPv4-mapped IPv6 address is no
/// valid answer at all (RFC 4038 §4.2).
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => is_private_v4(ip),
        IpAddr::V6(ip) => match ip.octets() {
            [prefix @ .., a, b, c, d] if prefix == NAT64 => is_private_v4(Ipv4Addr::new(a, b, c, d)),
            _ => is_private_v6(ip),
        },
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    // 0.0.0.0/8 is this host (RFC 1122 §3.2.1.3).
    ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.octets()[0] == 0
}

fn is_private_v6(ip: Ipv6Addr) -> bool {
    ip.is_unspecified()
        || ip.is_loopback()
        || ip.is_unique_local()
        || ip.is_unicast_link_local()
        || ip.to_ipv4_mapped().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_recognized() {
        let private = [
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "127.0.0.2",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "::ffff:10.0.0.1",
            "::ffff:192.0.2.1",
            "64:ff9b::10.0.0.1",
        ];
        for address in private {
            assert!(is_private(address.parse().unwrap()), "{address}");
        }
        for address in ["192.0.2.1", "172.32.0.1", "100.64.0.1", "8.8.8.8", "2001:db8::1", "64:ff9b::8.8.8.8"] {
            assert!(!is_private(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn exceptions_cover_names_at_and_below_a_suffix() {
        let name = |text: &str| Name::parse(text).unwrap();
        let protection = RebindProtection { exceptions: vec![name("corp.example")] };
        for (text, expected) in
            [("corp.example", false), ("a.corp.example", false), ("notcorp.example", true), ("example", true)]
        {
            assert_eq!(protection.covers(name(text).wire()), expected, "{text}");
        }
    }
}
