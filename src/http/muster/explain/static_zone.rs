//! Explanation of records that are not generated from services: of zone files, dynamic zones and secondary zones.

use super::{Explainer, absolute, first_line};
use crate::{
    api::explain::Explained,
    dns::{
        message::codes::{Rcode, rtype},
        zone::{
            rrset::RRset,
            static_names::{Kind, Zone},
        },
    },
    model::zone::{CopyState, Source},
};

/// Origin of records that are not generated from services.
pub(super) struct Origin {
    /// The origin as a subject: `FILE:LINE` of a zone file.
    pub(super) shown: String,
    /// Name of the zone file; empty for other sources.
    pub(super) file: String,
    /// Line in the file; 0 for other sources.
    pub(super) line: u32,
    /// Source of the TTL.
    pub(super) ttl: &'static str,
}

impl Explainer<'_> {
    /// Returns the origin of the record set of a zone with this line.
    pub(super) fn origin(&self, zone: &Zone, line: u32) -> Origin {
        let (shown, ttl) = match zone.source {
            Source::Files => {
                let (file, line) = zone.names.place(line);
                return Origin { shown: format!("{file}:{line}"), file: file.to_owned(), line, ttl: "the zone file" };
            }
            Source::Updates => (format!("an update of {}", self.static_zone(zone)), "the update"),
            Source::Primary(_) => (self.static_zone(zone), "the primary of the zone"),
        };
        Origin { shown, file: String::new(), line: 0, ttl }
    }

    /// Returns what defines the records of a zone: the name of its file, or the zone.
    pub(super) fn static_zone(&self, zone: &Zone) -> String {
        match zone.source {
            Source::Files => zone.names.file().to_owned(),
            Source::Updates => format!("the dynamic zone {}", zone.origin),
            Source::Primary(_) => {
                format!("the secondary zone {}, serial {},", zone.origin, self.tables.serial_of(zone))
            }
        }
    }

    /// Explains the apex of a static zone.
    pub(super) fn static_apex(&self, zone: &Zone) -> Explained {
        let origin = self.origin(zone, first_line(zone.names.apex()));
        let of = match zone.source {
            Source::Files => "the zone in ",
            Source::Updates | Source::Primary(_) => "",
        };
        Explained {
            kind: "static".to_owned(),
            summary: format!("static: apex of {of}{}", self.static_zone(zone).trim_end_matches(',')),
            file: origin.file,
            line: origin.line,
            ttl: zone.soa.ttl,
            ttl_from: origin.ttl.to_owned(),
            ..Explained::default()
        }
    }

    /// Explains records of a static zone, or of a zone file of the discovery zone.
    pub(super) fn static_records(&self, zone: Option<&Zone>, rrsets: &[RRset], wildcard: Option<&[u8]>) -> Explained {
        let Some(zone) = zone else { return Explained::default() };
        let origin = self.origin(zone, first_line(rrsets));
        let owner = wildcard.map_or_else(String::new, |owner| absolute(owner, zone));
        let defined = if wildcard.is_some() { format!("wildcard {owner}") } else { "this name".to_owned() };
        let (undeclared, notes) = match (zone.kind, wildcard) {
            (Kind::Static, _) => ("", Vec::new()),
            (Kind::Discovery | Kind::Consul, None) => ("; no node declares a service of this name", Vec::new()),
            // The wildcard may hide that a service file has errors.
            (Kind::Discovery | Kind::Consul, Some(_)) => ("; no node declares a service of this name", self.problems()),
        };
        Explained {
            kind: "static".to_owned(),
            summary: format!("static: {} defines {defined}{undeclared}", origin.shown),
            owner,
            file: origin.file,
            line: origin.line,
            ttl: ttl_of(rrsets),
            ttl_from: origin.ttl.to_owned(),
            notes,
            ..Explained::default()
        }
    }

    /// Explains a name of a zone that is not answered.
    pub(super) fn unavailable(&self, zone: &Zone) -> Explained {
        let reason = match zone.unavailable() {
            Some(CopyState::Expired) => "no primary has confirmed the copy for as long as its SOA allows (expire)",
            _ => "no primary has sent the zone yet",
        };
        Explained {
            kind: "static".to_owned(),
            rcode: Rcode::ServFail.to_string(),
            summary: format!("SERVFAIL: secondary zone {}: {reason}", zone.origin),
            notes: vec![format!(
                "`muster zone list` shows the last problem; the zone is copied as `dns.secondary` says"
            )],
            ..Explained::default()
        }
    }
}

/// Returns the least TTL of the records that were not made by a signer, which clients do not ask for.
fn ttl_of(rrsets: &[RRset]) -> u32 {
    let ttls = rrsets.iter().filter(|set| !matches!(set.rtype, rtype::RRSIG | rtype::NSEC)).map(|set| set.ttl);
    ttls.min().or_else(|| rrsets.first().map(|set| set.ttl)).unwrap_or_default()
}
