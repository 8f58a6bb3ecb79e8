//! Rejects cross-origin requests of web pages.
//!
//! A web page in a local browser can send requests to 127.0.0.1. It cannot read the responses, because they do not
//! permit other origins (CORS), but a mutation would still be applied. Such requests are recognised by two properties:
//!
//! - Browsers send `Origin` with every request other than a simple read; other programs do not send it.
//! - With DNS rebinding, `evil.example` resolves to 127.0.0.1. The browser then treats the agent as the page's own server
//!   and lets the page read. The request has `Host: evil.example`. An attacker cannot rebind an IP address, `localhost` or
//!   the node's name.
//!
//! Reads are checked where a page could gain access: on a loopback address (which the page reaches through the
//! browser), without tokens (which the page lacks) and without TLS (no certificate is valid for `evil.example`). On
//! other addresses, operators use names for the agent that it does not know.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::http::{Agent, discard, response::ApiError};

/// Marks a request to a listener on a loopback address without TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnLoopback;

/// Protection of reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadAccess {
    /// Reads need a token.
    Guarded,
    /// Reads need no token.
    Open,
}

/// Host names that requests may use.
#[derive(Debug)]
pub(crate) struct AllowedHosts {
    names: [String; 3],
    read_access: ReadAccess,
}

impl AllowedHosts {
    pub(crate) fn new(agent: &Agent, read_access: ReadAccess) -> Self {
        let (node, domain) = (&agent.node, agent.domain.to_string());
        let in_zone = format!("{node}.node.{}", domain.trim_end_matches('.'));
        Self { names: ["localhost".to_owned(), node.to_string(), in_zone], read_access }
    }

    /// Reports whether a value of the header `Host` is an IP address or an allowed name, with any port.
    fn allows(&self, host: &[u8]) -> bool {
        let Ok(authority) = Authority::try_from(host) else { return false };
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let name = bare.strip_suffix('.').unwrap_or(bare);
        bare.parse::<IpAddr>().is_ok() || self.names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    fn refusal(&self, request: &Request) -> Option<ApiError> {
        let headers = request.headers();
        let denied = |text: String| Some(ApiError(StatusCode::FORBIDDEN, text));
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            let exposed = request.extensions().get::<OnLoopback>().is_some() && self.read_access == ReadAccess::Open;
            // Liveness and readiness are public, and monitoring may use any host name.
            if !exposed || matches!(request.uri().path(), "/healthz" | "/readyz") {
                return None;
            }
        } else if headers.contains_key(header::ORIGIN) {
            let text = "Cross-origin request refused: requests with the header Origin may only read.";
            return denied(text.to_owned());
        }
        // HTTP/1.0 requests may lack the header; browsers always send it.
        if headers.get_all(header::HOST).iter().all(|host| self.allows(host.as_bytes())) {
            return None;
        }
        let names = self.names.join(", ");
        denied(format!("Invalid Host: expected an IP address or one of {names}, as protection against DNS rebinding."))
    }
}

pub(crate) async fn check_origin(State(hosts): State<Arc<AllowedHosts>>, request: Request, next: Next) -> Response {
    let mut response = match hosts.refusal(&request) {
        Some(refusal) => {
            discard(request).await;
            refusal.into_response()
        }
        None => next.run(request).await,
    };
    protect(response.headers_mut());
    response
}

/// Keeps other origins from loading a response as an image or a script.
pub(in crate::http) fn protect(headers: &mut HeaderMap) {
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn hosts(read_access: ReadAccess) -> AllowedHosts {
        let names = ["localhost", "host-a", "host-a.node.service.local"].map(str::to_owned);
        AllowedHosts { names, read_access }
    }

    #[test]
    fn host_must_be_an_address_or_a_name_of_the_agent() {
        let hosts = hosts(ReadAccess::Open);
        let cases: &[(&str, bool)] = &[
            ("127.0.0.1", true),
            ("127.0.0.1:8500", true),
            ("10.0.0.7:80", true),
            ("[::1]", true),
            ("[::1]:8500", true),
            ("[fd00::7]:8500", true),
            ("localhost:8500", true),
            ("LocalHost", true),
            ("localhost.", true),
            ("host-a:8500", true),
            ("Host-A.node.service.local.", true),
            ("", false),
            ("evil.example", false),
            ("127.0.0.1.evil.example:8500", false),
            ("localhost.evil.example", false),
            ("host-a.evil.example", false),
            ("evil.example#127.0.0.1", false),
            ("127.0.0.1 evil.example", false),
            ("[::1", false),
            ("host-b", false),
        ];
        for (host, expected) in cases {
            assert_eq!(hosts.allows(host.as_bytes()), *expected, "{host:?}");
        }
    }

    #[test]
    fn unknown_host_cannot_mutate_and_cannot_read_without_token_on_loopback() {
        use ReadAccess::{Guarded, Open};
        let cases = [
            // (method, Host, loopback listener, read access, allowed)
            ("GET", "127.0.0.1:8500", true, Open, true),
            ("GET", "localhost", true, Open, true),
            ("GET", "evil.example", true, Open, false),
            ("HEAD", "evil.example", true, Open, false),
            ("GET", "evil.example", true, Guarded, true),
            ("GET", "muster.corp.example", false, Open, true),
            ("PUT", "127.0.0.1", true, Open, true),
            ("PUT", "evil.example", true, Guarded, false),
            ("PUT", "evil.example", false, Open, false),
        ];
        for (method, host, on_loopback, read_access, passes) in cases {
            let mut request = Request::builder().method(method).header("host", host).body(Body::empty()).unwrap();
            if on_loopback {
                request.extensions_mut().insert(OnLoopback);
            }
            let refused = hosts(read_access).refusal(&request);
            let case = (method, host, on_loopback, read_access);
            assert_eq!(refused.is_none(), passes, "{case:?}");
            assert!(refused.is_none_or(|refusal| refusal.1.contains("host-a")), "{case:?}");
        }
    }

    #[test]
    fn request_with_origin_cannot_mutate() {
        let request = |method| Request::builder().method(method).header("origin", "null").body(Body::empty()).unwrap();
        assert!(hosts(ReadAccess::Guarded).refusal(&request("PUT")).is_some());
        assert!(hosts(ReadAccess::Open).refusal(&request("GET")).is_none());
    }
}
