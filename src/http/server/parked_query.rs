//! A blocking query that waits without hyper.
//!
//! A change wakes a waiting connection, which writes the response that all clients of the same query share. A client
//! that then repeats its query with the new index waits again: its request is compared, not parsed. All other
//! requests, and responses that are not cached, go through hyper and the router.

use std::{
    io::{self, IoSlice},
    mem,
    time::SystemTime,
};

use httpdate::HttpDate;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::sleep,
};
use tracing::debug;

use super::{
    Next, Server,
    replay_io::{Io, closed, has_request},
};
use crate::http::{parking::ParkedQuery, query::with_jitter};

/// Waits for a query, answers it, and does so again while the client repeats it.
pub(super) async fn wait_and_answer<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut Io<S>,
    mut query: Box<ParkedQuery>,
    server: &Server,
) -> Next {
    loop {
        if !wait(io, &query, server).await {
            return Next::Close;
        }
        match answer(io, &query, server).await {
            Ok(true) => {}
            Ok(false) => {
                io.unread = [&*query.head, &*io.unread].concat().into();
                return Next::Http { is_resumed: true };
            }
            Err(error) => {
                debug!(%error, "HTTP connection ended");
                return Next::Close;
            }
        }
        // Clients that wait for their response come before requests.
        server.queries.all_woken().await;
        if !has_request(io, server).await {
            return Next::Close;
        }
        match query.repeated(&io.unread) {
            // Authorized once per request, and an index ahead of the state has a pause: both are the router's part.
            Some(seen) if query.access.is_valid() && seen <= server.queries.index(&query.source.topic) => {
                (query.seen, query.head) = (seen, mem::take(&mut io.unread));
            }
            _ => return Next::Http { is_resumed: false },
        }
    }
}

/// Waits for a change, the end of the wait or the shutdown. `false`: the client has closed the connection.
async fn wait<S: AsyncRead + AsyncWrite + Unpin>(io: &mut Io<S>, query: &ParkedQuery, server: &Server) -> bool {
    let _counted = (server.metrics.in_flight(), server.metrics.waiting());
    tokio::select! {
        biased;
        () = server.queries.changed(&query.source.topic, query.seen) => true,
        () = closed(io) => false,
        () = sleep(with_jitter(query.wait)) => true,
    }
}

/// Writes the response if it is cached and the request needs no further check; `false`: hyper and the router answer.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut Io<S>,
    query: &ParkedQuery,
    server: &Server,
) -> io::Result<bool> {
    if server.queries.is_shutting_down() || !query.access.is_valid() {
        return Ok(false);
    }
    let Some(response) = server.queries.shared(&query.source) else { return Ok(false) };
    let date = date();
    let mut slices = [&*response.head, date.as_bytes(), &*response.body].map(IoSlice::new);
    io.write_all(&mut slices).await?;
    server.metrics.answered(query.endpoint, 200);
    debug!(endpoint = query.endpoint, index = response.index, "blocking query answered");
    Ok(true)
}

/// Returns the last header line and the empty line.
pub(super) fn date() -> String {
    format!("date: {}\r\n\r\n", HttpDate::from(SystemTime::now()))
}
