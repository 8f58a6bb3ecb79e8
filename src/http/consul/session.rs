//! `/v1/session`: sessions, which hold locks.

use std::time::Duration;

use axum::{
    Extension,
    extract::{Path, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::Value;
use uuid::Builder;

use super::{
    convert::NodeRef,
    health::checks_on,
    mutations::{Body, octets},
    store::{check, failed, read, session_id, store, store_error, unexpected, write},
};
use crate::{
    api::{
        catalog::Check,
        kv::{self, DELETE, RELEASE, ServiceCheck, SessionCreated},
    },
    http::{
        Api,
        granted::{Granted, denied},
        query::{Query, bad, node_name},
        response::{ApiError, json},
    },
    model::{announcement::NODE_CHECK, health::Status, registered_name::RegisteredName, token::KeyAccess},
    registry::registration::{field, go_duration},
    store::{
        command::Command,
        key::{Key, KeyRange, Revision},
        lease::LifetimeId,
        query::{self, Consistency, Content},
        session::{Behavior, DEFAULT_LOCK_DELAY, MAX_LOCK_DELAY, MAX_TTL, MIN_TTL, Session, SessionId},
    },
};

/// Numbers of a lock delay below this one are seconds, all others nanoseconds, as in Consul.
const SECONDS_BELOW: f64 = 1000.0;

/// Creates a session. The body is optional.
pub(crate) async fn create(State(api): State<Api>, uri: Uri, query: Query, body: Body) -> Result<Response, ApiError> {
    check(&api, &query)?;
    store(&api)?;
    let octets = octets(body)?;
    let body = if octets.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&octets).map_err(|error| undecodable(&error.to_string()))?
    };
    if !body.is_object() && !body.is_null() {
        return Err(undecodable("expected a JSON object"));
    }
    let session = new_session(&api, &body)?;
    let created = SessionCreated { id: session.id.to_string() };
    write(&api, Command::CreateSession(Box::new(session))).await?;
    Ok(json(&uri, &created))
}

/// Renews a session. Returns it in a list, as Consul does.
pub(crate) async fn renew(
    State(api): State<Api>,
    uri: Uri,
    Path(text): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    check(&api, &query)?;
    let missing = || ApiError(StatusCode::NOT_FOUND, format!("Session id '{text}' not found"));
    let store = store(&api)?;
    let id = session_id(&text).ok_or_else(missing)?;
    let answer = store.read(query::Query::Session(id), Consistency::Linearizable, None).await;
    let Content::Sessions(known) = answer.map_err(|error| store_error(&error))?.content else {
        return Err(unexpected());
    };
    let session = known.first().ok_or_else(missing)?;
    if session.ttl.is_some() {
        let renewed = store.renew(LifetimeId::Session(id)).await.map_err(|error| store_error(&error))?;
        renewed.ok_or_else(missing)?;
    }
    Ok(json(&uri, &[shown(session)]))
}

/// Ends a session.
pub(crate) async fn destroy(
    State(api): State<Api>,
    uri: Uri,
    Path(text): Path<String>,
    Extension(granted): Extension<Granted>,
    query: Query,
) -> Result<Response, ApiError> {
    check(&api, &query)?;
    store(&api)?;
    if let Some(id) = session_id(&text) {
        require_keys_of(&api, &granted, id).await?;
        write(&api, Command::DestroySession(id)).await?;
    }
    Ok(json(&uri, &true))
}

