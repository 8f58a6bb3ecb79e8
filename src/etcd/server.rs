//! Server of etcd's API: connections and their limits, and the choice between gRPC and JSON.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use hyper::{
    body::Incoming,
    http::{Request, Response, StatusCode, header},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::{Code, body::Body};
use tracing::{Instrument, debug, debug_span};

use super::{Settings, authority::Authority, backend::Backend, gateway, services::Services};
use crate::accept::accept_connections;

/// Connection limit of a listener. A client of etcd keeps one connection and puts all calls into it.
const MAX_CONNECTIONS: usize = 4096;
/// Calls of one connection at a time: watches and waits for locks last.
const MAX_STREAMS: u32 = 4096;
/// Time limit for a TLS handshake, for the first octets of a connection, and for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest list of headers of a request, in octets.
const MAX_HEADERS: u32 = 16 * 1024;
/// Time after which a client that reads nothing is disconnected.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after which a silent HTTP/2 client is pinged; without an answer in as long again it is disconnected.
const PING_PAUSE: Duration = Duration::from_secs(20);
/// Time for open calls to finish at shutdown. Watches never finish by themselves.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves connections until shutdown.
///
/// gRPC needs HTTP/2: the TLS configuration offers `h2` and `http/1.1` by ALPN.
pub async fn serve(listener: TcpListener, settings: Settings, shutdown: CancellationToken) {
    let tls = settings.tls.clone();
    let services = Services::new(Backend::new(settings, shutdown.clone()).await);
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accept = async || {
        let (stream, client) = listener.accept().await?;
        set_options(&stream);
        Ok::<_, io::Error>((stream, client))
    };
    let admit = |_: &_| connections.clone().try_acquire_owned().map_err(|_| "too many connections are open");
    let serve = |stream: TcpStream, client: &std::net::SocketAddr| {
        let connection = serve_connection(stream, tls.clone(), services.clone(), shutdown.clone());
        connection.instrument(debug_span!("etcd", %client))
    };
    accept_connections("etcd", accept, admit, serve, &shutdown).await;
}

/// Sets socket options. The kernel closes connections to dead hosts (tcp(7), TCP_USER_TIMEOUT).
fn set_options(stream: &TcpStream) {
    let set = stream.set_nodelay(true).and_then(|()| SockRef::from(stream).set_tcp_user_timeout(Some(WRITE_TIMEOUT)));
    if let Err(error) = set {
        debug!(%error, "cannot set options of a connection");
    }
}

async fn serve_connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    services: Services,
    shutdown: CancellationToken,
) {
    let Some(tls) = tls else {
        // A connection without a first octet would not be in HTTP yet, and without its time limits.
        if timeout(HEAD_TIMEOUT, stream.readable()).await.is_ok() {
            serve_http(stream, services, shutdown).await;
        }
        return;
    };
    match timeout(HEAD_TIMEOUT, Box::pin(tls.accept(stream))).await {
        Ok(Ok(stream)) => serve_http(stream, services, shutdown).await,
        Ok(Err(error)) => debug!(%error, "TLS handshake failed"),
        Err(_) => debug!("TLS handshake timed out"),
    }
}

async fn serve_http<S>(stream: S, services: Services, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEADERS as usize);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS)
        .adaptive_window(true)
        .keep_alive_interval(Some(PING_PAUSE))
        .keep_alive_timeout(PING_PAUSE);
    let service = service_fn(|request| {
        let services = services.clone();
        async move { Ok::<_, Infallible>(respond(&services, request).await) }
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(Authority::new(stream)), service));
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(SHUTDOWN_TIMEOUT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = served {
        debug!(%error, "connection failed");
    }
}

async fn respond(services: &Services, request: Request<Incoming>) -> Response<Body> {
    // Programs do not send an origin; a web page of another site could otherwise read and write keys through a browser.
    if request.headers().contains_key(header::ORIGIN) {
        return gateway::error(StatusCode::FORBIDDEN, Code::PermissionDenied, "requests of web pages are rejected");
    }
    let content_type = request.headers().get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
    if content_type.is_some_and(|value| value.starts_with(b"application/grpc")) {
        services.call(request.map(Body::new)).await
    } else {
        gateway::respond(services, request.map(Body::new)).await
    }
}
