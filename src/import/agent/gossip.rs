//! Gossip between nodes: addresses, peers and the key.

use data_encoding::BASE64;
use ring::digest::{SHA256, digest};

use super::is_reported_template;
use crate::{
    import::{
        output::{OutputFile, Privacy},
        section::{Place, Section},
        yaml_text::Yaml,
    },
    model::keyring::{KEY_LEN, Keyring},
};

/// Name of the key file, beside the configuration.
const KEY_FILE: &str = "gossip.key";
/// Bind address of Consul without `bind_addr`.
const ANY_ADDRESS: &str = "0.0.0.0";
/// Lengths in octets of the keys that Consul accepts.
const CONSUL_KEY_LENGTHS: &[usize] = &[16, 24, 32];
/// Keys with addresses of other nodes.
const JOINS: &[&str] = &["retry_join", "start_join", "retry_join_wan", "start_join_wan"];

/// Writes the addresses that other hosts use.
pub(super) fn set_advertise(section: &Section<'_>, yaml: &mut Yaml) {
    let mut addresses: Vec<Yaml> = Vec::new();
    for key in ["advertise_addr", "advertise_addr_ipv4", "advertise_addr_ipv6"] {
        if let Some((text, place)) = section.text(key)
            && !is_reported_template(section.context, text, &place)
        {
            addresses.push(Yaml::text(text).from(&place));
        }
    }
    yaml.set("advertise", Yaml::list(addresses));
    section.lose(&[
        ("advertise_addr_wan", WAN_ADDRESS),
        ("advertise_addr_wan_ipv4", WAN_ADDRESS),
        ("advertise_addr_wan_ipv6", WAN_ADDRESS),
        ("translate_wan_addrs", WAN_ADDRESS),
    ]);
}

/// Reason of addresses for other datacenters.
const WAN_ADDRESS: &str = "All datacenters are one cluster, and a node has one set of addresses: `advertise`";

/// The table `gossip`, and the file with its key.
pub(super) fn table(section: &Section<'_>, ports: Option<&Section<'_>>) -> (Yaml, Option<OutputFile>) {
    let context = section.context;
    let mut gossip = Yaml::table();
    let mut join = Vec::new();
    for key in JOINS {
        for (text, place) in section.texts(key) {
            if text.contains("provider=") {
                let reason = "muster does not ask cloud providers for peers: list addresses, or a name that has theirs";
                context.lost(&place, reason);
            } else if !is_reported_template(context, text, &place) {
                join.push(Yaml::text(host(text)).from(&place));
            }
        }
    }
    let encrypt = section.text("encrypt");
    let bind = section.text("bind_addr");
    let has_key = encrypt.is_some();
    let key = encrypt.and_then(|(text, place)| key_file(section, text, &place));
    // Gossip with an unknown key stays on loopback: it would be open without one.
    let is_open = key.is_some() || !has_key;
    let is_cluster = !join.is_empty()
        || has_key
        || bind.as_ref().is_some_and(|(text, _)| *text != "127.0.0.1")
        || section.flag("server").is_some_and(|(flag, _)| flag)
        || section.integer("bootstrap_expect").is_some();
    let is_loopback = matches!(bind, Some(("127.0.0.1" | "::1", _)));
    if is_cluster && is_open {
        let listen = match &bind {
            Some((text, place)) if is_reported_template(context, text, place) => ANY_ADDRESS,
            Some((text, _)) => text,
            None => ANY_ADDRESS,
        };
        let listen = Yaml::text(listen);
        gossip.set(
            "listen",
            match &bind {
                Some((_, place)) => listen.from(place),
                None => listen,
            },
        );
    } else {
        drop(bind);
    }
    gossip.set("join", Yaml::list(join));
    if key.is_some() {
        gossip.set("key_file", Yaml::text(KEY_FILE));
    } else if is_cluster && is_open && !is_loopback {
        let comment = "Consul's gossip is not encrypted. Better: `muster keygen`, and `key_file` on all nodes";
        gossip.set("insecure", Yaml::plain(true).with_comment(comment));
    }
    report(section, ports);
    (gossip, key)
}

/// The host of an address of a peer: muster's gossip has a port of its own.
fn host(text: &str) -> &str {
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => host,
        _ => text,
    }
}

/// The key file. A key of 32 octets stays as it is. muster has no shorter keys: those become the digest of the key, so that
/// every node gets the same one.
fn key_file(section: &Section<'_>, text: &str, place: &Place) -> Option<OutputFile> {
    let octets = BASE64.decode(text.trim().as_bytes()).ok().filter(|octets| CONSUL_KEY_LENGTHS.contains(&octets.len()));
    let Some(octets) = octets else {
        let reason = "Not a key of 16, 24 or 32 octets in base64, or hidden by the API. Gossip stays on loopback until \
                      `gossip.key_file` and `gossip.listen` are set";
        section.context.lost(place, reason);
        return None;
    };
    let key = if octets.len() == KEY_LEN { octets } else { digest(&SHA256, &octets).as_ref().to_vec() };
    let ring = Keyring::parse(&BASE64.encode(&key)).ok()?;
    Some(OutputFile { path: KEY_FILE.to_owned(), text: ring.to_text(), privacy: Privacy::Secret })
}

fn report(section: &Section<'_>, ports: Option<&Section<'_>>) {
    const RETRY: &str = "Unreachable peers are retried indefinitely";
    const OWN_PORT: &str = "Gossip has its own port, 7946, so that both run side by side: `gossip.listen`";
    section.skip(&[
        ("retry_interval", RETRY),
        ("retry_max", RETRY),
        ("retry_interval_wan", RETRY),
        ("retry_max_wan", RETRY),
        ("rejoin_after_leave", "A node that starts joins the peers that it knows, and those in `gossip.join`"),
        ("encrypt_verify_incoming", "Gossip with a key is always verified"),
        ("encrypt_verify_outgoing", "Gossip with a key is always encrypted"),
        ("serf_lan", OWN_PORT),
        ("serf_wan", OWN_PORT),
        ("serf_lan_bind", OWN_PORT),
        ("serf_wan_bind", OWN_PORT),
        ("reconnect_timeout", "A node that is gone stays known for as long as muster's own rule says"),
        ("reconnect_timeout_wan", "A node that is gone stays known for as long as muster's own rule says"),
        ("gossip_lan", "Failure detection has timing of its own: `gossip.interval`"),
        ("gossip_wan", "Failure detection has timing of its own: `gossip.interval`"),
        ("disable_keyring_file", "Keys that `muster keyring` changes are stored in `data_dir`"),
    ]);
    if let Some(ports) = ports {
        ports.skip(&[("serf_lan", OWN_PORT), ("serf_wan", OWN_PORT)]);
    }
    section.lose(&[
        ("serf_lan_allowed_cidrs", "Gossip accepts nodes that have the key, from any network: use a firewall"),
        ("serf_wan_allowed_cidrs", "Gossip accepts nodes that have the key, from any network: use a firewall"),
    ]);
}
