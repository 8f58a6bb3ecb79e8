//! The resolv.conf with muster as the only name server (resolv.conf(5)).
//!
//! A second server would be no fallback: musl queries all servers at once and uses the first answer, and glibc queries the
//! second whenever the first is slow. The second server does not know muster's names.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use crate::model::upstream_address::UpstreamAddress;

/// Path of the file.
pub(super) const PATH: &str = "/etc/resolv.conf";

/// Content of the file after its first line: `server`, and all settings of the `former` file except servers.
///
/// Adds the option `edns0`, so that answers above 512 octets need no second query over TCP. Omits `trust-ad`, which
/// trusts another server to validate signatures.
pub(super) fn text(server: IpAddr, former: &str) -> String {
    let mut text = format!("nameserver {server}\n");
    let mut options = vec!["edns0"];
    for line in former.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("search" | "domain" | "sortlist") => text.extend([line.trim(), "\n"]),
            Some("options") => options.extend(words.filter(|word| !matches!(*word, "edns0" | "trust-ad"))),
            _ => {}
        }
    }
    text.extend(["options ", &options.join(" "), "\n"]);
    text
}

/// The name servers of the file, except the addresses of the agent.
pub(super) fn servers(text: &str, agent: &[SocketAddr]) -> Vec<UpstreamAddress> {
    let mut servers: Vec<UpstreamAddress> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let word = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next());
        let Some(server) = word.and_then(|word| UpstreamAddress::parse_plain(word, 53)) else { continue };
        if !agent.contains(&server.address) && !servers.contains(&server) {
            servers.push(server);
        }
    }
    servers
}

/// Reports whether the file belongs to systemd-resolved: it names the stub resolver or links to a file of resolved.
pub(super) fn is_resolved(text: &str, link: Option<&Path>) -> bool {
    let stub = |server: &UpstreamAddress| matches!(server.address.ip(), IpAddr::V4(ip) if matches!(ip.octets(), [127, 0, 0, 53 | 54]));
    link.is_some_and(|target| target.parent().is_some_and(|folder| folder.ends_with("systemd/resolve")))
        || servers(text, &[]).iter().any(stub)
}

/// Names another program that writes the file, with the setting that stops it.
pub(super) fn other_writer(text: &str, link: Option<&Path>) -> Option<&'static str> {
    let link = link.map(|target| target.display().to_string()).unwrap_or_default();
    let mentions =
        |word: &str| link.contains(word) || text.lines().any(|line| line.starts_with('#') && line.contains(word));
    if mentions("NetworkManager") {
        return Some(
            "NetworkManager also writes this file: add the lines `[main]` and `dns=none` to \
             /etc/NetworkManager/conf.d/muster.conf and run `systemctl reload NetworkManager`",
        );
    }
    if mentions("resolvconf") {
        return Some("resolvconf also writes this file, at the next network change: remove the package");
    }
    if mentions("dhcpcd") {
        return Some(
            "dhcpcd also writes this file: add the line `nohook resolv.conf` to /etc/dhcpcd.conf and restart dhcpcd",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn muster_is_the_only_server_and_other_settings_are_kept() {
        let server: IpAddr = [127, 0, 0, 1].into();
        let cases = [
            ("", "nameserver 127.0.0.1\noptions edns0\n"),
            ("# a comment\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n", "nameserver 127.0.0.1\noptions edns0\n"),
            (
                "search a.example b.example\nnameserver 192.0.2.1\noptions ndots:2\noptions edns0 trust-ad rotate\n",
                "nameserver 127.0.0.1\nsearch a.example b.example\noptions edns0 ndots:2 rotate\n",
            ),
            (
                " domain a.example\nsortlist 10.0.0.0/8\n;options x\n",
                "nameserver 127.0.0.1\ndomain a.example\nsortlist 10.0.0.0/8\noptions edns0\n",
            ),
        ];
        for (former, expected) in cases {
            assert_eq!(text(server, former), expected, "{former:?}");
            assert_eq!(text(server, &text(server, former)), expected, "again: {former:?}");
        }
        assert_eq!(text("::1".parse().unwrap(), ""), "nameserver ::1\noptions edns0\n");
    }

    #[test]
    fn former_servers_do_not_include_the_agent() {
        let agent = ["127.0.0.1:53".parse().unwrap()];
        let text = "nameserver 127.0.0.1\nnameserver 192.0.2.1 # a comment\n#nameserver 192.0.2.9\nnameserver x\n\
                    nameserver 192.0.2.1\nnameserver\t2001:db8::1\nnameserver fe80::1%eth0\n";
        let found: Vec<String> = servers(text, &agent).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%eth0]:53"]);
    }

    #[test]
    fn other_programs_that_write_the_file_are_detected() {
        let cases = [
            ("nameserver 192.0.2.1\n", None, false, None),
            ("nameserver 127.0.0.53\noptions edns0 trust-ad\n", None, true, None),
            ("nameserver 192.0.2.1\n", Some("../run/systemd/resolve/resolv.conf"), true, None),
            ("", Some("/run/systemd/resolve/stub-resolv.conf"), true, None),
            ("# Generated by NetworkManager\nnameserver 192.0.2.1\n", None, false, Some("NetworkManager ")),
            ("", Some("/run/NetworkManager/resolv.conf"), false, Some("NetworkManager ")),
            ("", Some("../run/resolvconf/resolv.conf"), false, Some("resolvconf ")),
            ("# Generated by dhcpcd from eth0.dhcp\n", None, false, Some("dhcpcd ")),
            ("search NetworkManager\n", None, false, None),
        ];
        for (text, link, resolved, writer) in cases {
            let link = link.map(Path::new);
            assert_eq!(is_resolved(text, link), resolved, "{text:?} {link:?}");
            let found = other_writer(text, link);
            assert_eq!(found.is_some(), writer.is_some(), "{text:?} {link:?}");
            assert!(found.zip(writer).is_none_or(|(found, writer)| found.starts_with(writer)), "{found:?}");
        }
    }
}
