//! Changes of the voters by an operator.

use std::collections::BTreeSet;

use tracing::info;

use super::{describe::describe, local::Local};
use crate::store::{
    message::PeerRequest,
    peers::Peers,
    request::{MembershipChange, StoreError},
};

/// Carries out a change on the leader.
pub(super) async fn change(local: &Local, peers: &Peers, change: &MembershipChange) -> Result<(), StoreError> {
    let refused = |reason: String| Err(StoreError::Membership(reason));
    let members = local.voter.role().members;
    let of = |node: &str| members.iter().filter(|member| member.node == node).map(|member| member.id).collect();
    match change {
        MembershipChange::Add(node) => {
            if members.iter().any(|member| member.node == *node && member.is_voter) {
                return refused(format!("{node} is a voter already"));
            }
            let Some(description) = describe(peers, node, &PeerRequest::Prepare).await else {
                return refused(format!(
                    "{node} cannot be reached, or its configuration has no store: see `muster members`"
                ));
            };
            let Some(id) = description.id else {
                return refused(format!("{node} cannot keep a log: see the log of its agent"));
            };
            info!(node, "store: adding a voter");
            local.voter.add(id, node, &BTreeSet::new()).await
        }
        MembershipChange::Remove(node) => {
            let removed: BTreeSet<u64> = of(node);
            if removed.is_empty() {
                return refused(format!("{node} is not a member of the store"));
            }
            info!(node, "store: removing a voter");
            local.voter.remove(&removed).await
        }
    }
}
