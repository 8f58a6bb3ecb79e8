//! HTTP and HTTPS probe: one request on its own connection; the response status decides.
//!
//! Redirects are not followed and do not pass, unless their status is expected. Proxy settings of the environment are
//! ignored. The first [`MAX_BODY`] octets of the body must arrive; they are discarded and never become part of a reason.

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
use tokio_rustls::rustls::pki_types::ServerName;
use url::{Host, Url};

use super::{
    connect::{Dialer, drive},
    error::ProbeError,
    tls::Tls,
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

pub(super) async fn probe(probe: &HttpProbe, dialer: &Dialer, tls: &Tls, patience: Duration) -> Result<(), ProbeError> {
    let no_host = || ProbeError::critical("http: the URL has no host");
    let (host, name) = match probe.url.host().ok_or_else(no_host)? {
        Host::Domain(name) => (name.to_owned(), ServerName::try_from(name.to_owned())),
        Host::Ipv4(address) => (address.to_string(), Ok(ServerName::from(std::net::IpAddr::V4(address)))),
        Host::Ipv6(address) => (address.to_string(), Ok(ServerName::from(std::net::IpAddr::V6(address)))),
    };
    let port = probe.url.port_or_known_default().ok_or_else(no_host)?;
    let request = request(probe)?;
    let stream = dialer.connect(&host, port, patience).await?;
    if probe.url.scheme() == "https" {
        let name = name.map_err(|_| ProbeError::critical("tls: the host cannot be the name of a certificate"))?;
        let stream = Box::pin(tls.connect(stream, name, probe.tls_skip_verify)).await?;
        // Boxed, so that plain HTTP probes do not pay for the size of TLS state.
        Box::pin(exchange(stream, request, &probe.expect_status)).await
    } else {
        exchange(stream, request, &probe.expect_status).await
    }
}

/// Sends the request and evaluates the response.
async fn exchange<S>(stream: S, request: Request<Full<Bytes>>, expected: &[u16]) -> Result<(), ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = http1::Builder::new();
    connection.max_buf_size(MAX_HEAD);
    let (mut sender, connection) = connection.handshake(TokioIo::new(stream)).await.map_err(|e| failure(&e))?;
    drive(connection, async move {
        let answer = sender.send_request(request).await.map_err(|e| failure(&e))?;
        evaluate(answer.status(), answer.headers(), expected)?;
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
        Ok(())
    })
    .await
}

fn request(probe: &HttpProbe) -> Result<Request<Full<Bytes>>, ProbeError> {
    let bad = |what: &str| ProbeError::critical(format!("http: bad {what}"));
    let target = match probe.url.query() {
        Some(query) => format!("{}?{query}", probe.url.path()),
        None => probe.url.path().to_owned(),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in &probe.headers {
        let name = HeaderName::try_from(name).map_err(|_| bad("header name"))?;
        headers.append(name, HeaderValue::try_from(value).map_err(|_| bad("header value"))?);
    }
    let mut default = |name: HeaderName, value: String| {
        let value = HeaderValue::try_from(value).map_err(|_| bad("URL"))?;
        headers.entry(name).or_insert(value);
        Ok::<(), ProbeError>(())
    };
    let host = probe.url.host_str().unwrap_or_default();
    default(header::HOST, probe.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))?;
    default(header::USER_AGENT, USER_AGENT.to_owned())?;
    default(header::ACCEPT, "*/*".to_owned())?;
    if let Some(credentials) = credentials(&probe.url) {
        default(header::AUTHORIZATION, credentials)?;
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let body = probe.body.clone().map(Bytes::from).unwrap_or_default();
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::try_from(probe.method.as_str()).map_err(|_| bad("method"))?;
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

fn evaluate(status: StatusCode, headers: &HeaderMap, expected: &[u16]) -> Result<(), ProbeError> {
    let passes = if expected.is_empty() { status.is_success() } else { expected.contains(&status.as_u16()) };
    if passes {
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
    Err(ProbeError::Critical(reason))
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
    use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, date_time_ymd};
    use tokio::io::AsyncWriteExt;
    use tokio_rustls::{
        TlsAcceptor,
        rustls::{RootCertStore, ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
    };

    use super::*;
    use crate::checks::fixtures::{Server, closed_port, read_head};

    const PATIENCE: Duration = Duration::from_secs(5);

    fn get(url: &str) -> HttpProbe {
        HttpProbe {
            url: Url::parse(url).unwrap(),
            method: "GET".into(),
            headers: vec![],
            body: None,
            expect_status: vec![],
            tls_skip_verify: false,
        }
    }

    /// Runs the probe and returns its reason, or `pass`.
    async fn probe_reason(probe: &HttpProbe, tls: &Tls) -> String {
        let dialer = Dialer::new();
        let outcome = tokio::time::timeout(PATIENCE, super::probe(probe, &dialer, tls, PATIENCE));
        match outcome.await.expect("a result in time") {
            Ok(()) => "pass".to_owned(),
            Err(ProbeError::Critical(reason)) => reason,
            Err(other) => panic!("{other:?}"),
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
        let authority = {
            let mut params = CertificateParams::new([]).unwrap();
            params.distinguished_name.push(rcgen::DnType::CommonName, format!("authority of {names:?} until {year}"));
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let config = ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(std::sync::Arc::new(config));
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
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
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
        for (server, host, roots, expected) in cases {
            let tls = Tls::trusting(roots.cloned().unwrap_or_else(RootCertStore::empty));
            let url = format!("https://{host}:{}/", server.address.port());
            let got = probe_reason(&HttpProbe { tls_skip_verify: roots.is_none(), ..get(&url) }, &tls).await;
            assert!(got.starts_with(expected), "{url}: {got}, expected {expected}");
        }
    }
}
