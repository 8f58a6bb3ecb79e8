//! What the web UI shows of the store besides names of keys: a key without its value, leases, and how many keys sessions hold.
//!
//! Names of keys need access to the keys; numbers of keys do not.

use axum::{
    extract::{Extension, State},
    http::Uri,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use percent_encoding::percent_decode_str;

use crate::{
    api::store::{KeyState, Lease, Leases, SessionKeys},
    http::{
        Api,
        consul::store::{read, store, store_error, unexpected},
        granted::Granted,
        query::{Query, bad},
        response::{ApiError, json},
    },
    model::token::KeyAccess,
    store::{
        entry::KeyEntry,
        key::{Key, KeyRange},
        lease::LeaseId,
        query::{self, Consistency, Content},
        request::{Store, StoreError},
    },
};

/// Path of keys without values.
const PATH: &str = "/v1/muster/store/key/";
/// Most leases in a response: each is a query of its own.
const MAX_LEASES: usize = 256;
/// Queries of leases at the same time.
const CONCURRENT: usize = 16;

/// Shows a key without its value. Waits for a change of the key if the query has an index.
pub(crate) async fn key(
    State(api): State<Api>,
    Extension(granted): Extension<Granted>,
    uri: Uri,
    query: Query,
) -> Result<Response, ApiError> {
    let encoded = uri.path().strip_prefix(PATH).unwrap_or_default();
    let text = percent_decode_str(encoded).decode_utf8().map_err(|_| bad("Invalid key: expected UTF-8."))?;
    let key = Key::new(text.into_owned()).map_err(|error| bad(&format!("Invalid key: {error}.")))?;
    granted.require_keys(KeyAccess::Read, &KeyRange::Key(key.clone()))?;
    let found = read(&api, &query, query::Query::Key(key)).await?;
    let Content::Entries(entries) = &found.content else { return Err(unexpected()) };
    let Some(state) = entries.first().and_then(state) else { return Ok(found.not_found("There is no such key.")) };
    Ok((found.headers, json(&uri, &state)).into_response())
}

fn state(KeyEntry { key, entry }: &KeyEntry) -> Option<KeyState> {
    let attributes = entry.attributes();
    Some(KeyState {
        key: key.as_str()?.to_owned(),
        octets: entry.value.len() as u64,
        flags: attributes.flags,
        lock_index: attributes.lock_index,
        session: attributes.session.map(|session| session.to_string()),
        lease: attributes.lease.map(|lease| lease.to_string()),
        version: entry.version,
        create_index: entry.created.0,
        modify_index: entry.modified.0,
    })
}

/// Shows the leases without the names of their keys.
pub(crate) async fn leases(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    query.check()?;
    let store = store(&api)?;
    let answer = store.read(query::Query::Leases, Consistency::Linearizable, None).await;
    let Content::Leases(ids) = answer.map_err(|error| store_error(&error))?.content else { return Err(unexpected()) };
    let queries = stream::iter(ids.iter().take(MAX_LEASES).copied()).map(|id| lease(store, id));
    let leases: Vec<Option<Lease>> =
        queries.buffered(CONCURRENT).try_collect().await.map_err(|error| store_error(&error))?;
    Ok(json(&uri, &Leases { total: ids.len() as u64, leases: leases.into_iter().flatten().collect() }))
}

/// Returns a lease; `None` if it has ended meanwhile.
async fn lease(store: &Store, id: LeaseId) -> Result<Option<Lease>, StoreError> {
    let answer = store.read(query::Query::Lease(id), Consistency::Linearizable, None).await?;
    let Content::Lease(Some(lease)) = answer.content else { return Ok(None) };
    let keys = lease.keys.len() as u64;
    Ok(Some(Lease { id: id.to_string(), ttl: lease.ttl, remaining: lease.remaining, keys }))
}

/// Shows how many keys each session holds.
pub(crate) async fn session_keys(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    query.check()?;
    let answer = store(&api)?.read(query::Query::HeldKeys, Consistency::Linearizable, None).await;
    let Content::HeldKeys(held) = answer.map_err(|error| store_error(&error))?.content else {
        return Err(unexpected());
    };
    let sessions = held.iter().map(|held| SessionKeys { id: held.session.to_string(), keys: held.keys });
    Ok(json(&uri, &sessions.collect::<Vec<_>>()))
}
