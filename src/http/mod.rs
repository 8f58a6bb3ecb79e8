//! The HTTP API: what the agent knows, for programs and for muster's own commands.
//!
//! Paths, methods and shapes are Consul's where it has them ([`crate::api`] holds the shapes). What is shown comes out of
//! a `watch`; what is to be done leaves as an [`Order`] for whoever does it, and its outcome comes back. So the API knows
//! no other adapter. [`serve`](serve::serve) bounds what a client can cost, `browser` keeps web pages out.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::HttpBody,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout},
};
use tracing::debug;

use self::{answer::Refusal, hub::Hub, order::Order, permit::Guard};
use crate::{
    model::{
        member::Membership,
        name::{Label, Name},
        token::Scope,
    },
    registry::registration::Host,
};

mod agent;
mod answer;
mod browser;
mod change;
mod explain;
mod filter;
pub mod hub;
mod keyring;
mod local;
pub mod order;
pub mod permit;
mod query;
mod read;
pub mod serve;
mod shape;
#[cfg(test)]
mod tests;

/// Octets of a request's body: the largest one holds a key.
const MAX_BODY: usize = 64 * 1024;
/// How long a request may take in all, the reading of its body included: longer than any order's patience.
const REQUEST: Duration = Duration::from_secs(30);

/// An endpoint. The router has the same.
struct Endpoint {
    /// Separated by `, `.
    methods: &'static str,
    /// As the router has it.
    path: &'static str,
    /// What a token has to allow; `None`: nobody is asked for one.
    scope: Option<Scope>,
}

impl Endpoint {
    const fn new(methods: &'static str, path: &'static str, scope: Scope) -> Self {
        Self { methods, path, scope: Some(scope) }
    }

    fn takes(&self, method: &str) -> bool {
        self.methods.split(", ").any(|taken| taken == method || (taken == "GET" && method == "HEAD"))
    }
}

/// What there is, and what it takes.
const ENDPOINTS: &[Endpoint] = &[
    Endpoint::new("GET", "/v1/agent/self", Scope::Read),
    Endpoint::new("GET", "/v1/agent/members", Scope::Read),
    Endpoint::new("GET", "/v1/agent/services", Scope::Read),
    Endpoint::new("GET", "/v1/agent/service/{id}", Scope::Read),
    Endpoint::new("GET", "/v1/agent/checks", Scope::Read),
    Endpoint::new("GET", "/v1/agent/health/service/id/{id}", Scope::Read),
    Endpoint::new("GET", "/v1/agent/health/service/name/{name}", Scope::Read),
    Endpoint::new("PUT", "/v1/agent/join/{address}", Scope::Operate),
    Endpoint::new("PUT", "/v1/agent/leave", Scope::Operate),
    Endpoint::new("PUT", "/v1/agent/reload", Scope::Operate),
    Endpoint::new("PUT", "/v1/agent/maintenance", Scope::Operate),
    Endpoint::new("PUT", "/v1/agent/service/register", Scope::Register),
    Endpoint::new("PUT", "/v1/agent/service/deregister/{id}", Scope::Register),
    Endpoint::new("PUT", "/v1/agent/service/maintenance/{id}", Scope::Register),
    Endpoint::new("PUT", "/v1/agent/check/register", Scope::Register),
    Endpoint::new("PUT", "/v1/agent/check/deregister/{id}", Scope::Register),
    Endpoint::new("PUT", "/v1/agent/check/pass/{id}", Scope::Register),
    Endpoint::new("PUT", "/v1/agent/check/warn/{id}", Scope::Register),
    Endpoint::new("PUT", "/v1/agent/check/fail/{id}", Scope::Register),
    Endpoint::new("PUT", "/v1/agent/check/update/{id}", Scope::Register),
    Endpoint::new("GET", "/v1/catalog/datacenters", Scope::Read),
    Endpoint::new("GET", "/v1/catalog/nodes", Scope::Read),
    Endpoint::new("GET", "/v1/catalog/node/{node}", Scope::Read),
    Endpoint::new("GET", "/v1/catalog/services", Scope::Read),
    Endpoint::new("GET", "/v1/catalog/service/{service}", Scope::Read),
    Endpoint::new("PUT", "/v1/catalog/register", Scope::Register),
    Endpoint::new("PUT", "/v1/catalog/deregister", Scope::Register),
    Endpoint::new("GET", "/v1/health/node/{node}", Scope::Read),
    Endpoint::new("GET", "/v1/health/checks/{service}", Scope::Read),
    Endpoint::new("GET", "/v1/health/service/{service}", Scope::Read),
    Endpoint::new("GET", "/v1/health/state/{state}", Scope::Read),
    Endpoint::new("GET", "/v1/internal/ui/services", Scope::Read),
    Endpoint::new("GET", "/v1/status/leader", Scope::Read),
    Endpoint::new("GET", "/v1/status/peers", Scope::Read),
    Endpoint::new("PUT", "/v1/muster/drain/{target}", Scope::Operate),
    Endpoint::new("GET", "/v1/muster/explain/{name}", Scope::Read),
    Endpoint::new("PUT", "/v1/muster/resume/{target}", Scope::Operate),
    Endpoint::new("GET, POST, PUT, DELETE", "/v1/operator/keyring", Scope::Operate),
];

