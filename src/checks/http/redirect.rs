//! Redirects of an HTTP probe, followed as Go's client does.

use hyper::{
    StatusCode,
    header::{self, HeaderMap},
};
use url::Url;

use super::{MAX_LOCATION, is_expected};
use crate::{checks::error::ProbeError, model::service::HttpProbe};

/// Headers that only the first host and its subdomains get.
const CREDENTIALS: [&str; 4] = ["authorization", "www-authenticate", "cookie", "cookie2"];

/// One request of a probe.
pub(super) struct Hop<'p> {
    pub(super) url: Url,
    pub(super) method: &'p str,
    pub(super) headers: Vec<(&'p str, &'p str)>,
    pub(super) body: Option<&'p str>,
    /// Host of the first request.
    first_host: Option<String>,
}

/// Returns the target of a redirect that the probe follows.
pub(super) fn target(status: StatusCode, headers: &HeaderMap, probe: &HttpProbe) -> Option<String> {
    let is_redirect = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    if !probe.follow_redirects || !is_redirect || is_expected(status, probe) {
        return None;
    }
    Some(String::from_utf8_lossy(headers.get(header::LOCATION)?.as_bytes()).into_owned())
}

impl<'p> Hop<'p> {
    /// Returns the first request of a probe.
    pub(super) fn first(probe: &'p HttpProbe) -> Self {
        Self {
            url: probe.url.clone(),
            method: &probe.method,
            headers: probe.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            body: probe.body.as_deref(),
            first_host: probe.url.host_str().map(str::to_owned),
        }
    }

    /// Returns the request to which a redirect leads.
    ///
    /// The method and the body stay with the statuses 307 and 308; others make it a GET. A `Host` header of the check stays if
    /// the location is relative.
    pub(super) fn next(mut self, status: StatusCode, location: &str) -> Result<Self, ProbeError> {
        let url = self
            .url
            .join(location)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.port() != Some(0));
        let Some(url) = url else {
            let location: String = location.chars().take(MAX_LOCATION).collect();
            return Err(ProbeError::critical(format!("http: redirect to {location}, which is no URL of HTTP")));
        };
        if !matches!(status.as_u16(), 307 | 308) {
            self.body = None;
            if !matches!(self.method, "GET" | "HEAD") {
                self.method = "GET";
            }
        }
        let is_relative =
            Url::parse(location) == Err(url::ParseError::RelativeUrlWithoutBase) && !location.starts_with("//");
        let is_same_site = self.first_host.as_deref().zip(url.host_str()).is_some_and(|(first, host)| {
            host == first || host.strip_suffix(first).is_some_and(|below| below.ends_with('.'))
        });
        let stays = |name: &str| match name {
            name if name.eq_ignore_ascii_case("host") => is_relative,
            name => is_same_site || !CREDENTIALS.iter().any(|secret| name.eq_ignore_ascii_case(secret)),
        };
        self.headers.retain(|(name, _)| stays(name));
        self.url = url;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        checks::{
            connect::Dialer,
            fixtures::{Server, closed_port, tcp},
            tls::Tls,
        },
        model::service::{Check, Origin},
    };

    fn follow(url: &str) -> HttpProbe {
        HttpProbe { follow_redirects: true, ..HttpProbe::get(url.parse().unwrap()) }
    }

    /// Formats the request after a redirect: method, URL, headers and body.
    fn next(probe: &HttpProbe, status: u16, location: &str) -> String {
        match Hop::first(probe).next(StatusCode::from_u16(status).unwrap(), location) {
            Ok(hop) => {
                let headers: Vec<&str> = hop.headers.iter().map(|(name, _)| *name).collect();
                format!("{} {} [{}] {}", hop.method, hop.url, headers.join(" "), hop.body.unwrap_or("-"))
            }
            Err(ProbeError::Critical(reason)) => reason,
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn next_request_is_that_of_go() {
        let pair = |name: &str| (name.to_owned(), "x".to_owned());
        let probe = HttpProbe {
            method: "POST".to_owned(),
            headers: ["Host", "Authorization", "X-Probe"].map(pair).to_vec(),
            body: Some("ping".to_owned()),
            ..follow("http://a.example:80/old?x=1")
        };
        let cases = [
            (301, "/new", "GET http://a.example/new [Host Authorization X-Probe] -"),
            (302, "new?y=2", "GET http://a.example/new?y=2 [Host Authorization X-Probe] -"),
            (303, "//b.example/", "GET http://b.example/ [X-Probe] -"),
            (307, "/new", "POST http://a.example/new [Host Authorization X-Probe] ping"),
            (308, "https://c.a.example/", "POST https://c.a.example/ [Authorization X-Probe] ping"),
            (307, "http://nota.example/", "POST http://nota.example/ [X-Probe] ping"),
            (302, "ftp://a.example/", "http: redirect to ftp://a.example/, which is no URL of HTTP"),
            (302, "http://", "http: redirect to http://, which is no URL of HTTP"),
        ];
        for (status, location, expected) in cases {
            assert_eq!(next(&probe, status, location), expected, "{status} {location}");
        }
        let head = HttpProbe { method: "HEAD".to_owned(), ..follow("http://a.example/") };
        assert_eq!(next(&head, 302, "/x"), "HEAD http://a.example/x [] -");
    }

    /// Runs a check of a client that may not reach link-local addresses.
    async fn outcome(probe: &HttpProbe) -> String {
        let origin = Origin::Client { link_local: false, exec: false };
        let dialer = Dialer::new().of(&Check { origin, ..tcp("any") });
        match super::super::probe(probe, &dialer, &Tls::new(), Duration::from_secs(5)).await {
            Ok(()) => "pass".to_owned(),
            Err(ProbeError::Critical(reason)) => reason,
            Err(other) => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn redirects_are_followed_to_the_end() {
        let end = |status: &str| format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        let to = |location: &str| format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        let (well, mut requests) = Server::answering(end("200 OK")).await;
        let (ill, _) = Server::answering(end("500 Ill")).await;
        let (looping, mut rounds) = Server::answering(to("/again")).await;
        let cases = [
            (to(&format!("http://{}/end", well.address)), "pass"),
            (to(&format!("http://{}/", ill.address)), "after a redirect: http: 500 Internal Server Error"),
            (to(&format!("http://{}/", looping.address)), "http: stopped after 10 redirects"),
            (to(&format!("http://{}/", closed_port())), "after a redirect: connection refused"),
            (
                to("http://169.254.169.254/latest/meta-data"),
                "after a redirect: link-local or metadata address refused (checks.allow_link_local)",
            ),
            ("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n".to_owned(), "http: 302 Found"),
            ("HTTP/1.1 304 Not Modified\r\n\r\n".to_owned(), "http: 304 Not Modified"),
        ];
        for (answer, expected) in cases {
            let (server, _) = Server::answering(answer).await;
            assert_eq!(outcome(&follow(&format!("http://{}/", server.address))).await, expected);
        }
        assert!(requests.recv().await.unwrap().starts_with("GET /end HTTP/1.1"));
        assert_eq!(std::iter::from_fn(|| rounds.try_recv().ok()).count(), 9);
        let (server, _) = Server::answering(to("/new")).await;
        let refusing = HttpProbe { follow_redirects: false, ..follow(&format!("http://{}/", server.address)) };
        assert_eq!(outcome(&refusing).await, "http: 302 Found to /new");
        let expecting = HttpProbe { expect_status: vec![302], ..follow(&format!("http://{}/", server.address)) };
        assert_eq!(outcome(&expecting).await, "pass");
    }
}
