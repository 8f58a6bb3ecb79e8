//! The key `tagged_addresses` of a service: further addresses for clients of the HTTP API.

use std::{collections::BTreeMap, net::IpAddr};

use smol_str::SmolStr;

use crate::{
    model::tagged_addresses::{MAX_TAGGED_ADDRESS, MAX_TAGGED_ADDRESSES, TaggedAddress, TaggedAddresses, by_family},
    yaml::{
        reader::Reader,
        scalar::parse_endpoint,
        tree::{Node, Value},
    },
};

/// Reads the tagged addresses of a service with these addresses and this port, which are the defaults.
pub(super) fn read(
    reader: &Reader<'_, '_>,
    node: &Node<'_>,
    addresses: &[IpAddr],
    port: Option<u16>,
) -> TaggedAddresses {
    let mut tagged: BTreeMap<SmolStr, TaggedAddress> = by_family(addresses, port);
    let Some(entries) = reader.entries(node, "a table such as `{wan: 198.51.100.7}`") else {
        return TaggedAddresses::default();
    };
    for entry in entries {
        if !(1..=MAX_TAGGED_ADDRESS).contains(&entry.key.len()) || entry.key.chars().any(char::is_control) {
            let message = format!("a tag of an address has 1 to {MAX_TAGGED_ADDRESS} octets and no control characters");
            reader.error(entry.id, message);
            continue;
        }
        let text = match &entry.value.value {
            Value::Text(text) => text,
            _ => "",
        };
        match parse(text, port.unwrap_or(0)) {
            Some(address) => drop(tagged.insert(SmolStr::new(&entry.key), address)),
            None => reader.mismatch(&entry.value, "an address such as `198.51.100.7` or `198.51.100.7:8080`"),
        }
    }
    reader.is_within(node.id, tagged.len(), MAX_TAGGED_ADDRESSES, "tagged addresses with those of `address`");
    TaggedAddresses::stored(tagged, addresses, port)
}

/// Parses an IP address or a host name, with or without a port.
pub(crate) fn parse(text: &str, default_port: u16) -> Option<TaggedAddress> {
    /// Stands for no port: an endpoint has one.
    const NONE: u16 = 1;
    if let Some(endpoint) = parse_endpoint(text, None) {
        return Some(TaggedAddress { address: endpoint.host.into(), port: endpoint.port });
    }
    parse_endpoint(text, Some(NONE)).map(|host| TaggedAddress { address: host.host.into(), port: default_port })
}
