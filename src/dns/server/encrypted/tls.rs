//! DNS over TLS: after the handshake, a connection is served as over plain TCP.

use std::{net::SocketAddr, sync::Arc};

use tokio::{net::TcpListener, time::timeout};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tracing::debug;

use super::HANDSHAKE;
use crate::dns::{
    engine::Engine,
    server::{
        accept::accept,
        tcp::{Shared, serve_connection},
    },
    tap::Protocol,
};

/// Serves connections until shutdown, then waits for open ones to answer the queries they have read.
pub async fn serve<E>(listener: TcpListener, shared: Shared, engine: E, config: Arc<ServerConfig>)
where
    E: Fn() -> Engine + Clone + Send + Sync + 'static,
{
    let (clients, shutdown) = (shared.clients.clone(), shared.shutdown.clone());
    let acceptor = TlsAcceptor::from(config);
    let serve = move |stream, client: SocketAddr| {
        let (shared, engine, acceptor) = (shared.clone(), engine.clone(), acceptor.clone());
        async move {
            let flow = shared.flow(Protocol::Tls, &stream, client);
            let ended = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => serve_connection(stream, flow, &shared, engine).await,
                Ok(Err(error)) => Err(error),
                Err(late) => Err(late.into()),
            };
            if let Err(error) = ended {
                debug!(%client, %error, "TLS connection ended");
            }
        }
    };
    accept(listener, &clients, &shutdown, serve).await;
}
