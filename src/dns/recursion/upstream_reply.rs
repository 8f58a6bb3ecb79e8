//! An upstream's reply, stored so that it can be relayed unchanged.
//!
//! A [`Reply`] is the upstream's message without its OPT record, with records of any type and names compressed as received.
//! Relaying copies it and sets only the client's fields (id, flags, letter case of the question, OPT record) and the TTLs.
//! No record is decoded, so none is lost.

use super::validation::Security;
use crate::dns::{
    answer::{
        Ede, UpstreamAnswer, UpstreamRecord,
        frame::{Extra, Frame},
    },
    message::{
        codes::{Rcode, class, ede, option, rtype},
        query::HEADER,
        record_walk::{Record, Walk},
    },
};

mod screening;
#[cfg(test)]
mod tests;

/// TTL in seconds of a cached failure, which limits retries (RFC 9520 §3.2).
const FAILURE_TTL: u32 = 1;
/// TTL in seconds of a bogus reply: a corrected zone is back soon, and a name costs few validations (RFC 4035 §4.7, RFC 9520 §3.2).
const BOGUS_TTL: u32 = 30;
/// TTL in seconds of stale records in answers (RFC 8767 §4).
const STALE_TTL: u32 = 30;

/// A reply of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The message. Id and flags of its header are unused.
    octets: Box<[u8]>,
    /// Offsets of all TTLs.
    ttls: Box<[u16]>,
    /// Ends of the answer and the authority section.
    ends: [u16; 2],
    /// Response code with the upper bits of the OPT record (RFC 6891 §6.1.3).
    rcode: u16,
    authentic: bool,
    security: Security,
    /// End-to-end options of the upstream's OPT record.
    options: Box<[u8]>,
    ttl: u32,
    /// True for NXDOMAIN and NODATA.
    negative: bool,
    /// Target of the last CNAME of an answer without records of the type in question: the upstream does not know the target.
    alias: Option<Box<[u8]>>,
}

/// Reason that a message is not a reply to the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// Other id, other question, or not a response: forged or late.
    Foreign,
    /// Other letter case of the question: forged, or the server does not preserve it.
    OtherCase,
    /// Answers the question but cannot be parsed.
    Malformed,
    /// Header with this error code, without a question: some servers answer so if they do not know EDNS, or refuse a client.
    HeaderOnly(Rcode),
    /// Truncated; TCP brings the whole reply.
    Truncated,
}

/// Age of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Age in seconds, less than the TTL.
    Fresh(u32),
    /// Past its TTL; no upstream had a newer reply.
    Stale,
}

impl Reply {
    /// Parses the reply to a message with this id and question section, letter case included (0x20).
    ///
    /// # Errors
    /// The first fault of the message.
    pub fn read(octets: &[u8], id: u16, question: &[u8]) -> Result<Self, ReplyError> {
        let (head, body) = octets.split_at_checked(HEADER).ok_or(ReplyError::Foreign)?;
        // QR is set and the opcode is 0.
        let is_response = head[2] & 0xf8 == 0x80;
        if !is_response || head[..2] != id.to_be_bytes() {
            return Err(ReplyError::Foreign);
        }
        let count = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let low = u16::from(head[3] & 0x0f);
        match count(4) {
            1 if body.starts_with(question) => {}
            1 if body.get(..question.len()).is_some_and(|other| other.eq_ignore_ascii_case(question)) => {
                return Err(ReplyError::OtherCase);
            }
            // A forged one ends the query with a failure, as does a forged reply that repeats the question.
            count if count == 0 || body.is_empty() => {
                return Err(header_only_error(low).map_or(ReplyError::Foreign, ReplyError::HeaderOnly));
            }
            _ => return Err(ReplyError::Foreign),
        }
        if head[2] & 0x02 != 0 {
            return Err(ReplyError::Truncated);
        }
        // Offsets have 16 bits, like the length of messages.
        if octets.len() > usize::from(u16::MAX) {
            return Err(ReplyError::Malformed);
        }
        let mut walk = Walk::new(octets, HEADER + question.len());
        let mut reply = Unfinished { octets: octets.to_vec(), ..Unfinished::default() };
        for (section, field) in [(Section::Answer, 6), (Section::Authority, 8), (Section::Additional, 10)] {
            for _ in 0..count(field) {
                let record = walk.record().ok_or(ReplyError::Malformed)?;
                // OPT and TSIG are hop-by-hop and removed. Records behind them are removed, too: moving them would break
                // compression pointers, and additional records are optional.
                if section == Section::Additional && (is_for_one_hop(record.rtype) || reply.cut.is_some()) {
                    reply.cut.get_or_insert(record.owner);
                    if record.rtype == rtype::OPT {
                        reply.opt(&record, octets)?;
                    }
                    continue;
                }
                if !walk.has_good_names(&record) {
                    return Err(ReplyError::Malformed);
                }
                reply.record(section, &record, question)?;
            }
            if let Some(end) = reply.ends.get_mut(section as usize) {
                *end = walk.at() as u16;
            }
        }
        // Octets behind the last record are ignored.
        reply.octets.truncate(walk.at());
        reply.finish(low, head, question)
    }

