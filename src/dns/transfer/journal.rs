//! Changes of the zones, for incremental transfers (RFC 1995).
//!
//! The journal keeps the generated tables before each change, which share most of their content with the newest ones, and the names
//! that the change touched. The differences between two serials are computed for a request: the records of these names in both.
//! Of static zones it keeps the former records of changed names.
//!
//! Differences lead from one content to another. Two contents with one serial cannot be told apart by it, so a zone whose content
//! changes without a later serial has no differences from that serial and earlier ones.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use crate::{
    dns::{
        answer::contents::ZoneRrset,
        transfer::static_changes::{NotRaised, ZoneChange, compare},
        zone::{Tables, generated_part::GeneratedZones, serial::is_later, service::Service, static_names::Zone},
    },
    model::{catalog::Touched, name::Name},
};

/// Largest number of changes that are kept: minutes of a cluster with several changes a second.
const MAX_CHANGES: usize = 2_000;
/// Largest memory in octets of the services and zones that the kept tables do not share with newer ones.
const MAX_OCTETS: usize = 16 << 20;
/// Largest number of changed names in the differences. A secondary that lacks more receives the whole zone.
const MAX_NAMES: usize = 50_000;

/// Changes of the zones, the newest last. A clone shares them: differences are computed from a clone, so that the publisher never
/// waits for that.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    changes: VecDeque<Arc<Change>>,
    octets: usize,
    generated: GeneratedZones,
    /// Latest serial of each static zone that more than one content may have had.
    ambiguous: BTreeMap<Name, u32>,
}

#[derive(Debug)]
struct Change {
    /// Tables without the records of static zones.
    before: Tables,
    touched: Touched,
    /// True if this node was the primary of the generated zones when it published `before`.
    is_own: bool,
    /// Zones whose files, updates or copies changed.
    zones: BTreeMap<Name, ZoneChange>,
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
    /// Records a change of the tables `before` to `now`. `is_own` if their generated serial was that of this node; `has_files` if
    /// zone files or dynamic zones changed. Returns the zones whose content changed while their serial did not rise.
    pub fn push(
        &mut self,
        before: &Tables,
        now: &Tables,
        is_own: bool,
        touched: Touched,
        has_files: bool,
    ) -> Vec<NotRaised> {
        let services = touched.services.iter().filter_map(|name| before.service(name.as_bytes()));
        let is_replaced = |zone: &&Zone| {
            has_files
                && zone.kind.has_live_names()
                && now.zone_named(zone.origin.wire()).is_none_or(|newer| !Arc::ptr_eq(&newer.names, &zone.names))
        };
        let replaced = before.zones().filter(is_replaced).map(|zone| zone.names.size());
        let (zones, not_raised) = if has_files { compare(before, now, MAX_NAMES) } else { Default::default() };
        let octets = services.map(Service::size).sum::<usize>()
            + replaced.sum::<usize>()
            + zones.values().map(ZoneChange::size).sum::<usize>();
        for NotRaised { zone, former, .. } in &not_raised {
            let known = self.ambiguous.entry(zone.clone()).or_insert(*former);
            if is_later(*former, *known) {
                *known = *former;
            }
        }
        self.octets += octets;
        let before = before.generated_part(&mut self.generated);
        self.changes.push_back(Arc::new(Change { before, touched, is_own, zones, octets }));
        while self.changes.len() > MAX_CHANGES || self.octets > MAX_OCTETS {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.octets -= oldest.octets;
        }
        not_raised
    }

    /// Forgets all changes: serials of another node follow.
    pub fn clear(&mut self) {
        // The serials of zone files stay.
        *self = Self { ambiguous: std::mem::take(&mut self.ambiguous), ..Self::default() };
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
        match zone.kind.has_live_names() {
            true => self.generated_differences(now, zone, serial),
            false => self.static_differences(now, zone, serial),
        }
    }

    fn generated_differences(&self, now: &Tables, zone: &Zone, serial: u32) -> Option<Differences> {
        let has_serial = |change: &Arc<Change>| change.is_own && change.before.serial() == serial;
        let from = self.changes.iter().rposition(has_serial)?;
        let before = &self.changes[from].before;
        let old_zone = before.zone_named(zone.origin.wire())?;
        let (mut owners, mut addresses) = (Folded::default(), BTreeSet::new());
        for change in self.changes.iter().skip(from) {
            // Also names between both versions: a service that came and went, or an instance that did.
            for tables in [now, before, &change.before] {
                owners.add(tables.touched_names(zone, &change.touched));
                addresses.append(&mut tables.touched_addresses(zone, &change.touched));
            }
            match change.zones.get(&zone.origin) {
                Some(ZoneChange::Names(former)) => owners.add(former.names.keys().cloned()),
                Some(ZoneChange::Whole) => return None,
                None => {}
            }
            if owners.0.len() > MAX_NAMES {
                return None;
            }
        }
        for tables in [now, before] {
            owners.add(tables.names_of_addresses(&addresses));
        }
        let old = |owner: &[u8]| before.rrsets_of(old_zone, owner);
        Some(between(now, zone, before.soa_rdata(old_zone), owners.0.into_values().map(|owner| (old(&owner), owner))))
    }

