//! Link-local addresses and metadata services of clouds, which checks of HTTP clients do not reach by default.
//!
//! A metadata service gives any process of its host credentials, network configuration and keys, and trusts the source
//! address of the request. A client that may register a check must not make the agent ask it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Metadata services outside the link-local ranges: Alibaba Cloud, Azure's WireServer, Oracle Cloud Classic.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
/// Metadata services of Google Cloud, Scaleway and Linode over IPv6.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
    Ipv6Addr::new(0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1),
];
/// First segments of the network of AWS' services on the host, such as metadata, time and credentials of pods.
const AWS: [u16; 2] = [0xfd00, 0xec2];
/// 169.254.169.254, at the end of unique local addresses of metadata services, such as that of Oracle Cloud.
const METADATA: [u16; 2] = [0xa9fe, 0xa9fe];

/// Reports whether an address is link-local (169.254.0.0/16, fe80::/10) or that of a metadata service, also as an IPv6
/// address that contains the IPv4 address: mapped or compatible (RFC 4291 §2.5.5), NAT64 (RFC 6052, RFC 8215), 6to4
/// (RFC 3056), Teredo (RFC 4380) or ISATAP (RFC 5214).
pub fn is_link_local_or_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_refused_v4(v4),
        IpAddr::V6(v6) => is_refused_v6(v6) || embedded(v6).any(is_refused_v4),
    }
}

fn is_refused_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    address.is_unicast_link_local()
        || METADATA_V6.contains(&address)
        || segments.starts_with(&AWS)
        || (address.is_unique_local() && segments.ends_with(&METADATA))
}

fn is_refused_v4(address: Ipv4Addr) -> bool {
    address.is_link_local() || METADATA_V4.contains(&address)
}

/// IPv4 addresses to which packets for an IPv6 address may go.
fn embedded(address: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let segments = address.segments();
    let at = |index: usize| Ipv4Addr::from_bits(u32::from(segments[index]) << 16 | u32::from(segments[index + 1]));
    let last = at(6);
    let found = match segments {
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, ..] => Some(last),
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => Some(last),
        [0x2001, 0, ..] => Some(Ipv4Addr::from_bits(!last.to_bits())),
        [0x2002, ..] => Some(at(1)),
        _ => None,
    };
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_and_metadata_addresses_are_found_in_every_form() {
        let cases = [
            ("169.254.169.254", true),
            ("169.254.0.1", true),
            ("169.254.255.255", true),
            ("100.100.100.200", true),
            ("168.63.129.16", true),
            ("192.0.0.192", true),
            ("fe80::1", true),
            ("febf:ffff::1", true),
            ("fd00:ec2::254", true),
            ("fd00:ec2::23", true),
            ("fd00:c1::a9fe:a9fe", true),
            ("fd00:a9fe:a9fe::1", true),
            ("fd20:ce::254", true),
            ("fd00:42::42", true),
            ("::ffff:169.254.169.254", true),
            ("::169.254.169.254", true),
            ("::ffff:0:169.254.169.254", true),
            ("64:ff9b::169.254.169.254", true),
            ("64:ff9b:1::169.254.169.254", true),
            ("2002:a9fe:a9fe::1", true),
            ("2001:0:1:2:3:4:5601:5601", true),
            ("2001:db8::5efe:169.254.169.254", true),
            ("::ffff:100.100.100.200", true),
            ("127.0.0.1", false),
            ("10.0.0.7", false),
            ("169.253.255.255", false),
            ("169.255.0.0", false),
            ("192.168.1.1", false),
            ("0.0.0.0", false),
            ("::1", false),
            ("::", false),
            ("::ffff:10.0.0.7", false),
            ("fec0::1", false),
            ("fd00:ec3::254", false),
            ("2001:db8::1", false),
            ("2002:a00:1::1", false),
            ("64:ff9b::10.0.0.7", false),
        ];
        for (address, expected) in cases {
            assert_eq!(is_link_local_or_metadata(address.parse().unwrap()), expected, "{address}");
        }
    }
}
