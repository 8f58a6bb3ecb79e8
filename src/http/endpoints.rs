//! Table of all endpoints: method, path, required permission, handler, parameters and response.
//!
//! The router, the authorization, the list in a 404 and the OpenAPI description derive from this table. A new endpoint
//! is one entry here.

use std::{collections::BTreeMap, sync::LazyLock};

use axum::{
    Router,
    body::Bytes,
    http::header,
    response::{IntoResponse, Response},
    routing::any,
};
use schemars::SchemaGenerator;
use serde_json::Value;

mod find;

#[cfg(test)]
pub(super) use self::find::paths;
pub(super) use self::find::{max_body, methods_of, pattern, required, time_limit};
use super::{
    Api,
    consul::{
        agent, agent_self, agent_services, catalog, catalog_mutations, coordinate, event, health, keyring, kv, leader,
        mesh, metrics, mutations, session, txn,
    },
    endpoint::{Answer, Body, CHANGE_OF_VOTERS, Endpoint, READS_STORE, WRITES_STORE, rest},
    muster::{events, explain, nodes, status, store, store_entries, store_export, zones},
    openapi,
    openapi_parameters::{
        CATALOG, DELETE_KEY, DRAIN, ENABLE, EVENT, EVENTS, EXPLAIN, FORCE, FORMAT, HASH, JSON, KEYS, METRICS, NAME,
        NEAR, NOTE, PASSING, PUT_KEY, REGISTER, STORE, TAG, WAIT, WAN,
    },
    page,
    query::bad,
};
use crate::{
    api::{
        self,
        catalog::{
            AgentHealth, CatalogService, Check, Entry, Event, Node, NodeServiceList, NodeServices, Nothing, Service,
            Summary,
        },
        explain::Explained,
        kv::{Exported, MAX_VALUE, NewSession, SessionCreated, TxnAnswer, TxnOperation},
    },
    model::token::{
        Requirement::{Keys, Sessions, Token},
        Scope::{Operate, Read, Register},
    },
};

