//! `/v1/watch/…`: the state of an endpoint as a stream, at the start and after each change.
//!
//! A stream is a blocking query that the agent repeats on the endpoint's own handler. Stream and endpoint therefore
//! always agree, take the same parameters and share cached responses.

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

use super::sse::{self, Message};
use crate::http::{
    Api, blocking::BlockingQueries, blocking_response::INDEX, parking::Parkable, query::Query, response::ApiError,
    server::credentials::Credentials,
};

/// Path prefix of streams, in place of `/v1/`.
const PREFIX: &str = "/v1/watch/";
/// Parameters that the stream sets itself or drops: each state is one line, and the token was already checked.
const STREAM_PARAMETERS: [&str; 4] = ["index", "wait", "pretty", "token"];
/// Shortest interval between states: at most 20 per second, each current.
const PAUSE: Duration = Duration::from_millis(50);

/// Returns the streaming route of a handler.
pub(crate) fn watch<T: 'static>(handler: impl Handler<T, Api>) -> MethodRouter<Api> {
    get(move |State(api): State<Api>, request: Request| begin(handler, api, request))
}

async fn begin<T: 'static>(handler: impl Handler<T, Api>, api: Api, request: Request) -> Response {
    let credentials = Credentials::new(&api.guard, &request);
    let (mut parts, _) = request.into_parts();
    let (path, query) = (parts.uri.path().replacen(PREFIX, "/v1/", 1), parts.uri.query().unwrap_or_default());
    let seen = sse::seen(&parts.headers, &Query::parse(query), "index");
    let is_stream_parameter = |pair: &str| STREAM_PARAMETERS.contains(&pair.split('=').next().unwrap_or_default());
    let rest: String =
        query.split('&').filter(|pair| !is_stream_parameter(pair)).map(|pair| format!("&{pair}")).collect();
    let queries = api.queries.clone();
    // Do not keep tokens in memory for the duration of a stream.
    (parts.uri, parts.headers) = (Uri::default(), HeaderMap::new());
    // A stream needs its connection while it waits.
    parts.extensions.remove::<Parkable>();
    let request = move |seen: u64| -> ResponseFuture {
        // The first value of a parameter counts.
        let uri: Uri = match format!("{path}?index={seen}&wait=10m{rest}").parse() {
            Ok(uri) => uri,
            Err(_) => {
                let text = "Path and parameters are too long for a stream.".to_owned();
                return Box::pin(ready(ApiError(StatusCode::URI_TOO_LONG, text).into_response()));
            }
        };
        let mut parts = parts.clone();
        parts.uri = uri;
        Box::pin(handler.clone().call(Request::from_parts(parts, Body::empty()), api.clone()))
    };
    // Index 0 does not block. Errors in the request are answered before the stream starts.
    let first = request(0).await;
    if !first.status().is_success() {
        return first;
    }
    let states = StateStream { queries, request: Box::new(request), next: Some(first), seen, last: Bytes::new() };
    let states = stream::unfold(states, |mut states| async move { Some((states.next().await?, states)) });
    sse::respond(states, credentials)
}

type ResponseFuture = Pin<Box<dyn Future<Output = Response> + Send>>;

/// State of a stream.
struct StateStream {
    queries: Arc<BlockingQueries>,
    /// Requests the endpoint's state after an index.
    request: Box<dyn Fn(u64) -> ResponseFuture + Send>,
    /// Response that is already available.
    next: Option<Response>,
    /// Index of the last response; `None`: the client has seen none.
    seen: Option<u64>,
    /// Body of the last state sent by this stream.
    last: Bytes,
}

impl StateStream {
    async fn next(&mut self) -> Option<Message> {
        loop {
            let answer = match self.next.take() {
                Some(answer) => answer,
                None => {
                    sleep(PAUSE).await;
                    (self.request)(self.seen.unwrap_or(0)).await
                }
            };
            // At shutdown the query returns without a change.
            if self.queries.is_shutting_down() {
                return None;
            }
            let (head, body) = answer.into_parts();
            // An error has no index. It ends the stream, and the reconnecting client receives the error.
            let index = head.headers.get(INDEX)?.to_str().ok()?.parse().ok()?;
            let text = to_bytes(body, usize::MAX).await.ok()?;
            let is_new = self.seen.replace(index) != Some(index) && text != self.last;
            if is_new {
                self.last = text.clone();
                return Some(Message::Event { id: Some(index), kind: "state", data: text });
            }
        }
    }
}
