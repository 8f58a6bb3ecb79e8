//! Server side: accepts connections of other nodes and passes their requests on.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use thiserror::Error;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::AbortHandle,
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::{debug, warn};

use super::{
    BATCH, KEEPALIVE, MAX_BODY, MAX_CALLS, MAX_STREAMS, WINDOW,
    message::{Kind, Message},
};
use crate::{
    model::keyring::Keyring,
    store::sealed_stream::{self, Reader, SealedStream, StreamError, Writer},
};

/// Largest number of connections: each node has one to a voter, which it forwards requests to.
const MAX_CONNECTIONS: usize = 512;
/// Largest number of handshakes at a time. Any host can start one, so a new one replaces the oldest.
const MAX_HANDSHAKES: usize = 64;

// --- For the taker of requests ---------------------------------------------------------------------------------------

/// A request of another node.
#[derive(Debug)]
pub struct Incoming {
    /// Name of the node.
    pub from: Arc<str>,
    /// Content of the request. It shares memory with other requests: copy what is kept for long.
    pub body: Bytes,
    /// Takes the reply.
    pub responder: Responder,
}

/// Takes the reply to a request, or several. If it is dropped, the caller gets an error.
#[derive(Debug)]
pub struct Responder {
    /// Taken by the reply.
    request: Option<Request>,
    cancelled: CancellationToken,
}

/// A request without a reply yet.
#[derive(Debug)]
struct Request {
    id: u64,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    /// Replies that the caller has room for; `None`: the request is a call, which takes one.
    credits: Option<Arc<Semaphore>>,
    permit: OwnedSemaphorePermit,
}

/// A message that waits to be sent, with the permit of a request that it ends.
#[derive(Debug)]
struct Outgoing {
    message: Message,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Responder {
    /// Sends the only reply. It is dropped if the caller has cancelled the request.
    pub fn reply(mut self, body: Bytes) {
        let Some(request) = self.request.take() else { return };
        if body.len() > MAX_BODY {
            warn!(octets = body.len(), "store: a reply to a node exceeds the limit of {MAX_BODY} octets");
            request.end();
        } else if request.credits.is_some() {
            // The window is unused.
            request.send(Kind::Item, body);
            request.end();
        } else {
            request.reply(body);
        }
    }

    /// Returns the sender of many replies. It is closed when the caller cancels the request or is lost; dropping it ends the
    /// stream. A call takes the first reply.
    pub fn stream(mut self) -> mpsc::Sender<Bytes> {
        let (items, queue) = mpsc::channel(1);
        if let Some(request) = self.request.take() {
            tokio::spawn(forward(request, queue, self.cancelled.clone()));
        }
        items
    }

    /// Completes when the caller cancels the request or is lost.
    pub async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(request) = self.request.take() {
            request.end();
        }
    }
}

// The queue of outgoing messages needs no bound of its own: every call has one message in it, every stream as many as its
// window. It is closed if the connection has ended.
impl Request {
    fn send(&self, kind: Kind, body: Bytes) {
        let message = Message::with_body(kind, self.id, body);
        let _ = self.outgoing.send(Outgoing { message, _permit: None });
    }

    fn reply(self, body: Bytes) {
        let message = Message::with_body(Kind::Reply, self.id, body);
        let _ = self.outgoing.send(Outgoing { message, _permit: Some(self.permit) });
    }

    fn end(self) {
        let message = Message::new(Kind::End, self.id);
        let _ = self.outgoing.send(Outgoing { message, _permit: Some(self.permit) });
    }
}

/// Sends the replies of a stream as the caller makes room for them.
async fn forward(request: Request, mut items: mpsc::Receiver<Bytes>, cancelled: CancellationToken) {
    let forwarded = async {
        while let Some(body) = items.recv().await {
            if body.len() > MAX_BODY {
                warn!(octets = body.len(), "store: a reply to a node exceeds the limit of {MAX_BODY} octets");
                break;
            }
            let Some(credits) = &request.credits else { return Some(body) };
            // The semaphore is never closed.
            if let Ok(credit) = credits.acquire().await {
                credit.forget();
            }
            request.send(Kind::Item, body);
        }
        None
    };
    let last = tokio::select! {
        last = forwarded => last,
        () = cancelled.cancelled() => None,
    };
    match last {
        Some(body) => request.reply(body),
        None => request.end(),
    }
}

