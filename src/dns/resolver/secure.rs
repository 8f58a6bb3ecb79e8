//! Upstreams over TLS (RFC 7858) and HTTPS (RFC 8484).
//!
//! Each upstream has one connection, opened on demand, shared by all queries and closed when idle. A task owns it. Queries
//! pending when it breaks are retried once over a new connection, since servers close idle connections without notice.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode, Version,
    body::Bytes,
    client::conn::http2::{self, SendRequest},
    header::{ACCEPT, CONTENT_TYPE},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::client::TlsStream;
use tracing::debug;

use super::{error::UpstreamError, reachable::reachable};
use crate::{
    dns::{
        collector::{Tap, TappedQuery},
        tap::{Kind, Protocol},
        tls_client::{Authorities, TlsClient},
    },
    model::upstream_address::{UpstreamAddress, UpstreamTransport},
};

/// Idle timeout of a connection (RFC 7858 §3.4 leaves it to both ends; many servers close after 10 s).
const IDLE: Duration = Duration::from_secs(9);
/// Time without data after which a connection with pending queries is dead.
const REPLY_TIMEOUT: Duration = Duration::from_secs(4);
/// Timeout of opening a connection.
const OPEN_TIMEOUT: Duration = Duration::from_secs(4);
/// Capacity of the queue of a connection.
const QUEUE: usize = 256;
/// Maximum number of pending queries on one connection.
const PIPELINE: usize = 1024;
/// Maximum octets of a message, and of an HTTP body.
const MAX_MESSAGE: usize = 65_535;
/// Media type of messages over HTTPS (RFC 8484 §6).
const MEDIA_TYPE: &str = "application/dns-message";

/// Connections to the encrypted upstreams.
pub(super) struct Secure {
    client: Arc<TlsClient>,
    connections: Mutex<HashMap<UpstreamAddress, mpsc::Sender<PendingQuery>>>,
    tap: Option<Tap>,
}

/// Query, and the receiver of its reply.
struct PendingQuery {
    message: Vec<u8>,
    to: oneshot::Sender<Result<Vec<u8>, UpstreamError>>,
    /// The query at the tap, once it is sent.
    tapped: Option<TappedQuery>,
}

/// Records the messages of one connection, if there is a tap.
#[derive(Clone)]
struct ConnectionTap {
    tap: Option<Tap>,
    protocol: Protocol,
    own: SocketAddr,
    upstream: SocketAddr,
}

impl ConnectionTap {
    fn new(tap: Option<Tap>, protocol: Protocol, stream: &TlsStream<TcpStream>) -> io::Result<Self> {
        let stream = stream.get_ref().0;
        Ok(Self { tap, protocol, own: stream.local_addr()?, upstream: stream.peer_addr()? })
    }

    /// Records a query that was just sent.
    fn sent(&self, message: &[u8]) -> Option<TappedQuery> {
        self.tap.as_ref().map(|tap| tap.forwarded(self.protocol, Ok(self.own), self.upstream, message))
    }
}

impl Secure {
    /// Creates an empty set of connections.
    pub(super) fn new(authorities: Authorities, tap: Option<Tap>) -> Self {
        Self { client: Arc::new(TlsClient::new(authorities)), connections: Mutex::default(), tap }
    }

    /// Returns what records the messages of all upstreams.
    pub(super) fn tap(&self) -> Option<&Tap> {
        self.tap.as_ref()
    }

    /// Sends a message to an upstream and returns the reply. Has no timeout of its own.
    pub(super) async fn ask(&self, server: &UpstreamAddress, message: &[u8]) -> Result<Vec<u8>, UpstreamError> {
        loop {
            let (connection, is_new) = self.connection(server);
            let (to, reply) = oneshot::channel();
            let sent = connection.send(PendingQuery { message: message.to_vec(), to, tapped: None }).await;
            match reply.await {
                Ok(result) if sent.is_ok() => return result,
                _ if is_new => return Err(UpstreamError::Io(io::ErrorKind::ConnectionAborted.into())),
                _ => {}
            }
        }
    }

    fn connection(&self, server: &UpstreamAddress) -> (mpsc::Sender<PendingQuery>, bool) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = connections.get(server).filter(|connection| !connection.is_closed()) {
            return (connection.clone(), false);
        }
        connections.retain(|_, connection| !connection.is_closed());
        let (connection, queries) = mpsc::channel(QUEUE);
        connections.insert(server.clone(), connection.clone());
        tokio::spawn(serve(server.clone(), self.client.clone(), self.tap.clone(), queries));
        (connection, true)
    }
}

/// Opens a connection and serves its queries until it ends.
async fn serve(
    server: UpstreamAddress,
    client: Arc<TlsClient>,
    tap: Option<Tap>,
    mut queries: mpsc::Receiver<PendingQuery>,
) {
    let opened =
        timeout(OPEN_TIMEOUT, open(&server, &client)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let ended = match (opened, &server.transport) {
        (Ok(stream), UpstreamTransport::Https { name, path }) => {
            https(stream, tap, &server, name.as_deref(), path, &mut queries).await
        }
        (Ok(stream), _) => tls(stream, tap, &mut queries).await,
        (Err(error), _) => {
            // All waiting queries fail with the error.
            let text = error.to_string();
            queries.close();
            while let Some(query) = queries.recv().await {
                let _ = query.to.send(Err(UpstreamError::Secure(text.clone())));
            }
            return;
        }
    };
    if let Err(error) = ended {
        debug!(upstream = %server, %error, "connection ended");
    }
}

async fn open(server: &UpstreamAddress, client: &TlsClient) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(reachable(server)?).await?;
    stream.set_nodelay(true)?;
    client.connect(server, stream).await
}

