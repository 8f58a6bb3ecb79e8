//! HTTP API of the agent: Consul's endpoints, muster's own endpoints and the web UI.
//!
//! Paths, methods and JSON follow Consul where Consul has them ([`crate::api`] defines the JSON). Reads come from
//! `watch` channels; mutations are [`Command`](crate::gossip::command::Command)s and registry requests, sent over
//! channels with a reply. The API therefore depends on no other adapter. [`endpoints`] is the table of all endpoints,
//! [`server`](server::serve) limits the resources of clients, `server::origin` rejects cross-origin requests, and
//! [`page`] is the web UI.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::{
    sync::watch::Receiver,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::{
    blocking::BlockingQueries, command::Commands, parking::Parkable, query::bad, response::ApiError,
    server::credentials::Guard,
};
use crate::{
    config::Advertise,
    metrics::{Http, Scrape},
    model::{
        consul_version::ConsulVersion,
        name::{Label, Name},
        report_texts::ReportTexts,
        user_event::EventLog,
    },
    registry::registration::Host,
};

mod authorization;
pub mod blocking;
mod blocking_response;
pub mod command;
pub mod consul;
mod endpoint;
mod endpoints;
mod fallback;
mod filter;
mod granted;
pub mod muster;
mod openapi;
mod openapi_parameters;
mod page;
mod parking;
mod query;
mod response;
pub mod server;
#[cfg(test)]
mod tests;
pub mod untrusted;
mod waiters;

/// Largest request body in octets, unless the endpoint has another limit.
const MAX_BODY_LEN: usize = 64 * 1024;
/// Time limit of a mutation, including its body, unless the endpoint has another limit; longer than the timeout of any command.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// State of all endpoints; cloned for every request.
#[derive(Clone, Debug)]
pub struct Api {
    /// Constants of this agent.
    pub agent: Arc<Agent>,
    /// User events for this node.
    pub events: Receiver<EventLog>,
    /// Current state and blocking queries.
    pub queries: Arc<BlockingQueries>,
    /// Newest texts of the TTL checks of this node.
    pub report_texts: Receiver<ReportTexts>,
    /// The tasks that carry out commands.
    pub commands: Commands,
    /// Tokens that TCP clients must present.
    pub guard: Guard,
    /// Source of the agent's metrics.
    pub scrape: Scrape,
    /// Counters of the API itself.
    pub metrics: Http,
    /// Cancelled when the agent starts to stop.
    pub stopping: CancellationToken,
    /// Sources of the zones.
    pub zones: muster::zones::Sources,
    /// Inputs of explanations.
    pub explain: muster::explain::Sources,
}

/// Constants of this agent.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Name of the node.
    pub node: Label,
    /// Datacenter of the node.
    pub datacenter: Label,
    /// Zone of this node, if it has one.
    pub zone: Option<Label>,
    /// Discovery zone.
    pub domain: Name,
    /// Metadata from the configuration.
    pub meta: BTreeMap<String, String>,
    /// Version of muster.
    pub version: &'static str,
    /// Version that programs for Consul see; `None`: the version of muster.
    pub consul_version: Option<ConsulVersion>,
    /// Addresses at which other hosts reach this node.
    pub advertise: Advertise,
    /// True if registered checks may connect to link-local addresses.
    pub allow_link_local: bool,
    /// True if registered checks may run commands.
    pub allow_exec: bool,
    /// Gossip address.
    pub gossip: SocketAddr,
    /// Bound addresses of the DNS servers; ports are never 0.
    pub dns: Vec<SocketAddr>,
    /// Bound addresses of this API.
    pub http: Vec<SocketAddr>,
}

impl Agent {
    /// Returns the version that programs for Consul see.
    fn reported_version(&self) -> &str {
        self.consul_version.as_ref().map_or(self.version, ConsulVersion::as_str)
    }

    /// Returns the address of the leader that programs for Consul see: every node answers for itself, so each is its own leader.
    fn leader_address(&self) -> String {
        self.gossip.to_string()
    }

    /// Returns the defaults for registrations on this node.
    fn host(&self) -> Host {
        Host {
            node: self.node.clone(),
            addresses: self.advertise.addresses().to_vec().into(),
            allow_link_local: self.allow_link_local,
            allow_exec: self.allow_exec,
        }
    }
}