/// What the endpoints show and use. Cloned for every request.
#[derive(Clone, Debug)]
pub struct Api {
    /// What stays as it is while the agent runs.
    pub agent: Arc<Agent>,
    /// The cluster.
    pub members: watch::Receiver<Arc<Membership>>,
    /// All services, and who waits for news of them.
    pub hub: Arc<Hub>,
    /// Where orders are carried out.
    pub orders: mpsc::Sender<Order>,
    /// What is asked of those who come by TCP.
    pub guard: Guard,
}

/// The facts about this agent.
#[derive(Clone, Debug)]
pub struct Agent {
    /// The node's name.
    pub node: Label,
    /// The name of its site.
    pub datacenter: Label,
    /// The discovery zone.
    pub domain: Name,
    /// Further zones with the same content.
    pub aliases: Vec<Name>,
    /// muster's version.
    pub version: &'static str,
    /// Where other hosts reach this one.
    pub advertise: Vec<IpAddr>,
    /// Where it gossips.
    pub gossip: SocketAddr,
    /// Where it answers DNS questions: as bound, so never with port 0.
    pub dns: Vec<SocketAddr>,
    /// Where this API is: as bound.
    pub http: Vec<SocketAddr>,
    /// Seconds: the TTL of answers whose service names none.
    pub ttl: u32,
}

impl Agent {
    /// The zones in which services have their names.
    fn zones(&self) -> Vec<Name> {
        std::iter::once(&self.domain).chain(&self.aliases).cloned().collect()
    }

    /// What registrations take from this node.
    fn host(&self) -> Host {
        Host { node: self.node.clone(), addresses: self.advertise.clone() }
    }
}

fn router(api: Api) -> Router {
    let hosts = browser::Hosts::new(&api.agent);
    let guard = api.guard.clone();
    Router::new()
        .route("/v1/agent/self", get(agent::myself))
        .route("/v1/agent/members", get(agent::members))
        .route("/v1/agent/join/{address}", put(agent::join))
        .route("/v1/agent/leave", put(agent::leave))
        .route("/v1/agent/services", get(local::services))
        .route("/v1/agent/service/{id}", get(local::service))
        .route("/v1/agent/checks", get(local::checks))
        .route("/v1/agent/health/service/id/{id}", get(local::health_by_id))
        .route("/v1/agent/health/service/name/{name}", get(local::health_by_name))
        .route("/v1/agent/reload", put(change::reload))
        .route("/v1/agent/maintenance", put(change::maintain_node))
        .route("/v1/agent/service/register", put(change::register))
        .route("/v1/agent/service/deregister/{id}", put(change::deregister))
        .route("/v1/agent/service/maintenance/{id}", put(change::maintain_service))
        .route("/v1/agent/check/register", put(change::register_check))
        .route("/v1/agent/check/deregister/{id}", put(change::deregister_check))
        .route("/v1/agent/check/pass/{id}", put(change::pass))
        .route("/v1/agent/check/warn/{id}", put(change::warn))
        .route("/v1/agent/check/fail/{id}", put(change::fail))
        .route("/v1/agent/check/update/{id}", put(change::update))
        .route("/v1/catalog/datacenters", get(read::catalog_datacenters))
        .route("/v1/catalog/nodes", get(read::catalog_nodes))
        .route("/v1/catalog/node/{node}", get(read::catalog_node))
        .route("/v1/catalog/services", get(read::catalog_services))
        .route("/v1/catalog/service/{service}", get(read::catalog_service))
        .route("/v1/catalog/register", put(change::catalog_register))
        .route("/v1/catalog/deregister", put(change::catalog_deregister))
        .route("/v1/health/node/{node}", get(read::health_node))
        .route("/v1/health/checks/{service}", get(read::health_checks))
        .route("/v1/health/service/{service}", get(read::health_service))
        .route("/v1/health/state/{state}", get(read::health_state))
        .route("/v1/internal/ui/services", get(read::ui_services))
        .route("/v1/status/leader", get(read::leader))
        .route("/v1/status/peers", get(read::peers))
        .route("/v1/muster/drain/{target}", put(change::drain))
        .route("/v1/muster/explain/{name}", get(explain::explain))
        .route("/v1/muster/resume/{target}", put(change::resume))
        .route(
            "/v1/operator/keyring",
            get(keyring::list).post(keyring::install).put(keyring::make_primary).delete(keyring::remove),
        )
        .fallback(no_such_endpoint)
        .method_not_allowed_fallback(no_such_method)
        .with_state(api)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn(within_size))
        .layer(from_fn_with_state(guard, permit::check))
        .layer(from_fn_with_state(Arc::new(hosts), browser::keep_out))
        .layer(from_fn(within_time))
        .layer(from_fn(log))
}

