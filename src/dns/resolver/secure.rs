//! Upstreams over TLS (RFC 7858) and HTTPS (RFC 8484).
//!
//! A connection for each, opened when somebody asks, shared by all questions, closed when idle. A task owns it; what it had
//! in hand when it breaks is asked once more over a new one, since servers close idle connections without a word.

use std::{
    collections::HashMap,
    io,
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
    sync::{OnceCell, mpsc, oneshot},
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};
use tracing::debug;

use super::error::UpstreamError;
use crate::model::upstream_address::{UpstreamAddress, UpstreamTransport};

/// How long a connection is kept without questions (RFC 7858 §3.4 leaves it to both ends; many servers close after 10 s).
const IDLE: Duration = Duration::from_secs(9);
/// How long a connection may be silent while it owes replies: then it is dead.
const SILENCE: Duration = Duration::from_secs(4);
/// How long opening a connection may take.
const OPEN: Duration = Duration::from_secs(4);
/// Questions that wait for one connection.
const QUEUE: usize = 256;
/// Questions that were sent and not answered on one connection.
const PIPELINE: usize = 1024;
/// Octets of the longest message, and more than any HTTP body that can be one.
const MAX_MESSAGE: usize = 65_535;
/// What a message over HTTPS is (RFC 8484 §6).
const MEDIA_TYPE: &str = "application/dns-message";

/// Reads which authorities this host trusts; takes milliseconds.
pub type Authorities = fn() -> RootCertStore;

/// Connections to all encrypted upstreams.
pub(super) struct Secure {
    authorities: Authorities,
    /// With those that this host trusted when the first connection was opened.
    roots: OnceCell<Arc<RootCertStore>>,
    lines: Mutex<HashMap<UpstreamAddress, mpsc::Sender<Call>>>,
}

/// A message, and where its reply goes.
struct Call {
    message: Vec<u8>,
    to: oneshot::Sender<Result<Vec<u8>, UpstreamError>>,
}

impl Secure {
    /// No connection so far.
    pub(super) fn new(authorities: Authorities) -> Self {
        Self { authorities, roots: OnceCell::new(), lines: Mutex::default() }
    }

    /// Has a message answered by an upstream, for as long as the caller waits.
    pub(super) async fn ask(&self, server: &UpstreamAddress, message: &[u8]) -> Result<Vec<u8>, UpstreamError> {
        let authorities = self.authorities;
        let read = async || Arc::new(spawn_blocking(authorities).await.unwrap_or_else(|_| RootCertStore::empty()));
        let roots = self.roots.get_or_init(read).await;
        loop {
            let (line, is_new) = self.line(server, roots);
            let (to, reply) = oneshot::channel();
            let sent = line.send(Call { message: message.to_vec(), to }).await;
            match reply.await {
                Ok(result) if sent.is_ok() => return result,
                _ if is_new => return Err(UpstreamError::Io(io::ErrorKind::ConnectionAborted.into())),
                _ => {}
            }
        }
    }

    fn line(&self, server: &UpstreamAddress, roots: &Arc<RootCertStore>) -> (mpsc::Sender<Call>, bool) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(server).filter(|line| !line.is_closed()) {
            return (line.clone(), false);
        }
        lines.retain(|_, line| !line.is_closed());
        let (line, calls) = mpsc::channel(QUEUE);
        lines.insert(server.clone(), line.clone());
        tokio::spawn(serve(server.clone(), roots.clone(), calls));
        (line, true)
    }
}

