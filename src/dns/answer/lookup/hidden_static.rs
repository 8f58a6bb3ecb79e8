//! Static records hidden by a service of the same name.

use crate::{
    dns::{
        message::{codes::rtype, query::LookupName},
        zone::{Tables, static_names::Kind},
    },
    model::name::Name,
};

/// A static name that a service hides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden<'t> {
    /// File name of the zone.
    pub file: &'t str,
    /// First line with records of the name.
    pub line: u32,
    /// Owner name.
    pub owner: Name,
}

impl Tables {
    /// Returns the static names hidden by a service, unordered.
    pub fn hidden_by(&self, service: &[u8]) -> Vec<Hidden<'_>> {
        let own = [&[service.len() as u8], service].concat();
        let srv = [&[service.len() as u8 + 1, b'_'], service].concat();
        let mut hidden = Vec::new();
        for zone in self.zones() {
            let domain = match (&zone.inside, zone.kind) {
                (Some(domain), _) => domain,
                (None, Kind::Consul) => &zone.origin,
                // Alias domains with its scheme share the names of the domain.
                (None, Kind::Discovery) if self.domain().is_some_and(|domain| std::ptr::eq(domain, zone)) => {
                    &zone.origin
                }
                (None, _) => continue,
            };
            let above = zone.origin.within(domain).unwrap_or_default();
            let is_consul = self.zone_kind(domain) == Some(Kind::Consul);
            for (owner, rrsets) in zone.names.iter() {
                let Some(line) = rrsets.iter().map(|set| set.line).min() else { continue };
                // A zone may have a million names: this filter spares most of them the lookup.
                let last = if above.is_empty() { owner } else { above };
                let is_candidate = match is_consul {
                    true => contains(owner, &own[1..]) || contains(above, &own[1..]),
                    false => last.ends_with(&own) || contains(owner, &srv),
                };
                if owner.is_empty() || !is_candidate {
                    continue;
                }
                let name = [owner, zone.origin.wire()].concat();
                let Some(lookup) = LookupName::from_wire(&name) else { continue };
                let by = self.find(&lookup, rtype::A).found.service();
                if by.is_some_and(|by| by.name() == service)
                    && let Ok(owner) = Name::from_labels(lookup.labels())
                {
                    let (file, line) = zone.names.place(line);
                    hidden.push(Hidden { file, line, owner });
                }
            }
        }
        hidden
    }
}

fn contains(octets: &[u8], part: &[u8]) -> bool {
    octets.windows(part.len()).any(|window| window == part)
}
