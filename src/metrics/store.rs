//! Metrics of the store on a node that holds its log.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{Family, counter::Writers, latency::Latency};

/// State of this node's member of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreFigures {
    /// True if the member knows a leader.
    pub has_leader: bool,
    /// True if the member is the leader, confirmed by a majority.
    pub is_leader: bool,
    /// Term of the election.
    pub term: u64,
    /// Revision of the state.
    pub revision: u64,
    /// Number of keys.
    pub keys: u64,
    /// Number of sessions and leases.
    pub lifetimes: u64,
    /// Octets of keys and values.
    pub octets: u64,
    /// Limit of these octets.
    pub max_octets: u64,
    /// Octets of the log on disk.
    pub log_octets: u64,
    /// Number of voters.
    pub voters: u64,
    /// Largest number of entries that a member lacks; 0 on a follower.
    pub lag: u64,
}

/// This node's part in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreMember {
    /// It votes in no cluster: it is not to, or the cluster has not been founded yet.
    #[default]
    None,
    /// It is to hold the log, and cannot open it or write to it.
    Failed,
    /// It votes, with this state.
    Voter(StoreFigures),
}

#[derive(Debug, Default)]
struct Counts {
    member: Mutex<StoreMember>,
    fsync: Latency,
}

/// Handle of the store's metrics. A node that is not to hold the log has none of these metrics; one that cannot hold it has the
/// one that says so.
#[derive(Clone, Debug, Default)]
pub struct Store(Arc<Counts>);

impl Store {
    /// Sets the state of the member.
    pub fn set(&self, member: StoreMember) {
        *self.0.member.lock().unwrap_or_else(PoisonError::into_inner) = member;
    }

    /// The state of the member.
    pub fn member(&self) -> StoreMember {
        *self.0.member.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the time of a write to the log, fsync included.
    pub fn written(&self, took: Duration) {
        self.0.fsync.add(Writers::Many, took, 1);
    }

    pub(super) fn families(&self) -> Vec<Family> {
        let gauge = Family::gauge;
        let failed = |is_failed: bool| {
            gauge(
                "muster_store_failed",
                "1 if this voter of the store cannot open its log or write to it: its other metrics are missing then",
                is_failed.into(),
            )
        };
        let figures = match self.member() {
            StoreMember::None => return Vec::new(),
            StoreMember::Failed => return vec![failed(true)],
            StoreMember::Voter(figures) => figures,
        };
        vec![
            failed(false),
            gauge("muster_store_has_leader", "1 if this voter of the store knows a leader", figures.has_leader.into()),
            gauge(
                "muster_store_is_leader",
                "1 if this node is the leader of the store, confirmed by a majority",
                figures.is_leader.into(),
            ),
            gauge("muster_store_term", "Term of the store's last election", figures.term),
            gauge("muster_store_revision", "Revision of the store's state on this node", figures.revision),
            gauge("muster_store_keys", "Number of keys in the store", figures.keys),
            gauge("muster_store_lifetimes", "Number of sessions and leases in the store", figures.lifetimes),
            gauge(
                "muster_store_bytes",
                "Memory used by keys and values of the store, as it counts towards the limit",
                figures.octets,
            ),
            gauge("muster_store_max_bytes", "Limit from which the store refuses writes", figures.max_octets),
            gauge("muster_store_log_bytes", "Disk space used by the store's log", figures.log_octets),
            gauge("muster_store_voters", "Number of voters of the store", figures.voters),
            gauge(
                "muster_store_lag_entries",
                "Largest number of log entries that a member of the store lacks; 0 on nodes that do not lead",
                figures.lag,
            ),
            Family::histograms(
                "muster_store_fsync_seconds",
                "Time of writes to the store's log, fsync included",
                [([], self.0.fsync.observed())],
            ),
        ]
    }
}
