//! DNS over QUIC, with hickory-server.
//!
//! hickory-server decodes queries and encodes replies itself, so the engine's reply is decoded into its records.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use hickory_server::{
    net::runtime::Time,
    proto::op::{Header, HeaderCounts, Message, Metadata, ResponseCode},
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server},
    zone_handler::MessageResponseBuilder,
};
use tokio::{net::UdpSocket, sync::Semaphore};
use tokio_rustls::rustls::ServerConfig;
use tracing::{debug, warn};

use crate::dns::{
    engine::Engine,
    server::tcp::Shared,
    tap::{Flow, Protocol},
};

/// Idle timeout of a connection, and time limit of its next message.
const IDLE: Duration = Duration::from_secs(10);
/// Maximum number of concurrent queries of all connections.
const MAX_RUNNING: usize = 256;

struct Handler<E> {
    shared: Shared,
    /// Address of the socket.
    bound: SocketAddr,
    engine: E,
    running: Semaphore,
}

/// Answers the queries of a socket until shutdown.
pub async fn serve<E>(socket: UdpSocket, shared: Shared, engine: E, config: Arc<ServerConfig>)
where
    E: Fn() -> Engine + Send + Sync + Unpin + 'static,
{
    let shutdown = shared.shutdown.clone();
    let address = socket.local_addr().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
    let mut server = Server::new(Handler { shared, bound: address, engine, running: Semaphore::new(MAX_RUNNING) });
    if let Err(error) = server.register_quic_listener_and_tls_config(socket, IDLE, config) {
        warn!(%address, %error, "cannot serve DNS over QUIC");
        return shutdown.cancelled().await;
    }
    shutdown.cancelled().await;
    if let Err(error) = server.shutdown_gracefully().await {
        debug!(%address, %error, "QUIC server ended");
    }
}

#[async_trait]
impl<E: Fn() -> Engine + Send + Sync + Unpin + 'static> RequestHandler for Handler<E> {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut response: R) -> ResponseInfo {
        let servfail = || {
            let mut metadata = Metadata::response_from_request(&request.metadata);
            metadata.response_code = ResponseCode::ServFail;
            ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
        };
        let Ok(_running) = self.running.acquire().await else { return servfail() };
        let flow = Flow { protocol: Protocol::Quic, initiator: request.src(), responder: self.bound };
        let reply = self.shared.respond((self.engine)(), request.as_slice(), flow).await;
        let Some(Ok(reply)) = reply.map(|octets| Message::from_vec(&octets)) else { return servfail() };
        let builder = MessageResponseBuilder::new(&request.queries, reply.edns.as_ref());
        let message = builder.build(reply.metadata, &reply.answers, &reply.authorities, [], &reply.additionals);
        response.send_response(message).await.unwrap_or_else(|error| {
            debug!(client = %request.src(), %error, "cannot send a QUIC reply");
            servfail()
        })
    }
}
