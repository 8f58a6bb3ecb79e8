//! Signatures of RRsets, made once per content and key.
//!
//! The key of the cache is the whole content of an RRset: owner, type, TTL and all RDATA in canonical form. So a signature
//! never outlives the records that it covers. Clients choose the names in proofs of absence.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use quick_cache::Weighter;
use ring::rand::SecureRandom;

use super::{
    canonical,
    key::{ALGORITHM, Key, SIGNATURE},
    zone_keys::ZoneKeys,
};
use crate::{
    dns::{
        bounded_cache::{BoundedCache, bounded},
        message::codes::class,
    },
    metrics::{Dnssec, SignatureTally},
};

/// Seconds from a signature's inception to now: clocks of validators may be behind by an hour.
const INCEPTION: u64 = 60 * 60;
/// Seconds from now to a signature's expiration, as in other servers: outlives a weekend of a cache or of a clock that is ahead.
const EXPIRATION: u64 = 7 * 24 * 60 * 60;
/// Seconds after which a signature is made again. Five days remain then, longer than any TTL.
const REFRESH: u64 = 24 * 60 * 60;
/// Maximum of random seconds added to [`REFRESH`], so that signatures made together are not made again together.
const JITTER: u64 = 24 * 60 * 60;
/// Octets of the cache: some 100,000 signatures. A signature takes some 20 µs to make, so a miss costs little.
const CAPACITY: usize = 32 << 20;
/// Octets of an entry besides its key and signatures: table slot, pointers, counters.
const OVERHEAD: usize = 96;
/// Octets of a typical entry, for the initial size of the table.
const TYPICAL: usize = 384;
/// Octets of RRSIG RDATA in front of the signer's name (RFC 4034 §3.1).
const RRSIG_FIELDS: usize = 18;
/// Octets of a [`Content`] in front of the owner name.
const CONTENT_FIELDS: usize = 14;

/// Makes signatures and keeps them.
pub struct Signer {
    entries: BoundedCache<Arc<Signatures>, Weight>,
    jitter: RandomState,
    random: Box<dyn SecureRandom + Send + Sync>,
    counted: Dnssec,
}

/// Signatures of an RRset: one per signing key.
#[derive(Debug)]
pub struct Signatures {
    /// RDATA of the RRSIG records, of equal length each.
    octets: Box<[u8]>,
    /// Length of one RDATA.
    len: usize,
    /// Unix time in seconds at which they are made again.
    refresh: u64,
}

/// Content of an RRset, reused between RRsets.
#[derive(Default)]
pub struct Content {
    octets: Vec<u8>,
    rtype: u16,
}

/// Permission to make signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Signatures from the cache only.
    Cached,
    /// Missing signatures are made.
    Any,
}

impl Content {
    /// Begins an RRset with this owner, of any letter case. A wildcard's name is the owner of what is expanded from it
    /// (RFC 4035 §5.3.2).
    pub fn begin(&mut self, keys: &ZoneKeys, owner: &[u8], rtype: u16, ttl: u32) {
        self.rtype = rtype;
        self.octets.clear();
        self.octets.extend_from_slice(&keys.id);
        self.octets.extend_from_slice(&rtype.to_be_bytes());
        self.octets.extend_from_slice(&ttl.to_be_bytes());
        self.octets.extend_from_slice(owner);
        // Length octets are below any letter.
        self.octets[CONTENT_FIELDS..].make_ascii_lowercase();
    }

    /// Adds a record, whose RDATA `parts` make up, with uncompressed names.
    pub fn add(&mut self, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.octets.extend_from_slice(&(len as u16).to_be_bytes());
        let start = self.octets.len();
        parts.iter().for_each(|part| self.octets.extend_from_slice(part));
        canonical::fold_rdata(self.rtype, &mut self.octets[start..]);
    }

    /// Returns owner and RDATA of all records.
    fn parts(&self) -> (&[u8], Vec<&[u8]>) {
        let mut at = CONTENT_FIELDS;
        while self.octets[at] != 0 {
            at += 1 + usize::from(self.octets[at]);
        }
        let (owner, mut rest) = self.octets[CONTENT_FIELDS..].split_at(at + 1 - CONTENT_FIELDS);
        let mut rdatas = Vec::new();
        while let [high, low, after @ ..] = rest {
            let (rdata, after) = after.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            rdatas.push(rdata);
            rest = after;
        }
        (owner, rdatas)
    }

