//! Open calls of a connection. A connection without one is closed after a while, so that no silent client keeps its slot.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    body::{Body as HttpBody, Frame, SizeHint},
    http::Response,
};
use tokio::{sync::watch, time::timeout};
use tonic::{Status, body::Body};

/// Number of open calls of a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls(watch::Sender<usize>);

/// A call, which counts until it is dropped.
struct Call(watch::Sender<usize>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// Body of a response whose call counts until the body was sent or dropped.
struct Counted {
    body: Body,
    _call: Call,
}

impl Calls {
    /// Carries out a call. It counts until its response was sent or dropped.
    pub(super) async fn counted(&self, call: impl Future<Output = Response<Body>>) -> Response<Body> {
        self.0.send_modify(|open| *open += 1);
        let counted = Call(self.0.clone());
        call.await.map(|body| Body::new(Counted { body, _call: counted }))
    }

    /// Waits until no call was open for this long.
    pub(super) async fn idle(&self, limit: Duration) {
        let mut open = self.0.subscribe();
        while open.wait_for(|open| *open == 0).await.is_ok() {
            if timeout(limit, open.changed()).await.is_err() {
                return;
            }
        }
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connection_is_idle_without_an_open_call() {
        let (calls, limit) = (Calls::default(), Duration::from_secs(60));
        let started = Instant::now();
        calls.idle(limit).await;
        assert_eq!(started.elapsed(), limit);

        // A call and its response count; so does a call that is over before the limit.
        let response = calls.counted(async { Response::new(Body::new(Full::new(Bytes::from("body")))) }).await;
        let later = async {
            sleep(limit * 3).await;
            drop(response);
            sleep(limit / 2).await;
            drop(calls.counted(async { Response::new(Body::empty()) }).await);
        };
        let started = Instant::now();
        tokio::join!(later, calls.idle(limit));
        let (elapsed, expected) = (started.elapsed(), limit * 4 + limit / 2);
        assert!(expected <= elapsed && elapsed < expected + limit / 2, "{elapsed:?}");
    }
}
