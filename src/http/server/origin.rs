//! Keeps web pages of others from giving orders and from reading.
//!
//! A page that somebody on this host looks at can have the browser send requests to 127.0.0.1. It cannot read the
//! answers, since no answer of ours allows it (CORS); but an order would be carried out all the same. Two signs give such
//! a request away:
//!
//! - Browsers send `Origin` with every request that is not a plain reading, and other programs do not send it.
//! - With DNS rebinding a page of `evil.example` has that very name point to 127.0.0.1, so that the browser takes the
//!   agent for the page's own server, and lets the page read. The request then says `Host: evil.example`. An address as
//!   host, `localhost` or the node's name cannot be rebound by a stranger.
//!
//! ReadAccess are looked at where such a page could get something: on a loopback address, which the page reaches through the
//! browser and its owner does not, without tokens, which the page has not, and without TLS, since no certificate is good
//! for `evil.example`. On other addresses operators give the agent names that it does not know.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::http::{Agent, discard, response::ApiError};

/// A request that came by a listener on a loopback address, without TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnLoopback;

/// What a reading shows besides its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadAccess {
    /// A token.
    Guarded,
    /// Nothing.
    Open,
}

/// The names by which the agent may be called, and who has to use them.
#[derive(Debug)]
pub(crate) struct AllowedHosts {
    names: [String; 3],
    readings: ReadAccess,
}

impl AllowedHosts {
    pub(crate) fn new(agent: &Agent, readings: ReadAccess) -> Self {
        let (node, domain) = (&agent.node, agent.domain.to_string());
        let in_zone = format!("{node}.node.{}", domain.trim_end_matches('.'));
        Self { names: ["localhost".to_owned(), node.to_string(), in_zone], readings }
    }

    /// Whether a value of the header `Host` is an address or one of the names; the port does not matter.
    fn has(&self, host: &[u8]) -> bool {
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
            let exposed = request.extensions().get::<OnLoopback>().is_some() && self.readings == ReadAccess::Open;
            // Whether the agent lives is no secret, and those who look may call it anything.
            if !exposed || matches!(request.uri().path(), "/healthz" | "/readyz") {
                return None;
            }
        } else if headers.contains_key(header::ORIGIN) {
            let text = "Web pages may not give orders here, and this request comes from one: it has the header Origin.";
            return denied(text.to_owned());
        }
        // HTTP/1.0 has requests without it; browsers do not send such.
        if headers.get_all(header::HOST).iter().all(|host| self.has(host.as_bytes())) {
            return None;
        }
        let names = self.names.join(", ");
        denied(format!("The header Host has to be an IP address or one of {names}: a web page could send any other."))
    }
}

pub(crate) async fn keep_out(State(hosts): State<Arc<AllowedHosts>>, request: Request, next: Next) -> Response {
    let mut response = match hosts.refusal(&request) {
        Some(refusal) => {
            discard(request.into_body()).await;
            refusal.into_response()
        }
        None => next.run(request).await,
    };
    // No page of others has an answer as its image or its script either, whatever it looks like.
    let headers = response.headers_mut();
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn hosts(readings: ReadAccess) -> AllowedHosts {
        let names = ["localhost", "host-a", "host-a.node.service.local"].map(str::to_owned);
        AllowedHosts { names, readings }
    }

    #[test]
    fn a_host_is_an_address_or_a_name_of_ours() {
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
            assert_eq!(hosts.has(host.as_bytes()), *expected, "{host:?}");
        }
    }

    #[test]
    fn strange_names_give_no_orders_and_read_nothing_where_it_is_open() {
        use ReadAccess::{Guarded, Open};
        let cases = [
            // (method, Host, by a loopback address, readings) and whether it passes
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
        for (method, host, on_loopback, readings, passes) in cases {
            let mut request = Request::builder().method(method).header("host", host).body(Body::empty()).unwrap();
            if on_loopback {
                request.extensions_mut().insert(OnLoopback);
            }
            let refused = hosts(readings).refusal(&request);
            let case = (method, host, on_loopback, readings);
            assert_eq!(refused.is_none(), passes, "{case:?}");
            assert!(refused.is_none_or(|refusal| refusal.1.contains("host-a")), "{case:?}");
        }
    }

    #[test]
    fn a_request_with_origin_is_no_order() {
        let request = |method| Request::builder().method(method).header("origin", "null").body(Body::empty()).unwrap();
        assert!(hosts(ReadAccess::Guarded).refusal(&request("PUT")).is_some());
        assert!(hosts(ReadAccess::Open).refusal(&request("GET")).is_none());
    }
}
