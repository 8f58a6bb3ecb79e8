//! The bound on the octets of a member's log: when a snapshot is taken, and how much of the log is kept behind it.
//!
//! Both follow the size of the state. A snapshot costs as much as the state, so it is taken after as many octets of entries; and a
//! follower that lacks more than the state receives the snapshot sooner than the entries.

use crate::store::raft::Voter;

/// Octets of entries after which a snapshot is taken, beyond those of the state; fewer in tests, so that they need few writes.
pub(super) const FLOOR: u64 = if cfg!(test) { 8 << 20 } else { 32 << 20 };
/// Share of these octets that is kept behind a snapshot.
const KEPT: u64 = 2;

/// The bound on the octets of a log.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    /// Octets that were written to the log when the last snapshot was begun; `None`: not in this run.
    snapshot_at: Option<u64>,
}

impl LogLimit {
    /// Takes a snapshot if the log has grown much since the last one, and removes what needs not be kept.
    pub(super) async fn look(&mut self, voter: &Voter) {
        let totals = voter.state().totals();
        let between_snapshots = FLOOR + totals.octets + totals.history_octets;
        let written = voter.log_written();
        let last = self.snapshot_at.get_or_insert_with(|| written.saturating_sub(voter.log_octets()));
        if written.saturating_sub(*last) >= between_snapshots {
            *last = written;
            voter.take_snapshot().await;
        }
        voter.cut_log(between_snapshots / KEPT).await;
    }
}
