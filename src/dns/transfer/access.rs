//! Clients that may copy zones, and secondaries that are told of changes.

use std::net::{IpAddr, SocketAddr};

use crate::{
    dns::zone::static_names::Zone,
    model::{name::Name, recursion_access::ClientRange},
};

/// Clients that may copy zones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Networks whose hosts may copy zones without a key.
    pub networks: Vec<ClientRange>,
    /// Names of TSIG keys whose holders may copy zones from anywhere.
    pub keys: Vec<Name>,
    /// Zones that are signed online, and copied without signatures.
    pub unsigned: Vec<Name>,
}

impl Access {
    /// Reports whether no client may copy zones.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && self.keys.is_empty()
    }

    /// Reports whether a zone may be copied. Signatures are made for each answer, so that a copy of a zone that is signed online has
    /// none: a secondary would answer what validators reject.
    pub fn allows_copies_of(&self, zone: &Zone) -> bool {
        zone.keys.is_none() || self.unsigned.contains(&zone.origin)
    }

    /// Reports whether a client may copy zones; `key` is the name of the key that signed its request.
    pub fn allows(&self, client: IpAddr, key: Option<&Name>) -> bool {
        let by_key = key.is_some_and(|key| self.keys.contains(key));
        by_key || self.networks.iter().any(|network| network.matches(client))
    }
}

/// A secondary that receives NOTIFY (RFC 1996).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secondary {
    /// Address.
    pub address: SocketAddr,
    /// Name of the TSIG key that signs the messages.
    pub key: Option<Name>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_copied_from_listed_networks_or_with_listed_keys() {
        let [xfr, other] = ["xfr", "other"].map(|name| Name::parse(name).unwrap());
        let network = ClientRange::Network { address: "192.0.2.0".parse().unwrap(), prefix: 24 };
        let access = Access { networks: vec![network], keys: vec![xfr.clone()], unsigned: Vec::new() };
        let cases = [
            ("192.0.2.9", None, true),
            ("198.51.100.9", None, false),
            ("198.51.100.9", Some(&xfr), true),
            ("198.51.100.9", Some(&other), false),
            ("192.0.2.9", Some(&other), true),
        ];
        for (client, key, expected) in cases {
            assert_eq!(access.allows(client.parse().unwrap(), key), expected, "{client} {key:?}");
        }
        assert!(Access::default().is_empty() && !Access::default().allows("127.0.0.1".parse().unwrap(), None));
    }
}
