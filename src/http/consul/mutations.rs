//! Mutations of this node: services, checks, TTL reports, maintenance and drains.
//!
//! A mutation is answered once it is on disk and visible in the catalog, so that the next query sees it.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{Extension, Path, State, rejection::BytesRejection},
    http::{StatusCode, Uri},
    response::Response,
};
use serde_json::Value;

use super::{agent_services::enable, convert::problem, newest_texts::wait_for_text};
use crate::{
    api,
    control::Control,
    dns::recursion::is_within,
    http::{
        Api,
        command::{CHANGE, RELOAD, refused, send},
        granted::Granted,
        query::{Query, bad},
        response::{ApiError, json},
    },
    model::{
        announcement::{Announcement, CheckReport, HoldReason, InstanceState, NODE_MAINTENANCE},
        catalog::{Catalog, CatalogEntry, Freshness},
        followed_host::{FollowedHost, HostName},
        health::Status,
        maintenance,
        served_ttls::SPREAD,
        service::{Instance, InstanceKey},
        token::Scope,
    },
    registry::{
        error::RegistryError,
        registration::{CheckRegistration, Registration, field, go_duration},
        request::Request,
        state::{Change, Outcome, Target},
    },
};

/// Longest wait until the catalog shows a change.
pub(crate) const CATALOG_WAIT: Duration = Duration::from_secs(2);

pub(crate) type Body = Result<Bytes, BytesRejection>;

/// Returns the octets of a body.
pub(crate) fn octets(body: Body) -> Result<Bytes, ApiError> {
    body.map_err(|rejection| ApiError(rejection.status(), rejection.body_text()))
}

pub(super) fn read(body: Body) -> Result<Value, ApiError> {
    serde_json::from_slice(&octets(body)?).map_err(|error| bad(&format!("Request decode failed: {error}")))
}

/// Sends a change to the registry.
pub(super) async fn request(api: &Api, change: Change) -> Result<Outcome, ApiError> {
    let advice = "See the agent's log.";
    let outcome = send(&api.commands.registry, |done| Request { change, done }, CHANGE, advice).await?;
    outcome.map_err(|error| registry_error(&error))
}

/// Sends a change to the registry and waits until the catalog shows it.
pub(super) async fn apply(
    api: &Api,
    change: Change,
    is_visible: impl Fn(&InstanceKey, Option<&Announcement>) -> bool,
) -> Result<Outcome, ApiError> {
    let outcome = request(api, change).await?;
    wait_for_instances(api, &outcome.instances, is_visible).await;
    Ok(outcome)
}

/// Waits until the catalog shows a change of instances.
pub(super) async fn wait_for_instances(
    api: &Api,
    instances: &[InstanceKey],
    is_visible: impl Fn(&InstanceKey, Option<&Announcement>) -> bool,
) {
    let there = |catalog: &Catalog| {
        let view = catalog.view().get(&api.agent.node);
        let known = |key: &InstanceKey| view.and_then(|view| view.announcements.get(key)).map(|known| &**known);
        instances.iter().all(|key| is_visible(key, known(key)))
    };
    api.queries.wait_for_catalog(there, CATALOG_WAIT).await;
}

/// Reports whether an instance is announced as it is defined. A host name is looked up once before the response, if that takes
/// no longer than the wait.
pub(super) fn shows(known: &Announcement, defined: &Instance) -> bool {
    let Instance { host, addresses, .. } = &*known.instance;
    known.instance.is_as_defined(defined) && FollowedHost::is_looked_up(host.as_deref(), addresses)
}

/// Waits until the catalog shows a change of the node's checks.
async fn node_checks_visible(api: &Api, is_visible: impl Fn(&[CheckReport]) -> bool) {
    let there = |catalog: &Catalog| {
        let view = catalog.view().get(&api.agent.node);
        view.is_some_and(|view| is_visible(view.node.checks.as_ref().map_or(&[], |report| &report.checks)))
    };
    api.queries.wait_for_catalog(there, CATALOG_WAIT).await;
}

