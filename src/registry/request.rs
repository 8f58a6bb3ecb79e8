//! A change that a client requests from the registry's task, with a channel for the outcome.

use tokio::sync::oneshot;

use super::{
    error::RegistryError,
    state::{Change, Outcome},
};

/// A change of the registry, to be carried out by [`task`](super::task).
#[derive(Debug)]
pub struct Request {
    /// The change.
    pub change: Change,
    /// The outcome, once the change is on the disk. The client may be gone by then.
    pub done: oneshot::Sender<Result<Outcome, RegistryError>>,
}