    fn ttl(&self) -> [u8; 4] {
        [self.octets[10], self.octets[11], self.octets[12], self.octets[13]]
    }
}

impl Signatures {
    /// Returns the RDATA of each RRSIG record.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.octets.chunks_exact(self.len)
    }
}

impl Signer {
    /// Returns a signer without signatures, which `counted` counts.
    pub fn new(random: Box<dyn SecureRandom + Send + Sync>, counted: Dnssec) -> Self {
        Self { entries: bounded(CAPACITY, TYPICAL, Weight), jitter: RandomState::new(), random, counted }
    }

    /// Returns a new tally of its signatures.
    pub fn tally(&self) -> Arc<SignatureTally> {
        self.counted.tally()
    }

    /// Returns the signatures of an RRset; `now` is the Unix time. `None` if they have to be made and `effort` does not permit
    /// it, or if there are no random numbers.
    pub fn sign(
        &self,
        keys: &ZoneKeys,
        content: &Content,
        now: Duration,
        effort: Effort,
        tally: &SignatureTally,
    ) -> Option<Arc<Signatures>> {
        let now = now.as_secs();
        // A clock that was set back makes signatures whose inception is in the future.
        let is_current = |found: &Signatures| now < found.refresh && found.refresh < now + REFRESH + JITTER + INCEPTION;
        if let Some(found) = self.entries.get(&*content.octets)
            && is_current(&found)
        {
            tally.cached();
            return Some(found);
        }
        if effort == Effort::Cached {
            return None;
        }
        let made = Arc::new(self.make(keys, content, now)?);
        tally.made(made.iter().count() as u64);
        self.entries.insert(content.octets.as_slice().into(), made.clone());
        Some(made)
    }

    fn make(&self, keys: &ZoneKeys, content: &Content, now: u64) -> Option<Signatures> {
        let (owner, mut rdatas) = content.parts();
        canonical::sort(&mut rdatas);
        let jitter = self.jitter.hash_one(&content.octets) % JITTER;
        let refresh = now + REFRESH + jitter;
        let times = [now + EXPIRATION + jitter, now.saturating_sub(INCEPTION)];
        let signer_name = keys.zone.wire();
        let len = RRSIG_FIELDS + signer_name.len() + SIGNATURE;
        let mut octets = Vec::new();
        let mut message = Vec::new();
        for key in keys.signing(content.rtype) {
            message.clear();
            message.extend_from_slice(&content.rtype.to_be_bytes());
            message.extend_from_slice(&[ALGORITHM, labels(owner)]);
            message.extend_from_slice(&content.ttl());
            // Times are modulo 2^32 (RFC 4034 §3.1.5).
            times.iter().for_each(|time| message.extend_from_slice(&(*time as u32).to_be_bytes()));
            message.extend_from_slice(&key.tag().to_be_bytes());
            message.extend_from_slice(signer_name);
            octets.extend_from_slice(&message);
            for rdata in &rdatas {
                message.extend_from_slice(owner);
                message.extend_from_slice(&content.rtype.to_be_bytes());
                message.extend_from_slice(&class::IN.to_be_bytes());
                message.extend_from_slice(&content.ttl());
                message.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
                message.extend_from_slice(rdata);
            }
            octets.extend_from_slice(&Key::sign(key, &message, &*self.random)?);
        }
        Some(Signatures { octets: octets.into(), len, refresh })
    }
}

/// Returns the Labels field: those of the owner without the root and a leading wildcard (RFC 4034 §3.1.3).
fn labels(owner: &[u8]) -> u8 {
    let (mut count, mut at) = (0, 0);
    while let Some(len @ 1..) = owner.get(at) {
        count += 1;
        at += 1 + usize::from(*len);
    }
    count - u8::from(owner.starts_with(b"\x01*"))
}

/// Weight of an entry in octets.
#[derive(Clone)]
struct Weight;

impl Weighter<Box<[u8]>, Arc<Signatures>> for Weight {
    fn weight(&self, key: &Box<[u8]>, signatures: &Arc<Signatures>) -> u64 {
        (key.len() + signatures.octets.len() + OVERHEAD) as u64
    }
}
