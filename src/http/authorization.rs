//! Authorization: which token may use which endpoint.
//!
//! Without tokens, every client that reaches the API has access: the API listens on loopback, or the operator set
//! `insecure`. With tokens, every TCP request needs one with the permission that the endpoint requires, also from loopback. The Unix socket
//! needs none: its file mode restricts access.

use axum::{
    extract::{MatchedPath, Request, State},
    http::Method,
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::debug;

use super::{
    discard,
    endpoints::required,
    granted::{Granted, denied},
    parking::{Access, Parkable},
    response::ApiError,
    server::credentials::{Credentials, Guard, OverUnixSocket, presented},
};

pub(crate) async fn authorize(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    match granted(&guard, &request) {
        Err(refusal) => {
            discard(request).await;
            refusal.into_response()
        }
        Ok(granted) => {
            request.extensions_mut().insert(granted);
            let credentials = is_guarded_read(&guard, &request).then(|| Credentials::new(&guard, &request));
            if let (Some(parkable), Some(credentials)) = (request.extensions_mut().get_mut::<Parkable>(), &credentials)
            {
                let credentials = credentials.clone();
                parkable.access = Access::while_valid(move || credentials.is_valid());
            }
            let response = next.run(request).await;
            // A token may be revoked while a blocking query waits. A mutation is already done, and its response reports
            // so.
            if credentials.is_none_or(|credentials| credentials.is_valid()) {
                response
            } else {
                revoked().into_response()
            }
        }
    }
}

fn is_guarded_read(guard: &Guard, request: &Request) -> bool {
    let path = || request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    guard.is_some() && is_read && required(request.method().as_str(), path()).is_some()
}

fn revoked() -> ApiError {
    denied("the token was revoked.")
}

/// Returns the permissions of the request.
fn granted(guard: &Guard, request: &Request) -> Result<Granted, ApiError> {
    let tokens = guard.as_ref().filter(|_| request.extensions().get::<OverUnixSocket>().is_none());
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let Some((tokens, required)) = tokens.zip(required(request.method().as_str(), path)) else {
        return Ok(Granted::EVERYTHING);
    };
    let Some(presented) = presented(request.headers(), request.uri()) else {
        return Err(denied("send a token as X-Consul-Token, Authorization: Bearer or ?token=."));
    };
    let tokens = tokens.borrow();
    match tokens.find(presented.as_bytes()) {
        None => Err(denied("unknown token.")),
        Some(token) if !token.permissions.meet(required) => {
            let has = token.permissions.scope.map_or("no scope".to_owned(), |has| format!("scope {}", has.as_str()));
            Err(denied(&format!("{required} is required; token {} has {has}.", token.name)))
        }
        Some(token) => {
            debug!(token = %token.name, "HTTP request authorized");
            Ok(Granted::to(token.permissions.clone()))
        }
    }
}
