//! Watches: any number of them on one stream.

mod response;

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::Instant,
};
use tonic::{Request, Response, Status, Streaming, async_trait};

use self::response::Shape;
use super::{
    backend::Backend,
    convert::{key_range, number, revision},
    error::{COMPACTED, failed},
    proto::etcdserverpb::{
        WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion, watch_server::Watch,
    },
};
use crate::store::{
    follow::Follower,
    key::Revision,
    query::{Consistency, Query},
    watch::WatchMessage,
};

/// Watches of one stream: a client that needs more opens another stream.
const MAX_WATCHES: usize = 10_000;
/// Responses that wait for a slow client.
const QUEUE: usize = 16;
/// Least pause between two reports of progress of one watch.
const PROGRESS_PAUSE: Duration = Duration::from_secs(5);
/// Id of responses that concern no watch, or all.
const NO_WATCH: i64 = -1;

type Responses = mpsc::Sender<Result<WatchResponse, Status>>;

#[async_trait]
impl Watch for Backend {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, requests: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let (responses, mut received) = mpsc::channel(QUEUE);
        let watches = Watches {
            backend: self.clone(),
            responses,
            running: HashMap::new(),
            next_id: 0,
            wanted: None,
            advance: Arc::default(),
        };
        tokio::spawn(watches.serve(requests.into_inner()));
        let responses = stream::poll_fn(move |context| received.poll_recv(context));
        Ok(Response::new(Box::pin(responses)))
    }
}

/// The watches of one stream.
struct Watches {
    backend: Backend,
    responses: Responses,
    running: HashMap<i64, Running>,
    /// Next id to give to a watch of a client that names none.
    next_id: i64,
    /// Revision that all watches must have seen before the client is told so; `None`: it did not ask.
    wanted: Option<Revision>,
    advance: Arc<Advance>,
}

/// Wakes the task of a stream when a watch has seen more, while that is of interest: a change that many watch wakes tasks enough.
#[derive(Default)]
struct Advance {
    /// True while the client waits for the progress of all watches.
    is_awaited: AtomicBool,
    notify: Notify,
}

/// A watch with a task of its own. The task ends by itself when the history does not reach back far enough.
struct Running {
    task: JoinHandle<()>,
    /// Last revision up to which all responses are in the queue.
    seen: Arc<AtomicU64>,
}

impl Watches {
    /// Serves requests until the client or the server closes the stream. A client may close its side and keep the watches.
    async fn serve(mut self, mut requests: Streaming<WatchRequest>) {
        let (backend, responses, advance) = (self.backend.clone(), self.responses.clone(), self.advance.clone());
        let mut is_open = true;
        loop {
            tokio::select! {
                () = responses.closed() => break,
                status = backend.stopped() => {
                    let _is_open = responses.send(Err(status)).await;
                    break;
                }
                () = advance.notify.notified() => self.report_progress().await,
                request = requests.message(), if is_open => match request {
                    Ok(Some(request)) => self.handle(request).await,
                    Ok(None) => is_open = false,
                    Err(_) => break,
                },
            }
        }
        for watch in self.running.values() {
            watch.task.abort();
        }
    }

