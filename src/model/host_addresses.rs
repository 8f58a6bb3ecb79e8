//! Addresses of this host, as its interfaces and default routes have them at one moment.

use std::net::IpAddr;

/// Usable addresses of the host: no loopback, link-local, multicast or unspecified ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAddresses {
    /// Source address of packets on the IPv4 default route; `None` without such a route.
    ipv4: Option<IpAddr>,
    /// Source address of packets on the IPv6 default route.
    ipv6: Option<IpAddr>,
    assigned: Vec<AssignedAddress>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AssignedAddress {
    /// The address.
    pub address: IpAddr,
    /// Index of the interface.
    pub interface: u32,
    /// Period for which the host is going to have the address.
    pub lifetime: Lifetime,
}

/// Period for which a host is going to have an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lifetime {
    /// As long as the network or the operator does not change it.
    Stable,
    /// Hours: a privacy address (RFC 8981), which the host replaces by itself.
    Temporary,
    /// Until connections that use it have ended (RFC 4862 §5.5.4).
    Deprecated,
    /// Unknown: the host checks whether another host has it (RFC 4862 §5.4).
    Tentative,
}

/// IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Returns the family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }

    /// Returns the other family.
    pub fn other(self) -> Self {
        match self {
            Self::Ipv4 => Self::Ipv6,
            Self::Ipv6 => Self::Ipv4,
        }
    }

    /// Returns the name: `IPv4` or `IPv6`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }
}

/// Reports whether other hosts may reach an address: it is not loopback, link-local, multicast, broadcast or unspecified, and
/// not an IPv4 address in IPv6 form.
pub fn is_usable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            !(ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
                // 0.0.0.0/8 is "this network" (RFC 1122 §3.2.1.3).
                || ip.octets()[0] == 0)
        }
        IpAddr::V6(ip) => {
            !(ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unicast_link_local()
                || ip.to_ipv4_mapped().is_some())
        }
    }
}

impl HostAddresses {
    /// Creates the addresses of a host. `sources` are the source addresses of packets on its default routes, at most one per
    /// family. Unusable addresses are left out.
    pub fn new(sources: impl IntoIterator<Item = IpAddr>, assigned: impl IntoIterator<Item = AssignedAddress>) -> Self {
        let mut assigned: Vec<_> = assigned.into_iter().filter(|known| is_usable(known.address)).collect();
        assigned.sort();
        assigned.dedup();
        let mut host = Self { ipv4: None, ipv6: None, assigned };
        for source in sources.into_iter().filter(|source| is_usable(*source)) {
            match Family::of(source) {
                Family::Ipv4 => host.ipv4 = Some(source),
                Family::Ipv6 => host.ipv6 = Some(host.stable(source)),
            }
        }
        host
    }

    /// Returns the address of a host with one default route and no other address.
    pub fn single(address: IpAddr) -> Self {
        Self::new([address], [AssignedAddress { address, interface: 1, lifetime: Lifetime::Stable }])
    }

    /// Reports whether an interface has the address.
    pub fn is_assigned(&self, address: IpAddr) -> bool {
        self.assigned.iter().any(|known| known.address == address)
    }

    /// Selects the address of a family at which other hosts reach this one: the source address of packets on the default
    /// route. The address in use is kept while the interface of that route has it and it is not deprecated; without a default
    /// route, while any interface has it.
    pub fn select(&self, family: Family, in_use: Option<IpAddr>) -> Option<IpAddr> {
        let source = match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        };
        let in_use = in_use.filter(|address| Family::of(*address) == family);
        let is_kept = |address: &IpAddr| match source {
            None => self.is_assigned(*address),
            Some(source) => self
                .interface_of(source)
                .any(|known| known.address == *address && known.lifetime != Lifetime::Deprecated),
        };
        in_use.filter(is_kept).or(source)
    }

    /// The addresses of the interface that has this address.
    fn interface_of(&self, address: IpAddr) -> impl Iterator<Item = &AssignedAddress> {
        let interface = self.assigned.iter().find(|known| known.address == address).map(|known| known.interface);
        self.assigned.iter().filter(move |known| Some(known.interface) == interface)
    }

    /// Replaces a temporary address by a stable one of the same interface, from the same /64 if possible.
    fn stable(&self, source: IpAddr) -> IpAddr {
        let own = |known: &&AssignedAddress| known.address == source;
        if self.assigned.iter().find(own).is_none_or(|known| known.lifetime == Lifetime::Stable) {
            return source;
        }
        let others = self
            .interface_of(source)
            .filter(|known| known.lifetime == Lifetime::Stable && Family::of(known.address) == Family::of(source));
        others.map(|known| known.address).min_by_key(|other| prefix(*other) != prefix(source)).unwrap_or(source)
    }
}

