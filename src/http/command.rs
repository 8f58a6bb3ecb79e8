//! What the API has others do, and how it waits for the outcome.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::http::StatusCode;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::response::ApiError;
use crate::{
    gossip::message::KeyringChange,
    model::{
        keyring::KeyId,
        name::Label,
        service::Endpoint,
        user_event::{Audience, UserEvent},
    },
    registry::{
        error::RegistryError,
        state::{Change, Outcome},
    },
};

/// How long nodes that are to be joined have to answer, names to be resolved included.
pub(super) const JOIN: Duration = Duration::from_secs(15);
/// How long it may take until the agent has begun to leave.
pub(super) const LEAVE: Duration = Duration::from_secs(5);
/// How long it may take until the others are told of something.
pub(super) const TELL: Duration = Duration::from_secs(5);
/// How long a change of what is registered may take: it is stored before it is answered.
pub(super) const CHANGE: Duration = Duration::from_secs(10);
/// How long all nodes have to answer about their keys.
pub(super) const KEYRING: Duration = Duration::from_secs(15);

/// Where an outcome goes: what was done, or why it was not, for people.
pub type Done<T> = oneshot::Sender<Result<T, String>>;

/// Something to be done. Whoever asked may be gone by the time it is: then its outcome interests nobody.
#[derive(Debug)]
pub enum Command {
    /// Get to know the nodes at this address, and those they know.
    Join {
        /// An address, or a name with one or more.
        target: Endpoint,
        /// Done once a node has answered.
        done: Done<JoinOutcome>,
    },
    /// Say good-bye to the cluster, and end the agent.
    Leave {
        /// Done when it is about to happen: the answer has to get out before.
        done: Done<()>,
    },
    /// Have all nodes forget one that is gone.
    Dismiss {
        /// Its name.
        node: Label,
        /// Done when the others are told, or refused.
        done: Done<Result<(), RegistryError>>,
    },
    /// Make a user event known to all nodes. It is within bounds.
    Fire {
        /// The event's name.
        name: String,
        /// What it says.
        payload: Vec<u8>,
        /// Whom it is for.
        to: Audience,
        /// The event, once it is on its way.
        done: Done<Arc<UserEvent>>,
    },
    /// Show or change the keys of all nodes.
    Keyring {
        /// What.
        change: KeyringChange,
        /// Done when all nodes have answered, or had their time.
        done: Done<KeyringReport>,
    },
    /// Change what is registered on this node, or held back.
    Change {
        /// What.
        change: Change,
        /// Done when it is kept, or refused.
        done: Done<Result<Outcome, RegistryError>>,
    },
    /// Read all files again.
    Reload {
        /// Done when that has begun.
        done: Done<()>,
    },
}

/// Whom a join reached: at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinOutcome {
    /// The addresses that the target stands for.
    pub asked: Vec<SocketAddr>,
    /// Those at which a node answered.
    pub answered: Vec<SocketAddr>,
}

/// What the nodes said about their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyringReport {
    /// Nodes that were asked, this one included.
    pub nodes: usize,
    /// Those that answered, with a refusal or without.
    pub answered: usize,
    /// The keys that are there.
    pub keys: Vec<KeyReport>,
    /// Which node did not do it, and why.
    pub refusals: Vec<(String, String)>,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyReport {
    /// Names it without giving it away.
    pub id: KeyId,
    /// Nodes that have it.
    pub nodes: usize,
    /// Nodes that seal with it.
    pub primary_on: usize,
}

/// Gives an order and waits for its outcome.
///
/// # Errors
/// As Consul has it, 500 with the reason where it is refused; 504 with `what_now` where nothing is heard for `patience`;
/// 503 where nobody takes orders any more.
pub(super) async fn give<T>(
    orders: &mpsc::Sender<Command>,
    order: impl FnOnce(Done<T>) -> Command,
    patience: Duration,
    what_now: &str,
) -> Result<T, ApiError> {
    let (done, outcome) = oneshot::channel();
    let heard = async {
        orders.send(order(done)).await.ok()?;
        outcome.await.ok()
    };
    match timeout(patience, heard).await {
        Ok(Some(Ok(outcome))) => Ok(outcome),
        Ok(Some(Err(reason))) => Err(ApiError(StatusCode::INTERNAL_SERVER_ERROR, reason)),
        Ok(None) => Err(ApiError(StatusCode::SERVICE_UNAVAILABLE, "The agent is about to stop.".to_owned())),
        Err(_) => {
            let text = format!("Nothing was heard of it within {patience:?}. {what_now}");
            Err(ApiError(StatusCode::GATEWAY_TIMEOUT, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_order_that_nobody_carries_out_ends_with_what_to_do() {
        let (orders, mut given) = mpsc::channel(1);
        let leave = || give(&orders, |done| Command::Leave { done }, LEAVE, "Look at the log.");
        // The queue takes one and is then full: both wait no longer than they may.
        for _ in 0..2 {
            let ApiError(status, text) = leave().await.unwrap_err();
            assert_eq!((status.as_u16(), text.as_str()), (504, "Nothing was heard of it within 5s. Look at the log."));
        }
        drop(given.recv().await);
        let (refused, ()) = tokio::join!(leave(), async { drop(given.recv().await) });
        assert_eq!(refused.unwrap_err().0.as_u16(), 503, "dropped without an outcome");
        drop(given);
        assert_eq!(leave().await.unwrap_err().0.as_u16(), 503, "nobody there");
    }
}