fn router(api: Api) -> Router {
    let read_access =
        if api.guard.is_some() { server::origin::ReadAccess::Guarded } else { server::origin::ReadAccess::Open };
    let hosts = server::origin::AllowedHosts::new(&api.agent, read_access);
    let (guard, metrics) = (api.guard.clone(), api.metrics.clone());
    endpoints::routes()
        .fallback(fallback::no_such_endpoint)
        .method_not_allowed_fallback(fallback::no_such_method)
        .with_state(api)
        .layer(from_fn(read_body))
        // `read_body` has the limit of each endpoint.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(guard, authorization::authorize))
        .layer(from_fn_with_state(Arc::new(hosts), server::origin::check_origin))
        .layer(from_fn(limit_time))
        .layer(from_fn_with_state(metrics, log_request))
}

/// Reads the body of a mutation before the handler runs. A response sent before the body has arrived closes the
/// connection, and the client would notice only at its next request. Bodies with a too large Content-Length are refused
/// unread, except large ones: a program that still writes when the connection closes does not see the refusal. Guards that run
/// earlier [`discard`] the body themselves.
async fn read_body(request: Request, next: Next) -> Response {
    let limit = max_body(&request);
    let stated = request.body().size_hint().lower();
    if stated > limit as u64 {
        if limit > MAX_BODY_LEN {
            drain(request.into_body(), limit * 2).await;
        }
        return too_large(Some(stated), limit).into_response();
    }
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    match Limited::new(body, limit).collect().await {
        Ok(octets) => next.run(Request::from_parts(parts, octets.to_bytes().into())).await,
        Err(error) if error.is::<LengthLimitError>() => too_large(None, limit).into_response(),
        Err(error) => bad(&format!("Cannot read the request body: {error}")).into_response(),
    }
}

/// Returns the limit of the body of a request.
fn max_body(request: &Request) -> usize {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    endpoints::max_body(request.method().as_str(), route)
}

/// The refusal of a body that is larger than the limit of its endpoint. Programs know Consul's text for values of keys.
fn too_large(stated: Option<u64>, limit: usize) -> ApiError {
    let text = if limit == MAX_BODY_LEN {
        format!("Request body too large: the limit is {limit} octets.")
    } else {
        let stated = stated.map_or_else(String::new, |stated| format!("({stated} bytes)"));
        format!("Request body{stated} too large, max size: {limit} bytes.")
    };
    ApiError(StatusCode::PAYLOAD_TOO_LARGE, text)
}

/// Discards the body of a refused request, which keeps the connection usable. A body above the limit is left unread.
async fn discard(request: Request) {
    let limit = max_body(&request);
    drain(request.into_body(), limit).await;
}

/// Reads a body up to this number of octets.
async fn drain(mut body: Body, limit: usize) {
    let mut read = 0;
    while read <= limit
        && let Some(Ok(frame)) = body.frame().await
    {
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// Limits the time of mutations. Blocking queries may take longer, and reads have no body.
async fn limit_time(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let limit = endpoints::time_limit(request.method().as_str(), route);
    match timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let text = format!("Request timed out after {} s.", limit.as_secs());
            ApiError(StatusCode::REQUEST_TIMEOUT, text).into_response()
        }
    }
}

/// Logs and counts a request. The level is `debug`, because clients cause it.
async fn log_request(State(metrics): State<Http>, mut request: Request, next: Next) -> Response {
    let _in_flight = metrics.in_flight();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let endpoint = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let endpoint = endpoints::pattern(endpoint);
    if let Some(parkable) = request.extensions_mut().get_mut::<Parkable>() {
        parkable.endpoint = endpoint;
    }
    let started = Instant::now();
    let mut response = next.run(request).await;
    metrics.answered(endpoint, response.status().as_u16());
    debug!(%method, path = ?uri.path(), status = response.status().as_u16(), took = ?started.elapsed(), "HTTP request");
    common_headers(response.headers_mut());
    response
}

/// Adds the headers of all responses.
fn common_headers(headers: &mut HeaderMap) {
    // Responses show the current state and must not be cached.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}
