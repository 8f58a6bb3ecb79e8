//! Content of a copied zone: from records, with changes, and as a file.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::stream::{Change, MAX_OCTETS, MAX_RECORDS, serial};
use crate::{
    dns::{
        dnssec::canonical::fold_rdata,
        message::{
            codes::rtype,
            query::{HEADER, LookupName},
            reader::Reader,
        },
    },
    model::{
        name::{MAX_NAME, Name},
        zone::{CopyState, Source, SourceFiles, StaticRecord, ZoneFile},
    },
};

/// Largest number of octets of an RRset: the space in a message of 65,535 octets besides its header, the longest question and
/// an OPT record.
const MAX_RRSET: usize = 65_535 - HEADER - (MAX_NAME + 4) - 11;
/// Octets of a record in a message besides its RDATA, with a compressed owner.
const RECORD_FIELDS: usize = 12;
/// First octets of a file. Another version of the format has other ones.
const MAGIC: &[u8] = b"muster zone copy 1\n";

/// Reasons why the content of a zone is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ContentError {
    /// No SOA, or several.
    #[error("the zone has not exactly one SOA")]
    Soa,
    /// No NS record at the apex.
    #[error("the zone has no name server")]
    NoNameServer,
    /// An RRset that fits no message.
    #[error("the records of type {0} of `{1}` do not fit into a message")]
    LargeRrset(u16, Name),
    /// More than a transfer may have: changes could add to a copy without end.
    #[error("the zone has more than {MAX_RECORDS} records or {MAX_OCTETS} octets")]
    TooLarge,
    /// A change removes a record that the zone does not have.
    #[error("the changes remove a record of type {0} of `{1}`, which the copy does not have")]
    Mismatch(u16, Name),
    /// A reply without a version, though an SOA query had shown a later one; holds the serial of the reply and the copy.
    #[error("the reply has serial {0}, as the copy has, though the SOA had a later one")]
    NotLater(u32),
    /// A file is damaged.
    #[error("the file is damaged")]
    Damaged,
}

/// Returns a zone with these records, or the reason why it cannot be served.
///
/// # Errors
/// The zone lacks an SOA or name servers, or the zone or an RRset is too large.
pub fn whole(origin: &Name, mut records: Vec<StaticRecord>) -> Result<ZoneFile, ContentError> {
    let key = |record: &StaticRecord| (record.rtype, folded(record.rtype, &record.rdata));
    records.sort_by(|a, b| {
        let by_set = a.owner.cmp(&b.owner).then(a.rtype.cmp(&b.rtype));
        by_set.then_with(|| if a.rdata == b.rdata { std::cmp::Ordering::Equal } else { key(a).cmp(&key(b)) })
    });
    records.dedup_by(|a, b| {
        a.owner == b.owner && a.rtype == b.rtype && (a.rdata == b.rdata || key(a) == key(b)) && {
            b.ttl = b.ttl.min(a.ttl);
            true
        }
    });
    check_size(records.len(), records.iter().map(|record| record.owner.wire().len() + record.rdata.len()).sum())?;
    for set in records.chunk_by_mut(|a, b| a.owner == b.owner && a.rtype == b.rtype) {
        let octets: usize = set.iter().map(|record| RECORD_FIELDS + record.rdata.len()).sum();
        if octets > MAX_RRSET {
            return Err(ContentError::LargeRrset(set[0].rtype, set[0].owner.clone()));
        }
        // Signatures of several RRsets have the owner in common, not the TTL (RFC 4034 §3).
        if set[0].rtype != rtype::RRSIG {
            let least = set.iter().map(|record| record.ttl).min().unwrap_or_default();
            set.iter_mut().for_each(|record| record.ttl = least);
        }
    }
    let apex = |wanted: u16| records.iter().filter(|record| record.rtype == wanted && record.owner == *origin).count();
    if apex(rtype::SOA) != 1 {
        return Err(ContentError::Soa);
    }
    if apex(rtype::NS) == 0 {
        return Err(ContentError::NoNameServer);
    }
    Ok(ZoneFile { records, ..without_copy(origin, CopyState::Current) })
}

