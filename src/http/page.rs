//! The web page at `/ui`: its files, which are part of the program, and what a browser is told to make of them.
//!
//! The page is a client of the API like any other: it shows what `/v1` answers and gives no orders. What it shows comes from
//! services, whose names, tags and outputs anybody may have written, so it is kept from running or fetching anything but the
//! files here ([Content Security Policy](https://www.w3.org/TR/CSP3/)). The files need no token; what they ask for does.

use std::hash::Hasher;

use axum::{
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use siphasher::sip::SipHasher13;

use super::answer::Refusal;

/// A file of the page.
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

/// The page itself.
const INDEX: File = file!("index.html", "text/html; charset=utf-8");

/// What it is made of.
const FILES: &[File] = &[
    file!("page.css", "text/css; charset=utf-8"),
    file!("icon.svg", "image/svg+xml"),
    file!("main.js", "text/javascript; charset=utf-8"),
    file!("banners.js", "text/javascript; charset=utf-8"),
    file!("dom.js", "text/javascript; charset=utf-8"),
    file!("live.js", "text/javascript; charset=utf-8"),
    file!("words.js", "text/javascript; charset=utf-8"),
    file!("narrow.js", "text/javascript; charset=utf-8"),
    file!("news.js", "text/javascript; charset=utf-8"),
    file!("services.js", "text/javascript; charset=utf-8"),
    file!("explain.js", "text/javascript; charset=utf-8"),
    file!("nodes.js", "text/javascript; charset=utf-8"),
    file!("events.js", "text/javascript; charset=utf-8"),
    file!("agent.js", "text/javascript; charset=utf-8"),
    file!("token.js", "text/javascript; charset=utf-8"),
];

/// What the page may do: run and look like its own files, ask its own server. Nothing of it may be framed.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// From `/` and from `/ui`: relative, so that it is right behind a proxy with a path of its own.
pub(super) async fn elsewhere() -> Response {
    let text = "The page is at /ui/; the API is below /v1/, and GET /v1/ lists it.\n";
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "ui/")], text).into_response()
}

pub(super) async fn index(headers: HeaderMap) -> Response {
    show(&INDEX, &headers)
}

pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Refusal> {
    let found = FILES.iter().find(|file| file.name == name);
    let refusal = || Refusal(StatusCode::NOT_FOUND, "The page has no such file: it is at /ui/.".to_owned());
    found.map(|file| show(file, &headers)).ok_or_else(refusal)
}

/// The file, or that it is what the browser has already (RFC 9110 §13.1.2).
fn show(file: &File, headers: &HeaderMap) -> Response {
    let tag = tag(file.text);
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known = known.flat_map(|value| value.split(',')).map(|one| one.trim().trim_start_matches("W/"));
    let mut response = if known.any(|one| one == tag || one == "*") {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, file.content_type)], file.text).into_response()
    };
    let told = [
        // An agent may be replaced by another version: asked each time, and sent again only then.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    ];
    response.headers_mut().extend(told);
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Another text has another tag.
fn tag(text: &str) -> String {
    let mut hasher = SipHasher13::new();
    hasher.write(text.as_bytes());
    format!("\"{:016x}\"", hasher.finish())
}
