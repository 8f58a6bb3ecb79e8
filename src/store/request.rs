//! Requests to the store, from APIs and commands of this node. The store's task carries them out, here or on a voter.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{
    command::{Command, Outcome},
    lease::LifetimeId,
    query::{Answer, Consistency, Query, Wait},
    watch::{Watch, WatchMessage},
};
pub use super::{
    error::StoreError,
    status::{MemberStatus, MembershipChange, Status},
};

/// A request to the store's task.
#[derive(Debug)]
pub enum Request {
    /// Applies a command.
    Write {
        /// The command.
        command: Command,
        /// Takes the outcome.
        done: oneshot::Sender<Result<Outcome, StoreError>>,
    },
    /// Answers a query.
    Read {
        /// The query.
        query: Query,
        /// Demands on the answer.
        consistency: Consistency,
        /// Waits for a change first.
        wait: Option<Wait>,
        /// Takes the answer.
        done: oneshot::Sender<Result<Answer, StoreError>>,
    },
    /// Watches a range until the receiver is dropped, or until the channel closes because the voter is gone: the client then
    /// starts another watch behind the last revision.
    Watch {
        /// The watch.
        watch: Watch,
        /// Takes the messages.
        messages: mpsc::Sender<WatchMessage>,
    },
    /// Renews a lease or a session: its time to live starts from the beginning.
    Renew {
        /// The lease or the session.
        id: LifetimeId,
        /// Takes the time to live; `None` if there is no such lease or session.
        done: oneshot::Sender<Result<Option<Duration>, StoreError>>,
    },
    /// Returns the state of the store's cluster.
    Status {
        /// Takes the status.
        done: oneshot::Sender<Status>,
    },
    /// Changes the set of voters.
    Membership {
        /// The change.
        change: MembershipChange,
        /// Takes the outcome.
        done: oneshot::Sender<Result<(), StoreError>>,
    },
}

/// The store, as APIs see it.
#[derive(Clone, Debug)]
pub struct Store {
    requests: mpsc::Sender<Request>,
}

impl Store {
    /// Returns the store whose task takes these requests.
    pub fn new(requests: mpsc::Sender<Request>) -> Self {
        Self { requests }
    }

    /// Applies a command.
    ///
    /// # Errors
    /// The reason why there is no outcome.
    pub async fn write(&self, command: Command) -> Result<Outcome, StoreError> {
        self.send(|done| Request::Write { command, done }).await?
    }

    /// Answers a query, after a change if `wait` asks for it.
    ///
    /// # Errors
    /// The reason why there is no answer.
    pub async fn read(&self, query: Query, consistency: Consistency, wait: Option<Wait>) -> Result<Answer, StoreError> {
        self.send(|done| Request::Read { query, consistency, wait, done }).await?
    }

    /// Starts a watch.
    ///
    /// # Errors
    /// Fails if the agent is stopping.
    pub async fn watch(&self, watch: Watch) -> Result<mpsc::Receiver<WatchMessage>, StoreError> {
        let (messages, received) = mpsc::channel(WATCH_QUEUE);
        self.requests.send(Request::Watch { watch, messages }).await.map_err(|_| StoreError::Stopping)?;
        Ok(received)
    }

    /// Renews a lease or a session. Returns its time to live; `None` if there is no such lease or session.
    ///
    /// # Errors
    /// The reason why it cannot be renewed.
    pub async fn renew(&self, id: LifetimeId) -> Result<Option<Duration>, StoreError> {
        self.send(|done| Request::Renew { id, done }).await?
    }

    /// Returns the state of the store's cluster.
    ///
    /// # Errors
    /// Fails if the agent is stopping.
    pub async fn status(&self) -> Result<Status, StoreError> {
        self.send(|done| Request::Status { done }).await
    }

    /// Changes the set of voters.
    ///
    /// # Errors
    /// The reason why the set is unchanged.
    pub async fn change_membership(&self, change: MembershipChange) -> Result<(), StoreError> {
        self.send(|done| Request::Membership { change, done }).await?
    }

    async fn send<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, StoreError> {
        let (done, outcome) = oneshot::channel();
        self.requests.send(request(done)).await.map_err(|_| StoreError::Stopping)?;
        outcome.await.map_err(|_| StoreError::Stopping)
    }
}

/// Messages of a watch that wait for a slow client. The history keeps the rest.
const WATCH_QUEUE: usize = 16;
