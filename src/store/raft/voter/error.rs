//! Reasons why a member of the store's cluster cannot start.

use std::io;

use thiserror::Error;

use crate::store::raft::snapshot_file::SnapshotFileError;

/// Reasons why a member cannot start.
#[derive(Debug, Error)]
pub(in crate::store) enum VoterError {
    /// The log cannot be read, or another process uses it.
    #[error("cannot open the log of the store: {0}")]
    Log(io::Error),
    /// The snapshot cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotFileError),
    /// The log does not begin where the snapshot ends.
    #[error(
        "the snapshot of the store is missing or too old: it has the log up to entry {snapshot}, and the log begins behind \
         entry {purged}"
    )]
    Gap {
        /// Last entry in the snapshot.
        snapshot: u64,
        /// Last entry that is not in the log.
        purged: u64,
    },
    /// Raft refused to start.
    #[error("cannot start the store: {0}")]
    Raft(String),
}

impl VoterError {
    /// Reports whether the content of a file is damaged or missing, so that the next start fails as well.
    pub(in crate::store) fn is_damage(&self) -> bool {
        match self {
            Self::Log(error) | Self::Snapshot(SnapshotFileError::Io(error)) => {
                matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
            }
            Self::Snapshot(SnapshotFileError::Format | SnapshotFileError::State(_)) | Self::Gap { .. } => true,
            Self::Raft(_) => false,
        }
    }
}