    /// Returns a reply without records, made by this server.
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
            security: Security::Unvalidated,
            options: options.into(),
            ttl: FAILURE_TTL,
            negative: false,
            alias: None,
        }
    }

    /// Returns the reply with its security status. Only a secure one is marked as authentic: the flag of the upstream does not count.
    #[must_use]
    pub fn with_security(self, security: Security) -> Self {
        let ttl = if security == Security::Bogus { BOGUS_TTL } else { self.ttl };
        Self { security, authentic: security == Security::Secure, ttl, ..self }
    }

    /// Returns the security status.
    pub fn security(&self) -> Security {
        self.security
    }

    /// Reports whether the reply, if it is stale, is a better answer than `failure` (RFC 8767 §4). A bogus reply may be an attack,
    /// so only a secure one stands for it.
    pub fn may_stand_for(&self, failure: &Self) -> bool {
        self.is_answer() && (failure.security != Security::Bogus || self.security == Security::Secure)
    }

    /// Returns the Extended DNS Error of the reply.
    pub fn error(&self) -> Option<(u16, String)> {
        error_in(&self.options)
    }

    /// Returns the message with its flags, of a code below 16.
    pub fn to_message(&self) -> Vec<u8> {
        let mut octets = self.octets.to_vec();
        octets[..2].fill(0);
        (octets[2], octets[3]) = (0x81, 0x80 | (self.rcode & 0x0f) as u8);
        octets
    }

    /// Returns the extended response code.
    pub fn rcode(&self) -> u16 {
        self.rcode
    }

    /// Reports whether the code is NOERROR or NXDOMAIN. With any other code, another upstream may answer.
    pub fn is_answer(&self) -> bool {
        self.rcode == Rcode::NoError as u16 || self.rcode == Rcode::NxDomain as u16
    }

    /// Returns the target, in wire form, of a CNAME that ends the answer; `None` if the answer has records of the type in question.
    pub fn alias(&self) -> Option<&[u8]> {
        self.alias.as_deref().filter(|_| self.is_answer())
    }

    /// Returns the TTL in seconds for caching; 0 forbids it.
    pub fn ttl(&self) -> u32 {
        self.ttl
    }

    /// Caps all TTLs at `ttl` seconds, or at `negative` seconds for a negative reply.
    pub fn bounded(mut self, ttl: u32, negative: u32) -> Self {
        let most = if self.negative { negative } else { ttl };
        for at in &self.ttls {
            let field = &mut self.octets[usize::from(*at)..][..4];
            let known = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
            field.copy_from_slice(&known.min(most).to_be_bytes());
        }
        self.ttl = self.ttl.min(most);
        self
    }

    /// Returns its size in memory in octets.
    pub fn size(&self) -> usize {
        let alias = self.alias.as_ref().map_or(0, |alias| alias.len());
        size_of::<Self>() + self.octets.len() + 2 * self.ttls.len() + self.options.len() + alias
    }

    /// Returns the records as values, for an answer whose CNAME chain begins in our zones.
    pub fn to_answer(&self, age: Age) -> UpstreamAnswer {
        let section = |from: usize, to: usize| {
            let mut walk = Walk::new(&self.octets, from);
            let mut records = Vec::new();
            while walk.at() < to {
                let record = walk.record()?;
                if record.class != class::IN {
                    continue;
                }
                let (owner, octets) = (walk.whole_name(record.owner)?, walk.whole_rdata(&record)?);
                let ttl = self.ttl_at(record.ttl, age);
                records.push(UpstreamRecord { owner: owner.into(), rtype: record.rtype, ttl, rdata: octets.into() });
            }
            Some(records)
        };
        let [answer, authority] = self.ends.map(usize::from);
        let start = Walk::new(&self.octets, HEADER).after_question();
        let sections = start.and_then(|start| section(start, answer)).zip(section(answer, authority));
        // The message was validated before, so this does not happen.
        let Some((answer, authority)) = sections else {
            let ede = Some((ede::OTHER, "the upstream's reply cannot be read".to_owned()));
            return UpstreamAnswer { rcode: Rcode::ServFail, is_answer: false, answer: vec![], authority: vec![], ede };
        };
        let ede = match age {
            Age::Fresh(_) => error_in(&self.options),
            Age::Stale => Some(self.stale()).map(|ede| (ede.code, ede.text.to_owned())),
        };
        let rcode = Rcode::from_number(self.rcode).unwrap_or(Rcode::ServFail);
        UpstreamAnswer { rcode, is_answer: self.is_answer(), answer, authority, ede }
    }

    /// Returns the TTL at offset `at` for a client.
    fn ttl_at(&self, at: usize, age: Age) -> u32 {
        let field = &self.octets[at..at + 4];
        let ttl = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
        match age {
            Age::Fresh(age) => ttl.saturating_sub(age),
            Age::Stale => ttl.min(STALE_TTL),
        }
    }

    fn stale(&self) -> Ede<'static> {
        let code = if self.rcode == Rcode::NxDomain as u16 { ede::STALE_NXDOMAIN } else { ede::STALE_ANSWER };
        Ede { code, text: "no upstream has a usable answer" }
    }

    /// Writes the reply for a client. If it does not fit, the additional section is dropped first without TC, then TC is set.
    /// The frame's question equals that of the reply except for letter case.
    pub fn write(&self, frame: &Frame<'_>, age: Age, out: &mut Vec<u8>) {
        let extra = match age {
            Age::Fresh(_) => Extra::Options(&self.options),
            Age::Stale => Extra::Error(self.stale()),
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
            out[at..at + 4].copy_from_slice(&self.ttl_at(at, age).to_be_bytes());
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

#[derive(Default)]
struct Unfinished {
    octets: Vec<u8>,
    ttls: Vec<u16>,
    ends: [u16; 2],
    /// Offset of the first hop-by-hop record.
    cut: Option<usize>,
    has_opt: bool,
    options: Vec<u8>,
    extended_rcode: u16,
    /// Smallest TTL of all records.
    least: Option<u32>,
    /// Negative TTL of the SOA record in the authority section.
    negative: Option<u32>,
    /// True if the answer section has a record of the type in question.
    found: bool,
}

impl Unfinished {
    fn record(&mut self, section: Section, record: &Record, question: &[u8]) -> Result<(), ReplyError> {
        if is_for_one_hop(record.rtype) {
            return Err(ReplyError::Malformed);
        }
        let name = &question[..question.len() - 4];
        if let Some(owner) = self.octets.get_mut(record.owner..record.owner + name.len())
            && owner.eq_ignore_ascii_case(name)
        {
            // Removes the random letter case of the question to the upstream.
            owner.make_ascii_lowercase();
        }
        let field = &mut self.octets[record.ttl..record.ttl + 4];
        let ttl = u32::from_be_bytes([field[0], field[1], field[2], field[3]]);
        // A TTL with the highest bit set counts as 0 (RFC 2181 §8).
        let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
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
                self.negative = minimum.map(|minimum| ttl.min(minimum));
            }
            Section::Authority | Section::Additional => {}
        }
        Ok(())
    }

    fn opt(&mut self, record: &Record, octets: &[u8]) -> Result<(), ReplyError> {
        if self.has_opt || octets[record.owner] != 0 {
            return Err(ReplyError::Malformed);
        }
        self.has_opt = true;
        self.extended_rcode = u16::from(octets[record.ttl]) << 4;
        let mut rdata = &octets[record.rdata.clone()];
        while let [c0, c1, l0, l1, rest @ ..] = rdata {
            let len = usize::from(u16::from_be_bytes([*l0, *l1]));
            let (_, next) = rest.split_at_checked(len).ok_or(ReplyError::Malformed)?;
            if !option::is_for_one_hop(u16::from_be_bytes([*c0, *c1])) {
                self.options.extend_from_slice(&rdata[..4 + len]);
            }
            rdata = next;
        }
        if rdata.is_empty() { Ok(()) } else { Err(ReplyError::Malformed) }
    }

    fn finish(mut self, low: u16, head: &[u8], question: &[u8]) -> Result<Reply, ReplyError> {
        if let Some(cut) = self.cut {
            self.octets.truncate(cut);
            let kept = self.ttls.len() - usize::from(count_of(head, 6)) - usize::from(count_of(head, 8));
            self.octets[10..HEADER].copy_from_slice(&(kept as u16).to_be_bytes());
        }
        // Removes the random letter case of the question to the upstream.
        self.octets[HEADER..HEADER + question.len() - 4].make_ascii_lowercase();
        let rcode = low | self.extended_rcode;
        let is_negative = rcode == Rcode::NxDomain as u16 || rcode == Rcode::NoError as u16 && !self.found;
        let ttl = match rcode {
            // A negative reply without an SOA is not cached (RFC 2308 §5).
            0 | 3 if is_negative => self.negative.unwrap_or(0).min(self.least.unwrap_or(0)),
            0 => self.least.unwrap_or(0),
            _ => FAILURE_TTL,
        };
        debug_assert!(self.octets.len() >= HEADER + question.len());
        let reply = Reply {
            octets: self.octets.into(),
            ttls: self.ttls.into(),
            ends: self.ends,
            rcode,
            authentic: head[3] & 0x20 != 0,
            security: Security::Unvalidated,
            options: self.options.into(),
            ttl,
            negative: is_negative,
            alias: None,
        };
        Ok(if self.found { reply } else { reply.with_alias() })
    }
}

