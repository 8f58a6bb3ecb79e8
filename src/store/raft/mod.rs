//! Consensus among the voters: the only module that uses openraft.
//!
//! ```text
//! commands ─► batch ─► Raft ─► log on disk (fsync) ─► followers ─► committed ─► state machine ─► applied state
//! ```
//!
//! [`Voter`] is what the rest of the store sees: it proposes commands, confirms that reads are linearizable, and changes
//! the members. Commands that arrive while a batch is written form the next batch, so that they share an fsync.

mod batch;
mod contacts;
mod leadership;
mod log;
mod machine;
mod network;
mod recovery;
mod snapshot_file;
mod voter;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use self::recovery::{RecoverStateError, RecoveredState};
pub(super) use self::{
    batch::Batch,
    log::restrict,
    machine::Applied,
    recovery::recover,
    voter::{MAX_TRUST, Role, RoleChanges, Voter, VoterError},
};
use super::command::Outcome;

/// Id of a member, random: a voter that lost its disk comes back under another one, since it has forgotten its votes.
pub(super) type MemberId = u64;

openraft::declare_raft_types!(
    /// Parameters of openraft.
    pub(super) Types:
        D = Batch,
        R = Vec<Outcome>,
        NodeId = MemberId,
        Node = Member,
        SnapshotData = tokio::fs::File,
);

/// A voter or a learner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    /// Name of the node.
    pub(super) node: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.node)
    }
}
