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
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::{Code, body::Body};
use tracing::{Instrument, debug, debug_span};

use super::{Settings, authority::Authority, backend::Backend, calls::Calls, gateway, services::Services};
use crate::accept::{accept_connections, set_options, too_late_for_requests};

/// Connection limit of a listener. A client of etcd keeps one connection and puts all calls into it.
const MAX_CONNECTIONS: usize = 4096;
/// Calls of one connection at a time: watches and waits for locks last.
const MAX_STREAMS: u32 = 4096;
/// Time limit for a TLS handshake with the first octets behind it, and for the head of a request over HTTP/1.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time without an open call after which a connection is closed: its slot is free for others, and clients of gRPC connect again
/// with their next call. Also the time limit for the first call and for the head of a request over HTTP/2.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Octets of a connection that may be on their way. The library also takes half of them as its budget for small DATA frames that
/// are not read yet, and counts some 250 octets for each: this has room for 10,000 watch requests in a burst.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Octets of a call that may be on their way: a request of the largest size needs no pause.
const STREAM_WINDOW: u32 = 2 << 20;
/// Largest list of headers of a request, in octets.
const MAX_HEADERS: u32 = 16 * 1024;
/// Pause after which a silent HTTP/2 client is pinged; without an answer in as long again it is disconnected.
const PING_PAUSE: Duration = Duration::from_secs(20);
/// Time for open calls to finish at shutdown. Watches never finish by themselves.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Server of etcd's API. All its listeners share the state of the cluster.
#[derive(Clone)]
pub struct Server {
    services: Services,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    shutdown: CancellationToken,
}

/// Time limits of a connection.
#[derive(Clone, Copy)]
struct Limits {
    head: Duration,
    idle: Duration,
}

impl Server {
    /// Returns a server that serves until shutdown. Must be called within a runtime.
    pub fn new(settings: Settings, shutdown: CancellationToken) -> Self {
        let tls = settings.tls.clone();
        let services = Services::new(Backend::new(settings, shutdown.clone()));
        Self { services, tls, limits: Limits { head: HEAD_TIMEOUT, idle: IDLE_TIMEOUT }, shutdown }
    }

    /// Serves connections of a listener until shutdown.
    ///
    /// gRPC needs HTTP/2: the TLS configuration offers `h2` and `http/1.1` by ALPN.
    pub async fn serve(self, listener: TcpListener) {
        self.services.backend.ready().await;
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let accept = async || {
            let (stream, client) = listener.accept().await?;
            set_options(&stream);
            Ok::<_, io::Error>((stream, client))
        };
        let admit = |_: &_| connections.clone().try_acquire_owned().map_err(|_| "too many connections are open");
        let serve = |stream: TcpStream, client: &std::net::SocketAddr| {
            self.clone().serve_connection(stream).instrument(debug_span!("etcd", %client))
        };
        accept_connections("etcd", accept, admit, serve, &self.shutdown).await;
    }

    async fn serve_connection(self, stream: TcpStream) {
        let deadline = Instant::now() + self.limits.head;
        let Some(tls) = &self.tls else {
            return self.serve_http(stream, deadline).await;
        };
        match timeout_at(deadline, Box::pin(tls.accept(stream))).await {
            Ok(Ok(stream)) => self.serve_http(stream, deadline).await,
            Ok(Err(error)) => debug!(%error, "TLS handshake failed"),
            Err(_) => debug!("TLS handshake timed out"),
        }
    }

