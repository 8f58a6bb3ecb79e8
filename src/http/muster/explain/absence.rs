//! Names that do not exist in their zone.

use super::Explainer;
use crate::{
    api::explain::Explained,
    dns::{
        answer::provenance::Absence,
        message::query::LookupName,
        zone::static_names::{Kind, Zone},
    },
    model::name::Name,
};

impl Explainer<'_> {
    /// Explains a name that does not exist in its zone.
    pub(super) fn nothing(&self, text: &str, name: &LookupName, zone: Option<&Zone>, absence: Absence) -> Explained {
        let label = |at| presented_label(name.label(at));
        let origin = zone.map(|zone| zone.origin.to_string()).unwrap_or_default();
        let reason = match absence {
            Absence::Undeclared => None,
            Absence::Datacenter(at) => Some(format!("no node is in the datacenter {}", label(at))),
            Absence::OtherDatacenter(at) => Some(format!("{} is in other datacenters only", label(at))),
            Absence::NotOffered(at) => Some(format!("muster has no `{}` names of Consul", label(at))),
            Absence::NoKind => {
                Some(format!("names of services and nodes end in `service.{origin}` and `node.{origin}`"))
            }
        };
        match (zone, reason) {
            (_, Some(reason)) => {
                Explained { kind: "unknown".to_owned(), summary: format!("NXDOMAIN: {reason}"), ..Explained::default() }
            }
            (Some(zone), None) if zone.kind == Kind::Static => Explained {
                kind: "unknown".to_owned(),
                summary: format!("NXDOMAIN: {} does not define this name", self.static_zone(zone)),
                file: zone.names.file().to_owned(),
                ..Explained::default()
            },
            _ => self.unknown(text),
        }
    }
}

/// Returns a label of a question for people.
fn presented_label(label: &[u8]) -> String {
    let name = Name::from_labels([label]).map_or_else(|_| String::new(), |name| name.to_string());
    name.trim_end_matches('.').to_owned()
}
