//! What there is: each endpoint once, with what it takes, whom it lets in and who answers.
//!
//! The router, the permissions, the words of a refusal and the description of the API are all made of this table. An
//! endpoint is one method on one path; a new one is one entry here.

use std::{collections::BTreeMap, sync::LazyLock};

use axum::{
    Router,
    body::Bytes,
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::Value;

use super::{
    Api,
    consul::{agent, agent_services, catalog, event, keyring, metrics, register},
    endpoint::{Answer, Body, Endpoint},
    muster::{events, explain},
    openapi, page,
    parameter::{
        CATALOG, DRAIN, ENABLE, EVENT, FORMAT, HAPPENED, HASH, JSON, METRICS, NAME, NEAR, NOTE, PASSING, REGISTER, TAG,
        WAIT,
    },
};
use crate::{
    api::{
        self,
        catalog::{
            AgentHealth, CatalogService, Check, Entry, Event, Node, NodeServiceList, NodeServices, Service, Summary,
        },
        explain::Explained,
    },
    model::token::Scope::{self, Operate, Read, Register},
};

/// All of them, in the order in which people read them.
pub(super) static ENDPOINTS: LazyLock<Vec<Endpoint>> = LazyLock::new(|| {
    vec![
        // The page.
        Endpoint::get("/", None, page::redirect, "Leads to the page").says(Answer::Elsewhere),
        Endpoint::get("/ui", None, page::redirect, "Leads to the page").says(Answer::Elsewhere),
        Endpoint::get("/ui/", None, page::index, "A web page that shows what the API says")
            .says(Answer::Text("text/html")),
        Endpoint::get("/ui/{file}", None, page::file, "A file of the page").says(Answer::Text("text/*")),
        // For whoever watches the agent.
        Endpoint::get("/healthz", None, metrics::health, "Whether the agent lives").says(Answer::Text("text/plain")),
        Endpoint::get("/readyz", None, metrics::readiness, "Whether the agent answers").says(Answer::Ready),
        Endpoint::get("/metrics", Read, metrics::text, "What the agent counts, for Prometheus")
            .says(Answer::Text("text/plain")),
        // The agent and its cluster.
        Endpoint::get("/v1/agent/self", Read, agent::myself, "The agent that is asked, and its cluster")
            .query(&[WAIT, JSON])
            .answers::<api::Agent>(),
        Endpoint::get("/v1/agent/members", Read, agent::members, "The nodes of the cluster")
            .query(&[WAIT, JSON])
            .answers::<Vec<api::Member>>(),
        Endpoint::get("/v1/agent/metrics", Read, metrics::consul, "What the agent counts")
            .query(&[METRICS, JSON])
            .answers::<api::metrics::Metrics>(),
        Endpoint::put("/v1/agent/join/{address}", Operate, agent::join, "Joins the cluster that a node is in")
            .query(&[JSON])
            .answers::<api::Joined>(),
        Endpoint::put(
            "/v1/agent/force-leave/{node}",
            Operate,
            agent::force_leave,
            "Has all nodes forget one that is gone",
        ),
        Endpoint::put("/v1/agent/leave", Operate, agent::leave, "Leaves the cluster and ends the agent"),
        Endpoint::put("/v1/agent/reload", Operate, register::reload, "Reads all files again"),
        Endpoint::put(
            "/v1/agent/maintenance",
            Operate,
            register::maintain_node,
            "Takes the node out of answers, or back",
        )
        .query(&[ENABLE]),
        // The services of this node.
        Endpoint::get("/v1/agent/services", Read, agent_services::services, "The services of this node")
            .query(&[WAIT, CATALOG, JSON])
            .answers::<Table<Service>>(),
        Endpoint::get("/v1/agent/service/{id}", Read, agent_services::service, "One service of this node")
            .query(&[WAIT, HASH, JSON])
            .answers::<Service>(),
        Endpoint::get("/v1/agent/checks", Read, agent_services::checks, "The checks of this node's services")
            .query(&[WAIT, CATALOG, JSON])
            .answers::<Table<Check>>(),
        Endpoint::get(
            "/v1/agent/health/service/id/{id}",
            Read,
            agent_services::health_by_id,
            "How an instance of this node stands",
        )
        .query(&[FORMAT, JSON])
        .tells_health::<AgentHealth>(),
        Endpoint::get(
            "/v1/agent/health/service/name/{name}",
            Read,
            agent_services::health_by_name,
            "How this node's instances of a service stand",
        )
        .query(&[FORMAT, JSON])
        .tells_health::<Vec<AgentHealth>>(),
        Endpoint::put(
            "/v1/agent/service/register",
            Register,
            register::register,
            "Adds or replaces a service of this node",
        )
        .query(&[REGISTER])
        .body(Body::Json(openapi::registration)),
        Endpoint::put("/v1/agent/service/deregister/{id}", Register, register::deregister, "Takes a service away"),
        Endpoint::put(
            "/v1/agent/service/maintenance/{id}",
            Register,
            register::maintain_service,
            "Takes an instance out of answers, or back",
        )
        .query(&[ENABLE]),
        Endpoint::put(
            "/v1/agent/check/register",
            Register,
            register::register_check,
            "Adds or replaces a check of a service",
        )
        .body(Body::Json(openapi::check)),
        Endpoint::put("/v1/agent/check/deregister/{id}", Register, register::deregister_check, "Takes a check away"),
        Endpoint::put("/v1/agent/check/pass/{id}", Register, register::pass, "Reports that a TTL check passes")
            .query(&[NOTE]),
        Endpoint::put("/v1/agent/check/warn/{id}", Register, register::warn, "Reports that a TTL check warns")
            .query(&[NOTE]),
        Endpoint::put("/v1/agent/check/fail/{id}", Register, register::fail, "Reports that a TTL check fails")
            .query(&[NOTE]),
        Endpoint::put("/v1/agent/check/update/{id}", Register, register::update, "Reports how a TTL check stands")
            .body(Body::Json(openapi::report)),
        // What all nodes announce.
        Endpoint::get("/v1/catalog/datacenters", Read, catalog::catalog_datacenters, "The datacenters")
            .query(&[WAIT, JSON])
            .answers::<Vec<String>>(),
        Endpoint::get("/v1/catalog/nodes", Read, catalog::catalog_nodes, "The nodes")
            .query(&[WAIT, CATALOG, NEAR, JSON])
            .answers::<Vec<Node>>(),
        Endpoint::get("/v1/catalog/node/{node}", Read, catalog::catalog_node, "A node and its services")
            .query(&[WAIT, CATALOG, JSON])
            .answers::<Option<NodeServices>>(),
        Endpoint::get(
            "/v1/catalog/node-services/{node}",
            Read,
            catalog::catalog_node_services,
            "A node and its services, as a list",
        )
        .query(&[WAIT, CATALOG, JSON])
        .answers::<NodeServiceList>(),
        Endpoint::get("/v1/catalog/services", Read, catalog::catalog_services, "The services' names and tags")
            .query(&[WAIT, CATALOG, JSON])
            .answers::<Table<Vec<String>>>(),
        Endpoint::get("/v1/catalog/service/{service}", Read, catalog::catalog_service, "The instances of a service")
            .query(&[WAIT, CATALOG, TAG, NEAR, JSON])
            .answers::<Vec<CatalogService>>(),
        Endpoint::put("/v1/catalog/register", Register, register::catalog_register, "Adds a service of this node")
            .body(Body::Json(openapi::catalog_registration))
            .answers::<bool>(),
        Endpoint::put(
            "/v1/catalog/deregister",
            Register,
            register::catalog_deregister,
            "Takes a service of this node away",
        )
        .body(Body::Json(openapi::catalog_deregistration))
        .answers::<bool>(),
        Endpoint::get("/v1/health/node/{node}", Read, catalog::health_node, "The checks of a node")
            .query(&[WAIT, CATALOG, JSON])
            .answers::<Vec<Check>>(),
        Endpoint::get("/v1/health/checks/{service}", Read, catalog::health_checks, "The checks of a service")
            .query(&[WAIT, CATALOG, TAG, NEAR, JSON])
            .answers::<Vec<Check>>(),
        Endpoint::get(
            "/v1/health/service/{service}",
            Read,
            catalog::health_service,
            "The instances of a service, with their nodes and checks",
        )
        .query(&[WAIT, CATALOG, TAG, PASSING, NEAR, JSON])
        .answers::<Vec<Entry>>(),
        Endpoint::get("/v1/health/state/{state}", Read, catalog::health_state, "The checks in a state")
            .query(&[WAIT, CATALOG, NEAR, JSON])
            .answers::<Vec<Check>>(),
        Endpoint::get("/v1/internal/ui/services", Read, catalog::ui_services, "Each service with its counts")
            .query(&[WAIT, CATALOG, JSON])
            .answers::<Vec<Summary>>(),
        Endpoint::get("/v1/status/leader", Read, catalog::leader, "Whom to ask: always the agent itself")
            .query(&[JSON])
            .answers::<String>(),
        Endpoint::get("/v1/status/peers", Read, catalog::peers, "The nodes that are alive")
            .query(&[JSON])
            .answers::<Vec<String>>(),
        // What somebody wants all nodes to know.
        Endpoint::put("/v1/event/fire/{name}", Operate, event::fire, "Tells all nodes something")
            .query(&[EVENT, JSON])
            .body(Body::Octets)
            .answers::<Event>(),
        Endpoint::get("/v1/event/list", Read, event::list, "The last events that were meant for this node")
            .query(&[WAIT, NAME, JSON])
            .answers::<Vec<Event>>(),
        // What only muster has.
        Endpoint::get("/v1/muster/explain/{name}", Read, explain::explain, "Why a name is answered as it is")
            .query(&[WAIT, JSON])
            .answers::<Explained>(),
        Endpoint::get("/v1/muster/events", Read, events::events, "What happens, as a stream or as a list")
            .query(&[HAPPENED])
            .says(Answer::Stream),
        Endpoint::put(
            "/v1/muster/drain/{target}",
            Operate,
            register::drain,
            "Takes an instance or the node out of answers",
        )
        .query(&[DRAIN, JSON])
        .answers::<api::Drained>(),
        Endpoint::put("/v1/muster/resume/{target}", Operate, register::resume, "Gives it back")
            .query(&[JSON])
            .answers::<api::Drained>(),
        // What others above show, as streams.
        Endpoint::watch("/v1/watch/agent/self", agent::myself),
        Endpoint::watch("/v1/watch/agent/members", agent::members),
        Endpoint::watch("/v1/watch/agent/services", agent_services::services),
        Endpoint::watch("/v1/watch/agent/checks", agent_services::checks),
        Endpoint::watch("/v1/watch/catalog/datacenters", catalog::catalog_datacenters),
        Endpoint::watch("/v1/watch/catalog/nodes", catalog::catalog_nodes),
        Endpoint::watch("/v1/watch/catalog/node/{node}", catalog::catalog_node),
        Endpoint::watch("/v1/watch/catalog/services", catalog::catalog_services),
        Endpoint::watch("/v1/watch/catalog/service/{service}", catalog::catalog_service),
        Endpoint::watch("/v1/watch/health/node/{node}", catalog::health_node),
        Endpoint::watch("/v1/watch/health/checks/{service}", catalog::health_checks),
        Endpoint::watch("/v1/watch/health/service/{service}", catalog::health_service),
        Endpoint::watch("/v1/watch/health/state/{state}", catalog::health_state),
        Endpoint::watch("/v1/watch/internal/ui/services", catalog::ui_services),
        Endpoint::watch("/v1/watch/muster/explain/{name}", explain::explain),
        // The keys of gossip.
        Endpoint::get("/v1/operator/keyring", Operate, keyring::list, "The gossip keys, by their ids")
            .query(&[JSON])
            .answers::<Vec<api::Keyring>>(),
        Endpoint::post("/v1/operator/keyring", Operate, keyring::install, "Gives all nodes a key")
            .body(Body::Json(openapi::key)),
        Endpoint::put("/v1/operator/keyring", Operate, keyring::make_primary, "Has all nodes seal with a key")
            .body(Body::Json(openapi::key)),
        Endpoint::delete("/v1/operator/keyring", Operate, keyring::remove, "Takes a key from all nodes")
            .body(Body::Json(openapi::key)),
        // This table, for programs.
        Endpoint::get("/v1/openapi.json", None, description, "This description of the API").answers::<Value>(),
    ]
});

/// Things by their names.
type Table<T> = BTreeMap<String, T>;

/// Written once: it says nothing of the cluster, and is the same for everybody.
async fn description() -> Response {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| format!("{:#}\n", openapi::describe(&ENDPOINTS)).into());
    ([(header::CONTENT_TYPE, "application/json")], TEXT.clone()).into_response()
}

