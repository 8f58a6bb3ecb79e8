//! `/v1/health`: the checks of nodes, services and instances.

use axum::{
    extract::{Path, State},
    http::Uri,
    response::Response,
};

use super::{
    catalog::{matching_instances, matching_node, matching_nodes},
    convert::{NodeInstance, NodeRef},
};
use crate::{
    api::catalog::{Check, Entry},
    http::{
        Api,
        blocking::{Snapshot, Topic},
        blocking_response::show,
        query::{Query, bad, node_name, service_name},
        response::ApiError,
    },
    model::{catalog::Catalog, health::Status},
};

pub(crate) async fn node(
    State(api): State<Api>,
    uri: Uri,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let name = node_name(&name)?;
    show(&api, &uri, &query, Topic::All, |Snapshot { catalog, .. }| {
        let node = matching_node(catalog, &name, &query)?;
        Ok(node.map_or_else(Vec::new, |node| checks_on(catalog, node)))
    })
    .await
}

/// Returns the checks of a node and of the services on it.
pub(super) fn checks_on(catalog: &Catalog, node: NodeRef<'_>) -> Vec<Check> {
    let mut checks = node.checks();
    checks.extend(node.instances(catalog).iter().flat_map(NodeInstance::checks));
    checks
}

pub(crate) async fn checks(
    State(api): State<Api>,
    uri: Uri,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let (name, query) = (service_name(&name)?, query.with_agent(&api));
    show(&api, &uri, &query, Topic::Service(name.clone()), |Snapshot { catalog, .. }| {
        Ok(matching_instances(catalog, &name, &query)?.iter().flat_map(NodeInstance::checks).collect::<Vec<_>>())
    })
    .await
}

pub(crate) async fn service(
    State(api): State<Api>,
    uri: Uri,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let (name, query) = (service_name(&name)?, query.with_agent(&api));
    let passing = query.flag("passing")?;
    show(&api, &uri, &query, Topic::Service(name.clone()), |Snapshot { catalog, .. }| {
        let mut entries: Vec<Entry> =
            matching_instances(catalog, &name, &query)?.iter().map(NodeInstance::entry).collect();
        if passing {
            entries.retain(|entry| entry.checks.iter().all(|check| check.status == Status::Passing.as_str()));
        }
        Ok(entries)
    })
    .await
}

pub(crate) async fn state(
    State(api): State<Api>,
    uri: Uri,
    Path(state): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    let known = ["any", "passing", "warning", "critical"];
    if !known.contains(&state.as_str()) {
        return Err(bad(&format!("Invalid state {state:?}: expected {}.", known.join(", "))));
    }
    let query = query.with_agent(&api);
    show(&api, &uri, &query, Topic::All, |Snapshot { catalog, .. }| {
        let all = matching_nodes(catalog, &query)?.into_iter().flat_map(|node| checks_on(catalog, node));
        Ok(all.filter(|check| state == "any" || check.status == state).collect::<Vec<_>>())
    })
    .await
}
