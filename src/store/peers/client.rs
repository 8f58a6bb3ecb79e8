//! Client side: one task per node makes the connection, keeps it, and multiplexes requests over it.

use std::{
    collections::HashMap,
    future::pending,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use thiserror::Error;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, timeout},
};
use tracing::{debug, info, warn};

use super::{
    Addresses, BATCH, Context, KEEPALIVE, MAX_CALLS, MAX_STREAMS, PeerError, WINDOW,
    message::{Kind, Message},
};
use crate::store::sealed_stream::{self, HandshakeError, Reader, SealedStream, StreamError, Writer};

/// Pause after the second failed attempt to connect; it doubles with each further one. The first retry has none.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

// --- For callers -----------------------------------------------------------------------------------------------------

/// Requests to one node.
#[derive(Debug)]
pub(super) struct Node {
    /// Bounded by the permits: each is part of an open request, which has a bounded number of commands.
    commands: mpsc::UnboundedSender<Command>,
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    next_id: AtomicU64,
}

/// A command to the task of a node.
#[derive(Debug)]
enum Command {
    Send(Request),
    Cancel(u64),
    Credit(u64, u8),
}

#[derive(Debug)]
struct Request {
    message: Message,
    open: Open,
}

/// An open request. Its permit is returned when the request ends.
#[derive(Debug)]
struct Open {
    replies: Replies,
    _permit: OwnedSemaphorePermit,
}

/// Where replies go.
#[derive(Debug)]
enum Replies {
    Call(oneshot::Sender<Result<Bytes, PeerError>>),
    /// `opened` is taken when the node has accepted the request.
    Stream {
        opened: Option<oneshot::Sender<Result<(), PeerError>>>,
        items: mpsc::Sender<Bytes>,
    },
}

/// Cancels a request when it is dropped.
#[derive(Debug)]
struct CancelOnDrop {
    id: u64,
    commands: mpsc::UnboundedSender<Command>,
    is_done: bool,
}

/// Replies of a node to one request. Dropping it cancels the request.
#[derive(Debug)]
pub struct ReplyStream {
    items: mpsc::Receiver<Bytes>,
    /// Replies that were taken and not yet credited to the node.
    taken: u8,
    request: CancelOnDrop,
}

impl Node {
    /// Starts the task of a node. It ends when the node and all its streams are dropped.
    pub(super) fn start(name: String, context: Context) -> Self {
        let (commands, queue) = mpsc::unbounded_channel();
        tokio::spawn(Task { name, context, commands: queue, failures: 0, retry_at: None }.run());
        let (calls, streams) = (Arc::new(Semaphore::new(MAX_CALLS)), Arc::new(Semaphore::new(MAX_STREAMS)));
        Self { commands, calls, streams, next_id: AtomicU64::new(1) }
    }

    pub(super) async fn call(&self, body: Bytes) -> Result<Bytes, PeerError> {
        let permit = self.calls.clone().acquire_owned().await.map_err(|_| PeerError::Unreachable)?;
        let (reply, received) = oneshot::channel();
        let mut request = self.send(Kind::Call, body, Replies::Call(reply), permit);
        let outcome = received.await.unwrap_or(Err(PeerError::Unreachable));
        request.is_done = true;
        outcome
    }

    pub(super) async fn stream(&self, body: Bytes) -> Result<ReplyStream, PeerError> {
        let permit = self.streams.clone().try_acquire_owned().map_err(|_| PeerError::Overloaded)?;
        let (opened, accepted) = oneshot::channel();
        let (items, received) = mpsc::channel(WINDOW.into());
        let request = self.send(Kind::Stream, body, Replies::Stream { opened: Some(opened), items }, permit);
        accepted.await.unwrap_or(Err(PeerError::Unreachable))?;
        Ok(ReplyStream { items: received, taken: 0, request })
    }

    fn send(&self, kind: Kind, body: Bytes, replies: Replies, permit: OwnedSemaphorePermit) -> CancelOnDrop {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let request = Request { message: Message::with_body(kind, id, body), open: Open { replies, _permit: permit } };
        // Without the task, the receiver of the replies sees that their sender is gone.
        let _ = self.commands.send(Command::Send(request));
        CancelOnDrop { id, commands: self.commands.clone(), is_done: false }
    }
}

impl ReplyStream {
    /// Returns the next reply; `None` when the node has ended the stream or the connection was lost. A dropped call loses
    /// nothing.
    pub async fn recv(&mut self) -> Option<Bytes> {
        let item = self.items.recv().await?;
        self.taken += 1;
        if self.taken >= WINDOW / 2 {
            let _ = self.request.commands.send(Command::Credit(self.request.id, self.taken));
            self.taken = 0;
        }
        Some(item)
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if !self.is_done {
            let _ = self.commands.send(Command::Cancel(self.id));
        }
    }
}

