//! Requests to the leader about times to live.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::store::{lease::LifetimeId, request::StoreError};

/// A request to the leader about a time to live.
#[derive(Debug)]
pub(super) enum Renewal {
    /// Renews a lease or a session.
    Renew {
        /// The lease or session.
        id: LifetimeId,
        /// Takes the time to live; `None` if there is no such lease or session.
        done: oneshot::Sender<Result<Option<Duration>, StoreError>>,
    },
    /// Returns the time that is left.
    Remaining {
        /// The lease or session.
        id: LifetimeId,
        /// Takes the time left; `None` if it is not known here.
        done: oneshot::Sender<Option<Duration>>,
    },
}
