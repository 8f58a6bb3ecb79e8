//! The HTTP API: what the agent knows, for programs and for muster's own commands.
//!
//! Paths, methods and shapes are Consul's where it has them ([`crate::api`] holds the shapes). What is shown comes out of
//! a `watch`; what is to be done leaves as an [`Order`] for whoever does it, and its outcome comes back. So the API knows
//! no other adapter. [`serve`](serve::serve) bounds what a client can cost, `browser` keeps web pages of others out; [`page`] is our own.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::HttpBody,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
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
    },
    registry::registration::Host,
};

mod agent;
mod answer;
mod browser;
mod change;
mod endpoints;
mod explain;
mod filter;
pub mod hub;
mod keyring;
mod local;
pub mod order;
mod page;
pub mod permit;
mod query;
mod read;
mod refused;
pub mod serve;
mod shape;
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
    let readings = if api.guard.is_some() { browser::Readings::Guarded } else { browser::Readings::Open };
    let hosts = browser::Hosts::new(&api.agent, readings);
    let guard = api.guard.clone();
    endpoints::routes()
        .fallback(refused::no_such_endpoint)
        .method_not_allowed_fallback(refused::no_such_method)
        .with_state(api)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn(within_size))
        .layer(from_fn_with_state(guard, permit::check))
        .layer(from_fn_with_state(Arc::new(hosts), browser::keep_out))
        .layer(from_fn(within_time))
        .layer(from_fn(log))
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