/// Returns the error of a reply without a question; `None` for codes that need one.
fn header_only_error(code: u16) -> Option<Rcode> {
    let errors = [Rcode::FormErr, Rcode::ServFail, Rcode::NotImp, Rcode::Refused];
    errors.into_iter().find(|error| *error as u16 == code)
}

/// Reports whether records of this type are hop-by-hop (RFC 6891 §6.1.1, RFC 8945 §5.1).
fn is_for_one_hop(rtype: u16) -> bool {
    rtype == rtype::OPT || rtype == rtype::TSIG
}

fn count_of(head: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([head[at], head[at + 1]])
}

/// Returns the first Extended DNS Error among these options (RFC 8914 §2).
fn error_in(mut options: &[u8]) -> Option<(u16, String)> {
    while let [c0, c1, l0, l1, rest @ ..] = options {
        let (data, next) = rest.split_at_checked(u16::from_be_bytes([*l0, *l1]).into())?;
        if u16::from_be_bytes([*c0, *c1]) == option::EDE
            && let [i0, i1, text @ ..] = data
        {
            return Some((u16::from_be_bytes([*i0, *i1]), String::from_utf8_lossy(text).into_owned()));
        }
        options = next;
    }
    None
}

/// Returns the smallest TTL in the answer and authority sections of a message; `None` without records or if it cannot be
/// parsed.
pub fn least_ttl(message: &[u8]) -> Option<u32> {
    let counts = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    let mut walk = Walk::new(message, Walk::new(message, HEADER).after_question()?);
    let records = (0..u32::from(counts(6)?) + u32::from(counts(8)?)).map_while(|_| walk.record());
    let ttl = |record: Record| message.get(record.ttl..)?.first_chunk().map(|field| u32::from_be_bytes(*field));
    records.filter_map(ttl).min()
}
