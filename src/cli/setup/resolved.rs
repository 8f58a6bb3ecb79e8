//! What systemd-resolved has to know: who is asked for which names.
//!
//! resolved asks a server of the global scope for two kinds of names: those in `Domains=`, which it then sends nowhere else,
//! and all that no network claims, together with the networks' own servers; the first that finds something wins. That holds
//! from systemd 246 on, which takes ports. docs/clients.md says what follows from it.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use crate::{config::Config, model::name::Name};

/// Where resolved finds it. The file's name decides which others are read before it.
pub(super) const PATH: &str = "/etc/systemd/resolved.conf.d/muster.conf";

/// Bits of an IPv4 network whose reverse zone is taken, at most: a label has 8.
const MAX_IPV4_PREFIX: u8 = 24;
/// The same of IPv6, where a label has 4: a network has at least 64 bits for its hosts.
const MAX_IPV6_PREFIX: u8 = 64;

/// A network that this host is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    /// One of its addresses.
    pub(super) address: IpAddr,
    /// Bits that all of them have in common.
    pub(super) prefix: u8,
}

/// The names that muster is asked for and nobody else: its zones, static zones, and where it resolves for others, what it
/// routes, and the reverse names of `networks`.
///
/// Without the last, resolved would ask the server of a network for the names of its addresses, and nobody else.
pub(super) fn domains(config: &Config, static_zones: &[Name], networks: &[Network], resolves: bool) -> Vec<String> {
    let own = [&config.domain].into_iter().chain(&config.alias_domains).chain(static_zones);
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

/// The zone of a network's reverse names, cut at a label's end: a few addresses too many rather than too few, as muster
/// asks others for those that it does not know.
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

/// The drop-in, but for its first line.
pub(super) fn text(server: SocketAddr, domains: &[String]) -> String {
    let server = if server.port() == 53 { server.ip().to_string() } else { server.to_string() };
    let domains: Vec<String> = domains.iter().map(|domain| format!("~{domain}")).collect();
    format!(
        "# Servers in one list are taken for equal, so that no other may stand beside muster:\n# the empty DNS= forgets those \
         that other files name.\n[Resolve]\nDNS=\nDNS={server}\nDomains={}\n",
        domains.join(" ")
    )
}

/// A file of resolved's configuration.
pub(super) struct File {
    /// Where it is.
    pub(super) path: PathBuf,
    /// What it says.
    pub(super) text: String,
}

impl File {
    /// Whether resolved reads it after the file at `ours`, which is a drop-in: of those the names decide.
    pub(super) fn is_after(&self, ours: &Path) -> bool {
        let is_drop_in = self.path.parent().is_some_and(|folder| folder.ends_with("resolved.conf.d"));
        is_drop_in && self.path.file_name() > ours.file_name()
    }
}

/// The global servers that these files name, in the order in which resolved reads them, and which file each is from.
pub(super) fn global_servers(files: &[File]) -> Vec<(&File, SocketAddr)> {
    let mut servers = Vec::new();
    for file in files {
        let mut is_ours = false;
        for line in file.text.lines().map(str::trim) {
            if line.starts_with('[') {
                is_ours = line == "[Resolve]";
            }
            let Some(value) = line.strip_prefix("DNS").map(str::trim_start).and_then(|rest| rest.strip_prefix('='))
            else {
                continue;
            };
            if is_ours && value.trim().is_empty() {
                servers.clear();
            } else if is_ours {
                servers.extend(value.split_whitespace().filter_map(address).map(|server| (file, server)));
            }
        }
    }
    servers
}

/// `192.0.2.1`, `192.0.2.1:53%eth0#name.example` and what lies between them (resolved.conf(5)).
fn address(word: &str) -> Option<SocketAddr> {
    let bare = word.split(['#', '%']).next().unwrap_or_default();
    bare.parse().ok().or_else(|| bare.parse().ok().map(|address| SocketAddr::new(address, 53)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    fn config(text: &str) -> Config {
        let environment = Environment { host_name: "host-a".into(), default_address: [10, 0, 0, 7].into() };
        Config::parse([(Path::new("muster.yaml"), text.as_bytes())], &environment).unwrap()
    }

    #[test]
    fn the_names_that_muster_is_asked_for() {
        let network = Network { address: "10.0.5.7".parse().unwrap(), prefix: 24 };
        let zone = Name::parse("example.org").unwrap();
        let cases: &[(&str, bool, &[&str])] = &[
            ("", true, &["service.local", "example.org", "5.0.10.in-addr.arpa"]),
            ("", false, &["service.local", "example.org"]),
            (
                "{domain: SD.example, alias_domains: [a.example, b.example], resolver: {routes: {corp.example: 192.0.2.1, \
                 a.example: 192.0.2.1}}}",
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
    fn reverse_zones_hold_their_networks() {
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
    fn the_drop_in_names_muster_alone() {
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
    fn drop_ins_are_read_by_name() {
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
    fn global_servers_are_read_as_resolved_reads_them() {
        let cases: &[(&[&str], &[&str])] = &[
            (&[""], &[]),
            (&["[Resolve]\n#DNS=192.0.2.9\nFallbackDNS=192.0.2.9\nDNSSEC=no\n"], &[]),
            (
                &["[Resolve]\nDNS=192.0.2.1 192.0.2.2:54#a.example\nDNS = 2001:db8::1%eth0 [2001:db8::2]:54\n"],
                &["0 192.0.2.1:53", "0 192.0.2.2:54", "0 [2001:db8::1]:53", "0 [2001:db8::2]:54"],
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
