//! Writing an [`Answer`] down: names compressed, records in their order, never longer than the client takes.
//!
//! What does not fit goes in this order: whole RRsets of the additional section, in silence; then the TC bit is set and
//! the answer keeps the records that fit, whole (RFC 2181 §9); the OPT record always stays. The extended error is the
//! first to go.

use std::ops::Range;

use fastrand::Rng;

use super::{
    answer::{Answer, Authority, Data, Ede, Group, Members, Owner},
    code::{Rcode, class, rtype},
    order,
    question::{Edns, HEADER, Header},
    table::{
        rrset::{Rdata, Tail, compressible},
        service::{HostIndex, SRV_FIELDS, Service},
        zone::{Soa, Zone},
    },
};

/// The highest offset that a compression pointer can name (RFC 1035 §4.1.4).
const MAX_POINTER: usize = 0x3fff;
/// A pointer to the question's name.
const QUESTION: [u8; 2] = [0xc0, HEADER as u8];
/// An OPT record without options (RFC 6891 §6.1.2).
const OPT: usize = 11;
/// An EDE option's code, length and INFO-CODE (RFC 8914 §2).
const EDE_HEAD: usize = 6;
/// The EDE option (RFC 8914 §5.1).
const EDE_OPTION: u16 = 15;

/// What a reply repeats of its query, and how long it may be.
#[derive(Clone, Copy)]
pub struct Frame<'p> {
    /// The query's header.
    pub header: Header,
    /// The question section as it came; empty where it could not be read.
    pub question: &'p [u8],
    /// The client's EDNS; `None`: the reply carries none.
    pub edns: Option<Edns>,
    /// The payload that our OPT record announces.
    pub udp_payload: u16,
    /// The reply's longest length, in octets; at least a header, a question and an OPT record.
    pub limit: usize,
}

/// What the writing of one reply needs besides; kept between replies so that nothing is allocated anew.
#[derive(Default)]
pub struct Scratch {
    order: Vec<u32>,
    /// The instances that the answer's SRV records name, and where each target stands in the packet.
    targets: Vec<(HostIndex, usize)>,
}

/// Writes a reply without records.
pub fn bare(frame: &Frame<'_>, rcode: Rcode, out: &mut Vec<u8>) {
    let mut writer = Writer::new(frame, None, 0, out);
    writer.opt(frame, rcode, None);
    writer.finish(frame, rcode, false, false);
}

/// Writes an answer.
pub fn assemble(frame: &Frame<'_>, answer: &Answer<'_>, rng: &mut Rng, scratch: &mut Scratch, out: &mut Vec<u8>) {
    let reserve = if frame.edns.is_some() { OPT } else { 0 };
    let mut writer = Writer::new(frame, answer.home, reserve, out);
    scratch.targets.clear();
    let mut whole = true;
    for group in &answer.answer {
        whole = whole && writer.answer(group, rng, scratch);
    }
    if whole {
        whole = match &answer.authority {
            Authority::Empty => true,
            Authority::Soa(group) => writer.rrset(group, Section::Authority),
            Authority::Referral(group) => writer.rrset(group, Section::Authority),
        };
    }
    if whole {
        let required = matches!(answer.authority, Authority::Referral(_));
        for group in &answer.additional {
            let fits = writer.rrset(group, Section::Additional);
            // Referral glue is no extra: without it the name cannot be resolved (RFC 9471 §3.1).
            whole = fits || !required;
            if !fits {
                break;
            }
        }
        if let Some(group) = answer.answer.last()
            && let Data::Srv(service, ..) = group.data
        {
            writer.target_addresses(service, group.zone, &scratch.targets);
        }
    }
    writer.opt(frame, answer.rcode, answer.ede);
    writer.finish(frame, answer.rcode, answer.authoritative, !whole);
}

#[derive(Clone, Copy)]
enum Section {
    Answer,
    Authority,
    Additional,
}

