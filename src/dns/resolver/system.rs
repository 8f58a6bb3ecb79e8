//! Servers of the system's resolv.conf(5), now and after changes.
//!
//! The file is read every second rather than watched: it is often a link to a file that is replaced, in a folder that may
//! not exist yet.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{fs, sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::model::upstream_address::UpstreamAddress;

/// Path of the system's resolv.conf.
const PATH: &str = "/etc/resolv.conf";
/// Addresses of systemd-resolved. It may forward to this server, so its upstreams are used instead.
const STUBS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];
/// Upstreams of systemd-resolved (systemd-resolved.service(8)).
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";
/// Interval of reads.
const PERIOD: Duration = Duration::from_secs(1);

/// Port of the servers: resolv.conf names none.
const PORT: u16 = 53;
/// Maximum number of servers: glibc uses three.
const MAX_SERVERS: usize = 8;
/// Maximum number of ignored lines that are logged for a file, and maximum number of characters of each.
const MAX_IGNORED: usize = 8;
const MAX_TEXT: usize = 64;

/// Returns the system's servers, without the agent's own addresses `ours`, and a future that keeps them up to date. Logs each
/// ignored line once.
pub async fn watch(
    ours: Vec<SocketAddr>,
    shutdown: CancellationToken,
) -> (watch::Receiver<Vec<UpstreamAddress>>, impl Future<Output = ()>) {
    let mut logged = BTreeSet::new();
    let mut read = async move || {
        let is_ours = |server| ours.iter().any(|own| is_same(*own, server));
        let mut named = async |path: &'static str| {
            let (servers, ignored) =
                servers(&String::from_utf8_lossy(&fs::read(path).await.unwrap_or_default()), is_ours);
            let ignored: BTreeSet<_> = ignored.into_iter().map(|line| (path, line)).collect();
            for (path, Ignored { line, text, reason }) in ignored.difference(&logged) {
                warn!(path, line, text, "name server ignored: {reason}");
            }
            // A line that was corrected and comes back is logged again.
            logged.retain(|entry| entry.0 != path);
            logged.extend(ignored);
            servers
        };
        let mut found = named(PATH).await;
        if found.iter().any(|server| STUBS.contains(&server.address.ip())) {
            let behind = named(BEHIND_STUB).await;
            found.retain(|server| behind.is_empty() || !STUBS.contains(&server.address.ip()));
            found.extend(behind);
        }
        found
    };
    let first = read().await;
    if first.is_empty() {
        warn!("{PATH} names no server other than this agent; set resolver.upstreams to resolve other names");
    }
    let (sender, servers) = watch::channel(first);
    let work = async move {
        while shutdown.run_until_cancelled(sleep(PERIOD)).await.is_some() {
            let now = read().await;
            sender.send_if_modified(|known| {
                let changed = *known != now;
                *known = now;
                changed
            });
        }
    };
    (servers, work)
}

/// Reports whether packets to `server` arrive at the own address.
fn is_same(own: SocketAddr, server: SocketAddr) -> bool {
    let reaches = own.ip() == server.ip() || own.ip().is_unspecified() && server.ip().is_loopback();
    own.port() == server.port() && reaches
}

/// A line with a name server that is not used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ignored {
    /// Number of the line, from 1.
    line: usize,
    /// Text after `nameserver`, truncated.
    text: String,
    reason: &'static str,
}

/// Parses the servers of a resolv.conf, without the agent's own. Also returns the lines of servers that cannot be used. Other options
/// concern stub resolvers.
fn servers(text: &str, is_ours: impl Fn(SocketAddr) -> bool) -> (Vec<UpstreamAddress>, Vec<Ignored>) {
    let (mut servers, mut ignored) = (Vec::new(), Vec::new());
    for (at, line) in text.lines().enumerate() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let word = words.next().unwrap_or_default();
        let reason = match address(word) {
            Ok(server) if is_ours(server.address) || servers.contains(&server) => continue,
            Ok(server) if servers.len() < MAX_SERVERS => {
                servers.push(server);
                continue;
            }
            Ok(_) => "there are more than eight",
            Err(reason) => reason,
        };
        if ignored.len() < MAX_IGNORED {
            let text = word.chars().take(MAX_TEXT).collect();
            ignored.push(Ignored { line: at + 1, text, reason });
        }
    }
    (servers, ignored)
}

