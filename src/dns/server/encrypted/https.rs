//! DNS over HTTPS: a message is the body of a request, or base64url in its query string (RFC 8484 §4.1).

use std::{
    convert::Infallible,
    error::Error,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use data_encoding::BASE64URL_NOPAD;
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tracing::debug;

use super::HANDSHAKE;
use crate::dns::{
    engine::Engine,
    recursion::upstream_reply::least_ttl,
    server::{
        accept::accept,
        tcp::{MAX_QUERY, MAX_WAITING, Shared},
    },
    tap::{Flow, Protocol},
};

/// Path of queries, which all public resolvers use.
const PATH: &str = "/dns-query";
/// Media type of messages (RFC 8484 §6).
const MEDIA_TYPE: &str = "application/dns-message";
/// Maximum octets read of a request body. Queries are shorter, but clients take a response before the end of their request
/// for a broken connection.
const MAX_BODY: usize = 64 * 1024;
/// Maximum octets of a request head: a query in the path has up to 5,500.
const MAX_HEAD: u32 = 16 * 1024;

/// Serves connections until shutdown, then waits for running requests.
pub async fn serve<E>(listener: TcpListener, shared: Shared, engine: E, config: Arc<ServerConfig>)
where
    E: Fn() -> Engine + Clone + Send + Sync + 'static,
{
    let (clients, shutdown) = (shared.clients.clone(), shared.shutdown.clone());
    let acceptor = TlsAcceptor::from(config);
    let serve = move |stream, client: SocketAddr| {
        let (shared, engine, acceptor) = (shared.clone(), engine.clone(), acceptor.clone());
        async move {
            if let Err(error) = connection(stream, client, shared, engine, acceptor).await {
                debug!(%client, %error, "HTTPS connection ended");
            }
        }
    };
    accept(listener, &clients, &shutdown, serve).await;
}

/// Activity of a connection, to detect that it is idle.
struct Activity {
    running: AtomicUsize,
    last: Mutex<Instant>,
}

async fn connection<E>(
    stream: TcpStream,
    client: SocketAddr,
    shared: Shared,
    engine: E,
    acceptor: TlsAcceptor,
) -> Result<(), Box<dyn Error + Send + Sync>>
where
    E: Fn() -> Engine + Clone + Send + Sync + 'static,
{
    let flow = shared.flow(Protocol::Https, &stream, client);
    let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let activity = Arc::new(Activity { running: AtomicUsize::new(0), last: Mutex::new(Instant::now()) });
    let (clients, shutdown) = (shared.clients.clone(), shared.shutdown.clone());
    let seen = activity.clone();
    let service = service_fn(move |request| {
        let (shared, engine, activity) = (shared.clone(), engine.clone(), activity.clone());
        async move {
            activity.running.fetch_add(1, Ordering::Relaxed);
            let response = respond(request, &shared, engine(), flow).await;
            *activity.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            activity.running.fetch_sub(1, Ordering::Relaxed);
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_WAITING as u32)
        .max_header_list_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    loop {
        let last = *seen.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_idle = seen.running.load(Ordering::Relaxed) == 0;
        let deadline = if is_idle { last } else { Instant::now() } + clients.idle_timeout();
        tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            () = shutdown.cancelled() => break,
            () = sleep_until(deadline) => {
                if is_idle && *seen.last.lock().unwrap_or_else(PoisonError::into_inner) == last {
                    break;
                }
            }
        }
    }
    connection.as_mut().graceful_shutdown();
    Ok(timeout(HANDSHAKE, connection).await??)
}

/// Responds to one request.
async fn respond(request: Request<Incoming>, shared: &Shared, engine: Engine, flow: Flow) -> Response<Full<Bytes>> {
    let packet = match message(request).await {
        Ok(packet) => packet,
        Err((status, text)) => return error_response(status, text),
    };
    let Some(reply) = shared.respond(engine, &packet, flow).await else {
        return error_response(StatusCode::BAD_REQUEST, "not a DNS query");
    };
    // HTTP caches may keep the response for as long as resolvers (RFC 8484 §5.1).
    let age = format!("max-age={}", least_ttl(&reply).unwrap_or(0));
    let mut response = Response::new(Full::from(reply));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.extend(HeaderValue::from_str(&age).ok().map(|age| (CACHE_CONTROL, age)));
    response
}

/// Returns the DNS message of a request.
async fn message(request: Request<Incoming>) -> Result<Bytes, (StatusCode, &'static str)> {
    let too_long = (StatusCode::PAYLOAD_TOO_LARGE, "a DNS query has at most 4096 octets");
    if request.uri().path() != PATH {
        return Err((StatusCode::NOT_FOUND, "not found; send queries to /dns-query"));
    }
    match *request.method() {
        Method::GET => {
            let parameters = request.uri().query().unwrap_or_default().split('&');
            let text = parameters.filter_map(|pair| pair.strip_prefix("dns=")).next();
            let text = text.ok_or((StatusCode::BAD_REQUEST, "the parameter `dns` is missing"))?;
            if text.len() > MAX_QUERY.div_ceil(3) * 4 {
                return Err(too_long);
            }
            let octets = BASE64URL_NOPAD.decode(text.trim_end_matches('=').as_bytes());
            octets.map(Bytes::from).map_err(|_| (StatusCode::BAD_REQUEST, "the parameter `dns` is not base64url"))
        }
        Method::POST => {
            let is_message = request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == MEDIA_TYPE);
            let body = timeout(HANDSHAKE, Limited::new(request.into_body(), MAX_BODY).collect()).await;
            let body = body.map_err(|_| (StatusCode::REQUEST_TIMEOUT, "the body was not complete in time"))?;
            let body = body.map(Collected::to_bytes).map_err(|_| too_long)?;
            match (is_message, body.len()) {
                (false, _) => Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/dns-message")),
                (true, ..=MAX_QUERY) => Ok(body),
                (true, _) => Err(too_long),
            }
        }
        _ => Err((StatusCode::METHOD_NOT_ALLOWED, "use GET or POST")),
    }
}

fn error_response(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, POST"));
    }
    response
}