    /// Serves a connection whose client must begin to speak HTTP until a deadline.
    async fn serve_http<S>(&self, stream: S, deadline: Instant)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let too_late = async {
            tokio::select! {
                () = sleep_until(deadline) => {}
                () = too_late_for_requests(&self.shutdown) => {}
            }
        };
        let begun = tokio::select! {
            biased;
            begun = Authority::begin(stream) => begun,
            () = too_late => return debug!("connection closed: no request in time"),
        };
        let stream = match begun {
            Ok(stream) => stream,
            Err(error) => return debug!(%error, "connection failed"),
        };
        let mut http = Builder::new(TokioExecutor::new());
        http.http1().timer(TokioTimer::new()).header_read_timeout(self.limits.head).max_buf_size(MAX_HEADERS as usize);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADERS)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_stream_window_size(STREAM_WINDOW)
            .keep_alive_interval(Some(PING_PAUSE))
            .keep_alive_timeout(PING_PAUSE);
        let calls = Calls::default();
        let service = service_fn(|request| {
            let (services, calls) = (self.services.clone(), calls.clone());
            async move { Ok::<_, Infallible>(calls.counted(respond(&services, request)).await) }
        });
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        let closing = async {
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                () = calls.idle(self.limits.idle) => debug!("connection closed: no open call"),
            }
        };
        let served = tokio::select! {
            // The first request is read before a shutdown closes the connection.
            biased;
            served = connection.as_mut() => served,
            () = closing => {
                connection.as_mut().graceful_shutdown();
                timeout(SHUTDOWN_TIMEOUT, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = served {
            debug!(%error, "connection failed");
        }
    }
}

/// Sets socket options. The kernel closes connections to dead hosts (tcp(7), TCP_USER_TIMEOUT).
async fn respond(services: &Services, request: Request<Incoming>) -> Response<Body> {
    // Programs do not send an origin; a web page of another site could otherwise read and write keys through a browser.
    if request.headers().contains_key(header::ORIGIN) {
        let (status, text) = (StatusCode::FORBIDDEN, "requests of web pages are rejected");
        return gateway::refuse(request.map(Body::new), status, Code::PermissionDenied, text).await;
    }
    let content_type = request.headers().get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
    if content_type.is_some_and(|value| value.starts_with(b"application/grpc")) {
        services.call(request.map(Body::new)).await
    } else {
        gateway::respond(services, request.map(Body::new)).await
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::SocketAddr};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::{mpsc, watch},
        task::JoinSet,
    };
    use tokio_rustls::{
        TlsConnector,
        rustls::{
            ClientConfig, RootCertStore, ServerConfig,
            crypto::ring,
            pki_types::{PrivateKeyDer, ServerName},
        },
    };
    use tokio_util::sync::DropGuard;

    use super::*;
    use crate::{model::token::Tokens, store::request::Store};

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    /// Types of frames (RFC 9113 §6).
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RESET: u8 = 3;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    /// First octets of a request over HTTP/2, whose head goes on in a frame that does not come.
    const HALF_HEAD: &[u8] = &[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x83];

    /// Starts a server that needs a token and has short time limits.
    async fn start(tls: Option<TlsAcceptor>) -> (SocketAddr, DropGuard) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let settings = Settings {
            store: Store::new(mpsc::channel(1).0),
            tokens: Some(watch::channel(Tokens::default()).1),
            tls,
            client_urls: watch::channel(BTreeMap::new()).1,
        };
        let limits = Limits { head: Duration::from_millis(100), idle: Duration::from_millis(200) };
        let server = Server { limits, ..Server::new(settings, shutdown.clone()) };
        tokio::spawn(server.serve(listener));
        (address, shutdown.drop_guard())
    }

    fn certificate() -> (TlsAcceptor, TlsConnector) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let server =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let server = server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)))
    }

    /// Waits until the server has closed the connection.
    async fn assert_closed<S: AsyncRead + Unpin>(mut stream: S, sent: &[u8]) {
        let mut received = vec![];
        let closed = timeout(Duration::from_secs(20), stream.read_to_end(&mut received)).await;
        assert!(closed.is_ok(), "the connection stays open after {}", sent.escape_ascii());
    }

    /// Returns a frame on a stream.
    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&len[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    }

    /// Returns the head of a request by POST: http, :path, :authority and content-type by their indexes (RFC 7541 §A).
    fn head(path: &str, content_type: &str) -> Vec<u8> {
        let field = |head: &[u8], value: &str| [head, &[u8::try_from(value.len()).unwrap()], value.as_bytes()].concat();
        [vec![0x83, 0x86], field(&[0x04], path), field(&[0x01], "localhost"), field(&[0x0f, 0x10], content_type)]
            .concat()
    }

    /// Reads a frame: its head and its payload.
    async fn read_frame(received: &mut (impl AsyncRead + Unpin)) -> ([u8; 9], Vec<u8>) {
        let mut head = [0; 9];
        timeout(Duration::from_secs(20), received.read_exact(&mut head)).await.unwrap().unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        received.read_exact(&mut payload).await.unwrap();
        (head, payload)
    }

    /// Some clients lose a response that comes with a reset of its stream.
    #[tokio::test]
    async fn refused_request_is_read_before_its_response() {
        let (address, _shutdown) = start(None).await;
        // The second one needs a token.
        for path in ["/v3/none", "/v3/kv/range"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = [PREFACE, SETTINGS, &frame(HEADERS, 4, 1, &head(path, "application/json"))].concat();
            stream.write_all(&request).await.unwrap();
            stream.write_all(&[frame(DATA, 0, 1, b"{}"), frame(PING, 0, 0, &[1; 8])].concat()).await.unwrap();
            let mut seen = vec![];
            while !seen.ends_with(&[PING]) {
                let (head, _) = read_frame(&mut stream).await;
                seen.extend([head[3]].into_iter().filter(|kind| [DATA, HEADERS, RESET, PING].contains(kind)));
            }
            assert_eq!(seen, [PING], "{path}: no response while the request is incomplete");
            stream.write_all(&frame(DATA, 1, 1, b"{}")).await.unwrap();
            while !seen.ends_with(&[DATA]) {
                let (head, _) = read_frame(&mut stream).await;
                seen.extend([head[3]].into_iter().filter(|kind| [DATA, HEADERS, RESET].contains(kind)));
            }
            stream.write_all(&frame(PING, 0, 0, &[2; 8])).await.unwrap();
            while !seen.ends_with(&[PING]) {
                seen.push(read_frame(&mut stream).await.0[3]);
            }
            assert!(!seen.contains(&RESET), "{path}: {seen:?}");
        }
    }

    #[tokio::test]
    async fn burst_of_small_messages_is_served() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let settings = Settings {
            store: Store::new(mpsc::channel(1).0),
            tokens: None,
            tls: None,
            client_urls: watch::channel(BTreeMap::new()).1,
        };
        tokio::spawn(Server::new(settings, shutdown.clone()).serve(listener));
        let _stop = shutdown.drop_guard();
        let head = head("/etcdserverpb.Watch/Watch", "application/grpc");
        // A WatchRequest that asks for the progress. All of them fit into the first window of HTTP/2, of 65,535 octets.
        let request = frame(0, 0, 1, &[0, 0, 0, 0, 2, 0x1a, 0]);
        let burst = [PREFACE, SETTINGS, &frame(HEADERS, 4, 1, &head), &request.repeat(2_000)].concat();
        let (mut received, mut sent) = TcpStream::connect(address).await.unwrap().into_split();
        tokio::spawn(async move {
            sent.write_all(&[burst, frame(PING, 0, 0, &[7; 8])].concat()).await.unwrap();
            std::future::pending::<()>().await;
        });
        loop {
            let (head, payload) = read_frame(&mut received).await;
            assert!(head[3] != GOAWAY, "{}", payload.escape_ascii());
            if head[3] == PING && head[4] == 1 && payload == [7; 8] {
                return;
            }
        }
    }

    #[tokio::test]
    async fn client_that_sends_no_request_is_disconnected() {
        let http2 = [PREFACE, SETTINGS].concat();
        let cases: [&[u8]; 9] = [
            b"",
            b"P",
            &PREFACE[..12],
            PREFACE,
            &http2,
            &[&http2, HALF_HEAD].concat(),
            b"POST /v3/kv/range HTTP/1.1\r\nHost:",
            b"POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
            b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n",
        ];
        let (acceptor, connector) = certificate();
        let (plain, _plain) = start(None).await;
        let (secure, _secure) = start(Some(acceptor)).await;
        assert_closed(TcpStream::connect(secure).await.unwrap(), b"no handshake").await;
        let mut clients = JoinSet::new();
        for sent in cases.map(<[u8]>::to_vec) {
            let connector = connector.clone();
            clients.spawn(async move {
                let mut stream = TcpStream::connect(plain).await.unwrap();
                stream.write_all(&sent).await.unwrap();
                assert_closed(stream, &sent).await;
                let stream = TcpStream::connect(secure).await.unwrap();
                let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
                stream.write_all(&sent).await.unwrap();
                assert_closed(stream, &sent).await;
            });
        }
        clients.join_all().await;
    }
}
