//! Keeps web pages from giving orders.
//!
//! A page that somebody on this host looks at can have the browser send requests to 127.0.0.1. It cannot read the
//! answers, since no answer of ours allows it (CORS); but an order would be carried out all the same. Two signs give such
//! a request away:
//!
//! - Browsers send `Origin` with every request that is not a plain reading, and other programs do not send it.
//! - With DNS rebinding a page of `evil.example` has that very name point to 127.0.0.1, so that the browser takes the
//!   agent for the page's own server. The request then says `Host: evil.example`. An address as host, `localhost` or the
//!   node's name cannot be rebound by a stranger.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Agent, answer::Refusal, discard};

/// The names by which the agent may be called.
#[derive(Debug)]
pub(super) struct Hosts([String; 3]);

impl Hosts {
    pub(super) fn new(agent: &Agent) -> Self {
        let (node, domain) = (&agent.node, agent.domain.to_string());
        Self(["localhost".to_owned(), node.to_string(), format!("{node}.node.{}", domain.trim_end_matches('.'))])
    }

    /// Whether a value of the header `Host` is an address or one of the names; the port does not matter.
    fn has(&self, host: &[u8]) -> bool {
        let Ok(authority) = Authority::try_from(host) else { return false };
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let name = bare.strip_suffix('.').unwrap_or(bare);
        bare.parse::<IpAddr>().is_ok() || self.0.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    fn refusal(&self, method: &Method, headers: &HeaderMap) -> Option<Refusal> {
        if matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        if headers.contains_key(header::ORIGIN) {
            let text = "Web pages may not give orders here, and this request comes from one: it has the header Origin.";
            return Some(Refusal(StatusCode::FORBIDDEN, text.to_owned()));
        }
        // HTTP/1.0 has requests without it; browsers do not send such.
        if headers.get_all(header::HOST).iter().all(|host| self.has(host.as_bytes())) {
            return None;
        }
        let names = self.0.join(", ");
        let text =
            format!("The header Host has to be an IP address or one of {names}: a web page could send any other.");
        Some(Refusal(StatusCode::FORBIDDEN, text))
    }
}

pub(super) async fn keep_out(State(hosts): State<Arc<Hosts>>, request: Request, next: Next) -> Response {
    match hosts.refusal(request.method(), request.headers()) {
        Some(refusal) => {
            discard(request.into_body()).await;
            refusal.into_response()
        }
        None => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_a_name_of_ours() {
        let hosts = Hosts(["localhost".to_owned(), "host-a".to_owned(), "host-a.node.service.local".to_owned()]);
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
}
