//! Frames that are too long for a datagram: each over a TCP connection of its own, its length in front. And knocks, which
//! only open one.

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

/// Octets of the longest frame.
pub(super) const MAX_FRAME: usize = MAX_PLAINTEXT + OVERHEAD;
/// Connections that are read from at once. Strangers can open them too, so whoever comes takes the place of the one that
/// has been there longest: to keep a frame out, somebody has to open as many while it arrives.
const CONNECTIONS_IN: usize = 64;
/// Connections that are opened at once; beyond it frames are lost, and gossip repairs.
const CONNECTIONS_OUT: usize = 64;
/// How long a connection may take to bring or to take its frame.
const CONNECTION: Duration = Duration::from_secs(5);
/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a host may take to answer a knock: a SYN lost is not sent again within it.
const KNOCK: Duration = Duration::from_millis(300);
/// The pause after an error, so that a lasting one does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// A frame that came over a connection, and from where.
pub(super) type Arrived = (SocketAddr, Vec<u8>);

/// A channel for what arrives.
pub(super) fn arrivals() -> (mpsc::Sender<Arrived>, mpsc::Receiver<Arrived>) {
    mpsc::channel(CONNECTIONS_IN)
}

/// Takes connections, each of which brings one frame, or none if somebody only knocked.
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
                warn!(%error, "gossip: cannot take a connection");
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

/// One frame with its length in front; `None` where there is none, or it is longer than any of ours.
async fn read(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).await?;
    let len = u32::from_be_bytes(len) as usize;
    if len > MAX_FRAME {
        return Ok(None);
    }
    // What a stranger announces is not reserved before it arrives.
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

/// Opens connections, not too many at once.
#[derive(Debug)]
pub(super) struct Opener {
    writers: Arc<Semaphore>,
    knocks: Arc<Semaphore>,
}

impl Opener {
    pub(super) fn new() -> Self {
        let permits = || Arc::new(Semaphore::new(CONNECTIONS_OUT));
        Self { writers: permits(), knocks: permits() }
    }

    /// Sends a frame, or loses it.
    pub(super) fn send(&self, to: SocketAddr, frame: Vec<u8>) {
        let Some(permit) = permit(&self.writers) else {
            debug!(%to, "gossip: too many connections; a message is lost");
            return;
        };
        tokio::spawn(async move {
            let sent = timeout(CONNECTION, write(to, &frame)).await.unwrap_or_else(|late| Err(late.into()));
            if let Err(error) = sent {
                debug!(%error, %to, "gossip: a long message is lost");
            }
            drop(permit);
        });
    }

    /// Hears what the kernel there says to somebody who wants to connect. Too many at once are not carried out: who knocks
    /// does so again.
    pub(super) fn knock(&self, address: SocketAddr, heard: impl FnOnce(TcpProbeResult) + Send + 'static) {
        let Some(permit) = permit(&self.knocks) else { return };
        tokio::spawn(async move {
            heard(match timeout(KNOCK, connect(address)).await {
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
