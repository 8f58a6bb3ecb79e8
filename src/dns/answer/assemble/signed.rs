//! Signatures and proofs in a reply: an RRSIG record beside each RRset of a signed zone, and NSEC or NSEC3 records in the authority
//! section (RFC 4035 §3.1, RFC 5155 §7.2).

use std::{net::IpAddr, ops::Range, time::Duration};

use fastrand::Rng;
use smallvec::SmallVec;

use super::{MAX_POINTER, Scratch, Section, Writer, pointer_to};
use crate::{
    dns::{
        answer::{
            Data, Group, Members,
            denial::{Proof, Proofs},
            srv_rdata,
        },
        dnssec::{
            signer::{Content, Effort, Signer},
            zone_keys::ZoneKeys,
        },
        message::codes::{class, rtype},
        zone::{
            rrset::{Rdata, Tail},
            service::Service,
            signing::SignedBy,
            static_names::{Kind, Zone},
        },
    },
    metrics::SignatureTally,
    model::name::MAX_NAME,
};

/// Maximum number of compression pointers in a name that this server wrote: that of a CNAME's target, and one more.
const MAX_JUMPS: usize = 4;

/// Signer of answers for a client that asks for signatures.
#[derive(Clone, Copy)]
pub struct SignerInUse<'a> {
    /// Makes and keeps signatures.
    pub signer: &'a Signer,
    /// Counts signatures.
    pub tally: &'a SignatureTally,
    /// Unix time.
    pub now: Duration,
    /// Permission to make signatures.
    pub effort: Effort,
}

/// Signatures and proofs of one answer.
pub struct Signing<'a> {
    /// Signer of zones that are signed online; `None` if there are none.
    pub signer: Option<SignerInUse<'a>>,
    /// Proofs of the answer.
    pub proofs: Proofs<'a>,
    /// Buffer, which belongs to the [`Scratch`].
    pub content: Content,
    /// True if a signature was missing, so that the reply is not to be sent.
    pub is_missing: bool,
}

impl<'a> Signing<'a> {
    /// Begins an answer with these proofs.
    pub fn begin(signer: Option<SignerInUse<'a>>, proofs: Proofs<'a>, scratch: &mut Scratch) -> Self {
        Self { signer, proofs, content: std::mem::take(&mut scratch.content), is_missing: false }
    }
}

/// An RRset that is written, and its place.
#[derive(Clone, Copy)]
struct Written<'a> {
    keys: &'a ZoneKeys,
    /// Packet offset of the owner name.
    at: usize,
    rtype: u16,
    ttl: u32,
    /// Relative owner name of the wildcard from which it is expanded.
    wildcard: Option<&'a [u8]>,
    section: Section,
}

impl Writer<'_, '_> {
    /// Writes an RRset of the answer section with its signatures; returns whether they fit.
    pub(super) fn signed_answer(
        &mut self,
        group: &Group<'_>,
        client: Option<IpAddr>,
        rng: &mut Rng,
        scratch: &mut Scratch,
    ) -> bool {
        let owner = self.owner_at(group);
        self.answer(group, client, rng, scratch) && self.sign(group, owner, Section::Answer)
    }

    /// Writes an RRset with its signatures if both fit; returns whether they do.
    pub(super) fn signed_rrset(&mut self, group: &Group<'_>, section: Section) -> bool {
        let (mark, counts, owner) = (self.out.len(), self.counts, self.owner_at(group));
        let fits = self.rrset(group, section) && self.sign(group, owner, section);
        if !fits {
            self.out.truncate(mark);
            self.counts = counts;
        }
        fits
    }

    /// Returns the packet offset at which a group's owner name is or will be.
    pub(super) fn owner_at(&self, group: &Group<'_>) -> usize {
        self.written(group.owner, group.zone).unwrap_or(self.out.len())
    }

    /// Writes the signatures of a group, whose owner name is at offset `at`; returns whether they fit.
    pub(super) fn sign(&mut self, group: &Group<'_>, at: usize, section: Section) -> bool {
        let (Some(_), Some(signer)) = (&self.signing, group.signer) else { return true };
        let (rtype, ttl, wildcard) = (group.data.rtype(), group.data.ttl(), group.wildcard);
        match signer {
            SignedBy::Keys(keys) => {
                let written = Written { keys, at, rtype, ttl, wildcard, section };
                self.write_signatures(written, |content| add_group(group, content))
            }
            SignedBy::File(zone, _) => self.copy_signatures(zone, at, (rtype, ttl), wildcard, section),
        }
    }

