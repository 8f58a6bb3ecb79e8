//! What an upstream said, kept so that it can be handed out as it came.
//!
//! A [`Reply`] is the upstream's message without its OPT record: records of any type, names compressed as they were. Handing
//! it out copies it, and changes what belongs to the client (id, flags, the question's letter case, the OPT record) and the
//! TTLs. Nothing else is understood, so that nothing can be lost.

use std::ops::Range;

use super::{
    answer::Ede,
    assemble::{Extra, Frame},
    code::{Rcode, class, ede, option, rtype},
    question::HEADER,
};

/// TTLs beyond it are cut down to it: who moves a name should not wait for longer.
pub const MAX_TTL: u32 = 24 * 60 * 60;
/// Seconds for which "there is no such thing" is believed at most (RFC 2308 §5).
pub const MAX_NEGATIVE_TTL: u32 = 60 * 60;
/// Seconds for which a failure is kept, so that those who insist do not make it worse (RFC 9520 §3.2).
const FAILURE_TTL: u32 = 1;
/// Seconds that a stale record is said to be good for (RFC 8767 §4).
const STALE_TTL: u32 = 30;
/// Compression pointers of one name (RFC 1035 §4.1.4): as many as it can have labels.
const MAX_POINTERS: usize = 127;
/// A record's fields behind its owner: type, class, TTL, the length of RDATA.
const FIELDS: usize = 10;

/// A reply of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The message; its header's id and flags mean nothing any more.
    octets: Box<[u8]>,
    /// Where the TTLs of all records stand.
    ttls: Box<[u16]>,
    /// Where the answer and the authority section end.
    ends: [u16; 2],
    /// With the upper bits of the OPT record (RFC 6891 §6.1.3).
    rcode: u16,
    authentic: bool,
    /// The options of the upstream's OPT record that are meant for the client.
    options: Box<[u8]>,
    ttl: u32,
}

/// Why a message is no reply to what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Another id, another question, or no response at all: somebody guesses, or it is late.
    Foreign,
    /// It answers the question and cannot be read.
    Malformed,
    /// It is cut: the whole of it comes over TCP.
    Truncated,
}

/// How old a reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// So many seconds, fewer than its TTL.
    Fresh(u32),
    /// Beyond its TTL, and nobody had a newer one.
    Stale,
}