/// Requires access to all keys that a session holds: its end releases or deletes them, and its owner could not end a session with a
/// key that the owner may not write. Everyone who can read a locked key knows the id of its session.
///
/// # Errors
/// 403 if the token may not write one of the keys. The text does not name the key, which the token may not be able to read.
pub(super) async fn require_keys_of(api: &Api, granted: &Granted, session: SessionId) -> Result<(), ApiError> {
    if granted.require_keys(KeyAccess::Write, &KeyRange::ALL).is_ok() {
        return Ok(());
    }
    let answer = store(api)?.read(query::Query::KeysOf(session), Consistency::Linearizable, None).await;
    let Content::Keys(keys) = answer.map_err(|error| store_error(&error))?.content else { return Err(unexpected()) };
    let ranges = keys.into_iter().map(|key| Key::new(key).map(KeyRange::Key));
    if ranges.flatten().all(|range| granted.require_keys(KeyAccess::Write, &range).is_ok()) {
        return Ok(());
    }
    Err(denied(&format!(
        "write access to all keys that session {session} holds is required: see the keys of the token."
    )))
}

/// Returns one session in a list, which is empty if there is no such session.
pub(crate) async fn info(
    State(api): State<Api>,
    uri: Uri,
    Path(text): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let id = session_id(&text).ok_or_else(|| bad(&format!("Invalid session id {text:?}: expected a UUID.")))?;
    list_of(&api, &uri, &query, query::Query::Session(id)).await
}

pub(crate) async fn node(
    State(api): State<Api>,
    uri: Uri,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let node = Some(node_name(&name)?.as_str().to_owned());
    list_of(&api, &uri, &query, query::Query::Sessions { node }).await
}

pub(crate) async fn list(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    list_of(&api, &uri, &query, query::Query::Sessions { node: None }).await
}

async fn list_of(api: &Api, uri: &Uri, query: &Query, wanted: query::Query) -> Result<Response, ApiError> {
    let found = read(api, query, wanted).await?;
    let Content::Sessions(sessions) = &found.content else { return Err(unexpected()) };
    let sessions: Vec<kv::Session> = sessions.iter().map(shown).collect();
    Ok((found.headers, json(uri, &sessions)).into_response())
}

/// Returns a session as Consul shows it.
fn shown(session: &Session) -> kv::Session {
    let node = session.ends_with_node.then(|| NODE_CHECK.to_owned());
    let service_checks: Vec<ServiceCheck> =
        session.service_checks.iter().map(|id| ServiceCheck { id: id.clone(), namespace: String::new() }).collect();
    kv::Session {
        id: session.id.to_string(),
        name: session.name.clone(),
        node: session.node.clone(),
        lock_delay: u64::try_from(session.lock_delay.as_nanos()).unwrap_or(u64::MAX),
        behavior: match session.behavior {
            Behavior::Release => RELEASE,
            Behavior::Delete => DELETE,
        }
        .to_owned(),
        ttl: session.ttl.map(|ttl| format!("{}s", ttl.as_secs_f64())).unwrap_or_default(),
        node_checks: node.into_iter().chain(session.node_checks.iter().cloned()).collect(),
        service_checks: (!service_checks.is_empty()).then_some(service_checks),
        create_index: session.created.0,
        modify_index: session.created.0,
    }
}

/// The bounds of a session, as the body of a request states them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Time to live; `None`: the session ends with its checks alone.
    pub ttl: Option<Duration>,
    /// Lock delay.
    pub lock_delay: Duration,
}

/// Reads the bounds of a session.
pub(in crate::http) fn bounds(body: &Value) -> Result<Bounds, ApiError> {
    Ok(Bounds { ttl: ttl(body)?, lock_delay: lock_delay(body)? })
}

