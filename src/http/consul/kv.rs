//! `/v1/kv`: keys and their values.

use axum::{
    extract::{Extension, State},
    http::{HeaderMap, HeaderName, HeaderValue, Uri, header},
    response::{IntoResponse, Response},
};
use data_encoding::BASE64;
use percent_encoding::percent_decode_str;

use super::{
    mutations::{Body, octets},
    session::require_keys_of,
    store::{Found, check, invalid_session, read, session_id, unexpected, write},
};
use crate::{
    api::kv::{KEY_COUNT, KeyValue},
    http::{
        Api,
        granted::Granted,
        query::{Query, bad},
        response::{ApiError, json, json_array},
    },
    model::token::KeyAccess,
    store::{
        command::{Command, Done, Operation, OperationFailureReason},
        entry::KeyEntry,
        key::{Key, KeyRange},
        query::{self, Content},
    },
};

/// Path of the keys.
const PATH: &str = "/v1/kv/";

/// Returns an entry as Consul shows it; `None` if the key is not UTF-8, which only clients of etcd's API can write.
pub(super) fn shown(KeyEntry { key, entry }: &KeyEntry) -> Option<KeyValue> {
    let attributes = entry.attributes();
    Some(KeyValue {
        lock_index: attributes.lock_index,
        key: key.as_str()?.to_owned(),
        flags: attributes.flags,
        value: (!entry.value.is_empty()).then(|| BASE64.encode(&entry.value)),
        session: attributes.session.map(|session| session.to_string()),
        create_index: entry.created.0,
        modify_index: entry.modified.0,
    })
}

/// Returns one key, or with `recurse` those that begin with the path, or with `keys` only their names.
pub(crate) async fn get(
    State(api): State<Api>,
    Extension(granted): Extension<Granted>,
    uri: Uri,
    query: Query,
) -> Result<Response, ApiError> {
    let path = key_text(&uri)?;
    if query.has("keys") {
        return keys(&api, &granted, &uri, &query, path).await;
    }
    let recurse = query.has("recurse");
    let wanted = if recurse {
        granted.require_keys(KeyAccess::Read, &KeyRange::prefix(path.clone()))?;
        query::Query::Prefix(path.into())
    } else {
        let key = named_key(path)?;
        granted.require_keys(KeyAccess::Read, &KeyRange::Key(key.clone()))?;
        query::Query::Key(key)
    };
    let found = read(&api, &query, wanted).await?;
    let Content::Entries(entries) = &found.content else { return Err(unexpected()) };
    if let (Some(only), true, false) = (entries.first(), query.has("raw"), recurse) {
        return Ok((found.headers, raw_headers(), only.entry.value.clone()).into_response());
    }
    if !entries.iter().any(|entry| entry.key.as_str().is_some()) {
        return Ok(found.missing());
    }
    let octets = found.content.octets();
    let Found { headers, content: Content::Entries(entries) } = found else { return Err(unexpected()) };
    let shown = entries.into_iter().filter_map(|entry| shown(&entry));
    Ok((headers, json_array(&uri, shown, octets)).into_response())
}

/// Returns the names of the keys that begin with the path, each up to the next `separator`.
async fn keys(api: &Api, granted: &Granted, uri: &Uri, query: &Query, prefix: String) -> Result<Response, ApiError> {
    granted.require_keys(KeyAccess::Read, &KeyRange::prefix(prefix.clone()))?;
    // Consul accepts its former misspelling.
    let separator = query.text("separator").or_else(|| query.text("seperator")).unwrap_or_default().to_owned();
    let is_root = prefix.is_empty();
    let wanted = query::Query::Keys { prefix: prefix.into(), separator: separator.into() };
    let found = read(api, query, wanted).await?;
    let Found { content: Content::Keys(keys), headers } = &found else { return Err(unexpected()) };
    let count = keys.len();
    let keys: Vec<&str> = keys.iter().filter_map(|key| std::str::from_utf8(key).ok()).collect();
    if keys.is_empty() && !is_root {
        return Ok(found.missing());
    }
    let mut headers = headers.clone();
    if keys.len() < count {
        // A client that replaces all keys must know of those that JSON cannot name.
        headers.insert(HeaderName::from_static(KEY_COUNT), HeaderValue::from(count));
    }
    Ok((headers, json(uri, &keys)).into_response())
}

/// Headers of a value as it is. A browser neither guesses the type of a value nor runs it.
fn raw_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    headers
}