/// Checks the number of records of a zone, and of the octets of their owner names and RDATA.
fn check_size(records: usize, octets: usize) -> Result<(), ContentError> {
    if records > MAX_RECORDS || octets > MAX_OCTETS { Err(ContentError::TooLarge) } else { Ok(()) }
}

/// Returns a zone that is not answered, in this state.
pub fn without_copy(origin: &Name, state: CopyState) -> ZoneFile {
    let (files, warnings) = (SourceFiles::default(), Vec::new());
    ZoneFile { origin: origin.clone(), records: Vec::new(), files, warnings, source: Source::Primary(state) }
}

/// Identity of a record: the TTL is none of it, since it is that of the RRset.
type Key = (Name, u16, Box<[u8]>);

/// Returns a zone with changes.
///
/// # Errors
/// They are not those of this version, or the result cannot be served.
pub fn changed(zone: &ZoneFile, changes: Vec<Change>) -> Result<ZoneFile, ContentError> {
    let (mut removed, mut added) = (BTreeSet::<Key>::new(), BTreeMap::<Key, StaticRecord>::new());
    // Records that a change adds and a later one removes. The zone may have had them before: then the first one changed nothing.
    let mut passing = BTreeSet::<Key>::new();
    let mut soa = None;
    for Change { removed: gone, added: new } in changes {
        for record in gone.into_iter().filter(|record| record.rtype != rtype::SOA) {
            let key = key(&record);
            if added.remove(&key).is_some() {
                passing.insert(key);
            } else if !removed.insert(key) {
                return Err(ContentError::Mismatch(record.rtype, record.owner));
            }
        }
        for record in new {
            match record.rtype {
                rtype::SOA => soa = Some(record),
                _ => drop(added.insert(key(&record), record)),
            }
        }
    }
    let mut records = Vec::with_capacity(zone.records.len() + added.len());
    records.push(soa.ok_or(ContentError::Soa)?);
    for record in zone.records.iter().filter(|record| record.rtype != rtype::SOA) {
        // Most changes are small, so most records are kept without a look at their RDATA.
        let is_removed = !(removed.is_empty() && passing.is_empty()) && {
            let key = key(record);
            removed.remove(&key) || passing.contains(&key)
        };
        if !is_removed {
            records.push(record.clone());
        }
    }
    if let Some((owner, rtype, _)) = removed.pop_first() {
        return Err(ContentError::Mismatch(rtype, owner));
    }
    records.extend(added.into_values());
    whole(&zone.origin, records)
}

fn key(record: &StaticRecord) -> Key {
    (record.owner.clone(), record.rtype, folded(record.rtype, &record.rdata).into())
}

/// Returns RDATA in the form by which records compare (RFC 4034 §6.3).
fn folded(rtype: u16, rdata: &[u8]) -> Vec<u8> {
    let mut folded = rdata.to_vec();
    fold_rdata(rtype, &mut folded);
    folded
}

/// Returns the serial of a zone; `None` without a copy.
pub fn serial_of(zone: &ZoneFile) -> Option<u32> {
    soa_of(zone).and_then(|record| serial(&record.rdata))
}

/// Returns the SOA of a zone; `None` without a copy.
pub fn soa_of(zone: &ZoneFile) -> Option<&StaticRecord> {
    zone.records.iter().find(|record| record.rtype == rtype::SOA)
}

/// Returns a zone as the content of a file.
pub fn encode(zone: &ZoneFile) -> Vec<u8> {
    let mut octets = MAGIC.to_vec();
    octets.extend_from_slice(&(zone.records.len() as u32).to_be_bytes());
    for record in &zone.records {
        octets.extend_from_slice(record.owner.wire());
        octets.extend_from_slice(&record.rtype.to_be_bytes());
        octets.extend_from_slice(&record.ttl.to_be_bytes());
        octets.extend_from_slice(&(record.rdata.len() as u32).to_be_bytes());
        octets.extend_from_slice(&record.rdata);
    }
    octets
}

