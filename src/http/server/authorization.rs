//! Who may use which endpoint.
//!
//! Without tokens whoever reaches the API may: it is on loopback then, or the operator said `insecure`. With them every
//! request over TCP shows one that is good for the endpoint's scope, from loopback too. The Unix socket asks for none: its
//! file's mode says who may open it.

use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::debug;

use super::credentials::{ByFile, Credentials, Guard, shown};
use crate::http::{discard, endpoints::scope, response::ApiError};

pub(crate) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match refusal(&guard, &request) {
        Some(refusal) => {
            discard(request.into_body()).await;
            refusal.into_response()
        }
        None => {
            let pass = is_guarded_reading(&guard, &request).then(|| Credentials::new(&guard, &request));
            let response = next.run(request).await;
            // Some readings are waited for, and meanwhile a token may be withdrawn. An order is done by now, and says so.
            if pass.is_none_or(|pass| pass.is_good()) { response } else { withdrawn().into_response() }
        }
    }
}

fn is_guarded_reading(guard: &Guard, request: &Request) -> bool {
    let path = || request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let is_reading = matches!(*request.method(), Method::GET | Method::HEAD);
    guard.is_some() && is_reading && scope(request.method().as_str(), path()).is_some()
}

fn withdrawn() -> ApiError {
    ApiError(StatusCode::FORBIDDEN, "Permission denied: the token is not known here any more.".to_owned())
}

fn refusal(guard: &Guard, request: &Request) -> Option<ApiError> {
    let tokens = guard.as_ref().filter(|_| request.extensions().get::<ByFile>().is_none())?;
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let needed = scope(request.method().as_str(), path)?;
    let denied = |text: String| Some(ApiError(StatusCode::FORBIDDEN, format!("Permission denied: {text}")));
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
