//! Servers of the system's resolv.conf(5), now and after changes.
//!
//! The file is read every second rather than watched: it is often a link to a file that is replaced, in a folder that may
//! not exist yet.

use std::{
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

/// Returns the system's servers, without the agent's own addresses `ours`, and a future that keeps them up to date.
pub async fn watch(
    ours: Vec<SocketAddr>,
    shutdown: CancellationToken,
) -> (watch::Receiver<Vec<UpstreamAddress>>, impl Future<Output = ()>) {
    let read = async move || {
        let is_ours = |server| ours.iter().any(|own| is_same(*own, server));
        let named = |text: Vec<u8>| servers(&String::from_utf8_lossy(&text), is_ours);
        let mut found = named(fs::read(PATH).await.unwrap_or_default());
        if found.iter().any(|server| STUBS.contains(&server.ip())) {
            let behind = named(fs::read(BEHIND_STUB).await.unwrap_or_default());
            found.retain(|server| behind.is_empty() || !STUBS.contains(&server.ip()));
            found.extend(behind);
        }
        found.into_iter().map(UpstreamAddress::plain).collect::<Vec<_>>()
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

/// Parses the servers of a resolv.conf, without the agent's own. Other options concern stub resolvers.
fn servers(text: &str, is_ours: impl Fn(SocketAddr) -> bool) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(server) = words.next().and_then(address) else { continue };
        if !is_ours(server) && !servers.contains(&server) && servers.len() < MAX_SERVERS {
            servers.push(server);
        }
    }
    servers
}

/// Parses an address. Addresses with a scope (`fe80::1%2`) are ignored.
fn address(word: &str) -> Option<SocketAddr> {
    let address: IpAddr = word.parse().ok()?;
    // The unspecified address means this host.
    (!address.is_unspecified() && !address.is_multicast()).then(|| SocketAddr::new(address, PORT))
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
        ];
        for (text, expected) in cases {
            let found: Vec<String> = servers(text, ours).iter().map(ToString::to_string).collect();
            assert_eq!(found, *expected, "{text:?}");
        }
    }
}