impl Open {
    /// Reports that the request has failed.
    fn fail(self, error: PeerError) {
        // Fails if the caller has dropped the request.
        match self.replies {
            Replies::Call(reply) => drop(reply.send(Err(error))),
            Replies::Stream { opened: Some(opened), .. } => {
                let _ = opened.send(Err(error));
            }
            // The receiver sees the end of the stream, since its sender is dropped.
            Replies::Stream { opened: None, .. } => {}
        }
    }

    fn is_dropped(&self) -> bool {
        match &self.replies {
            Replies::Call(reply) => reply.is_closed(),
            Replies::Stream { items, .. } => items.is_closed(),
        }
    }
}

// --- Connecting ------------------------------------------------------------------------------------------------------

/// The task of a node.
struct Task {
    name: String,
    context: Context,
    commands: mpsc::UnboundedReceiver<Command>,
    /// Attempts to connect since a connection last worked.
    failures: u32,
    /// Time of the next attempt.
    retry_at: Option<Instant>,
}

impl Task {
    async fn run(mut self) {
        while let Some(command) = self.commands.recv().await {
            // Other commands belong to requests of an earlier connection.
            let Command::Send(request) = command else { continue };
            if request.open.is_dropped() {
                continue;
            }
            if self.retry_at.is_some_and(|at| Instant::now() < at) {
                request.open.fail(PeerError::Unreachable);
                continue;
            }
            match self.connect().await {
                Some((stream, address)) => self.connected(stream, address, request).await,
                None => {
                    request.open.fail(PeerError::Unreachable);
                    self.fail_queued();
                }
            }
        }
    }

    async fn connect(&mut self) -> Option<(SealedStream, SocketAddr)> {
        // No address: the node has left. It is not logged, since requests to it may go on.
        let address = self.address()?;
        match sealed_stream::connect(address, &self.context.keyring, &self.context.own, &self.name).await {
            Ok(stream) => {
                debug!(peer = self.name, %address, "store: connected");
                Some((stream, address))
            }
            Err(error) => {
                self.failed(address, &error);
                None
            }
        }
    }

    fn failed(&mut self, address: SocketAddr, error: &HandshakeError) {
        if self.failures == 0 {
            warn!(peer = self.name, %address, %error, "store: cannot connect to a node; retrying");
        } else {
            debug!(peer = self.name, %address, %error, "store: cannot connect to a node");
        }
        self.count_failure();
    }

    fn count_failure(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.retry_at = pause(self.failures).map(|pause| Instant::now() + pause);
    }

    fn address(&self) -> Option<SocketAddr> {
        self.context.addresses.borrow().get(&self.name).copied()
    }

    /// Uses a connection until it ends.
    async fn connected(&mut self, stream: SealedStream, address: SocketAddr, first: Request) {
        let SealedStream { reader, writer, .. } = stream;
        let connection = Connection::default();
        let mut addresses = self.context.addresses.clone();
        let (name, failures) = (&self.name, self.failures);
        let moved = async {
            // Without an address, the node may be about to leave or unreachable for others: the connection is kept.
            let is_other = |all: &Arc<Addresses>| all.get(name).is_some_and(|current| *current != address);
            let has_moved = addresses.wait_for(is_other).await.is_ok();
            if !has_moved {
                // The addresses end with the agent.
                pending::<()>().await;
            }
        };
        let end = tokio::select! {
            error = connection.receive(reader, || {
                if failures > 0 {
                    info!(peer = name, %address, "store: the node was reached again");
                }
            }) => error,
            end = connection.send(writer, first, &mut self.commands) => end,
            () = moved => End::Moved,
        };
        connection.fail_all();
        debug!(peer = self.name, %address, reason = %end, "store: connection to a node ended");
        if connection.has_received.load(Ordering::Relaxed) {
            (self.failures, self.retry_at) = (0, None);
        } else {
            self.count_failure();
        }
    }

    fn fail_queued(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Send(request) = command {
                request.open.fail(PeerError::Unreachable);
            }
        }
    }
}

/// Returns the pause after this number of failed attempts.
fn pause(failures: u32) -> Option<Duration> {
    let doublings = failures.checked_sub(2)?;
    Some(FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_PAUSE))
}

// --- A connection ----------------------------------------------------------------------------------------------------

