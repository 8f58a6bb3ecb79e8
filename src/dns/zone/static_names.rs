//! Static names of a zone and their lookup (RFC 1034 §4.3.2, RFC 4592).
//!
//! Owner names are stored relative to the zone, so that a domain and its aliases share them. Empty non-terminals are stored
//! too: their answer is NODATA, never NXDOMAIN (RFC 8020).

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::rrset::{RRset, Rdata, Tail};
use crate::{
    dns::message::{codes::rtype, query::LookupName},
    model::{
        name::{MAX_NAME, Name},
        zone::{SourceFiles, StaticRecord, ZoneFile},
    },
};

/// A zone: its origin, its SOA and its static names.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Name of the apex.
    pub origin: Name,
    /// Number of labels of the origin.
    pub labels: usize,
    /// Discovery zone that contains this static zone; its services take precedence over names of this zone.
    pub inside: Option<Name>,
    /// Kind of the zone.
    pub kind: Kind,
    /// Names of the zone file; shared between a domain and its aliases.
    pub names: Arc<StaticNames>,
    /// SOA record.
    pub soa: Arc<Soa>,
}

impl Zone {
    /// Returns a zone of this name that no discovery zone contains.
    pub fn new(origin: &Name, kind: Kind, names: Arc<StaticNames>, soa: Arc<Soa>) -> Self {
        Self { origin: origin.clone(), labels: origin.labels().count(), inside: None, kind, names, soa }
    }

    /// Returns the name at offset `at` of this zone's RDATA.
    pub fn target(&self, rdata: &Rdata, at: usize) -> Option<LookupName> {
        let octets = rdata.octets.get(at..)?;
        match rdata.tail {
            Tail::Nothing => LookupName::from_wire(octets),
            Tail::Origin => {
                let mut wire = SmallVec::<[u8; MAX_NAME]>::from_slice(octets);
                wire.extend_from_slice(self.origin.wire());
                LookupName::from_wire(&wire)
            }
        }
    }
}

/// Kind of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Discovery zone, or alias domain with its names: services and nodes, then static names.
    Discovery,
    /// Alias domain with the names of Consul: services and nodes, then static names.
    Consul,
    /// Static names only.
    Static,
}

impl Kind {
    /// Reports whether the zone has names of services and nodes.
    pub fn has_live_names(self) -> bool {
        self != Self::Static
    }
}

/// SOA record (RFC 1035 §3.3.13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Soa {
    /// Name of the primary server.
    pub mname: Rdata,
    /// Mailbox of the administrator.
    pub rname: Rdata,
    /// Serial of the zone file; `None` for the generated serial.
    pub serial: Option<u32>,
    /// Refresh, retry and expire in seconds.
    pub timers: [u32; 3],
    /// Minimum in seconds, which bounds negative caching (RFC 2308 §4).
    pub minimum: u32,
    /// TTL of the SOA record in seconds.
    pub ttl: u32,
}

impl Soa {
    /// Returns the TTL of the SOA in a negative answer (RFC 2308 §3).
    pub fn negative_ttl(&self) -> u32 {
        self.minimum.min(self.ttl)
    }

    /// Parses the SOA of a zone file; `None` if the RDATA is malformed.
    pub fn of_zone(record: &StaticRecord, origin: &Name) -> Option<Self> {
        let rdata = &record.rdata;
        let mname = name_len(rdata)?;
        let rname = mname + name_len(rdata.get(mname..)?)?;
        let mut fields =
            rdata.get(rname..rname + 20)?.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        let mut field = || fields.next();
        Some(Self {
            // Each is a single name, as in NS RDATA.
            mname: Rdata::of_zone(rtype::NS, &rdata[..mname], origin),
            rname: Rdata::of_zone(rtype::NS, &rdata[mname..rname], origin),
            serial: field(),
            timers: [field()?, field()?, field()?],
            minimum: field()?,
            ttl: record.ttl,
        })
    }
}

/// Returns the length of the uncompressed name at the start of `octets`.
fn name_len(octets: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match usize::from(*octets.get(at)?) {
            0 => return Some(at + 1),
            len => at += 1 + len,
        }
    }
}

/// Static names of a zone. Owner names are relative to the origin: labels in wire form without the root.
#[derive(Debug, Default)]
pub struct StaticNames {
    /// Files of the zone.
    files: SourceFiles,
    owners: HashMap<Box<[u8]>, Vec<RRset>, RandomState>,
    /// True if a DNAME of the apex redirects all other names.
    redirects_all: bool,
}

