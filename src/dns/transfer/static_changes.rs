//! Changes of zones by their files, by updates and by copies: the names that differ between two versions of all zones.
//!
//! The former records of these names are kept instead of the former zone, so that a change of one name of a large zone is small.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    dns::{
        answer::contents::ZoneRrset,
        zone::{
            Tables,
            rrset::RRset,
            serial::is_later,
            static_names::{StaticNames, Zone},
        },
    },
    model::{name::Name, zone::Source},
};

/// Octets of an owner or an RRset in the maps, besides its names and its data.
const ENTRY_OCTETS: usize = 64;

/// Change of one zone.
#[derive(Debug)]
pub enum ZoneChange {
    /// The former version, as far as the newer one differs.
    Names(Former),
    /// Too many names differ, or the versions do not follow each other: there are no differences.
    Whole,
}

/// A version of a zone before a change.
#[derive(Debug)]
pub struct Former {
    /// Serial of the zone file; `None` for the generated serial.
    pub serial: Option<u32>,
    /// TTL and RDATA of the SOA.
    pub soa: (u32, Box<[u8]>),
    /// Former RRsets of the names that differ; none of a name that was added.
    pub names: BTreeMap<Box<[u8]>, Vec<ZoneRrset>>,
}

impl ZoneChange {
    /// Returns the octets of memory that the change takes, some more or less.
    pub fn size(&self) -> usize {
        let Self::Names(former) = self else { return ENTRY_OCTETS };
        let of_set = |set: &ZoneRrset| {
            let rdata = set.rdata.iter().map(|rdata| size_of::<Box<[u8]>>() + rdata.len());
            ENTRY_OCTETS + set.owner.len() + rdata.sum::<usize>()
        };
        let owners: usize = former.names.keys().map(|owner| ENTRY_OCTETS + owner.len()).sum();
        ENTRY_OCTETS + owners + former.names.values().flatten().map(of_set).sum::<usize>()
    }
}

/// Content of a zone that changed while its serial did not rise (RFC 1982).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotRaised {
    /// Name of the zone.
    pub zone: Name,
    /// Serial of the former content.
    pub former: u32,
    /// Serial of the newer content; `None` if the zone is not served any more.
    pub serial: Option<u32>,
    /// True if the content is that of a zone file.
    pub is_file: bool,
}

/// Returns the zones that differ, with at most `most` names each, and those whose serial did not rise.
pub fn compare(before: &Tables, now: &Tables, most: usize) -> (BTreeMap<Name, ZoneChange>, Vec<NotRaised>) {
    let (mut changes, mut not_raised) = (BTreeMap::new(), Vec::new());
    let moved = moved_origins(before, now);
    for old in before.zones() {
        let new = now.zone_named(old.origin.wire()).filter(|new| new.unavailable().is_none());
        let Some(new) = new else {
            let former = old.soa.serial.filter(|_| old.unavailable().is_none());
            let gone = |former| NotRaised { zone: old.origin.clone(), former, serial: None, is_file: false };
            not_raised.extend(former.map(gone));
            changes.insert(old.origin.clone(), ZoneChange::Whole);
            continue;
        };
        let below = moved.get(&old.origin).map(Vec::as_slice).unwrap_or_default();
        let Some(owners) = changed_owners(&old.names, &new.names, below, most) else {
            not_raised.extend(not_raised_of(old, new));
            changes.insert(old.origin.clone(), ZoneChange::Whole);
            continue;
        };
        // Names that services or other zones hide are the same in both.
        let former = |owner: Box<[u8]>| {
            let sets = before.rrsets_of(old, &owner);
            (sets != now.rrsets_of(new, &owner)).then_some((owner, sets))
        };
        let names: BTreeMap<_, _> = owners.into_iter().filter_map(former).collect();
        if names.is_empty() && old.soa == new.soa && old.unavailable() == new.unavailable() {
            continue;
        }
        let repeated = not_raised_of(old, new);
        let change = match &repeated {
            Some(_) => ZoneChange::Whole,
            None if old.unavailable().is_some() => ZoneChange::Whole,
            None => ZoneChange::Names(Former { serial: old.soa.serial, soa: before.soa_rdata(old), names }),
        };
        not_raised.extend(repeated);
        changes.insert(old.origin.clone(), change);
    }
    let is_new = |zone: &&Zone| before.zone_named(zone.origin.wire()).is_none();
    changes.extend(now.zones().filter(is_new).map(|zone| (zone.origin.clone(), ZoneChange::Whole)));
    (changes, not_raised)
}

/// Returns the fault of a changed zone whose serial did not rise. Generated serials always do.
fn not_raised_of(old: &Zone, new: &Zone) -> Option<NotRaised> {
    if old.unavailable().is_some() {
        return None;
    }
    let (former, serial) = (old.soa.serial?, new.soa.serial?);
    let is_file = old.source == Source::Files && new.source == Source::Files;
    (!is_later(serial, former)).then(|| NotRaised { zone: new.origin.clone(), former, serial: Some(serial), is_file })
}

/// Returns the origins of zones that were added or removed by the zone above them, relative to it, if it has generated names: its names
/// there are hidden, or are no more.
fn moved_origins(before: &Tables, now: &Tables) -> BTreeMap<Name, Vec<Box<[u8]>>> {
    let of = |tables: &Tables, others: &Tables| -> Vec<Name> {
        let is_other = |zone: &&Zone| others.zone_named(zone.origin.wire()).is_none();
        tables.zones().filter(is_other).map(|zone| zone.origin.clone()).collect()
    };
    let mut moved: BTreeMap<Name, Vec<Box<[u8]>>> = BTreeMap::new();
    for origin in of(before, now).into_iter().chain(of(now, before)) {
        let mut above = origin.wire();
        while let Some((len, rest)) = above.split_first().filter(|(len, _)| **len > 0) {
            above = &rest[usize::from(*len)..];
            if let Some(zone) = now.zone_named(above) {
                let relative = &origin.wire()[..origin.wire().len() - above.len()];
                if zone.kind.has_live_names() {
                    moved.entry(zone.origin.clone()).or_default().push(relative.into());
                }
                break;
            }
        }
    }
    moved
}

/// Returns the owner names whose RRsets differ, and those at or below the names in `below`; `None` if there are more than `most`.
fn changed_owners(
    old: &Arc<StaticNames>,
    new: &Arc<StaticNames>,
    below: &[Box<[u8]>],
    most: usize,
) -> Option<BTreeSet<Box<[u8]>>> {
    let mut owners = BTreeSet::new();
    let is_below = |owner: &[u8]| below.iter().any(|name| owner.ends_with(name));
    let is_same_value = Arc::ptr_eq(old, new);
    if is_same_value && below.is_empty() {
        return Some(owners);
    }
    for (names, others) in [(old, new), (new, old)] {
        for (owner, sets) in names.iter() {
            let is_changed = !is_same_value && !others.at(owner).is_some_and(|others| is_same(sets, others));
            if is_changed || is_below(owner) {
                owners.insert(owner.into());
                if owners.len() > most {
                    return None;
                }
            }
        }
    }
    Some(owners)
}

/// Reports whether RRsets of a name have the same records. Their lines in the file do not matter.
fn is_same(sets: &[RRset], others: &[RRset]) -> bool {
    let is_same_set = |set: &RRset| {
        let is_of_type = |other: &&RRset| other.rtype == set.rtype && other.covers() == set.covers();
        others.iter().find(is_of_type).is_some_and(|other| other.ttl == set.ttl && other.records == set.records)
    };
    sets.len() == others.len() && sets.iter().all(is_same_set)
}
