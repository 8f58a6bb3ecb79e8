//! Parser of the table `dns.transfer`.

use super::{
    super::{
        DNS_PORT,
        transfer::{MAX_SECONDARIES, Secondary, Transfer},
    },
    read_zone_names,
    resolver::read_allow,
};
use crate::{
    model::name::Name,
    yaml::{
        reader::Reader,
        tree::{Node, Value},
    },
};

/// Prefix of the name of a TSIG key in `allow`.
const KEY: &str = "key:";

/// Reads the table. Keys need `keys_dir`, which `has_keys` tells; `signed` are the zones in `dns.dnssec`.
pub(super) fn read_transfer(reader: &Reader<'_, '_>, node: &Node<'_>, has_keys: bool, signed: &[Name]) -> Transfer {
    let mut transfer = Transfer::default();
    let Some(table) = reader.table(node, "the table `transfer`", &["allow", "notify", "unsigned"]) else {
        return transfer;
    };
    let needs_keys = |node: &Node<'_>| {
        if !has_keys {
            reader.error_with_hint(node.id, "a TSIG key without `dns.keys_dir`", "set `keys_dir: /etc/muster/tsig`");
        }
    };
    for item in table.get("allow").map(|node| reader.one_or_list(node)).unwrap_or_default() {
        match &item.value {
            Value::Text(text) if text.starts_with(KEY) => {
                needs_keys(item);
                transfer.allow.keys.extend(read_key(reader, item, &text[KEY.len()..]));
            }
            _ => transfer.allow.networks.extend(read_allow(reader, item)),
        }
    }
    if let Some(node) = table.get("unsigned") {
        transfer.allow.unsigned = read_zone_names(reader, node);
        for zone in transfer.allow.unsigned.iter().filter(|zone| !signed.contains(zone)) {
            let hint = "other zones are copied as they are: remove the name";
            reader.error_with_hint(node.id, format!("`unsigned` names {zone}, which `dns.dnssec` does not sign"), hint);
        }
    }
    let secondaries = table.get("notify").map(|node| (node, reader.one_or_list(node)));
    if let Some((node, items)) = secondaries
        && reader.is_within(node.id, items.len(), MAX_SECONDARIES, "secondaries")
    {
        for item in items {
            let Some(secondary) = read_secondary(reader, item, &needs_keys) else { continue };
            if transfer.notify.iter().any(|known| known.address == secondary.address) {
                reader.error(item.id, format!("duplicate secondary `{}`", secondary.address));
            } else {
                transfer.notify.push(secondary);
            }
        }
        if !items.is_empty() && transfer.allow.is_empty() && table.get("allow").is_none() {
            let hint = "a secondary that is told of a change copies the zone: list its network or key in `allow`";
            reader.error_with_hint(node.id, "`notify` without `allow`", hint);
        }
    }
    transfer
}

fn read_secondary(reader: &Reader<'_, '_>, node: &Node<'_>, needs_keys: &impl Fn(&Node<'_>)) -> Option<Secondary> {
    let Value::Table(_) = node.value else {
        return reader.socket_address(node, DNS_PORT).map(|address| Secondary { address, key: None });
    };
    let table = reader.table(node, "a secondary", &["address", "key"])?;
    let address = reader.required(&table, "address", "address: 10.0.0.9");
    let address = address.and_then(|node| reader.socket_address(node, DNS_PORT));
    let key = table.get("key").and_then(|node| {
        needs_keys(node);
        let text = reader.line(node, "the name of a TSIG key")?;
        read_key(reader, node, &text)
    });
    Some(Secondary { address: address?, key })
}

/// Reads the name of a TSIG key.
pub(super) fn read_key(reader: &Reader<'_, '_>, node: &Node<'_>, text: &str) -> Option<Name> {
    match Name::parse(text) {
        Ok(name) => Some(name),
        Err(error) => {
            reader.mismatch_with_hint(node, "the name of a TSIG key", error.to_string());
            None
        }
    }
}
