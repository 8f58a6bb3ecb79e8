//! A key of a zone: its DNSKEY record, key tag and DS record (RFC 4034 §2, §5, appendix B), and when it is used.

use std::{fmt, sync::Arc};

use ring::{
    digest,
    rand::SecureRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use thiserror::Error;

use crate::model::name::Name;

/// ECDSA P-256 with SHA-256 (RFC 6605): every validator knows it (RFC 8624 §3.1), and its signatures are short.
pub const ALGORITHM: u8 = 13;
/// Octets of a public key: the two coordinates (RFC 6605 §4).
pub const PUBLIC: usize = 64;
/// Octets of a private key: the scalar.
pub const PRIVATE: usize = 32;
/// Octets of a signature: r and s (RFC 6605 §4).
pub const SIGNATURE: usize = 64;

/// Flags of a key that signs the zone (RFC 4034 §2.1.1).
pub const ZONE_KEY: u16 = 0x0100;
/// Flag of a secure entry point, to which DS records refer.
pub const ENTRY_POINT: u16 = 0x0001;
/// Protocol field, which is fixed (RFC 4034 §2.1.2).
const PROTOCOL: u8 = 3;
/// SHA-256, the digest type of DS records (RFC 8624 §3.3).
pub(super) const SHA256: u8 = 2;
/// SHA-384, a digest type of DS records (RFC 6605).
pub(super) const SHA384: u8 = 4;
/// SHA-1, a digest type of old DS records (RFC 3658).
const SHA1: u8 = 1;

/// Offset of the private scalar in the PKCS#8 document that ring generates, whose form is fixed (RFC 5958, RFC 5915).
const SCALAR_IN_PKCS8: usize = 36;

/// Points in time, in seconds since 1970, at which the use of a key changes. `None`: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// The key appears in the DNSKEY RRset.
    pub publish: Option<u64>,
    /// The key signs.
    pub activate: Option<u64>,
    /// The key no longer signs.
    pub inactive: Option<u64>,
    /// The key disappears.
    pub delete: Option<u64>,
    /// The CDS and CDNSKEY records of the key appear; they do so at `activate` otherwise.
    pub sync_publish: Option<u64>,
    /// They disappear; they do so at `inactive` otherwise.
    pub sync_delete: Option<u64>,
}

/// A key pair of a zone.
pub struct Key {
    /// The zone.
    pub zone: Name,
    /// Flags of the DNSKEY record.
    pub flags: u16,
    /// TTL of the DNSKEY record in seconds, if the file has one.
    pub ttl: Option<u32>,
    /// When the key is used.
    pub timing: Timing,
    public: [u8; PUBLIC],
    pair: EcdsaKeyPair,
}

/// Unusable key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// The private key is not that of the public key.
    #[error("the private key does not belong to the public key")]
    Mismatch,
    /// The system has no random numbers.
    #[error("the system provides no random numbers")]
    NoRandom,
}

impl Key {
    /// Returns a key from its parts.
    ///
    /// # Errors
    /// The parts do not belong together.
    pub fn new(
        zone: Name,
        flags: u16,
        public: [u8; PUBLIC],
        private: &[u8; PRIVATE],
        random: &dyn SecureRandom,
    ) -> Result<Self, KeyError> {
        let uncompressed = [&[4], &public[..]].concat();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, private, &uncompressed, random)
            .map_err(|_| KeyError::Mismatch)?;
        Ok(Self { zone, flags, ttl: None, timing: Timing::default(), public, pair })
    }

    /// Generates a key; returns its private scalar as well.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn generate(zone: Name, flags: u16, random: &dyn SecureRandom) -> Result<(Self, [u8; PRIVATE]), KeyError> {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, random).map_err(|_| KeyError::NoRandom)?;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), random).map_err(|_| KeyError::Mismatch)?;
        let (mut public, mut private) = ([0; PUBLIC], [0; PRIVATE]);
        public.copy_from_slice(pair.public_key().as_ref().get(1..=PUBLIC).ok_or(KeyError::Mismatch)?);
        let scalar = document.as_ref().get(SCALAR_IN_PKCS8..SCALAR_IN_PKCS8 + PRIVATE);
        private.copy_from_slice(scalar.ok_or(KeyError::Mismatch)?);
        // The document's form is checked with the scalar.
        Ok((Self::new(zone, flags, public, &private, random)?, private))
    }

    /// Returns the public key.
    pub fn public(&self) -> &[u8; PUBLIC] {
        &self.public
    }

    /// Reports whether DS records refer to the key.
    pub fn is_entry_point(&self) -> bool {
        self.flags & ENTRY_POINT != 0
    }

    /// Returns the RDATA of the DNSKEY record.
    pub fn dnskey(&self) -> Vec<u8> {
        dnskey(self.flags, &self.public)
    }

    /// Returns the key tag.
    pub fn tag(&self) -> u16 {
        tag(&self.dnskey())
    }

    /// Returns the RDATA of the DS record with a digest of SHA-256.
    pub fn ds(&self) -> Vec<u8> {
        ds(&self.zone, &self.dnskey())
    }

    /// Signs a message; `None` if there are no random numbers.
    pub(super) fn sign(&self, message: &[u8], random: &dyn SecureRandom) -> Option<[u8; SIGNATURE]> {
        self.pair.sign(random, message).ok()?.as_ref().try_into().ok()
    }
}

