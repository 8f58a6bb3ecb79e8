//! Encoding of an [`Answer`]: name compression, record order and the length limit.
//!
//! A reply that exceeds the limit first loses its Extended DNS Error, then whole RRsets of the additional section. Then the TC
//! bit is set and the answer keeps the whole records that fit (RFC 2181 §9), always the same ones for the same client. The OPT
//! record is always sent.

mod continuation;
mod discovery;
mod signed;

use std::{net::IpAddr, ops::Range};

use fastrand::Rng;

pub use self::{
    continuation::{Chain, begin, complete, continue_in_zones},
    signed::{SignerInUse, Signing},
};
use super::{
    Answer, Authority, BindingRecords, Data, Ede, Group, Owner, UpstreamRecord,
    frame::{Extra, Frame},
    record_order, srv_rdata,
};
use crate::dns::{
    dnssec::signer::Content,
    message::{
        codes::{Rcode, class, rtype},
        query::HEADER,
    },
    zone::{
        rrset::{Rdata, Tail, compressible},
        service::{HostIndex, SRV_FIELDS, Service, consul::TargetAddresses},
        static_names::{Kind, Zone},
    },
};

/// Maximum offset of a compression pointer (RFC 1035 §4.1.4).
const MAX_POINTER: usize = 0x3fff;
/// Octets of a record before its RDATA if the owner name is a pointer (RFC 1035 §3.2.1).
const HEAD: usize = 12;

/// Scratch buffers, reused between replies to avoid allocations.
#[derive(Default)]
pub struct Scratch {
    order: Vec<u32>,
    /// Instances of the answer's SRV records, and the packet offset of each target.
    targets: Vec<(HostIndex, usize)>,
    /// Instances whose target has its addresses in the packet.
    resolved: Vec<bool>,
    /// Content of the RRset that is being signed.
    pub content: Content,
}

/// Writes a reply without records; `truncated` sets TC, so that the client retries over TCP.
pub fn bare(frame: &Frame<'_>, rcode: Rcode, truncated: bool, out: &mut Vec<u8>) {
    let mut writer = Writer::new(frame, None, 0, out);
    writer.opt(frame, rcode, None);
    writer.finish(frame, rcode, false, truncated);
}

/// Writes an answer, with signatures for clients that ask for them.
pub fn assemble<'o, 'z>(
    frame: &Frame<'_>,
    answer: &Answer<'z>,
    signing: Option<&'o mut Signing<'z>>,
    rng: &mut Rng,
    scratch: &mut Scratch,
    out: &'o mut Vec<u8>,
) {
    let mut writer = Writer { signing, ..Writer::new(frame, answer.question_zone, frame.opt_len(), out) };
    let whole = writer.sections(frame, answer, rng, scratch);
    writer.opt(frame, answer.rcode, answer.ede);
    writer.finish(frame, answer.rcode, answer.authoritative, !whole);
}

#[derive(Clone, Copy)]
enum Section {
    Answer,
    Authority,
    Additional,
}

/// Encoding of the origin at the end of RDATA.
enum Origin {
    Nothing,
    /// A pointer to this offset.
    Pointer(usize),
    Whole,
}

struct Writer<'o, 'z> {
    out: &'o mut Vec<u8>,
    /// End of the records, which leaves room for the OPT record.
    end: usize,
    /// Zone of the question's name, and the offset of its origin in the name.
    question_zone: Option<(&'z Zone, usize)>,
    /// Packet offset of the last CNAME's target.
    target: usize,
    counts: [u16; 3],
    /// Signer, for a client that asks for signatures.
    signing: Option<&'o mut Signing<'z>>,
    /// True if what is written will be moved: no pointer leads to it.
    is_movable: bool,
}

impl<'o, 'z> Writer<'o, 'z> {
    fn new(frame: &Frame<'_>, question_zone: Option<(&'z Zone, usize)>, reserve: usize, out: &'o mut Vec<u8>) -> Self {
        out.clear();
        out.extend_from_slice(&[0; HEADER]);
        out.extend_from_slice(frame.question);
        Self {
            out,
            end: frame.limit.saturating_sub(reserve),
            question_zone,
            target: HEADER,
            counts: [0; 3],
            signing: None,
            is_movable: false,
        }
    }

