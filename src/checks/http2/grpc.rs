//! gRPC probe: `grpc.health.v1.Health/Check`.
//!
//! The unary call is made over `h2`. Its two messages, one string and one enum, are encoded and decoded here.

use std::time::Duration;

use h2::RecvStream;
use hyper::{HeaderMap, Request, StatusCode, body::Bytes, header};

use super::{connect, failure};
use crate::{
    checks::{
        connect::{Dialer, drive},
        error::ProbeError,
        tls::Tls,
    },
    model::service::{Endpoint, ProbeTls},
};

const WHAT: &str = "grpc";
const USER_AGENT: &str = concat!("muster/", env!("CARGO_PKG_VERSION"));
/// Maximum octets of a response message; a valid one has seven.
const MAX_RESPONSE: usize = 4096;
/// Names of the `grpc-status` codes, by number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

pub(in crate::checks) async fn probe(
    endpoint: &Endpoint,
    service: &str,
    secure: Option<&ProbeTls>,
    (dialer, tls): (&Dialer, &Tls),
    patience: Duration,
) -> Result<(), ProbeError> {
    let scheme = if secure.is_some() { "https" } else { "http" };
    let request = Request::post(format!("{scheme}://{endpoint}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, USER_AGENT)
        .header("grpc-timeout", format!("{}m", patience.as_millis().min(99_999_999)))
        .body(())
        .map_err(|_| ProbeError::critical("grpc: bad endpoint"))?;
    let (mut sender, connection) = connect(endpoint, secure, (dialer, tls), patience, WHAT).await?;
    drive(connection, async move {
        let (answer, mut body) = sender.send_request(request, false).map_err(|e| failure(&e, WHAT))?;
        body.send_data(encode_request(service), true).map_err(|e| failure(&e, WHAT))?;
        let (head, body) = answer.await.map_err(|e| failure(&e, WHAT))?.into_parts();
        if head.status != StatusCode::OK {
            return Err(ProbeError::critical(format!("grpc: http {}", head.status)));
        }
        // An error may be in the headers, without a body.
        code(&head.headers)?;
        let (message, trailers) = read(body).await?;
        trailers.as_ref().map_or(Ok(()), code)?;
        evaluate(&message)
    })
    .await
}

/// Reads the response body and its trailers.
async fn read(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), ProbeError> {
    let mut message = Vec::new();
    while let Some(part) = body.data().await {
        message.extend(part.map_err(|e| failure(&e, WHAT))?);
        if message.len() > MAX_RESPONSE {
            return Err(ProbeError::critical("grpc: response exceeds 4 KB"));
        }
    }
    Ok((message, body.trailers().await.map_err(|e| failure(&e, WHAT))?))
}

/// Fails on any `grpc-status` but OK.
fn code(headers: &HeaderMap) -> Result<(), ProbeError> {
    let Some(status) = headers.get("grpc-status") else { return Ok(()) };
    let code = status.to_str().ok().and_then(|text| text.parse::<usize>().ok());
    match code {
        Some(0) => Ok(()),
        Some(code) => {
            let name = CODES.get(code).map_or_else(|| format!("code {code}"), |name| (*name).to_owned());
            Err(ProbeError::critical(format!("grpc: {name}")))
        }
        None => Err(ProbeError::critical("grpc: invalid grpc-status")),
    }
}

/// Encodes a framed `HealthCheckRequest`: not compressed, length, field 1 with the service's name.
fn encode_request(service: &str) -> Bytes {
    let mut message = Vec::with_capacity(service.len() + 6);
    if !service.is_empty() {
        message.push(0x0a);
        let mut len = service.len();
        while len >= 0x80 {
            message.push((len as u8 & 0x7f) | 0x80);
            len >>= 7;
        }
        message.push(len as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    framed.into()
}

/// Decodes a framed `HealthCheckResponse`; only SERVING passes.
fn evaluate(framed: &[u8]) -> Result<(), ProbeError> {
    let status = match framed.split_first_chunk::<5>() {
        Some(([0, length @ ..], message)) if u32::from_be_bytes(*length) as usize == message.len() => status(message),
        Some(_) | None => None,
    };
    let name = match status {
        Some(1) => return Ok(()),
        Some(0) => "UNKNOWN",
        Some(2) => "NOT_SERVING",
        Some(3) => "SERVICE_UNKNOWN",
        Some(_) => "unknown serving status",
        None => "invalid HealthCheckResponse",
    };
    Err(ProbeError::critical(format!("grpc: {name}")))
}

/// Returns field 1 of a message, an enum; 0 if absent, `None` if the message is malformed.
fn status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let skip = match tag & 7 {
            0 => {
                let value = varint(&mut message)?;
                if tag >> 3 == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        message = message.get(skip..)?;
    }
    Some(status)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&octet, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use hyper_util::{
        rt::{TokioExecutor, TokioIo},
        service::TowerToHyperService,
    };
    use tonic_health::ServingStatus;

    use super::*;
    use crate::checks::fixtures::{Server, closed_port, tls_acceptor};

    const PATIENCE: Duration = Duration::from_secs(5);

    async fn probe_reason(endpoint: &Endpoint, service: &str) -> String {
        secure_probe_reason(endpoint, service, None, &Tls::new()).await
    }

    async fn secure_probe_reason(endpoint: &Endpoint, service: &str, secure: Option<&ProbeTls>, tls: &Tls) -> String {
        let dialer = Dialer::new();
        let outcome = tokio::time::timeout(PATIENCE, probe(endpoint, service, secure, (&dialer, tls), PATIENCE));
        match outcome.await.expect("a result in time") {
            Ok(()) => "pass".to_owned(),
            Err(ProbeError::Critical(reason)) => reason,
            Err(other) => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn standard_health_service_is_probed() {
        let (reporter, service) = tonic_health::server::health_reporter();
        let long = "a.very.long.Name".repeat(20);
        for (name, status) in [
            ("well", ServingStatus::Serving),
            (&long, ServingStatus::Serving),
            ("ill", ServingStatus::NotServing),
            ("odd", ServingStatus::Unknown),
        ] {
            reporter.set_service_status(name, status).await;
        }
        let server = Server::start(move |stream| {
            let service = TowerToHyperService::new(service.clone());
            async move {
                let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = http2.serve_connection(TokioIo::new(stream), service).await;
            }
        });
        let endpoint = server.await;
        let endpoint = endpoint.endpoint();
        let cases = [
            ("", "pass"), // the server as a whole
            ("well", "pass"),
            (&long, "pass"),
            ("ill", "grpc: NOT_SERVING"),
            ("odd", "grpc: UNKNOWN"),
            ("absent", "grpc: NOT_FOUND"),
        ];
        for (service, expected) in cases {
            assert_eq!(probe_reason(&endpoint, service).await, expected, "{service}");
        }
    }

    #[tokio::test]
    async fn server_with_tls_is_probed_by_its_name() {
        let (reporter, service) = tonic_health::server::health_reporter();
        reporter.set_service_status("ill", ServingStatus::NotServing).await;
        let (acceptor, authority) = tls_acceptor(&["grpc.example"], 2999, &[b"h2"]);
        let server = Server::start(move |stream| {
            let (service, acceptor) = (TowerToHyperService::new(service.clone()), acceptor.clone());
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = http2.serve_connection(TokioIo::new(stream), service).await;
            }
        });
        let endpoint = server.await;
        let endpoint = endpoint.endpoint();
        let named = ProbeTls { server_name: Some("grpc.example".to_owned()), ..ProbeTls::default() };
        let unverified = ProbeTls { skip_verify: true, ..ProbeTls::default() };
        let tls = Tls::trusting(authority);
        let cases = [
            ("", &named, "pass"),
            ("ill", &named, "grpc: NOT_SERVING"),
            ("", &unverified, "pass"),
            ("", &ProbeTls::default(), "tls: certificate for another name"),
        ];
        for (service, secure, expected) in cases {
            assert_eq!(secure_probe_reason(&endpoint, service, Some(secure), &tls).await, expected, "{secure:?}");
        }
        let plain = probe_reason(&endpoint, "").await;
        assert!(plain.starts_with("grpc: "), "{plain}");
    }

    #[tokio::test]
    async fn non_grpc_servers_are_critical() {
        assert_eq!(probe_reason(&closed_port(), "").await, "connection refused");
        let (http1, _) = Server::answering("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(probe_reason(&http1.endpoint(), "").await, "grpc: the server does not speak HTTP/2");
        let closing = Server::start(|_| async {}).await;
        let got = probe_reason(&closing.endpoint(), "").await;
        assert!(
            ["grpc: connection closed", "grpc: connection reset", "grpc: broken pipe"].contains(&got.as_str()),
            "{got}"
        );
    }

    #[test]
    fn malformed_responses_are_critical() {
        let cases: &[(&[u8], &str)] = &[
            (b"\0\0\0\0\x02\x08\x01", "pass"),
            (b"\0\0\0\0\x02\x08\x02", "NOT_SERVING"),
            (b"\0\0\0\0\x02\x08\x03", "SERVICE_UNKNOWN"),
            (b"\0\0\0\0\x00", "UNKNOWN"),
            (b"\0\0\0\0\x02\x08\x09", "unknown serving status"),
            // fields that a later version may add, before and after
            (b"\0\0\0\0\x14\x12\x02ab\x1912345678\x2d1234\x08\x01", "pass"),
            (b"\0\0\0\0\x04\x08\x01\x10\x05", "pass"),
            // malformed
            (b"", "invalid HealthCheckResponse"),
            (b"\0\0\0\0", "invalid HealthCheckResponse"),
            (b"\x01\0\0\0\x02\x08\x01", "invalid HealthCheckResponse"),
            (b"\0\0\0\0\x03\x08\x01", "invalid HealthCheckResponse"),
            (b"\0\0\0\0\x01\x08", "invalid HealthCheckResponse"),
            (b"\0\0\0\0\x02\x12\x7f", "invalid HealthCheckResponse"),
            (b"\0\0\0\0\x0b\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "invalid HealthCheckResponse"),
            (b"\0\0\0\0\x0c\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "invalid HealthCheckResponse"),
            (b"\0\0\0\0\x01\x0f", "invalid HealthCheckResponse"),
        ];
        for (framed, expected) in cases {
            let got = evaluate(framed).map_or_else(|failure| failure, |()| ProbeError::critical("grpc: pass"));
            assert_eq!(got, ProbeError::critical(format!("grpc: {expected}")), "{framed:?}");
        }
    }
}
