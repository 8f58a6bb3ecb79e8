//! The state of the store's cluster, as one member sees it.

use super::local::Local;
use crate::store::request::{MemberStatus, Status};

/// Returns the state as this node's member sees it.
pub(super) fn status(local: &Local, own: &str) -> Status {
    let (role, applied) = (local.voter.role(), local.voter.applied());
    let applied = applied.borrow();
    let totals = applied.state.totals();
    let members = role.members.iter().map(|member| MemberStatus {
        id: member.id,
        node: member.node.clone(),
        is_voter: member.is_voter,
        // The leader does not know what a member has that has not replied to it yet.
        lag: (role.is_leader && local.voter.has_reply_of(member.id)).then(|| role.lag(member.id)),
        unreached: if role.is_leader { local.voter.unreached(member.id) } else { None },
    });
    Status {
        cluster_id: applied.state.cluster_id(),
        member_id: local.voter.id(),
        node: own.to_owned(),
        leader: local.leader(&role),
        term: role.term,
        revision: applied.state.revision(),
        last_log: role.last_log,
        applied: applied.index,
        keys: totals.keys,
        octets: totals.octets,
        max_octets: applied.state.max_octets(),
        members: members.collect(),
        failure: None,
        known_voters: Vec::new(),
    }
}