/// Parses an address. The error is the reason that it cannot be used.
fn address(word: &str) -> Result<UpstreamAddress, &'static str> {
    // A port is no part of the format.
    let is_bare = !word.contains(['[', ']']) && word.parse::<SocketAddr>().is_err();
    let server = UpstreamAddress::parse_plain(word, PORT).filter(|_| is_bare);
    match server {
        // The unspecified address means this host.
        Some(server) if server.address.ip().is_unspecified() => Err("it is the unspecified address"),
        Some(server) if server.address.ip().is_multicast() => Err("it is a multicast address"),
        Some(server) => Ok(server),
        None if word.parse::<IpAddr>().is_ok() => {
            Err("a link-local address needs its interface, such as `fe80::1%eth0`")
        }
        None => Err("it is not an IP address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_parsed() {
        let ours = |server: SocketAddr| server.ip() == IpAddr::from([127, 0, 0, 1]);
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            ("nameserver 192.0.2.1\n", &["192.0.2.1:53"]),
            ("  nameserver\t192.0.2.1 # a comment\nnameserver 2001:db8::1", &["192.0.2.1:53", "[2001:db8::1]:53"]),
            ("# nameserver 192.0.2.1\n;nameserver 192.0.2.1\nsearch example.org\noptions edns0\n", &[]),
            ("nameserver 127.0.0.1\nnameserver 192.0.2.1\n", &["192.0.2.1:53"]),
            ("nameserver 127.0.0.53\n", &["127.0.0.53:53"]),
            ("nameserver 192.0.2.1\nnameserver 192.0.2.1\n", &["192.0.2.1:53"]),
            ("nameserver x\nnameserver\nnameserver 0.0.0.0\nnameserver 224.0.0.1\n", &[]),
            ("nameserverx 192.0.2.1\n", &[]),
            ("nameserver fe80::1%eth0\nnameserver fe80::1%eth1\n", &["[fe80::1%eth0]:53", "[fe80::1%eth1]:53"]),
        ];
        for (text, expected) in cases {
            let found: Vec<String> = servers(text, ours).0.iter().map(ToString::to_string).collect();
            assert_eq!(found, *expected, "{text:?}");
        }
    }

    #[test]
    fn ignored_lines_have_a_reason() {
        let text = "nameserver x\nnameserver\nnameserver 0.0.0.0\nnameserver ff02::1\nnameserver fe80::1\n\
                    nameserver 192.0.2.1:53\nnameserver 192.0.2.1\nnameserver 192.0.2.1\nnameserver 127.0.0.1\n# nameserver y\n";
        let (found, ignored) = servers(text, |server| server.ip() == IpAddr::from([127, 0, 0, 1]));
        assert_eq!(found.len(), 1);
        let ignored: Vec<_> = ignored.iter().map(|ignored| (ignored.line, &*ignored.text, ignored.reason)).collect();
        let expected = [
            (1, "x", "it is not an IP address"),
            (2, "", "it is not an IP address"),
            (3, "0.0.0.0", "it is the unspecified address"),
            (4, "ff02::1", "it is a multicast address"),
            (5, "fe80::1", "a link-local address needs its interface, such as `fe80::1%eth0`"),
            (6, "192.0.2.1:53", "it is not an IP address"),
        ];
        assert_eq!(ignored, expected);
        let many: String = (1..=30).map(|host| format!("nameserver 192.0.2.{host}\n")).collect();
        let (found, ignored) = servers(&many, |_| false);
        assert_eq!((found.len(), ignored.len()), (MAX_SERVERS, MAX_IGNORED));
        assert_eq!((ignored[0].line, ignored[0].reason), (9, "there are more than eight"));
    }
}
