//! Faults of signatures and keys that a reply or the chain of trust shows. The library reports only that a proof failed.

use std::time::Duration;

use hickory_proto::{
    dnssec::rdata::{DNSKEY, DNSSECRData, DS, RRSIG},
    op::Message,
    rr::{Name, RData, Record, RecordType},
};

use super::{error::ValidationError, wire::show};
use crate::model::date::rfc3339;

/// Returns the signature in a record.
pub(super) fn signature(record: &Record) -> Option<&RRSIG> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => Some(signature),
        _ => None,
    }
}

/// Returns the key in a record.
pub(super) fn dnskey(record: &Record) -> Option<&DNSKEY> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::DNSKEY(key)) => Some(key),
        _ => None,
    }
}

/// Returns the signatures of an RRset.
pub(super) fn signatures_of<'r>(
    records: &'r [Record],
    name: &'r Name,
    rtype: RecordType,
) -> impl Iterator<Item = &'r RRSIG> {
    let of_name = records.iter().filter(move |record| record.name == *name);
    of_name.filter_map(signature).filter(move |signature| signature.input().type_covered == rtype)
}

/// Returns the seconds from `now` to the begin and the end of a signature. The times count modulo 2^32 (RFC 4034 §3.1.5).
fn times(signature: &RRSIG, now: u64) -> (i32, i32) {
    let after = |time: u32| time.wrapping_sub(now as u32) as i32;
    let input = signature.input();
    (after(input.sig_inception.get()), after(input.sig_expiration.get()))
}

/// Reports whether a signature is within its times at `now`, in seconds since 1970.
pub(super) fn is_current(signature: &RRSIG, now: u64) -> bool {
    let (begin, end) = times(signature, now);
    begin <= 0 && end >= 0
}

/// Returns the fault that the times of the signatures of an RRset show at `now`, in seconds since 1970; `None` if one of them is
/// within its times.
pub(super) fn fault_of(records: &[Record], name: &Name, rtype: RecordType, now: u64) -> Option<ValidationError> {
    let (mut last_end, mut first_begin) = (None, None);
    for signature in signatures_of(records, name, rtype) {
        let (begin, end) = times(signature, now);
        if begin > 0 {
            first_begin = Some(first_begin.map_or(begin, |first: i32| first.min(begin)));
        } else if end < 0 {
            last_end = Some(last_end.map_or(end, |last: i32| last.max(end)));
        } else {
            return None;
        }
    }
    let set = show(name, rtype);
    let at = |offset: i32| rfc3339(Duration::from_secs(now.saturating_add_signed(offset.into())));
    Some(match (last_end, first_begin) {
        (Some(end), _) => ValidationError::Expired { set, at: at(end) },
        (None, Some(begin)) => ValidationError::NotYetValid { set, at: at(begin) },
        (None, None) => ValidationError::SignaturesMissing(set),
    })
}

/// Returns the fault of a zone's keys, as the messages of the chain of trust show it.
pub(super) fn fault_of_keys(zone: &Name, keys: &Message, ds: Option<&Message>, now: u64) -> Option<ValidationError> {
    let dnskeys: Vec<_> = keys.answers.iter().filter(|record| record.name == *zone).filter_map(dnskey).collect();
    let ds: Vec<&DS> = ds.map_or_else(Vec::new, |ds| ds_records(ds, zone).collect());
    let is_named = |ds: &&DS| {
        let mut of_tag = dnskeys.iter().filter(|key| key.calculate_key_tag().is_ok_and(|tag| tag == ds.key_tag()));
        of_tag.any(|key| ds.covers(zone, key).unwrap_or(false))
    };
    if dnskeys.is_empty() || !ds.is_empty() && !ds.iter().any(is_named) {
        return Some(ValidationError::KeyMissing(zone.to_string()));
    }
    fault_of(&keys.answers, zone, RecordType::DNSKEY, now)
}

/// Returns the DS records of a zone in a message.
pub(super) fn ds_records<'m>(message: &'m Message, zone: &'m Name) -> impl Iterator<Item = &'m DS> {
    message.answers.iter().filter(move |record| record.name == *zone).filter_map(|record| match &record.data {
        RData::DNSSEC(DNSSECRData::DS(ds)) => Some(ds),
        _ => None,
    })
}
