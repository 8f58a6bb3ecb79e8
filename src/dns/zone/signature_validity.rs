//! Times of the signatures of a zone that another tool has signed.

use super::rrset::RRset;
use crate::dns::message::codes::rtype;

/// Times between which the signatures of a zone are valid, in seconds since 1970 modulo 2^32 (RFC 4034 §3.1.5). Of several signatures of
/// an RRset, one must be valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Time from which all RRsets have a valid signature.
    pub from: u32,
    /// Time at which the first RRset loses its last signature.
    pub until: u32,
    /// Time at which the last signature ends.
    pub last: u32,
}

impl Validity {
    /// Returns the times of the signatures of these names; `None` without one.
    pub(super) fn of<'n>(names: impl Iterator<Item = (&'n [u8], &'n [RRset])>) -> Option<Self> {
        let sets = names.flat_map(|(_, rrsets)| rrsets).filter(|set| set.rtype == rtype::RRSIG);
        sets.fold(None, |known: Option<Self>, set| {
            // Behind the covered type, algorithm, labels and TTL: expiration and inception (RFC 4034 §3.1).
            let time = |octets: &[u8], at: usize| octets.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
            let times = |at| set.records.iter().filter_map(move |rdata| time(&rdata.octets, at));
            let (Some(until), Some(from)) = (times(8).max(), times(12).min()) else { return known };
            Some(known.map_or(Self { from, until, last: until }, |known| Self {
                from: known.from.max(from),
                until: known.until.min(until),
                last: known.last.max(until),
            }))
        })
    }
}