/// Returns the zone in the content of a file.
///
/// # Errors
/// The file is damaged, or has another zone.
pub fn decode(origin: &Name, octets: &[u8]) -> Result<ZoneFile, ContentError> {
    let mut reader = Reader::new(octets.strip_prefix(MAGIC).ok_or(ContentError::Damaged)?);
    let records = records(origin, &mut reader).filter(|_| reader.rest.is_empty()).ok_or(ContentError::Damaged)?;
    whole(origin, records)
}

/// Reads the records of a file; `None` if they are damaged.
fn records(origin: &Name, reader: &mut Reader<'_>) -> Option<Vec<StaticRecord>> {
    let mut records = Vec::new();
    for _ in 0..reader.u32()? {
        let owner = LookupName::from_wire(reader.take_plain_name()?)?;
        let owner = Name::from_labels(owner.labels()).ok().filter(|owner| owner.within(origin).is_some())?;
        let (rtype, ttl, len) = (reader.u16()?, reader.u32()?, reader.u32()?);
        let rdata = reader.take(len as usize)?.to_vec();
        records.push(StaticRecord { owner, rtype, ttl, rdata, line: 0, column: 0 });
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(owner: &str, rtype: u16, ttl: u32, rdata: &[u8]) -> StaticRecord {
        StaticRecord { owner: Name::parse(owner).unwrap(), rtype, ttl, rdata: rdata.to_vec(), line: 0, column: 0 }
    }

    fn soa(serial: u32) -> StaticRecord {
        let mut rdata = b"\x02ns\x01z\0\x04host\x01z\0".to_vec();
        rdata.extend([serial, 60, 10, 600, 5].iter().flat_map(|number| number.to_be_bytes()));
        record("z", rtype::SOA, 60, &rdata)
    }

    fn zone(serial: u32, hosts: &[u8]) -> ZoneFile {
        let mut records = vec![soa(serial), record("z", rtype::NS, 60, b"\x02ns\x01z\0")];
        records.extend(hosts.iter().map(|host| record("h.z", rtype::A, 60, &[192, 0, 2, *host])));
        whole(&Name::parse("z").unwrap(), records).unwrap()
    }

    fn change(from: u32, to: u32, removed: &[u8], added: &[u8]) -> Change {
        let list = |version, hosts: &[u8]| {
            let hosts = hosts.iter().map(|host| record("h.z", rtype::A, 60, &[192, 0, 2, *host]));
            std::iter::once(soa(version)).chain(hosts).collect()
        };
        Change { removed: list(from, removed), added: list(to, added) }
    }

    #[test]
    fn changes_lead_to_the_newer_version() {
        let mismatch = || Err(ContentError::Mismatch(1, Name::parse("h.z").unwrap()));
        let cases = [
            ("one", vec![change(1, 2, &[1], &[3])], Ok(zone(2, &[2, 3]))),
            ("two", vec![change(1, 2, &[1], &[3]), change(2, 3, &[3], &[4])], Ok(zone(3, &[2, 4]))),
            ("removed and added again", vec![change(1, 2, &[1], &[]), change(2, 3, &[], &[1])], Ok(zone(3, &[1, 2]))),
            ("a record that is there already", vec![change(1, 2, &[], &[1])], Ok(zone(2, &[1, 2]))),
            (
                "added though it is there, then removed",
                vec![change(1, 2, &[], &[1]), change(2, 3, &[1], &[])],
                Ok(zone(3, &[2])),
            ),
            (
                "added though it is there, removed and added",
                vec![change(1, 2, &[], &[1]), change(2, 3, &[1], &[]), change(3, 4, &[], &[1])],
                Ok(zone(4, &[1, 2])),
            ),
            ("a record that is not there", vec![change(1, 2, &[9], &[])], mismatch()),
            ("removed twice", vec![change(1, 2, &[1], &[]), change(2, 3, &[1], &[])], mismatch()),
            ("no change", vec![], Err(ContentError::Soa)),
        ];
        for (case, changes, expected) in cases {
            assert_eq!(changed(&zone(1, &[1, 2]), changes), expected, "{case}");
        }
    }

    #[test]
    fn letter_case_and_ttl_are_no_part_of_the_identity() {
        let origin = Name::parse("z").unwrap();
        let name_server = |ttl, rdata: &[u8]| record("z", rtype::NS, ttl, rdata);
        let file =
            whole(&origin, vec![soa(1), name_server(9, b"\x02NS\x01z\0"), name_server(5, b"\x02ns\x01Z\0")]).unwrap();
        let found: Vec<_> = file.records.iter().map(|record| (record.rtype, record.ttl)).collect();
        assert_eq!(found, [(rtype::NS, 5), (rtype::SOA, 60)]);
        let change = Change {
            removed: vec![soa(1), name_server(77, b"\x02ns\x01z\0")],
            added: vec![soa(2), name_server(7, b"\x02nS\x01z\0")],
        };
        assert_eq!(serial_of(&changed(&file, vec![change]).unwrap()), Some(2));
    }

    #[test]
    fn zones_that_cannot_be_served_are_refused() {
        let origin = Name::parse("z").unwrap();
        let ns = || record("z", rtype::NS, 60, b"\x02ns\x01z\0");
        let texts = |count: u16| -> Vec<StaticRecord> {
            (0..count)
                .map(|number| record("t.z", 16, 60, &[&[255][..], &[7; 253], &number.to_be_bytes()].concat()))
                .collect()
        };
        let cases = [
            ("no SOA", vec![ns()], Err(ContentError::Soa)),
            ("two SOAs", vec![soa(1), soa(2), ns()], Err(ContentError::Soa)),
            ("no name server", vec![soa(1)], Err(ContentError::NoNameServer)),
            (
                "a large RRset",
                [vec![soa(1), ns()], texts(300)].concat(),
                Err(ContentError::LargeRrset(16, Name::parse("t.z").unwrap())),
            ),
            ("an RRset that fits", [vec![soa(1), ns()], texts(200)].concat(), Ok(202)),
        ];
        for (case, records, expected) in cases {
            assert_eq!(whole(&origin, records).map(|zone| zone.records.len()), expected, "{case}");
        }
    }

    #[test]
    fn size_of_a_zone_has_the_bounds_of_a_transfer() {
        let cases = [
            (MAX_RECORDS, MAX_OCTETS, Ok(())),
            (MAX_RECORDS + 1, 0, Err(ContentError::TooLarge)),
            (1, MAX_OCTETS + 1, Err(ContentError::TooLarge)),
        ];
        for (records, octets, expected) in cases {
            assert_eq!(check_size(records, octets), expected, "{records} {octets}");
        }
        // 2,100 versions, each of which a transfer could send, add a record of 64,000 octets.
        let large = |from: u32| {
            let owner = format!("n{from}.z");
            let added = vec![soa(from + 1), record(&owner, 65_400, 60, &vec![7; 64_000])];
            Change { removed: vec![soa(from)], added }
        };
        let changes = (1..=2_100).map(large).collect();
        assert_eq!(changed(&zone(1, &[1]), changes), Err(ContentError::TooLarge));
    }

    #[test]
    fn files_round_trip_and_damaged_ones_are_refused() {
        let (origin, file) = (Name::parse("z").unwrap(), zone(7, &[1, 2, 3]));
        let octets = encode(&file);
        assert_eq!(decode(&origin, &octets), Ok(file));
        for len in 0..octets.len() {
            assert!(decode(&origin, &octets[..len]).is_err(), "cut at {len}");
        }
        assert_eq!(decode(&origin, &[&octets[..], b"x"].concat()), Err(ContentError::Damaged));
        assert_eq!(decode(&Name::parse("other").unwrap(), &octets), Err(ContentError::Damaged));
    }
}
