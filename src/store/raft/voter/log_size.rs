//! Size of a member's log on disk: what it takes, and the snapshots and cuts that bound it.

use super::Voter;

impl Voter {
    /// Octets of the log on disk.
    pub(in crate::store) fn log_octets(&self) -> u64 {
        self.log.octets()
    }

    /// Octets that were ever written to the log, those of removed files included.
    pub(in crate::store) fn log_written(&self) -> u64 {
        self.log.written()
    }

    /// Waits until the log has grown by a file.
    pub(in crate::store) async fn log_grows(&self) {
        self.log.grows().await;
    }

    /// Takes a snapshot, so that the log can be cut.
    pub(in crate::store) async fn take_snapshot(&self) {
        // Fails only if Raft has ended.
        let _ = self.raft.trigger().snapshot().await;
    }

    /// Removes files of the log that the snapshot covers, except for those with the last `kept` octets. A follower that lacks
    /// a removed entry receives the snapshot instead.
    pub(in crate::store) async fn cut_log(&self, kept: u64) {
        let (snapshot, purged) = {
            let metrics = self.metrics.borrow();
            (metrics.snapshot.map_or(0, |last| last.index), metrics.purged.map_or(0, |last| last.index))
        };
        let up_to = self.log.last_before(kept).min(snapshot);
        if up_to > purged {
            // Fails only if Raft has ended.
            let _ = self.raft.trigger().purge_log(up_to).await;
        }
    }
}
