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

use super::{permit::Pass, query::Query};

/// The longest silence. Proxies close what is silent for a minute (nginx) or for 50 s (HAProxy).
const SILENCE: Duration = Duration::from_secs(30);

/// One event.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// What a client that comes again has seen, if this was the last; `None`: what it had seen before.
    pub(super) id: Option<u64>,
    /// One word: what kind of event it is.
    pub(super) kind: &'static str,
    /// JSON on one line.
    pub(super) data: Bytes,
}

impl Event {
    /// As it is sent; its data is shared by all who get it.
    fn frames(self) -> [Bytes; 3] {
        let id = self.id.map_or_else(String::new, |id| format!("id: {id}\n"));
        [format!("{id}event: {}\ndata: ", self.kind).into(), self.data, Bytes::from_static(b"\n\n")]
    }
}

/// An answer that goes on while there are events, and while the client may have them.
pub(super) fn respond(events: impl Stream<Item = Event> + Send + 'static, pass: Pass) -> Response {
    let told = stream::unfold((Box::pin(events), pass), |(mut events, pass)| async move {
        let event = tokio::select! {
            event = events.next() => Some(event?),
            // Streams that began together do not wake together.
            () = sleep(SILENCE.mul_f64(0.5 + fastrand::f64() / 2.0)) => None,
        };
        pass.is_good().then_some((event, (events, pass)))
    });
    let frames = told.flat_map(|event| {
        let comment = event.is_none().then_some(Bytes::from_static(b":\n\n"));
        stream::iter(event.map(Event::frames).into_iter().flatten().chain(comment).map(Ok::<_, Infallible>))
    });
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // nginx would keep events until it has enough of them.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    (headers, Body::from_stream(frames)).into_response()
}

/// What the client has seen already: one that comes again says so in the header, one that begins in the query.
pub(super) fn seen(headers: &HeaderMap, query: &Query, parameter: &str) -> Option<u64> {
    let header = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    header.or_else(|| query.text(parameter)).and_then(|text| text.trim().parse().ok())
}