    /// Writes the signatures that the file of a zone has of an RRset, whose owner name is at offset `at`; returns whether they fit.
    fn copy_signatures(
        &mut self,
        zone: &Zone,
        at: usize,
        (rtype, ttl): (u16, u32),
        wildcard: Option<&[u8]>,
        section: Section,
    ) -> bool {
        let mut owner = SmallVec::<[u8; MAX_NAME + 1]>::new();
        read_name(self.out, at, &mut owner);
        let mut name = owner.clone();
        name.make_ascii_lowercase();
        let relative = || name.strip_suffix(zone.origin.wire());
        let Some(labels) = wildcard.or_else(relative) else { return true };
        let Some(set) = zone.names.signatures(labels, rtype) else { return true };
        self.write_rrsigs(&owner, at, ttl, set.records.iter().map(|rdata| &*rdata.octets), section)
    }

    /// Writes the signatures of addresses in the additional section, whose owner name is at offset `at`; returns whether they
    /// fit.
    pub(super) fn sign_addresses(&mut self, zone: &Zone, at: usize, rtype: u16, ttl: u32, octets: &[u8]) -> bool {
        let (Some(_), Some(keys)) = (&self.signing, zone.keys.as_deref()) else { return true };
        let size = if rtype == rtype::A { 4 } else { 16 };
        let written = Written { keys, at, rtype, ttl, wildcard: None, section: Section::Additional };
        octets.is_empty()
            || self.write_signatures(written, |content| {
                octets.chunks_exact(size).for_each(|address| content.add(&[address]));
            })
    }

    /// Writes the signatures of a single record in the additional section, whose owner name is at offset `at` and whose RDATA is
    /// `written`, uncompressed; returns whether they fit.
    pub(super) fn sign_record(
        &mut self,
        zone: &Zone,
        at: usize,
        (rtype, ttl): (u16, u32),
        written: Range<usize>,
    ) -> bool {
        let (Some(_), Some(keys)) = (&self.signing, zone.keys.as_deref()) else { return true };
        let rdata = SmallVec::<[u8; MAX_NAME]>::from_slice(&self.out[written]);
        let written = Written { keys, at, rtype, ttl, wildcard: None, section: Section::Additional };
        self.write_signatures(written, |content| content.add(&[&rdata]))
    }

    /// Writes the proofs of the answer to the authority section; returns whether they fit.
    pub(super) fn proofs(&mut self) -> bool {
        let Some(signing) = &mut self.signing else { return true };
        let proofs = std::mem::take(&mut signing.proofs);
        if let Some(ds) = &proofs.ds {
            let at = self.owner_at(ds);
            if !(self.rrset(ds, Section::Authority) && self.sign(ds, at, Section::Authority)) {
                return false;
            }
        }
        proofs.nsec.iter().all(|proof| {
            let (zone, keys, record) = match proof {
                Proof::Stored(group) => return self.signed_rrset(group, Section::Authority),
                Proof::Made { zone, keys, record } => (zone, keys, record),
            };
            let (mark, ttl) = (self.out.len(), zone.soa.negative_ttl());
            let origin = zone.origin.wire().len();
            let labels = &record.owner[..record.owner.len().saturating_sub(origin)];
            self.out.extend_from_slice(labels);
            self.origin(zone);
            self.fields(rtype::NSEC, ttl, &record.rdata);
            if self.out.len() > self.end {
                self.out.truncate(mark);
                return false;
            }
            self.counts[Section::Authority as usize] += 1;
            let rtype = rtype::NSEC;
            let written = Written { keys, at: mark, rtype, ttl, wildcard: None, section: Section::Authority };
            self.write_signatures(written, |content| content.add(&[&record.rdata]))
        })
    }

    /// Writes encoded records if they fit; returns whether they do.
    pub(super) fn encoded(&mut self, records: &[u8], count: u16, section: Section) -> bool {
        let fits = self.out.len() + records.len() <= self.end;
        if fits {
            self.out.extend_from_slice(records);
            self.counts[section as usize] += count;
        }
        fits
    }

    fn write_signatures(&mut self, written: Written<'_>, add: impl FnOnce(&mut Content)) -> bool {
        let Written { keys, at, rtype, ttl, wildcard, section } = written;
        let Some((signing, signer)) =
            self.signing.as_mut().and_then(|signing| signing.signer.map(|signer| (signing, signer)))
        else {
            return true;
        };
        let mut owner = SmallVec::<[u8; MAX_NAME + 1]>::new();
        read_name(self.out, at, &mut owner);
        match wildcard {
            None => signing.content.begin(keys, &owner, rtype, ttl),
            Some(labels) => {
                let mut name = SmallVec::<[u8; MAX_NAME + 1]>::from_slice(labels);
                name.extend_from_slice(keys.zone.wire());
                signing.content.begin(keys, &name, rtype, ttl);
            }
        }
        add(&mut signing.content);
        let SignerInUse { signer, tally, now, effort } = signer;
        let signed = signer.sign(keys, &signing.content, now, effort, tally);
        let Some(signatures) = signed else {
            signing.is_missing = true;
            return true;
        };
        self.write_rrsigs(&owner, at, ttl, signatures.iter(), section)
    }

