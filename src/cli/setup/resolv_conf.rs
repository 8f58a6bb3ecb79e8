//! The resolv.conf of a host that asks muster and nobody else (resolv.conf(5)).
//!
//! A second server would not be a spare one: musl asks all at once and takes the first answer, and glibc asks the second
//! whenever the first is slow, for names that it does not know.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

/// Where it is.
pub(super) const PATH: &str = "/etc/resolv.conf";

/// The file, but for its first line: `server`, and what `former` says apart from servers.
///
/// `edns0` is added, so that answers of more than 512 octets need no second question. `trust-ad` is left out: it was said of
/// another server, which may have checked signatures itself.
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

/// The servers that the file names, without those that are the agent, which listens there.
pub(super) fn servers(text: &str, agent: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut servers: Vec<SocketAddr> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next()?.parse().ok());
        let Some(server) = address.map(|address: IpAddr| SocketAddr::new(address, 53)) else { continue };
        if !agent.contains(&server) && !servers.contains(&server) {
            servers.push(server);
        }
    }
    servers
}

/// Whether programs of a host with this file ask systemd-resolved, which it names or links to.
pub(super) fn is_resolved(text: &str, link: Option<&Path>) -> bool {
    let stub =
        |server: &SocketAddr| matches!(server.ip(), IpAddr::V4(ip) if matches!(ip.octets(), [127, 0, 0, 53 | 54]));
    link.is_some_and(|target| target.parent().is_some_and(|folder| folder.ends_with("systemd/resolve")))
        || servers(text, &[]).iter().any(stub)
}

/// Who writes the file besides, and how to have it stop.
pub(super) fn other_writer(text: &str, link: Option<&Path>) -> Option<&'static str> {
    let link = link.map(|target| target.display().to_string()).unwrap_or_default();
    let says =
        |word: &str| link.contains(word) || text.lines().any(|line| line.starts_with('#') && line.contains(word));
    if says("NetworkManager") {
        return Some(
            "NetworkManager writes this file too: put the lines `[main]` and `dns=none` into \
             /etc/NetworkManager/conf.d/muster.conf and run `systemctl reload NetworkManager`",
        );
    }
    if says("resolvconf") {
        return Some(
            "resolvconf writes this file too: remove that package, or it comes back at the next change of network",
        );
    }
    if says("dhcpcd") {
        return Some(
            "dhcpcd writes this file too: add the line `nohook resolv.conf` to /etc/dhcpcd.conf and restart it",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_muster_alone_and_keeps_the_rest() {
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
    fn former_servers_are_those_of_others() {
        let agent = ["127.0.0.1:53".parse().unwrap()];
        let text = "nameserver 127.0.0.1\nnameserver 192.0.2.1 # a comment\n#nameserver 192.0.2.9\nnameserver x\n\
                    nameserver 192.0.2.1\nnameserver\t2001:db8::1\n";
        let found: Vec<String> = servers(text, &agent).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53"]);
    }

    #[test]
    fn who_else_has_a_hand_in_it() {
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
