//! Keys of the zone of a trust anchor.
//!
//! The library trusts keys, not DS records, and needs a DS record of each zone below the root. So the keys of an anchor's zone are
//! checked here: a key that an anchor names must sign them all (RFC 4035 §5.3).

use hickory_proto::{
    dnssec::{
        Algorithm, DigestType, TrustAnchors, Verifier,
        rdata::{DNSKEY, DS},
    },
    op::Message,
    rr::{DNSClass, LowerName, Name, Record, RecordType},
};

use super::{
    chain_handle::Chain,
    error::ValidationError,
    signatures::{dnskey, fault_of, is_current, signatures_of},
    wire::{show, to_name},
};
use crate::dns::dnssec::trust_anchor::TrustAnchor;

/// Returns the keys of the zone of these anchors, which all have the same zone, at `now` in seconds since 1970.
pub(super) async fn keys(chain: &Chain, anchors: &[&TrustAnchor], now: u64) -> Result<TrustAnchors, ValidationError> {
    let wire = anchors.first().map_or(&[0][..], |anchor| anchor.zone.wire());
    let zone = to_name(wire)?;
    let message = chain.get(&zone, RecordType::DNSKEY).await?;
    let records = of_zone(&message, &zone);
    if records.is_empty() {
        return Err(ValidationError::KeyMissing(zone.to_string()));
    }
    let anchors: Vec<DS> = anchors.iter().map(|anchor| to_ds(anchor)).collect();
    let named = |key: &DNSKEY| {
        key.zone_key()
            && !key.revoke()
            && anchors
                .iter()
                .any(|anchor| anchor.algorithm() == key.algorithm() && anchor.covers(&zone, key).unwrap_or(false))
    };
    let trusted: Vec<&DNSKEY> = records.iter().copied().filter_map(dnskey).filter(|key| named(key)).collect();
    if trusted.is_empty() {
        return Err(ValidationError::KeyMissing(zone.to_string()));
    }
    match fault_of(&message.answers, &zone, RecordType::DNSKEY, now) {
        Some(ValidationError::SignaturesMissing(set)) => return Err(ValidationError::Stripped(set)),
        Some(fault) => return Err(fault),
        None => {}
    }
    let is_signed = signatures_of(&message.answers, &zone, RecordType::DNSKEY).any(|signature| {
        let input = signature.input();
        let fits = input.signer_name == zone && is_current(signature, now);
        fits && trusted.iter().any(|key| {
            key.algorithm() == input.algorithm
                && key.calculate_key_tag().is_ok_and(|tag| tag == input.key_tag)
                && key.verify_rrsig(&zone, DNSClass::IN, signature, records.iter().copied()).is_ok()
        })
    });
    if !is_signed {
        return Err(ValidationError::Bogus(show(&zone, RecordType::DNSKEY)));
    }
    let mut keys = TrustAnchors::empty();
    for key in records.iter().copied().filter_map(dnskey).filter(|key| key.zone_key() && !key.revoke()) {
        keys.insert_with_name(key.public_key(), LowerName::from(&zone));
    }
    Ok(keys)
}

fn of_zone<'m>(message: &'m Message, zone: &Name) -> Vec<&'m Record> {
    let records = message.answers.iter().filter(|record| record.name == *zone);
    records.filter(|record| record.record_type() == RecordType::DNSKEY).collect()
}

fn to_ds(anchor: &TrustAnchor) -> DS {
    let digest_type = DigestType::from(anchor.digest_type);
    DS::new(anchor.tag, Algorithm::from_u8(anchor.algorithm), digest_type, anchor.digest.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::dnssec::trust_anchor;

    #[test]
    fn built_in_anchors_are_the_keys_of_the_root() {
        let (anchors, library) = (trust_anchor::root(), TrustAnchors::default());
        assert_eq!(anchors.len(), library.len());
        for (at, anchor) in anchors.iter().enumerate() {
            let key = DNSKEY::with_flags(257, library.get(at).unwrap().clone());
            assert_eq!(key.calculate_key_tag().unwrap(), anchor.tag);
            assert!(to_ds(anchor).covers(&Name::root(), &key).unwrap(), "{}", anchor.tag);
        }
    }
}
