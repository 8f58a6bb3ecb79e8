//! Accept loop of the DNS listeners over TCP, TLS and HTTPS, within the connection quota.

use std::{net::SocketAddr, sync::Arc};

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::connection_quota::ConnectionQuota;
use crate::accept::accept_connections;

/// Accepts connections until shutdown and serves each in its own task; then waits for the open ones to end.
pub(crate) async fn accept<F>(
    listener: TcpListener,
    quota: &Arc<ConnectionQuota>,
    shutdown: &CancellationToken,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let admit = |client: &SocketAddr| quota.admit(client.ip());
    let serve = |stream: TcpStream, client: &SocketAddr| {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%client, %error, "cannot set TCP_NODELAY");
        }
        serve(stream, *client)
    };
    accept_connections("DNS", || listener.accept(), admit, serve, shutdown).await;
}