/// The routes to all of them.
pub(super) fn routes() -> Router<Api> {
    ENDPOINTS.iter().fold(Router::new(), |routes, endpoint| routes.route(endpoint.path, endpoint.route()))
}

/// What an endpoint asks for; `None`: nothing, as for those that say only that the agent is there.
pub(super) fn scope(method: &str, path: &str) -> Option<Scope> {
    let known = ENDPOINTS.iter().find(|endpoint| endpoint.path == path && endpoint.takes(method));
    // What is not there is not shown to strangers either.
    known.map_or(Some(Read), |endpoint| endpoint.scope)
}

/// A path as this table has it: what is counted has no other words. One that is not here is `none`.
pub(super) fn pattern(matched: &str) -> &'static str {
    ENDPOINTS.iter().find(|endpoint| endpoint.path == matched).map_or("none", |endpoint| endpoint.path)
}

/// Each path with its methods, separated by `, `, in the table's order.
pub(super) fn paths() -> Vec<(&'static str, String)> {
    let mut paths: Vec<(&str, String)> = Vec::new();
    for endpoint in ENDPOINTS.iter() {
        match paths.last_mut().filter(|(path, _)| *path == endpoint.path) {
            Some((_, methods)) => methods.extend([", ", endpoint.method]),
            None => paths.push((endpoint.path, endpoint.method.to_owned())),
        }
    }
    paths
}

/// The methods of the endpoint that a request's path leads to.
pub(super) fn methods_of(path: &str) -> Option<String> {
    let is = |pattern: &str| {
        let (mut parts, mut path) = (pattern.split('/'), path.split('/'));
        parts.by_ref().zip(path.by_ref()).all(|(part, found)| part == found || part.starts_with('{'))
            && parts.next().is_none()
            && path.next().is_none()
    };
    let fitting = paths().into_iter().filter(|(pattern, _)| is(pattern));
    // As the router has it: a word goes before a place for any.
    fitting.min_by_key(|(pattern, _)| pattern.contains('{')).map(|(_, methods)| methods)
}
