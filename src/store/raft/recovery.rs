//! Recovery after the loss of a majority: turns the state of one voter into a cluster of which it is the only member.
//!
//! The new state has all entries of the log, also those that were not committed: the lost majority may have acknowledged them.
//! It is written into another folder, so that a failure changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use openraft::{
    Membership, RaftLogReader, StorageError, StoredMembership, Vote,
    storage::{RaftLogStorage, RaftStateMachine},
};
use thiserror::Error;

use super::{
    Member, MemberId,
    log::Log,
    machine::Machine,
    snapshot_file::{Meta, SnapshotFileError, Snapshots},
    voter::LOG,
};
use crate::{metrics, store::key::Revision};

/// Reasons why the state of a voter cannot be recovered.
#[derive(Debug, Error)]
pub(crate) enum RecoverStateError {
    /// The log cannot be read, or another process uses it.
    #[error("cannot open the log, or an agent is using it: {0}")]
    Log(io::Error),
    /// The snapshot cannot be read.
    #[error("{0}")]
    Snapshot(String),
    /// The log has no entries, and there is no snapshot.
    #[error("the store of this node is empty: recover on a node that has data")]
    Empty,
    /// The log does not continue the snapshot.
    #[error("the log begins behind the snapshot: entries are missing")]
    Gap,
    /// The folder belongs to another node; holds its name.
    #[error("the store of this folder belongs to node {0}")]
    OtherNode(String),
    /// The node is no member of the cluster.
    #[error("the node is not a member of its store any more: recover on another node")]
    NoMember,
    /// Reading the log or writing the new state failed.
    #[error("{0}")]
    Storage(String),
}

/// Outcome of a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecoveredState {
    /// Term of the last entry. Of two voters, that with the greater term has the newer log, whatever the indexes.
    pub(crate) last_term: u64,
    /// Index of the last entry.
    pub(crate) last_index: u64,
    /// Revision of the state.
    pub(crate) revision: Revision,
    /// Number of keys.
    pub(crate) keys: u64,
    /// Number of entries that were not known to be committed.
    pub(crate) uncommitted: u64,
    /// Names of the other members, which are no longer part of the store.
    pub(crate) removed: Vec<String>,
}

impl From<StorageError<MemberId>> for RecoverStateError {
    fn from(error: StorageError<MemberId>) -> Self {
        Self::Storage(error.to_string())
    }
}

impl From<SnapshotFileError> for RecoverStateError {
    fn from(error: SnapshotFileError) -> Self {
        Self::Snapshot(error.to_string())
    }
}

/// Writes the state of the member `id` in one folder into another, with `new` as the only member. The log of the
/// first folder is locked meanwhile.
pub(in crate::store) async fn recover(
    from: &Path,
    to: &Path,
    node: &str,
    id: MemberId,
    new: MemberId,
) -> Result<RecoveredState, RecoverStateError> {
    let mut log = Log::open(&from.join(LOG), metrics::Store::default()).map_err(RecoverStateError::Log)?;
    // Writes were within the limit when they were proposed.
    let mut machine = Machine::open(Snapshots::new(from), u64::MAX)?;
    let (applied, _) = machine.applied_state().await?;
    let state = log.get_log_state().await?;
    if state.last_purged_log_id > applied {
        return Err(RecoverStateError::Gap);
    }
    let committed = log.read_committed().await?.max(applied).map_or(0, |id| id.index + 1);
    let end = state.last_log_id.map_or(0, |last| last.index + 1);
    let mut next = applied.map_or(0, |applied| applied.index + 1);
    while next < end {
        let entries = log.limited_get_log_entries(next, end).await?;
        let Some(last) = entries.last() else { return Err(RecoverStateError::Gap) };
        next = last.log_id.index + 1;
        machine.apply(entries).await?;
    }
    let (last, membership) = machine.applied_state().await?;
    let last = last.ok_or(RecoverStateError::Empty)?;
    match membership.membership().get_node(&id) {
        None => return Err(RecoverStateError::NoMember),
        Some(member) if member.node != node => return Err(RecoverStateError::OtherNode(member.node.clone())),
        Some(_) => {}
    }
    let only = BTreeMap::from([(new, Member { node: node.to_owned() })]);
    let meta = Meta {
        last_log_id: Some(last),
        last_membership: StoredMembership::new(Some(last), Membership::new(vec![BTreeSet::from([new])], only)),
        snapshot_id: format!("recovered-{}", last.index),
    };
    let state = machine.applied().borrow().state.clone();
    Snapshots::new(to).write(&meta, &state).map_err(|error| RecoverStateError::Storage(error.to_string()))?;
    // Terms go on: an entry of the new cluster must not look older than those of the snapshot.
    let voted = log.read_vote().await?.map_or(0, |vote| vote.leader_id.term);
    let term = voted.max(last.leader_id.term) + 1;
    let mut new_log = Log::open(&to.join(LOG), metrics::Store::default()).map_err(RecoverStateError::Log)?;
    new_log.save_vote(&Vote::new(term, new)).await?;
    new_log.purge(last).await?;
    let others = membership.nodes().filter(|(member, _)| **member != id);
    let mut removed: Vec<_> = others.map(|(_, member)| member.node.clone()).collect();
    // Members are in the order of their random ids.
    removed.sort();
    Ok(RecoveredState {
        last_term: last.leader_id.term,
        last_index: last.index,
        revision: state.revision(),
        keys: state.totals().keys,
        uncommitted: end.saturating_sub(committed),
        removed,
    })
}
