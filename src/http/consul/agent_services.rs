//! `/v1/agent`: instances of this node and their health.

use std::collections::BTreeMap;

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{HeaderName, HeaderValue, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use data_encoding::HEXLOWER;
use tokio::time::Instant;

use super::{
    catalog::services_by_id,
    convert::{NodeInstance, NodeRef, own_node_checks},
    newest_texts::show_newest,
};
use crate::{
    api::catalog::{AgentHealth, Check, Service},
    http::{
        Api,
        blocking::{Snapshot, Topic},
        blocking_response::{show, with_index},
        query::{Query, bad, with_jitter},
        response::{ApiError, json, text_of},
    },
    model::{catalog::Catalog, maintenance::Scope, report_texts::ReportTexts},
};

/// Response header with the value for `?hash=`.
const CONTENT_HASH: HeaderName = HeaderName::from_static("x-consul-contenthash");

/// Returns this node. Its external nodes are not among its services.
fn own<'a>(api: &Api, catalog: &'a Catalog) -> Option<NodeRef<'a>> {
    catalog.view().get(&api.agent.node).map(|view| NodeRef::member(catalog, view))
}

pub(crate) async fn services(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    show(&api, &uri, &query, Topic::All, |Snapshot { catalog, .. }| {
        Ok(own(&api, catalog).map_or_else(BTreeMap::new, |node| services_by_id(node.own_instances(catalog))))
    })
    .await
}

pub(crate) async fn service(
    State(api): State<Api>,
    uri: Uri,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    query.check()?;
    if query.filter()?.is_some() {
        return Err(bad("filter: this endpoint returns one service and supports no filter"));
    }
    let (seen, deadline) = (query.text("hash"), Instant::now() + with_jitter(query.wait()?));
    if let (None, Some(index)) = (seen, query.index()?) {
        api.queries.wait_for_change(&Topic::All, index, with_jitter(query.wait()?)).await;
    }
    // As in Consul, a query with `hash` waits for a different content, whatever the index is.
    loop {
        let known = api.queries.snapshot();
        let catalog = &known.catalog;
        let found = own(&api, catalog).and_then(|view| find(catalog, view, &id)).ok_or_else(|| unknown(&id))?;
        let (topic, service) = (Topic::Service(found.announcement.instance.key.service.clone()), found.service());
        let (index, hash) = (topic.index(&known), hash(&service));
        let left = deadline.saturating_duration_since(Instant::now());
        if seen == Some(hash.as_str()) && !left.is_zero() {
            api.queries.wait_for_change(&topic, index, left).await;
            continue;
        }
        let shown = Service { content_hash: hash.clone(), ..service };
        let mut response = with_index(Bytes::from(text_of(&uri, &shown)?), Topic::All.index(&known));
        response.headers_mut().extend(HeaderValue::try_from(hash).map(|hash| (CONTENT_HASH, hash)));
        return Ok(response);
    }
}

/// Digest of a service's content without its indexes, truncated to 64 bits.
fn hash(service: &Service) -> String {
    let content = Service { create_index: 0, modify_index: 0, ..service.clone() };
    let text = serde_json::to_vec(&content).unwrap_or_default();
    let digest = ring::digest::digest(&ring::digest::SHA256, &text);
    HEXLOWER.encode(&digest.as_ref()[..8])
}

fn unknown(id: &str) -> ApiError {
    let text = format!("unknown service ID: {id}. Ensure that the service ID is passed, not the service name.");
    ApiError(StatusCode::NOT_FOUND, text)
}

/// Finds the instance with that id on a node.
fn find<'a>(catalog: &'a Catalog, node: NodeRef<'a>, id: &str) -> Option<NodeInstance<'a>> {
    let all = || node.own_instances(catalog);
    let registered = all().find(|placed| placed.announcement.instance.api_id() == id);
    registered.or_else(|| all().find(|placed| placed.announcement.instance.is_called(id)))
}

pub(crate) async fn checks(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    show(&api, &uri, &query, Topic::OwnChecks, |Snapshot { catalog, .. }| {
        let texts = api.report_texts.borrow();
        let checks = own(&api, catalog).into_iter().flat_map(|node| {
            let of_node = show_newest(own_node_checks(&node).collect(), &Scope::Node, &texts);
            let of_instances = node.own_instances(catalog).flat_map(|placed| own_checks(&placed, &texts));
            of_node.into_iter().chain(of_instances).collect::<Vec<_>>()
        });
        Ok(checks.map(|check| (check.check_id.clone(), check)).collect::<BTreeMap<String, Check>>())
    })
    .await
}

/// Responds with the health as the status code, and as one word if `?format=text`.
fn health_response(uri: &Uri, query: &Query, status: &str, value: &impl serde::Serialize) -> Response {
    let code = match status {
        "passing" => StatusCode::OK,
        "warning" => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    if query.text("format") == Some("text") {
        return (code, status.to_owned()).into_response();
    }
    (code, json(uri, value)).into_response()
}

/// Returns the checks of an instance of this node, with their newest texts.
fn own_checks(placed: &NodeInstance<'_>, texts: &ReportTexts) -> Vec<Check> {
    let scope = Scope::Instance(placed.announcement.instance.key.clone());
    show_newest(placed.checks(), &scope, texts)
}

fn health(placed: &NodeInstance<'_>, texts: &ReportTexts) -> AgentHealth {
    let mut checks = show_newest(placed.host().checks(), &Scope::Node, texts);
    checks.extend(own_checks(placed, texts));
    AgentHealth { aggregated_status: placed.aggregated_status().to_owned(), service: placed.service(), checks }
}

pub(crate) async fn health_by_id(
    State(api): State<Api>,
    uri: Uri,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let known = api.queries.snapshot();
    let catalog = &known.catalog;
    let placed = own(&api, catalog).and_then(|view| find(catalog, view, &id)).ok_or_else(|| unknown(&id))?;
    Ok(health_response(&uri, &query, placed.aggregated_status(), &health(&placed, &api.report_texts.borrow())))
}

pub(crate) async fn health_by_name(
    State(api): State<Api>,
    uri: Uri,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let known = api.queries.snapshot();
    let (catalog, texts) = (&known.catalog, api.report_texts.borrow().clone());
    let all: Vec<AgentHealth> = own(&api, catalog)
        .into_iter()
        .flat_map(|node| node.own_instances(catalog))
        .filter(|placed| placed.announcement.instance.key.service.as_str().eq_ignore_ascii_case(&name))
        .map(|placed| health(&placed, &texts))
        .collect();
    if all.is_empty() {
        return Err(ApiError(StatusCode::NOT_FOUND, format!("no instance of service {name:?} on this node")));
    }
    let rank = |status: &str| match status {
        "passing" => 0,
        "warning" => 1,
        "critical" => 2,
        _ => 3,
    };
    let worst = all.iter().map(|one| one.aggregated_status.as_str()).max_by_key(|status| rank(status));
    Ok(health_response(&uri, &query, worst.unwrap_or("passing"), &all))
}

/// Parses the required flag `enable`.
pub(crate) fn enable(query: &Query) -> Result<bool, ApiError> {
    match query.text("enable") {
        Some(_) => query.flag("enable"),
        None => Err(bad("Missing value for enable: use ?enable=true or ?enable=false.")),
    }
}
