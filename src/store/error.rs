//! Errors of the store.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::command::Refusal;

/// Reasons why the store cannot carry out a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum StoreError {
    /// The configuration of this node has no store.
    #[error("this cluster has no store: set store.voters in muster.yaml on all nodes")]
    NotConfigured,
    /// There is no leader, or it did not answer in time. A write may or may not have been applied.
    #[error("the store has no leader, or it did not answer in time: see `muster store status`")]
    NoLeader,
    /// No voter can be reached.
    #[error("no voter of the store can be reached: see `muster store status`")]
    Unreachable,
    /// The agent is stopping.
    #[error("the agent is shutting down")]
    Stopping,
    /// A query was refused: its revision was compacted or is in the future.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A change of the voters was refused; holds the reason.
    #[error("{0}")]
    Membership(String),
    /// Clients of this node have not taken large answers of other nodes yet.
    #[error(
        "this node holds 256 MiB of answers that its clients have not taken yet: try again, ask a voter, or read less at once"
    )]
    TooManyAnswers,
}