pub(crate) fn registry_error(error: &RegistryError) -> ApiError {
    let status = match error {
        RegistryError::Unknown(_) => StatusCode::NOT_FOUND,
        RegistryError::Refused(_) => StatusCode::BAD_REQUEST,
        RegistryError::Forbidden(_) => StatusCode::FORBIDDEN,
        RegistryError::NotStored(_) => StatusCode::INSUFFICIENT_STORAGE,
    };
    ApiError(status, error.to_string())
}

pub(crate) async fn register(State(api): State<Api>, query: Query, body: Body) -> Result<(), ApiError> {
    query.check()?;
    let replace_checks = query.flag("replace-existing-checks")?;
    let registration = Registration::read(&read(body)?, &api.agent.host()).map_err(|error| bad(&error.to_string()))?;
    ensure_registrable(&api, &registration)?;
    let checks = registration.check_ids();
    let change = Change::Register { registration: Box::new(registration), replace_checks };
    let outcome = request(&api, change).await?;
    let Some(defined) = outcome.defined else { return Ok(()) };
    // Checks that the request lacks stay, unless they are replaced.
    let has_checks = |known: &Announcement| {
        let reported = known.report.iter().flat_map(|report| &report.checks);
        let (there, others): (Vec<_>, Vec<_>) = reported.partition(|check| checks.contains(&check.id));
        there.len() == checks.len() && (others.is_empty() || !replace_checks)
    };
    let is_visible = |known: &Announcement| shows(known, &defined) && has_checks(known);
    wait_for_instances(&api, &outcome.instances, |_, known| known.is_some_and(is_visible)).await;
    Ok(())
}

/// Refuses a service that could not be answered, or would hide another one.
pub(super) fn ensure_registrable(api: &Api, registration: &Registration) -> Result<(), ApiError> {
    let instance = &registration.definition.instance;
    ensure_followable(api, instance.host.as_deref().map(|host| &host.name))?;
    // `web-1` on `a` and `web` on `1-a` have one label.
    let known = api.queries.snapshot();
    let entries = known.catalog.service(&instance.key.service).into_iter().flat_map(|service| service.entries());
    let is_same =
        |entry: &&CatalogEntry| entry.announcement.instance.key == instance.key && entry.node != api.agent.node;
    match entries.filter(|entry| entry.freshness == Freshness::Live).find(is_same) {
        Some(other) => {
            Err(bad(&format!("Instance {} is announced by {}, too: use another ID.", instance.key, other.node)))
        }
        None => Ok(()),
    }
}

/// Refuses a host name in a zone of services: it would never have an address, since those names have addresses of instances.
pub(super) fn ensure_followable(api: &Api, host: Option<&HostName>) -> Result<(), ApiError> {
    let tables = api.explain.tables.load();
    let zone = host.and_then(|host| {
        let name = host.name();
        tables.discovery_zones().find(|zone| is_within(name.wire(), zone.wire())).cloned()
    });
    match (host, zone) {
        (Some(host), Some(zone)) => Err(bad(&format!(
            "Address: {host} is in {zone}, whose names have the addresses of instances: use the address itself."
        ))),
        _ => Ok(()),
    }
}

pub(crate) async fn deregister(State(api): State<Api>, Path(id): Path<String>) -> Result<(), ApiError> {
    apply(&api, Change::Deregister(id), |_, known| known.is_none()).await.map(drop)
}

/// A check of the node withholds all its instances: it needs the scope of the node's maintenance.
fn require_operate(granted: &Granted) -> Result<(), ApiError> {
    granted.require(Scope::Operate, "a check of the node; name the service of the check in ServiceID")
}

pub(crate) async fn register_check(
    State(api): State<Api>,
    Extension(granted): Extension<Granted>,
    body: Body,
) -> Result<(), ApiError> {
    let check = CheckRegistration::read(&read(body)?).map_err(|error| bad(&error.to_string()))?;
    let id = check.id.clone();
    let has = |known: &Announcement| {
        known.report.as_ref().is_some_and(|report| report.checks.iter().any(|check| check.id == id))
    };
    if check.service.is_none() {
        require_operate(&granted)?;
        let id = check.id.clone();
        apply(&api, Change::RegisterCheck(check), |_, _| true).await?;
        node_checks_visible(&api, |checks| checks.iter().any(|check| check.id == id)).await;
        return Ok(());
    }
    apply(&api, Change::RegisterCheck(check), |_, known| known.is_some_and(has)).await.map(drop)
}

