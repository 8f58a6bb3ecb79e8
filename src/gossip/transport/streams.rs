//! TCP connections of gossip: frames that exceed a datagram, each after a length prefix, and TCP fallback probes, which only
//! connect. A frame has its own connection, except those of a bulk transfer, which share one. Connections of the store use
//! the same port: they begin with [`STORE_PREFIX`] and are handed over.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::sockets::connect;
use crate::gossip::{
    STORE_PREFIX,
    crypto::{MAX_PLAINTEXT, OVERHEAD},
    liveness::TcpProbeResult,
};

/// Longest frame in octets.
pub(super) const MAX_FRAME: usize = MAX_PLAINTEXT + OVERHEAD;
/// Largest number of incoming connections. Any host can connect, so a new connection replaces the oldest one that has not
/// delivered a peer's message: to suppress a frame, an attacker has to open as many connections while it arrives. A bulk
/// transfer outlasts the exchanges of many peers.
const CONNECTIONS_IN: usize = 64;
/// Largest number of outgoing connections. Excess frames are dropped; anti-entropy repairs the loss.
const CONNECTIONS_OUT: usize = 64;
/// Largest number of outgoing bulk transfers; each node serves one at a time, so only ending ones overlap.
const STREAMS_OUT: usize = 4;
/// Time limit for transferring a frame.
const CONNECTION: Duration = Duration::from_secs(5);
/// Time limit for connecting.
const CONNECT: Duration = Duration::from_secs(2);
/// Time limit for a TCP probe; a lost SYN is not retransmitted within it.
const TCP_PROBE_TIMEOUT: Duration = Duration::from_millis(300);
/// Pause after an error, so that a lasting error does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

const _: () = assert!(u32::from_be_bytes(STORE_PREFIX) as usize > MAX_FRAME, "the prefix is not the length of a frame");

/// A frame received over a connection.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) source: SocketAddr,
    pub(super) frame: Vec<u8>,
    pub(super) connection: Arc<Connection>,
}

/// An incoming connection.
#[derive(Debug, Default)]
pub(super) struct Connection(AtomicBool);

impl Connection {
    /// Records that a peer's message has arrived over the connection.
    pub(super) fn trust(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_trusted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Creates the channel for received frames.
pub(super) fn arrivals() -> (mpsc::Sender<Arrived>, mpsc::Receiver<Arrived>) {
    mpsc::channel(CONNECTIONS_IN)
}

/// A message of a stream, to be sealed by the transport's task.
#[derive(Debug)]
pub(super) struct Unsealed {
    pub(super) to: SocketAddr,
    pub(super) octets: Vec<u8>,
    /// Takes the frame; dropped if the message cannot be sealed.
    pub(super) frame: oneshot::Sender<Vec<u8>>,
}

/// Creates the channel for messages of streams.
pub(super) fn unsealed() -> (mpsc::Sender<Unsealed>, mpsc::Receiver<Unsealed>) {
    mpsc::channel(STREAMS_OUT)
}

/// Accepts connections, each with one frame or several, or none if it is a probe. Hands connections of the store over to
/// `store`; closes them if there is no taker or its queue is full.
pub(super) async fn accept(
    listener: TcpListener,
    frames: mpsc::Sender<Arrived>,
    store: Option<mpsc::Sender<TcpStream>>,
    ended: CancellationToken,
) {
    let mut reading: VecDeque<(AbortHandle, Arc<Connection>)> = VecDeque::new();
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
        let (frames, store, connection) = (frames.clone(), store.clone(), Arc::new(Connection::default()));
        let trusted = connection.clone();
        let reader = tokio::spawn(async move {
            let mut is_first = true;
            while let Ok(Ok(prefix)) = timeout(CONNECTION, stream.read_u32()).await {
                if is_first && prefix.to_be_bytes() == STORE_PREFIX {
                    return hand_over(stream, source, store.as_ref());
                }
                is_first = false;
                let Ok(Ok(Some(frame))) = timeout(CONNECTION, read(&mut stream, prefix as usize)).await else { return };
                if frames.send(Arrived { source, frame, connection: connection.clone() }).await.is_err() {
                    return;
                }
            }
        });
        reading.retain(|(reader, _)| !reader.is_finished());
        if reading.len() >= CONNECTIONS_IN {
            let replaced = reading.iter().position(|(_, connection)| !connection.is_trusted()).unwrap_or(0);
            reading.remove(replaced).into_iter().for_each(|(reader, _)| reader.abort());
        }
        reading.push_back((reader.abort_handle(), trusted));
    }
}

/// Passes a connection, whose prefix has been read, to the store. From here on it is not a connection of gossip.
fn hand_over(stream: TcpStream, source: SocketAddr, store: Option<&mpsc::Sender<TcpStream>>) {
    match store.map(|store| store.try_send(stream)) {
        Some(Ok(())) => {}
        Some(Err(_)) => debug!(%source, "gossip: the store takes no more connections; connection closed"),
        None => debug!(%source, "gossip: this node has no store; connection closed"),
    }
}

/// Reads one frame of the announced length; `None` if the frame is incomplete or too long.
async fn read(stream: &mut TcpStream, len: usize) -> io::Result<Option<Vec<u8>>> {
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
    write_frame(&mut stream, frame).await?;
    stream.shutdown().await
}

async fn write_frame(stream: &mut TcpStream, frame: &[u8]) -> io::Result<()> {
    let len = u32::try_from(frame.len()).map_err(io::Error::other)?;
    stream.write_all(&len.to_be_bytes()).await?;
    stream.write_all(frame).await
}

/// Writes messages over one connection. A frame is sealed just before it is written: receivers refuse a frame that is far
/// behind later ones.
async fn write_all(
    to: SocketAddr,
    messages: &mut mpsc::Receiver<Vec<u8>>,
    unsealed: &mpsc::Sender<Unsealed>,
) -> io::Result<()> {
    let mut stream = timeout(CONNECT, connect(to)).await??;
    while let Some(octets) = messages.recv().await {
        let (frame, sealed) = oneshot::channel();
        unsealed.send(Unsealed { to, octets, frame }).await.map_err(io::Error::other)?;
        let frame = sealed.await.map_err(io::Error::other)?;
        timeout(CONNECTION, write_frame(&mut stream, &frame)).await??;
    }
    stream.shutdown().await
}

/// Opens outgoing connections within a limit.
#[derive(Debug)]
pub(super) struct Opener {
    writers: Arc<Semaphore>,
    probes: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Opener {
    pub(super) fn new() -> Self {
        let permits = |most| Arc::new(Semaphore::new(most));
        Self { writers: permits(CONNECTIONS_OUT), probes: permits(CONNECTIONS_OUT), streams: permits(STREAMS_OUT) }
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

    /// Sends messages over one connection, sealed by the transport's task. Closes the channel on any error.
    pub(super) fn stream(
        &self,
        to: SocketAddr,
        mut messages: mpsc::Receiver<Vec<u8>>,
        unsealed: mpsc::Sender<Unsealed>,
    ) {
        let Some(permit) = permit(&self.streams) else { return };
        tokio::spawn(async move {
            if let Err(error) = write_all(to, &mut messages, &unsealed).await {
                debug!(%error, %to, "gossip: cannot send a bulk transfer");
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