/// Returns the session that the body of a request describes. Its node and its checks must exist.
fn new_session(api: &Api, body: &Value) -> Result<Session, ApiError> {
    let known = api.queries.snapshot();
    let own = RegisteredName::from(api.agent.node.clone());
    let name = text(body, "Node")?.map_or_else(|| Ok(own.clone()), node_name)?;
    let node = NodeRef::find(&known.catalog, &name);
    // The catalog of an agent that starts does not have the node yet.
    let is_starting = node.is_none() && name == own;
    if node.is_none() && !is_starting {
        return Err(bad(&format!("Missing node registration: no node {name} is in the catalog")));
    }
    let existing = node.map_or_else(Vec::new, |node| checks_on(&known.catalog, node));
    let Bounds { ttl, lock_delay } = bounds(body)?;
    let mut session = Session {
        id: random_id()?,
        name: text(body, "Name")?.unwrap_or_default().to_owned(),
        node: name.as_str().to_owned(),
        ends_with_node: false,
        node_checks: Vec::new(),
        service_checks: Vec::new(),
        lock_delay,
        behavior: behavior(body)?,
        ttl,
        created: Revision::default(),
    };
    for id in checks(body)? {
        if id == NODE_CHECK && is_starting {
            session.ends_with_node = true;
            continue;
        }
        let check = healthy(&existing, &id)?;
        match (id == NODE_CHECK, check.service_id.is_empty()) {
            (true, _) => session.ends_with_node = true,
            (false, true) => session.node_checks.push(id),
            (false, false) => session.service_checks.push(id),
        }
    }
    Ok(session)
}

/// Returns a check of the node that is not critical: a session ends when one of its checks is.
fn healthy<'a>(existing: &'a [Check], id: &str) -> Result<&'a Check, ApiError> {
    let check = existing.iter().find(|check| check.check_id == id);
    let check = check.ok_or_else(|| bad(&format!("Missing check '{}' registration", id.escape_debug())))?;
    if check.status == Status::Critical.as_str() {
        return Err(bad(&format!("Check '{id}' is in critical state")));
    }
    Ok(check)
}

/// Returns the ids of the checks of the session: by default that of the node, in addition those of services.
fn checks(body: &Value) -> Result<Vec<String>, ApiError> {
    let (checks, node) = (ids(body, "Checks")?, ids(body, "NodeChecks")?);
    let mut all = if checks.is_none() && node.is_none() { vec![NODE_CHECK.to_owned()] } else { Vec::new() };
    for id in [checks, node, ids(body, "ServiceChecks")?].into_iter().flatten().flatten() {
        if !all.contains(&id) {
            all.push(id);
        }
    }
    Ok(all)
}

/// Returns the ids in a list of strings, or of objects with an `ID`.
fn ids(body: &Value, name: &str) -> Result<Option<Vec<String>>, ApiError> {
    let Some(value) = field(body, name) else { return Ok(None) };
    let invalid = || undecodable(&format!("{name} must be a list of ids of checks"));
    let id =
        |item: &Value| item.as_str().or_else(|| field(item, "ID")?.as_str()).map(str::to_owned).ok_or_else(invalid);
    value.as_array().ok_or_else(invalid)?.iter().map(id).collect::<Result<_, _>>().map(Some)
}

fn lock_delay(body: &Value) -> Result<Duration, ApiError> {
    let invalid = || undecodable("LockDelay must be a duration such as \"15s\", or a number from 0 on");
    let delay = match field(body, "LockDelay") {
        None => return Ok(DEFAULT_LOCK_DELAY),
        Some(Value::String(text)) => go_duration(text),
        Some(Value::Number(number)) => number.as_f64().and_then(|number| {
            let seconds = if number < SECONDS_BELOW { number } else { number / 1e9 };
            Duration::try_from_secs_f64(seconds).ok()
        }),
        Some(_) => None,
    };
    Ok(delay.ok_or_else(invalid)?.min(MAX_LOCK_DELAY))
}

fn behavior(body: &Value) -> Result<Behavior, ApiError> {
    match text(body, "Behavior")? {
        None | Some(RELEASE) => Ok(Behavior::Release),
        Some(DELETE) => Ok(Behavior::Delete),
        Some(other) => Err(bad(&format!("Invalid Behavior setting '{}'", other.escape_debug()))),
    }
}

