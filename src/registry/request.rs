//! Changes that clients request from the registry's task, with a channel for the outcome.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};

use super::{
    error::RegistryError,
    state::{Change, Outcome},
};

/// Requests that wait for the task; further ones wait for a place.
const WAITING: usize = 64;

/// A change of the registry, to be carried out by [`task`](super::task).
#[derive(Debug)]
pub struct Request {
    /// The change.
    pub change: Change,
    /// The outcome, once the change is on the disk. The client may be gone by then.
    pub done: oneshot::Sender<Result<Outcome, RegistryError>>,
}

/// The requests that wait for the task. They outlive it: a request that one start of the task has left is for the next start,
/// so that a reload refuses none. Once the last queue is dropped, all requests are refused.
#[derive(Clone, Debug)]
pub struct Queue {
    requests: mpsc::Sender<Request>,
    waiting: Arc<Mutex<mpsc::Receiver<Request>>>,
}

impl Default for Queue {
    fn default() -> Self {
        let (requests, waiting) = mpsc::channel(WAITING);
        Self { requests, waiting: Arc::new(Mutex::new(waiting)) }
    }
}

impl Queue {
    /// Returns the channel that takes requests.
    pub fn sender(&self) -> mpsc::Sender<Request> {
        self.requests.clone()
    }

    /// Waits for the next request. Dropping the future loses none.
    pub async fn next(&self) -> Request {
        match self.waiting.lock().await.recv().await {
            Some(request) => request,
            // Unreachable, since this queue has a sender.
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn request_that_a_task_has_left_is_for_the_next_task() {
        let queue = Queue::default();
        let requests = queue.sender();
        let change = || Change::Deregister("web".to_owned());
        let (done, mut outcome) = oneshot::channel();
        requests.send(Request { change: change(), done }).await.unwrap();
        let next = queue.clone();
        drop(queue);
        drop(next.next().await.done);
        assert_eq!(outcome.try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
        drop(next);
        let (done, _) = oneshot::channel();
        assert!(requests.send(Request { change: change(), done }).await.is_err(), "no task will take it");
    }
}