impl Reply {
    /// Reads what came back for a message with this id and question section, letter case included (0x20).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(octets: &[u8], id: u16, question: &[u8]) -> Result<Self, Unfit> {
        let (head, body) = octets.split_at_checked(HEADER).ok_or(Unfit::Foreign)?;
        let is_response = head[2] & 0x80 != 0;
        if !is_response || head[..2] != id.to_be_bytes() {
            return Err(Unfit::Foreign);
        }
        let count = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let low = u16::from(head[3] & 0x0f);
        match count(4) {
            1 if body.starts_with(question) => {}
            // Servers that could not read the question leave it out.
            0 if low == Rcode::FormErr as u16 || low == Rcode::NotImp as u16 => return Err(Unfit::Malformed),
            _ => return Err(Unfit::Foreign),
        }
        if head[2] & 0x02 != 0 {
            return Err(Unfit::Truncated);
        }
        // Offsets are 16 bits wide: no transport brings more.
        if octets.len() > usize::from(u16::MAX) {
            return Err(Unfit::Malformed);
        }
        let mut walk = Walk { octets, at: HEADER + question.len() };
        let mut reply = Unfinished { octets: octets.to_vec(), ..Unfinished::default() };
        for (section, field) in [(Section::Answer, 6), (Section::Authority, 8), (Section::Additional, 10)] {
            for _ in 0..count(field) {
                let record = walk.record().ok_or(Unfit::Malformed)?;
                // Records behind an OPT record would have to move, and pointers with them: they are extras.
                if section == Section::Additional && (record.rtype == rtype::OPT || reply.opt.is_some()) {
                    if record.rtype == rtype::OPT {
                        reply.opt(&record, octets)?;
                    }
                    continue;
                }
                reply.record(section, &record, question)?;
            }
            if let Some(end) = reply.ends.get_mut(section as usize) {
                *end = walk.at as u16;
            }
        }
        reply.finish(low, head, question)
    }

    /// A reply without records, of our own making.
    pub fn bare(rcode: Rcode, error: Ede<'_>, question: &[u8]) -> Self {
        let mut octets = vec![0; HEADER];
        octets.extend_from_slice(question);
        let mut options = vec![];
        options.extend(option::EDE.to_be_bytes());
        options.extend((2 + error.text.len() as u16).to_be_bytes());
        options.extend(error.code.to_be_bytes());
        options.extend(error.text.as_bytes());
        let end = octets.len() as u16;
        Self {
            octets: octets.into(),
            ttls: Box::default(),
            ends: [end; 2],
            rcode: rcode as u16,
            authentic: false,
            options: options.into(),
            ttl: FAILURE_TTL,
        }
    }

    /// The response code, extended.
    pub fn rcode(&self) -> u16 {
        self.rcode
    }

    /// Whether it says what there is, or that there is nothing; if not, another upstream may know.
    pub fn is_answer(&self) -> bool {
        self.rcode == Rcode::NoError as u16 || self.rcode == Rcode::NxDomain as u16
    }

    /// Seconds for which it may be handed out again, at most [`MAX_TTL`]; 0: not at all.
    pub fn ttl(&self) -> u32 {
        self.ttl
    }

    /// What it takes in memory, in octets.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.octets.len() + 2 * self.ttls.len() + self.options.len()
    }

    /// Writes it for a client. What does not fit goes as in our own answers: the additional section in silence, then TC is
    /// set. The frame's question is the one that the reply is for, whatever its letter case.
    pub fn write(&self, frame: &Frame<'_>, age: Age, out: &mut Vec<u8>) {
        let extra = match age {
            Age::Fresh(_) => Extra::Options(&self.options),
            Age::Stale => {
                let code = if self.rcode == Rcode::NxDomain as u16 { ede::STALE_NXDOMAIN } else { ede::STALE_ANSWER };
                Extra::Error(Ede { code, text: "no upstream answers" })
            }
        };
        let room = frame.limit.saturating_sub(frame.opt_len());
        let end = HEADER + frame.question.len();
        let (end, whole) = match [self.octets.len(), self.ends[1].into()].into_iter().find(|end| *end <= room) {
            Some(end) => (end, true),
            None => (end, false),
        };
        out.clear();
        out.extend_from_slice(&self.octets[..end]);
        out[HEADER..HEADER + frame.question.len()].copy_from_slice(frame.question);
        for at in self.ttls.iter().map(|at| usize::from(*at)).take_while(|at| *at < end) {
            let field = &mut out[at..at + 4];
            let ttl = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
            let left = match age {
                Age::Fresh(age) => ttl.saturating_sub(age),
                Age::Stale => ttl.min(STALE_TTL),
            };
            field.copy_from_slice(&left.to_be_bytes());
        }
        let header = frame.header;
        let authentic = self.authentic
            && age != Age::Stale
            && (header.authentic_data || frame.edns.is_some_and(|edns| edns.dnssec_ok));
        out[..2].copy_from_slice(&header.id.to_be_bytes());
        out[2] = 0x80 | header.opcode << 3 | u8::from(!whole) << 1 | u8::from(header.recursion_desired);
        out[3] = 0x80 | u8::from(authentic) << 5 | u8::from(header.checking_disabled) << 4 | (self.rcode & 0x0f) as u8;
        out[4..6].copy_from_slice(&1_u16.to_be_bytes());
        if end < usize::from(self.ends[1]) {
            out[6..HEADER].fill(0);
        } else if end < self.octets.len() {
            out[10..HEADER].fill(0);
        }
        if frame.edns.is_some() {
            frame.write_opt((self.rcode >> 4) as u8, extra, out);
            let additionals = u16::from_be_bytes([out[10], out[11]]).saturating_add(1);
            out[10..HEADER].copy_from_slice(&additionals.to_be_bytes());
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Answer,
    Authority,
    Additional,
}

struct Record {
    /// Where the owner's name begins.
    owner: usize,
    rtype: u16,
    class: u16,
    /// Where the TTL stands.
    ttl: usize,
    rdata: Range<usize>,
}

#[derive(Default)]
struct Unfinished {
    octets: Vec<u8>,
    ttls: Vec<u16>,
    ends: [u16; 2],
    /// Where the OPT record begins.
    opt: Option<usize>,
    options: Vec<u8>,
    extended_rcode: u16,
    /// Of all records.
    least: Option<u32>,
    /// For how long the SOA record of the authority section lets an absence be kept.
    negative: Option<u32>,
    /// Records of the answer section of the type that was asked for.
    found: bool,
}

impl Unfinished {
    fn record(&mut self, section: Section, record: &Record, question: &[u8]) -> Result<(), Unfit> {
        if record.rtype == rtype::OPT {
            return Err(Unfit::Malformed);
        }
        let name = &question[..question.len() - 4];
        if let Some(owner) = self.octets.get_mut(record.owner..record.owner + name.len())
            && owner.eq_ignore_ascii_case(name)
        {
            // The letter case that was made up for the upstream is none of the client's.
            owner.make_ascii_lowercase();
        }
        let field = &mut self.octets[record.ttl..record.ttl + 4];
        let ttl = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
        // With the highest bit it is none (RFC 2181 §8).
        let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl.min(MAX_TTL) };
        field.copy_from_slice(&ttl.to_be_bytes());
        self.ttls.push(record.ttl as u16);
        self.least = Some(self.least.map_or(ttl, |least| least.min(ttl)));
        let qtype = &question[name.len()..name.len() + 2];
        match section {
            Section::Answer => {
                self.found |= record.rtype.to_be_bytes() == *qtype || *qtype == rtype::ANY.to_be_bytes();
            }
            Section::Authority if record.rtype == rtype::SOA && record.class == class::IN => {
                // The minimum is the last field (RFC 1035 §3.3.13).
                let minimum = self.octets[record.rdata.clone()].last_chunk().map(|octets| u32::from_be_bytes(*octets));
                self.negative = minimum.map(|minimum| ttl.min(minimum).min(MAX_NEGATIVE_TTL));
            }
            Section::Authority | Section::Additional => {}
        }
        Ok(())
    }

    fn opt(&mut self, record: &Record, octets: &[u8]) -> Result<(), Unfit> {
        if self.opt.is_some() || octets[record.owner] != 0 {
            return Err(Unfit::Malformed);
        }
        self.opt = Some(record.owner);
        self.extended_rcode = u16::from(octets[record.ttl]) << 4;
        let mut rdata = &octets[record.rdata.clone()];
        while let [c0, c1, l0, l1, rest @ ..] = rdata {
            let len = usize::from(u16::from_be_bytes([*l0, *l1]));
            let (_, next) = rest.split_at_checked(len).ok_or(Unfit::Malformed)?;
            if !option::is_for_one_hop(u16::from_be_bytes([*c0, *c1])) {
                self.options.extend_from_slice(&rdata[..4 + len]);
            }
            rdata = next;
        }
        if rdata.is_empty() { Ok(()) } else { Err(Unfit::Malformed) }
    }

    fn finish(mut self, low: u16, head: &[u8], question: &[u8]) -> Result<Reply, Unfit> {
        if let Some(opt) = self.opt {
            self.octets.truncate(opt);
            let kept = self.ttls.len() - usize::from(count_of(head, 6)) - usize::from(count_of(head, 8));
            self.octets[10..HEADER].copy_from_slice(&(kept as u16).to_be_bytes());
        }
        let rcode = low | self.extended_rcode;
        let is_negative = rcode == Rcode::NxDomain as u16 || rcode == Rcode::NoError as u16 && !self.found;
        let ttl = match rcode {
            // An absence that nobody vouches for is not kept (RFC 2308 §5).
            0 | 3 if is_negative => self.negative.unwrap_or(0).min(self.least.unwrap_or(0)),
            0 => self.least.unwrap_or(0),
            _ => FAILURE_TTL,
        };
        debug_assert!(self.octets.len() >= HEADER + question.len());
        Ok(Reply {
            octets: self.octets.into(),
            ttls: self.ttls.into(),
            ends: self.ends,
            rcode,
            authentic: head[3] & 0x20 != 0,
            options: self.options.into(),
            ttl,
        })
    }
}

