//! Datagrams to the engine and back.
//!
//! One task a socket. A reply that the kernel does not take at once is dropped, as the network would drop it: the
//! client asks again, and nothing queues up here.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::{ArcSwap, cache::Cache};
use socket2::{Protocol, Type};
use tokio::{io::Interest, net::UdpSocket};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    engine::{Engine, Transport},
    socket,
    table::Tables,
};

/// The longest query that is read. Queries are short; what is longer is cut and then malformed.
const MAX_QUERY: usize = 4096;
/// Datagrams that the kernel keeps while the task is busy: a burst of some ten thousand queries.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Answers in a row before other tasks of the thread get a turn.
const BATCH: usize = 64;
/// Answers at the end, to what waits in the receive buffer.
const LAST_BATCH: usize = 65_536;
/// The pause after a socket error, so that a lasting one does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// Binds a socket for [`serve`]. Port 0 lets the kernel choose.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket::open(address, Type::DGRAM, Protocol::UDP)?;
    // The kernel caps it at net.core.rmem_max without an error: what it grants is better than its default.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Answers datagrams until `shutdown`, and those that had arrived by then.
pub async fn serve(socket: UdpSocket, tables: Arc<ArcSwap<Tables>>, mut engine: Engine, shutdown: CancellationToken) {
    let mut tables = Cache::new(tables);
    let mut query = [0; MAX_QUERY];
    let mut reply = Vec::with_capacity(MAX_QUERY);
    let mut last = false;
    while !last {
        let ready = tokio::select! {
            ready = socket.ready(Interest::READABLE) => ready.map(drop),
            () = shutdown.cancelled() => {
                last = true;
                Ok(())
            }
        };
        if let Err(error) = ready {
            debug!(%error, "UDP socket not ready");
            tokio::time::sleep(ERROR_PAUSE).await;
            continue;
        }
        for _ in 0..if last { LAST_BATCH } else { BATCH } {
            match socket.try_recv_from(&mut query) {
                Ok((len, client)) => {
                    if engine.respond(tables.load(), &query[..len], Transport::Udp, &mut reply).is_some()
                        && let Err(error) = socket.try_send_to(&reply, client)
                    {
                        debug!(%error, %client, "reply not sent");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    debug!(%error, "UDP receive failed");
                    tokio::time::sleep(ERROR_PAUSE).await;
                    break;
                }
            }
        }
        tokio::task::yield_now().await;
    }
}
