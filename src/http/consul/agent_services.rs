//! `/v1/agent`: the instances of this node and how they stand.

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
    catalog::{on, own_services, show, with_index},
    convert::Placed,
};
use crate::{
    api::catalog::{AgentHealth, Check, Service},
    http::{
        Api,
        blocking::{Snapshot, Topic},
        query::{Query, bad},
        response::{ApiError, json, text_of},
    },
    model::catalog::{Catalog, NodeView},
};

/// Where Consul says what `?hash=` wants to hear.
const CONTENT_HASH: HeaderName = HeaderName::from_static("x-consul-contenthash");

fn own<'a>(api: &Api, catalog: &'a Catalog) -> Option<&'a NodeView> {
    catalog.view().get(&api.agent.node).map(|view| &**view)
}

pub(crate) async fn services(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    show(&api, &uri, &query, Topic::All, |Snapshot { catalog, .. }| {
        Ok(own(&api, catalog).map_or_else(BTreeMap::new, |view| own_services(catalog, view)))
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
        return Err(bad("filter: this endpoint shows one service, and nothing that could be filtered"));
    }
    let (seen, deadline) = (query.text("hash"), Instant::now() + query.wait()?);
    if let (None, Some(index)) = (seen, query.index()?) {
        api.hub.changed(&Topic::All, index, query.wait()?).await;
    }
    // Whoever says what it has seen waits for another content, as in Consul, whatever else changes.
    loop {
        let known = api.hub.known();
        let catalog = &known.catalog;
        let found = own(&api, catalog).and_then(|view| find(catalog, view, &id)).ok_or_else(|| unknown(&id))?;
        let (topic, service) = (Topic::Service(found.announcement.instance.key.service.clone()), found.service());
        let (index, hash) = (topic.index(&known), hash(&service));
        let left = deadline.saturating_duration_since(Instant::now());
        if seen == Some(hash.as_str()) && !left.is_zero() {
            api.hub.changed(&topic, index, left).await;
            continue;
        }
        let shown = Service { content_hash: hash.clone(), ..service };
        let mut response = with_index(Bytes::from(text_of(&uri, &shown)?), Topic::All.index(&known));
        response.headers_mut().extend(HeaderValue::try_from(hash).map(|hash| (CONTENT_HASH, hash)));
        return Ok(response);
    }
}

/// What tells one content of a service from another: 64 bits of a digest, without when it changed.
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

/// The instance of that id on a node.
fn find<'a>(catalog: &'a Catalog, view: &'a NodeView, id: &str) -> Option<Placed<'a>> {
    let is = |placed: &Placed<'_>| {
        let instance = &placed.announcement.instance;
        instance.api_id() == id || instance.key.id.as_str() == id || instance.key.to_string() == id
    };
    on(catalog, view).find(is)
}

pub(crate) async fn checks(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    show(&api, &uri, &query, Topic::All, |Snapshot { catalog, .. }| {
        let checks = own(&api, catalog).into_iter().flat_map(|view| on(catalog, view).flat_map(|p| p.checks()));
        Ok(checks.map(|check| (check.check_id.clone(), check)).collect::<BTreeMap<String, Check>>())
    })
    .await
}

/// `?format=text`: one word instead of JSON.
fn told(uri: &Uri, query: &Query, status: &str, value: &impl serde::Serialize) -> Response {
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

fn health(placed: &Placed<'_>) -> AgentHealth {
    let entry = placed.entry();
    AgentHealth { aggregated_status: placed.aggregated().to_owned(), service: entry.service, checks: entry.checks }
}

pub(crate) async fn health_by_id(
    State(api): State<Api>,
    uri: Uri,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let known = api.hub.known();
    let catalog = &known.catalog;
    let placed = own(&api, catalog).and_then(|view| find(catalog, view, &id)).ok_or_else(|| unknown(&id))?;
    Ok(told(&uri, &query, placed.aggregated(), &health(&placed)))
}

pub(crate) async fn health_by_name(
    State(api): State<Api>,
    uri: Uri,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let known = api.hub.known();
    let catalog = &known.catalog;
    let all: Vec<AgentHealth> = own(&api, catalog)
        .into_iter()
        .flat_map(|view| on(catalog, view))
        .filter(|placed| placed.announcement.instance.key.service.as_str().eq_ignore_ascii_case(&name))
        .map(|placed| health(&placed))
        .collect();
    if all.is_empty() {
        return Err(ApiError(StatusCode::NOT_FOUND, format!("this node has no instance of a service {name:?}")));
    }
    let rank = |status: &str| match status {
        "passing" => 0,
        "warning" => 1,
        "critical" => 2,
        _ => 3,
    };
    let worst = all.iter().map(|one| one.aggregated_status.as_str()).max_by_key(|status| rank(status));
    Ok(told(&uri, &query, worst.unwrap_or("passing"), &all))
}

/// What a client says in the way of `enable`.
pub(crate) fn enable(query: &Query) -> Result<bool, ApiError> {
    match query.text("enable") {
        Some(_) => query.flag("enable"),
        None => Err(bad("Missing value for enable: ?enable=true or ?enable=false.")),
    }
}
