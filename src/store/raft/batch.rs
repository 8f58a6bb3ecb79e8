//! Commands that share an entry of the log, and the task that collects them.

use std::{fmt, sync::Arc};

use bytes::Bytes;
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
pub(super) const MAX_OCTETS: usize = 1 << 20;
/// Number of batches that are proposed and not applied yet: one is written here while another one is on its way to followers.
pub(super) const IN_FLIGHT: usize = 4;

/// Commands that share an entry of the log, in their encoding: one after the other in postcard.
///
/// Octets of a command from a client are slices of the buffer that the request was read into. The encoding shares none of it, so
/// that an entry in the log's cache occupies its own octets only; and it is made once, for the disk and for all followers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::store) struct Batch(Bytes);

impl Batch {
    /// The commands, in the order in which they are applied.
    ///
    /// # Errors
    /// Fails if the entry is of another version, or damaged.
    pub(super) fn commands(&self) -> Result<Vec<Command>, postcard::Error> {
        let (mut commands, mut rest) = (Vec::new(), &*self.0);
        while !rest.is_empty() {
            let (command, behind) = postcard::take_from_bytes(rest)?;
            commands.push(command);
            rest = behind;
        }
        Ok(commands)
    }

    /// Octets of the encoding.
    pub(super) fn octets(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} octets of commands", self.0.len())
    }
}

/// A command that waits for its outcome.
pub(super) struct Proposal {
    /// The command in its encoding.
    command: Vec<u8>,
    done: oneshot::Sender<Result<Outcome, StoreError>>,
}

impl Proposal {
    /// Returns a proposal whose outcome is sent to `done`.
    ///
    /// # Errors
    /// Does not fail: postcard refuses sequences and maps of unknown length only, and a command has none.
    pub(super) fn new(
        command: &Command,
        done: oneshot::Sender<Result<Outcome, StoreError>>,
    ) -> Result<Self, postcard::Error> {
        Ok(Self { command: postcard::to_stdvec(command)?, done })
    }
}

/// Proposes commands in batches, until all senders are dropped.
pub(super) async fn propose(raft: Raft<Types>, mut proposals: mpsc::Receiver<Proposal>) {
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
    // The semaphore is never closed.
    while let Ok(permit) = in_flight.clone().acquire_owned().await {
        let Some(first) = proposals.recv().await else { return };
        let (batch, done) = collect(first, &mut proposals);
        let proposed = raft.client_write_ff(batch).await;
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
fn collect(first: Proposal, proposals: &mut mpsc::Receiver<Proposal>) -> (Batch, Done) {
    let (mut octets, mut done) = (first.command, vec![first.done]);
    while done.len() < MAX_COMMANDS
        && octets.len() < MAX_OCTETS
        && let Ok(next) = proposals.try_recv()
    {
        octets.extend_from_slice(&next.command);
        done.push(next.done);
    }
    octets.shrink_to_fit();
    (Batch(octets.into()), done)
}
