//! Streams of events, as browsers read them: `text/event-stream` (WHATWG HTML, "Server-sent events").
//!
//! A stream makes its next event when its client has taken the one before, so that nothing piles up for one that is slow;
//! `serve` gives up one that takes nothing. A comment now and then shows everybody between the two that it is in use.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt, stream};
use tokio::time::sleep;

use crate::http::{query::Query, server::credentials::Credentials};

/// The longest silence. Proxies close what is silent for a minute (nginx) or for 50 s (HAProxy).
const SILENCE: Duration = Duration::from_secs(30);

/// What a stream says.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// An event.
    Event {
        /// What a client that comes again has seen, if this was the last; `None`: what it had seen before.
        id: Option<u64>,
        /// One word: what kind of event it is.
        kind: &'static str,
        /// JSON on one line. It is shared by all who get it.
        data: Bytes,
    },
    /// What the client has seen, although none of it was for it.
    Seen(u64),
    /// Nothing: the stream is in use.
    Silence,
}

impl Told {
    fn frames(self) -> impl Iterator<Item = Bytes> {
        let frames = match self {
            Self::Event { id, kind, data } => {
                let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
                [format!("{id}event: {kind}\ndata: ").into(), data, Bytes::from_static(b"\n\n")]
            }
            Self::Seen(id) => [format!("id: {id}\n\n").into(), Bytes::new(), Bytes::new()],
            Self::Silence => [Bytes::from_static(b":\n\n"), Bytes::new(), Bytes::new()],
        };
        frames.into_iter().filter(|frame| !frame.is_empty())
    }
}

/// An answer that goes on while there is something to tell, and while the client may hear it.
pub(crate) fn respond(told: impl Stream<Item = Told> + Send + 'static, pass: Credentials) -> Response {
    let told = stream::unfold((Box::pin(told), pass), |(mut told, pass)| async move {
        let next = tokio::select! {
            next = told.next() => next?,
            // Streams that began together do not wake together.
            () = sleep(SILENCE.mul_f64(0.5 + fastrand::f64() / 2.0)) => Told::Silence,
        };
        pass.is_good().then_some((next, (told, pass)))
    });
    let frames = told.flat_map(|told| stream::iter(told.frames().map(Ok::<_, Infallible>)));
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // nginx would keep events until it has enough of them.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    (headers, Body::from_stream(frames)).into_response()
}

/// What the client has seen already: one that comes again says so in the header, one that begins in the query.
pub(crate) fn seen(headers: &HeaderMap, query: &Query, parameter: &str) -> Option<u64> {
    let header = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    header.or_else(|| query.text(parameter)).and_then(|text| text.trim().parse().ok())
}
