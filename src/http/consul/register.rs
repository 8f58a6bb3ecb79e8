//! What clients change on this node: services, checks, reports, maintenance and drains.
//!
//! A change is answered once it is kept and shows in the catalog, so that whoever asks next sees it.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::{StatusCode, Uri},
    response::Response,
};
use serde_json::Value;
use smol_str::SmolStr;

use super::agent_services::enable;
use crate::{
    api,
    http::{
        Api,
        command::{CHANGE, Command, give},
        query::{Query, bad},
        response::{ApiError, json},
    },
    model::{
        announcement::{Announcement, HoldReason},
        catalog::Catalog,
        health::Status,
        service::InstanceKey,
        ttl_ledger::SPREAD,
    },
    registry::{
        error::RegistryError,
        registration::{CheckRegistration, Registration, field, go_duration},
        state::{Change, Outcome, Target},
    },
};

/// How long an answer waits until the catalog shows what was changed.
pub(crate) const SHOWN: Duration = Duration::from_secs(2);

pub(crate) type Body = Result<Bytes, BytesRejection>;

/// A body as it came.
pub(crate) fn octets(body: Body) -> Result<Bytes, ApiError> {
    body.map_err(|rejection| ApiError(rejection.status(), rejection.body_text()))
}

fn read(body: Body) -> Result<Value, ApiError> {
    serde_json::from_slice(&octets(body)?).map_err(|error| bad(&format!("Request decode failed: {error}")))
}

/// Has a change made, and waits until it shows.
async fn make(
    api: &Api,
    change: Change,
    shows: impl Fn(&InstanceKey, Option<&Announcement>) -> bool,
) -> Result<Outcome, ApiError> {
    let now = "Look at the agent's log.";
    let outcome = give(&api.orders, |done| Command::Change { change, done }, CHANGE, now)
        .await?
        .map_err(|denied| denial(&denied))?;
    let there = |catalog: &Catalog| {
        let view = catalog.view().get(&api.agent.node);
        let known = |key: &InstanceKey| view.and_then(|view| view.announcements.get(key)).map(|known| &**known);
        outcome.instances.iter().all(|key| shows(key, known(key)))
    };
    api.hub.shows(there, SHOWN).await;
    Ok(outcome)
}

pub(crate) fn denial(denied: &RegistryError) -> ApiError {
    let status = match denied {
        RegistryError::Unknown(_) => StatusCode::NOT_FOUND,
        RegistryError::Refused(_) => StatusCode::BAD_REQUEST,
        RegistryError::NotKept(_) => StatusCode::INSUFFICIENT_STORAGE,
    };
    ApiError(status, denied.to_string())
}

pub(crate) async fn register(State(api): State<Api>, query: Query, body: Body) -> Result<(), ApiError> {
    query.check()?;
    let only_these_checks = query.flag("replace-existing-checks")?;
    let registration = Registration::read(&read(body)?, &api.agent.host()).map_err(|fault| bad(&fault.to_string()))?;
    register_this(&api, registration, only_these_checks).await
}

async fn register_this(api: &Api, registration: Registration, only_these_checks: bool) -> Result<(), ApiError> {
    let wanted = registration.definition.clone();
    let checks: Vec<SmolStr> = (0..wanted.checks.len()).map(|at| wanted.check_id(at)).collect();
    // Others than these may have been added before, and stay.
    let shows = move |known: &Announcement| {
        let reported = known.report.iter().flat_map(|report| &report.checks);
        let (there, others): (Vec<_>, Vec<_>) = reported.partition(|check| checks.contains(&check.id));
        known.instance == wanted.instance && there.len() == checks.len() && (others.is_empty() || !only_these_checks)
    };
    let change = Change::Register { registration: Box::new(registration), only_these_checks };
    make(api, change, |_, known| known.is_some_and(&shows)).await.map(drop)
}

pub(crate) async fn deregister(State(api): State<Api>, Path(id): Path<String>) -> Result<(), ApiError> {
    make(&api, Change::Deregister(id), |_, known| known.is_none()).await.map(drop)
}

