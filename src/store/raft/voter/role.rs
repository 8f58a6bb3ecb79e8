//! The part of a member in the store's cluster: who leads, and how far the members have come.

use std::collections::BTreeMap;

use crate::store::{message::KnownMember, raft::MemberId};

/// The part of a member in its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Role {
    /// True if this member is the leader, as far as it knows.
    pub(in crate::store) is_leader: bool,
    /// Name of the leader that this member knows.
    pub(in crate::store) leader: Option<String>,
    /// Term of the election.
    pub(in crate::store) term: u64,
    /// Members of the cluster.
    pub(in crate::store) members: Vec<KnownMember>,
    /// Index of the last entry in the log.
    pub(in crate::store) last_log: u64,
    /// For the leader: index up to which each member has the log.
    pub(in crate::store) replicated: BTreeMap<MemberId, u64>,
}

impl Role {
    /// Number of entries that a member lacks, as the leader knows.
    pub(in crate::store) fn lag(&self, id: MemberId) -> u64 {
        self.last_log.saturating_sub(*self.replicated.get(&id).unwrap_or(&0))
    }
}
