//! SOA of the zones with names of services and nodes.

use std::sync::Arc;

use super::{
    Settings, node_name,
    static_names::{Soa, hostmaster},
};
use crate::{
    dns::message::codes::rtype,
    model::{alias_domain::NameScheme, name::Name, zone::ZoneFile},
};

/// SOA refresh, retry and expire in seconds (ranges in RFC 1912 §2.2). Refresh and retry are short, since a secondary that
/// missed a NOTIFY answers with dead instances for that long.
const TIMERS: [u32; 3] = [60, 10, 604_800];

/// Returns the SOA of a zone with live names: that of its zone file if any, but always with the generated serial.
pub(super) fn live_soa(settings: &Settings, origin: &Name, scheme: NameScheme, file: Option<&Arc<ZoneFile>>) -> Soa {
    let record = file.and_then(|file| file.records.iter().find(|r| r.rtype == rtype::SOA));
    match record.and_then(|record| Soa::of_zone(record, origin)) {
        Some(soa) => Soa { serial: None, ..soa },
        None => Soa {
            mname: node_name(scheme, &settings.node, &settings.datacenter),
            rname: hostmaster(),
            serial: None,
            timers: TIMERS,
            minimum: settings.negative_ttl,
            // The negative TTL is the lesser of TTL and minimum (RFC 2308 §3); it must equal the configured one.
            ttl: settings.ttl.max(settings.negative_ttl),
        },
    }
}
