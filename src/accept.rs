//! Accept loop of the servers for DNS, HTTP and etcd's API: connection limits, errors and shutdown.

use std::{fmt::Display, io, time::Duration};

use socket2::SockRef;
use tokio::{net::TcpStream, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::log_limit::LogLimiter;

/// Pause after a failed accept, so that a lack of file descriptors (EMFILE) does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(100);
/// Time after which a client of HTTP that reads nothing is disconnected.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Time after a shutdown for the request of a client of HTTP that has just connected, so that a reload fails no request.
const FIRST_REQUEST: Duration = Duration::from_millis(500);

/// Accepts connections until shutdown and serves each in its own task; then waits for the open ones to end.
///
/// `accept` returns a connection and its peer. `admit` takes a slot for the peer, or returns the limit that is reached: the
/// connection is then closed. The slot is dropped when the connection ends. `protocol` names the listener in logs.
pub async fn accept_connections<Connection, Peer, Slot, Limit, Accepted, Served>(
    protocol: &'static str,
    accept: impl Fn() -> Accepted,
    admit: impl Fn(&Peer) -> Result<Slot, Limit>,
    serve: impl Fn(Connection, &Peer) -> Served,
    shutdown: &CancellationToken,
) where
    Peer: Display,
    Slot: Send + 'static,
    Limit: Display,
    Accepted: Future<Output = io::Result<(Connection, Peer)>>,
    Served: Future<Output = ()> + Send + 'static,
{
    let tasks = TaskTracker::new();
    let (limit_reached, accept_failed) = (LogLimiter::default(), LogLimiter::default());
    loop {
        let accepted = tokio::select! {
            accepted = accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((connection, peer)) => match admit(&peer) {
                Ok(slot) => {
                    let served = serve(connection, &peer);
                    tasks.spawn(async move {
                        served.await;
                        drop(slot);
                    });
                }
                Err(limit) => {
                    debug!(%peer, "{protocol} connection closed: {limit}");
                    if limit_reached.is_due() {
                        warn!(%peer, "{protocol} connection limit reached: {limit}; closing new connections");
                    }
                }
            },
            // The client closed the connection before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => debug!(%error, "{protocol} accept"),
            Err(error) => {
                if accept_failed.is_due() {
                    warn!(%error, "cannot accept {protocol} connections; retrying");
                }
                sleep(ERROR_PAUSE).await;
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}

/// Waits until a client of HTTP that has connected before the shutdown has had time for its request.
pub async fn too_late_for_requests(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    sleep(FIRST_REQUEST).await;
}

/// Sets options of a connection for HTTP. The kernel closes connections to dead hosts (tcp(7), `TCP_USER_TIMEOUT`).
pub fn set_options(stream: &TcpStream) {
    let set = stream.set_nodelay(true).and_then(|()| SockRef::from(stream).set_tcp_user_timeout(Some(WRITE_TIMEOUT)));
    if let Err(error) = set {
        debug!(%error, "cannot set options of a connection");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicU32, Ordering},
    };

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn accept_errors_pause_and_do_not_end_the_loop() {
        let (calls, shutdown) = (AtomicU32::new(0), CancellationToken::new());
        let (served, mut connections) = mpsc::unbounded_channel();
        // EMFILE twice, then a connection, then none.
        let accept = || {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            async move {
                match call {
                    0 | 1 => Err(io::Error::from_raw_os_error(nix::libc::EMFILE)),
                    2 => Ok(("connection", "peer")),
                    _ => std::future::pending().await,
                }
            }
        };
        let serve = |connection, _: &&str| {
            let (served, shutdown) = (served.clone(), shutdown.clone());
            async move {
                served.send(connection).unwrap();
                shutdown.cancel();
            }
        };
        let started = tokio::time::Instant::now();
        accept_connections("test", accept, |_| Ok::<_, Infallible>(()), serve, &shutdown).await;
        assert_eq!(connections.recv().await, Some("connection"));
        assert_eq!(started.elapsed(), 2 * ERROR_PAUSE);
    }

    #[tokio::test]
    async fn connection_above_the_limit_is_closed() {
        let (calls, shutdown) = (AtomicU32::new(0), CancellationToken::new());
        let accept = || {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            async move { if call == 0 { Ok(("connection", "peer")) } else { std::future::pending().await } }
        };
        let admit = |_: &&str| {
            shutdown.cancel();
            Err::<(), _>("no slot")
        };
        let served = AtomicU32::new(0);
        let serve = |_, _: &&str| {
            served.fetch_add(1, Ordering::Relaxed);
            async {}
        };
        accept_connections("test", accept, admit, serve, &shutdown).await;
        assert_eq!(served.into_inner(), 0);
    }
}