struct Writer<'o, 'z> {
    out: &'o mut Vec<u8>,
    /// Up to where records may go: the OPT record has its place behind.
    end: usize,
    /// The zone of the question's name, and where its origin begins in that.
    home: Option<(&'z Zone, usize)>,
    /// Where the target of the last CNAME stands.
    target: usize,
    counts: [u16; 3],
}

impl<'o, 'z> Writer<'o, 'z> {
    fn new(frame: &Frame<'_>, home: Option<(&'z Zone, usize)>, reserve: usize, out: &'o mut Vec<u8>) -> Self {
        out.clear();
        out.extend_from_slice(&[0; HEADER]);
        out.extend_from_slice(frame.question);
        Self { out, end: frame.limit.saturating_sub(reserve), home, target: HEADER, counts: [0; 3] }
    }

    /// Fills in the header.
    fn finish(self, frame: &Frame<'_>, rcode: Rcode, authoritative: bool, truncated: bool) {
        let header = frame.header;
        let flags = 0x80
            | header.opcode << 3
            | u8::from(authoritative) << 2
            | u8::from(truncated) << 1
            | u8::from(header.recursion_desired);
        let questions = u16::from(!frame.question.is_empty());
        let [answers, authorities, additionals] = self.counts;
        let id = header.id.to_be_bytes();
        self.out[..4].copy_from_slice(&[id[0], id[1], flags, (rcode as u16 & 0x0f) as u8]);
        for (field, count) in
            self.out[4..HEADER].chunks_exact_mut(2).zip([questions, answers, authorities, additionals])
        {
            field.copy_from_slice(&count.to_be_bytes());
        }
    }

    /// Writes an RRset of the answer section in drawn order; says whether all of it fitted.
    fn answer(&mut self, group: &Group<'_>, rng: &mut Rng, scratch: &mut Scratch) -> bool {
        let data = &group.data;
        order::draw(data.len(), |at| data.weight(at), rng, &mut scratch.order);
        if data.rtype() == rtype::SRV {
            // Stable: within a priority the drawn order stays.
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
            if let Data::Srv(_, members, _) = data {
                scratch.targets.push((members.get(at as usize).0, rdata.start + SRV_FIELDS));
            }
            target = rdata.start;
        }
        // Not earlier: all records of this group have one owner, which may be the target of the CNAME before.
        self.target = target;
        true
    }

    /// Writes an RRset, or nothing; says whether it fitted.
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

    /// Writes the addresses of a service's instances, under the targets of the SRV records before.
    fn target_addresses(&mut self, service: &Service, zone: &Zone, targets: &[(HostIndex, usize)]) {
        for &(host, target) in targets {
            for (rtype, size, octets) in
                [(rtype::A, 4, service.host_v4(host)), (rtype::AAAA, 16, service.host_v6(host))]
            {
                let mark = self.out.len();
                for address in octets.chunks_exact(size) {
                    if target <= MAX_POINTER {
                        self.pointer(target);
                    } else {
                        self.out.extend_from_slice(&service.srv_parts(host)[SRV_FIELDS..]);
                        self.out.extend_from_slice(zone.origin.wire());
                    }
                    self.fields(rtype, service.host_ttl(host));
                    self.out.extend_from_slice(&(size as u16).to_be_bytes());
                    self.out.extend_from_slice(address);
                }
                if self.out.len() > self.end {
                    self.out.truncate(mark);
                    return;
                }
                self.counts[Section::Additional as usize] += (octets.len() / size) as u16;
            }
        }
    }

    /// Writes a record and returns where its RDATA stands.
    fn record(&mut self, group: &Group<'_>, at: usize) -> Range<usize> {
        self.owner(group.owner, group.zone);
        let rtype = group.data.rtype();
        self.fields(rtype, group.data.ttl());
        let length_at = self.out.len();
        self.out.extend_from_slice(&[0; 2]);
        match &group.data {
            Data::Stored(set) => self.rdata(&set.records[at], group.zone, compressible(rtype)),
            Data::Made(set) => self.rdata(&set.records[at], group.zone, compressible(rtype)),
            Data::Soa { serial, .. } => self.soa(&group.zone.soa, *serial, group.zone),
            Data::V4(addresses, _) => self.out.extend_from_slice(&addresses[at].octets),
            Data::V6(addresses, _) => self.out.extend_from_slice(&addresses[at].octets),
            Data::Host { size, octets, .. } => self.out.extend_from_slice(&octets[at * size..][..*size]),
            Data::Srv(service, members, _) => self.srv(service, *members, at, group.zone),
        }
        let rdata = length_at + 2..self.out.len();
        let length = rdata.len() as u16;
        self.out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        rdata
    }

