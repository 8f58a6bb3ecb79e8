//! The table `dns` of the configuration.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf};

use super::transfer::{SecondaryZone, Transfer};
use crate::{
    dns::{tap::Selection, transfer::tsig::NamedKey, update::content::Definition},
    model::{dns_limits::ResponseRate, name::Name, nearest::Policy},
};

/// `dns:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Listen addresses, at least one; port 0 takes any free port.
    pub listen: Vec<SocketAddr>,
    /// Default TTL of records in seconds.
    pub ttl: u32,
    /// TTL of negative answers in seconds (the SOA minimum, RFC 2308 §4).
    pub negative_ttl: u32,
    /// Policy of services that state none.
    pub nearest: Policy,
    /// Largest UDP response in octets (RFC 6891 §6.2.3), from [`MIN_UDP_PAYLOAD`](super::MIN_UDP_PAYLOAD) to [`MAX_UDP_PAYLOAD`](super::MAX_UDP_PAYLOAD).
    pub udp_payload: u16,
    /// Response rate limit per network over UDP; `None`: unlimited. Clients that may use recursion are limited only with
    /// [`RateScope::All`](crate::model::dns_limits::RateScope::All).
    pub rate_limit: Option<ResponseRate>,
    /// True if answers do not carry instances in state warning.
    pub only_passing: bool,
    /// Zone of the targets of generated PTR records: the discovery zone or an alias domain.
    pub ptr_domain: Name,
    /// Zones that are signed online.
    pub dnssec: Vec<Name>,
    /// Folder of the keys of signed zones.
    pub dnssec_keys_dir: PathBuf,
    /// DNS over TLS, HTTPS and QUIC; `None`: disabled.
    pub encrypted: Option<Encrypted>,
    /// Folder of TSIG keys; `None`: there are none.
    pub keys_dir: Option<PathBuf>,
    /// Zone transfers to others.
    pub transfer: Transfer,
    /// Dynamic zones, all different from the zones with services. They need [`Config::store`](super::Config::store).
    pub dynamic: Vec<Definition>,
    /// Zones that are copied from primaries, with different names.
    pub secondary: Vec<SecondaryZone>,
    /// dnstap output; `None`: disabled.
    pub dnstap: Option<Dnstap>,
}

impl Dns {
    /// Returns all TSIG keys that the configuration names.
    pub fn named_keys(&self) -> BTreeSet<NamedKey> {
        let notified = self.transfer.notify.iter().filter_map(|secondary| secondary.key.as_ref());
        let transfers = self.transfer.allow.keys.iter().chain(notified).map(|name| (name, "dns.transfer"));
        let grants = self.dynamic.iter().flat_map(|zone| &zone.grants).map(|grant| (&grant.key, "dns.dynamic"));
        let copies = self.secondary.iter().filter_map(|zone| zone.key.as_ref()).map(|name| (name, "dns.secondary"));
        transfers.chain(grants).chain(copies).map(|(name, by)| NamedKey { name: name.clone(), by }).collect()
    }
}

/// `dns.dnstap:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dnstap {
    /// Path of the collector's Unix socket.
    pub socket: PathBuf,
    /// Messages to send; not empty.
    pub messages: Selection,
}

/// `dns.encrypted:`; at least one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encrypted {
    /// Listen addresses for DNS over TLS (RFC 7858); port 0 takes any free port.
    pub tls: Vec<SocketAddr>,
    /// Listen addresses for DNS over HTTPS (RFC 8484).
    pub https: Vec<SocketAddr>,
    /// Listen addresses for DNS over QUIC (RFC 9250).
    pub quic: Vec<SocketAddr>,
    /// Certificate chain in PEM.
    pub certificate: PathBuf,
    /// Private key in PEM.
    pub key: PathBuf,
}
