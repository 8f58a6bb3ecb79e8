//! Changes of the voters by an operator.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{Instant, sleep};
use tracing::info;

use super::{describe::describe, local::Local};
use crate::store::{
    message::{KnownMember, PeerRequest},
    peers::Peers,
    request::{MembershipChange, StoreError},
};

/// Time between two looks at the leadership during a change.
const PERIOD: Duration = Duration::from_millis(500);
/// Time without leadership after which a change is given up: longer than a change takes with a majority.
const LOST: Duration = Duration::from_secs(5);

/// Time for a node that was removed to learn of it, and to set its log aside.
const SET_ASIDE: Duration = Duration::from_secs(10);

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
            let id = new_member(peers, node, &members).await?;
            info!(node, "store: adding a voter, once it has the store");
            // Learners that are left from the time before the node got this id.
            let mut replaced: BTreeSet<u64> = of(node);
            replaced.remove(&id);
            led(local, local.voter.add(id, node, &replaced)).await?;
            info!(node, "store: a voter was added");
            Ok(())
        }
        MembershipChange::Remove(node) => {
            let removed: BTreeSet<u64> = of(node);
            if removed.is_empty() {
                return refused(format!("{node} is not a member of the store"));
            }
            info!(node, "store: removing a voter");
            led(local, local.voter.remove(&removed)).await?;
            info!(node, "store: a voter was removed");
            Ok(())
        }
    }
}

/// The id under which a node can be added to these members. Waits for a node that was removed and sets its log aside.
async fn new_member(peers: &Peers, node: &str, members: &[KnownMember]) -> Result<u64, StoreError> {
    let refused = |reason: String| Err(StoreError::Membership(reason));
    let until = Instant::now() + SET_ASIDE;
    loop {
        let Some(description) = describe(peers, node, &PeerRequest::Prepare).await else {
            return refused(format!(
                "{node} cannot be reached, or its configuration has no store: see `muster members`"
            ));
        };
        let Some(id) = description.id else {
            return refused(format!("{node} cannot keep a log: see the log of its agent"));
        };
        let is_known = |id: u64| members.iter().any(|member| member.id == id);
        if is_known(id) || !description.has_log {
            return Ok(id);
        }
        let is_former = description.members.iter().any(|member| is_known(member.id));
        // A member that has just started does not know its members yet.
        let may_change = is_former || description.members.is_empty();
        if !may_change || Instant::now() >= until {
            let log = if is_former { "the log of the time before it was removed" } else { "another store" };
            return refused(format!(
                "{node} holds {log}: stop its agent, delete the folder `store` in its data_dir (with all keys in it), start the \
                 agent, and repeat `muster store add {node}`"
            ));
        }
        sleep(PERIOD).await;
    }
}

/// Waits for a change while this member leads: without a majority, it would never be complete.
async fn led(local: &Local, change: impl Future<Output = Result<(), StoreError>>) -> Result<(), StoreError> {
    tokio::pin!(change);
    let mut unled = Duration::ZERO;
    loop {
        tokio::select! {
            biased;
            outcome = &mut change => return outcome,
            () = sleep(PERIOD) => {}
        }
        // A leader that removes itself leads no longer before the change is complete.
        unled = if local.is_leader() { Duration::ZERO } else { unled + PERIOD };
        if unled >= LOST {
            return Err(StoreError::NoLeader);
        }
    }
}