pub(crate) async fn deregister_check(
    State(api): State<Api>,
    Extension(granted): Extension<Granted>,
    Path(id): Path<String>,
) -> Result<(), ApiError> {
    remove_check(&api, id, &granted).await
}

/// Deregisters a check.
pub(super) async fn remove_check(api: &Api, id: String, granted: &Granted) -> Result<(), ApiError> {
    let has = |known: &Announcement| {
        known.report.as_ref().is_some_and(|report| report.checks.iter().any(|check| check.id == id.as_str()))
    };
    let change = Change::DeregisterCheck { check: id.clone(), granted: granted.scope() };
    let outcome = apply(api, change, |_, known| !known.is_some_and(has)).await?;
    if outcome.node {
        node_checks_visible(api, |checks| checks.iter().all(|check| check.id != id.as_str())).await;
    }
    Ok(())
}

async fn report(api: &Api, granted: &Granted, check: String, status: Status, output: &str) -> Result<(), ApiError> {
    let id = check.clone();
    let is_reported = move |known: &Announcement| {
        let report = known.report.as_ref()?;
        report.checks.iter().find(|check| check.id == id.as_str()).map(|check| check.status == status)
    };
    let id = check.clone();
    let change = Change::Report { check, granted: granted.scope(), status, output: output.to_owned() };
    let outcome = apply(api, change, |_, known| known.and_then(&is_reported) == Some(true)).await?;
    if let Some(check) = &outcome.ttl_report {
        wait_for_text(api, check, status, output, CATALOG_WAIT).await;
    }
    if outcome.node {
        let is_reported = |check: &CheckReport| check.id == id.as_str() && check.status == status;
        node_checks_visible(api, |checks| checks.iter().any(is_reported)).await;
    }
    Ok(())
}

/// A report to a TTL check: the granted scope, the id of the check and the query.
type Report = (State<Api>, Extension<Granted>, Path<String>, Query);

pub(crate) async fn pass(report: Report) -> Result<(), ApiError> {
    report_note(report, Status::Passing).await
}

pub(crate) async fn warn(report: Report) -> Result<(), ApiError> {
    report_note(report, Status::Warning).await
}

pub(crate) async fn fail(report: Report) -> Result<(), ApiError> {
    report_note(report, Status::Critical).await
}

async fn report_note(
    (State(api), Extension(granted), Path(id), query): Report,
    status: Status,
) -> Result<(), ApiError> {
    report(&api, &granted, id, status, query.text("note").unwrap_or_default()).await
}

pub(crate) async fn update(
    State(api): State<Api>,
    Extension(granted): Extension<Granted>,
    Path(id): Path<String>,
    body: Body,
) -> Result<(), ApiError> {
    let body = read(body)?;
    let text = |key: &str| field(&body, key).and_then(Value::as_str).unwrap_or_default();
    let word = text("Status");
    let status = Status::from_word(word)
        .ok_or_else(|| bad(&format!("Invalid check status: {word:?}. Expected passing, warning or critical.")))?;
    report(&api, &granted, id, status, text("Output")).await
}

async fn hold(api: &Api, target: Target, kind: HoldReason, query: &Query) -> Result<Outcome, ApiError> {
    let period = match query.text("for") {
        None => None,
        Some(text) => {
            let period = go_duration(text).filter(|period| !period.is_zero());
            Some(period.ok_or_else(|| bad(&format!("for must be a duration such as 30m, got {text:?}")))?)
        }
    };
    let reason = query.text("reason").unwrap_or_default().to_owned();
    let change = Change::Hold { target, kind, reason, period };
    apply(api, change, |_, known| known.is_none_or(|known| !known.state.is_answered())).await
}

