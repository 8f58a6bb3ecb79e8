//! What there is: each endpoint once, with what it takes, whom it lets in and who answers.
//!
//! The router, the permissions, the words of a refusal and the description of the API are all made of this table. An
//! endpoint is one method on one path; a new one is one entry here.

use std::sync::LazyLock;

use axum::{
    Router,
    handler::Handler,
    routing::{MethodRouter, delete, get, post, put},
};

use super::{Api, agent, change, explain, keyring, local, page, read};
use crate::model::token::Scope::{self, Operate, Read, Register};

/// All of them, in the order in which people read them.
pub(super) static ENDPOINTS: LazyLock<Vec<Endpoint>> = LazyLock::new(|| {
    vec![
        // The page.
        Endpoint::get("/", None::<Scope>, page::elsewhere, "Leads to the page"),
        Endpoint::get("/ui", None::<Scope>, page::elsewhere, "Leads to the page"),
        Endpoint::get("/ui/", None::<Scope>, page::index, "A web page that shows what the API says"),
        Endpoint::get("/ui/{file}", None::<Scope>, page::file, "A file of the page"),
        // The agent and its cluster.
        Endpoint::get("/v1/agent/self", Read, agent::myself, "The agent that is asked, and its cluster"),
        Endpoint::get("/v1/agent/members", Read, agent::members, "The nodes of the cluster"),
        Endpoint::put("/v1/agent/join/{address}", Operate, agent::join, "Joins the cluster that a node is in"),
        Endpoint::put("/v1/agent/leave", Operate, agent::leave, "Leaves the cluster and ends the agent"),
        Endpoint::put("/v1/agent/reload", Operate, change::reload, "Reads all files again"),
        Endpoint::put(
            "/v1/agent/maintenance",
            Operate,
            change::maintain_node,
            "Takes the node out of answers, or back",
        ),
        // The services of this node.
        Endpoint::get("/v1/agent/services", Read, local::services, "The services of this node"),
        Endpoint::get("/v1/agent/service/{id}", Read, local::service, "One service of this node"),
        Endpoint::get("/v1/agent/checks", Read, local::checks, "The checks of this node's services"),
        Endpoint::get(
            "/v1/agent/health/service/id/{id}",
            Read,
            local::health_by_id,
            "How an instance of this node stands",
        ),
        Endpoint::get(
            "/v1/agent/health/service/name/{name}",
            Read,
            local::health_by_name,
            "How this node's instances of a service stand",
        ),
        Endpoint::put(
            "/v1/agent/service/register",
            Register,
            change::register,
            "Adds or replaces a service of this node",
        ),
        Endpoint::put("/v1/agent/service/deregister/{id}", Register, change::deregister, "Takes a service away"),
        Endpoint::put(
            "/v1/agent/service/maintenance/{id}",
            Register,
            change::maintain_service,
            "Takes an instance out of answers, or back",
        ),
        Endpoint::put(
            "/v1/agent/check/register",
            Register,
            change::register_check,
            "Adds or replaces a check of a service",
        ),
        Endpoint::put("/v1/agent/check/deregister/{id}", Register, change::deregister_check, "Takes a check away"),
        Endpoint::put("/v1/agent/check/pass/{id}", Register, change::pass, "Reports that a TTL check passes"),
        Endpoint::put("/v1/agent/check/warn/{id}", Register, change::warn, "Reports that a TTL check warns"),
        Endpoint::put("/v1/agent/check/fail/{id}", Register, change::fail, "Reports that a TTL check fails"),
        Endpoint::put("/v1/agent/check/update/{id}", Register, change::update, "Reports how a TTL check stands"),
        // What all nodes announce.
        Endpoint::get("/v1/catalog/datacenters", Read, read::catalog_datacenters, "The datacenters"),
        Endpoint::get("/v1/catalog/nodes", Read, read::catalog_nodes, "The nodes"),
        Endpoint::get("/v1/catalog/node/{node}", Read, read::catalog_node, "A node and its services"),
        Endpoint::get("/v1/catalog/services", Read, read::catalog_services, "The services' names and tags"),
        Endpoint::get("/v1/catalog/service/{service}", Read, read::catalog_service, "The instances of a service"),
        Endpoint::put("/v1/catalog/register", Register, change::catalog_register, "Adds a service of this node"),
        Endpoint::put(
            "/v1/catalog/deregister",
            Register,
            change::catalog_deregister,
            "Takes a service of this node away",
        ),
        Endpoint::get("/v1/health/node/{node}", Read, read::health_node, "The checks of a node"),
        Endpoint::get("/v1/health/checks/{service}", Read, read::health_checks, "The checks of a service"),
        Endpoint::get(
            "/v1/health/service/{service}",
            Read,
            read::health_service,
            "The instances of a service, with their nodes and checks",
        ),
        Endpoint::get("/v1/health/state/{state}", Read, read::health_state, "The checks in a state"),
        Endpoint::get("/v1/internal/ui/services", Read, read::ui_services, "Each service with its counts"),
        Endpoint::get("/v1/status/leader", Read, read::leader, "Whom to ask: always the agent itself"),
        Endpoint::get("/v1/status/peers", Read, read::peers, "The nodes that are alive"),
        // What only muster has.
        Endpoint::get("/v1/muster/explain/{name}", Read, explain::explain, "Why a name is answered as it is"),
        Endpoint::put(
            "/v1/muster/drain/{target}",
            Operate,
            change::drain,
            "Takes an instance or the node out of answers",
        ),
        Endpoint::put("/v1/muster/resume/{target}", Operate, change::resume, "Gives it back"),
        // The keys of gossip.
        Endpoint::get("/v1/operator/keyring", Operate, keyring::list, "The gossip keys, by their ids"),
        Endpoint::post("/v1/operator/keyring", Operate, keyring::install, "Gives all nodes a key"),
        Endpoint::put("/v1/operator/keyring", Operate, keyring::make_primary, "Has all nodes seal with a key"),
        Endpoint::delete("/v1/operator/keyring", Operate, keyring::remove, "Takes a key from all nodes"),
    ]
});

