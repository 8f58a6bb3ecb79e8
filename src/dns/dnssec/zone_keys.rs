//! The keys of a zone at a point in time: the RRsets that publish them, and those that sign.

use std::{collections::BTreeMap, sync::Arc};

use super::key::{Key, SharedKey};
use crate::{dns::message::codes::rtype, model::name::Name};

/// TTL of DNSKEY, CDS and CDNSKEY in seconds, if the key file has none: validators ask each hour, and a new key is known
/// everywhere after an hour.
pub const KEY_TTL: u32 = 3600;

/// Keys of all signed zones.
pub type SignedZones = BTreeMap<Name, Arc<ZoneKeys>>;

/// Keys of one zone that are in use.
#[derive(Debug)]
pub struct ZoneKeys {
    /// Name of the zone, the signer's name of its signatures.
    pub zone: Name,
    /// Identity of the signing keys: signatures of other keys are never served.
    pub(super) id: [u8; 8],
    /// DNSKEY, CDS and CDNSKEY; those without records are left out.
    rrsets: Vec<KeySet>,
    /// Keys that sign ordinary RRsets, at least one.
    pub(super) zone_signing: Vec<SharedKey>,
    /// Keys that sign the RRsets of keys, at least one.
    pub(super) key_signing: Vec<SharedKey>,
    published: usize,
}

/// An RRset that publishes keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySet {
    /// Record type.
    pub rtype: u16,
    /// TTL in seconds.
    pub ttl: u32,
    /// RDATA of each record; at least one.
    pub records: Vec<Vec<u8>>,
}

impl ZoneKeys {
    /// Returns the keys of a zone that are in use at `now`, in seconds since 1970; `None` if none can sign.
    ///
    /// Without an active key, the key that was active last goes on: an unsigned zone would not validate.
    pub fn at(zone: &Name, keys: &[SharedKey], now: u64) -> Option<Self> {
        let published: Vec<&SharedKey> = keys.iter().filter(|key| key.timing.is_published(now)).collect();
        let mut active: Vec<SharedKey> =
            published.iter().filter(|key| key.timing.is_active(now)).map(|key| (*key).clone()).collect();
        if active.is_empty() {
            active.extend(last_active(&published, now).cloned());
        }
        let split = |is_entry: bool| -> Vec<SharedKey> {
            let some: Vec<_> = active.iter().filter(|key| key.is_entry_point() == is_entry).cloned().collect();
            if some.is_empty() { active.clone() } else { some }
        };
        let (key_signing, zone_signing) = (split(true), split(false));
        if active.is_empty() {
            return None;
        }
        let ttl = published.iter().filter_map(|key| key.ttl).min().unwrap_or(KEY_TTL);
        let rrset = |rtype, rdata: &dyn Fn(&Key) -> Vec<u8>, synced: bool| KeySet {
            rtype,
            ttl,
            records: published
                .iter()
                .filter(|key| !synced || key.is_entry_point() && key.timing.is_synced(now))
                .map(|key| rdata(key))
                .collect(),
        };
        let mut rrsets = vec![
            rrset(rtype::DNSKEY, &Key::dnskey, false),
            rrset(rtype::CDS, &Key::ds, true),
            rrset(rtype::CDNSKEY, &Key::dnskey, true),
        ];
        rrsets.retain(|set| !set.records.is_empty());
        let all: Vec<u8> = active.iter().flat_map(|key| key.dnskey()).collect();
        let digest = ring::digest::digest(&ring::digest::SHA256, &all);
        let mut id = [0; 8];
        id.copy_from_slice(&digest.as_ref()[..8]);
        let published = published.len();
        Some(Self { zone: zone.clone(), id, rrsets, zone_signing, key_signing, published })
    }

    /// Returns the RRset of this type that publishes the keys.
    pub fn rrset(&self, rtype: u16) -> Option<&KeySet> {
        self.rrsets.iter().find(|set| set.rtype == rtype)
    }

    /// Returns the keys that sign an RRset of this type.
    pub(super) fn signing(&self, rtype: u16) -> &[SharedKey] {
        match rtype {
            rtype::DNSKEY | rtype::CDS | rtype::CDNSKEY => &self.key_signing,
            _ => &self.zone_signing,
        }
    }

    /// Returns the tags of the keys that sign, without duplicates.
    pub fn tags(&self) -> Vec<u16> {
        let mut tags: Vec<u16> = self.key_signing.iter().chain(&self.zone_signing).map(|key| key.tag()).collect();
        tags.sort_unstable();
        tags.dedup();
        tags
    }

    /// Returns the number of published keys.
    pub fn published(&self) -> usize {
        self.published
    }
}

impl PartialEq for ZoneKeys {
    /// Compares what clients see.
    fn eq(&self, other: &Self) -> bool {
        (&self.zone, self.id, &self.rrsets) == (&other.zone, other.id, &other.rrsets)
    }
}

/// Returns the published key that ceased to sign last.
fn last_active<'k>(published: &[&'k SharedKey], now: u64) -> Option<&'k SharedKey> {
    let ended = |key: &SharedKey| key.timing.inactive.filter(|inactive| *inactive <= now);
    published.iter().copied().filter(|key| ended(key).is_some()).max_by_key(|key| ended(key))
}