    /// Writes the records of an answer. Returns whether all that are required fit.
    #[inline]
    fn sections(&mut self, frame: &Frame<'_>, answer: &Answer<'_>, rng: &mut Rng, scratch: &mut Scratch) -> bool {
        scratch.targets.clear();
        let mut whole = true;
        for group in &answer.answer {
            whole = whole && self.signed_answer(group, frame.client, rng, scratch);
        }
        if whole {
            whole = match &answer.authority {
                Authority::Empty => true,
                Authority::Soa(group) | Authority::Referral(group) => self.signed_rrset(group, Section::Authority),
            } && self.proofs();
        }
        if whole {
            let required = matches!(answer.authority, Authority::Referral(_));
            for group in &answer.additional {
                let fits = self.signed_rrset(group, Section::Additional);
                // Referral glue is required: without it the name cannot be resolved (RFC 9471 §3.1).
                whole = fits || !required;
                if !fits {
                    break;
                }
            }
            if answer.adds_targets
                && let Some(group) = answer.answer.last()
            {
                match group.data {
                    Data::Srv { service, kind: Kind::Consul, .. } => {
                        self.consul_target_addresses(service, group.zone, scratch);
                    }
                    Data::Srv { service, .. } | Data::Bindings { service, .. } => {
                        self.target_addresses(service, group.zone, &scratch.targets);
                    }
                    Data::Instances { service, kind, .. } => {
                        self.advertised(service, kind, group.zone, &scratch.targets);
                    }
                    _ => {}
                }
            }
        }
        whole
    }

    /// Writes the header.
    fn finish(self, frame: &Frame<'_>, rcode: Rcode, authoritative: bool, truncated: bool) {
        let header = frame.header;
        // RD and RA belong to queries; flags of other opcodes have no known meaning (RFC 6895 §2).
        let is_query = header.opcode == 0;
        let flags = 0x80
            | header.opcode << 3
            | u8::from(authoritative) << 2
            | u8::from(truncated) << 1
            | u8::from(header.recursion_desired && is_query);
        let questions = u16::from(!frame.question.is_empty());
        let [answers, authorities, additionals] = self.counts;
        let id = header.id.to_be_bytes();
        self.out[..4].copy_from_slice(&[
            id[0],
            id[1],
            flags,
            u8::from(frame.recursion_available && is_query) << 7 | (rcode as u16 & 0x0f) as u8,
        ]);
        for (field, count) in
            self.out[4..HEADER].chunks_exact_mut(2).zip([questions, answers, authorities, additionals])
        {
            field.copy_from_slice(&count.to_be_bytes());
        }
    }

    /// Writes an RRset of the answer section in weighted random order. If it does not fit, writes a subset that is stable for
    /// the client, and returns false.
    fn answer(&mut self, group: &Group<'_>, client: Option<IpAddr>, rng: &mut Rng, scratch: &mut Scratch) -> bool {
        let data = &group.data;
        let ranked = (1..data.len()).any(|at| data.priority(at) != data.priority(0));
        // At most one more than can fit, to detect overflow; sorting by priority needs all records.
        let most = if ranked { data.len() } else { self.end.saturating_sub(self.out.len()) / HEAD + 1 };
        let (mark, count, targets) = (self.out.len(), self.counts, scratch.targets.len());
        record_order::draw(data.len(), most, |at| data.weight(at), rng, &mut scratch.order);
        if self.ordered(group, ranked, scratch) {
            return true;
        }
        self.out.truncate(mark);
        self.counts = count;
        scratch.targets.truncate(targets);
        record_order::rotate(data.len(), most, client, &mut scratch.order);
        self.ordered(group, ranked, scratch)
    }

