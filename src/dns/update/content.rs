//! Content of a dynamic zone at one revision of the store.

use std::sync::Arc;

use imbl::OrdMap;

use super::policy::Grant;
use crate::{
    dns::message::codes::rtype,
    model::{
        name::Name,
        zone::{Source, SourceFiles, StaticRecord, ZoneFile},
    },
};

/// Serial of a zone that was never updated.
const FIRST_SERIAL: u32 = 1;
/// TTL in seconds of the first SOA and NS records.
const FIRST_TTL: u32 = 60;
/// Refresh, retry, expire and minimum in seconds of the first SOA: as of generated zones, and negative answers for a few seconds,
/// since names of clients and challenges of certificate authorities come and go. An update can change them.
const FIRST_TIMERS: [u32; 4] = [60, 10, 604_800, 5];

/// Definition of a dynamic zone, the same on all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Name of the zone.
    pub origin: Name,
    /// Name servers of the zone until an update changes them; at least one.
    pub name_servers: Vec<Name>,
    /// Permissions, one for each key.
    pub grants: Vec<Grant>,
}

/// Records of one owner and type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSet {
    /// Type.
    pub rtype: u16,
    /// TTL in seconds.
    pub ttl: u32,
    /// RDATA of each record with uncompressed names; at least one.
    pub records: Vec<Box<[u8]>>,
}

/// The RRsets of one name, in the order of their types.
pub type Sets = Arc<Vec<RecordSet>>;

/// Content of a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Name of the zone.
    pub origin: Name,
    /// Revision of the store at which the SOA was written; 0: never. Each update writes it.
    pub revision: u64,
    /// RRsets by owner: labels in wire form and lower case, relative to the origin. The apex always has an SOA and a name server.
    names: OrdMap<Box<[u8]>, Sets>,
    records: usize,
}

impl Content {
    /// Reports whether an update, or a zone file as the first content, has written the zone.
    pub fn was_updated(&self) -> bool {
        self.revision != 0
    }

    /// Returns the content of a zone that was never updated.
    pub fn first(definition: &Definition) -> Self {
        let Definition { origin, name_servers, .. } = definition;
        let mut content = Self { origin: origin.clone(), revision: 0, names: OrdMap::new(), records: 0 };
        let mname = name_servers.first().unwrap_or(origin);
        let mut soa = mname.wire().to_vec();
        // The mailbox of the administrator (RFC 2142 §7). The longest names have no room for it.
        soa.extend_from_slice(origin.prepend([&b"hostmaster"[..]]).as_ref().unwrap_or(origin).wire());
        let fields = [FIRST_SERIAL].into_iter().chain(FIRST_TIMERS);
        soa.extend(fields.flat_map(u32::to_be_bytes));
        let servers = name_servers.iter().map(|server| server.wire().into()).collect();
        let apex = vec![
            RecordSet { rtype: rtype::NS, ttl: FIRST_TTL, records: servers },
            RecordSet { rtype: rtype::SOA, ttl: FIRST_TTL, records: vec![soa.into()] },
        ];
        content.set(Box::default(), Arc::new(apex));
        content
    }

    /// Replaces the RRsets of a name.
    pub fn set(&mut self, owner: Box<[u8]>, sets: Sets) {
        let count = |sets: &Sets| sets.iter().map(|set| set.records.len()).sum::<usize>();
        let added = count(&sets);
        let former = if sets.is_empty() { self.names.remove(&owner) } else { self.names.insert(owner, sets) };
        self.records = self.records + added - former.as_ref().map_or(0, count);
    }

    /// Returns the RRsets of a name; empty if it has none.
    pub fn sets(&self, owner: &[u8]) -> &[RecordSet] {
        self.names.get(owner).map_or(&[], |sets| sets)
    }

    /// Returns the names with their RRsets.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Sets)> {
        self.names.iter().map(|(owner, sets)| (&**owner, sets))
    }

    /// Returns the number of records.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Returns the serial of the zone.
    pub fn serial(&self) -> u32 {
        find(self.sets(&[]), rtype::SOA).and_then(|soa| serial_of(soa.records.first()?)).unwrap_or(FIRST_SERIAL)
    }

    /// Returns the zone as a zone file would define it.
    pub fn to_zone(&self) -> ZoneFile {
        let mut records = Vec::with_capacity(self.records);
        for (owner, sets) in &self.names {
            let Ok(name) = absolute(owner, &self.origin) else { continue };
            for RecordSet { rtype, ttl, records: all } in sets.iter() {
                records.extend(all.iter().map(|rdata| StaticRecord {
                    owner: name.clone(),
                    rtype: *rtype,
                    ttl: *ttl,
                    rdata: rdata.to_vec(),
                    line: 0,
                    column: 0,
                }));
            }
        }
        let (files, warnings) = (SourceFiles::default(), Vec::new());
        ZoneFile { origin: self.origin.clone(), records, files, warnings, source: Source::Updates }
    }
}

/// Returns the RRset of a type.
pub fn find(sets: &[RecordSet], rtype: u16) -> Option<&RecordSet> {
    sets.iter().find(|set| set.rtype == rtype)
}

/// Returns a name from its labels in wire form relative to an origin.
///
/// # Errors
/// Fails if the name is too long.
pub fn absolute(owner: &[u8], origin: &Name) -> Result<Name, crate::model::name::NameError> {
    let mut rest = owner;
    let labels = std::iter::from_fn(|| {
        let (len, tail) = rest.split_first()?;
        let (label, tail) = tail.split_at_checked(usize::from(*len))?;
        rest = tail;
        Some(label)
    });
    Name::from_labels(labels.chain(origin.labels()))
}

/// Octets of the numbers at the end of the RDATA of an SOA record: serial, refresh, retry, expire, minimum.
const SOA_NUMBERS: usize = 20;

/// Returns the serial in the RDATA of an SOA record; `None` if it is malformed.
pub fn serial_of(soa: &[u8]) -> Option<u32> {
    let numbers = soa.get(soa.len().checked_sub(SOA_NUMBERS)?..)?;
    Some(u32::from_be_bytes([numbers[0], numbers[1], numbers[2], numbers[3]]))
}

/// Returns the RDATA of an SOA record with another serial.
pub fn with_serial(soa: &[u8], serial: u32) -> Box<[u8]> {
    let mut soa: Box<[u8]> = soa.into();
    if let Some(at) = soa.len().checked_sub(SOA_NUMBERS) {
        soa[at..at + 4].copy_from_slice(&serial.to_be_bytes());
    }
    soa
}
