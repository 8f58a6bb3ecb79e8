//! The query that is sent to an upstream for a client's query.
//!
//! The question, DO, CD and unknown EDNS options are passed on. Hop-by-hop options (cookies, padding, payload size) are not. The
//! letter case of the name is random in each message and must come back (0x20), so that a forger must guess it besides id
//! and port (RFC 5452 §9.1).

use fastrand::Rng;

use super::{
    cache::Key,
    upstream_reply::{Reply, ReplyError},
};
use crate::dns::message::{
    codes::{class, option, rtype},
    query::{HEADER, LookupName, Query},
};

/// Largest reply accepted over UDP, which avoids fragmentation on common paths (RFC 9715).
const PAYLOAD: u16 = 1232;

/// A question to an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The question section, in lower case.
    question: Box<[u8]>,
    /// Options of the client that are passed on.
    options: Box<[u8]>,
    dnssec_ok: bool,
    checking_disabled: bool,
    key: Box<[u8]>,
}

/// Features that an upstream supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manners {
    /// EDNS (RFC 6891 §7).
    pub edns: bool,
    /// Repeats the letter case of the question.
    pub case: bool,
}

impl Default for Manners {
    /// All features.
    fn default() -> Self {
        Self { edns: true, case: true }
    }
}

/// A message to an upstream.
#[derive(Clone, Debug)]
pub struct Message {
    /// The message.
    pub octets: Vec<u8>,
    question: usize,
}

impl Forward {
    /// Returns the question of a client's `packet`, parsed as `query`, for `name`: the name of the query or the end of its CNAME
    /// chain.
    pub fn new(packet: &[u8], query: &Query<'_>, name: &LookupName) -> Self {
        let (_, fields) = query.question.split_at(query.question.len() - 4);
        Self {
            options: options(packet, HEADER + query.question.len()).into(),
            question: [name.wire(), fields].concat().into(),
            dnssec_ok: query.edns.is_some_and(|edns| edns.dnssec_ok),
            checking_disabled: query.header.checking_disabled,
            key: Key::new(query, name).as_bytes().into(),
        }
    }

    /// Returns a question for `name`, in wire form and lower case, that tests for a forwarding loop.
    pub fn probe(name: &[u8]) -> Self {
        let fields = [rtype::TXT.to_be_bytes(), class::IN.to_be_bytes()].concat();
        Self {
            question: [name, &fields].concat().into(),
            options: Box::default(),
            dnssec_ok: false,
            checking_disabled: false,
            key: Box::default(),
        }
    }

    /// Returns a question for a record of the chain of trust, from the cache of questions with DO and CD.
    pub fn chain(name: &LookupName, rtype: u16) -> Self {
        let fields = [rtype.to_be_bytes(), class::IN.to_be_bytes()].concat();
        Self {
            question: [name.wire(), &fields].concat().into(),
            options: Box::default(),
            dnssec_ok: true,
            checking_disabled: true,
            key: Key::unvalidated(name, rtype).as_bytes().into(),
        }
    }

    /// Returns the question for an upstream whose reply is validated here: with DO, so that the upstream sends signatures, and CD, so
    /// that it does not withhold what it finds bogus. The cache key stays that of the client's question.
    pub fn for_validation(&self) -> Self {
        Self { dnssec_ok: true, checking_disabled: true, ..self.clone() }
    }

    /// Reports whether the client takes signatures and proofs.
    pub fn dnssec_ok(&self) -> bool {
        self.dnssec_ok
    }

    /// Reports whether the client validates itself (RFC 4035 §3.2.2).
    pub fn checking_disabled(&self) -> bool {
        self.checking_disabled
    }

    /// The type in question.
    pub fn qtype(&self) -> u16 {
        self.field(4)
    }

    /// The class in question.
    pub fn qclass(&self) -> u16 {
        self.field(2)
    }

    fn field(&self, from_end: usize) -> u16 {
        let at = self.question.len() - from_end;
        u16::from_be_bytes([self.question[at], self.question[at + 1]])
    }

    /// The cache key of the reply.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Reports whether clients with the same question may share the reply.
    pub fn is_shared(&self) -> bool {
        self.options.is_empty()
    }

    /// The question section, in lower case.
    pub fn question(&self) -> &[u8] {
        &self.question
    }

    /// The name in the question, in wire form and lower case.
    pub fn name(&self) -> &[u8] {
        &self.question[..self.question.len() - 4]
    }

    /// Returns a message for an upstream with these features. Without EDNS, DO and options are not passed on.
    pub fn message(&self, Manners { edns, case }: Manners, rng: &mut Rng) -> Message {
        let [i0, i1] = rng.u16(..).to_be_bytes();
        // AD asks whether the answer is authentic, without signatures (RFC 6840 §5.7).
        let flags = 0x20 | u8::from(self.checking_disabled) << 4;
        let mut octets = vec![i0, i1, 0x01, flags, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
        octets.extend_from_slice(&self.question);
        for octet in &mut octets[HEADER..HEADER + self.name().len()] {
            if case && octet.is_ascii_lowercase() && rng.bool() {
                octet.make_ascii_uppercase();
            }
        }
        if edns {
            let [p0, p1] = PAYLOAD.to_be_bytes();
            let [l0, l1] = (self.options.len() as u16).to_be_bytes();
            let flags = u8::from(self.dnssec_ok) << 7;
            octets.extend([0, 0, rtype::OPT as u8, p0, p1, 0, 0, flags, 0, l0, l1]);
            octets.extend_from_slice(&self.options);
        }
        Message { octets, question: self.question.len() }
    }
}

impl Message {
    /// Parses the reply to this message.
    ///
    /// # Errors
    /// The first fault of the reply.
    pub fn reply(&self, octets: &[u8]) -> Result<Reply, ReplyError> {
        let id = u16::from_be_bytes([self.octets[0], self.octets[1]]);
        Reply::read(octets, id, &self.octets[HEADER..HEADER + self.question])
    }
}

/// Returns the options of a query's OPT record that are passed on. The query was parsed before, so its records are whole.
fn options(packet: &[u8], mut at: usize) -> Vec<u8> {
    let mut found = vec![];
    // A query rarely has records besides OPT. They are skipped by their length.
    while let Some(rest) = packet.get(at..) {
        let Some(owner) = owner_len(rest) else { break };
        let Some([t0, t1, _, _, _, _, _, _, l0, l1]) = rest.get(owner..owner + 10) else { break };
        let (start, len) = (at + owner + 10, usize::from(u16::from_be_bytes([*l0, *l1])));
        let Some(mut rdata) = packet.get(start..start + len) else { break };
        at = start + len;
        if u16::from_be_bytes([*t0, *t1]) != rtype::OPT {
            continue;
        }
        while let [c0, c1, l0, l1, rest @ ..] = rdata {
            let len = usize::from(u16::from_be_bytes([*l0, *l1]));
            let Some(next) = rest.get(len..) else { break };
            if !option::is_for_one_hop(u16::from_be_bytes([*c0, *c1])) {
                found.extend_from_slice(&rdata[..4 + len]);
            }
            rdata = next;
        }
    }
    found
}

fn owner_len(rest: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *rest.get(at)? {
            0 => return Some(at + 1),
            0xc0.. => return Some(at + 2),
            len => at += 1 + usize::from(len),
        }
    }
}