    async fn handle(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request).await,
            Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id).await,
            Some(RequestUnion::ProgressRequest(_)) => {
                // Without a leader there is no progress to report.
                if let Ok(answer) = self.backend.read(Query::Totals, Consistency::Linearizable).await {
                    self.wanted = Some(answer.revision);
                    self.report_progress().await;
                }
            }
            // etcd ignores them as well.
            None => {}
        }
    }

    async fn create(&mut self, mut request: WatchCreateRequest) {
        self.running.retain(|_, watch| !watch.task.is_finished());
        if request.key.is_empty() {
            // The first key there can be, as in etcd.
            request.key = Bytes::from_static(&[0]);
        }
        if request.start_revision < 0 {
            return self.refuse(COMPACTED).await;
        }
        if self.running.len() >= MAX_WATCHES {
            return self.refuse("etcdserver: too many watches on one stream").await;
        }
        let range = match key_range(request.key.clone(), request.range_end.clone()) {
            Ok(range) => range,
            Err(status) => return self.refuse(status.message()).await,
        };
        let follower = match self.backend.follow(range, revision(request.start_revision)) {
            Ok(follower) => follower,
            // etcd states the whole error.
            Err(status) => {
                let text = format!("rpc error: code = {:?} desc = {}", status.code(), status.message());
                return self.refuse(&text).await;
            }
        };
        let Some(id) = self.id(request.watch_id) else {
            return self.refuse("mvcc: duplicate watch ID provided on the WatchStream").await;
        };
        let seen = Arc::new(AtomicU64::new(0));
        let watch = OneWatch {
            backend: self.backend.clone(),
            responses: self.responses.clone(),
            shape: Shape::new(id, &request),
            reports_progress: request.progress_notify,
            seen: seen.clone(),
            advance: self.advance.clone(),
        };
        let task = tokio::spawn(watch.run(follower));
        self.running.insert(id, Running { task, seen });
    }

    /// Returns the id of a new watch: that of the client, or the next one; `None` if the client's is in use.
    fn id(&mut self, wanted: i64) -> Option<i64> {
        if wanted != 0 {
            return (!self.running.contains_key(&wanted)).then_some(wanted);
        }
        while self.running.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Some(self.next_id - 1)
    }

    async fn refuse(&self, reason: &str) {
        let refused = WatchResponse {
            header: self.backend.header_now(),
            watch_id: NO_WATCH,
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..WatchResponse::default()
        };
        self.respond(refused).await;
    }

    async fn cancel(&mut self, id: i64) {
        let Some(watch) = self.running.remove(&id).filter(|watch| !watch.task.is_finished()) else { return };
        watch.task.abort();
        // No response of the watch may follow that of its end.
        let _ended = watch.task.await;
        let header = self.backend.header_now();
        self.respond(WatchResponse { header, watch_id: id, canceled: true, ..WatchResponse::default() }).await;
    }

    /// Tells the client that it has all changes up to the revision of its request, once that is so.
    async fn report_progress(&mut self) {
        let Some(wanted) = self.wanted else { return };
        // Before `seen` is read, and a watch reads it after it has written `seen`: one of both learns of the other.
        self.advance.is_awaited.store(true, Ordering::SeqCst);
        self.running.retain(|_, watch| !watch.task.is_finished());
        let seen = self.running.values().map(|watch| watch.seen.load(Ordering::SeqCst)).min();
        if seen.is_some_and(|seen| seen >= wanted.0) {
            self.wanted = None;
            self.advance.is_awaited.store(false, Ordering::SeqCst);
            // Watches of future revisions have "seen" more than there is.
            let header = self.backend.header(wanted);
            self.respond(WatchResponse { header, watch_id: NO_WATCH, ..WatchResponse::default() }).await;
        }
    }

    /// Queues a response. A closed queue ends the task of the stream.
    async fn respond(&self, response: WatchResponse) {
        let _is_open = self.responses.send(Ok(response)).await;
    }
}

/// One watch.
struct OneWatch {
    backend: Backend,
    responses: Responses,
    shape: Shape,
    reports_progress: bool,
    seen: Arc<AtomicU64>,
    advance: Arc<Advance>,
}

impl OneWatch {
    async fn run(self, follower: Follower) {
        if let Err(status) = self.follow(follower).await {
            let _is_open = self.responses.send(Err(status)).await;
        }
        self.advance.notify.notify_one();
    }

    async fn follow(&self, mut follower: Follower) -> Result<(), Status> {
        let (mut is_created, mut last) = (false, Instant::now());
        loop {
            let message = follower.next().await.map_err(|error| failed(&error))?;
            let began = match &message {
                WatchMessage::Began(revision) => *revision,
                _ => follower.seen(),
            };
            if !is_created {
                is_created = true;
                self.send(began, WatchResponse { created: true, ..WatchResponse::default() }).await?;
            }
            match message {
                WatchMessage::Began(_) => {}
                WatchMessage::Changes { revision, changes } => {
                    for response in self.shape.responses(&changes) {
                        self.send(revision, response).await?;
                        last = Instant::now();
                    }
                }
                WatchMessage::Progress(revision) => {
                    if self.reports_progress && last.elapsed() >= PROGRESS_PAUSE {
                        self.send(revision, WatchResponse::default()).await?;
                        last = Instant::now();
                    }
                }
                WatchMessage::Compacted(first) => {
                    let canceled = WatchResponse {
                        canceled: true,
                        compact_revision: number(first.0),
                        cancel_reason: COMPACTED.to_owned(),
                        ..WatchResponse::default()
                    };
                    return self.send(self.backend.newest().max(first), canceled).await;
                }
            }
            self.seen.store(follower.seen().0, Ordering::SeqCst);
            if self.advance.is_awaited.load(Ordering::SeqCst) {
                self.advance.notify.notify_one();
            }
        }
    }

    async fn send(&self, revision: Revision, response: WatchResponse) -> Result<(), Status> {
        let response = WatchResponse { header: self.backend.header(revision), watch_id: self.shape.id, ..response };
        let closed = |_| Status::cancelled("etcdserver: watch canceled");
        self.responses.send(Ok(response)).await.map_err(closed)
    }
}
