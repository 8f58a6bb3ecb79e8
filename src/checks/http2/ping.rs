//! HTTP/2 ping probe: passes if the server acknowledges a ping frame (RFC 9113 §6.7).

use std::time::Duration;

use h2::Ping;

use super::{connect, failure};
use crate::{
    checks::{
        connect::{Dialer, drive},
        error::ProbeError,
        tls::Tls,
    },
    model::service::{Endpoint, ProbeTls},
};

const WHAT: &str = "http/2";

pub(in crate::checks) async fn probe(
    endpoint: &Endpoint,
    secure: Option<&ProbeTls>,
    (dialer, tls): (&Dialer, &Tls),
    patience: Duration,
) -> Result<(), ProbeError> {
    let (sender, mut connection) = connect(endpoint, secure, (dialer, tls), patience, WHAT).await?;
    let mut pings = connection.ping_pong().ok_or_else(|| ProbeError::critical("http/2: no ping can be sent"))?;
    tokio::select! {
        biased;
        pong = pings.ping(Ping::opaque()) => {
            pong.map_err(|error| failure(&error, WHAT))?;
        }
        ended = &mut connection => {
            return Err(match ended {
                Ok(()) => ProbeError::critical("http/2: connection closed"),
                Err(error) => failure(&error, WHAT),
            });
        }
    }
    // The connection ends with its last sender.
    drop(sender);
    drive(connection, async { Ok(()) }).await
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::{TokioExecutor, TokioIo};

    use super::*;
    use crate::checks::fixtures::{Server, closed_port, tls_acceptor};

    const PATIENCE: Duration = Duration::from_secs(5);

    async fn probe_reason(endpoint: &Endpoint, secure: Option<&ProbeTls>, tls: &Tls) -> String {
        let dialer = Dialer::new();
        match probe(endpoint, secure, (&dialer, tls), PATIENCE).await {
            Ok(()) => "pass".to_owned(),
            Err(ProbeError::Critical(reason)) => reason,
            Err(other) => panic!("{other:?}"),
        }
    }

    async fn serve(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static) {
        let service = hyper::service::service_fn(|_| async {
            Ok::<_, std::convert::Infallible>(hyper::Response::new(String::new()))
        });
        let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = http2.serve_connection(TokioIo::new(stream), service).await;
    }

    #[tokio::test]
    async fn acknowledged_ping_passes() {
        let (acceptor, authority) = tls_acceptor(&["h2.example", "127.0.0.1"], 2999, &[b"h2"]);
        let tls = Tls::trusting(authority);
        let secure = Server::start(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                serve(stream).await;
            }
        });
        let (secure, plain) = (secure.await, Server::start(serve).await);
        let (http1, _) = Server::answering("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        let named = |name: &str| ProbeTls { server_name: Some(name.to_owned()), ..ProbeTls::default() };
        let unverified = ProbeTls { skip_verify: true, ..named("other.example") };
        let cases = [
            (plain.endpoint(), None, "pass"),
            (secure.endpoint(), Some(ProbeTls::default()), "pass"),
            (secure.endpoint(), Some(named("h2.example")), "pass"),
            (secure.endpoint(), Some(named("other.example")), "tls: certificate for another name"),
            (secure.endpoint(), Some(unverified), "pass"),
            (plain.endpoint(), Some(ProbeTls::default()), "tls: response is not TLS"),
            (http1.endpoint(), None, "http/2: the server does not speak HTTP/2"),
            (closed_port(), None, "connection refused"),
        ];
        for (endpoint, secure, expected) in cases {
            assert_eq!(probe_reason(&endpoint, secure.as_ref(), &tls).await, expected, "{endpoint} {secure:?}");
        }
    }
}
