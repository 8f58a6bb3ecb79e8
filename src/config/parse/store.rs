//! Parser of the table `store`.

use std::net::SocketAddr;

use super::{
    super::{
        Dns, Encrypted, Etcd, Gossip, Http, Store,
        store::{DEFAULT_MAX_SIZE, ETCD_PORT, MAX_MAX_SIZE, MIN_MAX_SIZE, VOTER_COUNTS},
    },
    read_listen, read_tls,
};
use crate::{
    model::name::Label,
    yaml::{
        reader::{Reader, Table},
        tree::Node,
    },
};

/// Example in the message about missing voters.
const VOTERS_EXAMPLE: &str = "voters: [host-a, host-b, host-c]";

/// Listeners of the other tables over TCP.
pub(super) struct OtherListeners<'c> {
    pub(super) dns: Option<&'c Dns>,
    pub(super) gossip: Option<&'c Gossip>,
    pub(super) http: Option<&'c Http>,
}

/// Reads the table; `None` if it is invalid. `has_tokens` tells whether clients of the HTTP API need tokens, which are those of
/// etcd's API.
pub(super) fn read_store(
    reader: &Reader<'_, '_>,
    node: &Node<'_>,
    has_tokens: bool,
    others: &OtherListeners<'_>,
) -> Option<Store> {
    let table = reader.table(node, "the table `store`", &["voters", "max_size", "etcd"])?;
    let voters = reader.required(&table, "voters", VOTERS_EXAMPLE).map(|node| read_voters(reader, node));
    let max_size = table.get("max_size");
    let max_octets = max_size.and_then(|node| reader.size(node, MIN_MAX_SIZE..=MAX_MAX_SIZE));
    let etcd = table.get("etcd").and_then(|node| read_etcd(reader, node, has_tokens, others));
    Some(Store { voters: voters?, max_octets: max_octets.unwrap_or(DEFAULT_MAX_SIZE), etcd })
}

fn read_voters(reader: &Reader<'_, '_>, node: &Node<'_>) -> Vec<Label> {
    let items = reader.one_or_list(node);
    let mut voters = Vec::new();
    for item in items {
        match reader.label(item, "a node's name") {
            Some(again) if voters.contains(&again) => reader.error(item.id, format!("duplicate voter `{again}`")),
            voter => voters.extend(voter),
        }
    }
    if !VOTER_COUNTS.contains(&items.len()) {
        let hint = match items.len() {
            0 => format!("name the nodes that hold the store, as in `{VOTERS_EXAMPLE}`"),
            even @ (2 | 4) => format!("{even} voters survive as many failures as {}", even - 1),
            _ => "each write waits for a majority of the voters; other nodes forward requests to them".to_owned(),
        };
        reader.error_with_hint(node.id, format!("the store has 1, 3 or 5 voters, found {}", items.len()), hint);
    }
    voters
}

/// Reads the table `etcd`; `None` without addresses.
fn read_etcd(reader: &Reader<'_, '_>, node: &Node<'_>, has_tokens: bool, others: &OtherListeners<'_>) -> Option<Etcd> {
    let part = reader.table(node, "the table `etcd`", &["listen", "certificate", "key", "insecure"])?;
    let tls = read_tls(reader, &part);
    let insecure = part.get("insecure").and_then(|node| reader.boolean(node)).unwrap_or(false);
    let listed = reader.required(&part, "listen", "listen: 127.0.0.1:2379")?;
    let listen = read_listen(reader, listed, ETCD_PORT);
    if !insecure {
        check_protection(reader, &part, listed, &listen, has_tokens);
    }
    for address in &listen {
        if let Some(key) = others.key_of(address) {
            let message = format!("`{address}` is in use: `{key}` has the same port");
            reader.error_with_hint(listed.id, message, format!("clients of etcd expect port {ETCD_PORT}"));
        }
    }
    (!listen.is_empty()).then_some(Etcd { listen, tls })
}

/// Refuses addresses of the network without tokens or TLS.
fn check_protection(
    reader: &Reader<'_, '_>,
    part: &Table<'_, '_>,
    listed: &Node<'_>,
    listen: &[SocketAddr],
    has_tokens: bool,
) {
    let Some(open) = listen.iter().find(|address| !address.ip().is_loopback()) else { return };
    if !has_tokens {
        let message = format!("etcd's API on `{open}` without tokens: any host that reaches it could use it");
        let hint =
            "set `http.tokens_dir`, listen on 127.0.0.1, or set `store.etcd.insecure: true` if the network is trusted";
        reader.error_with_hint(listed.id, message, hint);
    } else if part.get("certificate").is_none() && part.get("key").is_none() {
        let message = format!("etcd's API on `{open}` without TLS: the tokens could be read on the network");
        let hint = "set `certificate` and `key`, or `store.etcd.insecure: true` if the network is trusted";
        reader.error_with_hint(listed.id, message, hint);
    }
}

impl OtherListeners<'_> {
    /// Returns the key whose listener has the port of this address, on the same address or on all of the host.
    fn key_of(&self, address: &SocketAddr) -> Option<&'static str> {
        let none: &[SocketAddr] = &[];
        let encrypted = self.dns.and_then(|dns| dns.encrypted.as_ref());
        let (tls, https) = encrypted.map_or((none, none), |Encrypted { tls, https, .. }| (tls, https));
        let listeners = [
            ("dns.listen", self.dns.map_or(none, |dns| &dns.listen)),
            ("dns.encrypted.tls", tls),
            ("dns.encrypted.https", https),
            ("gossip.listen", self.gossip.map_or(none, |gossip| std::slice::from_ref(&gossip.listen))),
            ("http.listen", self.http.map_or(none, |http| &http.listen)),
        ];
        listeners.iter().find(|(_, listen)| listen.iter().any(|other| overlap(address, other))).map(|(key, _)| *key)
    }
}

/// Reports whether two listeners cannot exist together. Listeners of IPv6 do not accept IPv4.
fn overlap(a: &SocketAddr, b: &SocketAddr) -> bool {
    let is_any = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() > 0 && a.port() == b.port() && (a.ip() == b.ip() || (is_any && a.is_ipv4() == b.is_ipv4()))
}
