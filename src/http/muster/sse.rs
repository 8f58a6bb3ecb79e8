//! Server-sent events (`text/event-stream`, WHATWG HTML).
//!
//! A stream produces its next event when the client has taken the previous one, so a slow client causes no queue;
//! `serve` disconnects a client that reads nothing. Comments keep the connection alive through proxies.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt, stream};
use tokio::time::sleep;

use crate::http::{
    blocking_response::encoded_head,
    parking::{Frames, Parkable, Parked, ParkedStream},
    query::Query,
    server::credentials::Credentials,
};

/// Longest time without data. Proxies close idle connections after 60 s (nginx) or 50 s (HAProxy).
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// An item of a stream.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// An event.
    Event {
        /// Position that a reconnecting client sends if this was its last event; `None`: the position stays.
        id: Option<u64>,
        /// Kind of the event, one word.
        kind: &'static str,
        /// JSON on one line, shared by all clients.
        data: Bytes,
    },
    /// New position without an event: no event up to there matches the client's selection.
    Position(u64),
    /// Comment that keeps the connection alive.
    KeepAlive,
}

impl Message {
    fn frame(self) -> [Bytes; 3] {
        let whole = |text: Bytes| [text, Bytes::new(), Bytes::new()];
        match self {
            Self::Event { id, kind, data } => {
                let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
                [format!("{id}event: {kind}\ndata: ").into(), data, Bytes::from_static(b"\n\n")]
            }
            Self::Position(id) => whole(format!("id: {id}\n\n").into()),
            Self::KeepAlive => whole(Bytes::from_static(b":\n\n")),
        }
    }
}

/// Sends the messages as a stream until they end or the credentials are revoked. The stream parks if it can.
pub(crate) async fn respond(
    messages: impl Stream<Item = Message> + Send + 'static,
    credentials: Credentials,
    parkable: Option<Parkable>,
) -> Response {
    let messages = stream::unfold((Box::pin(messages), credentials), |(mut messages, credentials)| async move {
        let next = tokio::select! {
            next = messages.next() => next?,
            // Jitter, so that streams that started together do not wake together.
            () = sleep(KEEP_ALIVE.mul_f64(0.5 + fastrand::f64() / 2.0)) => Message::KeepAlive,
        };
        credentials.is_valid().then_some((next.frame(), (messages, credentials)))
    });
    let frames: Frames = Box::pin(messages);
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // nginx would buffer events.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    if let Some(parkable) = parkable {
        let (head, endpoint) = (encoded_head(headers), parkable.endpoint);
        match parkable.park(Parked::Stream(ParkedStream { head, frames, endpoint })).await {}
    }
    let parts = |frame: [Bytes; 3]| frame.into_iter().filter(|part| !part.is_empty()).map(Ok::<_, Infallible>);
    let body = Body::from_stream(frames.flat_map(move |frame| stream::iter(parts(frame))));
    (headers, body).into_response()
}

/// Returns the client's position: from the header of a reconnecting client, or from the query.
pub(crate) fn seen(headers: &HeaderMap, query: &Query, parameter: &str) -> Option<u64> {
    let header = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    header.or_else(|| query.text(parameter)).and_then(|text| text.trim().parse().ok())
}
