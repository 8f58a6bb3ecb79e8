//! Tables without the records of static zones, as the journal of transfers keeps them: it has the changed records of those.

use std::sync::Arc;

use super::{
    Tables, Zones,
    static_names::{Kind, Zone},
};

/// Zones without the records of static ones. Versions of the tables share them as long as the names of the zones and the generated
/// zones stay the same.
#[derive(Clone, Debug, Default)]
pub struct GeneratedZones(Option<Arc<Zones>>);

impl Tables {
    /// Returns these tables without the records of static zones. `known` keeps the zones for the next call.
    pub fn generated_part(&self, known: &mut GeneratedZones) -> Self {
        let zones = known.0.take().filter(|known| is_same(known, &self.zones));
        let zones = zones.unwrap_or_else(|| Arc::new(without_records(&self.zones)));
        known.0 = Some(zones.clone());
        Self { zones, ..self.clone() }
    }
}

fn without_records(zones: &Zones) -> Zones {
    let mut zones = zones.clone();
    for zone in zones.by_origin.values_mut().filter(|zone| zone.kind == Kind::Static) {
        zone.names = Arc::default();
    }
    zones
}

/// Reports whether `known` are these zones without records, apart from the SOA records of static zones.
fn is_same(known: &Zones, zones: &Zones) -> bool {
    let is_same_zone = |(known, zone): (&Zone, &Zone)| {
        let is_same_content = || {
            let is_empty = known.names.record_count() == 0 && zone.names.record_count() == 0;
            (is_empty || Arc::ptr_eq(&known.names, &zone.names)) && known.soa == zone.soa
        };
        known.kind == zone.kind
            && known.inside == zone.inside
            && known.keys.is_some() == zone.keys.is_some()
            && (zone.kind == Kind::Static || is_same_content())
    };
    let mut pairs = zones.by_origin.iter().map(|(origin, zone)| Some((known.by_origin.get(origin)?, zone)));
    known.by_origin.len() == zones.by_origin.len() && pairs.all(|pair| pair.is_some_and(is_same_zone))
}
