//! Changes of the zones, for incremental transfers (RFC 1995).
//!
//! The journal keeps the tables before each change, which share most of their content with the newest ones, and the names that
//! the change touched. The differences between two serials are computed for a request: the records of these names in both.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    dns::{
        answer::contents::{Owners, ZoneRrset},
        zone::{Tables, service::Service, static_names::Zone},
    },
    model::{catalog::Touched, name::Name},
};

/// Largest number of changes that are kept: minutes of a cluster with several changes a second.
const MAX_CHANGES: usize = 2_000;
/// Largest memory in octets of the services that the kept tables do not share with newer ones.
const MAX_OCTETS: usize = 16 << 20;
/// Largest number of names in the differences. A secondary that lacks more receives the whole zone.
const MAX_NAMES: usize = 50_000;

/// Changes of the zones, the newest last. A clone shares them: differences are computed from a clone, so that the publisher never
/// waits for that.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    changes: VecDeque<Arc<Change>>,
    octets: usize,
}

#[derive(Debug)]
struct Change {
    before: Arc<Tables>,
    touched: Touched,
    /// True if this node was the primary of the generated zones when it published `before`.
    is_own: bool,
    /// True if zone files changed.
    has_files: bool,
    octets: usize,
}

/// Differences of a zone between two serials.
#[derive(Debug, PartialEq, Eq)]
pub struct Differences {
    /// SOA of the older version: TTL and RDATA.
    pub old_soa: (u32, Box<[u8]>),
    /// RRsets with the records that are only in the older version.
    pub removed: Vec<ZoneRrset>,
    /// RRsets with the records that are only in the newer version.
    pub added: Vec<ZoneRrset>,
}

impl Journal {
    /// Records a change of the tables `before`. `is_own` if their generated serial was that of this node; `has_files` if zone
    /// files changed.
    pub fn push(&mut self, before: Arc<Tables>, is_own: bool, touched: &Touched, has_files: bool) {
        let services = touched.services.iter().filter_map(|name| before.service(name.as_bytes()));
        let octets = services.map(Service::size).sum();
        self.octets += octets;
        self.changes.push_back(Arc::new(Change { before, is_own, touched: touched.clone(), has_files, octets }));
        while self.changes.len() > MAX_CHANGES || self.octets > MAX_OCTETS {
            let Some(oldest) = self.changes.pop_front() else { return };
            self.octets -= oldest.octets;
        }
    }

    /// Forgets all changes: serials of another node follow.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns the number of changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Reports whether there are no changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Returns the differences of a zone from a serial to the tables `now`; `None` if the journal does not reach back, or a
    /// transfer of the whole zone is shorter.
    pub fn differences(&self, now: &Tables, zone: &Zone, serial: u32) -> Option<Differences> {
        let has_serial = |change: &Arc<Change>| {
            let known = zone_of(&change.before, &zone.origin);
            known.is_some_and(|(zone, of)| of == serial && (change.is_own || zone.soa.serial.is_some()))
        };
        // Of several tables with this serial the newest: the serial of a zone file stays while services change.
        let from = self.changes.iter().rposition(has_serial)?;
        let before = &self.changes[from].before;
        let (old_zone, _) = zone_of(before, &zone.origin)?;
        let mut owners = Owners::new();
        for change in self.changes.iter().skip(from) {
            // Also names between both versions: a service that came and went, or an instance that did.
            for tables in [now, before, &change.before] {
                owners.append(&mut tables.touched_names(zone, &change.touched));
            }
            if change.has_files {
                for zone in [old_zone, zone] {
                    owners.extend(zone.names.iter().map(|(owner, _)| Box::from(owner)));
                }
            }
            if owners.len() > MAX_NAMES {
                return None;
            }
        }
        let (mut removed, mut added) = (Vec::new(), Vec::new());
        for owner in owners {
            let (old, new) = (before.rrsets_of(old_zone, &owner), now.rrsets_of(zone, &owner));
            removed.extend(without(&old, &new));
            added.extend(without(&new, &old));
        }
        let old_soa = before.soa_rdata(old_zone);
        Some(Differences { old_soa, removed, added })
    }
}

fn zone_of<'t>(tables: &'t Tables, origin: &Name) -> Option<(&'t Zone, u32)> {
    let zone = tables.zone_named(origin.wire())?;
    Some((zone, tables.serial_of(zone)))
}

