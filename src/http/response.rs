//! Response bodies: JSON as Consul formats it, and errors as text.

use std::io;

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

/// Error response: the status, and as text what failed and what to do. Consul also sends errors as text.
#[derive(Debug)]
pub(super) struct ApiError(pub(super) StatusCode, pub(super) String);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self(status, text) = self;
        (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{text}\n")).into_response()
    }
}

/// Returns a JSON response, indented as in Consul if the query has `pretty`.
pub(super) fn json(uri: &Uri, value: &impl Serialize) -> Response {
    match text_of(uri, value) {
        Ok(text) => ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response(),
        Err(error) => error.into_response(),
    }
}

/// Octets of values from which an array is sent in parts, and of the text of a part: a client that is slow to read a large
/// answer keeps one part in memory, and no task is busy with a whole one.
const PART: usize = 64 << 10;

/// Returns an array as [`json`] does. One of values with more than [`PART`] octets is not held in memory as text.
pub(super) fn json_array<T: Serialize>(
    uri: &Uri,
    values: impl Iterator<Item = T> + Send + 'static,
    octets: usize,
) -> Response {
    if octets <= PART || is_pretty(uri) {
        return json(uri, &values.collect::<Vec<_>>());
    }
    let parts = stream::try_unfold((values.fuse(), "["), |(mut values, mut before)| async move {
        let mut text = Vec::new();
        for value in values.by_ref() {
            text.extend_from_slice(before.as_bytes());
            serde_json::to_writer(&mut text, &value)?;
            before = ",";
            if text.len() >= PART {
                return Ok(Some((Bytes::from(text), (values, before))));
            }
        }
        if before.is_empty() {
            return Ok::<_, io::Error>(None);
        }
        text.extend_from_slice(if before == "[" { b"[]" } else { b"]" });
        Ok(Some((Bytes::from(text), (values, ""))))
    });
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (content_type, Body::from_stream(parts)).into_response()
}

/// Serializes a value for [`json`].
pub(super) fn text_of(uri: &Uri, value: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    let mut text = Vec::new();
    let written = if is_pretty(uri) {
        let formatter = PrettyFormatter::with_indent(b"    ");
        let written = value.serialize(&mut Serializer::with_formatter(&mut text, formatter));
        text.push(b'\n');
        written
    } else {
        serde_json::to_writer(&mut text, value)
    };
    written
        .map(|()| text)
        .map_err(|error| ApiError(StatusCode::INTERNAL_SERVER_ERROR, format!("Cannot serialize the response: {error}")))
}

fn is_pretty(uri: &Uri) -> bool {
    let mut keys = uri.query().unwrap_or_default().split('&').map(|pair| pair.split('=').next());
    keys.any(|key| key == Some("pretty"))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn arrays_are_the_same_whole_and_in_parts() {
        for len in [0, 1, PART / 2, 3 * PART] {
            let values: Vec<String> = (0..3).map(|at| at.to_string().repeat(len)).collect();
            let expected = serde_json::to_vec(&values).unwrap();
            for octets in [0, PART + 1] {
                let body = json_array(&Uri::from_static("/"), values.clone().into_iter(), octets).into_body();
                assert_eq!(body.collect().await.unwrap().to_bytes(), expected, "{len} {octets}");
            }
        }
        let body = json_array(&Uri::from_static("/"), std::iter::empty::<u8>(), PART + 1).into_body();
        assert_eq!(body.collect().await.unwrap().to_bytes(), "[]");
    }
}
