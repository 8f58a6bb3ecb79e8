//! Responses of blocking queries: a part of the snapshot as JSON, with its index.
//!
//! Consul's endpoints and muster's own endpoints share this path: wait for the index, render, filter, cache, add headers.

use std::collections::BTreeSet;

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;

use super::{
    Api,
    blocking::{Cached, Snapshot, Source, Topic},
    common_headers,
    filter::Filter,
    parking::{Parked, ParkedQuery},
    query::{Query, bad, with_jitter},
    response::{ApiError, text_of},
    server::origin::protect,
};
use crate::{
    model::{catalog::Catalog, name::Label},
    store::query::Contact,
};

/// Response header with the index of the state shown.
pub(super) const INDEX: &str = "x-consul-index";
/// Response header: whether the node that answered knows a leader.
const KNOWN_LEADER: &str = "x-consul-knownleader";
/// Response header: milliseconds since the last message of the leader.
const LAST_CONTACT: &str = "x-consul-lastcontact";
/// Consul's consistency of a response that did not go to the leader.
const STALE: &str = "stale";

/// Responds with a part of the snapshot. With an index in the query, waits for a change first. The filter applies to
/// each item.
pub(super) async fn show<T: Serialize>(
    api: &Api,
    uri: &Uri,
    query: &Query,
    topic: Topic,
    build: impl Fn(&Snapshot) -> Result<T, ApiError>,
) -> Result<Response, ApiError> {
    let filter = query.filter()?;
    respond(api, uri, query, topic, filter.as_ref(), build).await
}

/// Responds in the same way, without the query's filter: `build` applies it.
pub(super) async fn show_unfiltered<T: Serialize>(
    api: &Api,
    uri: &Uri,
    query: &Query,
    topic: Topic,
    build: impl Fn(&Snapshot) -> Result<T, ApiError>,
) -> Result<Response, ApiError> {
    respond(api, uri, query, topic, None, build).await
}

async fn respond<T: Serialize>(
    api: &Api,
    uri: &Uri,
    query: &Query,
    topic: Topic,
    filter: Option<&Filter>,
    build: impl Fn(&Snapshot) -> Result<T, ApiError>,
) -> Result<Response, ApiError> {
    query.check()?;
    let key = || query.cache_key(uri.path(), &api.queries.snapshot().catalog);
    let is_cacheable = topic.is_cacheable();
    let source = || Source { topic: topic.clone(), cache_key: is_cacheable.then(key) };
    if let Some(slot) = &query.source {
        slot.0.get_or_init(source);
    }
    if let Some(seen) = query.index()? {
        let wait = query.wait()?;
        let must_wait = api.queries.index(&topic) == seen && !api.queries.is_shutting_down();
        match &query.parkable {
            Some(parkable) if parkable.is_resumed => {}
            Some(parkable) if must_wait => {
                let (access, endpoint, head) = (parkable.access.clone(), parkable.endpoint, parkable.head());
                let parked = ParkedQuery { source: source(), seen, wait, access, endpoint, head };
                match parkable.park(Parked::Query(Box::new(parked))).await {}
            }
            _ => api.queries.wait_for_change(&topic, seen, with_jitter(wait)).await,
        }
    }
    let snapshot = api.queries.snapshot();
    let (index, key) = (topic.index(&snapshot), query.cache_key(uri.path(), &snapshot.catalog));
    let cached = if is_cacheable { api.queries.cached(&key, index) } else { None };
    let text = match cached {
        Some(cached) => cached.body,
        None => {
            if let Some(datacenter) = query.datacenter()? {
                ensure_known(&datacenter, &snapshot.catalog)?;
            }
            let built = build(&snapshot)?;
            let text = match filter {
                None => text_of(uri, &built),
                Some(filter) => {
                    let mut value = value_of(&built)?;
                    retain(&mut value, |item| passes(filter, item))?;
                    text_of(uri, &value)
                }
            };
            let text = Bytes::from(text?);
            if is_cacheable {
                let cached = Cached { index, head: cached_head(index, text.len()), body: text.clone() };
                api.queries.cache(key, cached);
            }
            text
        }
    };
    Ok(with_index(text, index))
}

pub(super) fn value_of(built: &impl Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(built).map_err(|error| bad(&error.to_string()))
}

pub(super) fn passes(filter: &Filter, item: &Value) -> Result<bool, ApiError> {
    filter.passes(item).map_err(|error| bad(&format!("filter: {error}")))
}

/// Returns a JSON response with Consul's index headers.
pub(super) fn with_index(text: Bytes, index: u64) -> Response {
    (index_headers(index, STALE), text).into_response()
}

/// Returns Consul's index headers, with the consistency of the response.
pub(super) fn index_headers(index: u64, consistency: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(INDEX, index.into());
    set_contact(&mut headers, Contact::default());
    headers.insert("x-consul-effective-consistency", HeaderValue::from_static(consistency));
    headers
}

/// Sets the headers that tell how old a response may be: a client that reads from any voter decides by them.
pub(super) fn set_contact(headers: &mut HeaderMap, contact: Contact) {
    let millis = u64::try_from(contact.silence.as_millis()).unwrap_or(u64::MAX);
    headers.insert(KNOWN_LEADER, HeaderValue::from_static(if contact.has_leader { "true" } else { "false" }));
    headers.insert(LAST_CONTACT, millis.into());
}

/// Returns the head of a cached response, without the date and the empty line.
fn cached_head(index: u64, len: usize) -> Bytes {
    let mut headers = index_headers(index, STALE);
    headers.insert(header::CONTENT_LENGTH, len.into());
    encoded_head(headers)
}

/// Returns the head of a 200 as hyper and the router send it, without the date and the empty line.
pub(super) fn encoded_head(mut headers: HeaderMap) -> Bytes {
    common_headers(&mut headers);
    protect(&mut headers);
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    for (name, value) in &headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.into()
}

/// Removes the items of an array, or the values of an object, that `passes` rejects.
fn retain(value: &mut Value, passes: impl Fn(&Value) -> Result<bool, ApiError>) -> Result<(), ApiError> {
    match value {
        Value::Array(list) => {
            let mut kept = Vec::with_capacity(list.len());
            for item in list.drain(..) {
                if passes(&item)? {
                    kept.push(item);
                }
            }
            *list = kept;
        }
        Value::Object(table) => {
            let mut kept = serde_json::Map::new();
            for (key, item) in std::mem::take(table) {
                if passes(&item)? {
                    kept.insert(key, item);
                }
            }
            *table = kept;
        }
        _ => {}
    }
    Ok(())
}

/// Refuses a datacenter without a known node.
pub(super) fn ensure_known(datacenter: &Label, catalog: &Catalog) -> Result<(), ApiError> {
    if known_datacenters(catalog).contains(datacenter.as_str()) {
        return Ok(());
    }
    Err(bad(&format!("No path to datacenter {datacenter}: no node of it is known to this agent.")))
}

pub(super) fn known_datacenters(catalog: &Catalog) -> BTreeSet<&str> {
    catalog.view().values().map(|view| view.node.datacenter.as_str()).collect()
}