/// Returns the records of `these` that `others` lack. Records with another TTL are other records.
fn without(these: &[ZoneRrset], others: &[ZoneRrset]) -> Vec<ZoneRrset> {
    let lacking = these.iter().filter_map(|set| {
        let other = others.iter().find(|other| (&other.owner, other.rtype) == (&set.owner, set.rtype));
        let other = other.filter(|other| other.ttl == set.ttl);
        let is_new = |rdata: &[u8]| other.is_none_or(|other| !other.rdata.iter().any(|known| **known == *rdata));
        let rdata: Vec<Box<[u8]>> = set.rdata.iter().filter(|rdata| is_new(rdata)).cloned().collect();
        (!rdata.is_empty()).then(|| ZoneRrset { rdata, ..set.clone() })
    });
    lacking.collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, convert::Infallible};

    use super::*;
    use crate::{
        dns::zone::Settings,
        model::{
            name::label,
            zone::{StaticRecord, ZoneFile},
        },
    };

    type Records = BTreeSet<(Box<[u8]>, u16, u32, Box<[u8]>)>;

    /// A zone with this serial, and address records of these hosts and addresses.
    fn file(serial: u32, hosts: &[(u8, u8, u32)]) -> Arc<ZoneFile> {
        let origin = Name::parse("example.org").unwrap();
        let record = |owner: Name, rtype, ttl, rdata| StaticRecord { owner, rtype, ttl, rdata, line: 1, column: 1 };
        let mut soa = origin.wire().repeat(2);
        soa.extend([serial, 60, 60, 60, 60].iter().flat_map(|number| number.to_be_bytes()));
        let mut records = vec![record(origin.clone(), 6, 300, soa)];
        for (host, address, ttl) in hosts {
            let owner = origin.prepend([format!("h{host}").as_bytes()]).unwrap();
            records.push(record(owner, 1, *ttl, vec![192, 0, 2, *address]));
        }
        Arc::new(ZoneFile { origin, records, warnings: Vec::new(), files: Default::default() })
    }

    fn records(tables: &Tables) -> Records {
        let mut records = Records::new();
        let zone = tables.zone_named(b"\x07example\x03org\0").unwrap();
        let all = tables.visit_zone(zone, |set| {
            records.extend(set.rdata.iter().map(|rdata| (set.owner.clone(), set.rtype, set.ttl, rdata.clone())));
            Ok::<_, Infallible>(())
        });
        all.unwrap();
        records
    }

    #[test]
    fn differences_lead_from_each_version_to_the_newest() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let settings = Settings::new(label("a"), label("dc1"), Name::parse("service.local").unwrap());
        let mut tables = Tables::new(settings);
        let (mut journal, mut versions) = (Journal::default(), Vec::new());
        for serial in 1..30 {
            let hosts: Vec<_> =
                (0..random.u8(0..20)).map(|_| (random.u8(..9), random.u8(..9), random.u32(1..3))).collect();
            let before = Arc::new(tables.clone());
            tables.set_zones(&[file(serial, &hosts)]);
            journal.push(before, true, &Touched::default(), true);
            versions.push((serial, records(&tables)));
        }
        let zone = tables.zone_named(b"\x07example\x03org\0").unwrap();
        let (_, newest) = versions.pop().unwrap();
        for (serial, mut copy) in versions {
            let context = format!("seed {seed}, serial {serial}");
            let found = journal.differences(&tables, zone, serial).expect(&context);
            for (sets, is_added) in [(found.removed, false), (found.added, true)] {
                for set in sets {
                    for rdata in set.rdata {
                        let record = (set.owner.clone(), set.rtype, set.ttl, rdata);
                        let is_effective = if is_added { copy.insert(record) } else { copy.remove(&record) };
                        assert!(is_effective, "{context}: only what is there is removed, only what is not is added");
                    }
                }
            }
            assert_eq!(copy, newest, "{context}");
            assert!(found.old_soa.1.windows(4).any(|octets| octets == serial.to_be_bytes()), "{context}");
        }
        assert_eq!(journal.differences(&tables, zone, 77), None, "a version that never was");
    }

    #[test]
    fn oldest_changes_are_forgotten() {
        let settings = Settings::new(label("a"), label("dc1"), Name::parse("service.local").unwrap());
        let tables = Arc::new(Tables::new(settings));
        let mut journal = Journal::default();
        for _ in 0..MAX_CHANGES + 9 {
            journal.push(tables.clone(), true, &Touched::default(), false);
        }
        assert_eq!(journal.len(), MAX_CHANGES);
        journal.clear();
        assert!(journal.is_empty());
    }
}
