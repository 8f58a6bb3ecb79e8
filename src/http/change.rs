//! What clients change on this node: services, checks, reports, maintenance and drains.
//!
//! A change is answered once it is kept and shows in the catalog, so that whoever asks next sees it.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::Value;

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
        service::InstanceKey,
    },
    registry::{
        failure::Denied,
        registration::{CheckRegistration, Registration, go_duration},
        state::{Change, Outcome, Target},
    },
};

/// How long an answer waits until the catalog shows what was changed.
const SHOWN: Duration = Duration::from_secs(2);

type Body = Result<Bytes, BytesRejection>;

fn read(body: Body) -> Result<Value, Refusal> {
    let body = body.map_err(|rejection| Refusal(rejection.status(), rejection.body_text()))?;
    serde_json::from_slice(&body).map_err(|error| bad(&format!("Request decode failed: {error}")))
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
        .map_err(|denied| refusal(&denied))?;
    let there = |catalog: &Catalog| {
        let view = catalog.view().get(&api.agent.node);
        let known = |key: &InstanceKey| view.and_then(|view| view.announcements.get(key)).map(|known| &**known);
        outcome.instances.iter().all(|key| shows(key, known(key)))
    };
    api.hub.shows(there, SHOWN).await;
    Ok(outcome)
}

fn refusal(denied: &Denied) -> Refusal {
    let status = match denied {
        Denied::Unknown(_) => StatusCode::NOT_FOUND,
        Denied::Refused(_) => StatusCode::BAD_REQUEST,
        Denied::NotKept(_) => StatusCode::INSUFFICIENT_STORAGE,
    };
    Refusal(status, denied.to_string())
}

pub(super) async fn register(State(api): State<Api>, body: Body) -> Result<(), Refusal> {
    let registration = Registration::read(&read(body)?, &api.agent.host()).map_err(|fault| bad(&fault.to_string()))?;
    register_this(&api, registration).await
}

async fn register_this(api: &Api, registration: Registration) -> Result<(), Refusal> {
    let wanted = registration.definition.instance.clone();
    let change = Change::Register(Box::new(registration));
    make(api, change, |_, known| known.is_some_and(|known| known.instance == wanted)).await.map(drop)
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
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
    let status = match text("Status") {
        "passing" => Status::Passing,
        "warning" => Status::Warning,
        "critical" => Status::Critical,
        other => return Err(bad(&format!("Invalid check status: {other:?}. It is passing, warning or critical."))),
    };
    report(&api, id, status, text("Output").to_owned()).await
}

async fn hold(api: &Api, target: Target, gate: Gate, query: &Query) -> Result<Outcome, Refusal> {
    let period = match query.text("for") {
        None => None,
        Some(text) => {
            let period = go_duration(text).filter(|period| !period.is_zero());
            Some(period.ok_or_else(|| bad(&format!("for={text}: expected a duration such as 30m")))?)
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
    let shown = api.hub.known();
    let ttl = |key: &InstanceKey| {
        let known = shown.catalog.view().get(&api.agent.node).and_then(|view| view.announcements.get(key));
        known.and_then(|known| known.instance.ttl).unwrap_or(api.agent.ttl)
    };
    let drained = api::Drained {
        instances: outcome.instances.iter().map(ToString::to_string).collect(),
        ttl: outcome.instances.iter().map(ttl).max().unwrap_or(0),
    };
    Ok(json(&uri, &drained))
}

pub(super) async fn resume(State(api): State<Api>, uri: Uri, Path(text): Path<String>) -> Result<Response, Refusal> {
    let gates = vec![Gate::Draining, Gate::Maintenance, Gate::NodeMaintenance];
    let outcome = release(&api, target(&api, text), gates).await?;
    let instances = outcome.instances.iter().map(ToString::to_string).collect();
    Ok(json(&uri, &api::Drained { instances, ttl: 0 }))
}

pub(super) async fn reload(State(api): State<Api>) -> Result<(), Refusal> {
    give(&api.orders, |done| Order::Reload { done }, CHANGE, "Look at the agent's log.").await
}

/// `PUT /v1/catalog/register`: nodes announce for themselves, so it is taken for this node alone.
pub(super) async fn catalog_register(State(api): State<Api>, body: Body) -> Result<Response, Refusal> {
    let body = read(body)?;
    own_node(&api, &body)?;
    let Some(service) = body.get("Service").filter(|service| service.is_object()) else {
        return Err(bad("Service: it is missing. Nodes need no registration: each announces itself."));
    };
    if body.get("Check").or(body.get("Checks")).is_some_and(|checks| !checks.is_null()) {
        let text = "Check: results are not written into the catalog; register a TTL check with \
                    /v1/agent/service/register and report to it.";
        return Err(bad(text));
    }
    let mut service = service.clone();
    if let Some(fields) = service.as_object_mut()
        && let Some(name) = fields.remove("Service")
    {
        fields.insert("Name".to_owned(), name);
    }
    let registration = Registration::read(&service, &api.agent.host()).map_err(|fault| bad(&fault.to_string()))?;
    register_this(&api, registration).await?;
    Ok("true".into_response())
}

/// `PUT /v1/catalog/deregister`: the same.
pub(super) async fn catalog_deregister(State(api): State<Api>, body: Body) -> Result<Response, Refusal> {
    let body = read(body)?;
    own_node(&api, &body)?;
    if let Some(id) = body.get("ServiceID").and_then(Value::as_str) {
        make(&api, Change::Deregister(id.to_owned()), |_, known| known.is_none()).await?;
    } else if let Some(id) = body.get("CheckID").and_then(Value::as_str) {
        make(&api, Change::DeregisterCheck(id.to_owned()), |_, _| true).await?;
    } else {
        return Err(bad("ServiceID: it is missing. A node goes by leaving: PUT /v1/agent/leave."));
    }
    Ok("true".into_response())
}

fn own_node(api: &Api, body: &Value) -> Result<(), Refusal> {
    match body.get("Node").and_then(Value::as_str) {
        Some(node) if !node.eq_ignore_ascii_case(api.agent.node.as_str()) => Err(bad(&format!(
            "Node: {node:?} announces its services itself, and nobody can for it. Ask its own agent; for a host without \
             one, drop a service file with its `address` on {}.",
            api.agent.node
        ))),
        _ => Ok(()),
    }
}
