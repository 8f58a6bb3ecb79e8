//! Parser of the list `dns.secondary`.

use super::{
    super::transfer::{MAX_PRIMARIES, MAX_SECONDARY_ZONES, SecondaryZone},
    resolver::read_server,
    transfer::read_key,
    zones::Zones,
};
use crate::{
    dns::update::content::Definition,
    model::{
        name::Name,
        upstream_address::{UpstreamAddress, UpstreamTransport},
    },
    yaml::{
        reader::{Reader, Table},
        tree::Node,
    },
};

/// Reads the list. Keys need `keys_dir`, which `has_keys` tells.
pub(super) fn read_secondary_zones(
    reader: &Reader<'_, '_>,
    node: &Node<'_>,
    has_keys: bool,
    zones: Option<&Zones>,
) -> Vec<SecondaryZone> {
    let items = reader.one_or_list(node);
    let mut secondary: Vec<SecondaryZone> = Vec::new();
    if !reader.is_within(node.id, items.len(), MAX_SECONDARY_ZONES, "secondary zones") {
        return secondary;
    }
    for item in items {
        let Some(zone) = read_zone(reader, item, has_keys) else { continue };
        let origin = &zone.origin;
        if secondary.iter().any(|known| known.origin == *origin) {
            reader.error(item.id, format!("duplicate zone `{origin}`"));
        } else if zones.is_some_and(|zones| zones.has(origin)) {
            let hint = "it has the services and nodes of this cluster; choose another name for one of them";
            reader.error_with_hint(item.id, format!("`{origin}` is a discovery zone"), hint);
        } else {
            secondary.push(zone);
        }
    }
    secondary
}

/// Reports a zone that is both a secondary and a dynamic one.
pub(super) fn check_not_dynamic(
    reader: &Reader<'_, '_>,
    dns: &Table<'_, '_>,
    secondary: &[SecondaryZone],
    dynamic: &[Definition],
) {
    let is_dynamic = |zone: &&SecondaryZone| dynamic.iter().any(|other| other.origin == zone.origin);
    if let (Some(node), Some(zone)) = (dns.get("secondary"), secondary.iter().find(is_dynamic)) {
        let hint = "remove it from `secondary` or from `dynamic`";
        reader.error_with_hint(node.id, format!("`{}` is a secondary and a dynamic zone", zone.origin), hint);
    }
}

fn read_zone(reader: &Reader<'_, '_>, node: &Node<'_>, has_keys: bool) -> Option<SecondaryZone> {
    let table = reader.table(node, "a secondary zone", &["zone", "primaries", "key"])?;
    let zone = reader.required(&table, "zone", "zone: example.org");
    let origin = zone.and_then(|node| {
        let origin = reader.domain(node, "a zone's name")?;
        if origin == Name::root() {
            reader.error(node.id, "the root zone is not supported");
        }
        Some(origin)
    });
    let primaries = reader.required(&table, "primaries", "primaries: [192.0.2.1]").map(|node| {
        let items = reader.one_or_list(node);
        if items.is_empty() {
            reader.mismatch(node, "at least one address of a primary");
        }
        let mut primaries = Vec::new();
        if reader.is_within(node.id, items.len(), MAX_PRIMARIES, "primaries") {
            for item in items {
                match read_server(reader, item) {
                    Some(again) if primaries.contains(&again) => {
                        reader.error(item.id, format!("duplicate primary `{again}`"));
                    }
                    Some(UpstreamAddress { transport: UpstreamTransport::Https { .. }, .. }) => {
                        let hint = "zones are transferred over TCP or TLS, as from `tls://192.0.2.1#ns.example`";
                        reader.mismatch_with_hint(item, "the address of a primary", hint.to_owned());
                    }
                    address => primaries.extend(address),
                }
            }
        }
        primaries
    });
    let key = table.get("key").and_then(|node| {
        if !has_keys {
            reader.error_with_hint(node.id, "a TSIG key without `dns.keys_dir`", "set `keys_dir: /etc/muster/tsig`");
        }
        let text = reader.line(node, "the name of a TSIG key")?;
        read_key(reader, node, &text)
    });
    Some(SecondaryZone { origin: origin?, primaries: primaries?, key })
}