    fn static_differences(&self, now: &Tables, zone: &Zone, serial: u32) -> Option<Differences> {
        if self.ambiguous.get(&zone.origin).is_some_and(|latest| !is_later(serial, *latest)) {
            return None;
        }
        let mut names = BTreeMap::new();
        for change in self.changes.iter().rev() {
            let former = match change.zones.get(&zone.origin) {
                Some(ZoneChange::Names(former)) => former,
                Some(ZoneChange::Whole) => return None,
                None => continue,
            };
            // The records of the oldest version count.
            names.extend(former.names.iter());
            if names.len() > MAX_NAMES {
                return None;
            }
            if former.serial == Some(serial) {
                let old = names.into_iter().map(|(owner, sets)| (sets.clone(), owner.clone()));
                return Some(between(now, zone, former.soa.clone(), old));
            }
        }
        None
    }
}

/// Returns the differences from old RRsets of owner names.
fn between(
    now: &Tables,
    zone: &Zone,
    old_soa: (u32, Box<[u8]>),
    names: impl Iterator<Item = (Vec<ZoneRrset>, Box<[u8]>)>,
) -> Differences {
    let (mut removed, mut added) = (Vec::new(), Vec::new());
    for (old, owner) in names {
        let new = now.rrsets_of(zone, &owner);
        removed.extend(without(&old, &new));
        added.extend(without(&new, &old));
    }
    Differences { old_soa, removed, added }
}

/// Owner names by their lower case: an instance may have changed the letter case of its name, which is one name.
#[derive(Default)]
struct Folded(BTreeMap<Vec<u8>, Box<[u8]>>);

impl Folded {
    /// Adds names that are not known in another letter case.
    fn add(&mut self, owners: impl IntoIterator<Item = Box<[u8]>>) {
        for owner in owners {
            self.0.entry(owner.to_ascii_lowercase()).or_insert(owner);
        }
    }
}

