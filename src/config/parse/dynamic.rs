//! Parser of the list `dns.dynamic`.

use std::collections::BTreeSet;

use super::{
    super::transfer::{MAX_DYNAMIC_ZONES, MAX_GRANTS},
    transfer::read_key,
    zones::Zones,
};
use crate::{
    dns::{
        message::codes::rtype,
        update::{
            content::Definition,
            policy::{Grant, Pattern},
        },
        zone::MAX_NAME_SERVERS,
    },
    model::{name::Name, registered_name::RESERVED_SERVICE},
    yaml::{reader::Reader, tree::Node},
};

/// Example in messages.
const EXAMPLE: &str = "{zone: dyn.example.org, keys: [{key: ddns}]}";

/// Reads the zones. `has_keys` tells whether there is `keys_dir`, `voters` are those of the store.
pub(super) fn read_dynamic(
    reader: &Reader<'_, '_>,
    node: &Node<'_>,
    has_keys: bool,
    zones: Option<&Zones>,
    voters: Option<&[crate::model::name::Label]>,
) -> Vec<Definition> {
    let items = reader.one_or_list(node);
    if items.is_empty() || !reader.is_within(node.id, items.len(), MAX_DYNAMIC_ZONES, "dynamic zones") {
        return Vec::new();
    }
    if !has_keys {
        let hint = "every update needs a TSIG key: set `keys_dir: /etc/muster/tsig`";
        reader.error_with_hint(node.id, "`dynamic` without `dns.keys_dir`", hint);
    }
    if voters.is_none() {
        let hint = "dynamic zones are kept in the store: set `store: {voters: [NODE]}`, the same on all nodes";
        reader.error_with_hint(node.id, "`dynamic` without `store`", hint);
    }
    let domain = zones.map(|zones| &zones.domain);
    // The name servers of a zone are the same on all nodes.
    let server = |voter: &crate::model::name::Label| {
        domain.and_then(|domain| domain.prepend([voter.as_bytes(), RESERVED_SERVICE.as_bytes()]).ok())
    };
    let servers: Vec<Name> = voters.unwrap_or_default().iter().filter_map(server).collect();
    let mut read: Vec<Definition> = Vec::new();
    for item in items {
        let Some(definition) = read_zone(reader, item, &servers) else { continue };
        let origin = &definition.origin;
        if read.iter().any(|known| known.origin == *origin) {
            reader.error(item.id, format!("duplicate zone `{origin}`"));
        } else if zones.is_some_and(|zones| zones.all().any(|zone| zone == origin)) {
            let message = format!("`{origin}` has the names of services and nodes");
            reader.error_with_hint(item.id, message, "choose another zone, which may be below it");
        } else {
            read.push(definition);
        }
    }
    read
}

fn read_zone(reader: &Reader<'_, '_>, node: &Node<'_>, servers: &[Name]) -> Option<Definition> {
    let table = reader.table(node, "a dynamic zone", &["zone", "name_servers", "keys"])?;
    let zone = reader.required(&table, "zone", EXAMPLE).and_then(|node| reader.domain(node, "a zone's name"));
    let keys = reader.required(&table, "keys", EXAMPLE);
    let mut name_servers = servers.to_vec();
    if let Some(node) = table.get("name_servers") {
        let items = reader.one_or_list(node);
        if reader.is_within(node.id, items.len(), MAX_NAME_SERVERS, "name servers") && !items.is_empty() {
            name_servers = items.iter().filter_map(|item| reader.domain(item, "a name server")).collect();
        }
    }
    let mut grants: Vec<Grant> = Vec::new();
    for item in keys.map(|node| reader.one_or_list(node)).unwrap_or_default() {
        grants.extend(read_grant(reader, item));
    }
    if let Some(node) = keys {
        if grants.is_empty() {
            reader.mismatch(node, "at least one key");
        }
        reader.is_within(node.id, grants.len(), MAX_GRANTS, "keys");
    }
    Some(Definition { origin: zone?, name_servers, grants })
}

fn read_grant(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<Grant> {
    let table = reader.table(node, "a key of a dynamic zone", &["key", "names", "types"])?;
    let key = reader.required(&table, "key", "key: ddns");
    let key = key.and_then(|node| read_key(reader, node, &reader.line(node, "the name of a TSIG key")?));
    let mut names = Vec::new();
    if let Some(node) = table.get("names") {
        let items = reader.one_or_list(node);
        reader.is_within(node.id, items.len(), MAX_GRANTS, "names");
        if items.is_empty() {
            reader.mismatch(node, "at least one name, such as `\"**\"` for all");
        }
        for item in items {
            let Some(text) = reader.line(item, "a name relative to the zone") else { continue };
            match Pattern::parse(&text) {
                Ok(pattern) => names.push(pattern),
                Err(error) => {
                    let hint = "such as `@`, `www`, `\"*.hosts\"` or `_acme-challenge.**`";
                    reader.error_with_hint(item.id, format!("`{text}` is no name of the zone: {error}"), hint);
                }
            }
        }
    }
    let mut types = BTreeSet::new();
    if let Some(node) = table.get("types") {
        let items = reader.one_or_list(node);
        if items.is_empty() {
            reader.mismatch(node, "at least one record type");
        }
        for item in items {
            let Some(text) = reader.line(item, "a record type") else { continue };
            match rtype::parse(&text).filter(|number| !matches!(*number, 0 | rtype::OPT | 128..=255)) {
                Some(number) => drop(types.insert(number)),
                None => {
                    let message = format!("`{text}` is not a record type");
                    reader.error_with_hint(item.id, message, "such as A, AAAA, TXT or TYPE65280");
                }
            }
        }
    }
    Some(Grant { key: key?, names, types })
}
