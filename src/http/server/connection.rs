//! One connection: hyper reads requests and writes responses; blocking queries and streams wait without hyper.

use std::{future::poll_fn, pin::Pin, task::Poll};

use axum::Router;
use hyper::{Request, body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_io_timeout::TimeoutWriter;
use tracing::debug;

use super::{
    HEAD_TIMEOUT, MAX_HEAD_LEN, MAX_HEADERS, Next, SHUTDOWN_TIMEOUT, Server, WRITE_BUFFER,
    parked_query::wait_and_answer,
    parked_stream::send_stream,
    replay_io::{Io, ReplayIo, has_request},
};
use crate::{
    accept::WRITE_TIMEOUT,
    http::parking::{Parked, Slot},
};

pub(in crate::http) async fn serve_connection(stream: impl AsyncRead + AsyncWrite + Unpin, server: Server) {
    // The kernel does not detect a live client that reads nothing, nor clients behind TLS or on a Unix socket.
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(WRITE_TIMEOUT));
    let mut io = ReplayIo::new(Box::pin(stream));
    if !has_request(&mut io, &server).await {
        return;
    }
    let mut is_resumed = false;
    // On the heap while it is needed: most connections of a busy agent wait.
    while let Some((parked_io, parked)) = Box::pin(serve_http(io, is_resumed, &server)).await {
        io = parked_io;
        let next = match parked {
            Parked::Query(query) => wait_and_answer(&mut io, query, &server).await,
            Parked::Stream(stream) => send_stream(&mut io, stream, &server).await,
        };
        match next {
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
    if let Parked::Query(query) = &mut parked
        && slot.is_first()
        && !io.has_read
        && io.unread.is_empty()
    {
        // The octets that the client sent, to which its next request is compared.
        query.head = head;
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