fn count_of(head: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([head[at], head[at + 1]])
}

/// Goes from record to record.
struct Walk<'m> {
    octets: &'m [u8],
    at: usize,
}

impl Walk<'_> {
    fn record(&mut self) -> Option<Record> {
        let owner = self.at;
        let fields = self.name(owner)?;
        let field = |at: usize| Some(u16::from_be_bytes([*self.octets.get(at)?, *self.octets.get(at + 1)?]));
        let (rtype, class) = (field(fields)?, field(fields + 2)?);
        let rdata = fields + FIELDS;
        let end = rdata + usize::from(field(fields + 8)?);
        if end > self.octets.len() {
            return None;
        }
        self.at = end;
        Some(Record { owner, rtype, class, ttl: fields + 4, rdata: rdata..end })
    }

    /// Where a name ends that begins at `start`; `None` where it is not whole, or goes round in circles.
    fn name(&self, start: usize) -> Option<usize> {
        let (mut at, mut end, mut pointers) = (start, None, 0);
        loop {
            match *self.octets.get(at)? {
                0 => return Some(end.unwrap_or(at + 1)),
                len @ 1..=0x3f => at += 1 + usize::from(len),
                high @ 0xc0..=0xff => {
                    let to = usize::from(high & 0x3f) << 8 | usize::from(*self.octets.get(at + 1)?);
                    end = end.or(Some(at + 2));
                    pointers += 1;
                    // Only to what stands before (RFC 1035 §4.1.4).
                    if to >= at || pointers > MAX_POINTERS {
                        return None;
                    }
                    at = to;
                }
                0x40..=0xbf => return None,
            }
        }
    }
}
