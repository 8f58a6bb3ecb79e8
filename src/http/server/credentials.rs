//! What a request shows of who sends it: a token, or that it came by a file of this host.

use axum::{
    extract::Request,
    http::{HeaderMap, Uri, header},
};
use tokio::sync::watch;

use crate::{
    http::query::Query,
    model::token::{Token, Tokens},
};

/// A request that came by the Unix socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByFile;

/// What is asked of those who come by TCP.
pub type Guard = Option<watch::Receiver<Tokens>>;

/// The token that a reader was let in with, for answers that go on for long; `None`: nobody was asked for one.
#[derive(Debug)]
pub(crate) struct Credentials(Option<(watch::Receiver<Tokens>, Option<Token>)>);

impl Credentials {
    pub(crate) fn new(guard: &Guard, request: &Request) -> Self {
        let tokens = guard.clone().filter(|_| request.extensions().get::<ByFile>().is_none());
        Self(tokens.map(|tokens| {
            let shown = shown(request.headers(), request.uri()).unwrap_or_default();
            let token = tokens.borrow().find(shown.as_bytes()).cloned();
            (tokens, token)
        }))
    }

    /// Whether that token is still good. What it allowed has not changed then, and every token lets read.
    pub(crate) fn is_good(&self) -> bool {
        let Some((tokens, token)) = &self.0 else { return true };
        token.as_ref().is_some_and(|token| tokens.borrow().has(token))
    }
}

/// The token that is shown.
pub(crate) fn shown(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let header = text("x-consul-token").filter(|token| !token.is_empty());
    let bearer = text(header::AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let query = || Query::parse(uri.query().unwrap_or_default()).text("token").map(str::to_owned);
    header.or(bearer).map(str::to_owned).or_else(query)
}