/// Sets a value; with `cas` only at this index, with `acquire` and `release` as a lock.
pub(crate) async fn put(
    State(api): State<Api>,
    Extension(granted): Extension<Granted>,
    uri: Uri,
    query: Query,
    body: Body,
) -> Result<Response, ApiError> {
    check(&api, &query)?;
    let key = named_key(key_text(&uri)?)?;
    if key.octets().starts_with(b"/") {
        return Err(bad("Invalid key: a key must not begin with '/'."));
    }
    granted.require_keys(KeyAccess::Write, &KeyRange::Key(key.clone()))?;
    ensure_one(&query, &["cas", "acquire", "release"])?;
    let flags = number(&query, "flags")?.unwrap_or_default();
    let value = octets(body)?;
    let operation = if let Some(index) = number(&query, "cas")? {
        Operation::CompareAndSet { key, value, flags, index }
    } else if let Some(session) = query.all("acquire").next() {
        let Some(id) = session_id(session) else { return Err(no_session(session)) };
        require_keys_of(&api, &granted, id).await?;
        Operation::Lock { key, value, flags, session: id }
    } else if let Some(session) = query.all("release").next() {
        // A session that does not exist holds no lock.
        let Some(session) = session_id(session) else { return Ok(json(&uri, &false)) };
        Operation::Unlock { key, value, flags, session }
    } else {
        Operation::Set { key, value, flags }
    };
    Ok(json(&uri, &apply(&api, operation).await?))
}

/// Deletes one key, with `cas` only at this index, or with `recurse` those that begin with the path.
pub(crate) async fn delete(
    State(api): State<Api>,
    Extension(granted): Extension<Granted>,
    uri: Uri,
    query: Query,
) -> Result<Response, ApiError> {
    check(&api, &query)?;
    ensure_one(&query, &["recurse", "cas"])?;
    let path = key_text(&uri)?;
    let operation = if query.has("recurse") {
        granted.require_keys(KeyAccess::Write, &KeyRange::prefix(path.clone()))?;
        Operation::DeletePrefix(path.into())
    } else {
        let key = named_key(path)?;
        granted.require_keys(KeyAccess::Write, &KeyRange::Key(key.clone()))?;
        match number(&query, "cas")? {
            Some(index) => Operation::CompareAndDelete { key, index },
            None => Operation::Delete(key),
        }
    };
    Ok(json(&uri, &apply(&api, operation).await?))
}

/// Applies one operation. Returns whether its condition held.
async fn apply(api: &Api, operation: Operation) -> Result<bool, ApiError> {
    match write(api, Command::Operate(vec![operation])).await? {
        Done::Operated(_) => Ok(true),
        Done::Failed(failures) => match failures.first().map(|failure| &failure.reason) {
            Some(OperationFailureReason::InvalidSession(id)) => Err(invalid_session(id)),
            _ => Ok(false),
        },
        _ => Err(unexpected()),
    }
}

/// The error for a text that is the id of no session. Consul answers 500; this is a fault of the client.
fn no_session(text: &str) -> ApiError {
    let problem = if text.is_empty() { "missing session".to_owned() } else { format!("invalid session {text:?}") };
    bad(&problem)
}

/// Returns the key or the prefix in a path, of which an encoded slash is a part like any other.
pub(in crate::http) fn key_text(uri: &Uri) -> Result<String, ApiError> {
    let encoded = uri.path().strip_prefix(PATH).unwrap_or_default();
    let key = percent_decode_str(encoded).decode_utf8();
    key.map(Into::into)
        .map_err(|_| bad("Invalid key: a key is UTF-8 in this API; etcd's API reads and writes any octets."))
}

fn named_key(path: String) -> Result<Key, ApiError> {
    if path.is_empty() {
        return Err(bad("Missing key name"));
    }
    Key::new(path).map_err(|error| bad(&format!("Invalid key: {error}.")))
}

/// Refuses parameters that exclude each other.
fn ensure_one(query: &Query, names: &[&str]) -> Result<(), ApiError> {
    let given: Vec<&str> = names.iter().copied().filter(|name| query.has(name)).collect();
    if given.len() > 1 { Err(bad(&format!("Conflicting flags: {}", given.join("&")))) } else { Ok(()) }
}

/// Returns the number in a parameter.
fn number(query: &Query, name: &str) -> Result<Option<u64>, ApiError> {
    let Some(text) = query.all(name).next() else { return Ok(None) };
    let number =
        text.parse().map_err(|_| bad(&format!("{name} must be an integer from 0 to {}, got {text:?}", u64::MAX)));
    number.map(Some)
}
