//! Requests of etcd's API as queries and commands of the store, and the store's answers as responses.

pub(super) mod transaction;

use bytes::Bytes;
use tonic::Status;

use super::{
    error::{Invalid, bad_key},
    proto::{
        etcdserverpb::{
            DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
            ResponseHeader,
            range_request::{SortOrder, SortTarget},
        },
        mvccpb::KeyValue,
    },
};
use crate::store::{
    command::{Put, PutLease, TransactionRequest},
    entry::{Entry, KeyEntry},
    key::{Key, KeyRange, Revision},
    lease::LeaseId,
    query::{Range, RangeAnswer, RevisionBounds, Sort, SortBy},
};

/// End of a range that has no end: all keys from its first one on.
const NO_END: &[u8] = &[0];

/// Returns a number of the store as the protocol has it.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Returns a number of the protocol as the store has it. Negative ones mean "none" in all fields of etcd's requests.
pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Returns the revision of a request; `None` for the current one.
pub(super) fn revision(value: i64) -> Option<Revision> {
    u64::try_from(value).ok().filter(|value| *value > 0).map(Revision)
}

/// Returns the lease of a request; `None` for 0.
pub(super) fn lease(value: i64) -> Option<LeaseId> {
    (value != 0).then_some(LeaseId(value))
}

/// Returns the range of keys that a request names by its first key and its end.
pub(super) fn key_range(key: Bytes, range_end: Bytes) -> Result<KeyRange, Status> {
    if range_end.is_empty() {
        return Key::new(key).map(KeyRange::Key).map_err(bad_key);
    }
    if key.is_empty() {
        return Err(Invalid::EmptyKey.into());
    }
    // No key is before the key of one zero octet.
    let start = if key == NO_END { Bytes::new() } else { key };
    if range_end == NO_END {
        return Ok(KeyRange::Span { start, end: None });
    }
    // A range that ends before it starts has no keys.
    let end = range_end.max(start.clone());
    Ok(KeyRange::Span { start, end: Some(end) })
}

/// Returns the query of a range.
pub(super) fn range(request: RangeRequest) -> Result<Range, Status> {
    let range = key_range(request.key, request.range_end)?;
    let order = SortOrder::try_from(request.sort_order).map_err(|_| Invalid::SortOption)?;
    let target = SortTarget::try_from(request.sort_target).map_err(|_| Invalid::SortOption)?;
    Ok(Range {
        range,
        revision: revision(request.revision),
        limit: unsigned(request.limit),
        sort: sort(order, target),
        keys_only: request.keys_only,
        count_only: request.count_only,
        bounds: RevisionBounds {
            min_modified: unsigned(request.min_mod_revision),
            max_modified: unsigned(request.max_mod_revision),
            min_created: unsigned(request.min_create_revision),
            max_created: unsigned(request.max_create_revision),
        },
    })
}

fn sort(order: SortOrder, target: SortTarget) -> Option<Sort> {
    let by = match target {
        SortTarget::Key => SortBy::Key,
        SortTarget::Version => SortBy::Version,
        SortTarget::Create => SortBy::Created,
        SortTarget::Mod => SortBy::Modified,
        SortTarget::Value => SortBy::Value,
    };
    match order {
        // Entries are in the order of keys anyway.
        SortOrder::None | SortOrder::Ascend if by == SortBy::Key => None,
        // Another field without an order is sorted upwards, as in etcd.
        SortOrder::None | SortOrder::Ascend => Some(Sort { by, descending: false }),
        SortOrder::Descend => Some(Sort { by, descending: true }),
    }
}

/// Returns the write of a put.
pub(super) fn put(request: PutRequest) -> Result<Put, Status> {
    let key = Key::new(request.key).map_err(bad_key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Invalid::ValueProvided.into());
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Invalid::LeaseProvided.into());
    }
    let lease = match lease(request.lease) {
        _ if request.ignore_lease => PutLease::Keep,
        Some(lease) => PutLease::Attach(lease),
        None => PutLease::Detach,
    };
    let value = (!request.ignore_value).then_some(request.value);
    Ok(Put { key, value, lease, with_previous: request.prev_kv })
}

/// Returns the deletion of a range.
pub(super) fn delete(request: DeleteRangeRequest) -> Result<TransactionRequest, Status> {
    let range = key_range(request.key, request.range_end)?;
    Ok(TransactionRequest::Delete { range, with_previous: request.prev_kv })
}

