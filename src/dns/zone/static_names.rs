//! Static names of a zone and their lookup (RFC 1034 §4.3.2, RFC 4592).
//!
//! Owner names are stored relative to the zone, so that a domain and its aliases share them. Empty non-terminals are stored
//! too: their answer is NODATA, never NXDOMAIN (RFC 8020).

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::{
    presigned::Chain,
    rrset::{RRset, Rdata, Tail},
    signature_validity::Validity,
};
use crate::{
    dns::{
        dnssec::{canonical::fold_rdata, zone_keys::ZoneKeys},
        message::{codes::rtype, query::LookupName, reader::Reader},
    },
    model::{
        name::{MAX_NAME, Name},
        zone::{CopyState, Source, SourceFiles, StaticRecord, ZoneFile},
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
    /// Where the records come from that are not generated from services.
    pub source: Source,
    /// Keys of a zone that is signed online.
    pub keys: Option<Arc<ZoneKeys>>,
}

impl Zone {
    /// Returns a zone of this name that no discovery zone contains.
    pub fn new(origin: &Name, kind: Kind, names: Arc<StaticNames>, soa: Arc<Soa>) -> Self {
        let labels = origin.labels().count();
        Self { origin: origin.clone(), labels, inside: None, kind, names, soa, source: Source::Files, keys: None }
    }

    /// Returns a copied zone that is not answered.
    pub fn without_copy(origin: &Name, state: CopyState) -> Self {
        let root = || Rdata::fixed([0]);
        let soa = Soa { mname: root(), rname: root(), serial: Some(0), timers: [0; 3], minimum: 0, ttl: 0 };
        Self { source: Source::Primary(state), ..Self::new(origin, Kind::Static, Arc::default(), Arc::new(soa)) }
    }

    /// Returns why a copied zone is not answered; `None` for zones that are.
    pub fn unavailable(&self) -> Option<CopyState> {
        match self.source {
            Source::Files | Source::Updates | Source::Primary(CopyState::Current) => None,
            Source::Primary(state) => Some(state),
        }
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
        let mut reader = Reader::new(&record.rdata);
        let (mname, rname) = (reader.take_plain_name()?, reader.take_plain_name()?);
        let mut fields = reader.take(20)?.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        let mut field = || fields.next();
        Some(Self {
            // Each is a single name, as in NS RDATA.
            mname: Rdata::of_zone(rtype::NS, mname, origin),
            rname: Rdata::of_zone(rtype::NS, rname, origin),
            serial: field(),
            timers: [field()?, field()?, field()?],
            minimum: field()?,
            ttl: record.ttl,
        })
    }
}

/// Octets of an owner in the map, besides its name and its RRsets.
const OWNER_OCTETS: usize = 64;

/// Static names of a zone. Owner names are relative to the origin: labels in wire form without the root.
#[derive(Debug, Default)]
pub struct StaticNames {
    /// Files of the zone.
    files: SourceFiles,
    owners: HashMap<Box<[u8]>, Vec<RRset>, RandomState>,
    /// True if a DNAME of the apex redirects all other names.
    redirects_all: bool,
    /// Number of records, without the SOA.
    records: usize,
    /// Proofs of absence, if another tool has signed the zone.
    chain: Option<Chain>,
    /// Times of the signatures, if another tool has signed the zone.
    validity: Option<Validity>,
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
        let chain = Chain::of(names.apex(), &names.iter());
        names.validity = chain.as_ref().and_then(|_| Validity::of(names.iter()));
        names.chain = chain;
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
        // Signatures of each type have a TTL of their own (RFC 4034 §3).
        let is_of_set = |set: &&mut RRset| {
            set.rtype == record.rtype && (record.rtype != rtype::RRSIG || set.covers() == rdata.covers())
        };
        match rrsets.iter_mut().find(is_of_set) {
            // Different TTLs become the lowest one (RFC 2181 §5.2); duplicates are removed (§5).
            Some(set) => {
                set.ttl = set.ttl.min(record.ttl);
                set.line = set.line.min(line);
                if !set.records.iter().any(|known| is_equal(record.rtype, known, &rdata, origin)) {
                    set.records.push(rdata);
                    self.records += 1;
                }
            }
            None => {
                // Most names have one RRset, and `push` alone would allocate room for four.
                rrsets.reserve_exact(1);
                self.records += 1;
                rrsets.push(RRset { rtype: record.rtype, ttl: record.ttl, line, records: vec![rdata] });
            }
        }
    }

    /// Returns the number of records, the SOA included; 0 for a zone without records.
    pub fn record_count(&self) -> usize {
        if self.records == 0 { 0 } else { self.records + 1 }
    }

    /// Returns the times of the signatures of a zone that another tool has signed.
    pub fn validity(&self) -> Option<Validity> {
        self.validity
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
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[RRset])> + Clone {
        self.owners.iter().map(|(owner, rrsets)| (&**owner, rrsets.as_slice()))
    }

    /// Returns the octets of memory that the names take, some more or less.
    pub fn size(&self) -> usize {
        let of_set = |set: &RRset| {
            let octets: usize = set.records.iter().map(|rdata| size_of::<Rdata>() + rdata.octets.len()).sum();
            size_of::<RRset>() + octets
        };
        self.owners
            .iter()
            .map(|(owner, sets)| OWNER_OCTETS + owner.len() + sets.iter().map(of_set).sum::<usize>())
            .sum()
    }

    /// Returns the RRsets of the apex.
    pub fn apex(&self) -> &[RRset] {
        self.at(&[]).unwrap_or_default()
    }

    /// Returns the RRsets of an owner name, relative to the origin; `None` if the name does not exist.
    pub fn at(&self, owner: &[u8]) -> Option<&[RRset]> {
        self.owners.get(owner).map(Vec::as_slice)
    }

    /// Returns the proofs of absence, if another tool has signed the zone.
    pub fn chain(&self) -> Option<&Chain> {
        self.chain.as_ref()
    }

    /// Returns the signatures in the file of an RRset of this owner name and type.
    pub fn signatures(&self, owner: &[u8], of: u16) -> Option<&RRset> {
        self.at(owner)?.iter().find(|set| set.covers() == Some(of))
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

/// Reports whether records of a type are equal, without the letter case of names in them (RFC 4034 §6.2, §6.3).
fn is_equal(rtype: u16, a: &Rdata, b: &Rdata, origin: &Name) -> bool {
    if a == b {
        return true;
    }
    let end = |rdata: &Rdata| if rdata.tail == Tail::Origin { origin.wire() } else { &[] };
    if a.octets.len() + end(a).len() != b.octets.len() + end(b).len() {
        return false;
    }
    let folded = |rdata: &Rdata| {
        let mut octets = [&rdata.octets, end(rdata)].concat();
        fold_rdata(rtype, &mut octets);
        octets
    };
    folded(a) == folded(b)
}

/// Returns the mailbox of a generated SOA: `hostmaster` of the zone (RFC 2142 §7).
pub fn hostmaster() -> Rdata {
    Rdata { octets: (*b"\x0ahostmaster").into(), tail: Tail::Origin }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(records: &[(u16, u32, &[u8])]) -> StaticNames {
        let origin = Name::parse("example.org").unwrap();
        let record = |(rtype, ttl, rdata): &(u16, u32, &[u8])| StaticRecord {
            owner: origin.clone(),
            rtype: *rtype,
            ttl: *ttl,
            rdata: rdata.to_vec(),
            line: 1,
            column: 1,
        };
        let records = records.iter().map(record).collect();
        StaticNames::new(&ZoneFile {
            origin,
            records,
            warnings: Vec::new(),
            files: Default::default(),
            source: Source::Files,
        })
    }

    /// RFC 4034 §6.2, §6.3: equal canonical forms are one record.
    #[test]
    fn records_that_differ_in_the_letter_case_of_a_name_are_one() {
        /// Case, type, RDATA of two records, and number of records that remain.
        type Case<'c> = (&'c str, u16, &'c [u8], &'c [u8], usize);
        let cases: [Case<'_>; 4] = [
            ("in the zone", rtype::MX, b"\0\x0a\x01a\x07example\x03org\0", b"\0\x0a\x01A\x07Example\x03org\0", 1),
            ("outside the zone", rtype::NS, b"\x01a\0", b"\x01A\0", 1),
            ("another preference", rtype::MX, b"\0A\x01a\0", b"\0a\x01a\0", 2),
            ("texts", rtype::TXT, b"\x01a", b"\x01A", 2),
        ];
        for (case, rtype, a, b, expected) in cases {
            let names = names(&[(rtype, 60, a), (rtype, 60, b)]);
            assert_eq!(names.apex()[0].records.len(), expected, "{case}");
        }
    }

    /// RFC 4034 §3: the TTL of a signature is that of the records that it covers.
    #[test]
    fn signatures_of_each_type_keep_their_ttl() {
        let names =
            names(&[(rtype::RRSIG, 60, b"\0\x01a"), (rtype::RRSIG, 300, b"\0\x02a"), (rtype::RRSIG, 300, b"\0\x02b")]);
        let found = |of| names.signatures(&[], of).map(|set| (set.ttl, set.records.len()));
        assert_eq!([found(rtype::A), found(rtype::NS), found(rtype::MX)], [Some((60, 1)), Some((300, 2)), None]);
        assert!(names.chain().is_none(), "no DNSKEY record");
    }
}
