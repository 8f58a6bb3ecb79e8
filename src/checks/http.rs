//! HTTP and HTTPS probe: one request on its own connection; the response status decides.
//!
//! Redirects are followed if the check says so, each on a connection of its own; otherwise they do not pass, unless their
//! status is expected. Proxy settings of the environment are ignored. The first [`MAX_BODY`] octets of the body must arrive;
//! they are discarded and never become part of a reason.

mod redirect;

use std::{error::Error, io, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use url::Url;

use self::redirect::Hop;
use super::{
    connect::{Dialer, drive},
    error::ProbeError,
    tls::{Alpn, Tls, server_name},
};
use crate::model::service::HttpProbe;

/// Default `User-Agent`.
const USER_AGENT: &str = concat!("muster/", env!("CARGO_PKG_VERSION"));
/// Maximum octets read of a response body.
const MAX_BODY: usize = 4096;
/// Maximum octets of the status line and headers; more is an error, as with any client.
const MAX_HEAD: usize = 64 * 1024;
/// Maximum characters of a redirect's target in the reason.
const MAX_LOCATION: usize = 80;

/// Maximum number of requests of one probe, redirected ones included: that of Go's client, which Consul uses.
const MAX_REQUESTS: usize = 10;

pub(super) async fn probe(probe: &HttpProbe, dialer: &Dialer, tls: &Tls, patience: Duration) -> Result<(), ProbeError> {
    let mut hop = Hop::first(probe);
    for number in 0..MAX_REQUESTS {
        let outcome = fetch(&hop, probe, (dialer, tls), patience).await;
        let answer = if number == 0 { outcome? } else { outcome.map_err(|error| error.of("after a redirect"))? };
        match answer {
            Answer::Final(outcome) if number == 0 => return outcome,
            Answer::Final(outcome) => return outcome.map_err(|error| error.of("after a redirect")),
            Answer::Redirect { status, location } => hop = hop.next(status, &location)?,
        }
    }
    Err(ProbeError::critical(format!("http: stopped after {MAX_REQUESTS} redirects")))
}

/// Response to one request.
enum Answer {
    /// The result of the probe.
    Final(Result<(), ProbeError>),
    /// A redirect to follow.
    Redirect { status: StatusCode, location: String },
}

async fn fetch(
    hop: &Hop<'_>,
    probe: &HttpProbe,
    (dialer, tls): (&Dialer, &Tls),
    patience: Duration,
) -> Result<Answer, ProbeError> {
    let no_host = || ProbeError::critical("http: the URL has no host");
    // Without the brackets of an IPv6 address.
    let host = hop.url.host_str().ok_or_else(no_host)?.trim_matches(['[', ']']);
    let port = hop.url.port_or_known_default().ok_or_else(no_host)?;
    let request = request(hop)?;
    let name = (hop.url.scheme() == "https").then(|| server_name(&probe.tls, host)).transpose()?;
    let stream = dialer.connect(host, port, patience).await?;
    if let Some(name) = name {
        let stream = Box::pin(tls.connect(stream, name, probe.tls.skip_verify, Alpn::Http1)).await?;
        // Boxed, so that plain HTTP probes do not pay for the size of TLS state.
        Box::pin(exchange(stream, request, probe)).await
    } else {
        exchange(stream, request, probe).await
    }
}

/// Sends the request and evaluates the response.
async fn exchange<S>(stream: S, request: Request<Full<Bytes>>, probe: &HttpProbe) -> Result<Answer, ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = http1::Builder::new();
    connection.max_buf_size(MAX_HEAD);
    let (mut sender, connection) = connection.handshake(TokioIo::new(stream)).await.map_err(|e| failure(&e))?;
    drive(connection, async move {
        let answer = sender.send_request(request).await.map_err(|e| failure(&e))?;
        if let Some(location) = redirect::target(answer.status(), answer.headers(), probe) {
            return Ok(Answer::Redirect { status: answer.status(), location });
        }
        if let outcome @ Err(_) = evaluate(answer.status(), answer.headers(), probe) {
            return Ok(Answer::Final(outcome));
        }
        // RFC 9112 §6.3: a body without a length ends with the connection.
        let stated = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
        let ends_by_close = !stated.iter().any(|name| answer.headers().contains_key(name));
        let mut body = answer.into_body();
        let mut read = 0;
        while read < MAX_BODY
            && let Some(frame) = body.frame().await
        {
            let frame = match frame {
                Ok(frame) => frame,
                // Many servers end such bodies without a TLS close_notify, which is an error here.
                Err(_) if ends_by_close => break,
                Err(error) => return Err(failure(&error)),
            };
            read += frame.data_ref().map_or(0, Bytes::len);
        }
        Ok(Answer::Final(Ok(())))
    })
    .await
}

