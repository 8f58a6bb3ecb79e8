//! Writing an [`Answer`] down: names compressed, records in their order, never longer than the client takes.
//!
//! What does not fit goes in this order: whole RRsets of the additional section, in silence; then the TC bit is set and
//! the answer keeps the records that fit, whole (RFC 2181 §9), the same each time for the same client; the OPT record
//! always stays. The extended error is the first to go.

use std::{net::IpAddr, ops::Range, time::Duration};

use fastrand::Rng;

use super::{Answer, Authority, Data, Ede, Group, Owner, rotation};
use crate::dns::{
    message::{
        codes::{Rcode, class, option, rtype},
        cookie,
        query::{Edns, HEADER, Header},
    },
    zone::{
        rrset::{Rdata, Tail, compressible},
        service::{HostIndex, SRV_FIELDS, Service},
        static_names::Zone,
    },
};

/// The highest offset that a compression pointer can name (RFC 1035 §4.1.4).
const MAX_POINTER: usize = 0x3fff;
/// An OPT record without options (RFC 6891 §6.1.2).
const OPT: usize = 11;
/// What stands before RDATA, where the owner is a pointer (RFC 1035 §3.2.1).
const HEAD: usize = 12;
/// An option's code and length (RFC 6891 §6.1.2).
const OPTION: usize = 4;
/// An EDE option's INFO-CODE (RFC 8914 §2).
const INFO_CODE: usize = 2;

/// The time-out of the keepalive option (RFC 7828 §3.1).
const KEEPALIVE: usize = 2;

/// What a reply repeats of its query, and how long it may be.
#[derive(Clone, Copy)]
pub struct Frame<'p> {
    /// The query's header.
    pub header: Header,
    /// The question section as it came; empty where it could not be read.
    pub question: &'p [u8],
    /// The client's EDNS; `None`: the reply carries none.
    pub edns: Option<Edns>,
    /// What the OPT record carries in any case.
    pub options: Options<'p>,
    /// Whether this client may ask for names that are not ours (RFC 1035 §4.1.1).
    pub recursion_available: bool,
    /// The payload that our OPT record announces.
    pub udp_payload: u16,
    /// The reply's longest length, in octets; at least a header, a question and an OPT record.
    pub limit: usize,
    /// Who gets it: decides which records an answer keeps that is cut.
    pub client: Option<IpAddr>,
}

/// What else an OPT record carries, if there is room for it.
#[derive(Clone, Copy)]
pub enum Extra<'p> {
    /// An error that is ours.
    Error(Ede<'p>),
    /// Somebody else's options, as they came.
    Options(&'p [u8]),
}

/// Options that the client asked for.
#[derive(Clone, Copy, Default)]
pub struct Options<'p> {
    /// Which server answers (RFC 5001).
    pub nsid: Option<&'p [u8]>,
    /// The client's cookie and ours (RFC 7873).
    pub cookie: Option<[u8; cookie::REPLY]>,
    /// How long its connection may idle (RFC 7828).
    pub keepalive: Option<Duration>,
}

impl Frame<'_> {
    /// Octets that the OPT record needs at least; 0 where there is none.
    pub fn opt_len(&self) -> usize {
        self.edns.map_or(0, |_| OPT + self.options.len())
    }

    /// Writes the OPT record, if the client speaks EDNS; `rcode` is the code's upper part. Who calls counts the record.
    pub fn write_opt(&self, rcode: u8, extra: Extra<'_>, out: &mut Vec<u8>) {
        let Some(edns) = self.edns else { return };
        let len = match extra {
            Extra::Error(ede) => OPTION + INFO_CODE + ede.text.len(),
            Extra::Options(octets) => octets.len(),
        };
        let fits = out.len() + self.opt_len() + len <= self.limit;
        let [p0, p1] = self.udp_payload.to_be_bytes();
        let dnssec_ok = if edns.dnssec_ok { 0x80 } else { 0 };
        let [l0, l1] = ((self.options.len() + if fits { len } else { 0 }) as u16).to_be_bytes();
        out.extend_from_slice(&[0, 0, rtype::OPT as u8, p0, p1, rcode, 0, dnssec_ok, 0, l0, l1]);
        if let Some(nsid) = self.options.nsid {
            put_option(option::NSID, &[], nsid, out);
        }
        if let Some(cookie) = &self.options.cookie {
            put_option(option::COOKIE, &[], cookie, out);
        }
        if let Some(idle) = self.options.keepalive {
            // In tenths of a second.
            put_option(option::KEEPALIVE, &[], &((idle.as_millis() / 100) as u16).to_be_bytes(), out);
        }
        match extra {
            Extra::Error(ede) if fits => put_option(option::EDE, &ede.code.to_be_bytes(), ede.text.as_bytes(), out),
            Extra::Options(octets) if fits => out.extend_from_slice(octets),
            Extra::Error(_) | Extra::Options(_) => {}
        }
    }
}

