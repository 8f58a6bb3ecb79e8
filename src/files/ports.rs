//! Ports of a service file: the default port, named ports and the application protocols of both.

use smol_str::SmolStr;

use crate::{
    model::{
        alpn::{AlpnIds, PortAlpn},
        bounds::{self, BoundsError},
        name::Label,
        service::MAX_PORTS,
    },
    yaml::{
        reader::{Reader, Table},
        tree::{Id, Node, Value},
    },
};

/// Keys of a port that is a table.
const PORT_KEYS: &[&str] = &["port", "alpn"];

/// Ports of a service.
#[derive(Default)]
pub(super) struct Ports {
    /// Port of `SERVICE`.
    pub(super) default: Option<u16>,
    /// Named ports in file order, with unique names.
    pub(super) named: Vec<(Label, u16)>,
    /// Application protocols, the default port's first, then by the name of the port.
    pub(super) alpn: Vec<PortAlpn>,
}

/// Reads `port`, `ports` and `alpn`. The first named port is the default without `port`.
pub(super) fn read(reader: &Reader<'_, '_>, table: &Table<'_, '_>) -> Ports {
    let mut ports = Ports::default();
    if let Some(node) = table.get("ports")
        && let Some(entries) = reader.entries(node, "a table such as `{http: 8080}`")
        && reader.is_within(node.id, entries.len(), MAX_PORTS, "ports")
    {
        for entry in entries {
            let name = read_name(reader, entry.id, &entry.key);
            let (port, alpn) = read_port(reader, &entry.value);
            let (Some(name), Some(port)) = (name, port) else { continue };
            if ports.named.iter().any(|(other, _)| *other == name) {
                let fault = BoundsError::SamePort(name.clone());
                reader.error_with_hint(entry.id, fault.to_string(), "port names are case-insensitive");
            }
            ports.alpn.extend(alpn.map(|ids| PortAlpn { port: Some(name.clone()), ids }));
            ports.named.push((name, port));
        }
    }
    ports.default = match table.get("port") {
        Some(node) => reader.port(node),
        None => ports.named.first().map(|(_, port)| *port),
    };
    if let Some(node) = table.get("alpn") {
        if table.get("port").is_none() && ports.default.is_none() {
            reader.error_with_hint(node.id, "`alpn` is of the port, and the service has none", "add `port`");
        }
        ports.alpn.extend(read_alpn(reader, node).map(|ids| PortAlpn { port: None, ids }));
    }
    ports.alpn.sort_by(|a, b| a.port.cmp(&b.port));
    ports
}

/// Reads a port: a number, or a table with `port` and `alpn`.
fn read_port(reader: &Reader<'_, '_>, node: &Node<'_>) -> (Option<u16>, Option<AlpnIds>) {
    let Value::Table(_) = &node.value else { return (reader.port(node), None) };
    let Some(table) = reader.table(node, "a port such as `{port: 8443, alpn: [h2]}`", PORT_KEYS) else {
        return (None, None);
    };
    let port = reader.required(&table, "port", "port: 8443").and_then(|node| reader.port(node));
    (port, table.get("alpn").and_then(|node| read_alpn(reader, node)))
}

fn read_alpn(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<AlpnIds> {
    const WHAT: &str = "an ALPN id such as `h2`";
    let ids: Option<Vec<SmolStr>> =
        reader.one_or_list(node).iter().map(|item| reader.line(item, WHAT).map(SmolStr::from)).collect();
    let hint = "the ids of TLS's protocol negotiation, as in `alpn: [h2, http/1.1]`";
    AlpnIds::new(ids?).map_err(|error| reader.error_with_hint(node.id, error.to_string(), hint)).ok()
}

fn read_name(reader: &Reader<'_, '_>, id: Id, text: &str) -> Option<Label> {
    match Label::parse(text) {
        Ok(name) => bounds::port_name(&name).map_err(|fault| reader.error(id, fault.to_string())).ok().map(|()| name),
        Err(error) => {
            reader.report_label(id, "a port's name", text, &error);
            None
        }
    }
}
