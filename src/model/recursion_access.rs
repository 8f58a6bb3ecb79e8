//! Access control for recursion. An open resolver amplifies attacks on others (RFC 5358).

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

/// An IPv6 client is a network of this prefix length: a host can use any address in it (RFC 4291 §2.5.4).
const IPV6_PREFIX: u32 = 64;

/// Client of a query, and the time of arrival.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Address to which the reply goes.
    pub address: IpAddr,
    /// Arrival, since 1970.
    pub now: Duration,
}

/// Range of clients that may use recursion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientRange {
    /// 127.0.0.0/8 and ::1.
    Loopback,
    /// The networks of RFC 1918 and RFC 4193, and link-local addresses.
    Private,
    /// All addresses.
    Any,
    /// A network in CIDR notation.
    Network {
        /// Network address; bits after the prefix are zero.
        address: IpAddr,
        /// Prefix length: at most 32 for IPv4, 128 for IPv6.
        prefix: u8,
    },
}

impl ClientRange {
    /// Reports whether the range contains the client. An IPv4-mapped IPv6 address counts as IPv4.
    pub fn matches(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        match (*self, client) {
            (Self::Any, _) => true,
            (Self::Loopback, client) => client.is_loopback(),
            (Self::Private, IpAddr::V4(client)) => client.is_private() || client.is_link_local(),
            (Self::Private, IpAddr::V6(client)) => client.is_unique_local() || client.is_unicast_link_local(),
            (Self::Network { address: IpAddr::V4(first), prefix }, IpAddr::V4(client)) => {
                (client.to_bits() ^ first.to_bits()).leading_zeros() >= u32::from(prefix)
            }
            (Self::Network { address: IpAddr::V6(first), prefix }, IpAddr::V6(client)) => {
                (client.to_bits() ^ first.to_bits()).leading_zeros() >= u32::from(prefix)
            }
            (Self::Network { .. }, _) => false,
        }
    }
}

/// Reports whether a client is inside: on this host, or it may use recursion. Other clients may be anywhere, and their addresses
/// may be forged.
pub fn is_inside(may_recurse: bool, client: IpAddr) -> bool {
    may_recurse || client.to_canonical().is_loopback()
}

/// Returns the address that stands for a client in limits per client: an IPv4 address, or the first address of an IPv6
/// network of 64 bits. An IPv4-mapped address counts as IPv4; `::1` stays as it is.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => {
            Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << (128 - IPV6_PREFIX))).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_ranges_match_addresses() {
        let network = |address: &str, prefix| ClientRange::Network { address: address.parse().unwrap(), prefix };
        let cases = [
            (ClientRange::Loopback, "127.0.0.1", true),
            (ClientRange::Loopback, "127.255.0.9", true),
            (ClientRange::Loopback, "::1", true),
            (ClientRange::Loopback, "::ffff:127.0.0.1", true),
            (ClientRange::Loopback, "10.0.0.1", false),
            (ClientRange::Private, "10.255.0.1", true),
            (ClientRange::Private, "172.16.0.1", true),
            (ClientRange::Private, "172.32.0.1", false),
            (ClientRange::Private, "192.168.1.1", true),
            (ClientRange::Private, "169.254.1.1", true),
            (ClientRange::Private, "fd00::1", true),
            (ClientRange::Private, "fe80::1", true),
            (ClientRange::Private, "::ffff:10.0.0.1", true),
            (ClientRange::Private, "100.64.0.1", false),
            (ClientRange::Private, "127.0.0.1", false),
            (ClientRange::Private, "2001:db8::1", false),
            (ClientRange::Any, "203.0.113.9", true),
            (network("203.0.113.0", 24), "203.0.113.255", true),
            (network("203.0.113.0", 24), "203.0.114.0", false),
            (network("203.0.113.7", 32), "203.0.113.7", true),
            (network("203.0.113.7", 32), "203.0.113.6", false),
            (network("0.0.0.0", 0), "203.0.113.7", true),
            (network("0.0.0.0", 0), "2001:db8::1", false),
            (network("2001:db8::", 32), "2001:db8:ffff::1", true),
            (network("2001:db8::", 32), "2001:db9::1", false),
            (network("::", 0), "2001:db9::1", true),
        ];
        for (allow, client, expected) in cases {
            assert_eq!(allow.matches(client.parse().unwrap()), expected, "{allow:?} {client}");
        }
    }
}