pub(crate) async fn register_check(State(api): State<Api>, body: Body) -> Result<(), ApiError> {
    let check = CheckRegistration::read(&read(body)?).map_err(|fault| bad(&fault.to_string()))?;
    let id = check.id.clone();
    let has = |known: &Announcement| {
        known.report.as_ref().is_some_and(|report| report.checks.iter().any(|check| check.id == id))
    };
    make(&api, Change::RegisterCheck(check), |_, known| known.is_some_and(has)).await.map(drop)
}

pub(crate) async fn deregister_check(State(api): State<Api>, Path(id): Path<String>) -> Result<(), ApiError> {
    let has = |known: &Announcement| {
        known.report.as_ref().is_some_and(|report| report.checks.iter().any(|check| check.id == id.as_str()))
    };
    let change = Change::DeregisterCheck(id.clone());
    make(&api, change, |_, known| !known.is_some_and(has)).await.map(drop)
}

async fn report(api: &Api, check: String, status: Status, output: String) -> Result<(), ApiError> {
    let id = check.clone();
    let stands = move |known: &Announcement| {
        let report = known.report.as_ref()?;
        report.checks.iter().find(|check| check.id == id.as_str()).map(|check| check.status == status)
    };
    let change = Change::Report { check, status, output };
    make(api, change, |_, known| known.and_then(&stands) == Some(true)).await.map(drop)
}

