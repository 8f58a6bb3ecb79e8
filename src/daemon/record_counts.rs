//! Numbers of records of the zones, as a transfer has them.
//!
//! Counting the records that are generated from services needs a lookup of each name, which takes about a second at 100,000 instances. A
//! count is therefore kept until the serial of its zone changes. A scrape takes the former count meanwhile, so that counting for
//! metrics takes a hundredth of the time at most.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    dns::zone::{Tables, static_names::Zone},
    model::name::Name,
};

/// Shortest time between two counts for scrapes, as a multiple of the time that the former one took.
const PAUSE: u32 = 100;

/// The last counts.
#[derive(Debug, Default)]
pub(super) struct RecordCounts(Mutex<HashMap<Name, Counted>>);

#[derive(Clone, Copy, Debug)]
struct Counted {
    serial: u32,
    records: u64,
    at: Instant,
    took: Duration,
}

impl RecordCounts {
    /// Returns the number of records of a zone, the SOA included; 0 without a copy. It may be that of a former serial.
    pub(super) fn recent(&self, tables: &Tables, zone: &Zone) -> u64 {
        self.count(tables, zone, |known| known.at.elapsed() < known.took * PAUSE)
    }

    /// Returns the number of records that a zone has with its serial, the SOA included; 0 without a copy. Blocks while it counts.
    pub(super) fn newest(&self, tables: &Tables, zone: &Zone) -> u64 {
        self.count(tables, zone, |_| false)
    }

    fn count(&self, tables: &Tables, zone: &Zone, is_recent: impl Fn(&Counted) -> bool) -> u64 {
        if !zone.kind.has_live_names() {
            return if zone.unavailable().is_some() { 0 } else { zone.names.record_count().max(1) as u64 };
        }
        let serial = tables.serial_of(zone);
        // Two callers at once do not count twice.
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_usable = |known: &&Counted| known.serial == serial || is_recent(known);
        if let Some(known) = counts.get(&zone.origin).filter(is_usable) {
            return known.records;
        }
        let started = Instant::now();
        let mut records = 1;
        let Ok(()) = tables.visit_zone(zone, |set| {
            records += set.rdata.len() as u64;
            Ok::<(), Infallible>(())
        });
        let counted = Counted { serial, records, at: Instant::now(), took: started.elapsed() };
        counts.insert(zone.origin.clone(), counted);
        records
    }
}