    /// Writes an RRset in the order of `scratch`, sorted by priority if priorities differ; returns whether it fits.
    fn ordered(&mut self, group: &Group<'_>, ranked: bool, scratch: &mut Scratch) -> bool {
        let data = &group.data;
        if ranked {
            // The sort is stable: it keeps the drawn order within a priority.
            scratch.order.sort_by_key(|&at| data.priority(at as usize));
        }
        let mut target = self.target;
        for &at in &scratch.order {
            let mark = self.out.len();
            let rdata = self.record(group, at as usize);
            if self.out.len() > self.end {
                self.out.truncate(mark);
                return false;
            }
            self.counts[Section::Answer as usize] += 1;
            match data {
                Data::Srv { members, .. } => {
                    scratch.targets.push((members.get(at as usize).0, rdata.start + SRV_FIELDS));
                }
                Data::Instances { members, .. } => scratch.targets.push((members.get(at as usize).0, rdata.start)),
                Data::Bindings { records: BindingRecords::Answered(bindings), .. } => {
                    scratch.targets.push((bindings.answered(at as usize).host, rdata.start + discovery::SVC_PRIORITY));
                }
                _ => {}
            }
            target = rdata.start;
        }
        // Set after the loop: the owner of all records of this group may be the preceding CNAME's target.
        if data.rtype() == rtype::CNAME {
            self.target = target;
        }
        true
    }

    /// Writes an RRset if it fits; returns whether it does.
    fn rrset(&mut self, group: &Group<'_>, section: Section) -> bool {
        let mark = self.out.len();
        for at in 0..group.data.len() {
            self.record(group, at);
            if self.out.len() > self.end {
                self.out.truncate(mark);
                return false;
            }
        }
        self.counts[section as usize] += group.data.len() as u16;
        true
    }

    /// Writes a record of an upstream if it fits; returns whether it does.
    fn upstream_record(&mut self, record: &UpstreamRecord, section: Section) -> bool {
        let mark = self.out.len();
        self.out.extend_from_slice(&record.owner);
        self.out.extend_from_slice(&record.rtype.to_be_bytes());
        self.out.extend_from_slice(&class::IN.to_be_bytes());
        self.out.extend_from_slice(&record.ttl.to_be_bytes());
        self.out.extend_from_slice(&(record.rdata.len() as u16).to_be_bytes());
        self.out.extend_from_slice(&record.rdata);
        let fits = self.out.len() <= self.end;
        if fits {
            self.counts[section as usize] += 1;
        } else {
            self.out.truncate(mark);
        }
        fits
    }

    /// Writes the addresses of SRV targets to the additional section, as far as they fit.
    fn target_addresses(&mut self, service: &Service, zone: &Zone, targets: &[(HostIndex, usize)]) {
        for &(host, at) in targets {
            if !self.addresses(&target_of(service, host), at, zone) {
                return;
            }
        }
    }

    /// Does the same in the scheme of Consul, where instances may have the same target.
    fn consul_target_addresses(&mut self, service: &Service, zone: &Zone, scratch: &mut Scratch) {
        let Scratch { targets, resolved, .. } = scratch;
        resolved.clear();
        resolved.resize(service.declared(), false);
        for &(host, at) in &*targets {
            let target = service.consul_target(host);
            if !std::mem::replace(&mut resolved[target.first as usize], true) && !self.addresses(&target, at, zone) {
                return;
            }
        }
    }

    /// Writes the addresses of an SRV target, whose name is written at offset `at`; returns whether they fit.
    fn addresses(&mut self, target: &TargetAddresses<'_>, at: usize, zone: &Zone) -> bool {
        for (rtype, size, octets) in [(rtype::A, 4, target.v4), (rtype::AAAA, 16, target.v6)] {
            let mark = self.out.len();
            let written = Some(at).filter(|at| *at <= MAX_POINTER);
            for address in octets.chunks_exact(size) {
                self.head((Owner::Below(target.labels), written), zone, rtype, target.ttl, size);
                self.out.extend_from_slice(address);
            }
            let fits = self.out.len() <= self.end
                && self.sign_addresses(zone, written.unwrap_or(mark), rtype, target.ttl, octets);
            if !fits {
                self.out.truncate(mark);
                return false;
            }
            self.counts[Section::Additional as usize] += (octets.len() / size) as u16;
        }
        true
    }

