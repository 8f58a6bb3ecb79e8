//! The system's resolv.conf (resolv.conf(5)): which servers it names, now and when it changes.
//!
//! It is looked at every second rather than watched: often it is a link, to a file that is replaced, in a folder that is not
//! there yet.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{fs, sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::model::upstream_address::UpstreamAddress;

/// Where the system has it.
const PATH: &str = "/etc/resolv.conf";
/// Where systemd-resolved listens: it may ask us, so it is not asked,
const STUBS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];
/// but the servers that it would ask (systemd-resolved.service(8)).
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";
/// From one look to the next.
const PERIOD: Duration = Duration::from_secs(1);

/// Where servers listen that are named without a port.
const PORT: u16 = 53;
/// Servers that are used: glibc takes three.
const MAX_SERVERS: usize = 8;

/// The system's servers, without those that are this agent, which answers on the addresses of `ours`.
pub async fn watch(
    ours: Vec<SocketAddr>,
    shutdown: CancellationToken,
) -> (watch::Receiver<Vec<UpstreamAddress>>, impl Future<Output = ()>) {
    let look = async move || {
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
    let first = look().await;
    if first.is_empty() {
        warn!("{PATH} names no other server than this one: set resolver.upstreams, or other names are not resolved");
    }
    let (sender, servers) = watch::channel(first);
    let work = async move {
        while shutdown.run_until_cancelled(sleep(PERIOD)).await.is_some() {
            let now = look().await;
            sender.send_if_modified(|known| {
                let is_news = *known != now;
                *known = now;
                is_news
            });
        }
    };
    (servers, work)
}

/// Whether what is sent to `server` arrives at our own address.
fn is_same(own: SocketAddr, server: SocketAddr) -> bool {
    let reaches = own.ip() == server.ip() || own.ip().is_unspecified() && server.ip().is_loopback();
    own.port() == server.port() && reaches
}

/// The servers of a resolv.conf, without those that are ourselves. What else stands there is for stub resolvers.
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

/// An address; of a link-local one the zone is a number (`fe80::1%2`), as names of interfaces need the system to resolve.
fn address(word: &str) -> Option<SocketAddr> {
    let address: IpAddr = word.parse().ok()?;
    // "Any address" stands for this host (resolv.conf(5) has 127.0.0.1 for none at all).
    (!address.is_unspecified() && !address.is_multicast()).then(|| SocketAddr::new(address, PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_files_name() {
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
