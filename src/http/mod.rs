//! The HTTP API: what the agent knows, for programs and for muster's own commands.
//!
//! Paths, methods and shapes are Consul's where it has them ([`crate::api`] holds the shapes). What is shown comes out of
//! a `watch`; what is to be done leaves as an [`Command`] for whoever does it, and its outcome comes back. So the API knows
//! no other adapter. [`server`](server::serve) bounds what a client can cost, `browser` keeps web pages of others out; [`page`] is our own.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::{DefaultBodyLimit, FromRequest, MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use tokio::{
    sync::{mpsc, watch::Receiver},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::{
    beyond::Beyond, blocking::BlockingQueries, command::Command, response::ApiError, server::credentials::Guard,
};
use crate::{
    metrics::{Http, Scrape},
    model::{
        name::{Label, Name},
        user_event::EventLog,
    },
    registry::registration::Host,
};

pub mod beyond;
pub mod blocking;
pub mod command;
pub mod consul;
mod endpoint;
mod endpoints;
mod meant;
pub mod muster;
mod openapi;
mod page;
mod parameter;
mod query;
mod response;
pub mod server;
#[cfg(test)]
mod tests;

/// Octets of a request's body: the largest one holds a key.
const MAX_BODY: usize = 64 * 1024;
/// How long a request may take in all, the reading of its body included: longer than any order's patience.
const REQUEST: Duration = Duration::from_secs(30);

/// What the endpoints show and use. Cloned for every request.
#[derive(Clone, Debug)]
pub struct Api {
    /// What stays as it is while the agent runs.
    pub agent: Arc<Agent>,
    /// User events that were meant for this node.
    pub events: Receiver<EventLog>,
    /// What is known of the cluster and its services, and who waits for news of it.
    pub hub: Arc<BlockingQueries>,
    /// Where orders are carried out.
    pub orders: mpsc::Sender<Command>,
    /// What is asked of those who come by TCP.
    pub guard: Guard,
    /// What the agent counts.
    pub scrape: Scrape,
    /// Where requests are counted.
    pub counted: Http,
    /// Set when the agent is about to end.
    pub stopping: CancellationToken,
    /// What decides about names that no node announces.
    pub beyond: Beyond,
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
    /// What the configuration says of the node.
    pub meta: BTreeMap<String, String>,
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
    let readings =
        if api.guard.is_some() { server::origin::ReadAccess::Guarded } else { server::origin::ReadAccess::Open };
    let hosts = server::origin::AllowedHosts::new(&api.agent, readings);
    let (guard, counted) = (api.guard.clone(), api.counted.clone());
    endpoints::routes()
        .fallback(consul::unsupported::no_such_endpoint)
        .method_not_allowed_fallback(consul::unsupported::no_such_method)
        .with_state(api)
        .layer(from_fn(with_body))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(guard, server::authorization::check))
        .layer(from_fn_with_state(Arc::new(hosts), server::origin::keep_out))
        .layer(from_fn(within_time))
        .layer(from_fn_with_state(counted, log))
}

/// Reads the body of an order before it is looked at: where an answer overtakes the body, the connection is closed, which a
/// client notices only when it sends its next order there. A body that says to be too long is not waited for;
/// `DefaultBodyLimit` counts those that do not say. Whoever turns a request away before has [`discard`]ed it.
async fn with_body(request: Request, next: Next) -> Response {
    if request.body().size_hint().lower() > MAX_BODY as u64 {
        let text = format!("A request's body has at most {MAX_BODY} octets.");
        return ApiError(StatusCode::PAYLOAD_TOO_LARGE, text).into_response();
    }
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    match Bytes::from_request(Request::from_parts(parts.clone(), body), &()).await {
        Ok(octets) => next.run(Request::from_parts(parts, octets.into())).await,
        Err(rejection) => ApiError(rejection.status(), rejection.body_text()).into_response(),
    }
}

/// Reads the body of a request that is turned away and keeps nothing of it: the connection stays good for the next one. What
/// is longer than a body may be is left unread.
async fn discard(mut body: Body) {
    let mut read = 0;
    while read <= MAX_BODY
        && let Some(Ok(frame)) = body.frame().await
    {
        read += frame.data_ref().map_or(0, Bytes::len);
    }
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
            ApiError(StatusCode::REQUEST_TIMEOUT, text).into_response()
        }
    }
}

/// The access log, and the count. Nothing that a client does is more than `debug`.
async fn log(State(counted): State<Http>, request: Request, next: Next) -> Response {
    let _under_way = counted.under_way();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let endpoint = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let endpoint = endpoints::pattern(endpoint);
    let started = Instant::now();
    let mut response = next.run(request).await;
    counted.answered(endpoint, response.status().as_u16());
    debug!(%method, path = ?uri.path(), status = response.status().as_u16(), took = ?started.elapsed(), "HTTP request");
    // What is answered is a state of the moment, and no cache between may keep it.
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
