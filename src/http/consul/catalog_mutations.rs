//! `/v1/catalog/register` and `/v1/catalog/deregister`: services of this node, and external nodes of which it is the owner.

use axum::{
    extract::{Extension, State},
    http::Uri,
    response::Response,
};
use serde_json::Value;

use super::{
    convert::node_id,
    mutations::{
        Body, CATALOG_WAIT, apply, ensure_followable, ensure_registrable, read, remove_check, request, shows,
        wait_for_instances,
    },
};
use crate::{
    http::{
        Api,
        granted::Granted,
        query::{Query, bad},
        response::{ApiError, json},
    },
    model::{
        announcement::Announcement,
        catalog::{Catalog, Freshness},
        followed_host::FollowedHost,
        registered_name::RegisteredName,
    },
    registry::{
        error::FieldError,
        registration::{
            CatalogDeregistration, CatalogRegistration, CatalogTarget, Part, Registration, service_of_agent,
        },
        state::Change,
    },
};

pub(crate) async fn register(State(api): State<Api>, uri: Uri, query: Query, body: Body) -> Result<Response, ApiError> {
    query.check()?;
    let body = read(body)?;
    if is_own_node(&api, &query, &body)? {
        register_own(&api, &body).await?;
    } else {
        let registration = CatalogRegistration::read(&body).map_err(|error| invalid(&error))?;
        ensure_owner(&api, &registration.name)?;
        ensure_own_id(&api, &registration)?;
        registration.host_names().try_for_each(|host| ensure_followable(&api, Some(&host)))?;
        let name = registration.name.clone();
        change_external(&api, Change::RegisterExternal(Box::new(registration)), &name).await?;
    }
    Ok(json(&uri, &true))
}

pub(crate) async fn deregister(
    State(api): State<Api>,
    Extension(granted): Extension<Granted>,
    uri: Uri,
    query: Query,
    body: Body,
) -> Result<Response, ApiError> {
    query.check()?;
    let body = read(body)?;
    let is_own = is_own_node(&api, &query, &body)?;
    let request = CatalogDeregistration::read(&body).map_err(|error| invalid(&error))?;
    if is_own {
        deregister_own(&api, &granted, request.part).await?;
    } else {
        ensure_owner(&api, &request.name)?;
        let name = request.name.clone();
        change_external(&api, Change::DeregisterExternal(request), &name).await?;
    }
    Ok(json(&uri, &true))
}

fn invalid(error: &FieldError) -> ApiError {
    bad(&error.to_string())
}

/// Registers a service of this node, unless it is registered with the agent: the agent's definition counts, as in Consul.
async fn register_own(api: &Api, body: &Value) -> Result<(), ApiError> {
    let service = service_of_agent(body).map_err(|error| invalid(&error))?;
    let registration = Registration::read(&service, &api.agent.host()).map_err(|error| invalid(&error))?;
    ensure_registrable(api, &registration)?;
    let outcome = request(api, Change::RegisterInCatalog(Box::new(registration))).await?;
    let Some(defined) = outcome.defined.filter(|_| outcome.changed) else { return Ok(()) };
    let is_visible = |known: &Announcement| shows(known, &defined);
    wait_for_instances(api, &outcome.instances, |_, known| known.is_some_and(is_visible)).await;
    Ok(())
}

async fn deregister_own(api: &Api, granted: &Granted, part: Part) -> Result<(), ApiError> {
    match part {
        Part::Service(id) => apply(api, Change::Deregister(id), |_, known| known.is_none()).await.map(drop),
        Part::Check(id) => remove_check(api, id, granted).await,
        Part::Node => {
            Err(bad("ServiceID or CheckID is missing. To remove a node, make it leave: PUT /v1/agent/leave."))
        }
    }
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

/// Reports whether a request is about this node; refuses one of another datacenter.
fn is_own_node(api: &Api, query: &Query, body: &Value) -> Result<bool, ApiError> {
    let CatalogTarget { name, datacenter } = CatalogTarget::read(body).map_err(|error| invalid(&error))?;
    let own = &api.agent.datacenter;
    match datacenter.as_deref().or_else(|| query.text("dc")) {
        Some(other) if !other.eq_ignore_ascii_case(own.as_str()) => Err(bad(&format!(
            "Datacenter: this agent is in {own}. Send the request to an agent in {other:?}, which will own the node."
        ))),
        _ => Ok(name.as_str() == api.agent.node.as_str()),
    }
}

/// Refuses the id of a node that announces itself, by which clients would take both for one node.
fn ensure_own_id(api: &Api, registration: &CatalogRegistration) -> Result<(), ApiError> {
    let Some(id) = registration.node.as_ref().and_then(|node| node.id) else { return Ok(()) };
    let known = api.queries.snapshot();
    let mut members = known.catalog.view().keys();
    match members.find(|member| node_id(*member) == id.to_string()) {
        Some(member) => Err(bad(&format!("ID: {id} is that of {member}, which has an agent: leave it out."))),
        None => Ok(()),
    }
}

/// Refuses changes of nodes that announce themselves, and of external nodes that another agent owns. The owner may change its
/// node, and so remove it, also while a member or another agent announces the name.
fn ensure_owner(api: &Api, name: &RegisteredName) -> Result<(), ApiError> {
    let known = api.queries.snapshot();
    let catalog = &known.catalog;
    let claims = catalog.claims(name);
    if claims.iter().any(|claim| claim.owner == api.agent.node) {
        return Ok(());
    }
    if catalog.has_member(name) {
        return Err(bad(&format!(
            "Node: {name} has an agent and announces its own services: send the request to its agent. To remove a node, make it \
             leave: PUT /v1/agent/leave; one that is gone: PUT /v1/agent/force-leave/{name}."
        )));
    }
    match claims.iter().find(|claim| claim.freshness != Freshness::Gone) {
        Some(other) => Err(bad(&format!(
            "Node: external node {name} is registered through {}: send the request to the agent there.",
            other.owner
        ))),
        None => Ok(()),
    }
}