fn ttl(body: &Value) -> Result<Option<Duration>, ApiError> {
    let Some(text) = text(body, "TTL")? else { return Ok(None) };
    let invalid = || bad(&format!("Session TTL '{}' invalid: expected a duration such as 30s", text.escape_debug()));
    let ttl = go_duration(text).ok_or_else(invalid)?;
    if ttl.is_zero() {
        return Ok(None);
    }
    if !(MIN_TTL..=MAX_TTL).contains(&ttl) {
        let (min, max) = (MIN_TTL.as_secs(), MAX_TTL.as_secs() / 3600);
        // Clients recognize the status and the text.
        return Err(failed(format!("Invalid Session TTL '{text}', must be between [{min}s={max}h0m0s]")));
    }
    Ok(Some(ttl))
}

/// Returns a field with a text; `None` if it is missing or empty.
fn text<'a>(body: &'a Value, name: &str) -> Result<Option<&'a str>, ApiError> {
    let Some(value) = field(body, name) else { return Ok(None) };
    let text = value.as_str().ok_or_else(|| undecodable(&format!("{name} must be a string")))?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn undecodable(reason: &str) -> ApiError {
    bad(&format!("Request decode failed: {reason}"))
}

/// Returns an id that no client can guess: the id of a session is enough to end it.
fn random_id() -> Result<SessionId, ApiError> {
    let mut octets = [0; 16];
    let filled = SystemRandom::new().fill(&mut octets);
    filled.map_err(|_| failed("The system has no random numbers.".to_owned()))?;
    Ok(SessionId(Builder::from_random_bytes(octets).into_uuid()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lock_delay_is_a_duration_or_a_number() {
        let cases = [
            (json!({}), Some(15_000)),
            (json!({"LockDelay": "0s"}), Some(0)),
            (json!({"lockdelay": "1.5s"}), Some(1500)),
            (json!({"Lock_Delay": 5}), Some(5000)),
            (json!({"LockDelay": 1_500_000_000_u64}), Some(1500)),
            (json!({"LockDelay": "10m"}), Some(60_000)),
            (json!({"LockDelay": "15"}), None),
            (json!({"LockDelay": -1}), None),
            (json!({"LockDelay": [1]}), None),
        ];
        for (body, expected) in cases {
            assert_eq!(lock_delay(&body).ok().map(|delay| delay.as_millis()), expected, "{body}");
        }
    }

    #[test]
    fn ttl_is_bounded_and_clients_recognize_the_error() {
        let cases = [
            (json!({}), Ok(None)),
            (json!({"TTL": ""}), Ok(None)),
            (json!({"ttl": "0s"}), Ok(None)),
            (json!({"TTL": "10s"}), Ok(Some(10))),
            (json!({"TTL": "24h"}), Ok(Some(86_400))),
            (json!({"TTL": "9s"}), Err((500, "Invalid Session TTL '9s'"))),
            (json!({"TTL": "25h"}), Err((500, "Invalid Session TTL '25h'"))),
            (json!({"TTL": "soon"}), Err((400, "Session TTL 'soon' invalid"))),
        ];
        for (body, expected) in cases {
            match (ttl(&body), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.map(|ttl| ttl.as_secs()), expected, "{body}"),
                (Err(found), Err((status, expected))) => {
                    assert!(found.0 == status && found.1.starts_with(expected), "{body}: {found:?}");
                }
                (found, _) => panic!("{body}: {found:?}"),
            }
        }
    }

    #[test]
    fn node_is_checked_unless_the_client_states_checks() {
        let cases = [
            (json!({}), vec!["serfHealth"]),
            (json!({"Checks": null}), vec!["serfHealth"]),
            (json!({"Checks": []}), vec![]),
            (json!({"nodechecks": []}), vec![]),
            (json!({"Checks": ["serfHealth", "web"], "NodeChecks": ["web"]}), vec!["serfHealth", "web"]),
            (json!({"ServiceChecks": [{"ID": "web", "Namespace": ""}]}), vec!["serfHealth", "web"]),
        ];
        for (body, expected) in cases {
            assert_eq!(checks(&body).unwrap(), expected, "{body}");
        }
        assert!(checks(&json!({"Checks": "web"})).is_err());
    }
}
