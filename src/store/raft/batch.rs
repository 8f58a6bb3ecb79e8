//! Commands that share an entry of the log, and the task that collects them.

use std::{fmt, sync::Arc};

use openraft::Raft;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::Types;
use crate::store::{
    command::{Command, Outcome},
    request::StoreError,
};

/// Largest number of commands in a batch.
const MAX_COMMANDS: usize = 4096;
/// Number of octets from which a batch takes no further command.
const MAX_OCTETS: usize = 1 << 20;
/// Number of batches that are proposed and not applied yet: one is written here while another one is on its way to followers.
const IN_FLIGHT: usize = 4;

/// Commands that share an entry of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::store) struct Batch(Arc<Vec<Command>>);

impl Batch {
    /// The commands, in the order in which they are applied.
    pub(super) fn commands(&self) -> impl Iterator<Item = Command> + '_ {
        self.0.iter().cloned()
    }

    /// Octets of the commands, roughly.
    pub(super) fn octets(&self) -> usize {
        self.0.iter().map(Command::octets).sum()
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands", self.0.len())
    }
}

/// A command that waits for its outcome.
pub(super) struct Proposal {
    pub(super) command: Command,
    pub(super) done: oneshot::Sender<Result<Outcome, StoreError>>,
}

/// Proposes commands in batches, until all senders are dropped.
pub(super) async fn propose(raft: Raft<Types>, mut proposals: mpsc::Receiver<Proposal>) {
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
    // The semaphore is never closed.
    while let Ok(permit) = in_flight.clone().acquire_owned().await {
        let Some(first) = proposals.recv().await else { return };
        let (commands, done) = collect(first, &mut proposals);
        let proposed = raft.client_write_ff(Batch(Arc::new(commands))).await;
        tokio::spawn(async move {
            let outcomes = match proposed {
                Ok(applied) => applied.await.ok().and_then(Result::ok).map(|response| response.data),
                Err(_) => None,
            };
            match outcomes {
                // A client that no longer waits has dropped its end.
                Some(outcomes) => {
                    for (done, outcome) in done.into_iter().zip(outcomes) {
                        drop(done.send(Ok(outcome)));
                    }
                }
                // Another leader may have the entry in its log, and may apply it yet.
                None => done.into_iter().for_each(|done| drop(done.send(Err(StoreError::NoLeader)))),
            }
            drop(permit);
        });
    }
}

type Done = Vec<oneshot::Sender<Result<Outcome, StoreError>>>;

/// Takes the commands that are waiting, up to the size of a batch.
fn collect(first: Proposal, proposals: &mut mpsc::Receiver<Proposal>) -> (Vec<Command>, Done) {
    let mut octets = first.command.octets();
    let (mut commands, mut done) = (vec![first.command], vec![first.done]);
    while commands.len() < MAX_COMMANDS
        && octets < MAX_OCTETS
        && let Ok(next) = proposals.try_recv()
    {
        octets += next.command.octets();
        commands.push(next.command);
        done.push(next.done);
    }
    (commands, done)
}
