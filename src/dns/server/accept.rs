//! Taking connections, of any transport, as long as there are places for them.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::connection_quota::ConnectionQuota;

/// The pause when no connection can be accepted, so that a lack of file descriptors does not spin.
const PAUSE: Duration = Duration::from_millis(100);
/// From one word in the log that connections are turned away, or cannot be accepted, to the next.
const TELL: Duration = Duration::from_secs(60);

/// Accepts connections until shutdown and has each served by a task of its own; then waits for those that are open.
pub(crate) async fn accept<F>(
    listener: TcpListener,
    clients: &Arc<ConnectionQuota>,
    shutdown: &CancellationToken,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
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
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, client)) => match clients.admit(client.ip()) {
                Ok(place) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!(%client, %error, "TCP connection without its options");
                    }
                    let served = serve(stream, client);
                    tasks.spawn(async move {
                        served.await;
                        drop(place);
                    });
                }
                Err(full) => {
                    debug!(%client, "TCP connection closed");
                    if is_news() {
                        warn!(%client, "{full}: TCP connections are turned away");
                    }
                }
            },
            // The client went away before it was accepted: nothing is wrong here.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => debug!(%error, "TCP accept"),
            Err(error) => {
                if is_news() {
                    warn!(%error, "cannot accept TCP connections; trying again");
                }
                sleep(PAUSE).await;
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}
