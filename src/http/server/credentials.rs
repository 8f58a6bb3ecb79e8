//! Credentials of a request: its token, or access over the Unix socket.

use axum::{
    extract::Request,
    http::{HeaderMap, Uri, header},
};
use tokio::sync::watch;

use crate::{
    http::query::Query,
    model::token::{Token, Tokens},
};

/// Marks a request over the Unix socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverUnixSocket;

/// Tokens that TCP requests must present; `None`: no token is needed.
pub type Guard = Option<watch::Receiver<Tokens>>;

/// Token of a long-lived response, to end the response when the token is revoked; `None`: no token was needed.
#[derive(Clone, Debug)]
pub(crate) struct Credentials(Option<(watch::Receiver<Tokens>, Option<Token>)>);

impl Credentials {
    pub(crate) fn new(guard: &Guard, request: &Request) -> Self {
        let tokens = guard.clone().filter(|_| request.extensions().get::<OverUnixSocket>().is_none());
        Self(tokens.map(|tokens| {
            let presented = presented(request.headers(), request.uri()).unwrap_or_default();
            let token = tokens.borrow().find(presented.as_bytes()).cloned();
            (tokens, token)
        }))
    }

    /// Reports whether the token is still valid. A valid token's permissions are unchanged.
    pub(crate) fn is_valid(&self) -> bool {
        let Some((tokens, token)) = &self.0 else { return true };
        token.as_ref().is_some_and(|token| tokens.borrow().has(token))
    }
}

/// Returns the token of a request.
pub(crate) fn presented(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let header = text("x-consul-token").filter(|token| !token.is_empty());
    let bearer = text(header::AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let query = || Query::parse(uri.query().unwrap_or_default()).text("token").map(str::to_owned);
    header.or(bearer).map(str::to_owned).or_else(query)
}