/// Result of a lookup in the static names.
#[derive(Debug)]
pub enum Found<'z> {
    /// The name exists; without records if it is an empty non-terminal.
    Name(&'z [RRset]),
    /// A wildcard matches the name (RFC 4592 §3.3).
    Wildcard {
        /// Owner name of the wildcard, relative to the origin.
        owner: &'z [u8],
        /// RRsets of the owner name.
        rrsets: &'z [RRset],
    },
    /// The name is at or below a delegation.
    Cut {
        /// Delegated name, relative to the origin.
        owner: &'z [u8],
        /// RRsets of the owner name.
        rrsets: &'z [RRset],
    },
    /// The name is below the owner of a DNAME (RFC 6672 §2.2).
    Redirect {
        /// Owner of the DNAME, relative to the origin.
        owner: &'z [u8],
        /// The DNAME.
        dname: &'z RRset,
    },
    /// The name does not exist.
    Nothing,
}

impl StaticNames {
    /// Returns the names of a zone file, without its SOA.
    pub fn new(file: &ZoneFile) -> Self {
        let mut names = Self { files: file.files.clone(), ..Self::default() };
        for record in file.records.iter().filter(|r| r.rtype != rtype::SOA) {
            // The parser rejects owner names outside the zone.
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
        self.redirects_all |= owner.is_empty() && record.rtype == rtype::DNAME;
        let rdata = Rdata::of_zone(record.rtype, &record.rdata, origin);
        let line = u32::try_from(record.line).unwrap_or(u32::MAX);
        match rrsets.iter_mut().find(|set| set.rtype == record.rtype) {
            // Different TTLs become the lowest one (RFC 2181 §5.2); duplicates are removed (§5).
            Some(set) => {
                set.ttl = set.ttl.min(record.ttl);
                set.line = set.line.min(line);
                if !set.records.contains(&rdata) {
                    set.records.push(rdata);
                }
            }
            None => {
                // Most names have one RRset, and `push` alone would allocate room for four.
                rrsets.reserve_exact(1);
                rrsets.push(RRset { rtype: record.rtype, ttl: record.ttl, line, records: vec![rdata] });
            }
        }
    }

    /// Returns the name of the zone file; empty if there is none.
    pub fn file(&self) -> &str {
        self.files.main()
    }

    /// Returns the file and line of a record set; the file is empty if there is none.
    pub fn place(&self, line: u32) -> (&str, u32) {
        let (file, line) = self.files.place(line as usize);
        (file, u32::try_from(line).unwrap_or(u32::MAX))
    }

    /// Returns all owner names, relative to the origin, with their RRsets; unordered.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[RRset])> {
        self.owners.iter().map(|(owner, rrsets)| (&**owner, rrsets.as_slice()))
    }

    /// Returns the RRsets of the apex.
    pub fn apex(&self) -> &[RRset] {
        self.at(&[]).unwrap_or_default()
    }

    /// Returns the RRsets of an owner name, relative to the origin; `None` if the name does not exist.
    pub fn at(&self, owner: &[u8]) -> Option<&[RRset]> {
        self.owners.get(owner).map(Vec::as_slice)
    }

    /// Looks up a name whose last `zone_labels` labels are the origin.
    ///
    /// `existing` is the number of labels below the origin that exist apart from static names. They may contain the closest
    /// encloser, above which no wildcard matches (RFC 4592 §3.3.1).
    pub fn find(&self, name: &LookupName, zone_labels: usize, existing: usize, qtype: u16) -> Found<'_> {
        if self.owners.is_empty() {
            return Found::Nothing;
        }
        let below = name.count() - zone_labels;
        let end = name.offset(below);
        let owner = |depth: usize| &name.wire()[name.offset(below - depth)..end];
        if self.redirects_all
            && below > 0
            && let Some(dname) = self.apex().iter().find(|set| set.rtype == rtype::DNAME)
        {
            return Found::Redirect { owner: &[], dname };
        }
        let mut encloser = 0;
        for depth in 1..=below {
            let Some((key, rrsets)) = self.owners.get_key_value(owner(depth)) else { break };
            encloser = depth;
            // The parent zone answers for DS at a delegation (RFC 4035 §3.1.4.1).
            let is_cut = rrsets.iter().any(|set| set.rtype == rtype::NS);
            if is_cut && !(depth == below && qtype == rtype::DS) {
                return Found::Cut { owner: key, rrsets };
            }
            if depth < below
                && let Some(dname) = rrsets.iter().find(|set| set.rtype == rtype::DNAME)
            {
                return Found::Redirect { owner: key, dname };
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
        match self.owners.get_key_value(&wildcard[..2 + above.len()]) {
            Some((owner, rrsets)) => Found::Wildcard { owner, rrsets },
            None => Found::Nothing,
        }
    }
}

/// Returns the mailbox of a generated SOA: `hostmaster` of the zone (RFC 2142 §7).
pub fn hostmaster() -> Rdata {
    Rdata { octets: (*b"\x0ahostmaster").into(), tail: Tail::Origin }
}
