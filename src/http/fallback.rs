//! Responses to requests that no endpoint takes.

use axum::http::{Method, StatusCode, Uri};

use super::{
    consul::unsupported,
    endpoints::{self, ENDPOINTS},
    response::ApiError,
};

/// Responds to an unknown path.
pub(super) async fn no_such_endpoint(uri: Uri) -> ApiError {
    if let Some(refusal) = unsupported::refusal(uri.path()) {
        return refusal;
    }
    // The last line stands for all streams.
    let listed = ENDPOINTS.iter().filter(|known| !known.path.starts_with("/v1/watch/"));
    let listed: String =
        listed.map(|known| format!("\n  {} {}: {}", known.method, known.path, known.summary)).collect();
    let listed = format!("{listed}\n  GET /v1/watch/PATH: Stream the result of GET /v1/PATH");
    ApiError(StatusCode::NOT_FOUND, format!("No such endpoint. This version of muster has:{listed}"))
}

/// Responds to a known path with another method. The router adds the header `Allow`.
pub(super) async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    let allowed = endpoints::methods_of(uri.path()).unwrap_or_else(|| "another method".to_owned());
    ApiError(StatusCode::METHOD_NOT_ALLOWED, format!("Method {method} is not allowed here; allowed: {allowed}."))
}