async fn release(api: &Api, target: Target, kinds: Vec<HoldReason>) -> Result<Outcome, ApiError> {
    let outcome = request(api, Change::Release { target, kinds: kinds.clone() }).await?;
    let still = |key: &InstanceKey| outcome.held.iter().find(|held| held.instance == *key).map(|held| held.kind);
    let is_released = |key: &InstanceKey, known: &Announcement| match known.state {
        InstanceState::Withheld(kind, _) => !kinds.contains(&kind) || still(key) == Some(kind),
        _ => true,
    };
    wait_for_instances(api, &outcome.instances, |key, known| known.is_none_or(|known| is_released(key, known))).await;
    Ok(outcome)
}

pub(crate) async fn maintain_node(State(api): State<Api>, query: Query) -> Result<(), ApiError> {
    maintain(&api, Target::Node, HoldReason::NodeMaintenance, &query).await?;
    let is_on = enable(&query)?;
    let is_shown = |checks: &[CheckReport]| checks.iter().any(|check| check.id == NODE_MAINTENANCE);
    node_checks_visible(&api, |checks| is_shown(checks) == is_on).await;
    Ok(())
}

pub(crate) async fn maintain_service(
    State(api): State<Api>,
    Path(id): Path<String>,
    query: Query,
) -> Result<(), ApiError> {
    maintain(&api, Target::Instance(id), HoldReason::Maintenance, &query).await
}

async fn maintain(api: &Api, target: Target, kind: HoldReason, query: &Query) -> Result<(), ApiError> {
    match enable(query)? {
        true => hold(api, target, kind, query).await.map(drop),
        false => release(api, target, vec![kind]).await.map(drop),
    }
}

fn target(api: &Api, text: String) -> Target {
    if api.agent.node.as_str().eq_ignore_ascii_case(&text) { Target::Node } else { Target::Instance(text) }
}

/// Drains an instance or the node; the response has the time for which caches may still have it.
pub(crate) async fn drain(
    State(api): State<Api>,
    uri: Uri,
    Path(text): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let outcome = hold(&api, target(&api, text), HoldReason::Draining, &query).await?;
    // Rounded up to whole seconds.
    let wait = u32::try_from(outcome.cache_time.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
    let drained = api::Drained {
        instances: outcome.instances.iter().map(ToString::to_string).collect(),
        ttl: wait.saturating_sub(SPREAD.as_secs() as u32),
        wait: Some(wait),
        still_held: Vec::new(),
    };
    Ok(json(&uri, &drained))
}

pub(crate) async fn resume(State(api): State<Api>, uri: Uri, Path(text): Path<String>) -> Result<Response, ApiError> {
    let kinds = vec![HoldReason::Draining, HoldReason::Maintenance, HoldReason::NodeMaintenance];
    let outcome = release(&api, target(&api, text), kinds).await?;
    let is_held = |key: &InstanceKey| outcome.held.iter().any(|held| held.instance == *key);
    // Without a hold, nothing has changed.
    let resumed = outcome.instances.iter().filter(|key| outcome.changed && !is_held(key));
    let still_held = outcome.held.iter().map(|held| api::StillHeld {
        instance: held.instance.to_string(),
        state: held.kind.as_str().to_owned(),
        target: match &held.scope {
            maintenance::Scope::Node => api.agent.node.to_string(),
            maintenance::Scope::Instance(key) => key.id.to_string(),
        },
    });
    let instances = resumed.map(ToString::to_string).collect();
    Ok(json(&uri, &api::Drained { instances, ttl: 0, wait: None, still_held: still_held.collect() }))
}

/// `PUT /v1/agent/reload`: 200 with the problems of files that keep their last valid content, 500 with those of a refused
/// configuration.
pub(crate) async fn reload(State(api): State<Api>, uri: Uri) -> Result<Response, ApiError> {
    let reload = |done| Control::Reload { done: Some(done) };
    let outcome = send(&api.commands.daemon, reload, RELOAD, "See the agent's log.").await?;
    if outcome.is_refused() {
        let problems: Vec<String> = outcome.configuration.iter().map(ToString::to_string).collect();
        return Err(refused(format!(
            "reload refused; the former configuration stays active:\n{}",
            problems.join("\n")
        )));
    }
    let problems = outcome.configuration.iter().chain(&outcome.files).map(problem).collect();
    Ok(json(&uri, &api::Reloaded { problems }))
}
