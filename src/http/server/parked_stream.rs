//! A stream without hyper: its frames are written as chunks (RFC 9112, section 7.1).

use std::io::{self, IoSlice};

use axum::body::Bytes;
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::{
    Next, Server,
    parked_query::date,
    replay_io::{Io, closed},
};
use crate::http::parking::ParkedStream;

/// Transfer coding of a stream.
const CHUNKED: &[u8] = b"transfer-encoding: chunked\r\n";
/// End of the last chunk.
const END: &[u8] = b"0\r\n\r\n";

/// Sends the frames of a stream until they end or the client closes the connection.
pub(super) async fn send_stream<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut Io<S>,
    stream: ParkedStream,
    server: &Server,
) -> Next {
    server.metrics.answered(stream.endpoint, 200);
    match send(io, stream).await {
        Ok(next) => next,
        Err(error) => {
            debug!(%error, "HTTP connection ended");
            Next::Close
        }
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(io: &mut Io<S>, mut stream: ParkedStream) -> io::Result<Next> {
    io.write_all(&mut [&*stream.head, CHUNKED, date().as_bytes()].map(IoSlice::new)).await?;
    loop {
        let frame = tokio::select! {
            biased;
            frame = stream.frames.next() => frame,
            () = closed(io) => return Ok(Next::Close),
        };
        let Some(frame) = frame else {
            io.write_all(&mut [IoSlice::new(END)]).await?;
            return Ok(Next::Http { is_resumed: false });
        };
        let len = format!("{:x}\r\n", frame.iter().map(Bytes::len).sum::<usize>());
        let [first, second, third] = &frame;
        io.write_all(&mut [len.as_bytes(), first, second, third, b"\r\n"].map(IoSlice::new)).await?;
    }
}