/// Returns an entry of the store as clients see it.
pub(super) fn key_value(key: &Key, entry: &Entry) -> KeyValue {
    KeyValue {
        key: key.to_bytes(),
        create_revision: number(entry.created.0),
        mod_revision: number(entry.modified.0),
        version: number(entry.version),
        value: entry.value.clone(),
        lease: entry.attributes().lease.map_or(0, |lease| lease.0),
    }
}

fn key_values(entries: &[KeyEntry]) -> Vec<KeyValue> {
    entries.iter().map(|found| key_value(&found.key, &found.entry)).collect()
}

/// Returns the response to a range.
pub(super) fn range_response(header: Option<ResponseHeader>, answer: &RangeAnswer) -> RangeResponse {
    RangeResponse { header, kvs: key_values(&answer.entries), more: answer.more, count: number(answer.count) }
}

/// Returns the response to a put.
pub(super) fn put_response(header: Option<ResponseHeader>, previous: Option<&KeyEntry>) -> PutResponse {
    PutResponse { header, prev_kv: previous.map(|found| key_value(&found.key, &found.entry)) }
}

/// Returns the response to a deletion.
pub(super) fn delete_response(
    header: Option<ResponseHeader>,
    deleted: u64,
    previous: &[KeyEntry],
) -> DeleteRangeResponse {
    DeleteRangeResponse { header, deleted: number(deleted), prev_kvs: key_values(previous) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: &'static str, end: Option<&'static str>) -> KeyRange {
        KeyRange::Span { start: start.into(), end: end.map(Into::into) }
    }

    #[test]
    fn key_and_end_name_a_range() {
        let cases = [
            ("a", "", Ok(KeyRange::Key(Key::new("a").unwrap()))),
            ("a", "b", Ok(span("a", Some("b")))),
            ("a", "\0", Ok(span("a", None))),
            ("\0", "\0", Ok(KeyRange::ALL)),
            ("b", "a", Ok(span("b", Some("b")))),
            ("", "", Err("etcdserver: key is not provided")),
            ("", "\0", Err("etcdserver: key is not provided")),
        ];
        for (key, end, expected) in cases {
            let range = key_range(key.into(), end.into());
            assert_eq!(range.as_ref().map_err(Status::message), expected.as_ref().map_err(|text| *text), "{key} {end}");
        }
        assert_eq!(KeyRange::prefix("a"), key_range("a".into(), "b".into()).unwrap());
    }

    #[test]
    fn order_of_a_range_is_that_of_etcd() {
        let cases = [
            (SortOrder::None, SortTarget::Key, None),
            (SortOrder::Ascend, SortTarget::Key, None),
            (SortOrder::Descend, SortTarget::Key, Some(Sort { by: SortBy::Key, descending: true })),
            (SortOrder::None, SortTarget::Mod, Some(Sort { by: SortBy::Modified, descending: false })),
            (SortOrder::Descend, SortTarget::Create, Some(Sort { by: SortBy::Created, descending: true })),
        ];
        for (order, target, expected) in cases {
            assert_eq!(sort(order, target), expected, "{order:?} {target:?}");
        }
        let unknown = RangeRequest { key: "a".into(), sort_order: 7, ..RangeRequest::default() };
        assert_eq!(range(unknown).unwrap_err().message(), "etcdserver: invalid sort option");
    }

    #[test]
    fn put_keeps_the_value_or_the_lease_only_without_another() {
        let request = |ignore_value, ignore_lease| PutRequest {
            key: "k".into(),
            value: "v".into(),
            lease: 7,
            prev_kv: false,
            ignore_value,
            ignore_lease,
        };
        assert_eq!(put(request(true, false)).unwrap_err().message(), "etcdserver: value is provided");
        assert_eq!(put(request(false, true)).unwrap_err().message(), "etcdserver: lease is provided");
        let kept = PutRequest { value: Bytes::new(), lease: 0, ..request(true, true) };
        let kept = put(kept).unwrap();
        assert_eq!((kept.value, kept.lease), (None, PutLease::Keep));
        assert_eq!(put(request(false, false)).unwrap().lease, PutLease::Attach(LeaseId(7)));
    }
}