/// Exchanges messages with a length prefix; replies may come in any order (RFC 7858 §3.3).
async fn tls(
    mut stream: TlsStream<TcpStream>,
    tap: Option<Tap>,
    queries: &mut mpsc::Receiver<PendingQuery>,
) -> io::Result<()> {
    let tap = ConnectionTap::new(tap, Protocol::Tls, &stream)?;
    let mut waiting = HashMap::<u16, PendingQuery>::new();
    let (mut input, mut next, mut deadline) = (Vec::new(), 0_u16, Instant::now() + IDLE);
    loop {
        tokio::select! {
            query = queries.recv(), if waiting.len() < PIPELINE => {
                let Some(mut query) = query else { return Ok(()) };
                // Ids are assigned per connection; fewer than half of them are in use.
                while waiting.contains_key(&next) {
                    next = next.wrapping_add(1);
                }
                let mut framed = (query.message.len() as u16).to_be_bytes().to_vec();
                framed.extend(next.to_be_bytes());
                framed.extend_from_slice(query.message.get(2..).unwrap_or_default());
                if waiting.is_empty() {
                    deadline = Instant::now() + REPLY_TIMEOUT;
                }
                stream.write_all(&framed).await?;
                stream.flush().await?;
                query.tapped = tap.sent(&framed[2..]);
                waiting.insert(next, query);
            }
            read = stream.read_buf(&mut input) => {
                if read? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                while let Some((frame, rest)) = first_frame(&input) {
                    if let Some(id) = frame.first_chunk()
                        && let Some(query) = waiting.remove(&u16::from_be_bytes(*id))
                    {
                        if let Some(tapped) = &query.tapped {
                            tapped.response(Kind::Forwarder, frame);
                        }
                        let reply = [&query.message[..2], &frame[2..]].concat();
                        let _ = query.to.send(Ok(reply));
                    }
                    let done = input.len() - rest;
                    input.drain(..done);
                }
                deadline = Instant::now() + if waiting.is_empty() { IDLE } else { REPLY_TIMEOUT };
            }
            () = sleep_until(deadline) => {
                return if waiting.is_empty() { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) };
            }
        }
    }
}

/// Returns the first message of the input without its length prefix, and the number of octets behind it.
fn first_frame(input: &[u8]) -> Option<(&[u8], usize)> {
    let (length, rest) = input.split_first_chunk()?;
    let (frame, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    Some((frame, rest.len()))
}

/// Sends each message as an HTTP/2 request, concurrently.
async fn https(
    stream: TlsStream<TcpStream>,
    tap: Option<Tap>,
    server: &UpstreamAddress,
    name: Option<&str>,
    path: &str,
    queries: &mut mpsc::Receiver<PendingQuery>,
) -> io::Result<()> {
    let uri = match name {
        Some(name) => format!("https://{name}:{}{path}", server.address.port()),
        None => format!("https://{}{path}", server.address),
    };
    let tap = ConnectionTap::new(tap, Protocol::Https, &stream)?;
    let opened = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = opened.map_err(io::Error::other)?;
    tokio::pin!(connection);
    let mut running = JoinSet::new();
    let mut deadline = Instant::now() + IDLE;
    loop {
        tokio::select! {
            ended = &mut connection => return ended.map_err(io::Error::other),
            query = queries.recv(), if running.len() < PIPELINE => {
                let Some(query) = query else { return Ok(()) };
                let (sender, uri, tap) = (sender.clone(), uri.clone(), tap.clone());
                running.spawn(async move {
                    let posted = timeout(REPLY_TIMEOUT, post(sender, uri, &tap, &query.message)).await;
                    let posted = posted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                    let is_alive = posted.as_ref().err().is_none_or(|error| error.kind() != io::ErrorKind::TimedOut);
                    // After a broken connection the query is retried over a new one.
                    match posted {
                        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                        posted => drop(query.to.send(posted.map_err(UpstreamError::Io))),
                    }
                    is_alive
                });
            }
            Some(done) = running.join_next(), if !running.is_empty() => {
                if !done.unwrap_or(false) {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                deadline = Instant::now() + IDLE;
            }
            () = sleep_until(deadline), if running.is_empty() => return Ok(()),
        }
    }
}

async fn post(
    mut sender: SendRequest<Full<Bytes>>,
    uri: String,
    tap: &ConnectionTap,
    message: &[u8],
) -> io::Result<Vec<u8>> {
    // The id is 0, so that equal queries are equal to HTTP caches (RFC 8484 §4.1).
    let body = [&[0, 0], message.get(2..).unwrap_or_default()].concat();
    let request = Request::builder().method(Method::POST).version(Version::HTTP_2).uri(uri);
    let request = request.header(CONTENT_TYPE, MEDIA_TYPE).header(ACCEPT, MEDIA_TYPE);
    let tapped = tap.sent(&body);
    let request = request.body(Full::from(body)).map_err(io::Error::other)?;
    let response = sender.send_request(request).await;
    let response = response.map_err(|error| io::Error::new(io::ErrorKind::ConnectionReset, error))?;
    if response.status() != StatusCode::OK {
        return Err(io::Error::other(format!("HTTP status {}", response.status())));
    }
    let reply = Limited::new(response.into_body(), MAX_MESSAGE).collect().await.map_err(io::Error::other)?;
    let mut reply = reply.to_bytes().to_vec();
    if let Some(tapped) = tapped {
        tapped.response(Kind::Forwarder, &reply);
    }
    if let Some(id) = reply.first_chunk_mut::<2>() {
        id.copy_from_slice(&message[..2]);
    }
    Ok(reply)
}
