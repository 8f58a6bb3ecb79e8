//! One connection: hyper reads requests and writes responses; a blocking query waits without hyper.
//!
//! A change wakes a waiting connection, which writes the response that all clients of the same query share. A client
//! that then repeats its query with the new index waits again: its request is compared, not parsed. All other
//! requests, and responses that are not cached, go through hyper and the router.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::Poll,
    time::SystemTime,
};

use axum::{Router, body::Bytes};
use httpdate::HttpDate;
use hyper::{Request, body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutWriter;
use tracing::debug;

use super::{
    HEAD_TIMEOUT, MAX_HEAD_LEN, MAX_HEADERS, SHUTDOWN_TIMEOUT, Server, WRITE_BUFFER, WRITE_TIMEOUT, replay_io::ReplayIo,
};
use crate::http::{
    parking::{Parked, Slot},
    query::with_jitter,
};

/// Stream of a connection, with a timeout for clients that read nothing.
type Io<S> = ReplayIo<Pin<Box<TimeoutWriter<S>>>>;

/// The next step of a connection after a query has waited.
enum Next {
    /// The connection is over.
    Close,
    /// hyper serves the octets in `unread`. `is_resumed`: their first request has already waited.
    Http { is_resumed: bool },
}

pub(in crate::http) async fn serve_connection(stream: impl AsyncRead + AsyncWrite + Unpin, server: Server) {
    // The kernel does not detect a live client that reads nothing, nor clients behind TLS or on a Unix socket.
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(WRITE_TIMEOUT));
    let mut io = ReplayIo::new(Box::pin(stream));
    let mut is_resumed = false;
    // On the heap while it is needed: most connections of a busy agent wait.
    while let Some((parked_io, parked)) = Box::pin(serve_http(io, is_resumed, &server)).await {
        io = parked_io;
        match wait_and_answer(&mut io, parked, &server).await {
            Next::Close => return,
            Next::Http { is_resumed: next } => is_resumed = next,
        }
    }
}

/// hyper's connection.
type Http<S> = http1::Connection<TokioIo<Io<S>>, ParkingService>;

/// Serves requests until one parks; `None`: the connection has ended.
async fn serve_http<S: AsyncRead + AsyncWrite + Unpin>(
    io: Io<S>,
    is_resumed: bool,
    server: &Server,
) -> Option<(Io<S>, Parked)> {
    let slot = Slot::default();
    let head = io.unread.clone();
    let service =
        ParkingService { router: TowerToHyperService::new(server.router.clone()), slot: slot.clone(), is_resumed };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(MAX_HEAD_LEN)
        .max_headers(MAX_HEADERS)
        .max_buf_size(WRITE_BUFFER)
        .serve_connection(TokioIo::new(io.replay(head.clone(), slot.clone())), service);
    let served = tokio::select! {
        // A resumed request is answered before a shutdown closes the connection.
        biased;
        served = until_parked(&mut connection, &slot) => served,
        () = server.shutdown.cancelled() => {
            Pin::new(&mut connection).graceful_shutdown();
            timeout(SHUTDOWN_TIMEOUT, until_parked(&mut connection, &slot)).await.unwrap_or(Ok(None))
        }
    };
    let mut parked = match served {
        Ok(parked) => parked?,
        Err(error) => {
            debug!(%error, "HTTP connection ended");
            return None;
        }
    };
    let parts = connection.into_parts();
    let mut io = parts.io.into_inner();
    io.unread = [&*parts.read_buf, &*io.unread].concat().into();
    if slot.is_first() && !io.has_read && io.unread.is_empty() {
        // The octets that the client sent, to which its next request is compared.
        parked.head = head;
    }
    Some((io, parked))
}

/// Polls a connection until it ends or a request has parked.
async fn until_parked<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Http<S>,
    slot: &Slot,
) -> hyper::Result<Option<Parked>> {
    poll_fn(|context| match Pin::new(&mut *connection).poll(context) {
        Poll::Ready(ended) => Poll::Ready(ended.map(|()| None)),
        Poll::Pending => slot.take().map_or(Poll::Pending, |parked| Poll::Ready(Ok(Some(parked)))),
    })
    .await
}

/// The router, whose requests may park.
struct ParkingService {
    router: TowerToHyperService<Router>,
    slot: Slot,
    is_resumed: bool,
}

impl Service<Request<Incoming>> for ParkingService {
    type Response = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.slot.mark(&mut request, self.is_resumed);
        self.router.call(request)
    }
}

/// Waits for a query, answers it, and does so again while the client repeats it.
async fn wait_and_answer<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut Io<S>,
    mut parked: Parked,
    server: &Server,
) -> Next {
    loop {
        if !wait(io, &parked, server).await {
            return Next::Close;
        }
        match answer(io, &parked, server).await {
            Ok(true) => {}
            Ok(false) => {
                io.unread = [&*parked.head, &*io.unread].concat().into();
                return Next::Http { is_resumed: true };
            }
            Err(error) => {
                debug!(%error, "HTTP connection ended");
                return Next::Close;
            }
        }
        if io.unread.is_empty() {
            let read = tokio::select! {
                read = timeout(HEAD_TIMEOUT, poll_fn(|context| io.poll_more(context))) => read,
                () = server.shutdown.cancelled() => return Next::Close,
            };
            if !matches!(read, Ok(Ok(1..))) {
                return Next::Close;
            }
        }
        match parked.repeated(&io.unread) {
            // Authorized once per request, and an index ahead of the state has a pause: both are the router's part.
            Some(seen) if !server.is_guarded && seen <= server.queries.index(&parked.topic) => {
                (parked.seen, io.unread) = (seen, Bytes::new());
            }
            _ => return Next::Http { is_resumed: false },
        }
    }
}

/// Waits for a change, the end of the wait or the shutdown. `false`: the client has closed the connection.
async fn wait<S: AsyncRead + AsyncWrite + Unpin>(io: &mut Io<S>, parked: &Parked, server: &Server) -> bool {
    let _counted = (server.metrics.in_flight(), server.metrics.waiting());
    let closed = poll_fn(|context| {
        // A pipelined request stays unread by HTTP until the response is sent, and bounds what is read.
        while io.unread.is_empty() {
            match io.poll_more(context) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    });
    tokio::select! {
        () = server.queries.changed(&parked.topic, parked.seen) => true,
        () = sleep(with_jitter(parked.wait)) => true,
        () = server.shutdown.cancelled() => true,
        () = closed => false,
    }
}

/// Writes the response if it is cached and the request needs no further check; `false`: hyper and the router answer.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut Io<S>,
    parked: &Parked,
    server: &Server,
) -> io::Result<bool> {
    let index = server.queries.index(&parked.topic);
    let Some(key) = parked.cache_key.as_deref().filter(|_| !server.is_guarded && !server.shutdown.is_cancelled())
    else {
        return Ok(false);
    };
    let Some(response) = server.queries.cached(key, index) else { return Ok(false) };
    let date = format!("date: {}\r\n\r\n", HttpDate::from(SystemTime::now()));
    let mut slices = [&*response.head, date.as_bytes(), &*response.body].map(IoSlice::new);
    let mut rest = &mut slices[..];
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match io.stream.write_vectored(rest).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => IoSlice::advance_slices(&mut rest, written),
        }
    }
    io.stream.flush().await?;
    server.metrics.answered(parked.endpoint, 200);
    debug!(endpoint = parked.endpoint, index, "blocking query answered");
    Ok(true)
}
