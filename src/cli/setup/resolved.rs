//! The drop-in that makes systemd-resolved send muster's names to muster.
//!
//! resolved queries a global server for two kinds of names: those below `Domains=`, exclusively, and those that no network
//! claims, together with the networks' own servers; the first positive answer wins. Server ports need systemd 246 or later.
//! docs/clients.md explains the consequences.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use crate::{
    config::Config,
    model::{name::Name, upstream_address::UpstreamAddress},
};

/// Path of the drop-in. resolved reads drop-ins in the order of their names.
pub(super) const PATH: &str = "/etc/systemd/resolved.conf.d/muster.conf";

/// Longest prefix of an IPv4 reverse zone in bits; a label covers 8.
const MAX_IPV4_PREFIX: u8 = 24;
/// Longest prefix of an IPv6 reverse zone in bits; a label covers 4. The remaining 64 bits number hosts.
const MAX_IPV6_PREFIX: u8 = 64;

/// A network of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    /// An address in the network.
    pub(super) address: IpAddr,
    /// Prefix length in bits.
    pub(super) prefix: u8,
}

/// The domains for muster: its zones and static zones; if it also resolves other names (`resolves`), the routed suffixes and
/// the reverse zones of `networks`.
///
/// Without the reverse zones, resolved would query only a network's own server for the names of its addresses.
pub(super) fn domains(config: &Config, static_zones: &[Name], networks: &[Network], resolves: bool) -> Vec<String> {
    let aliases = config.alias_domains.iter().map(|alias| &alias.domain);
    let own = [&config.domain].into_iter().chain(aliases).chain(static_zones);
    let routed = config.resolver.routes.iter().map(|(suffix, _)| suffix).filter(|_| resolves);
    let reverse = networks.iter().filter(|_| resolves).filter_map(|network| reverse_zone(*network));
    let mut domains: Vec<String> = Vec::new();
    for domain in own.chain(routed).map(|name| name.to_string().trim_end_matches('.').to_owned()).chain(reverse) {
        if !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    domains
}

/// The reverse zone of a network, widened to a label boundary. muster forwards the additional names that it does not know.
fn reverse_zone(network: Network) -> Option<String> {
    match network.address {
        IpAddr::V4(address) => {
            let labels = usize::from(network.prefix.min(MAX_IPV4_PREFIX)) / 8;
            let text: Vec<String> = address.octets()[..labels].iter().rev().map(ToString::to_string).collect();
            (labels > 0).then(|| format!("{}.in-addr.arpa", text.join(".")))
        }
        IpAddr::V6(address) => {
            let labels = u32::from(network.prefix.min(MAX_IPV6_PREFIX)) / 4;
            let digit = |at| format!("{:x}", address.to_bits() >> (124 - 4 * at) & 0xf);
            let text: Vec<String> = (0..labels).rev().map(digit).collect();
            (labels > 0).then(|| format!("{}.ip6.arpa", text.join(".")))
        }
    }
}

/// Content of the drop-in after its first line.
pub(super) fn text(server: SocketAddr, domains: &[String]) -> String {
    let server = if server.port() == 53 { server.ip().to_string() } else { server.to_string() };
    let domains: Vec<String> = domains.iter().map(|domain| format!("~{domain}")).collect();
    format!(
        "# systemd-resolved treats all servers of a list as equal, so muster must be the only one:\n# the empty DNS= removes \
         the servers of other files.\n[Resolve]\nDNS=\nDNS={server}\nDomains={}\n",
        domains.join(" ")
    )
}

/// A configuration file of resolved.
pub(super) struct File {
    /// Path of the file.
    pub(super) path: PathBuf,
    /// Content of the file.
    pub(super) text: String,
}

impl File {
    /// Reports whether resolved reads this file after a drop-in: drop-ins are read last, in name order.
    pub(super) fn is_after(&self, drop_in: &Path) -> bool {
        let is_drop_in = self.path.parent().is_some_and(|folder| folder.ends_with("resolved.conf.d"));
        is_drop_in && self.path.file_name() > drop_in.file_name()
    }
}

/// The global servers of files in reading order, each with its file.
pub(super) fn global_servers(files: &[File]) -> Vec<(&File, UpstreamAddress)> {
    let mut servers = Vec::new();
    for file in files {
        let mut in_resolve = false;
        for line in file.text.lines().map(str::trim) {
            if line.starts_with('[') {
                in_resolve = line == "[Resolve]";
            }
            let Some(value) = line.strip_prefix("DNS").map(str::trim_start).and_then(|rest| rest.strip_prefix('='))
            else {
                continue;
            };
            if in_resolve && value.trim().is_empty() {
                servers.clear();
            } else if in_resolve {
                servers.extend(value.split_whitespace().filter_map(address).map(|server| (file, server)));
            }
        }
    }
    servers
}

/// Parses a server as in resolved.conf(5): from `192.0.2.1` to `192.0.2.1:53%eth0#name.example`.
fn address(word: &str) -> Option<UpstreamAddress> {
    let bare = word.split('#').next().unwrap_or_default();
    // resolved accepts the interface of any address.
    let without_interface = || UpstreamAddress::parse_plain(bare.split('%').next()?, 53);
    UpstreamAddress::parse_plain(bare, 53).or_else(without_interface)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Environment, model::host_addresses::HostAddresses};

    fn config(text: &str) -> Config {
        let addresses = HostAddresses::single([10, 0, 0, 7].into());
        let environment = Environment { host_name: "host-a".into(), addresses, in_use: None, runtime_dir: None };
        Config::parse([(Path::new("muster.yaml"), text.as_bytes())], &environment).unwrap()
    }

    #[test]
    fn domains_are_zones_routes_and_reverse_zones() {
        let network = Network { address: "10.0.5.7".parse().unwrap(), prefix: 24 };
        let zone = Name::parse("example.org").unwrap();
        let cases: &[(&str, bool, &[&str])] = &[
            ("", true, &["service.local", "example.org", "5.0.10.in-addr.arpa"]),
            ("", false, &["service.local", "example.org"]),
            (
                "{domain: service.consul, alias_domains: {domain: consul, scheme: consul}}",
                false,
                &["service.consul", "consul", "example.org"],
            ),
            (
                "{domain: SD.example, alias_domains: [a.example, b.example], resolver: {routes: {corp.example: 192.0.2.1, \
                 example.org: 192.0.2.1}}}",
                true,
                &["sd.example", "a.example", "b.example", "example.org", "corp.example", "5.0.10.in-addr.arpa"],
            ),
        ];
        for (text, resolves, expected) in cases {
            assert_eq!(
                domains(&config(text), std::slice::from_ref(&zone), &[network, network], *resolves),
                *expected,
                "{text}"
            );
        }
    }

    #[test]
    fn reverse_zones_contain_their_networks() {
        let cases = [
            ("10.1.2.3", 32, Some("2.1.10.in-addr.arpa")),
            ("10.1.2.3", 24, Some("2.1.10.in-addr.arpa")),
            ("10.1.2.3", 23, Some("1.10.in-addr.arpa")),
            ("10.1.2.3", 8, Some("10.in-addr.arpa")),
            ("10.1.2.3", 7, None),
            ("fd00:0:0:12::7", 64, Some("2.1.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa")),
            ("fd00:0:0:12::7", 128, Some("2.1.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa")),
            ("2001:db8::7", 33, Some("8.b.d.0.1.0.0.2.ip6.arpa")),
            ("2001:db8::7", 3, None),
        ];
        for (address, prefix, expected) in cases {
            let network = Network { address: address.parse().unwrap(), prefix };
            assert_eq!(reverse_zone(network).as_deref(), expected, "{address}/{prefix}");
        }
    }

    #[test]
    fn muster_is_the_only_server_of_the_drop_in() {
        for (server, expected) in [
            ("127.0.0.1:53", "DNS=127.0.0.1\n"),
            ("127.0.0.1:8600", "DNS=127.0.0.1:8600\n"),
            ("[::1]:53", "DNS=::1\n"),
            ("[::1]:8600", "DNS=[::1]:8600\n"),
        ] {
            let text = text(server.parse().unwrap(), &["service.local".into(), "svc.example".into()]);
            assert!(
                text.ends_with(&format!("[Resolve]\nDNS=\n{expected}Domains=~service.local ~svc.example\n")),
                "{text}"
            );
        }
    }

    #[test]
    fn later_drop_ins_are_detected_by_name() {
        for (path, expected) in [
            ("/etc/systemd/resolved.conf", false),
            ("/run/systemd/resolved.conf.d/local.conf", false),
            ("/run/systemd/resolved.conf.d/zz.conf", true),
        ] {
            let file = File { path: path.into(), text: String::new() };
            assert_eq!(file.is_after(Path::new(PATH)), expected, "{path}");
        }
    }

    #[test]
    fn global_servers_are_parsed_like_resolved_does() {
        let cases: &[(&[&str], &[&str])] = &[
            (&[""], &[]),
            (&["[Resolve]\n#DNS=192.0.2.9\nFallbackDNS=192.0.2.9\nDNSSEC=no\n"], &[]),
            (
                &[
                    "[Resolve]\nDNS=192.0.2.1 192.0.2.2:54#a.example\nDNS = 2001:db8::1%eth0 [2001:db8::2]:54 fe80::1%eth0#a\n",
                ],
                &[
                    "0 192.0.2.1:53",
                    "0 192.0.2.2:54",
                    "0 [2001:db8::1]:53",
                    "0 [2001:db8::2]:54",
                    "0 [fe80::1%eth0]:53",
                ],
            ),
            (
                &["[Resolve]\nDNS=192.0.2.1", "[Resolve]\nDNS=\nDNS=192.0.2.2", "[Resolve]\nDNS=x 192.0.2.3"],
                &["1 192.0.2.2:53", "2 192.0.2.3:53"],
            ),
            (&["[Other]\nDNS=192.0.2.1"], &[]),
        ];
        for (texts, expected) in cases {
            let file = |(at, text): (usize, &&str)| File { path: at.to_string().into(), text: (*text).to_owned() };
            let files: Vec<File> = texts.iter().enumerate().map(file).collect();
            let found: Vec<String> = global_servers(&files)
                .iter()
                .map(|(file, server)| format!("{} {server}", file.path.display()))
                .collect();
            assert_eq!(found, *expected, "{texts:?}");
        }
    }
}
