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

use super::{
    Api,
    answer::{Refusal, json},
    local::enable,
    order::{CHANGE, Order, give},
    query::{Query, bad},
};
use crate::{
    api,
    model::{
        announcement::{Announcement, Gate},
        catalog::Catalog,
        health::Status,
        served::SPREAD,
        service::InstanceKey,
    },
    registry::{
        failure::Denied,
        registration::{CheckRegistration, Registration, field, go_duration},
        state::{Change, Outcome, Target},
    },
};

/// How long an answer waits until the catalog shows what was changed.
pub(super) const SHOWN: Duration = Duration::from_secs(2);

pub(super) type Body = Result<Bytes, BytesRejection>;

/// A body as it came.
pub(super) fn octets(body: Body) -> Result<Bytes, Refusal> {
    body.map_err(|rejection| Refusal(rejection.status(), rejection.body_text()))
}

fn read(body: Body) -> Result<Value, Refusal> {
    serde_json::from_slice(&octets(body)?).map_err(|error| bad(&format!("Request decode failed: {error}")))
}

/// Has a change made, and waits until it shows.
async fn make(
    api: &Api,
    change: Change,
    shows: impl Fn(&InstanceKey, Option<&Announcement>) -> bool,
) -> Result<Outcome, Refusal> {
    let now = "Look at the agent's log.";
    let outcome = give(&api.orders, |done| Order::Change { change, done }, CHANGE, now)
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

pub(super) fn denial(denied: &Denied) -> Refusal {
    let status = match denied {
        Denied::Unknown(_) => StatusCode::NOT_FOUND,
        Denied::Refused(_) => StatusCode::BAD_REQUEST,
        Denied::NotKept(_) => StatusCode::INSUFFICIENT_STORAGE,
    };
    Refusal(status, denied.to_string())
}

pub(super) async fn register(State(api): State<Api>, query: Query, body: Body) -> Result<(), Refusal> {
    query.check()?;
    let only_these_checks = query.flag("replace-existing-checks")?;
    let registration = Registration::read(&read(body)?, &api.agent.host()).map_err(|fault| bad(&fault.to_string()))?;
    register_this(&api, registration, only_these_checks).await
}

async fn register_this(api: &Api, registration: Registration, only_these_checks: bool) -> Result<(), Refusal> {
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

pub(super) async fn deregister(State(api): State<Api>, Path(id): Path<String>) -> Result<(), Refusal> {
    make(&api, Change::Deregister(id), |_, known| known.is_none()).await.map(drop)
}

pub(super) async fn register_check(State(api): State<Api>, body: Body) -> Result<(), Refusal> {
    let check = CheckRegistration::read(&read(body)?).map_err(|fault| bad(&fault.to_string()))?;
    let id = check.id.clone();
    let has = |known: &Announcement| {
        known.report.as_ref().is_some_and(|report| report.checks.iter().any(|check| check.id == id))
    };
    make(&api, Change::RegisterCheck(check), |_, known| known.is_some_and(has)).await.map(drop)
}

pub(super) async fn deregister_check(State(api): State<Api>, Path(id): Path<String>) -> Result<(), Refusal> {
    let has = |known: &Announcement| {
        known.report.as_ref().is_some_and(|report| report.checks.iter().any(|check| check.id == id.as_str()))
    };
    let change = Change::DeregisterCheck(id.clone());
    make(&api, change, |_, known| !known.is_some_and(has)).await.map(drop)
}

async fn report(api: &Api, check: String, status: Status, output: String) -> Result<(), Refusal> {
    let id = check.clone();
    let stands = move |known: &Announcement| {
        let report = known.report.as_ref()?;
        report.checks.iter().find(|check| check.id == id.as_str()).map(|check| check.status == status)
    };
    let change = Change::Report { check, status, output };
    make(api, change, |_, known| known.and_then(&stands) == Some(true)).await.map(drop)
}

pub(super) async fn pass(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Result<(), Refusal> {
    report(&api, id, Status::Passing, query.text("note").unwrap_or_default().to_owned()).await
}

pub(super) async fn warn(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Result<(), Refusal> {
    report(&api, id, Status::Warning, query.text("note").unwrap_or_default().to_owned()).await
}

pub(super) async fn fail(State(api): State<Api>, Path(id): Path<String>, query: Query) -> Result<(), Refusal> {
    report(&api, id, Status::Critical, query.text("note").unwrap_or_default().to_owned()).await
}

pub(super) async fn update(State(api): State<Api>, Path(id): Path<String>, body: Body) -> Result<(), Refusal> {
    let body = read(body)?;
    let text = |key: &str| field(&body, key).and_then(Value::as_str).unwrap_or_default();
    let word = text("Status");
    let status = Status::from_word(word)
        .ok_or_else(|| bad(&format!("Invalid check status: {word:?}. It is passing, warning or critical.")))?;
    report(&api, id, status, text("Output").to_owned()).await
}

async fn hold(api: &Api, target: Target, gate: Gate, query: &Query) -> Result<Outcome, Refusal> {
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

async fn release(api: &Api, target: Target, gates: Vec<Gate>) -> Result<Outcome, Refusal> {
    let held = gates.clone();
    let is_held = move |known: &Announcement| match known.standing {
        crate::model::announcement::Standing::Withheld(gate, _) => held.contains(&gate),
        _ => false,
    };
    make(api, Change::Release { target, gates }, |_, known| !known.is_some_and(&is_held)).await
}

pub(super) async fn maintain_node(State(api): State<Api>, query: Query) -> Result<(), Refusal> {
    maintain(&api, Target::Node, Gate::NodeMaintenance, &query).await
}

pub(super) async fn maintain_service(
    State(api): State<Api>,
    Path(id): Path<String>,
    query: Query,
) -> Result<(), Refusal> {
    maintain(&api, Target::Instance(id), Gate::Maintenance, &query).await
}

async fn maintain(api: &Api, target: Target, gate: Gate, query: &Query) -> Result<(), Refusal> {
    match enable(query)? {
        true => hold(api, target, gate, query).await.map(drop),
        false => release(api, target, vec![gate]).await.map(drop),
    }
}

fn target(api: &Api, text: String) -> Target {
    if api.agent.node.as_str().eq_ignore_ascii_case(&text) { Target::Node } else { Target::Instance(text) }
}

/// Takes an instance, or the node with all of them, out of answers for good; says for how long it may still be in caches.
pub(super) async fn drain(
    State(api): State<Api>,
    uri: Uri,
    Path(text): Path<String>,
    query: Query,
) -> Result<Response, Refusal> {
    let outcome = hold(&api, target(&api, text), Gate::Draining, &query).await?;
    // Begun seconds count.
    let wait = u32::try_from(outcome.left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
    let drained = api::Drained {
        instances: outcome.instances.iter().map(ToString::to_string).collect(),
        ttl: wait.saturating_sub(SPREAD.as_secs() as u32),
        wait: Some(wait),
    };
    Ok(json(&uri, &drained))
}

pub(super) async fn resume(State(api): State<Api>, uri: Uri, Path(text): Path<String>) -> Result<Response, Refusal> {
    let gates = vec![Gate::Draining, Gate::Maintenance, Gate::NodeMaintenance];
    let outcome = release(&api, target(&api, text), gates).await?;
    // What was not held back is as it was.
    let instances = outcome.instances.iter().filter(|_| outcome.changed).map(ToString::to_string).collect();
    Ok(json(&uri, &api::Drained { instances, ttl: 0, wait: None }))
}

pub(super) async fn reload(State(api): State<Api>) -> Result<(), Refusal> {
    give(&api.orders, |done| Order::Reload { done }, CHANGE, "Look at the agent's log.").await
}

/// `PUT /v1/catalog/register`: nodes announce for themselves, so it is taken for this node alone.
pub(super) async fn catalog_register(State(api): State<Api>, uri: Uri, body: Body) -> Result<Response, Refusal> {
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
pub(super) async fn catalog_deregister(State(api): State<Api>, uri: Uri, body: Body) -> Result<Response, Refusal> {
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

fn own_node(api: &Api, body: &Value) -> Result<(), Refusal> {
    match field(body, "Node").and_then(Value::as_str) {
        Some(node) if !node.eq_ignore_ascii_case(api.agent.node.as_str()) => Err(bad(&format!(
            "Node: {node:?} announces its services itself, and nobody can for it. Ask its own agent; for a host without \
             one, drop a service file with its `address` on {}.",
            api.agent.node
        ))),
        _ => Ok(()),
    }
}
