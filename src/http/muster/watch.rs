//! `/v1/watch/…`: the state of an endpoint as a stream, at the start and after each change.
//!
//! A stream is a blocking query that the agent repeats on the endpoint's own handler, or on the cache of its responses.
//! Stream and endpoint therefore always agree, take the same parameters and share cached responses.

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
use tokio::time::{Instant, sleep, sleep_until};

use super::sse::{self, Message};
use crate::http::{
    Api,
    blocking::{BlockingQueries, Source},
    blocking_response::INDEX,
    parking::{Parkable, WATCH},
    query::{Query, SourceSlot},
    response::ApiError,
    server::credentials::Credentials,
};

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
    let (path, query) = (parts.uri.path().replacen(WATCH, "/v1/", 1), parts.uri.query().unwrap_or_default());
    let seen = sse::seen(&parts.headers, &Query::parse(query), "index");
    let is_stream_parameter = |pair: &str| STREAM_PARAMETERS.contains(&pair.split('=').next().unwrap_or_default());
    let rest: String =
        query.split('&').filter(|pair| !is_stream_parameter(pair)).map(|pair| format!("&{pair}")).collect();
    let queries = api.queries.clone();
    // Do not keep tokens in memory for the duration of a stream.
    (parts.uri, parts.headers) = (Uri::default(), HeaderMap::new());
    // The stream parks, not its requests.
    let parkable = parts.extensions.remove::<Parkable>();
    let source = SourceSlot::default();
    parts.extensions.insert(source.clone());
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
    let source = source.0.get().cloned();
    let sent = Instant::now();
    let states =
        StateStream { queries, source, request: Box::new(request), first: Some(first), seen, sent, last: Bytes::new() };
    let states = stream::unfold(states, |mut states| async move { Some((states.next().await?, states)) });
    sse::respond(states, credentials, parkable).await
}

type ResponseFuture = Pin<Box<dyn Future<Output = Response> + Send>>;

/// State of a stream.
struct StateStream {
    queries: Arc<BlockingQueries>,
    /// Source of the endpoint's responses; `None`: the endpoint has none.
    source: Option<Source>,
    /// Requests the endpoint's state after an index.
    request: Box<dyn Fn(u64) -> ResponseFuture + Send>,
    /// First response, which is already available.
    first: Option<Response>,
    /// Index of the last response; `None`: the client has seen none.
    seen: Option<u64>,
    /// Time of the last state.
    sent: Instant,
    /// Body of the last state sent by this stream.
    last: Bytes,
}

impl StateStream {
    async fn next(&mut self) -> Option<Message> {
        loop {
            let state = match self.first.take() {
                Some(first) => contents(first).await,
                None => self.after(self.seen.unwrap_or(0)).await,
            };
            // At shutdown the query returns without a change.
            if self.queries.is_shutting_down() {
                return None;
            }
            let (index, text) = state?;
            let is_new = self.seen.replace(index) != Some(index) && text != self.last;
            if is_new {
                (self.last, self.sent) = (text.clone(), Instant::now());
                return Some(Message::Event { id: Some(index), kind: "state", data: text });
            }
        }
    }

    /// Waits for the state after an index: from the cache, or from the endpoint.
    async fn after(&mut self, seen: u64) -> Option<(u64, Bytes)> {
        let Some(source) = &self.source else {
            sleep(PAUSE).await;
            return contents((self.request)(seen).await).await;
        };
        self.queries.wait_for_change_of(&source.topic, seen).await;
        if self.sent.elapsed() < PAUSE {
            sleep_until(self.sent + PAUSE).await;
        }
        match self.queries.shared(source) {
            Some(shared) => Some((shared.index, shared.body)),
            // On the heap while it is needed: most streams wait.
            None => Box::pin(contents((self.request)(seen).await)).await,
        }
    }
}

/// Returns the index and the body of a response; `None`: an error, which has no index. It ends the stream, and the
/// reconnecting client receives the error.
async fn contents(response: Response) -> Option<(u64, Bytes)> {
    let (head, body) = response.into_parts();
    let index = head.headers.get(INDEX)?.to_str().ok()?.parse().ok()?;
    Some((index, to_bytes(body, usize::MAX).await.ok()?))
}
