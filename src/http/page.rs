//! The web page at `/ui`: its files, which are embedded in the program, and their response headers.
//!
//! The page is an unprivileged client of the API: it reads `/v1` and changes nothing. Names, tags and check output come from
//! services and are untrusted, so a [Content Security Policy](https://www.w3.org/TR/CSP3/) keeps the page from running or
//! loading anything but the files here. The files require no token; the API requests of the page do.

use std::hash::Hasher;

use axum::{
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use siphasher::sip::SipHasher13;

use super::response::ApiError;

/// An embedded file of the page.
struct File {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

macro_rules! file {
    ($name:literal, $content_type:literal) => {
        File { name: $name, content_type: $content_type, text: include_str!(concat!("page/", $name)) }
    };
}

/// The document.
const INDEX: File = file!("index.html", "text/html; charset=utf-8");

/// The files that the document loads, by their names below `/ui/`.
const FILES: &[File] = &[
    file!("page.css", "text/css; charset=utf-8"),
    file!("icon.svg", "image/svg+xml"),
    file!("main.js", "text/javascript; charset=utf-8"),
    file!("agent.js", "text/javascript; charset=utf-8"),
    file!("announce.js", "text/javascript; charset=utf-8"),
    file!("api.js", "text/javascript; charset=utf-8"),
    file!("banners.js", "text/javascript; charset=utf-8"),
    file!("dom.js", "text/javascript; charset=utf-8"),
    file!("events.js", "text/javascript; charset=utf-8"),
    file!("explain.js", "text/javascript; charset=utf-8"),
    file!("filter.js", "text/javascript; charset=utf-8"),
    file!("format.js", "text/javascript; charset=utf-8"),
    file!("nodes.js", "text/javascript; charset=utf-8"),
    file!("order.js", "text/javascript; charset=utf-8"),
    file!("overview.js", "text/javascript; charset=utf-8"),
    file!("pages.js", "text/javascript; charset=utf-8"),
    file!("poll.js", "text/javascript; charset=utf-8"),
    file!("rows.js", "text/javascript; charset=utf-8"),
    file!("services.js", "text/javascript; charset=utf-8"),
    file!("status.js", "text/javascript; charset=utf-8"),
    file!("store.js", "text/javascript; charset=utf-8"),
    file!("store_key.js", "text/javascript; charset=utf-8"),
    file!("store_keys.js", "text/javascript; charset=utf-8"),
    file!("store_names.js", "text/javascript; charset=utf-8"),
    file!("store_refusal.js", "text/javascript; charset=utf-8"),
    file!("store_sessions.js", "text/javascript; charset=utf-8"),
    file!("store_status.js", "text/javascript; charset=utf-8"),
    file!("store_value.js", "text/javascript; charset=utf-8"),
    file!("store_voters.js", "text/javascript; charset=utf-8"),
    file!("token.js", "text/javascript; charset=utf-8"),
];

/// Content Security Policy: only the page's own files and requests to its own server; no framing, no HTML parsed by scripts.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// Redirects `/` to the page, with the status and the location of Consul.
pub(super) async fn redirect_root() -> Response {
    (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, "/ui/")], REDIRECTED).into_response()
}

/// Text of a redirect, for people with a command-line client.
const REDIRECTED: &str = "The web UI is at /ui/. GET /v1/ lists the endpoints.\n";

/// Redirects `/ui` to the page. The location is relative, so it also works behind a proxy with a path prefix.
pub(super) async fn redirect() -> Response {
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "ui/")], REDIRECTED).into_response()
}

/// Responds with the document.
pub(super) async fn index(headers: HeaderMap) -> Response {
    respond(&INDEX, &headers)
}

/// Responds with one of the files that the document loads.
pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    let found = FILES.iter().find(|file| file.name == name);
    let refusal = || ApiError(StatusCode::NOT_FOUND, "The web UI has no such file. The web UI is at /ui/.".to_owned());
    found.map(|file| respond(file, &headers)).ok_or_else(refusal)
}

/// The file, or 304 if the browser has it already (RFC 9110 §13.1.2).
fn respond(file: &File, headers: &HeaderMap) -> Response {
    let etag = etag(file.text);
    let cached = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut cached = cached.flat_map(|value| value.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    let mut response = if cached.any(|tag| tag == etag || tag == "*") {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, file.content_type)], file.text).into_response()
    };
    let policies = [
        // Browsers revalidate on each load, because another version of the agent has other files.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    ];
    response.headers_mut().extend(policies);
    if let Ok(tag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// An entity tag: a hash of the content.
fn etag(text: &str) -> String {
    let mut hasher = SipHasher13::new();
    hasher.write(text.as_bytes());
    format!("\"{:016x}\"", hasher.finish())
}
