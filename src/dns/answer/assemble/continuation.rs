//! An answer that begins in our zones and ends at an upstream, or the other way round.

use fastrand::Rng;

use super::{HEADER, MAX_POINTER, Scratch, Section, Signing, Writer};
use crate::dns::{
    answer::{Answer, Ede, UpstreamAnswer, frame::Frame},
    message::codes::rtype,
};

/// Encoded CNAMEs of our zones, kept while an upstream is queried for the last target.
#[derive(Debug)]
pub struct Chain {
    /// The records, encoded to follow the question.
    records: Box<[u8]>,
    count: u16,
    /// Proofs for the authority section, encoded for any place.
    proofs: Box<[u8]>,
    proof_count: u16,
    /// True if all records fit.
    whole: bool,
}

impl Chain {
    /// Reports whether the authority section has proofs of the CNAMEs.
    pub fn has_proofs(&self) -> bool {
        self.proof_count > 0
    }
}

/// Encodes the CNAMEs of an answer for [`complete`]. The content of `out` is unspecified afterwards.
pub fn begin<'o, 'z>(
    frame: &Frame<'_>,
    answer: &Answer<'z>,
    signing: Option<&'o mut Signing<'z>>,
    rng: &mut Rng,
    scratch: &mut Scratch,
    out: &'o mut Vec<u8>,
) -> Chain {
    let mut writer = Writer { signing, ..Writer::new(frame, answer.question_zone, frame.opt_len(), out) };
    let whole = answer.answer.iter().all(|group| writer.signed_answer(group, frame.client, rng, scratch));
    let end = writer.out.len();
    writer.is_movable = true;
    let whole = whole && writer.proofs();
    let [count, proof_count, _] = writer.counts;
    let (records, proofs) = writer.out[HEADER + frame.question.len()..].split_at(end - HEADER - frame.question.len());
    Chain { records: records.into(), count, proofs: proofs.into(), proof_count, whole }
}

/// Writes a reply of our CNAMEs followed by the upstream's records for the last target. A failure is relayed without the
/// CNAMEs.
pub fn complete(frame: &Frame<'_>, chain: &Chain, upstream: &UpstreamAnswer, out: &mut Vec<u8>) {
    let mut writer = Writer::new(frame, None, frame.opt_len(), out);
    let mut whole = true;
    if upstream.is_answer {
        writer.out.extend_from_slice(&chain.records);
        writer.counts[Section::Answer as usize] = chain.count;
        whole = chain.whole
            && upstream.answer.iter().all(|record| writer.upstream_record(record, Section::Answer))
            && upstream.authority.iter().all(|record| writer.upstream_record(record, Section::Authority))
            && writer.encoded(&chain.proofs, chain.proof_count, Section::Authority);
    }
    let ede = upstream.ede.as_ref().map(|(code, text)| Ede { code: *code, text });
    writer.opt(frame, upstream.rcode, ede);
    writer.finish(frame, upstream.rcode, true, !whole);
}

/// Writes a reply of our CNAMEs, if the answer began with them, the upstream's CNAMEs, and our answer to the target of the last one
/// (of [`lookup_target`](crate::dns::zone::Tables::lookup_target)).
pub fn continue_in_zones(
    frame: &Frame<'_>,
    chain: Option<&Chain>,
    upstream: &UpstreamAnswer,
    answer: &Answer<'_>,
    rng: &mut Rng,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    let mut writer = Writer::new(frame, None, frame.opt_len(), out);
    let mut whole = chain.is_none_or(|chain| chain.whole);
    if let Some(chain) = chain {
        writer.out.extend_from_slice(&chain.records);
        writer.counts[Section::Answer as usize] = chain.count;
    }
    for record in &upstream.answer {
        whole = whole && writer.upstream_record(record, Section::Answer);
        if record.rtype == rtype::CNAME {
            writer.target = writer.out.len() - record.rdata.len();
        }
    }
    // Our first record points at the target.
    whole = whole && writer.target <= MAX_POINTER && writer.sections(frame, answer, rng, scratch);
    writer.opt(frame, answer.rcode, answer.ede);
    // Of the name in question, which has the first CNAME (RFC 1035 §4.1.1).
    writer.finish(frame, answer.rcode, chain.is_some(), !whole);
}