    /// Type, class and TTL.
    fn fields(&mut self, rtype: u16, ttl: u32) {
        let ([t0, t1], [c0, c1], [s0, s1, s2, s3]) = (rtype.to_be_bytes(), class::IN.to_be_bytes(), ttl.to_be_bytes());
        self.out.extend_from_slice(&[t0, t1, c0, c1, s0, s1, s2, s3]);
    }

    /// SRV RDATA. The target is written in full, as RFC 2782 asks.
    fn srv(&mut self, service: &Service, members: Members<'_>, at: usize, zone: &Zone) {
        let (host, port) = members.get(at);
        let start = self.out.len();
        self.out.extend_from_slice(service.srv_parts(host));
        self.out.extend_from_slice(zone.origin.wire());
        if let Some(port) = port {
            self.out[start + 4..start + 6].copy_from_slice(&port.to_be_bytes());
        }
    }

    fn soa(&mut self, soa: &Soa, serial: u32, zone: &Zone) {
        self.rdata(&soa.mname, zone, true);
        self.rdata(&soa.rname, zone, true);
        let [refresh, retry, expire] = soa.timers;
        for field in [serial, refresh, retry, expire, soa.minimum] {
            self.out.extend_from_slice(&field.to_be_bytes());
        }
    }

    fn rdata(&mut self, rdata: &Rdata, zone: &Zone, compress: bool) {
        self.out.extend_from_slice(&rdata.octets);
        match rdata.tail {
            Tail::Nothing => {}
            Tail::Origin if compress => self.origin(zone),
            Tail::Origin => self.out.extend_from_slice(zone.origin.wire()),
        }
    }

    fn owner(&mut self, owner: Owner<'_>, zone: &Zone) {
        match owner {
            Owner::Question => self.out.extend_from_slice(&QUESTION),
            Owner::Target => self.pointer(self.target),
            Owner::Zone => self.origin(zone),
            Owner::Below(labels) => {
                self.out.extend_from_slice(labels);
                self.origin(zone);
            }
            Owner::Absolute(name) => self.out.extend_from_slice(name),
        }
    }

    /// Writes a zone's origin, as a pointer where the question ends in it.
    fn origin(&mut self, zone: &Zone) {
        match self.home {
            Some((home, at)) if std::ptr::eq(home, zone) => self.pointer(HEADER + at),
            _ => self.out.extend_from_slice(zone.origin.wire()),
        }
    }

    /// `at` is at most [`MAX_POINTER`]: callers point into the question, or check.
    fn pointer(&mut self, at: usize) {
        self.out.extend_from_slice(&(0xc000 | at as u16).to_be_bytes());
    }

    /// Writes the OPT record, with the extended error as far as it fits.
    fn opt(&mut self, frame: &Frame<'_>, rcode: Rcode, ede: Option<Ede<'_>>) {
        let Some(edns) = frame.edns else { return };
        let ede = ede.filter(|ede| self.out.len() + OPT + EDE_HEAD + ede.text.len() <= frame.limit);
        let options = ede.map_or(0, |ede| EDE_HEAD + ede.text.len());
        let [p0, p1] = frame.udp_payload.to_be_bytes();
        let extended_rcode = (rcode as u16 >> 4) as u8;
        let dnssec_ok = if edns.dnssec_ok { 0x80 } else { 0 };
        let [l0, l1] = (options as u16).to_be_bytes();
        self.out.extend_from_slice(&[0, 0, rtype::OPT as u8, p0, p1, extended_rcode, 0, dnssec_ok, 0, l0, l1]);
        if let Some(ede) = ede {
            let length = (options - 4) as u16;
            for field in [EDE_OPTION, length, ede.code] {
                self.out.extend_from_slice(&field.to_be_bytes());
            }
            self.out.extend_from_slice(ede.text.as_bytes());
        }
        self.counts[Section::Additional as usize] += 1;
    }
}
