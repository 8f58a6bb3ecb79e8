//! Probes over HTTP/2, on a connection of their own: the gRPC health protocol, and the ping frame.

pub(super) mod grpc;
pub(super) mod ping;

use std::time::Duration;

use h2::client::{Builder, Connection, SendRequest};
use hyper::body::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    connect::Dialer,
    error::ProbeError,
    tls::{Alpn, Tls, server_name},
};
use crate::model::service::{Endpoint, ProbeTls};

/// Maximum octets of response headers.
const MAX_HEADERS: u32 = 16 * 1024;

/// Stream of a connection, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

type Client = (SendRequest<Bytes>, Connection<Box<dyn Stream>, Bytes>);

/// Connects to the server and performs the handshakes of TLS, if any, and HTTP/2. `what` begins the reasons of failures.
async fn connect(
    endpoint: &Endpoint,
    secure: Option<&ProbeTls>,
    (dialer, tls): (&Dialer, &Tls),
    patience: Duration,
    what: &str,
) -> Result<Client, ProbeError> {
    let name = secure.map(|secure| server_name(secure, &endpoint.host)).transpose()?;
    let stream = dialer.connect(&endpoint.host, endpoint.port, patience).await?;
    stream.set_nodelay(true)?;
    let stream: Box<dyn Stream> = match secure.zip(name) {
        Some((secure, name)) => {
            let stream = tls.connect(stream, name, secure.skip_verify, Alpn::Http2).await?;
            Box::new(stream)
        }
        None => Box::new(stream),
    };
    let handshake = Builder::new().enable_push(false).max_header_list_size(MAX_HEADERS).handshake(stream);
    handshake.await.map_err(|error| failure(&error, what))
}

fn failure(error: &h2::Error, what: &str) -> ProbeError {
    if let Some(io) = error.get_io() {
        return ProbeError::from(io).of(what);
    }
    if error.is_remote() {
        return ProbeError::critical(format!("{what}: {error}"));
    }
    // Local errors mean that the response was not HTTP/2.
    ProbeError::critical(format!("{what}: the server does not speak HTTP/2"))
}