// --- Accepting -------------------------------------------------------------------------------------------------------

/// Serves connections whose prefix has been read, until `shutdown`. `own` is the name of this node. A request is refused if
/// `incoming` is full: its capacity should be [`MAX_CALLS`] or more.
pub async fn serve(
    mut connections: mpsc::Receiver<TcpStream>,
    keyring: watch::Receiver<Option<Keyring>>,
    own: String,
    incoming: mpsc::Sender<Incoming>,
    shutdown: CancellationToken,
) {
    let own: Arc<str> = own.into();
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let established = TaskTracker::new();
    let mut handshakes: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = tokio::select! {
            stream = connections.recv() => stream,
            () = shutdown.cancelled() => break,
        };
        let Some(stream) = stream else { break };
        handshakes.retain(|handshake| !handshake.is_finished());
        if handshakes.len() >= MAX_HANDSHAKES {
            handshakes.pop_front().into_iter().for_each(|oldest| oldest.abort());
        }
        let (own, keyring, permits, established) = (own.clone(), keyring.clone(), permits.clone(), established.clone());
        let (incoming, shutdown) = (incoming.clone(), shutdown.clone());
        let handshake = tokio::spawn(async move {
            let source = stream.peer_addr().ok();
            let stream = match sealed_stream::accept(stream, keyring, &own).await {
                Ok(stream) => stream,
                Err(error) => return debug!(?source, %error, "store: handshake of a node failed"),
            };
            let Ok(permit) = permits.try_acquire_owned() else {
                return warn!(peer = stream.peer, "store: {MAX_CONNECTIONS} nodes are connected; connection closed");
            };
            established.spawn(async move {
                let peer = stream.peer.clone();
                tokio::select! {
                    end = serve_node(stream, incoming) => debug!(peer, ?source, reason = %end, "store: connection ended"),
                    () = shutdown.cancelled() => {}
                }
                drop(permit);
            });
        });
        handshakes.push_back(handshake.abort_handle());
    }
    handshakes.iter().for_each(AbortHandle::abort);
    established.close();
    shutdown.cancelled().await;
    established.wait().await;
}

// --- A connection ----------------------------------------------------------------------------------------------------

/// Reasons why a connection ends.
#[derive(Debug, Error)]
enum End {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("malformed message")]
    Malformed,
    #[error("the node sends requests and reads no replies")]
    Flooded,
    #[error("the agent is shutting down")]
    Stopping,
}

/// A request that has not ended.
struct Open {
    /// Cancels the request at the end of the connection, too.
    _cancel: DropGuard,
    credits: Option<Arc<Semaphore>>,
}

/// Requests of one connection.
struct Connection {
    from: Arc<str>,
    incoming: mpsc::Sender<Incoming>,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    /// Refusals that may wait to be sent.
    refusals: Arc<Semaphore>,
    /// Shared by the two directions, which run in one task; never locked across an await.
    open: Mutex<HashMap<u64, Open>>,
}

async fn serve_node(stream: SealedStream, incoming: mpsc::Sender<Incoming>) -> End {
    let SealedStream { reader, writer, peer } = stream;
    let (outgoing, queue) = mpsc::unbounded_channel();
    let connection = Connection {
        from: peer.into(),
        incoming,
        outgoing,
        calls: Arc::new(Semaphore::new(MAX_CALLS)),
        streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        refusals: Arc::new(Semaphore::new(MAX_CALLS)),
        open: Mutex::default(),
    };
    tokio::select! {
        end = connection.receive(reader) => end,
        end = connection.send(writer, queue) => end,
    }
}

impl Connection {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn receive(&self, mut reader: Reader) -> End {
        loop {
            let octets = match reader.read().await {
                Ok(octets) => octets,
                Err(error) => return error.into(),
            };
            let Some(message) = Message::decode(octets) else { return End::Malformed };
            if let Err(end) = self.take(message) {
                return end;
            }
        }
    }

