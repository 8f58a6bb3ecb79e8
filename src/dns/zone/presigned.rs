//! Zones of zone files that another tool has signed: their signatures, and the chain of NSEC (RFC 4034 §4) or NSEC3 (RFC 5155)
//! records that proves absence.
//!
//! Owner names are relative to the origin, in lower case.

use std::cmp::Ordering;

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use smallvec::SmallVec;

use super::rrset::{RRset, Rdata};
use crate::dns::message::codes::rtype;

/// Octets of a hash of NSEC3: SHA-1, the only one that is defined (RFC 5155 §11).
const HASH: usize = 20;
/// Largest number of additional iterations of NSEC3. Validators treat zones with more as unsigned (RFC 9276 §3.2), and each
/// costs time at every negative answer.
pub const MAX_ITERATIONS: u16 = 500;

/// Owner names of the records that prove absence, in their order.
#[derive(Debug)]
pub enum Chain {
    /// Owner names of NSEC records in canonical order (RFC 4034 §6.1).
    Nsec(Vec<Box<[u8]>>),
    /// Owner names of NSEC3 records.
    Nsec3 {
        /// Hashes of names with the owner names of their records, in the order of the hashes.
        hashes: Vec<([u8; HASH], Box<[u8]>)>,
        /// Salt of the hashes.
        salt: Box<[u8]>,
        /// Additional iterations of the hashes.
        iterations: u16,
    },
}

impl Chain {
    /// Returns the chain of a signed zone with these RRsets at the apex and `names`; `None` if the zone is not signed, or its
    /// chain cannot be used.
    pub(super) fn of<'n>(
        apex: &[RRset],
        names: &(impl Iterator<Item = (&'n [u8], &'n [RRset])> + Clone),
    ) -> Option<Self> {
        let is_signed = apex.iter().any(|set| set.covers() == Some(rtype::SOA)) && find(apex, rtype::DNSKEY).is_some();
        if !is_signed {
            return None;
        }
        let owners = |rtype| names.clone().filter(move |(_, rrsets)| find(rrsets, rtype).is_some());
        // A zone with both is between two chains: NSEC3PARAM says that the one of NSEC3 is complete (RFC 5155 §4).
        let Some(parameters) = find(apex, rtype::NSEC3PARAM).and_then(|set| set.records.first()) else {
            let mut owners: Vec<Box<[u8]>> = owners(rtype::NSEC).map(|(owner, _)| owner.into()).collect();
            owners.sort_unstable_by(|a, b| canonical(a, b));
            // The apex is the first name of a chain.
            return owners.first().is_some_and(|first| first.is_empty()).then_some(Self::Nsec(owners));
        };
        let (iterations, salt) = nsec3_parameters(parameters)?;
        let is_usable = |rdata: &Rdata| nsec3_parameters(rdata) == Some((iterations, salt));
        let hashes = owners(rtype::NSEC3)
            .filter(|(_, rrsets)| find(rrsets, rtype::NSEC3).is_some_and(|set| set.records.iter().any(is_usable)));
        let mut hashes: Vec<([u8; HASH], Box<[u8]>)> =
            hashes.filter_map(|(owner, _)| Some((hash_of_owner(owner)?, owner.into()))).collect();
        hashes.sort_unstable();
        let is_complete = iterations <= MAX_ITERATIONS && !hashes.is_empty();
        is_complete.then(|| Self::Nsec3 { hashes, salt: salt.into(), iterations })
    }

    /// Returns the owner of the record that proves the absence of `name`, or that the name has other types only; `origin` is
    /// that of the zone.
    pub fn covering(&self, name: &[u8], origin: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Nsec(owners) => {
                let behind = owners.partition_point(|owner| canonical(owner, name) != Ordering::Greater);
                owners.get(behind.checked_sub(1)?).map(|owner| &**owner)
            }
            Self::Nsec3 { hashes, salt, iterations } => {
                let hash = hash(&[name, origin], salt, *iterations);
                let behind = hashes.partition_point(|(known, _)| *known <= hash);
                // The last record leads to the first one.
                let at = behind.checked_sub(1).unwrap_or(hashes.len() - 1);
                hashes.get(at).map(|(_, owner)| &**owner)
            }
        }
    }

    /// Returns the owner of the record of `name` itself; `None` if it has none.
    pub fn matching(&self, name: &[u8], origin: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Nsec(_) => self.covering(name, origin).filter(|owner| *owner == name),
            Self::Nsec3 { hashes, salt, iterations } => {
                let hash = hash(&[name, origin], salt, *iterations);
                let at = hashes.binary_search_by_key(&hash, |(known, _)| *known).ok()?;
                Some(&hashes[at].1)
            }
        }
    }

    /// Returns the type of the records.
    pub fn rtype(&self) -> u16 {
        match self {
            Self::Nsec(_) => rtype::NSEC,
            Self::Nsec3 { .. } => rtype::NSEC3,
        }
    }
}