/// Parts of Consul's API that muster has not, and why.
const NOT_OFFERED: &[(&str, &str)] = &[
    ("/v1/kv/", "muster has no key-value store: nodes agree on nothing but who is there"),
    ("/v1/session/", "muster has no sessions and no locks: they need servers that agree"),
    ("/v1/txn", "muster has no transactions: they need servers that agree"),
    ("/v1/acl/", "muster has no ACLs"),
    ("/v1/connect/", "muster has no service mesh"),
    ("/v1/agent/connect/", "muster has no service mesh"),
    ("/v1/health/connect/", "muster has no service mesh: ask /v1/health/service/{service}"),
    ("/v1/health/ingress/", "muster has no gateways: ask /v1/health/service/{service}"),
    ("/v1/catalog/connect/", "muster has no service mesh: ask /v1/catalog/service/{service}"),
    ("/v1/config", "muster has no configuration entries: services are configured by their files"),
    ("/v1/query", "muster has no prepared queries: ask for the service, or for a tag of it"),
    ("/v1/snapshot", "muster has no state of its own to be saved: files and data_dir are all there is"),
    ("/v1/operator/raft/", "muster has no Raft and no servers"),
    ("/v1/operator/autopilot/", "muster has no servers"),
    ("/v1/coordinate/", "muster has no network coordinates: near= puts the node itself and its datacenter first"),
    ("/v1/peering", "muster has no peerings: nodes of one cluster may have different datacenters"),
];

async fn no_such_endpoint(uri: Uri) -> Refusal {
    if let Some((_, why)) = NOT_OFFERED.iter().find(|(prefix, _)| uri.path().starts_with(prefix)) {
        return Refusal(StatusCode::NOT_FOUND, format!("{why}."));
    }
    let there: String =
        ENDPOINTS.iter().map(|Endpoint { methods, path, .. }| format!("\n  {methods} {path}")).collect();
    Refusal(StatusCode::NOT_FOUND, format!("There is nothing here. This version of muster has:{there}"))
}

/// The router adds the header `Allow`.
async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    let is = |pattern: &str| {
        let (mut parts, mut path) = (pattern.split('/'), uri.path().split('/'));
        parts.by_ref().zip(path.by_ref()).all(|(part, found)| part == found || part.starts_with('{'))
            && parts.next().is_none()
            && path.next().is_none()
    };
    let mut fitting: Vec<_> = ENDPOINTS.iter().filter(|endpoint| is(endpoint.path)).collect();
    // As the router has it: a word goes before a place for any.
    fitting.sort_by_key(|endpoint| endpoint.path.contains('{'));
    let allowed = fitting.first().map_or("another method", |endpoint| endpoint.methods);
    Refusal(StatusCode::METHOD_NOT_ALLOWED, format!("This endpoint does not take {method}; it takes {allowed}."))
}

/// A body that says to be too long is not waited for. `DefaultBodyLimit` counts those that do not say.
async fn within_size(request: Request, next: Next) -> Response {
    if request.body().size_hint().lower() > MAX_BODY as u64 {
        let text = format!("A request's body has at most {MAX_BODY} octets.");
        return Refusal(StatusCode::PAYLOAD_TOO_LARGE, text).into_response();
    }
    next.run(request).await
}

/// Blocking queries take their time, and a reading takes no body: it is orders that have to end.
async fn within_time(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    match timeout(REQUEST, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let text = format!("The request was not complete within {REQUEST:?}.");
            Refusal(StatusCode::REQUEST_TIMEOUT, text).into_response()
        }
    }
}

/// The access log. Nothing that a client does is more than `debug`.
async fn log(request: Request, next: Next) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let started = Instant::now();
    let mut response = next.run(request).await;
    debug!(%method, path = ?uri.path(), status = response.status().as_u16(), took = ?started.elapsed(), "HTTP request");
    // What is answered is a state of the moment, and no cache between may keep it.
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