fn put_option(code: u16, field: &[u8], data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&((field.len() + data.len()) as u16).to_be_bytes());
    out.extend_from_slice(field);
    out.extend_from_slice(data);
}

impl Options<'_> {
    fn len(&self) -> usize {
        self.nsid.map_or(0, |nsid| OPTION + nsid.len())
            + self.cookie.map_or(0, |cookie| OPTION + cookie.len())
            + self.keepalive.map_or(0, |_| OPTION + KEEPALIVE)
    }
}

/// What the writing of one reply needs besides; kept between replies so that nothing is allocated anew.
#[derive(Default)]
pub struct Scratch {
    order: Vec<u32>,
    /// The instances that the answer's SRV records name, and where each target stands in the packet.
    targets: Vec<(HostIndex, usize)>,
}

/// Writes a reply without records; `truncated` sends the client to TCP.
pub fn bare(frame: &Frame<'_>, rcode: Rcode, truncated: bool, out: &mut Vec<u8>) {
    let mut writer = Writer::new(frame, None, 0, out);
    writer.opt(frame, rcode, None);
    writer.finish(frame, rcode, false, truncated);
}

/// Writes an answer.
pub fn assemble(frame: &Frame<'_>, answer: &Answer<'_>, rng: &mut Rng, scratch: &mut Scratch, out: &mut Vec<u8>) {
    let mut writer = Writer::new(frame, answer.home, frame.opt_len(), out);
    scratch.targets.clear();
    let mut whole = true;
    for group in &answer.answer {
        whole = whole && writer.answer(group, frame.client, rng, scratch);
    }
    if whole {
        whole = match &answer.authority {
            Authority::Empty => true,
            Authority::Soa(group) => writer.rrset(group, Section::Authority),
            Authority::Referral(group) => writer.rrset(group, Section::Authority),
            Authority::Foreign(groups) => groups.iter().all(|group| writer.rrset(group, Section::Authority)),
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

/// How the origin behind RDATA is written.
enum Origin {
    Nothing,
    /// As a pointer to there.
    Pointer(usize),
    Whole,
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
        self.out[..4].copy_from_slice(&[
            id[0],
            id[1],
            flags,
            u8::from(frame.recursion_available) << 7 | (rcode as u16 & 0x0f) as u8,
        ]);
        for (field, count) in
            self.out[4..HEADER].chunks_exact_mut(2).zip([questions, answers, authorities, additionals])
        {
            field.copy_from_slice(&count.to_be_bytes());
        }
    }

    /// Writes an RRset of the answer section in drawn order, or what fits of it in one that stays; says whether all of it
    /// fitted.
    fn answer(&mut self, group: &Group<'_>, client: Option<IpAddr>, rng: &mut Rng, scratch: &mut Scratch) -> bool {
        let data = &group.data;
        let ranked = (1..data.len()).any(|at| data.priority(at) != data.priority(0));
        // One more than may fit, to see that it does not; but whom to try last is known of all only.
        let most = if ranked { data.len() } else { self.end.saturating_sub(self.out.len()) / HEAD + 1 };
        let (mark, count, targets) = (self.out.len(), self.counts, scratch.targets.len());
        rotation::draw(data.len(), most, |at| data.weight(at), rng, &mut scratch.order);
        if self.ordered(group, ranked, scratch) {
            return true;
        }
        self.out.truncate(mark);
        self.counts = count;
        scratch.targets.truncate(targets);
        rotation::stay(data.len(), most, client, &mut scratch.order);
        self.ordered(group, ranked, scratch)
    }

    /// Writes an RRset in the order of `scratch`, by priority where it has several; says whether all of it fitted.
    fn ordered(&mut self, group: &Group<'_>, ranked: bool, scratch: &mut Scratch) -> bool {
        let data = &group.data;
        if ranked {
            // Stable: within a priority the order stays.
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
                    let owner = Owner::Below(&service.srv_parts(host)[SRV_FIELDS..]);
                    let written = Some(target).filter(|at| *at <= MAX_POINTER);
                    self.head((owner, written), zone, rtype, service.host_ttl(host), size);
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
        let (zone, data) = (group.zone, &group.data);
        // SRV targets are written in full, as RFC 2782 asks.
        let (octets, origin, port) = match data {
            Data::V4(addresses, _) => (&addresses[at].octets[..], Origin::Nothing, None),
            Data::V6(addresses, _) => (&addresses[at].octets[..], Origin::Nothing, None),
            Data::Host { size, octets, .. } => (&octets[at * size..][..*size], Origin::Nothing, None),
            Data::Srv(service, members, _) => {
                let (host, port) = members.get(at);
                (service.srv_parts(host), Origin::Whole, port)
            }
            Data::Texts(texts, _) => self.stored(&texts[at], zone, false),
            Data::Stored(set) => self.stored(&set.records[at], zone, compressible(set.rtype)),
            Data::Made(set) => self.stored(&set.records[at], zone, compressible(set.rtype)),
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

    /// RDATA as it is kept, and how the origin behind it is written.
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
        let len = (self.out.len() - start) as u16;
        self.out[start - 2..start].copy_from_slice(&len.to_be_bytes());
        start..self.out.len()
    }

    /// Where an owner's name stands in the packet already.
    fn written(&self, owner: Owner<'_>, zone: &Zone) -> Option<usize> {
        match owner {
            Owner::Question => Some(HEADER),
            Owner::Target => Some(self.target),
            Owner::Zone => self.origin_at(zone),
            Owner::Below(_) | Owner::Absolute(_) => None,
        }
    }

    /// Writes what stands before RDATA of `len` octets; the owner as a pointer to where it is written, if it is.
    fn head(&mut self, (owner, written): (Owner<'_>, Option<usize>), zone: &Zone, rtype: u16, ttl: u32, len: usize) {
        let mut head = [0; HEAD];
        head[2..4].copy_from_slice(&rtype.to_be_bytes());
        head[4..6].copy_from_slice(&class::IN.to_be_bytes());
        head[6..10].copy_from_slice(&ttl.to_be_bytes());
        head[10..].copy_from_slice(&(len as u16).to_be_bytes());
        if let Some(at) = written {
            // As of most: one write.
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

    /// Where a zone's origin stands in the question, if it ends in it.
    fn origin_at(&self, zone: &Zone) -> Option<usize> {
        self.home.filter(|(home, _)| std::ptr::eq(*home, zone)).map(|(_, at)| HEADER + at)
    }

    /// Writes a zone's origin, as a pointer where the question ends in it.
    fn origin(&mut self, zone: &Zone) {
        match self.origin_at(zone) {
            Some(at) => self.pointer(at),
            None => self.out.extend_from_slice(zone.origin.wire()),
        }
    }

    fn pointer(&mut self, at: usize) {
        self.out.extend_from_slice(&pointer_to(at));
    }

    /// Writes the OPT record, with the extended error if it fits.
    fn opt(&mut self, frame: &Frame<'_>, rcode: Rcode, ede: Option<Ede<'_>>) {
        if frame.edns.is_some() {
            frame.write_opt((rcode as u16 >> 4) as u8, ede.map_or(Extra::Options(&[]), Extra::Error), self.out);
            self.counts[Section::Additional as usize] += 1;
        }
    }
}

/// A compression pointer. `at` is at most [`MAX_POINTER`]: callers point into the question, or check.
fn pointer_to(at: usize) -> [u8; 2] {
    (0xc000 | at as u16).to_be_bytes()
}