fn find(rrsets: &[RRset], rtype: u16) -> Option<&RRset> {
    rrsets.iter().find(|set| set.rtype == rtype)
}

/// Returns iterations and salt of NSEC3 or NSEC3PARAM RDATA (RFC 5155 §3.2, §4.2); `None` for another hash than SHA-1.
fn nsec3_parameters(rdata: &Rdata) -> Option<(u16, &[u8])> {
    let [1, _, high, low, len, rest @ ..] = &*rdata.octets else { return None };
    Some((u16::from_be_bytes([*high, *low]), rest.get(..usize::from(*len))?))
}

/// Returns the hash of a name, whose labels and origin are `parts` (RFC 5155 §5).
fn hash(parts: &[&[u8]], salt: &[u8], iterations: u16) -> [u8; HASH] {
    let mut digest = [0; HASH];
    let mut step = |parts: &[&[u8]]| {
        let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        parts.iter().for_each(|part| context.update(part));
        context.update(salt);
        digest.copy_from_slice(context.finish().as_ref());
        digest
    };
    let mut last = step(parts);
    for _ in 0..iterations {
        last = step(&[&last]);
    }
    last
}

/// Returns the hash in the owner name of an NSEC3 record: a label in Base 32 with extended hex alphabet (RFC 5155 §3.3); `None` if
/// it is none.
fn hash_of_owner(owner: &[u8]) -> Option<[u8; HASH]> {
    let (32, label) = owner.split_first()? else { return None };
    if label.len() != 32 {
        return None;
    }
    let mut hash = [0; HASH];
    for (octets, digits) in hash.chunks_exact_mut(5).zip(label.chunks_exact(8)) {
        let mut bits = 0_u64;
        for digit in digits {
            let value = match digit.to_ascii_lowercase() {
                digit @ b'0'..=b'9' => digit - b'0',
                digit @ b'a'..=b'v' => digit - b'a' + 10,
                _ => return None,
            };
            bits = bits << 5 | u64::from(value);
        }
        octets.copy_from_slice(&bits.to_be_bytes()[3..]);
    }
    Some(hash)
}

/// Compares relative names in canonical order: label by label from the right (RFC 4034 §6.1).
fn canonical(a: &[u8], b: &[u8]) -> Ordering {
    labels(a).iter().rev().cmp(labels(b).iter().rev())
}

fn labels(mut name: &[u8]) -> SmallVec<[&[u8]; 16]> {
    let mut labels = SmallVec::new();
    while let Some((label, rest)) = name.split_first().and_then(|(len, rest)| rest.split_at_checked((*len).into())) {
        labels.push(label);
        name = rest;
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5155 appendix A.
    #[test]
    fn hashes_are_those_of_the_standard() {
        let cases: [(&[u8], &[u8]); 3] = [
            (b"", b"\x200p9mhaveqvm6t7vbl5lop2u3t2rp3tom"),
            (b"\x01a", b"\x2035mthgpgcu1qg68fab165klnsnk3dpvl"),
            (b"\x01*\x01w", b"\x20r53bq7cc2uvmubfu5ocmm6pers9tk9en"),
        ];
        for (name, owner) in cases {
            let hash = hash(&[name, b"\x07example\0"], &[0xaa, 0xbb, 0xcc, 0xdd], 12);
            assert_eq!(Some(hash), hash_of_owner(owner), "{name:?}");
        }
        for owner in [&b""[..], b"\x01a", b"\x200p9mhaveqvm6t7vbl5lop2u3t2rp3toz"] {
            assert_eq!(hash_of_owner(owner), None, "{owner:?}");
        }
    }

    /// RFC 4034 §6.1.
    #[test]
    fn names_are_in_canonical_order() {
        let names: [&[u8]; 9] = [
            b"",
            b"\x01a",
            b"\x08yljkjljk\x01a",
            b"\x01z\x01a",
            b"\x04zabc\x01a",
            b"\x01z",
            b"\x01\x01\x01z",
            b"\x01*\x01z",
            b"\x01\xc8\x01z",
        ];
        assert!(names.is_sorted_by(|a, b| canonical(a, b) == Ordering::Less));
    }
}