    /// Writes a record and returns the range of its RDATA.
    fn record(&mut self, group: &Group<'_>, at: usize) -> Range<usize> {
        let (zone, data) = (group.zone, &group.data);
        // SRV targets are never compressed (RFC 2782).
        let (octets, origin, port) = match data {
            Data::V4(addresses, _) => (&addresses[at].octets[..], Origin::Nothing, None),
            Data::V6(addresses, _) => (&addresses[at].octets[..], Origin::Nothing, None),
            Data::Host { size, octets, .. } => (&octets[at * size..][..*size], Origin::Nothing, None),
            Data::Srv { service, members, kind, .. } => {
                let (host, port) = members.get(at);
                (srv_rdata(service, *kind, host), Origin::Whole, port)
            }
            Data::Address { octets, size, .. } => (&octets[..usize::from(*size)], Origin::Nothing, None),
            Data::Texts(texts, _) => self.stored(&texts[at], zone, false),
            Data::Stored(set) => self.stored(&set.records[at], zone, compressible(set.rtype)),
            Data::Made(set) => self.stored(&set.records[at], zone, compressible(set.rtype)),
            Data::Instances { service, members, kind, .. } => {
                return self.instance_pointer(group, service, *kind, members.get(at).0);
            }
            Data::Bindings { service, records, .. } => {
                let (binding, target) = match records {
                    BindingRecords::Answered(bindings) => (bindings.answered(at), true),
                    BindingRecords::Own(binding) => (*binding, false),
                };
                return self.binding(group, binding, target.then(|| service.target(binding.host)));
            }
            Data::Soa { serial, ttl } => return self.soa(group.owner, zone, *serial, *ttl),
        };
        let origin_len = match origin {
            Origin::Nothing => 0,
            Origin::Pointer(_) => 2,
            Origin::Whole => zone.origin.wire().len(),
        };
        let owner = (group.owner, self.written(group.owner, zone));
        self.head(owner, zone, data.rtype(), data.ttl(), octets.len() + origin_len);
        let start = self.out.len();
        self.out.extend_from_slice(octets);
        if let Some(port) = port {
            self.out[start + 4..start + 6].copy_from_slice(&port.to_be_bytes());
        }
        match origin {
            Origin::Nothing => {}
            Origin::Pointer(at) => self.pointer(at),
            Origin::Whole => self.out.extend_from_slice(zone.origin.wire()),
        }
        start..self.out.len()
    }

