//! Response bodies: JSON as Consul formats it, and errors as text.

use axum::{
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
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
