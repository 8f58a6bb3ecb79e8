//! The zones with services and nodes: `domain`, `alias_domains`, `dns.ptr_domain`.

use super::super::{DEFAULT_DOMAIN, MAX_CONSUL_ZONE, MAX_ZONE};
use crate::{
    model::{
        alias_domain::{AliasDomain, NameScheme, is_consul_kind},
        name::{Label, Name},
    },
    yaml::{
        reader::{Reader, Table},
        tree::{Node, Value},
    },
};

/// Label below a zone of Consul with the names of services.
const SERVICE: &[u8] = b"service";

/// The discovery zone and its aliases.
pub(super) struct Zones {
    pub(super) domain: Name,
    pub(super) aliases: Vec<AliasDomain>,
}

impl Zones {
    /// Returns the zone that contains a name.
    pub(super) fn around(&self, name: &Name) -> Option<&Name> {
        self.all().find(|zone| name.within(zone).is_some())
    }

    /// Reports whether this is the name of a zone.
    pub(super) fn has(&self, name: &Name) -> bool {
        self.all().any(|zone| zone == name)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Name> {
        std::iter::once(&self.domain).chain(self.aliases.iter().map(|alias| &alias.domain))
    }

    /// Reads `dns.ptr_domain`; without it, returns the discovery zone.
    pub(super) fn read_ptr_domain(&self, reader: &Reader<'_, '_>, node: Option<&Node<'_>>) -> Option<Name> {
        let Some(node) = node else { return Some(self.domain.clone()) };
        let zone = reader.domain(node, "a zone's name")?;
        if self.all().any(|known| *known == zone) {
            return Some(zone);
        }
        let message = format!("`{zone}` is neither `domain` nor one of `alias_domains`");
        reader.error_with_hint(node.id, message, "targets of PTR records must have addresses in a zone of this node");
        None
    }
}

/// Reads the discovery zone and its aliases.
pub(super) fn read_zones(reader: &Reader<'_, '_>, table: &Table<'_, '_>) -> Option<Zones> {
    let domain = match table.get("domain") {
        Some(node) => read_zone(reader, node, NameScheme::Muster),
        None => Name::parse(DEFAULT_DOMAIN).ok(),
    };
    let mut zones: Vec<AliasDomain> = domain.iter().cloned().map(AliasDomain::new).collect();
    let aliases = table.get("alias_domains").map(|node| reader.one_or_list(node)).unwrap_or_default();
    for node in aliases {
        let Some(alias) = read_alias(reader, node) else { continue };
        match zones.iter().find_map(|zone| conflict(zone, &alias)) {
            Some((message, Some(hint))) => reader.error_with_hint(node.id, message, hint),
            Some((message, None)) => reader.error(node.id, message),
            None => zones.push(alias),
        }
    }
    let aliases = zones.split_off(domain.is_some().into());
    Some(Zones { domain: domain?, aliases })
}

/// Reports a datacenter that has no names in an alias domain with the scheme of Consul.
pub(super) fn check_datacenter(reader: &Reader<'_, '_>, node: Option<&Node<'_>>, datacenter: &Label, zones: &Zones) {
    let consul = zones.aliases.iter().find(|alias| alias.scheme == NameScheme::Consul);
    if let (Some(node), Some(alias), true) = (node, consul, is_consul_kind(datacenter.as_bytes())) {
        let zone = &alias.domain;
        let message = format!(
            "the datacenter `{datacenter}` has no names in `{zone}`: `{datacenter}.{zone}` has another meaning"
        );
        reader.error_with_hint(node.id, message, format!("choose another name, or remove the alias domain `{zone}`"));
    }
}

/// Reads an alias domain: a name, or a table of name and scheme.
fn read_alias(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<AliasDomain> {
    if !matches!(node.value, Value::Table(_)) {
        return Some(AliasDomain::new(read_zone(reader, node, NameScheme::Muster)?));
    }
    let table = reader.table(node, "an alias domain", &["domain", "scheme"])?;
    let schemes = [NameScheme::Muster, NameScheme::Consul].map(|scheme| (scheme.as_str(), scheme));
    let scheme = match table.get("scheme") {
        Some(node) => reader.word(node, &schemes),
        None => Some(NameScheme::Muster),
    };
    let domain = reader.required(&table, "domain", "{domain: consul, scheme: consul}");
    let domain = domain.and_then(|node| read_zone(reader, node, scheme.unwrap_or(NameScheme::Muster)));
    Some(AliasDomain { domain: domain?, scheme: scheme? })
}

/// Returns why two zones cannot be served together, and what to do.
///
/// A name belongs to the longest zone that contains it. That is of use only for `service.ZONE` below a `ZONE` with the scheme of
/// Consul: both have the same services at the same names.
fn conflict(zone: &AliasDomain, other: &AliasDomain) -> Option<(String, Option<String>)> {
    let (inner, outer) = match (zone.domain.within(&other.domain), other.domain.within(&zone.domain)) {
        (None, None) => return None,
        (Some(_), Some(_)) => {
            let hint = (zone.scheme != other.scheme).then(|| "a zone has the names of one scheme".to_owned());
            return Some((format!("duplicate zone `{}`", zone.domain), hint));
        }
        (Some(_), None) => (zone, other),
        (None, Some(_)) => (other, zone),
    };
    let hint = match (inner.scheme, outer.scheme) {
        (NameScheme::Muster, NameScheme::Consul) => {
            let services = outer.domain.prepend([SERVICE]).ok()?;
            if services == inner.domain {
                return None;
            }
            format!("below a zone with `scheme: consul`, only `{services}` can be another zone")
        }
        (NameScheme::Consul, NameScheme::Muster) => {
            let inner = &inner.domain;
            format!("with `scheme: consul`, services of `{inner}` have names such as `web.service.{inner}`")
        }
        _ => "a name cannot be in two zones".to_owned(),
    };
    Some((format!("the zones `{}` and `{}` overlap", other.domain, zone.domain), Some(hint)))
}

fn read_zone(reader: &Reader<'_, '_>, node: &Node<'_>, scheme: NameScheme) -> Option<Name> {
    let zone = reader.domain(node, "a zone's name")?;
    let (most, hint) = match scheme {
        NameScheme::Muster => (MAX_ZONE, "port and service names must fit in front of it"),
        NameScheme::Consul => (MAX_CONSUL_ZONE, "service names and datacenters must fit in front of it"),
    };
    if zone.wire().len() > most {
        let message = format!("the zone's name has {} octets in wire form, more than {most}", zone.wire().len());
        reader.error_with_hint(node.id, message, hint);
        return None;
    }
    Some(zone)
}