impl fmt::Debug for Key {
    /// Omits the private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} {} {})", self.zone, self.flags, self.tag())
    }
}

/// Keys are shared between snapshots.
pub type SharedKey = Arc<Key>;

/// Returns the RDATA of a DNSKEY record.
pub(super) fn dnskey(flags: u16, public: &[u8; PUBLIC]) -> Vec<u8> {
    [&flags.to_be_bytes()[..], &[PROTOCOL, ALGORITHM], public].concat()
}

/// Returns the RDATA of the DS record of a DNSKEY record.
pub(super) fn ds(zone: &Name, dnskey: &[u8]) -> Vec<u8> {
    let digest = digest_of(&digest::SHA256, zone, dnskey);
    [&tag(dnskey).to_be_bytes()[..], &[ALGORITHM, SHA256], digest.as_ref()].concat()
}

/// Returns the digest of a DNSKEY record (RFC 4034 §5.1.4).
pub(super) fn digest_of(algorithm: &'static digest::Algorithm, zone: &Name, dnskey: &[u8]) -> digest::Digest {
    digest::digest(algorithm, &[zone.wire(), dnskey].concat())
}

/// Reports whether a DS record names this DNSKEY record, both as RDATA, or may do so: its digest may be of a type that is not known
/// here.
pub fn may_name(zone: &Name, ds: &[u8], dnskey: &[u8]) -> bool {
    let (Some((head, digest)), Some(algorithm)) = (ds.split_first_chunk::<4>(), dnskey.get(3)) else { return false };
    let known = match head[3] {
        SHA1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        SHA256 => &digest::SHA256,
        SHA384 => &digest::SHA384,
        _ => return true,
    };
    head[..2] == tag(dnskey).to_be_bytes()
        && head[2] == *algorithm
        && *digest == *digest_of(known, zone, dnskey).as_ref()
}

/// Returns the key tag of DNSKEY RDATA (RFC 4034 appendix B).
pub(super) fn tag(rdata: &[u8]) -> u16 {
    let sum: u32 =
        rdata.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum();
    ((sum + (sum >> 16)) & 0xffff) as u16
}

impl Timing {
    /// Reports whether the DNSKEY record is published at `now`. A key without any time is.
    pub fn is_published(&self, now: u64) -> bool {
        let from = self.publish.or(self.activate);
        from.is_none_or(|from| from <= now) && !self.is_deleted(now)
    }

    /// Reports whether the key signs at `now`. A key without any time does.
    pub fn is_active(&self, now: u64) -> bool {
        let began = match (self.activate, self.publish) {
            (Some(activate), _) => activate <= now,
            (None, publish) => publish.is_none(),
        };
        began && self.is_published(now) && self.inactive.is_none_or(|inactive| now < inactive)
    }

    /// Reports whether the CDS and CDNSKEY records are published at `now`.
    pub fn is_synced(&self, now: u64) -> bool {
        let began = self.sync_publish.map_or_else(|| self.is_active(now), |from| from <= now);
        began && self.is_published(now) && self.sync_delete.or(self.inactive).is_none_or(|end| now < end)
    }

    /// Reports whether the key is gone at `now`.
    pub fn is_deleted(&self, now: u64) -> bool {
        self.delete.is_some_and(|delete| delete <= now)
    }

    /// Returns the first time after `now` at which something changes.
    pub fn next(&self, now: u64) -> Option<u64> {
        let Self { publish, activate, inactive, delete, sync_publish, sync_delete } = *self;
        let all = [publish, activate, inactive, delete, sync_publish, sync_delete];
        all.into_iter().flatten().filter(|time| *time > now).min()
    }
}