/// All endpoints, in the order of the documentation.
pub(super) static ENDPOINTS: LazyLock<Vec<Endpoint>> = LazyLock::new(|| {
    vec![
        // Web UI.
        Endpoint::get("/", None, page::redirect_root, "Redirect to the web UI").answer(Answer::Redirect("301")),
        Endpoint::get("/ui", None, page::redirect, "Redirect to the web UI").answer(Answer::Redirect("307")),
        Endpoint::get("/ui/", None, page::index, "Show the web UI").answer(Answer::Text("text/html")),
        Endpoint::get("/ui/{file}", None, page::file, "Get a file of the web UI").answer(Answer::Text("text/*")),
        // Monitoring.
        Endpoint::get("/healthz", None, metrics::health, "Check liveness").answer(Answer::Text("text/plain")),
        Endpoint::get("/readyz", None, metrics::readiness, "Check readiness").answer(Answer::Readiness),
        Endpoint::get("/metrics", Read, metrics::text, "Get metrics for Prometheus").answer(Answer::Text("text/plain")),
        // Agent and cluster.
        Endpoint::get("/v1/agent/self", Read, agent_self::myself, "Show the agent")
            .query(&[WAIT, JSON])
            .json::<api::Agent>(),
        Endpoint::get("/v1/agent/version", Read, agent_self::version, "Get the version that programs for Consul see")
            .query(&[JSON])
            .json::<api::Version>(),
        Endpoint::get("/v1/agent/members", Read, agent::members, "List cluster members")
            .query(&[WAIT, WAN, JSON])
            .json::<Vec<api::Member>>(),
        Endpoint::get("/v1/agent/metrics", Read, metrics::consul, "Get metrics as JSON")
            .query(&[METRICS, JSON])
            .json::<api::metrics::Metrics>(),
        Endpoint::put("/v1/agent/join/{address}", Operate, agent::join, "Join a cluster through one of its nodes")
            .query(&[JSON])
            .json::<api::Joined>(),
        Endpoint::put(
            "/v1/agent/force-leave/{node}",
            Operate,
            agent::force_leave,
            "Remove a gone or unreachable node from the cluster",
        ),
        Endpoint::put("/v1/agent/leave", Operate, agent::leave, "Leave the cluster and stop the agent"),
        Endpoint::put("/v1/agent/reload", Operate, mutations::reload, "Reload the configuration and all files")
            .query(&[JSON])
            .json::<api::Reloaded>(),
        Endpoint::put(
            "/v1/agent/maintenance",
            Operate,
            mutations::maintain_node,
            "Start or end maintenance of the node",
        )
        .query(&[ENABLE]),
        // Services of this node.
        Endpoint::get("/v1/agent/services", Read, agent_services::services, "List the services of this node")
            .query(&[WAIT, CATALOG, JSON])
            .json::<MapOf<Service>>(),
        Endpoint::get("/v1/agent/service/{id}", Read, agent_services::service, "Get a service of this node")
            .query(&[WAIT, HASH, JSON])
            .json::<Service>(),
        Endpoint::get("/v1/agent/checks", Read, agent_services::checks, "List the checks of this node's services")
            .query(&[WAIT, CATALOG, JSON])
            .json::<MapOf<Check>>(),
        Endpoint::get(
            "/v1/agent/health/service/id/{id}",
            Read,
            agent_services::health_by_id,
            "Get the health of an instance of this node",
        )
        .query(&[FORMAT, JSON])
        .health::<AgentHealth>(),
        Endpoint::get(
            "/v1/agent/health/service/name/{name}",
            Read,
            agent_services::health_by_name,
            "Get the health of this node's instances of a service",
        )
        .query(&[FORMAT, JSON])
        .health::<Vec<AgentHealth>>(),
        Endpoint::put(
            "/v1/agent/service/register",
            Register,
            mutations::register,
            "Register or replace a service of this node",
        )
        .query(&[REGISTER])
        .body(Body::Json(openapi::registration)),
        Endpoint::put(
            "/v1/agent/service/deregister/{id}",
            Register,
            mutations::deregister,
            "Deregister a service of this node",
        ),
        Endpoint::put(
            "/v1/agent/service/maintenance/{id}",
            Register,
            mutations::maintain_service,
            "Start or end maintenance of an instance",
        )
        .query(&[ENABLE]),
        Endpoint::put(
            "/v1/agent/check/register",
            Register,
            mutations::register_check,
            "Register or replace a check of a service or of the node",
        )
        .body(Body::Json(openapi::check)),
        Endpoint::put("/v1/agent/check/deregister/{id}", Register, mutations::deregister_check, "Deregister a check"),
        Endpoint::put("/v1/agent/check/pass/{id}", Register, mutations::pass, "Report a TTL check as passing")
            .query(&[NOTE]),
        Endpoint::put("/v1/agent/check/warn/{id}", Register, mutations::warn, "Report a TTL check as warning")
            .query(&[NOTE]),
        Endpoint::put("/v1/agent/check/fail/{id}", Register, mutations::fail, "Report a TTL check as critical")
            .query(&[NOTE]),
        Endpoint::put("/v1/agent/check/update/{id}", Register, mutations::update, "Report the status of a TTL check")
            .body(Body::Json(openapi::report)),
        // Catalog of all nodes.
        Endpoint::get("/v1/catalog/datacenters", Read, catalog::datacenters, "List datacenters")
            .query(&[WAIT, JSON])
            .json::<Vec<String>>(),
        Endpoint::get("/v1/catalog/nodes", Read, catalog::nodes, "List nodes")
            .query(&[WAIT, CATALOG, NEAR, JSON])
            .json::<Vec<Node>>(),
        Endpoint::get("/v1/catalog/node/{node}", Read, catalog::node, "Get a node and its services")
            .query(&[WAIT, CATALOG, JSON])
            .json::<Option<NodeServices>>(),
        Endpoint::get(
            "/v1/catalog/node-services/{node}",
            Read,
            catalog::node_services,
            "Get a node and a list of its services",
        )
        .query(&[WAIT, CATALOG, JSON])
        .json::<NodeServiceList>(),
        Endpoint::get("/v1/catalog/services", Read, catalog::services, "List services and their tags")
            .query(&[WAIT, CATALOG, JSON])
            .json::<MapOf<Vec<String>>>(),
        Endpoint::get("/v1/catalog/service/{service}", Read, catalog::service, "List the instances of a service")
            .query(&[WAIT, CATALOG, TAG, NEAR, JSON])
            .json::<Vec<CatalogService>>(),
        Endpoint::get(
            "/v1/catalog/connect/{service}",
            Read,
            mesh::nothing::<CatalogService>,
            "List the instances of a service that accept mesh connections: always none",
        )
        .query(&[WAIT, CATALOG, JSON])
        .json::<Vec<CatalogService>>(),
        Endpoint::get(
            "/v1/catalog/gateway-services/{gateway}",
            Read,
            mesh::nothing::<Nothing>,
            "List the services of a mesh gateway: always none",
        )
        .query(&[WAIT, CATALOG, JSON])
        .json::<Vec<Nothing>>(),
        Endpoint::put(
            "/v1/catalog/register",
            Register,
            catalog_mutations::register,
            "Register an external node, or a service",
        )
        .body(Body::Json(openapi::catalog_registration))
        .json::<bool>(),
        Endpoint::put(
            "/v1/catalog/deregister",
            Register,
            catalog_mutations::deregister,
            "Deregister an external node, a service or a check",
        )
        .body(Body::Json(openapi::catalog_deregistration))
        .json::<bool>(),
        Endpoint::get("/v1/health/node/{node}", Read, health::node, "List the checks of a node")
            .query(&[WAIT, CATALOG, JSON])
            .json::<Vec<Check>>(),
        Endpoint::get("/v1/health/checks/{service}", Read, health::checks, "List the checks of a service")
            .query(&[WAIT, CATALOG, TAG, NEAR, JSON])
            .json::<Vec<Check>>(),
        Endpoint::get(
            "/v1/health/service/{service}",
            Read,
            health::service,
            "List the instances of a service with their nodes and checks",
        )
        .query(&[WAIT, CATALOG, TAG, PASSING, NEAR, JSON])
        .json::<Vec<Entry>>(),
        Endpoint::get(
            "/v1/health/connect/{service}",
            Read,
            mesh::nothing::<Entry>,
            "List the instances of a service that accept mesh connections: always none",
        )
        .query(&[WAIT, CATALOG, TAG, PASSING, NEAR, JSON])
        .json::<Vec<Entry>>(),
        Endpoint::get(
            "/v1/health/ingress/{service}",
            Read,
            mesh::nothing::<Entry>,
            "List the ingress gateways of a service: always none",
        )
        .query(&[WAIT, CATALOG, TAG, PASSING, NEAR, JSON])
        .json::<Vec<Entry>>(),
        Endpoint::get("/v1/health/state/{state}", Read, health::state, "List the checks in a state")
            .query(&[WAIT, CATALOG, NEAR, JSON])
            .json::<Vec<Check>>(),
        Endpoint::get(
            "/v1/internal/ui/services",
            Read,
            catalog::ui_services,
            "List services with numbers of instances and checks",
        )
        .query(&[WAIT, CATALOG, JSON])
        .json::<Vec<Summary>>(),
        Endpoint::get(
            "/v1/coordinate/datacenters",
            Read,
            coordinate::datacenters,
            "List datacenters with coordinates: there are none",
        )
        .query(&[WAIT, JSON])
        .json::<Vec<api::DatacenterCoordinates>>(),
        Endpoint::get("/v1/coordinate/nodes", Read, coordinate::nodes, "List coordinates of nodes: there are none")
            .query(&[WAIT, JSON])
            .json::<Vec<api::NodeCoordinate>>(),
        Endpoint::get("/v1/coordinate/node/{node}", Read, coordinate::node, "Get a node's coordinate: there is none"),
        Endpoint::get("/v1/status/leader", Read, leader::leader, "Get the leader of the store")
            .query(&[JSON])
            .json::<String>(),
        Endpoint::get("/v1/status/peers", Read, leader::peers, "List the voters of the store")
            .query(&[JSON])
            .json::<Vec<String>>(),
        // Keys, sessions and transactions of the store.
        Endpoint::get("/v1/kv/{key}", Some(Keys), kv::get, "Get a key, or the keys that begin with a prefix")
            .errors(READS_STORE)
            .query(&[WAIT, STORE, KEYS, JSON])
            .answer(Answer::JsonOrText(openapi::keys)),
        Endpoint::put("/v1/kv/{key}", Some(Keys), kv::put, "Set or lock a key")
            .errors(WRITES_STORE)
            .query(&[PUT_KEY, JSON])
            .body(Body::Octets)
            .max_body(MAX_VALUE)
            .json::<bool>(),
        Endpoint::delete("/v1/kv/{key}", Some(Keys), kv::delete, "Delete a key, or the keys that begin with a prefix")
            .errors(READS_STORE)
            .query(&[DELETE_KEY, JSON])
            .json::<bool>(),
        Endpoint::get("/v1/kv/", Some(Keys), kv::get, "Get all keys, with recurse or keys")
            .errors(READS_STORE)
            .query(&[WAIT, STORE, KEYS, JSON])
            .answer(Answer::JsonOrText(openapi::keys)),
        Endpoint::delete("/v1/kv/", Some(Keys), kv::delete, "Delete all keys, with recurse")
            .errors(READS_STORE)
            .query(&[DELETE_KEY, JSON])
            .json::<bool>(),
        Endpoint::put("/v1/session/create", Some(Sessions), session::create, "Create a session")
            .errors(WRITES_STORE)
            .query(&[JSON])
            .body(Body::Json(SchemaGenerator::subschema_for::<NewSession>))
            .json::<SessionCreated>(),
        Endpoint::put("/v1/session/renew/{session}", Some(Sessions), session::renew, "Renew a session")
            .errors(READS_STORE)
            .query(&[JSON])
            .json::<Vec<api::kv::Session>>(),
        Endpoint::put("/v1/session/destroy/{session}", Some(Sessions), session::destroy, "End a session")
            .errors(READS_STORE)
            .query(&[JSON])
            .json::<bool>(),
        Endpoint::get("/v1/session/info/{session}", Some(Token), session::info, "Get a session")
            .errors(READS_STORE)
            .query(&[WAIT, STORE, JSON])
            .json::<Vec<api::kv::Session>>(),
        Endpoint::get("/v1/session/node/{node}", Read, session::node, "List the sessions of a node")
            .errors(READS_STORE)
            .query(&[WAIT, STORE, JSON])
            .json::<Vec<api::kv::Session>>(),
        Endpoint::get("/v1/session/list", Read, session::list, "List sessions")
            .errors(READS_STORE)
            .query(&[WAIT, STORE, JSON])
            .json::<Vec<api::kv::Session>>(),
        Endpoint::put("/v1/txn", Some(Keys), txn::apply, "Apply several operations, all of them or none")
            .errors(WRITES_STORE)
            .query(&[JSON])
            .body(Body::Json(SchemaGenerator::subschema_for::<Vec<TxnOperation>>))
            .max_body(txn::MAX_BODY)
            .answer(Answer::JsonOrConflict(SchemaGenerator::subschema_for::<TxnAnswer>)),
        // User events.
        Endpoint::put("/v1/event/fire/{name}", Operate, event::fire, "Fire a user event")
            .query(&[EVENT, JSON])
            .body(Body::Octets)
            .json::<Event>(),
        Endpoint::get("/v1/event/list", Read, event::list, "List recent user events for this node")
            .query(&[WAIT, NAME, JSON])
            .json::<Vec<Event>>(),
        // muster's own endpoints.
        Endpoint::get(
            "/v1/muster/status",
            Read,
            status::status,
            "Show the agent, its problems and its view of the cluster",
        )
        .query(&[WAIT, JSON])
        .json::<api::AgentStatus>(),
        Endpoint::get("/v1/muster/nodes", Read, nodes::nodes, "List cluster members and external nodes")
            .query(&[WAIT, JSON])
            .json::<api::Nodes>(),
        Endpoint::get("/v1/muster/explain/{name}", Read, explain::explain, "Explain the answers to a name")
            .query(&[WAIT, EXPLAIN, JSON])
            .json::<Explained>(),
        Endpoint::get("/v1/muster/events", Read, events::events, "Stream or list events")
            .query(&[EVENTS])
            .answer(Answer::Stream),
        Endpoint::put("/v1/muster/drain/{target}", Operate, mutations::drain, "Drain an instance or the node")
            .query(&[DRAIN, JSON])
            .json::<api::Drained>(),
        Endpoint::put(
            "/v1/muster/resume/{target}",
            Operate,
            mutations::resume,
            "End the drain and maintenance of an instance or the node",
        )
        .query(&[JSON])
        .json::<api::Drained>(),
        Endpoint::get("/v1/muster/store", Read, store::status, "Show the voters of the store and their state")
            .errors(READS_STORE)
            .query(&[JSON])
            .json::<api::store::Status>(),
        Endpoint::put("/v1/muster/store/voters/{node}", Operate, store::add, "Add a voter to the store")
            .errors(READS_STORE)
            .time_limit(CHANGE_OF_VOTERS),
        Endpoint::delete("/v1/muster/store/voters/{node}", Operate, store::remove, "Remove a voter from the store")
            .errors(READS_STORE)
            .time_limit(CHANGE_OF_VOTERS),
        Endpoint::get(
            "/v1/muster/store/export/{prefix}",
            Some(Keys),
            store_export::export,
            "Export the keys that begin with a prefix",
        )
        .errors(READS_STORE)
        .json::<Vec<Exported>>(),
        Endpoint::get("/v1/muster/store/export/", Some(Keys), store_export::export, "Export all keys")
            .errors(READS_STORE)
            .json::<Vec<Exported>>(),
        Endpoint::get("/v1/muster/store/key/{key}", Some(Keys), store_entries::key, "Show a key without its value")
            .errors(READS_STORE)
            .query(&[WAIT, STORE, JSON])
            .json::<api::store::KeyState>(),
        Endpoint::get("/v1/muster/store/leases", Read, store_entries::leases, "List leases of etcd's API")
            .errors(READS_STORE)
            .query(&[JSON])
            .json::<api::store::Leases>(),
        Endpoint::get("/v1/muster/store/sessions", Read, store_entries::session_keys, "Count the keys of sessions")
            .errors(READS_STORE)
            .query(&[JSON])
            .json::<Vec<api::store::SessionKeys>>(),
        // Zones.
        Endpoint::get("/v1/muster/zones", Read, zones::list, "List the zones of this node")
            .query(&[JSON])
            .json::<Vec<api::zones::Zone>>(),
        Endpoint::get("/v1/muster/zones/{zone}", Read, zones::show, "List the records of a zone")
            .query(&[JSON])
            .json::<api::zones::Records>(),
        Endpoint::put("/v1/muster/notify/{zone}", Operate, zones::notify, "Send NOTIFY of a zone to the secondaries")
            .query(&[JSON])
            .json::<api::zones::Notified>(),
        // Streams of the endpoints above.
        Endpoint::watch("/v1/watch/agent/self", agent_self::myself),
        Endpoint::watch("/v1/watch/agent/members", agent::members),
        Endpoint::watch("/v1/watch/agent/services", agent_services::services),
        Endpoint::watch("/v1/watch/agent/checks", agent_services::checks),
        Endpoint::watch("/v1/watch/catalog/datacenters", catalog::datacenters),
        Endpoint::watch("/v1/watch/catalog/nodes", catalog::nodes),
        Endpoint::watch("/v1/watch/catalog/node/{node}", catalog::node),
        Endpoint::watch("/v1/watch/catalog/services", catalog::services),
        Endpoint::watch("/v1/watch/catalog/service/{service}", catalog::service),
        Endpoint::watch("/v1/watch/health/node/{node}", health::node),
        Endpoint::watch("/v1/watch/health/checks/{service}", health::checks),
        Endpoint::watch("/v1/watch/health/service/{service}", health::service),
        Endpoint::watch("/v1/watch/health/state/{state}", health::state),
        Endpoint::watch("/v1/watch/internal/ui/services", catalog::ui_services),
        Endpoint::watch("/v1/watch/muster/status", status::status),
        Endpoint::watch("/v1/watch/muster/nodes", nodes::nodes),
        Endpoint::watch("/v1/watch/muster/explain/{name}", explain::explain),
        // Gossip keys.
        Endpoint::get("/v1/operator/keyring", Operate, keyring::list, "List the ids of gossip keys")
            .query(&[JSON])
            .json::<Vec<api::Keyring>>(),
        Endpoint::post("/v1/operator/keyring", Operate, keyring::install, "Install a gossip key on all nodes")
            .query(&[FORCE, JSON])
            .body(Body::Json(openapi::key)),
        Endpoint::put("/v1/operator/keyring", Operate, keyring::make_primary, "Make a gossip key primary on all nodes")
            .query(&[FORCE, JSON])
            .body(Body::Json(openapi::key)),
        Endpoint::delete("/v1/operator/keyring", Operate, keyring::remove, "Remove a gossip key from all nodes")
            .query(&[FORCE, JSON])
            .body(Body::Json(openapi::key)),
        // OpenAPI description.
        Endpoint::get("/v1/openapi.json", None, description, "Get this description of the API").json::<Value>(),
    ]
});

/// A JSON object whose keys are data.
type MapOf<T> = BTreeMap<String, T>;

/// Serialized once: the description is constant and independent of the cluster.
async fn description() -> Response {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| format!("{:#}\n", openapi::describe(&ENDPOINTS)).into());
    ([(header::CONTENT_TYPE, "application/json")], TEXT.clone()).into_response()
}

/// Returns the router of all endpoints.
pub(super) fn routes() -> Router<Api> {
    let is_listed = |path: &str| ENDPOINTS.iter().any(|endpoint| endpoint.path == path);
    let routes =
        ENDPOINTS.iter().fold(Router::new(), |routes, endpoint| routes.route(&endpoint.route_path, endpoint.route()));
    // Otherwise, `service/deregister/` would be the service `deregister/`.
    // A path may have several methods.
    let without_rest: BTreeMap<&str, &str> =
        ENDPOINTS.iter().filter_map(|endpoint| rest(endpoint.path)).filter(|(path, _)| !is_listed(path)).collect();
    without_rest.into_iter().fold(routes, |routes, (path, name)| {
        let missing = move || async move { bad(&format!("Missing {name}: append it to the path.")) };
        routes.route(path, any(missing))
    })
}