/// Requests of one connection.
#[derive(Default)]
struct Connection {
    /// Shared by the two directions, which run in one task; never locked across an await.
    open: Mutex<HashMap<u64, Open>>,
    has_received: AtomicBool,
}

/// Reasons why a connection ends.
#[derive(Debug, Error)]
enum End {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("malformed message")]
    Malformed,
    #[error("the node has another address")]
    Moved,
    #[error("the agent is shutting down")]
    Stopping,
}

impl Connection {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives messages until the connection ends. The first one, before which the node may refuse this one, is reported.
    async fn receive(&self, mut reader: Reader, reached: impl Fn()) -> End {
        loop {
            let octets = match reader.read().await {
                Ok(octets) => octets,
                Err(error) => return error.into(),
            };
            if !self.has_received.swap(true, Ordering::Relaxed) {
                reached();
            }
            if Message::decode(octets).and_then(|message| self.take(message)).is_none() {
                return End::Malformed;
            }
        }
    }

    /// Passes a message to its request; `None` if the node must not send it. Replies to requests that were dropped are dropped.
    fn take(&self, Message { kind, id, body }: Message) -> Option<()> {
        let mut all = self.open();
        match kind {
            Kind::Alive => {}
            Kind::Opened => match all.get_mut(&id).map(|open| &mut open.replies) {
                Some(Replies::Stream { opened, .. }) => {
                    let _ = opened.take()?.send(Ok(()));
                }
                Some(Replies::Call(_)) => return None,
                None => {}
            },
            Kind::Item => match all.get(&id).map(|open| &open.replies) {
                Some(Replies::Stream { items, .. }) => {
                    if matches!(items.try_send(body), Err(mpsc::error::TrySendError::Full(_))) {
                        return None;
                    }
                }
                Some(Replies::Call(_)) => return None,
                None => {}
            },
            Kind::Reply => match all.remove(&id).map(|open| open.replies) {
                Some(Replies::Call(reply)) => drop(reply.send(Ok(body))),
                Some(Replies::Stream { .. }) => return None,
                None => {}
            },
            Kind::End => all.remove(&id).into_iter().for_each(|open| open.fail(PeerError::Unanswered)),
            Kind::Overloaded => all.remove(&id).into_iter().for_each(|open| open.fail(PeerError::Overloaded)),
            Kind::Call | Kind::Stream | Kind::Cancel | Kind::Credit(_) => return None,
        }
        Some(())
    }

    async fn send(&self, mut writer: Writer, first: Request, commands: &mut mpsc::UnboundedReceiver<Command>) -> End {
        let mut next = Some(Command::Send(first));
        loop {
            match next {
                Some(command) => {
                    if let Err(error) = self.queue(command, &mut writer) {
                        return error.into();
                    }
                }
                None => {
                    if let Err(error) = writer.queue(&[&Message::new(Kind::Alive, 0).head()]) {
                        return error.into();
                    }
                }
            }
            while writer.queued() < BATCH
                && let Ok(command) = commands.try_recv()
            {
                if let Err(error) = self.queue(command, &mut writer) {
                    return error.into();
                }
            }
            if let Err(error) = writer.flush().await {
                return error.into();
            }
            next = match timeout(KEEPALIVE, commands.recv()).await {
                Ok(Some(command)) => Some(command),
                Ok(None) => return End::Stopping,
                Err(_) => None,
            };
        }
    }

    fn queue(&self, command: Command, writer: &mut Writer) -> Result<(), StreamError> {
        let message = match command {
            Command::Send(Request { open, .. }) if open.is_dropped() => return Ok(()),
            Command::Send(Request { message, open }) => {
                self.open().insert(message.id, open);
                message
            }
            Command::Cancel(id) => match self.open().remove(&id) {
                Some(_) => Message::new(Kind::Cancel, id),
                None => return Ok(()),
            },
            Command::Credit(id, messages) if self.open().contains_key(&id) => Message::new(Kind::Credit(messages), id),
            Command::Credit(..) => return Ok(()),
        };
        writer.queue(&[&message.head(), &message.body])
    }

    fn fail_all(&self) {
        self.open().drain().for_each(|(_, open)| open.fail(PeerError::Lost));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_after_an_immediate_retry() {
        let pauses: Vec<_> = (0..9).map(|failures| pause(failures).map(|pause| pause.as_millis())).collect();
        let expected = [None, None, Some(50), Some(100), Some(200), Some(400), Some(800), Some(1000), Some(1000)];
        assert_eq!(pauses, expected);
        assert_eq!(pause(u32::MAX), Some(LONGEST_PAUSE));
    }
}
