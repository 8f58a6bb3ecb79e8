//! HTTP server: listeners, connections, and limits on every resource that a client can use.

mod connection;
pub mod credentials;
pub(super) mod origin;
mod parked_query;
mod parked_stream;
mod replay_io;

use std::{
    fs::{self, Permissions},
    io,
    net::{self, SocketAddr},
    os::unix::{
        self,
        fs::{FileTypeExt, PermissionsExt},
    },
    path::Path,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Router};
use nix::sys::resource::{Resource, getrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span};

pub(super) use self::connection::serve_connection;
use self::{credentials::OverUnixSocket, origin::OnLoopback};
use super::{Api, blocking::BlockingQueries, router};
use crate::{
    accept::{accept_connections, set_options},
    metrics::Http,
};

/// Connection limit of all listeners together, if the process may open enough files: ten thousand waiting clients and a
/// reserve. Further connections are closed.
const MAX_CONNECTIONS: u64 = 16 * 1024;
/// Share of the process's files that HTTP connections may use at least.
const MIN_SHARE: u64 = 8;
/// Files reserved for probes: half of all, at most this number.
const PROBE_FILES: u64 = 4096;
/// Share of the files reserved for DNS over TCP.
const DNS_SHARE: u64 = 4;
/// Files reserved for everything else. The remaining files are for HTTP connections.
const OTHER_FILES: u64 = 512;
/// Time limit for the head of a request, and idle timeout between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest head of a request, in octets; a larger one is answered with 431.
const MAX_HEAD_LEN: usize = 16 * 1024;
/// Most header lines of a request; more are answered with 431.
const MAX_HEADERS: usize = 64;
/// Write buffer per connection, in octets; a stream produces more data only below this fill level.
const WRITE_BUFFER: usize = 32 * 1024;
/// Time for open requests to finish at shutdown: a request for a reload is answered when the new servers answer. The end of
/// the process does not wait as long.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(25);
/// Backlog of the listening sockets.
const BACKLOG: i32 = 128;
/// Mode of the Unix socket: access for the agent's user and group.
const SOCKET_MODE: u32 = 0o660;

/// State shared by all listeners.
#[derive(Clone)]
pub struct Server {
    router: Router,
    queries: Arc<BlockingQueries>,
    connections: Arc<Semaphore>,
    metrics: Http,
    shutdown: CancellationToken,
}

impl Server {
    /// Creates a server for any number of listeners. Raise the process's file limit first.
    pub fn new(api: Api, shutdown: CancellationToken) -> Self {
        let open_files = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
        let most = max_connections(open_files);
        let (metrics, queries) = (api.metrics.clone(), api.queries.clone());
        let connections = Arc::new(Semaphore::new(most));
        Self { router: router(api), queries, connections, metrics, shutdown }
    }

    /// Returns the server for one listener, which marks its requests with the kind of listener.
    fn for_listener(self, listener: &Listener) -> Self {
        let on_loopback = |tcp: &TcpListener| tcp.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let router = match listener {
            Listener::Unix(_) => self.router.layer(Extension(OverUnixSocket)),
            Listener::Tcp(tcp, None) if on_loopback(tcp) => self.router.layer(Extension(OnLoopback)),
            Listener::Tcp(..) => self.router,
        };
        Self { router, ..self }
    }
}

/// The next step of a connection after a request has waited.
enum Next {
    /// The connection is over.
    Close,
    /// hyper serves the octets in `unread`. `is_resumed`: their first request has already waited.
    Http { is_resumed: bool },
}

/// Returns the connection limit for a process with this file limit.
fn max_connections(open_files: u64) -> usize {
    let rest = open_files.saturating_sub(PROBE_FILES.min(open_files / 2) + open_files / DNS_SHARE + OTHER_FILES);
    let share = rest.max(open_files / MIN_SHARE);
    // Bounded by `MAX_CONNECTIONS`, so it fits.
    share.clamp(1, MAX_CONNECTIONS) as usize
}

/// Binds a listener for [`serve`].
pub fn bind(address: SocketAddr) -> io::Result<net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` must not conflict.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // Permits a restart while connections of the previous process are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A source of connections.
pub enum Listener {
    /// TCP, with TLS if there is a certificate.
    Tcp(TcpListener, Option<TlsAcceptor>),
    /// A Unix socket.
    Unix(UnixListener),
}

/// An accepted connection.
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
                set_options(&stream);
                let accepted = match tls {
                    None => Accepted::Tcp(stream),
                    Some(tls) => Accepted::Tls(stream, tls.clone()),
                };
                Ok((accepted, client.to_string()))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Accepted::Unix(stream), "unix socket".to_owned()))
            }
        }
    }
}

impl Accepted {
    /// Returns the future that serves the connection: on the heap, since a future counts twice in the one that moves it.
    fn serve_connection(self, server: Server) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        match self {
            Self::Tcp(stream) => Box::pin(serve_connection(stream, server)),
            Self::Unix(stream) => Box::pin(serve_connection(stream, server)),
            Self::Tls(stream, tls) => Box::pin(serve_tls(stream, tls, server)),
        }
    }
}

async fn serve_tls(stream: TcpStream, tls: TlsAcceptor, server: Server) {
    match timeout(HEAD_TIMEOUT, Box::pin(tls.accept(stream))).await {
        Ok(Ok(stream)) => serve_connection(Box::new(stream), server).await,
        Ok(Err(error)) => debug!(%error, "TLS handshake failed"),
        Err(_) => debug!("TLS handshake timed out"),
    }
}

/// Binds a Unix socket for its owner and group. A stale socket of a previous process is removed; a socket in use is an
/// error.
pub fn bind_unix(path: &Path) -> io::Result<unix::net::UnixListener> {
    match unix::net::UnixStream::connect(path) {
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on it")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            if !fs::symlink_metadata(path)?.file_type().is_socket() {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is there"));
            }
            fs::remove_file(path)?;
        }
        Err(_) => {}
    }
    let listener = unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    Ok(listener)
}

/// Serves connections until shutdown, then waits for open requests.
pub async fn serve(listener: Listener, server: Server) {
    let server = server.for_listener(&listener);
    let admit = |_: &String| {
        server.connections.clone().try_acquire_owned().map_err(|_| {
            server.metrics.refused();
            "too many connections are open"
        })
    };
    let serve = |stream: Accepted, client: &String| {
        let (server, connected) = (server.clone(), server.metrics.connected());
        let served = stream.serve_connection(server);
        let served = async move {
            served.await;
            drop(connected);
        };
        served.instrument(debug_span!("http", %client))
    };
    accept_connections("HTTP", || listener.accept(), admit, serve, &server.shutdown).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_limit_leaves_files_for_probes_and_dns() {
        for (files, connections) in [(0, 1), (256, 32), (1024, 128), (8192, 1536), (20_000, 10_392), (65_536, 16_384)] {
            assert_eq!(max_connections(files), connections, "{files}");
        }
    }
}