    fn take(&self, Message { kind, id, body }: Message) -> Result<(), End> {
        match kind {
            Kind::Alive => Ok(()),
            Kind::Call => self.start(id, body, None),
            Kind::Stream => self.start(id, body, Some(Arc::new(Semaphore::new(WINDOW.into())))),
            Kind::Cancel => {
                self.open().remove(&id);
                Ok(())
            }
            Kind::Credit(messages) => match self.open().get(&id) {
                Some(Open { credits: Some(credits), .. }) => {
                    if credits.available_permits() + usize::from(messages) > WINDOW.into() {
                        return Err(End::Malformed);
                    }
                    credits.add_permits(messages.into());
                    Ok(())
                }
                Some(_) => Err(End::Malformed),
                None => Ok(()),
            },
            Kind::Opened | Kind::Item | Kind::Reply | Kind::End | Kind::Overloaded => Err(End::Malformed),
        }
    }

    fn start(&self, id: u64, body: Bytes, credits: Option<Arc<Semaphore>>) -> Result<(), End> {
        let is_stream = credits.is_some();
        let permits = if is_stream { &self.streams } else { &self.calls };
        let mut all = self.open();
        if all.contains_key(&id) {
            return Err(End::Malformed);
        }
        let place = match self.incoming.try_reserve() {
            Ok(place) => Some(place),
            Err(mpsc::error::TrySendError::Full(())) => None,
            Err(mpsc::error::TrySendError::Closed(())) => return Err(End::Stopping),
        };
        let (Some(place), Ok(permit)) = (place, permits.clone().try_acquire_owned()) else {
            return self.refuse(id);
        };
        if is_stream {
            let _ = self.outgoing.send(Outgoing { message: Message::new(Kind::Opened, id), _permit: None });
        }
        let cancelled = CancellationToken::new();
        all.insert(id, Open { _cancel: cancelled.clone().drop_guard(), credits: credits.clone() });
        let request = Request { id, outgoing: self.outgoing.clone(), credits, permit };
        let responder = Responder { request: Some(request), cancelled };
        place.send(Incoming { from: self.from.clone(), body, responder });
        Ok(())
    }

    fn refuse(&self, id: u64) -> Result<(), End> {
        // A node that sends requests and reads no refusals must not fill the queue.
        let permit = self.refusals.clone().try_acquire_owned().map_err(|_| End::Flooded)?;
        let message = Message::new(Kind::Overloaded, id);
        let _ = self.outgoing.send(Outgoing { message, _permit: Some(permit) });
        Ok(())
    }

    /// Sends messages until the connection is lost.
    async fn send(&self, mut writer: Writer, mut queue: mpsc::UnboundedReceiver<Outgoing>) -> End {
        loop {
            let queued = match timeout(KEEPALIVE, queue.recv()).await {
                Ok(Some(outgoing)) => self.queue(&outgoing.message, &mut writer),
                Ok(None) => return End::Stopping,
                Err(_) => self.queue(&Message::new(Kind::Alive, 0), &mut writer),
            };
            if let Err(error) = queued {
                return error.into();
            }
            while writer.queued() < BATCH
                && let Ok(outgoing) = queue.try_recv()
            {
                if let Err(error) = self.queue(&outgoing.message, &mut writer) {
                    return error.into();
                }
            }
            if let Err(error) = writer.flush().await {
                return error.into();
            }
        }
    }

    /// Appends a message to the writer's buffer. Replies to cancelled requests are dropped.
    fn queue(&self, message: &Message, writer: &mut Writer) -> Result<(), StreamError> {
        let is_open = match message.kind {
            Kind::Reply | Kind::End => self.open().remove(&message.id).is_some(),
            Kind::Opened | Kind::Item => self.open().contains_key(&message.id),
            _ => true,
        };
        if is_open { writer.queue(&[&message.head(), &message.body]) } else { Ok(()) }
    }
}
