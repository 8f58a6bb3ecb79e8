//! TCP connections of gossip: frames that exceed a datagram, one per connection after a length prefix, and TCP fallback
//! probes, which only connect.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::sockets::connect;
use crate::gossip::{
    crypto::{MAX_PLAINTEXT, OVERHEAD},
    liveness::TcpProbeResult,
};

/// Longest frame in octets.
pub(super) const MAX_FRAME: usize = MAX_PLAINTEXT + OVERHEAD;
/// Largest number of incoming connections. Any host can connect, so a new connection replaces the oldest one: to suppress
/// a frame, an attacker has to open as many connections while it arrives.
const CONNECTIONS_IN: usize = 64;
/// Largest number of outgoing connections. Excess frames are dropped; anti-entropy repairs the loss.
const CONNECTIONS_OUT: usize = 64;
/// Time limit for transferring a frame.
const CONNECTION: Duration = Duration::from_secs(5);
/// Time limit for connecting.
const CONNECT: Duration = Duration::from_secs(2);
/// Time limit for a TCP probe; a lost SYN is not retransmitted within it.
const TCP_PROBE_TIMEOUT: Duration = Duration::from_millis(300);
/// Pause after an error, so that a lasting error does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// A frame received over a connection, with its source address.
pub(super) type Arrived = (SocketAddr, Vec<u8>);

/// Creates the channel for received frames.
pub(super) fn arrivals() -> (mpsc::Sender<Arrived>, mpsc::Receiver<Arrived>) {
    mpsc::channel(CONNECTIONS_IN)
}

/// Accepts connections, each with one frame, or none if it is a probe.
pub(super) async fn accept(listener: TcpListener, frames: mpsc::Sender<Arrived>, ended: CancellationToken) {
    let mut reading: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ended.cancelled() => return,
        };
        let (mut stream, source) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "gossip: cannot accept a connection");
                sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let frames = frames.clone();
        let reader = tokio::spawn(async move {
            if let Ok(Ok(Some(frame))) = timeout(CONNECTION, read(&mut stream)).await {
                let _ = frames.send((source, frame)).await;
            }
        });
        reading.retain(|reader| !reader.is_finished());
        if reading.len() >= CONNECTIONS_IN
            && let Some(oldest) = reading.pop_front()
        {
            oldest.abort();
        }
        reading.push_back(reader.abort_handle());
    }
}

/// Reads one frame with its length prefix; `None` if the frame is incomplete or too long.
async fn read(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).await?;
    let len = u32::from_be_bytes(len) as usize;
    if len > MAX_FRAME {
        return Ok(None);
    }
    // The announced length is untrusted: no buffer is reserved for it.
    let mut frame = Vec::new();
    stream.take(len as u64).read_to_end(&mut frame).await?;
    Ok((frame.len() == len).then_some(frame))
}

async fn write(to: SocketAddr, frame: &[u8]) -> io::Result<()> {
    let mut stream = timeout(CONNECT, connect(to)).await??;
    let len = u32::try_from(frame.len()).map_err(io::Error::other)?;
    stream.write_all(&len.to_be_bytes()).await?;
    stream.write_all(frame).await?;
    stream.shutdown().await
}

/// Opens outgoing connections within a limit.
#[derive(Debug)]
pub(super) struct Opener {
    writers: Arc<Semaphore>,
    probes: Arc<Semaphore>,
}

impl Opener {
    pub(super) fn new() -> Self {
        let permits = || Arc::new(Semaphore::new(CONNECTIONS_OUT));
        Self { writers: permits(), probes: permits() }
    }

    /// Sends a frame; drops it on any error.
    pub(super) fn send(&self, to: SocketAddr, frame: Vec<u8>) {
        let Some(permit) = permit(&self.writers) else {
            debug!(%to, "gossip: too many connections; frame dropped");
            return;
        };
        tokio::spawn(async move {
            let sent = timeout(CONNECTION, write(to, &frame)).await.unwrap_or_else(|late| Err(late.into()));
            if let Err(error) = sent {
                debug!(%error, %to, "gossip: cannot send a long frame");
            }
            drop(permit);
        });
    }

    /// Probes a port by TCP and passes the result to `done`. Drops excess probes; their senders retry.
    pub(super) fn tcp_probe(&self, address: SocketAddr, done: impl FnOnce(TcpProbeResult) + Send + 'static) {
        let Some(permit) = permit(&self.probes) else { return };
        tokio::spawn(async move {
            done(match timeout(TCP_PROBE_TIMEOUT, connect(address)).await {
                Ok(Ok(_)) => TcpProbeResult::Accepted,
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => TcpProbeResult::Refused,
                Ok(Err(_)) | Err(_) => TcpProbeResult::Silent,
            });
            drop(permit);
        });
    }
}

fn permit(permits: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    permits.clone().try_acquire_owned().ok()
}
