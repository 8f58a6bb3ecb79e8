//! A zone's static names, and how one of them is found (RFC 1034 §4.3.2, RFC 4592).
//!
//! Owner names are kept relative to the zone, so a domain and its aliases share them. Names that only exist because
//! something stands below them (empty non-terminals) are kept too: they are answered with no data, never with NXDOMAIN
//! (RFC 8020).

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;

use super::rrset::{RRset, Rdata, Tail};
use crate::{
    dns::message::{codes::rtype, query::LookupName},
    files::zone_file::{StaticRecord, ZoneFile},
    model::name::{MAX_NAME, Name},
};

/// A zone: its origin and what stands at and below it.
#[derive(Clone, Debug)]
pub struct Zone {
    /// The apex.
    pub origin: Name,
    /// How many labels the origin has.
    pub labels: usize,
    /// The discovery zone that a static zone lies in: its services win over this zone's names.
    pub inside: Option<Name>,
    /// Who answers below the apex beside the static names.
    pub kind: Kind,
    /// What the zone's file says; shared between a domain and its aliases.
    pub names: Arc<StaticNames>,
    /// The start of authority.
    pub soa: Arc<Soa>,
}

impl Zone {
    /// A zone of this name, inside no other.
    pub fn new(origin: &Name, kind: Kind, names: Arc<StaticNames>, soa: Arc<Soa>) -> Self {
        Self { origin: origin.clone(), labels: origin.labels().count(), inside: None, kind, names, soa }
    }
}

/// What kind of zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The discovery zone or an alias of it: services and nodes, then static names.
    Discovery,
    /// Static names alone.
    Static,
}

/// The start of authority (RFC 1035 §3.3.13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Soa {
    /// The primary's name, and its mailbox.
    pub mname: Rdata,
    /// The mailbox of who is responsible.
    pub rname: Rdata,
    /// `None`: the tables' own serial, which grows with every change.
    pub serial: Option<u32>,
    /// Refresh, retry, expire: seconds, for secondaries.
    pub timers: [u32; 3],
    /// How long "no such name" may be cached (RFC 2308 §4), in seconds.
    pub minimum: u32,
    /// Of the SOA record itself, in seconds.
    pub ttl: u32,
}

impl Soa {
    /// The TTL of the record in a negative answer (RFC 2308 §3).
    pub fn negative_ttl(&self) -> u32 {
        self.minimum.min(self.ttl)
    }

    /// Reads the SOA of a zone file.
    pub fn of_zone(record: &StaticRecord, origin: &Name) -> Option<Self> {
        let rdata = &record.rdata;
        let mname = name_len(rdata)?;
        let rname = mname + name_len(rdata.get(mname..)?)?;
        let mut fields =
            rdata.get(rname..rname + 20)?.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        let mut field = || fields.next();
        Some(Self {
            // Both are names alone, as NS RDATA is.
            mname: Rdata::of_zone(rtype::NS, &rdata[..mname], origin),
            rname: Rdata::of_zone(rtype::NS, &rdata[mname..rname], origin),
            serial: field(),
            timers: [field()?, field()?, field()?],
            minimum: field()?,
            ttl: record.ttl,
        })
    }
}

/// The length of the uncompressed name that `octets` begin with.
fn name_len(octets: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match usize::from(*octets.get(at)?) {
            0 => return Some(at + 1),
            len => at += 1 + len,
        }
    }
}

/// The static names of a zone, by owner relative to the origin: labels in wire form, without the root.
#[derive(Debug, Default)]
pub struct StaticNames {
    owners: HashMap<Box<[u8]>, Vec<RRset>, RandomState>,
}

/// What the zone's static names say of a name.
#[derive(Debug)]
pub enum Found<'z> {
    /// The name exists, or a wildcard stands for it; perhaps with no records.
    Name(&'z [RRset]),
    /// The name is at or below a delegation.
    Cut {
        /// The delegation's owner, relative to the origin.
        owner: &'z [u8],
        /// All records there.
        rrsets: &'z [RRset],
    },
    /// Nothing has that name.
    Nothing,
}

impl StaticNames {
    /// The names of a zone file, its SOA aside.
    pub fn new(file: &ZoneFile) -> Self {
        let mut names = Self::default();
        for record in file.records.iter().filter(|r| r.rtype != rtype::SOA) {
            // The parser refuses owners outside the zone.
            let Some(owner) = record.owner.within(&file.origin) else { continue };
            names.insert(owner, record, &file.origin);
        }
        names
    }

    fn insert(&mut self, owner: &[u8], record: &StaticRecord, origin: &Name) {
        let mut above = owner;
        while let Some((len, rest)) = above.split_first() {
            above = &rest[usize::from(*len)..];
            self.owners.entry(above.into()).or_default();
        }
        let rrsets = self.owners.entry(owner.into()).or_default();
        let rdata = Rdata::of_zone(record.rtype, &record.rdata, origin);
        match rrsets.iter_mut().find(|set| set.rtype == record.rtype) {
            // Unequal TTLs become the least of them (RFC 2181 §5.2), equal records one (§5).
            Some(set) => {
                set.ttl = set.ttl.min(record.ttl);
                if !set.records.contains(&rdata) {
                    set.records.push(rdata);
                }
            }
            None => rrsets.push(RRset { rtype: record.rtype, ttl: record.ttl, records: vec![rdata] }),
        }
    }

    /// The records at the zone's apex.
    pub fn apex(&self) -> &[RRset] {
        self.at(&[]).unwrap_or_default()
    }

    /// The records at exactly this owner, relative to the origin; `None` where the name does not exist.
    pub fn at(&self, owner: &[u8]) -> Option<&[RRset]> {
        self.owners.get(owner).map(Vec::as_slice)
    }

    /// Looks up a name of which the last `zone_labels` labels are the origin.
    ///
    /// `existing` is how many labels below the origin are known to exist beside the static names: a wildcard further
    /// up does not reach below them (RFC 4592 §3.3.1).
    pub fn find(&self, name: &LookupName, zone_labels: usize, existing: usize, qtype: u16) -> Found<'_> {
        if self.owners.is_empty() {
            return Found::Nothing;
        }
        let below = name.count() - zone_labels;
        let end = name.offset(below);
        let owner = |depth: usize| &name.wire()[name.offset(below - depth)..end];
        let mut encloser = 0;
        for depth in 1..=below {
            let Some((key, rrsets)) = self.owners.get_key_value(owner(depth)) else { break };
            encloser = depth;
            // At a delegation the parent still answers for DS (RFC 4035 §3.1.4.1).
            let is_cut = rrsets.iter().any(|set| set.rtype == rtype::NS);
            if is_cut && !(depth == below && qtype == rtype::DS) {
                return Found::Cut { owner: key, rrsets };
            }
        }
        if encloser == below {
            return Found::Name(self.at(owner(below)).unwrap_or_default());
        }
        if existing > encloser {
            return Found::Nothing;
        }
        let mut wildcard = [0; MAX_NAME + 2];
        let above = owner(encloser);
        wildcard[..2].copy_from_slice(b"\x01*");
        wildcard[2..2 + above.len()].copy_from_slice(above);
        match self.at(&wildcard[..2 + above.len()]) {
            Some(rrsets) => Found::Name(rrsets),
            None => Found::Nothing,
        }
    }
}

/// The mailbox of a generated SOA: `hostmaster` of the zone (RFC 2142 §7).
pub fn hostmaster() -> Rdata {
    Rdata { octets: (*b"\x0ahostmaster").into(), tail: Tail::Origin }
}
