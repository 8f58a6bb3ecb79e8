//! Who may use which endpoint.
//!
//! Without tokens whoever reaches the API may: it is on loopback then, or the operator said `insecure`. With them every
//! request over TCP shows one that is good for the endpoint's scope, from loopback too. The Unix socket asks for none: its
//! file's mode says who may open it.

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::watch;
use tracing::debug;

use super::{answer::Refusal, discard, endpoints::scope, query::Query};
use crate::model::token::{Token, Tokens};

/// A request that came by the Unix socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByFile;

/// What is asked of those who come by TCP.
pub type Guard = Option<watch::Receiver<Tokens>>;

/// The token that a reader was let in with, for answers that go on for long; `None`: nobody was asked for one.
#[derive(Debug)]
pub(super) struct Pass(Option<(watch::Receiver<Tokens>, Option<Token>)>);

impl Pass {
    pub(super) fn new(guard: &Guard, request: &Request) -> Self {
        let tokens = guard.clone().filter(|_| request.extensions().get::<ByFile>().is_none());
        Self(tokens.map(|tokens| {
            let shown = shown(request.headers(), request.uri()).unwrap_or_default();
            let token = tokens.borrow().find(shown.as_bytes()).cloned();
            (tokens, token)
        }))
    }

    /// Whether that token is still good. What it allowed has not changed then, and every token lets read.
    pub(super) fn is_good(&self) -> bool {
        let Some((tokens, token)) = &self.0 else { return true };
        token.as_ref().is_some_and(|token| tokens.borrow().has(token))
    }
}

pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match refusal(&guard, &request) {
        Some(refusal) => {
            discard(request.into_body()).await;
            refusal.into_response()
        }
        None => next.run(request).await,
    }
}

fn refusal(guard: &Guard, request: &Request) -> Option<Refusal> {
    let tokens = guard.as_ref().filter(|_| request.extensions().get::<ByFile>().is_none())?;
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let needed = scope(request.method().as_str(), path)?;
    let denied = |text: String| Some(Refusal(StatusCode::FORBIDDEN, format!("Permission denied: {text}")));
    let Some(shown) = shown(request.headers(), request.uri()) else {
        return denied("show a token as X-Consul-Token, as Authorization: Bearer, or as ?token=.".to_owned());
    };
    let tokens = tokens.borrow();
    match tokens.find(shown.as_bytes()) {
        None => denied("the token is not known here.".to_owned()),
        Some(token) if token.scope < needed => {
            let (has, name) = (token.scope.as_str(), &token.name);
            denied(format!("this takes a token of the scope {}, and {name} has {has}.", needed.as_str()))
        }
        Some(token) => {
            debug!(token = %token.name, "HTTP request is permitted");
            None
        }
    }
}

fn shown(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let header = text("x-consul-token").filter(|token| !token.is_empty());
    let bearer = text(header::AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let query = || Query::parse(uri.query().unwrap_or_default()).text("token").map(str::to_owned);
    header.or(bearer).map(str::to_owned).or_else(query)
}