pub(crate) async fn pass(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Result<(), ApiError> {
    report(&api, id, Status::Passing, query.text("note").unwrap_or_default().to_owned()).await
}

pub(crate) async fn warn(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Result<(), ApiError> {
    report(&api, id, Status::Warning, query.text("note").unwrap_or_default().to_owned()).await
}

pub(crate) async fn fail(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Result<(), ApiError> {
    report(&api, id, Status::Critical, query.text("note").unwrap_or_default().to_owned()).await
}

pub(crate) async fn update(State(api): State<Api>, Path(id): Path<String>, body: Body) -> Result<(), ApiError> {
    let body = read(body)?;
    let text = |key: &str| field(&body, key).and_then(Value::as_str).unwrap_or_default();
    let word = text("Status");
    let status = Status::from_word(word)
        .ok_or_else(|| bad(&format!("Invalid check status: {word:?}. It is passing, warning or critical.")))?;
    report(&api, id, status, text("Output").to_owned()).await
}

async fn hold(api: &Api, target: Target, gate: HoldReason, query: &Query) -> Result<Outcome, ApiError> {
    let period = match query.text("for") {
        None => None,
        Some(text) => {
            let period = go_duration(text).filter(|period| !period.is_zero());
            Some(period.ok_or_else(|| bad(&format!("for must be a duration such as 30m, got {text:?}")))?)
        }
    };
    let reason = query.text("reason").unwrap_or_default().to_owned();
    let change = Change::Hold { target, gate, reason, period };
    make(api, change, |_, known| known.is_none_or(|known| !known.standing.is_answered())).await
}

async fn release(api: &Api, target: Target, gates: Vec<HoldReason>) -> Result<Outcome, ApiError> {
    let held = gates.clone();
    let is_held = move |known: &Announcement| match known.standing {
        crate::model::announcement::InstanceState::Withheld(gate, _) => held.contains(&gate),
        _ => false,
    };
    make(api, Change::Release { target, gates }, |_, known| !known.is_some_and(&is_held)).await
}

pub(crate) async fn maintain_node(State(api): State<Api>, query: Query) -> Result<(), ApiError> {
    maintain(&api, Target::Node, HoldReason::NodeMaintenance, &query).await
}

pub(crate) async fn maintain_service(
    State(api): State<Api>,
    Path(id): Path<String>,
    query: Query,
) -> Result<(), ApiError> {
    maintain(&api, Target::Instance(id), HoldReason::Maintenance, &query).await
}

async fn maintain(api: &Api, target: Target, gate: HoldReason, query: &Query) -> Result<(), ApiError> {
    match enable(query)? {
        true => hold(api, target, gate, query).await.map(drop),
        false => release(api, target, vec![gate]).await.map(drop),
    }
}

fn target(api: &Api, text: String) -> Target {
    if api.agent.node.as_str().eq_ignore_ascii_case(&text) { Target::Node } else { Target::Instance(text) }
}

/// Takes an instance, or the node with all of them, out of answers for good; says for how long it may still be in caches.
pub(crate) async fn drain(
    State(api): State<Api>,
    uri: Uri,
    Path(text): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let outcome = hold(&api, target(&api, text), HoldReason::Draining, &query).await?;
    // Begun seconds count.
    let wait = u32::try_from(outcome.left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
    let drained = api::Drained {
        instances: outcome.instances.iter().map(ToString::to_string).collect(),
        ttl: wait.saturating_sub(SPREAD.as_secs() as u32),
        wait: Some(wait),
    };
    Ok(json(&uri, &drained))
}

pub(crate) async fn resume(State(api): State<Api>, uri: Uri, Path(text): Path<String>) -> Result<Response, ApiError> {
    let gates = vec![HoldReason::Draining, HoldReason::Maintenance, HoldReason::NodeMaintenance];
    let outcome = release(&api, target(&api, text), gates).await?;
    // What was not held back is as it was.
    let instances = outcome.instances.iter().filter(|_| outcome.changed).map(ToString::to_string).collect();
    Ok(json(&uri, &api::Drained { instances, ttl: 0, wait: None }))
}

pub(crate) async fn reload(State(api): State<Api>) -> Result<(), ApiError> {
    give(&api.orders, |done| Command::Reload { done }, CHANGE, "Look at the agent's log.").await
}

/// `PUT /v1/catalog/register`: nodes announce for themselves, so it is taken for this node alone.
pub(crate) async fn catalog_register(State(api): State<Api>, uri: Uri, body: Body) -> Result<Response, ApiError> {
    let body = read(body)?;
    own_node(&api, &body)?;
    let Some(service) = field(&body, "Service").filter(|service| service.is_object()) else {
        return Err(bad("Service: it is missing. Nodes need no registration: each announces itself."));
    };
    if field(&body, "Check").or(field(&body, "Checks")).is_some() {
        let text = "Check: results are not written into the catalog; register a TTL check with \
                    /v1/agent/service/register and report to it.";
        return Err(bad(text));
    }
    let (mut service, name) = (service.clone(), field(service, "Service").cloned());
    if let (Some(fields), Some(name)) = (service.as_object_mut(), name) {
        fields.insert("Name".to_owned(), name);
    }
    let registration = Registration::read(&service, &api.agent.host()).map_err(|fault| bad(&fault.to_string()))?;
    register_this(&api, registration, false).await?;
    Ok(json(&uri, &true))
}

/// `PUT /v1/catalog/deregister`: the same.
pub(crate) async fn catalog_deregister(State(api): State<Api>, uri: Uri, body: Body) -> Result<Response, ApiError> {
    let body = read(body)?;
    own_node(&api, &body)?;
    if let Some(id) = field(&body, "ServiceID").and_then(Value::as_str) {
        make(&api, Change::Deregister(id.to_owned()), |_, known| known.is_none()).await?;
    } else if let Some(id) = field(&body, "CheckID").and_then(Value::as_str) {
        make(&api, Change::DeregisterCheck(id.to_owned()), |_, _| true).await?;
    } else {
        return Err(bad("ServiceID: it is missing. A node goes by leaving: PUT /v1/agent/leave."));
    }
    Ok(json(&uri, &true))
}

fn own_node(api: &Api, body: &Value) -> Result<(), ApiError> {
    match field(body, "Node").and_then(Value::as_str) {
        Some(node) if !node.eq_ignore_ascii_case(api.agent.node.as_str()) => Err(bad(&format!(
            "Node: {node:?} announces its services itself, and nobody can for it. Ask its own agent; for a host without \
             one, drop a service file with its `address` on {}.",
            api.agent.node
        ))),
        _ => Ok(()),
    }
}
