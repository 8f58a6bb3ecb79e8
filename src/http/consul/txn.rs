//! `/v1/txn`: several operations, all of them or none.

use axum::{
    extract::{Extension, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use data_encoding::BASE64;
use serde_json::Value;

use super::{
    kv::shown,
    mutations::{Body, octets},
    session::require_keys_of,
    store::{check, session_id, store, unexpected, write},
};
use crate::{
    api::kv::{KeyOperation, KeyValue, MAX_VALUE, TxnAnswer, TxnError, TxnResult},
    http::{
        Api,
        granted::Granted,
        query::{Query, bad},
        response::{ApiError, json},
    },
    model::token::KeyAccess,
    registry::registration::field,
    store::{
        command::{Command, Done, MAX_OPERATIONS, Operation, OperationFailure, OperationFailureReason},
        entry::KeyEntry,
        key::{Key, KeyRange},
    },
};

/// Largest body in octets: it has room for one value of the largest size in base64.
pub(crate) const MAX_BODY: usize = 1024 * 1024;

/// Applies a transaction. One that only reads is applied as well: it reads one state and is in order with all writes.
pub(crate) async fn apply(
    State(api): State<Api>,
    Extension(granted): Extension<Granted>,
    uri: Uri,
    query: Query,
    body: Body,
) -> Result<Response, ApiError> {
    check(&api, &query)?;
    store(&api)?;
    let Operations { operations, errors } = operations(&octets(body)?)?;
    for operation in &operations {
        authorize(&granted, operation)?;
        if let Operation::DestroySession(session) | Operation::Lock { session, .. } = operation {
            require_keys_of(&api, &granted, *session).await?;
        }
    }
    if !errors.is_empty() {
        return Ok(conflict(&uri, errors));
    }
    match write(&api, Command::Operate(operations.clone())).await? {
        Done::Operated(entries) => {
            let results = Some(results(&operations, &entries));
            Ok(json(&uri, &TxnAnswer { results, errors: None }))
        }
        Done::Failed(failures) => {
            let errors = failures.iter().map(|failure| TxnError {
                op_index: failure.index,
                what: operations.get(failure.index).map_or_else(String::new, |operation| reason(operation, failure)),
            });
            Ok(conflict(&uri, errors.collect()))
        }
        _ => Err(unexpected()),
    }
}

/// The operations of a transaction, as its body states them.
#[derive(Debug, Default)]
pub(in crate::http) struct Operations {
    /// Those that can be carried out.
    pub(in crate::http) operations: Vec<Operation>,
    /// Those that cannot: the transaction fails with them, unless the token forbids one of the others.
    errors: Vec<TxnError>,
}

/// Reads the body of a transaction.
pub(in crate::http) fn operations(body: &[u8]) -> Result<Operations, ApiError> {
    let body: Value = serde_json::from_slice(body).map_err(|error| unparsable(&error.to_string()))?;
    let items = body.as_array().ok_or_else(|| unparsable("expected a list of operations"))?;
    if items.len() > MAX_OPERATIONS {
        let text = format!("Transaction contains too many operations ({} > {MAX_OPERATIONS})", items.len());
        return Err(ApiError(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    let mut read_body = Operations::default();
    for (at, item) in items.iter().enumerate() {
        match read(at, item)? {
            Ok(operation) => read_body.operations.push(operation),
            Err(what) => read_body.errors.push(TxnError { op_index: at, what }),
        }
    }
    Ok(read_body)
}

fn conflict(uri: &Uri, errors: Vec<TxnError>) -> Response {
    (StatusCode::CONFLICT, json(uri, &TxnAnswer { results: None, errors: Some(errors) })).into_response()
}

/// Returns the read and written keys. As in Consul, written values are not returned, unless the transaction reads as well.
fn results(operations: &[Operation], entries: &[KeyEntry]) -> Vec<TxnResult> {
    let reads = operations.iter().any(Operation::is_read);
    let result = |kv: KeyValue| TxnResult { kv: if reads { kv } else { KeyValue { value: None, ..kv } } };
    entries.iter().filter_map(shown).map(result).collect()
}

/// Reads the operation at this index. The inner error is that of the operation alone: the transaction fails with it.
fn read(at: usize, item: &Value) -> Result<Result<Operation, String>, ApiError> {
    let invalid = |reason: &str| bad(&format!("Operation {at}: {reason}"));
    if let Some(kv) = field(item, "KV") {
        let operation = key_operation(kv).map_err(invalid)?;
        let value = BASE64.decode(operation.value.as_deref().unwrap_or_default().as_bytes());
        let value = value.map_err(|_| invalid("Value must be base64."))?;
        if value.len() > MAX_VALUE {
            let (key, len) = (&operation.key, value.len());
            let text = format!("Value for key {key:?} is too large ({len} > {MAX_VALUE} bytes)");
            return Err(ApiError(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        return Ok(command(operation, value));
    }
    if let Some(session) = field(item, "Session") {
        let verb = field(session, "Verb").and_then(Value::as_str).unwrap_or_default();
        if verb != "delete" {
            return Ok(Err(format!("unknown session verb {verb:?}")));
        }
        let id = field(session, "Session").and_then(|session| field(session, "ID")).and_then(Value::as_str);
        let id = id.unwrap_or_default();
        return Ok(session_id(id).map(Operation::DestroySession).ok_or_else(|| format!("invalid session {id:?}")));
    }
    Err(invalid(
        "expected KV or Session. muster has no transactions of nodes, services and checks: each agent registers its own, \
         PUT /v1/agent/service/register.",
    ))
}

/// Reads the fields of an operation on keys, whose names may have any case.
fn key_operation(kv: &Value) -> Result<KeyOperation, &'static str> {
    let text = |name, error| match field(kv, name) {
        None => Ok(String::new()),
        Some(value) => value.as_str().map(str::to_owned).ok_or(error),
    };
    let number = |name, error| field(kv, name).map_or(Ok(0), |value| value.as_u64().ok_or(error));
    Ok(KeyOperation {
        verb: text("Verb", "Verb must be a string.")?,
        key: text("Key", "Key must be a string.")?,
        value: Some(text("Value", "Value must be a string in base64.")?),
        flags: number("Flags", "Flags must be an integer from 0 on.")?,
        index: number("Index", "Index must be an integer from 0 on.")?,
        session: text("Session", "Session must be a string.")?,
    })
}

/// Returns the operation of a verb.
fn command(
    KeyOperation { verb, key, flags, index, session, .. }: KeyOperation,
    value: Vec<u8>,
) -> Result<Operation, String> {
    match verb.as_str() {
        "get-tree" => return Ok(Operation::GetPrefix(key.into())),
        "delete-tree" => return Ok(Operation::DeletePrefix(key.into())),
        _ => {}
    }
    let (key, value) = (Key::new(key).map_err(|error| error.to_string())?, value.into());
    let holder = || session_id(&session).ok_or_else(|| format!("invalid session {session:?}"));
    Ok(match verb.as_str() {
        "set" => Operation::Set { key, value, flags },
        "cas" => Operation::CompareAndSet { key, value, flags, index },
        "lock" => Operation::Lock { key, value, flags, session: holder()? },
        "unlock" => Operation::Unlock { key, value, flags, session: holder()? },
        "get" => Operation::Get(key),
        "get-or-empty" => Operation::GetOrEmpty(key),
        "check-index" => Operation::CheckIndex { key, index },
        "check-session" => Operation::CheckSession { key, session: holder()? },
        "check-not-exists" => Operation::CheckNotExists(key),
        "delete" => Operation::Delete(key),
        "delete-cas" => Operation::CompareAndDelete { key, index },
        _ => return Err(format!("unknown KV verb {verb:?}")),
    })
}

/// Requires the permission of each operation.
fn authorize(granted: &Granted, operation: &Operation) -> Result<(), ApiError> {
    let (access, range) = match operation {
        Operation::Set { key, .. }
        | Operation::CompareAndSet { key, .. }
        | Operation::Lock { key, .. }
        | Operation::Unlock { key, .. }
        | Operation::CompareAndDelete { key, .. }
        | Operation::Delete(key) => (KeyAccess::Write, KeyRange::Key(key.clone())),
        Operation::DeletePrefix(prefix) => (KeyAccess::Write, KeyRange::prefix(prefix.clone())),
        Operation::Get(key)
        | Operation::GetOrEmpty(key)
        | Operation::CheckIndex { key, .. }
        | Operation::CheckSession { key, .. }
        | Operation::CheckNotExists(key) => (KeyAccess::Read, KeyRange::Key(key.clone())),
        Operation::GetPrefix(prefix) => (KeyAccess::Read, KeyRange::prefix(prefix.clone())),
        Operation::DestroySession(_) => return granted.require_sessions(),
    };
    granted.require_keys(access, &range)
}

/// Returns the reason of a failure in Consul's words.
fn reason(operation: &Operation, OperationFailure { reason, .. }: &OperationFailure) -> String {
    use OperationFailureReason::{Index, InvalidSession};
    let quoted = |key: &Key| format!("{:?}", key.as_str().unwrap_or_default());
    match (operation, reason) {
        (_, InvalidSession(id)) => format!("invalid session \"{id}\""),
        (Operation::CompareAndSet { key, .. }, _) => format!("failed to set key {}, index is stale", quoted(key)),
        (Operation::CompareAndDelete { key, .. }, _) => format!("failed to delete key {}, index is stale", quoted(key)),
        (Operation::Lock { key, .. }, _) => format!("failed to lock key {}, {reason}", quoted(key)),
        (Operation::Unlock { key, .. }, _) => {
            format!("failed to unlock key {}, lock isn't held, or is held by another session", quoted(key))
        }
        (Operation::Get(key), _) => format!("key {} doesn't exist", quoted(key)),
        (Operation::CheckNotExists(key), _) => format!("key {} exists", quoted(key)),
        (Operation::CheckIndex { key, index }, Index(found)) => {
            format!("failed index check for key {}, current modify index {found} != {index}", quoted(key))
        }
        (Operation::CheckIndex { key, .. }, _) => format!("failed to check index: key {} doesn't exist", quoted(key)),
        (Operation::CheckSession { key, session }, _) => {
            format!("failed session check for key {}: it is not held by session \"{session}\"", quoted(key))
        }
        _ => reason.to_string(),
    }
}

fn unparsable(reason: &str) -> ApiError {
    bad(&format!("Failed to parse body: {reason}"))
}
