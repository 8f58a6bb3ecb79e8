//! Connections to the router and back, with a bound on everything that a client can use up.

pub(super) mod authorization;
pub mod credentials;
pub(super) mod origin;

use std::{
    fs::{self, Permissions},
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use nix::sys::resource::{Resource, getrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};
use tokio_io_timeout::TimeoutWriter;
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, debug_span, warn};

use self::{credentials::ByFile, origin::OnLoopback};
use super::{Api, router};
use crate::metrics::Http;

/// Connections at once, of all listeners, where the process may open enough files: ten thousand programs that wait for a
/// change, and some more. One more is closed as soon as it is accepted.
const MAX_CONNECTIONS: u64 = 16 * 1024;
/// The part of the process's files that connections may take in any case.
const SHARE_OF_FILES: u64 = 8;
/// What others may take of the process's files: probes half of them and no more than this,
const PROBES: u64 = 4096;
/// DNS over TCP this part,
const SHARE_OF_DNS: u64 = 4;
/// everything else so many. The rest is for these connections.
const OTHERS: u64 = 512;
/// How long a client may take to send the head of a request, and how long it may wait before the next.
const HEAD: Duration = Duration::from_secs(10);
/// Octets of a request's head; more is answered with 431.
const MAX_HEAD: usize = 16 * 1024;
/// Lines of a request's head; more is answered with 431.
const MAX_HEADERS: usize = 64;
/// How long a client may refuse to take an answer before it is given up.
const WRITE: Duration = Duration::from_secs(30);
/// Octets of an answer that wait for their client to read on; the next part of it is made when there are fewer.
const MAX_UNREAD: usize = 32 * 1024;
/// How long requests that are under way get to end at a stop.
const STOP: Duration = Duration::from_secs(3);
/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 128;
/// The pause when no connection can be accepted, so that a lack of file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Who may use the Unix socket: the agent's user and group.
const SOCKET_MODE: u32 = 0o660;
/// From one word in the log that connections are turned away, or cannot be accepted, to the next.
const TELL: Duration = Duration::from_secs(60);

/// What all listeners share.
#[derive(Clone)]
pub struct Server {
    router: Router,
    connections: Arc<Semaphore>,
    metrics: Http,
    shutdown: CancellationToken,
}

impl Server {
    /// A server of this API, for any number of listeners. Raise the process's limit of open files first.
    pub fn new(api: Api, shutdown: CancellationToken) -> Self {
        let open_files = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
        let most = most_connections(open_files);
        let metrics = api.counted.clone();
        Self { router: router(api), connections: Arc::new(Semaphore::new(most)), metrics, shutdown }
    }

    /// The same, that knows of each request by which kind of listener it came.
    fn at(self, listener: &Listener) -> Self {
        let on_loopback = |tcp: &TcpListener| tcp.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let router = match listener {
            Listener::Unix(_) => self.router.layer(Extension(ByFile)),
            Listener::Tcp(tcp, None) if on_loopback(tcp) => self.router.layer(Extension(OnLoopback)),
            Listener::Tcp(..) => self.router,
        };
        Self { router, ..self }
    }
}

/// How many connections there may be, where the process may open so many files.
fn most_connections(open_files: u64) -> usize {
    let rest = open_files.saturating_sub(PROBES.min(open_files / 2) + open_files / SHARE_OF_DNS + OTHERS);
    let share = rest.max(open_files / SHARE_OF_FILES);
    // It fits: it is bounded.
    share.clamp(1, MAX_CONNECTIONS) as usize
}

/// Binds a listener for [`serve`].
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` beside `0.0.0.0` are two listeners, not a conflict.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // A restart must not wait for the connections of the process before.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Where connections come from.
pub enum Listener {
    /// TCP, and with TLS where there is a certificate.
    Tcp(TcpListener, Option<TlsAcceptor>),
    /// A Unix socket.
    Unix(UnixListener),
}

/// A connection that was accepted.
enum Accepted {
    Tcp(TcpStream),
    Tls(TcpStream, TlsAcceptor),
    Unix(UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Accepted, String)> {
        match self {
            Self::Tcp(listener, tls) => {
                let (stream, client) = listener.accept().await?;
                prepare(&stream);
                let accepted = match tls {
                    None => Accepted::Tcp(stream),
                    Some(tls) => Accepted::Tls(stream, tls.clone()),
                };
                Ok((accepted, client.to_string()))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Accepted::Unix(stream), "a process of this host".to_owned()))
            }
        }
    }
}

impl Accepted {
    async fn converse(self, server: Server) {
        match self {
            Self::Tcp(stream) => converse(stream, server).await,
            Self::Unix(stream) => converse(stream, server).await,
            Self::Tls(stream, tls) => match timeout(HEAD, tls.accept(stream)).await {
                Ok(Ok(stream)) => converse(stream, server).await,
                Ok(Err(error)) => debug!(%error, "TLS handshake"),
                Err(_) => debug!("TLS handshake was not complete in time"),
            },
        }
    }
}

/// Binds a Unix socket that its owner and its group may use. What is left of a process before is removed; a socket that
/// somebody listens on is not.
pub fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens on it")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    Ok(listener)
}

/// Serves connections until shutdown, then waits for the requests that are under way.
pub async fn serve(listener: Listener, server: Server) {
    let server = server.at(&listener);
    let tasks = TaskTracker::new();
    let mut told: Option<Instant> = None;
    let mut is_news = || {
        let news = told.is_none_or(|told| told.elapsed() >= TELL);
        if news {
            told = Some(Instant::now());
        }
        news
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = server.shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, client)) => match server.connections.clone().try_acquire_owned() {
                Ok(permit) => {
                    let (server, connected) = (server.clone(), server.metrics.connected());
                    let served = async move {
                        stream.converse(server).await;
                        drop((permit, connected));
                    };
                    tasks.spawn(served.instrument(debug_span!("http", %client)));
                }
                Err(_) => {
                    server.metrics.turned_away();
                    debug!(%client, "HTTP connection closed");
                    if is_news() {
                        warn!("as many HTTP connections are open as may be: further clients are turned away");
                    }
                }
            },
            // The client went away before it was accepted: nothing is wrong here.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => debug!(%error, "HTTP accept"),
            Err(error) => {
                if is_news() {
                    warn!(%error, "cannot accept HTTP connections; trying again");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}

/// A host that has gone would hold its connection for ever: the kernel ends it (tcp(7), TCP_USER_TIMEOUT).
fn prepare(stream: &TcpStream) {
    let prepared = stream.set_nodelay(true).and_then(|()| SockRef::from(stream).set_tcp_user_timeout(Some(WRITE)));
    if let Err(error) = prepared {
        debug!(%error, "HTTP connection without its options");
    }
}

pub(super) async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, server: Server) {
    // What the kernel cannot see: a client that is there and does not read, over TLS or a Unix socket too.
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(WRITE));
    let stream = Box::pin(stream);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_header_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_UNREAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(server.router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = server.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(STOP, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%error, "HTTP connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_get_what_probes_and_dns_leave() {
        for (files, connections) in [(0, 1), (256, 32), (1024, 128), (8192, 1536), (20_000, 10_392), (65_536, 16_384)] {
            assert_eq!(most_connections(files), connections, "{files}");
        }
    }
}