fn request(hop: &Hop<'_>) -> Result<Request<Full<Bytes>>, ProbeError> {
    let bad = |what: &str| ProbeError::critical(format!("http: bad {what}"));
    let target = match hop.url.query() {
        Some(query) => format!("{}?{query}", hop.url.path()),
        None => hop.url.path().to_owned(),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in &hop.headers {
        let name = HeaderName::try_from(*name).map_err(|_| bad("header name"))?;
        headers.append(name, HeaderValue::try_from(*value).map_err(|_| bad("header value"))?);
    }
    let mut default = |name: HeaderName, value: String| {
        let value = HeaderValue::try_from(value).map_err(|_| bad("URL"))?;
        headers.entry(name).or_insert(value);
        Ok::<(), ProbeError>(())
    };
    let host = hop.url.host_str().unwrap_or_default();
    default(header::HOST, hop.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))?;
    default(header::USER_AGENT, USER_AGENT.to_owned())?;
    default(header::ACCEPT, "*/*".to_owned())?;
    if let Some(credentials) = credentials(&hop.url) {
        default(header::AUTHORIZATION, credentials)?;
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let body = hop.body.map(|body| Bytes::from(body.to_owned())).unwrap_or_default();
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::try_from(hop.method).map_err(|_| bad("method"))?;
    *request.uri_mut() = target.parse().map_err(|_| bad("URL"))?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Returns `user:password@` of a URL as basic credentials (RFC 7617).
fn credentials(url: &Url) -> Option<String> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut plain: Vec<u8> = percent_encoding::percent_decode_str(url.username()).collect();
    plain.push(b':');
    plain.extend(percent_encoding::percent_decode_str(url.password().unwrap_or_default()));
    Some(format!("Basic {}", data_encoding::BASE64.encode(&plain)))
}

fn evaluate(status: StatusCode, headers: &HeaderMap, probe: &HttpProbe) -> Result<(), ProbeError> {
    if is_expected(status, probe) {
        return Ok(());
    }
    let mut reason = format!("http: {}", status.as_u16());
    if let Some(words) = status.canonical_reason() {
        reason = format!("{reason} {words}");
    }
    if status.is_redirection()
        && let Some(location) = headers.get(header::LOCATION)
    {
        let location: String = String::from_utf8_lossy(location.as_bytes()).chars().take(MAX_LOCATION).collect();
        reason = format!("{reason} to {location}");
    } else if status.is_success() {
        reason.push_str(", not the expected status");
    }
    if probe.warn_status.contains(&status.as_u16()) {
        return Err(ProbeError::Warning(reason));
    }
    Err(ProbeError::Critical(reason))
}

fn is_expected(status: StatusCode, probe: &HttpProbe) -> bool {
    match &probe.expect_status[..] {
        [] => status.is_success(),
        expected => expected.contains(&status.as_u16()),
    }
}

fn failure(error: &hyper::Error) -> ProbeError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(at) = cause {
        if let Some(io) = at.downcast_ref::<io::Error>() {
            return ProbeError::from(io).of("http");
        }
        if at.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
            return ProbeError::critical("http: connection closed before the response was complete");
        }
        cause = at.source();
    }
    ProbeError::critical(format!("http: {error}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio_rustls::rustls::RootCertStore;

    use super::*;
    use crate::{
        checks::fixtures::{Server, closed_port, read_head, tls_acceptor},
        model::service::ProbeTls,
    };

    const PATIENCE: Duration = Duration::from_secs(5);

    fn get(url: &str) -> HttpProbe {
        HttpProbe::get(Url::parse(url).unwrap())
    }

    /// Runs the probe and returns its reason, or `pass`.
    async fn probe_reason(probe: &HttpProbe, tls: &Tls) -> String {
        let dialer = Dialer::new();
        let outcome = tokio::time::timeout(PATIENCE, super::probe(probe, &dialer, tls, PATIENCE));
        match outcome.await.expect("a result in time") {
            Ok(()) => "pass".to_owned(),
            Err(ProbeError::Critical(reason)) => reason,
            Err(ProbeError::Warning(reason)) => format!("warning: {reason}"),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn status_that_warns_is_no_failure() {
        let cases: &[(&str, &[u16], &str)] = &[
            ("429 Slow Down", &[], "warning: http: 429 Too Many Requests"),
            ("503 Busy", &[], "http: 503 Service Unavailable"),
            ("429 Slow Down", &[429], "pass"),
        ];
        for (status, expect_status, expected) in cases {
            let (server, _) = Server::answering(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")).await;
            let (warn_status, expect_status) = (vec![429], expect_status.to_vec());
            let probe = HttpProbe { warn_status, expect_status, ..get(&format!("http://{}/", server.address)) };
            assert_eq!(probe_reason(&probe, &Tls::new()).await, *expected, "{status}");
        }
    }

    #[tokio::test]
    async fn status_decides() {
        let cases: &[(&str, &[u16], &str)] = &[
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", &[], "pass"),
            ("HTTP/1.0 200 OK\r\n\r\nuntil the end", &[], "pass"),
            ("HTTP/1.1 204 No Content\r\n\r\n", &[], "pass"),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 299 Odd\r\ncontent-length: 0\r\n\r\n", &[], "pass"),
            ("HTTP/1.1 503 Sick\r\ncontent-length: 4\r\n\r\nsick", &[], "http: 503 Service Unavailable"),
            ("HTTP/1.1 599 Odd\r\ncontent-length: 0\r\n\r\n", &[], "http: 599"),
            ("HTTP/1.1 302 Found\r\nlocation: /login?a=b\r\n\r\n", &[], "http: 302 Found to /login?a=b"),
            ("HTTP/1.1 304 Not Modified\r\n\r\n", &[], "http: 304 Not Modified"),
            ("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", &[200, 302], "pass"),
            ("HTTP/1.1 401 Who\r\ncontent-length: 0\r\n\r\n", &[401], "pass"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", &[204], "http: 200 OK, not the expected status"),
            ("", &[], "http: connection closed before the response was complete"),
            ("HTTP/1.1 200 OK\r\n", &[], "http: connection closed before the response was complete"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", &[], "http: connection closed"),
            ("SSH-2.0-OpenSSH_9.9\r\n\r\n", &[], "http: invalid HTTP version parsed"),
        ];
        for (answer, expect_status, expected) in cases {
            let (server, _) = Server::answering(*answer).await;
            let probe =
                HttpProbe { expect_status: expect_status.to_vec(), ..get(&format!("http://{}/", server.address)) };
            assert_eq!(probe_reason(&probe, &Tls::new()).await, *expected, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn endless_responses_are_read_up_to_a_limit() {
        let head = "HTTP/1.1 200 OK\r\n";
        let cases = [
            (format!("{head}\r\n"), "pass"),
            (format!("{head}transfer-encoding: chunked\r\n\r\nfffff\r\n"), "pass"),
            (head.to_owned(), "http: message head is too large"),
        ];
        for (head, expected) in cases {
            let server = Server::start(move |mut stream| {
                let head = head.clone();
                async move {
                    read_head(&mut stream).await;
                    let mut more = stream.write_all(head.as_bytes()).await;
                    while more.is_ok() {
                        more = stream.write_all(b"endless: endless\r\n").await;
                    }
                }
            });
            let server = server.await;
            assert_eq!(probe_reason(&get(&format!("http://{}/", server.address)), &Tls::new()).await, expected);
        }
    }

    #[tokio::test]
    async fn request_has_the_configured_fields_and_few_defaults() {
        let (server, mut requests) = Server::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let plain = get(&format!("http://{}/health%20z?a=b&c", server.address));
        let post = HttpProbe {
            method: "POST".into(),
            headers: vec![
                ("Host".into(), "www.example.org".into()),
                ("User-Agent".into(), "me".into()),
                ("X-Two".into(), "1".into()),
                ("x-two".into(), "2".into()),
            ],
            body: Some("ping".into()),
            ..get(&format!("http://us%40er:pass%3Aword@{}", server.address))
        };
        let cases = [
            (
                plain,
                format!(
                    "GET /health%20z?a=b&c HTTP/1.1\r\nhost: {}\r\nuser-agent: muster/{}\r\naccept: */*\r\n\
                     connection: close\r\n\r\n",
                    server.address,
                    env!("CARGO_PKG_VERSION")
                ),
            ),
            (
                post,
                "POST / HTTP/1.1\r\nhost: www.example.org\r\nuser-agent: me\r\nx-two: 1\r\nx-two: 2\r\naccept: */*\r\n\
                 authorization: Basic dXNAZXI6cGFzczp3b3Jk\r\nconnection: close\r\ncontent-length: 4\r\n\r\nping"
                    .to_owned(),
            ),
        ];
        for (probe, expected) in cases {
            assert_eq!(probe_reason(&probe, &Tls::new()).await, "pass");
            assert_eq!(requests.recv().await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn invalid_requests_fail_without_a_connection() {
        let cases = [
            (HttpProbe { method: "G E T".into(), ..get("http://127.0.0.1/") }, "http: bad method"),
            (
                HttpProbe { headers: vec![("a b".into(), "c".into())], ..get("http://127.0.0.1/") },
                "http: bad header name",
            ),
            (
                HttpProbe { headers: vec![("a".into(), "\n".into())], ..get("http://127.0.0.1/") },
                "http: bad header value",
            ),
            (get("data:text/plain,hello"), "http: the URL has no host"),
        ];
        for (probe, expected) in cases {
            assert_eq!(probe_reason(&probe, &Tls::new()).await, expected);
        }
        let closed = closed_port();
        assert_eq!(probe_reason(&get(&format!("http://{closed}/")), &Tls::new()).await, "connection refused");
    }

    /// Starts an HTTPS server with a certificate for `names`, valid until `year`; returns it with its authority.
    async fn https(names: &[&str], year: i32) -> (Server, RootCertStore) {
        https_answering(names, year, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true).await
    }

    /// Starts an HTTPS server with this response; `close_notify` sends that alert before the connection closes.
    async fn https_answering(
        names: &[&str],
        year: i32,
        answer: &'static [u8],
        close_notify: bool,
    ) -> (Server, RootCertStore) {
        let (acceptor, roots) = tls_acceptor(names, year, &[b"http/1.1"]);
        let server = Server::start(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                assert!(read_head(&mut stream).await.starts_with("GET / HTTP/1.1\r\n"));
                stream.write_all(answer).await.unwrap();
                stream.flush().await.unwrap();
                if close_notify {
                    stream.shutdown().await.unwrap();
                }
            }
        });
        (server.await, roots)
    }

    #[tokio::test]
    async fn body_without_length_may_end_without_close_notify() {
        // RFC 9112 §6.3, §9.8: many servers close TLS without an alert.
        let cases: [(&'static [u8], bool, &str); 4] = [
            (b"HTTP/1.0 200 OK\r\n\r\nok", false, "pass"),
            (b"HTTP/1.0 200 OK\r\n\r\nok", true, "pass"),
            (b"HTTP/1.0 503 Service Unavailable\r\n\r\nno", false, "http: 503 Service Unavailable"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", false, "http: connection closed"),
        ];
        for (answer, close_notify, expected) in cases {
            let (server, trusted) = https_answering(&["localhost"], 2999, answer, close_notify).await;
            let url = format!("https://localhost:{}/", server.address.port());
            let got = probe_reason(&get(&url), &Tls::trusting(trusted)).await;
            assert_eq!(got, expected, "{}", String::from_utf8_lossy(answer));
        }
    }

    #[tokio::test]
    async fn certificates_are_verified_unless_configured_otherwise() {
        let (good, trusted) = https(&["localhost", "127.0.0.1"], 2999).await;
        let (other_name, other_authority) = https(&["other.example"], 2999).await;
        let (expired, expired_authority) = https(&["localhost"], 2011).await;
        let plain = Server::start(|mut stream| async move {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        });
        let plain = plain.await;
        let cases = [
            (&good, "localhost", Some(&trusted), "pass"),
            (&good, "127.0.0.1", Some(&trusted), "pass"),
            (&good, "localhost", Some(&other_authority), "tls: certificate from an unknown issuer"),
            (&other_name, "localhost", Some(&other_authority), "tls: certificate for another name"),
            (&expired, "localhost", Some(&expired_authority), "tls: certificate expired "),
            (&plain, "localhost", Some(&trusted), "tls: response is not TLS"),
            (&plain, "localhost", None, "tls: response is not TLS"),
            (&good, "localhost", None, "pass"),
            (&other_name, "localhost", None, "pass"),
            (&expired, "localhost", None, "pass"),
        ];
        let named = |name: &str| ProbeTls { server_name: Some(name.to_owned()), ..ProbeTls::default() };
        for (name, expected) in [("other.example", "pass"), ("third.example", "tls: certificate for another name")] {
            let url = format!("https://127.0.0.1:{}/", other_name.address.port());
            let tls = Tls::trusting(other_authority.clone());
            assert_eq!(probe_reason(&HttpProbe { tls: named(name), ..get(&url) }, &tls).await, expected, "{name}");
        }
        for (server, host, roots, expected) in cases {
            let tls = Tls::trusting(roots.cloned().unwrap_or_else(RootCertStore::empty));
            let url = format!("https://{host}:{}/", server.address.port());
            let secure = ProbeTls { skip_verify: roots.is_none(), ..ProbeTls::default() };
            let got = probe_reason(&HttpProbe { tls: secure, ..get(&url) }, &tls).await;
            assert!(got.starts_with(expected), "{url}: {got}, expected {expected}");
        }
    }
}