/// A method on a path.
pub(super) struct Endpoint {
    /// `GET` stands for `HEAD` too.
    pub(super) method: &'static str,
    /// As the router has it: `/v1/agent/service/{id}`.
    pub(super) path: &'static str,
    /// What a token has to allow; `None`: nobody is asked for one.
    pub(super) scope: Option<Scope>,
    /// What it shows or does, in one line.
    pub(super) summary: &'static str,
    route: MethodRouter<Api>,
}

impl Endpoint {
    fn get<T: 'static>(
        path: &'static str,
        scope: impl Into<Option<Scope>>,
        handler: impl Handler<T, Api>,
        summary: &'static str,
    ) -> Self {
        Self { method: "GET", path, scope: scope.into(), summary, route: get(handler) }
    }

    fn put<T: 'static>(
        path: &'static str,
        scope: impl Into<Option<Scope>>,
        handler: impl Handler<T, Api>,
        summary: &'static str,
    ) -> Self {
        Self { method: "PUT", path, scope: scope.into(), summary, route: put(handler) }
    }

    fn post<T: 'static>(
        path: &'static str,
        scope: impl Into<Option<Scope>>,
        handler: impl Handler<T, Api>,
        summary: &'static str,
    ) -> Self {
        Self { method: "POST", path, scope: scope.into(), summary, route: post(handler) }
    }

    fn delete<T: 'static>(
        path: &'static str,
        scope: impl Into<Option<Scope>>,
        handler: impl Handler<T, Api>,
        summary: &'static str,
    ) -> Self {
        Self { method: "DELETE", path, scope: scope.into(), summary, route: delete(handler) }
    }

    fn takes(&self, method: &str) -> bool {
        self.method == method || (self.method == "GET" && method == "HEAD")
    }
}

/// The routes to all of them.
pub(super) fn routes() -> Router<Api> {
    ENDPOINTS.iter().fold(Router::new(), |routes, endpoint| routes.route(endpoint.path, endpoint.route.clone()))
}

/// What an endpoint asks for; `None`: nothing, as for those that say only that the agent is there.
pub(super) fn scope(method: &str, path: &str) -> Option<Scope> {
    let known = ENDPOINTS.iter().find(|endpoint| endpoint.path == path && endpoint.takes(method));
    // What is not there is not shown to strangers either.
    known.map_or(Some(Read), |endpoint| endpoint.scope)
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