/// A connection from its opening to its end.
async fn serve(server: UpstreamAddress, roots: Arc<RootCertStore>, mut calls: mpsc::Receiver<Call>) {
    let opened = timeout(OPEN, open(&server, roots)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let ended = match (opened, &server.way) {
        (Ok(stream), UpstreamTransport::Https { name, path }) => {
            https(stream, &server, name.as_deref(), path, &mut calls).await
        }
        (Ok(stream), _) => tls(stream, &mut calls).await,
        (Err(error), _) => {
            // Those who waited for it hear why.
            let text = error.to_string();
            calls.close();
            while let Some(call) = calls.recv().await {
                let _ = call.to.send(Err(UpstreamError::Secure(text.clone())));
            }
            return;
        }
    };
    if let Err(error) = ended {
        debug!(upstream = %server, %error, "connection ended");
    }
}

async fn open(server: &UpstreamAddress, roots: Arc<RootCertStore>) -> io::Result<TlsStream<TcpStream>> {
    let (name, protocol) = match &server.way {
        UpstreamTransport::Https { name, .. } => (name, &b"h2"[..]),
        UpstreamTransport::Tls(name) => (name, &b"dot"[..]),
        UpstreamTransport::Plain => (&None, &b"dot"[..]),
    };
    let name = match name {
        Some(name) => ServerName::try_from(name.to_string()).map_err(io::Error::other)?,
        None => ServerName::from(server.address.ip()),
    };
    let versions = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let versions = versions.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    let mut config = versions.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(server.address).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Messages with their length in front, answered in any order (RFC 7858 §3.3).
async fn tls(mut stream: TlsStream<TcpStream>, calls: &mut mpsc::Receiver<Call>) -> io::Result<()> {
    let mut waiting = HashMap::<u16, Call>::new();
    let (mut input, mut next, mut deadline) = (Vec::new(), 0_u16, Instant::now() + IDLE);
    loop {
        tokio::select! {
            call = calls.recv(), if waiting.len() < PIPELINE => {
                let Some(call) = call else { return Ok(()) };
                // Ids are this connection's own; fewer than half of them are in use.
                while waiting.contains_key(&next) {
                    next = next.wrapping_add(1);
                }
                let mut framed = (call.message.len() as u16).to_be_bytes().to_vec();
                framed.extend(next.to_be_bytes());
                framed.extend_from_slice(call.message.get(2..).unwrap_or_default());
                if waiting.is_empty() {
                    deadline = Instant::now() + SILENCE;
                }
                waiting.insert(next, call);
                stream.write_all(&framed).await?;
                stream.flush().await?;
            }
            read = stream.read_buf(&mut input) => {
                if read? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                while let Some((frame, rest)) = first_frame(&input) {
                    if let Some(id) = frame.first_chunk()
                        && let Some(call) = waiting.remove(&u16::from_be_bytes(*id))
                    {
                        let reply = [&call.message[..2], &frame[2..]].concat();
                        let _ = call.to.send(Ok(reply));
                    }
                    let done = input.len() - rest;
                    input.drain(..done);
                }
                deadline = Instant::now() + if waiting.is_empty() { IDLE } else { SILENCE };
            }
            () = sleep_until(deadline) => {
                return if waiting.is_empty() { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) };
            }
        }
    }
}

/// The first message of what was read, without its length, and how many octets stand behind it.
fn first_frame(input: &[u8]) -> Option<(&[u8], usize)> {
    let (length, rest) = input.split_first_chunk()?;
    let (frame, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    Some((frame, rest.len()))
}

/// A request a message, all at once over HTTP/2.
async fn https(
    stream: TlsStream<TcpStream>,
    server: &UpstreamAddress,
    name: Option<&str>,
    path: &str,
    calls: &mut mpsc::Receiver<Call>,
) -> io::Result<()> {
    let uri = match name {
        Some(name) => format!("https://{name}:{}{path}", server.address.port()),
        None => format!("https://{}{path}", server.address),
    };
    let opened = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = opened.map_err(io::Error::other)?;
    tokio::pin!(connection);
    let mut running = JoinSet::new();
    let mut deadline = Instant::now() + IDLE;
    loop {
        tokio::select! {
            ended = &mut connection => return ended.map_err(io::Error::other),
            call = calls.recv(), if running.len() < PIPELINE => {
                let Some(call) = call else { return Ok(()) };
                let (sender, uri) = (sender.clone(), uri.clone());
                running.spawn(async move {
                    let posted = timeout(SILENCE, post(sender, uri, &call.message)).await;
                    let posted = posted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                    let is_alive = posted.as_ref().err().is_none_or(|error| error.kind() != io::ErrorKind::TimedOut);
                    // A connection that broke says nothing: the question is asked again over another.
                    match posted {
                        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                        posted => drop(call.to.send(posted.map_err(UpstreamError::Io))),
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

async fn post(mut sender: SendRequest<Full<Bytes>>, uri: String, message: &[u8]) -> io::Result<Vec<u8>> {
    // The id is 0, so that caches on the way see equal questions (RFC 8484 §4.1).
    let body = [&[0, 0], message.get(2..).unwrap_or_default()].concat();
    let request = Request::builder().method(Method::POST).version(Version::HTTP_2).uri(uri);
    let request = request.header(CONTENT_TYPE, MEDIA_TYPE).header(ACCEPT, MEDIA_TYPE);
    let request = request.body(Full::from(body)).map_err(io::Error::other)?;
    let response = sender.send_request(request).await;
    let response = response.map_err(|error| io::Error::new(io::ErrorKind::ConnectionReset, error))?;
    if response.status() != StatusCode::OK {
        return Err(io::Error::other(format!("HTTP status {}", response.status())));
    }
    let reply = Limited::new(response.into_body(), MAX_MESSAGE).collect().await.map_err(io::Error::other)?;
    let mut reply = reply.to_bytes().to_vec();
    if let Some(id) = reply.first_chunk_mut::<2>() {
        id.copy_from_slice(&message[..2]);
    }
    Ok(reply)
}
