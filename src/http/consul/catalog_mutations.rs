//! `/v1/catalog/register` and `/v1/catalog/deregister`: services of this node, and external nodes of which it is the owner.

use axum::{extract::State, http::Uri, response::Response};
use serde_json::Value;

use super::mutations::{Body, CATALOG_WAIT, apply, read, register_service, request};
use crate::{
    http::{
        Api,
        query::{Query, bad},
        response::{ApiError, json},
    },
    model::{
        catalog::{Catalog, Freshness},
        followed_host::FollowedHost,
        registered_name::RegisteredName,
    },
    registry::{
        error::FieldError,
        registration::{CatalogDeregistration, CatalogRegistration, Registration, field, tags_of},
        state::Change,
    },
};

pub(crate) async fn register(State(api): State<Api>, uri: Uri, query: Query, body: Body) -> Result<Response, ApiError> {
    query.check()?;
    let body = read(body)?;
    ensure_own_datacenter(&api, &query, &body)?;
    if is_own_node(&api, &body) {
        register_own(&api, &body).await?;
    } else {
        let registration = CatalogRegistration::read(&body).map_err(|error| invalid(&error))?;
        ensure_owner(&api, &registration.name)?;
        let name = registration.name.clone();
        change_external(&api, Change::RegisterExternal(Box::new(registration)), &name).await?;
    }
    Ok(json(&uri, &true))
}

pub(crate) async fn deregister(
    State(api): State<Api>,
    uri: Uri,
    query: Query,
    body: Body,
) -> Result<Response, ApiError> {
    query.check()?;
    let body = read(body)?;
    ensure_own_datacenter(&api, &query, &body)?;
    if is_own_node(&api, &body) {
        deregister_own(&api, &body).await?;
    } else {
        let request = CatalogDeregistration::read(&body).map_err(|error| invalid(&error))?;
        ensure_owner(&api, &request.name)?;
        let name = request.name.clone();
        change_external(&api, Change::DeregisterExternal(request), &name).await?;
    }
    Ok(json(&uri, &true))
}

fn invalid(error: &FieldError) -> ApiError {
    bad(&error.to_string())
}

/// Registers a service of this node. Of a service with `EnableTagOverride`, only the tags change, as in Consul, where the
/// agent restores all else.
async fn register_own(api: &Api, body: &Value) -> Result<(), ApiError> {
    let Some(service) = field(body, "Service").filter(|service| service.is_object()) else {
        return Err(bad("Service is missing. Nodes need no registration: each announces itself."));
    };
    if field(body, "Check").or(field(body, "Checks")).is_some() {
        let text = "Check: the catalog accepts no check results of a node with an agent. Register a TTL check with \
                    /v1/agent/service/register and report to it.";
        return Err(bad(text));
    }
    let (mut service, name) = (service.clone(), field(service, "Service").cloned());
    if let (Some(fields), Some(name)) = (service.as_object_mut(), name) {
        fields.insert("Name".to_owned(), name);
    }
    let registration = Registration::read(&service, &api.agent.host()).map_err(|error| invalid(&error))?;
    let known = api.queries.snapshot();
    let known = known.catalog.view().get(&api.agent.node).and_then(|view| {
        let announcement = view.announcements.get(&registration.definition.instance.key)?;
        Some(&announcement.instance).filter(|instance| instance.tag_override).cloned()
    });
    if known.is_none() {
        return register_service(api, registration, false).await;
    }
    let (id, tags) = (registration.id.to_string(), tags_of(&service).map_err(|error| invalid(&error))?);
    let expected = tags.clone();
    let change = Change::OverrideTags { id, tags };
    apply(api, change, |_, known| known.is_some_and(|known| *known.instance.tags == expected)).await.map(drop)
}

async fn deregister_own(api: &Api, body: &Value) -> Result<(), ApiError> {
    if let Some(id) = field(body, "ServiceID").and_then(Value::as_str) {
        apply(api, Change::Deregister(id.to_owned()), |_, known| known.is_none()).await?;
    } else if let Some(id) = field(body, "CheckID").and_then(Value::as_str) {
        apply(api, Change::DeregisterCheck(id.to_owned()), |_, _| true).await?;
    } else {
        return Err(bad("ServiceID or CheckID is missing. To remove a node, make it leave: PUT /v1/agent/leave."));
    }
    Ok(())
}

/// Sends a change of an external node to the registry and waits until the catalog shows it. Host names are looked up once before
/// the response, if that takes no longer than the wait.
async fn change_external(api: &Api, change: Change, name: &RegisteredName) -> Result<(), ApiError> {
    let outcome = request(api, change).await?;
    let Some(expected) = outcome.external else { return Ok(()) };
    let is_visible = |catalog: &Catalog| {
        let view = catalog.view().get(&api.agent.node);
        let shown = view.and_then(|view| view.external.get(name));
        let is_node_shown = match (shown, expected.nodes.get(name)) {
            (Some(shown), Some(expected)) => {
                shown.is_as_registered(expected) && FollowedHost::is_looked_up(shown.host.as_deref(), &shown.addresses)
            }
            (shown, expected) => shown == expected,
        };
        let is_instance_shown =
            |key| match (view.and_then(|view| view.announcements.get(key)), expected.instances.get(key)) {
                (Some(shown), Some(expected)) => {
                    shown.is_as_registered(expected)
                        && FollowedHost::is_looked_up(shown.instance.host.as_deref(), &shown.instance.addresses)
                }
                (shown, expected) => shown == expected,
            };
        is_node_shown && outcome.instances.iter().all(is_instance_shown)
    };
    api.queries.wait_for_catalog(is_visible, CATALOG_WAIT).await;
    Ok(())
}

fn is_own_node(api: &Api, body: &Value) -> bool {
    field(body, "Node").and_then(Value::as_str).is_none_or(|node| node.eq_ignore_ascii_case(api.agent.node.as_str()))
}

fn ensure_own_datacenter(api: &Api, query: &Query, body: &Value) -> Result<(), ApiError> {
    let own = &api.agent.datacenter;
    let asked = field(body, "Datacenter").and_then(Value::as_str).filter(|datacenter| !datacenter.is_empty());
    match asked.or_else(|| query.text("dc")) {
        Some(other) if !other.eq_ignore_ascii_case(own.as_str()) => Err(bad(&format!(
            "Datacenter: this agent is in {own}. Send the request to an agent in {other:?}, which will own the node."
        ))),
        _ => Ok(()),
    }
}

/// Refuses changes of nodes that announce themselves, and of external nodes that another agent owns.
fn ensure_owner(api: &Api, name: &RegisteredName) -> Result<(), ApiError> {
    let known = api.queries.snapshot();
    let catalog = &known.catalog;
    if catalog.has_member(name) {
        return Err(bad(&format!(
            "Node: {name} has an agent and announces its own services: send the request to its agent. To remove a node, make it \
             leave: PUT /v1/agent/leave; one that is gone: PUT /v1/agent/force-leave/{name}."
        )));
    }
    let claims = catalog.claims(name);
    if claims.iter().any(|claim| claim.owner == api.agent.node) {
        return Ok(());
    }
    match claims.iter().find(|claim| claim.freshness != Freshness::Gone) {
        Some(other) => Err(bad(&format!(
            "Node: external node {name} is registered through {}: send the request to the agent there.",
            other.owner
        ))),
        None => Ok(()),
    }
}
