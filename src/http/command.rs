//! Sends commands to the tasks that carry them out, and waits for the outcome.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::response::ApiError;
use crate::{control::Control, gossip::command::Command, registry::request::Request, store::request::Store};

/// Timeout of a join, including name resolution.
pub(super) const JOIN: Duration = Duration::from_secs(15);
/// Timeout until the agent starts to leave.
pub(super) const LEAVE: Duration = Duration::from_secs(5);
/// Timeout until the peers are notified.
pub(super) const NOTIFY: Duration = Duration::from_secs(5);
/// Timeout of a registry change, including its write to disk.
pub(super) const CHANGE: Duration = Duration::from_secs(10);
/// Timeout of a reload: the agent starts its stages again, with all instances.
pub(super) const RELOAD: Duration = Duration::from_secs(25);
/// Timeout of a keyring command on all nodes.
pub(super) const KEYRING: Duration = Duration::from_secs(15);

/// The tasks that carry out commands.
#[derive(Clone, Debug)]
pub struct Commands {
    /// The node in its cluster.
    pub cluster: mpsc::Sender<Command>,
    /// The registry of this node's services.
    pub registry: mpsc::Sender<Request>,
    /// The daemon.
    pub daemon: mpsc::Sender<Control>,
    /// The store; `None`: the cluster has none.
    pub store: Option<Store>,
}

/// Sends a command and waits for its outcome.
///
/// # Errors
/// 504 with `advice` if there is no outcome within `limit`, 503 if the task has ended: the agent stops or applies a configuration.
pub(super) async fn send<C, T>(
    task: &mpsc::Sender<C>,
    command: impl FnOnce(oneshot::Sender<T>) -> C,
    limit: Duration,
    advice: &str,
) -> Result<T, ApiError> {
    let (done, outcome) = oneshot::channel();
    let replied = async {
        task.send(command(done)).await.ok()?;
        outcome.await.ok()
    };
    match timeout(limit, replied).await {
        Ok(Some(outcome)) => Ok(outcome),
        Ok(None) => Err(ended()),
        Err(_) => {
            let text = format!("Request timed out after {} s. {advice}", limit.as_secs());
            Err(ApiError(StatusCode::GATEWAY_TIMEOUT, text))
        }
    }
}

/// The error for a command to a task that has ended.
pub(super) fn ended() -> ApiError {
    let text = "The agent is stopping or applying a new configuration: repeat the request.";
    ApiError(StatusCode::SERVICE_UNAVAILABLE, text.to_owned())
}

/// The error for a command that the node refused: 500 with the reason, as Consul answers.
pub(super) fn refused(reason: String) -> ApiError {
    ApiError(StatusCode::INTERNAL_SERVER_ERROR, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn command_without_outcome_times_out_with_advice() {
        let (cluster, mut commands) = mpsc::channel(1);
        let leave = || send(&cluster, |done| Command::Leave { done }, LEAVE, "See the log.");
        // The queue takes one command and is then full. Both requests time out.
        for _ in 0..2 {
            let ApiError(status, text) = leave().await.unwrap_err();
            assert_eq!((status.as_u16(), text.as_str()), (504, "Request timed out after 5 s. See the log."));
        }
        drop(commands.recv().await);
        let (refused, ()) = tokio::join!(leave(), async { drop(commands.recv().await) });
        assert_eq!(refused.unwrap_err().0.as_u16(), 503, "dropped without an outcome");
        drop(commands);
        assert_eq!(leave().await.unwrap_err().0.as_u16(), 503, "the task has ended");
    }
}
