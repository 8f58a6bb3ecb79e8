//! A connection's stream, with octets that were read but not used: they are read first.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::sleep,
};
use tokio_io_timeout::TimeoutWriter;

use super::{HEAD_TIMEOUT, Server};
use crate::{accept::too_late_for_requests, http::parking::Slot};

/// Most octets read at once between requests of hyper.
const READ_LEN: usize = 4096;

/// Stream of a connection, with a timeout for clients that read nothing.
pub(super) type Io<S> = ReplayIo<Pin<Box<TimeoutWriter<S>>>>;

/// Stream of one connection. Octets in `unread` are read before those of `stream`.
#[derive(Debug)]
pub(super) struct ReplayIo<S> {
    pub(super) stream: S,
    pub(super) unread: Bytes,
    /// True if octets were read from `stream` since [`replay`](Self::replay).
    pub(super) has_read: bool,
    slot: Option<Slot>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ReplayIo<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, unread: Bytes::new(), has_read: false, slot: None }
    }

    /// Returns the stream for an HTTP connection that reads `octets` first and can park in `slot`.
    pub(super) fn replay(self, octets: Bytes, slot: Slot) -> Self {
        Self { stream: self.stream, unread: octets, has_read: false, slot: Some(slot) }
    }

    /// Appends octets of the client to `unread`. `Ok(0)`: the client has closed the connection.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); READ_LEN];
        let mut space = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
        let read = space.filled();
        self.unread = match self.unread.is_empty() {
            true => Bytes::copy_from_slice(read),
            false => [&*self.unread, read].concat().into(),
        };
        Poll::Ready(Ok(read.len()))
    }

    /// Writes all slices to the client.
    pub(super) async fn write_all(&mut self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match self.stream.write_vectored(slices).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => IoSlice::advance_slices(&mut slices, written),
            }
        }
        self.stream.flush().await
    }

    fn set_unflushed(&self, unflushed: bool) {
        if let Some(slot) = &self.slot {
            slot.set_unflushed(unflushed);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ReplayIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let len = self.unread.len().min(space.remaining());
            space.put_slice(&self.unread.split_to(len));
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut self.stream).poll_read(cx, space))?;
        self.has_read = true;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ReplayIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.set_unflushed(true);
        Pin::new(&mut self.stream).poll_write(cx, octets)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.set_unflushed(true);
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        // hyper flushes the stream when its own buffer is empty.
        self.set_unflushed(false);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Waits for octets of the first request; `false`: the connection is over.
pub(super) async fn has_request<S: AsyncRead + AsyncWrite + Unpin>(io: &mut Io<S>, server: &Server) -> bool {
    if !io.unread.is_empty() {
        return true;
    }
    tokio::select! {
        biased;
        read = poll_fn(|context| io.poll_more(context)) => matches!(read, Ok(1..)),
        () = sleep(HEAD_TIMEOUT) => false,
        () = too_late_for_requests(&server.shutdown) => false,
    }
}

/// Waits until the client has closed the connection.
pub(super) async fn closed<S: AsyncRead + AsyncWrite + Unpin>(io: &mut Io<S>) {
    poll_fn(|context| {
        // A pipelined request stays unread by HTTP until the response is sent, and bounds what is read.
        while io.unread.is_empty() {
            match io.poll_more(context) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        Poll::Pending
    })
    .await;
}