    /// Writes RRSIG records, whose owner name is at offset `at`; returns whether they fit.
    fn write_rrsigs<'r>(
        &mut self,
        owner: &[u8],
        at: usize,
        ttl: u32,
        rdatas: impl Iterator<Item = &'r [u8]>,
        section: Section,
    ) -> bool {
        let (mark, mut count) = (self.out.len(), 0);
        for rdata in rdatas {
            if at <= MAX_POINTER && !self.is_movable {
                self.out.extend_from_slice(&pointer_to(at));
            } else {
                self.out.extend_from_slice(owner);
            }
            self.fields(rtype::RRSIG, ttl, rdata);
            count += 1;
        }
        if self.out.len() > self.end {
            self.out.truncate(mark);
            return false;
        }
        self.counts[section as usize] += count;
        true
    }

    /// Writes a record after its owner name.
    fn fields(&mut self, rtype: u16, ttl: u32, rdata: &[u8]) {
        self.out.extend_from_slice(&rtype.to_be_bytes());
        self.out.extend_from_slice(&class::IN.to_be_bytes());
        self.out.extend_from_slice(&ttl.to_be_bytes());
        self.out.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
        self.out.extend_from_slice(rdata);
    }
}

/// Adds the records of a group, uncompressed.
fn add_group(group: &Group<'_>, content: &mut Content) {
    let origin = group.zone.origin.wire();
    let end = |rdata: &Rdata| if rdata.tail == Tail::Origin { origin } else { &[] };
    let mut all = |records: &[Rdata]| records.iter().for_each(|rdata| content.add(&[&rdata.octets, end(rdata)]));
    match &group.data {
        Data::V4(addresses, _) => addresses.iter().for_each(|address| content.add(&[&address.octets])),
        Data::V6(addresses, _) => addresses.iter().for_each(|address| content.add(&[&address.octets])),
        Data::Host { size, octets, .. } => octets.chunks_exact(*size).for_each(|rdata| content.add(&[rdata])),
        Data::Address { octets, size, .. } => content.add(&[&octets[..usize::from(*size)]]),
        Data::Texts(texts, _) => all(texts),
        Data::Stored(set) => all(&set.records),
        Data::Made(set) => all(&set.records),
        Data::Srv { service, members, kind, .. } => add_srv(service, members, *kind, origin, content),
        Data::Instances { .. } | Data::Bindings { .. } => {
            (0..group.data.len()).for_each(|at| content.add(&[&group.data.rdata(at, group.zone)]));
        }
        Data::Soa { serial, .. } => {
            let soa = &group.zone.soa;
            let [refresh, retry, expire] = soa.timers;
            let mut numbers = [0; 20];
            let fields = [*serial, refresh, retry, expire, soa.minimum];
            for (octets, field) in numbers.chunks_exact_mut(4).zip(fields) {
                octets.copy_from_slice(&field.to_be_bytes());
            }
            let (mname, rname) = (&soa.mname, &soa.rname);
            content.add(&[&mname.octets, end(mname), &rname.octets, end(rname), &numbers]);
        }
    }
}

fn add_srv(service: &Service, members: &Members<'_>, kind: Kind, origin: &[u8], content: &mut Content) {
    for at in 0..members.len() {
        let (host, port) = members.get(at);
        let octets = srv_rdata(service, kind, host);
        match port {
            Some(port) => content.add(&[&octets[..4], &port.to_be_bytes(), &octets[6..], origin]),
            None => content.add(&[octets, origin]),
        }
    }
}

/// Appends the name at offset `at` of a packet that this server wrote, uncompressed.
fn read_name(packet: &[u8], at: usize, out: &mut SmallVec<[u8; MAX_NAME + 1]>) {
    // The labels up to a pointer or the end are copied together.
    let (mut at, mut start, mut jumps) = (at, at, 0);
    while let Some(len) = packet.get(at).map(|len| usize::from(*len)) {
        match len {
            0 => break,
            0xc0.. => {
                let Some(low) = packet.get(at + 1).filter(|_| jumps < MAX_JUMPS) else { break };
                out.extend_from_slice(&packet[start..at]);
                at = (len & 0x3f) << 8 | usize::from(*low);
                (start, jumps) = (at, jumps + 1);
            }
            _ => at += 1 + len,
        }
    }
    out.extend_from_slice(packet.get(start..at).unwrap_or_default());
    out.push(0);
}