/// The first 64 bits of an IPv6 address, which is the prefix that its network announces.
fn prefix(address: IpAddr) -> Option<u64> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some((ip.to_bits() >> 64) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// `ADDRESS@INTERFACE`, followed by `t` (temporary), `d` (deprecated) or `?` (tentative).
    fn assigned(text: &str) -> AssignedAddress {
        let (address, rest) = text.split_once('@').unwrap();
        let lifetime = match &rest[1..] {
            "t" => Lifetime::Temporary,
            "d" => Lifetime::Deprecated,
            "?" => Lifetime::Tentative,
            _ => Lifetime::Stable,
        };
        AssignedAddress { address: ip(address), interface: rest[..1].parse().unwrap(), lifetime }
    }

    fn host(sources: &[&str], addresses: &[&str]) -> HostAddresses {
        HostAddresses::new(sources.iter().map(|source| ip(source)), addresses.iter().map(|text| assigned(text)))
    }

    #[test]
    fn only_addresses_of_other_hosts_reach_are_usable() {
        let usable = ["10.0.0.7", "192.0.2.1", "100.64.0.1", "2001:db8::7", "fd00::7", "::2"];
        let unusable = [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "169.254.1.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:10.0.0.7",
        ];
        for (addresses, expected) in [(&usable[..], true), (&unusable[..], false)] {
            for address in addresses {
                assert_eq!(is_usable(ip(address)), expected, "{address}");
            }
        }
        assert_eq!(host(&["127.0.0.1", "fe80::1"], &["127.0.0.1@1", "fe80::1@2"]), HostAddresses::default());
    }

    #[test]
    fn address_is_that_of_the_default_route_unless_the_one_in_use_is_still_valid() {
        /// Source addresses of the default routes, assigned addresses, address in use, family, and the selected address.
        type Case<'a> = (&'a [&'a str], &'a [&'a str], Option<&'a str>, Family, Option<&'a str>);
        let cases: &[Case<'_>] = &[
            // The start.
            (&["10.0.0.7"], &["10.0.0.7@2"], None, Family::Ipv4, Some("10.0.0.7")),
            (&["10.0.0.7"], &["10.0.0.7@2"], None, Family::Ipv6, None),
            (&["10.0.0.7", "fd00::7"], &["10.0.0.7@2", "fd00::7@2"], None, Family::Ipv6, Some("fd00::7")),
            (&[], &["10.0.0.7@2"], None, Family::Ipv4, None),
            // A second address on the same interface.
            (&["10.0.0.8"], &["10.0.0.7@2", "10.0.0.8@2"], Some("10.0.0.7"), Family::Ipv4, Some("10.0.0.7")),
            (&["fd00::8"], &["fd00::7@2", "fd00::8@2"], Some("fd00::7"), Family::Ipv6, Some("fd00::7")),
            (&["fd00::8"], &["fd00::7@2?", "fd00::8@2"], Some("fd00::7"), Family::Ipv6, Some("fd00::7")),
            (&["fd00::8"], &["fd00::7@2d", "fd00::8@2"], Some("fd00::7"), Family::Ipv6, Some("fd00::8")),
            // The address is gone.
            (&["10.0.0.8"], &["10.0.0.8@2"], Some("10.0.0.7"), Family::Ipv4, Some("10.0.0.8")),
            (&[], &[], Some("10.0.0.7"), Family::Ipv4, None),
            // The default route moves to another interface.
            (&["10.1.0.7"], &["10.0.0.7@2", "10.1.0.7@3"], Some("10.0.0.7"), Family::Ipv4, Some("10.1.0.7")),
            // The default route is gone.
            (&[], &["10.0.0.7@2"], Some("10.0.0.7"), Family::Ipv4, Some("10.0.0.7")),
            (&[], &["10.0.0.7@2"], Some("10.0.0.7"), Family::Ipv6, None),
            // The kernel's addresses are unknown.
            (&["10.0.0.7"], &[], None, Family::Ipv4, Some("10.0.0.7")),
        ];
        for (sources, addresses, in_use, family, expected) in cases {
            let seen = host(sources, addresses).select(*family, in_use.map(ip));
            assert_eq!(seen, expected.map(ip), "{sources:?} {addresses:?} {in_use:?} {family:?}");
        }
    }

    #[test]
    fn temporary_address_is_replaced_by_a_stable_one() {
        let cases: &[(&str, &[&str], &str)] = &[
            ("2001:db8::a", &["2001:db8::a@2t", "2001:db8::7@2"], "2001:db8::7"),
            ("2001:db8::a", &["2001:db8::a@2t", "fd00::7@2", "2001:db8::7@2"], "2001:db8::7"),
            ("2001:db8::a", &["2001:db8::a@2t", "fd00::7@2"], "fd00::7"),
            ("2001:db8::a", &["2001:db8::a@2t", "2001:db8::7@2d", "2001:db8::8@3"], "2001:db8::a"),
            ("2001:db8::a", &["2001:db8::a@2t", "2001:db8::7@2?"], "2001:db8::a"),
        ];
        for (source, addresses, expected) in cases {
            assert_eq!(host(&[source], addresses).select(Family::Ipv6, None), Some(ip(expected)), "{addresses:?}");
        }
    }
}