    /// Returns stored RDATA and the encoding of the origin at its end.
    fn stored<'r>(&self, rdata: &'r Rdata, zone: &Zone, compress: bool) -> (&'r [u8], Origin, Option<u16>) {
        let origin = match (rdata.tail, self.origin_at(zone)) {
            (Tail::Nothing, _) => Origin::Nothing,
            (Tail::Origin, Some(at)) if compress => Origin::Pointer(at),
            (Tail::Origin, _) => Origin::Whole,
        };
        (&rdata.octets, origin, None)
    }

    fn soa(&mut self, owner: Owner<'_>, zone: &Zone, serial: u32, ttl: u32) -> Range<usize> {
        self.head((owner, self.written(owner, zone)), zone, rtype::SOA, ttl, 0);
        let start = self.out.len();
        for name in [&zone.soa.mname, &zone.soa.rname] {
            self.out.extend_from_slice(&name.octets);
            if name.tail == Tail::Origin {
                self.origin(zone);
            }
        }
        let [refresh, retry, expire] = zone.soa.timers;
        for field in [serial, refresh, retry, expire, zone.soa.minimum] {
            self.out.extend_from_slice(&field.to_be_bytes());
        }
        self.end_rdata(start)
    }

    /// Returns the packet offset of an owner name that is already written.
    fn written(&self, owner: Owner<'_>, zone: &Zone) -> Option<usize> {
        match owner {
            Owner::Question => Some(HEADER),
            Owner::Target => Some(self.target),
            Owner::Zone => self.origin_at(zone),
            Owner::Below(_) | Owner::Absolute(_) => None,
        }
    }

    /// Writes owner name, type, class, TTL and RDLENGTH. The owner is a pointer if it is already written.
    fn head(&mut self, (owner, written): (Owner<'_>, Option<usize>), zone: &Zone, rtype: u16, ttl: u32, len: usize) {
        let mut head = [0; HEAD];
        head[2..4].copy_from_slice(&rtype.to_be_bytes());
        head[4..6].copy_from_slice(&class::IN.to_be_bytes());
        head[6..10].copy_from_slice(&ttl.to_be_bytes());
        head[10..].copy_from_slice(&(len as u16).to_be_bytes());
        if let Some(at) = written {
            // The common case: a single write.
            head[..2].copy_from_slice(&pointer_to(at));
            return self.out.extend_from_slice(&head);
        }
        match owner {
            Owner::Below(labels) => {
                self.out.extend_from_slice(labels);
                self.origin(zone);
            }
            Owner::Absolute(name) => self.out.extend_from_slice(name),
            Owner::Question | Owner::Target | Owner::Zone => self.out.extend_from_slice(zone.origin.wire()),
        }
        self.out.extend_from_slice(&head[2..]);
    }

    /// Returns the packet offset of a zone's origin if the question's name ends in it.
    fn origin_at(&self, zone: &Zone) -> Option<usize> {
        self.question_zone.filter(|(own, _)| std::ptr::eq(*own, zone)).map(|(_, at)| HEADER + at)
    }

    /// Writes a zone's origin, as a pointer if the question's name ends in it.
    fn origin(&mut self, zone: &Zone) {
        match self.origin_at(zone) {
            Some(at) => self.pointer(at),
            None => self.out.extend_from_slice(zone.origin.wire()),
        }
    }

    fn pointer(&mut self, at: usize) {
        self.out.extend_from_slice(&pointer_to(at));
    }

    /// Writes the OPT record, with the Extended DNS Error if it fits.
    fn opt(&mut self, frame: &Frame<'_>, rcode: Rcode, ede: Option<Ede<'_>>) {
        if frame.edns.is_some() {
            frame.write_opt((rcode as u16 >> 4) as u8, ede.map_or(Extra::Options(&[]), Extra::Error), self.out);
            self.counts[Section::Additional as usize] += 1;
        }
    }
}

/// Returns the SRV target of an instance and its addresses.
fn target_of(service: &Service, host: HostIndex) -> TargetAddresses<'_> {
    TargetAddresses {
        labels: service.target(host),
        first: host,
        v4: service.host_v4(host),
        v6: service.host_v6(host),
        ttl: service.host_ttl(host),
    }
}

/// Returns a compression pointer. `at` is at most [`MAX_POINTER`]: it is in the question, or the caller has checked it.
fn pointer_to(at: usize) -> [u8; 2] {
    (0xc000 | at as u16).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{answer::frame::Options, message::query::Header};

    /// ISC's compliance suite (genreport, `opcodeflg`) expects no flag in the reply to an unknown opcode (RFC 6895 §2).
    #[test]
    fn recursion_flags_belong_to_queries() {
        for (opcode, expected) in [(0, [0x81, 0x84]), (15, [0xf8, 0x04])] {
            let header = Header { opcode, recursion_desired: true, ..Header::default() };
            let frame = Frame {
                header,
                question: &[],
                edns: None,
                options: Options::default(),
                recursion_available: true,
                udp_payload: 1232,
                limit: 512,
                client: None,
                is_inside: true,
            };
            let mut out = Vec::new();
            bare(&frame, Rcode::NotImp, false, &mut out);
            assert_eq!(out[2..4], expected, "opcode {opcode}");
        }
    }
}
