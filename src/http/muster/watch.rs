//! `/v1/watch/…`: what an endpoint shows, at once and again whenever that changes, as a stream.
//!
//! A stream is a blocking query that the agent asks itself again and again, of the endpoint's own handler. So the two never
//! say different things; they take the same parameters, and share what is written.

use std::{future::ready, pin::Pin, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    handler::Handler,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use futures_util::stream;
use tokio::time::sleep;

use super::sse::{self, Told};
use crate::http::{
    Api, blocking::BlockingQueries, consul::catalog::INDEX, query::Query, response::ApiError,
    server::credentials::Credentials,
};

/// What stands before an endpoint's path in place of `/v1/`.
const PREFIX: &str = "/v1/watch/";
/// What a stream says to the endpoint itself, or not at all: every state is one line, and the token has been seen.
const OWN: [&str; 4] = ["index", "wait", "pretty", "token"];
/// From one state to the next, at least: what changes all the time is shown twenty times a second, as it is then.
const PAUSE: Duration = Duration::from_millis(50);

/// The stream of what a handler answers.
pub(crate) fn watch<T: 'static>(handler: impl Handler<T, Api>) -> MethodRouter<Api> {
    get(move |State(api): State<Api>, request: Request| begin(handler, api, request))
}

async fn begin<T: 'static>(handler: impl Handler<T, Api>, api: Api, request: Request) -> Response {
    let pass = Credentials::new(&api.guard, &request);
    let (mut parts, _) = request.into_parts();
    let (path, query) = (parts.uri.path().replacen(PREFIX, "/v1/", 1), parts.uri.query().unwrap_or_default());
    let seen = sse::seen(&parts.headers, &Query::parse(query), "index");
    let is_own = |pair: &str| OWN.contains(&pair.split('=').next().unwrap_or_default());
    let rest: String = query.split('&').filter(|pair| !is_own(pair)).map(|pair| format!("&{pair}")).collect();
    let hub = api.hub.clone();
    // No token is kept in memory for as long as a stream lasts.
    (parts.uri, parts.headers) = (Uri::default(), HeaderMap::new());
    let ask = move |seen: u64| -> Asked {
        // Ours stand first, so that they are the ones that count.
        let uri: Uri = match format!("{path}?index={seen}&wait=10m{rest}").parse() {
            Ok(uri) => uri,
            Err(_) => {
                let text = "The path and its parameters are too long for a stream.".to_owned();
                return Box::pin(ready(ApiError(StatusCode::URI_TOO_LONG, text).into_response()));
            }
        };
        let mut again = parts.clone();
        again.uri = uri;
        Box::pin(handler.clone().call(Request::from_parts(again, Body::empty()), api.clone()))
    };
    // Index 0 waits for nothing. What is wrong with the question is said before there is a stream.
    let first = ask(0).await;
    if !first.status().is_success() {
        return first;
    }
    let watching = Watching { hub, ask: Box::new(ask), next: Some(first), seen, shown: Bytes::new() };
    let states = stream::unfold(watching, |mut watching| async move { Some((watching.next().await?, watching)) });
    sse::respond(states, pass)
}

type Asked = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Where a stream stands.
struct Watching {
    hub: Arc<BlockingQueries>,
    /// Asks the endpoint for what comes after an index.
    ask: Box<dyn Fn(u64) -> Asked + Send>,
    /// An answer that is there already.
    next: Option<Response>,
    /// The index of the last answer; `None`: the client has seen nothing.
    seen: Option<u64>,
    /// What that answer was, if it is this stream that has shown it.
    shown: Bytes,
}

impl Watching {
    async fn next(&mut self) -> Option<Told> {
        loop {
            let answer = match self.next.take() {
                Some(answer) => answer,
                None => {
                    sleep(PAUSE).await;
                    (self.ask)(self.seen.unwrap_or(0)).await
                }
            };
            // Nobody is kept waiting at a stop: nothing has changed then.
            if self.hub.is_over() {
                return None;
            }
            let (head, body) = answer.into_parts();
            // A refusal has none; a client that comes again is told why.
            let index = head.headers.get(INDEX)?.to_str().ok()?.parse().ok()?;
            let text = to_bytes(body, usize::MAX).await.ok()?;
            let is_news = self.seen.replace(index) != Some(index) && text != self.shown;
            if is_news {
                self.shown = text.clone();
                return Some(Told::Event { id: Some(index), kind: "state", data: text });
            }
        }
    }
}