/// Returns the records of `these` that `others` lack. Records with another TTL are other records.
fn without(these: &[ZoneRrset], others: &[ZoneRrset]) -> Vec<ZoneRrset> {
    let lacking = these.iter().filter_map(|set| {
        let other = others.iter().find(|other| other.is_same(set));
        let other = other.filter(|other| other.ttl == set.ttl);
        let is_new = |rdata: &[u8]| other.is_none_or(|other| !other.rdata.iter().any(|known| **known == *rdata));
        let rdata: Vec<Box<[u8]>> = set.rdata.iter().filter(|rdata| is_new(rdata)).cloned().collect();
        (!rdata.is_empty()).then(|| ZoneRrset { rdata, ..set.clone() })
    });
    lacking.collect()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::{
        dns::zone::Settings,
        model::{
            name::label,
            zone::{Source, StaticRecord, ZoneFile, with_serial},
        },
    };

    type Records = BTreeSet<(Box<[u8]>, u16, u32, Box<[u8]>)>;

    /// A zone with this serial, and address records of these hosts and addresses.
    fn file(serial: u32, hosts: &[(u8, u8, u32)]) -> Arc<ZoneFile> {
        let mut zone = with_serial("example.org", serial, Source::Files);
        for (host, address, ttl) in hosts {
            let owner = zone.origin.prepend([format!("h{host}").as_bytes()]).unwrap();
            let rdata = vec![192, 0, 2, *address];
            zone.records.push(StaticRecord { owner, rtype: 1, ttl: *ttl, rdata, line: 1, column: 1 });
        }
        Arc::new(zone)
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
            let before = tables.clone();
            tables.set_zones(&[file(serial, &hosts)]);
            let not_raised = journal.push(&before, &tables, true, Touched::default(), true);
            assert_eq!(not_raised, [], "{serial}");
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
        let tables = Tables::new(settings);
        let mut journal = Journal::default();
        for _ in 0..MAX_CHANGES + 9 {
            journal.push(&tables, &tables, true, Touched::default(), false);
        }
        assert_eq!(journal.len(), MAX_CHANGES);
        journal.clear();
        assert!(journal.is_empty());
    }

    /// Publishes versions of a zone: serial, and number of hosts. Returns the newest tables, the journal, and the versions whose serial
    /// did not rise.
    fn publish(versions: &[(u32, u8)]) -> (Tables, Journal, Vec<u32>) {
        let settings = Settings::new(label("a"), label("dc1"), Name::parse("service.local").unwrap());
        let mut tables = Tables::new(settings);
        let (mut journal, mut not_raised) = (Journal::default(), Vec::new());
        for (serial, hosts) in versions {
            let before = tables.clone();
            let hosts: Vec<_> = (0..*hosts).map(|host| (host, 1, 60)).collect();
            tables.set_zones(&if *serial == 0 { Vec::new() } else { vec![file(*serial, &hosts)] });
            let found = journal.push(&before, &tables, true, Touched::default(), true);
            not_raised.extend(found.into_iter().filter(|found| found.is_file).filter_map(|found| found.serial));
        }
        (tables, journal, not_raised)
    }

    /// A secondary may have either content of a serial, so it receives the whole zone.
    #[test]
    fn serial_of_several_contents_has_no_differences() {
        /// Case, serials with numbers of hosts, serials that are reported, serials without differences, serials with them.
        type Case<'c> = (&'c str, &'c [(u32, u8)], &'c [u32], &'c [u32], &'c [u32]);
        let cases: [Case<'_>; 8] = [
            ("each change raises the serial", &[(1, 1), (2, 2), (7, 3)], &[], &[3], &[1, 2]),
            ("changed with the same serial, then raised", &[(1, 1), (1, 2), (7, 3)], &[1], &[1], &[]),
            ("raised later", &[(1, 1), (1, 2), (7, 3), (8, 4)], &[1], &[1], &[7]),
            ("went back", &[(7, 1), (3, 2), (5, 3), (7, 4), (8, 5), (9, 6)], &[3], &[7, 3, 5], &[8]),
            ("same content", &[(1, 1), (1, 1), (2, 2)], &[], &[], &[1]),
            ("same content with an earlier serial", &[(7, 1), (3, 1), (8, 2)], &[3], &[3, 7], &[]),
            ("removed, and back with other content", &[(1, 1), (0, 0), (1, 2), (2, 2)], &[], &[1], &[]),
            ("around the end of the numbers", &[(u32::MAX, 1), (1, 2), (2, 3)], &[], &[], &[u32::MAX, 1]),
        ];
        for (case, versions, reported, without, with) in cases {
            let (tables, journal, not_raised) = publish(versions);
            assert_eq!(not_raised, reported, "{case}");
            let zone = tables.zone_named(b"\x07example\x03org\0").unwrap();
            for (serials, expected) in [(without, false), (with, true)] {
                for serial in serials {
                    assert_eq!(journal.differences(&tables, zone, *serial).is_some(), expected, "{case}: {serial}");
                }
            }
        }
    }

    /// RFC 5936 §3.2: a copy of the zone above has the same records as before.
    #[test]
    fn zone_below_another_one_changes_nothing_of_it() {
        let settings = Settings::new(label("a"), label("dc1"), Name::parse("service.local").unwrap());
        let mut tables = Tables::new(settings);
        tables.set_zones(&[file(1, &[(1, 1, 60), (2, 1, 60)])]);
        let before = tables.clone();
        let inner = ZoneFile { origin: Name::parse("h1.example.org").unwrap(), ..ZoneFile::clone(&file(1, &[])) };
        let origin = inner.origin.clone();
        let below = inner.records.into_iter().map(|record| StaticRecord { owner: origin.clone(), ..record }).collect();
        tables.set_zones(&[file(1, &[(1, 1, 60), (2, 1, 60)]), Arc::new(ZoneFile { records: below, ..inner })]);
        let found = Journal::default().push(&before, &tables, true, Touched::default(), true);
        assert_eq!((found, records(&tables)), (Vec::new(), records(&before)));
    }

    /// The number of names of the zone does not matter.
    #[test]
    fn change_of_one_name_of_a_large_zone_has_differences() {
        let hosts = MAX_NAMES as u32 * 2;
        let large = |serial, last| {
            let mut zone = ZoneFile::clone(&file(serial, &[]));
            let record = |host: u32| StaticRecord {
                owner: zone.origin.prepend([format!("n{host}").as_bytes()]).unwrap(),
                rtype: 1,
                ttl: 60,
                rdata: if host + 1 == hosts { vec![192, 0, 2, last] } else { host.to_be_bytes().to_vec() },
                line: host as usize + serial as usize,
                column: 1,
            };
            let records: Vec<_> = (0..hosts).map(record).collect();
            zone.records.extend(records);
            Arc::new(zone)
        };
        let settings = Settings::new(label("a"), label("dc1"), Name::parse("service.local").unwrap());
        let (mut tables, mut journal) = (Tables::new(settings), Journal::default());
        for serial in 1..4 {
            let before = tables.clone();
            tables.set_zones(&[large(serial, serial as u8)]);
            journal.push(&before, &tables, true, Touched::default(), true);
        }
        let zone = tables.zone_named(b"\x07example\x03org\0").unwrap();
        let found = journal.differences(&tables, zone, 1).expect("differences");
        let rdata = |sets: &[ZoneRrset]| sets.iter().flat_map(|set| set.rdata.clone()).collect::<Vec<_>>();
        assert_eq!(rdata(&found.removed), [Box::from([192, 0, 2, 1])]);
        assert_eq!(rdata(&found.added), [Box::from([192, 0, 2, 3])]);
        assert!(journal.octets < 10_000, "{}", journal.octets);
    }
}
