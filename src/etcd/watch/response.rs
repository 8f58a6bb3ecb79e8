//! Responses of a watch: the events that the client asked for, in fragments if it asked for them.

use prost::Message;

use crate::{
    etcd::{
        convert::{key_value, number},
        proto::{
            etcdserverpb::{WatchCreateRequest, WatchResponse, watch_create_request::FilterType},
            mvccpb::{Event, KeyValue, event::EventType},
        },
    },
    store::watch::Change,
};

/// Size in octets from which a response is split, as in etcd: its limit of a request with 512 KiB for the rest.
const MAX_FRAGMENT: usize = 2 * 1024 * 1024;

/// What a client wants to see of the changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Id of the watch.
    pub(super) id: i64,
    with_puts: bool,
    with_deletions: bool,
    with_previous: bool,
    in_fragments: bool,
}

impl Shape {
    pub(super) fn new(id: i64, request: &WatchCreateRequest) -> Self {
        let lacks = |filter: FilterType| request.filters.contains(&filter.into());
        Self {
            id,
            with_puts: !lacks(FilterType::Noput),
            with_deletions: !lacks(FilterType::Nodelete),
            with_previous: request.prev_kv,
            in_fragments: request.fragment,
        }
    }

    /// Returns the responses that tell of these changes. There is none if the client wants none of the changes.
    pub(super) fn responses(&self, changes: &[Change]) -> Vec<WatchResponse> {
        let events: Vec<Event> = changes.iter().filter_map(|change| self.event(change)).collect();
        if events.is_empty() {
            return vec![];
        }
        let response = |events, fragment| WatchResponse { events, fragment, ..WatchResponse::default() };
        if !self.in_fragments {
            return vec![response(events, false)];
        }
        let mut responses = vec![];
        let (mut fragment, mut octets) = (vec![], 0);
        for event in events {
            let len = event.encoded_len();
            if !fragment.is_empty() && octets + len >= MAX_FRAGMENT {
                responses.push(response(std::mem::take(&mut fragment), true));
                octets = 0;
            }
            octets += len;
            fragment.push(event);
        }
        responses.push(response(fragment, false));
        responses
    }

    fn event(&self, change: &Change) -> Option<Event> {
        let (kind, kv) = match &change.entry {
            Some(entry) => (self.with_puts.then_some(EventType::Put)?, key_value(&change.key, entry)),
            None => {
                let (key, mod_revision) = (change.key.to_bytes(), number(change.revision.0));
                let kv = KeyValue { key, mod_revision, ..KeyValue::default() };
                (self.with_deletions.then_some(EventType::Delete)?, kv)
            }
        };
        let previous = change.previous.as_ref().filter(|_| self.with_previous);
        let prev_kv = previous.map(|entry| key_value(&change.key, entry));
        Some(Event { r#type: kind.into(), kv: Some(kv), prev_kv })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::{
        entry::{Attributes, Entry},
        key::{Key, Revision},
    };

    fn change(revision: u64, len: Option<usize>) -> Change {
        let entry = |len| {
            let at = Revision(revision);
            let mut entry = Entry::new(vec![b'x'; len].into(), Attributes::default());
            (entry.created, entry.modified, entry.version) = (at, at, 1);
            Arc::new(entry)
        };
        let key = Key::new("k").unwrap();
        Change { revision: Revision(revision), key, entry: len.map(entry), previous: Some(entry(1)) }
    }

    #[test]
    fn filters_and_previous_entries_follow_the_request() {
        let changes = [change(5, Some(1)), change(6, None)];
        let (noput, nodelete) = (FilterType::Noput.into(), FilterType::Nodelete.into());
        let cases = [
            (vec![], false, vec![EventType::Put, EventType::Delete]),
            (vec![noput], true, vec![EventType::Delete]),
            (vec![nodelete], false, vec![EventType::Put]),
            (vec![noput, nodelete], false, vec![]),
        ];
        for (filters, prev_kv, expected) in cases {
            let request = WatchCreateRequest { filters, prev_kv, ..WatchCreateRequest::default() };
            let responses = Shape::new(1, &request).responses(&changes);
            let events: Vec<&Event> = responses.iter().flat_map(|response| &response.events).collect();
            assert_eq!(events.iter().map(|event| event.r#type()).collect::<Vec<_>>(), expected);
            assert!(events.iter().all(|event| event.prev_kv.is_some() == prev_kv));
            assert_eq!(responses.is_empty(), expected.is_empty());
        }
    }

    #[test]
    fn large_responses_are_split_for_clients_that_join_them() {
        let changes: Vec<Change> = (1..=5).map(|revision| change(revision, Some(900 * 1024))).collect();
        let lengths = |fragment| {
            let request = WatchCreateRequest { fragment, ..WatchCreateRequest::default() };
            let responses = Shape::new(1, &request).responses(&changes);
            responses.iter().map(|response| (response.events.len(), response.fragment)).collect::<Vec<_>>()
        };
        assert_eq!(lengths(false), [(5, false)]);
        assert_eq!(lengths(true), [(2, true), (2, true), (1, false)]);
    }
}
