//! Log lines about the part of this node's member: who leads, and whether it votes. The leader's own lines are those of its duties.

use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use super::local::Local;
use crate::store::raft::RoleChanges;

/// Time without a leader after which the loss is logged: an election ends sooner.
const LEADERLESS: Duration = Duration::from_secs(3);

/// Logs changes of the leader and of the member's vote, until the member ends.
pub(super) async fn log_roles(local: Local) {
    let mut roles = local.voter.role_changes();
    let (mut leader, mut is_voter) = (None::<String>, local.voter.is_voter());
    // Until the store is founded, its foundation is logged.
    let mut is_lost = true;
    loop {
        let role = local.voter.role();
        if is_voter != local.voter.is_voter() {
            is_voter = !is_voter;
            if is_voter {
                info!("store: this node is a voter");
            } else {
                info!("store: this node is no longer a voter");
            }
        }
        if role.leader.is_some() && (role.leader != leader || is_lost) {
            if let Some(leader) = role.leader.as_ref().filter(|_| !role.is_leader) {
                info!(leader, term = role.term, "store: another node is the leader");
            }
            (leader, is_lost) = (role.leader.clone(), false);
        }
        let may_warn = role.leader.is_none() && is_voter && !is_lost;
        tokio::select! {
            changed = settled(&mut roles, &local, role.leader.is_none()) => if !changed { return },
            () = sleep(LEADERLESS), if may_warn => {
                is_lost = true;
                warn!(
                    former = leader,
                    "store: there is no leader: a majority of the voters cannot be reached. Writes wait until one is reached: see \
                     `muster store status`"
                );
            }
            () = local.ended.cancelled() => return,
        }
    }
}

/// Waits until a leader is known, if there is none; otherwise for any change. Candidates change their term all the time.
async fn settled(roles: &mut RoleChanges, local: &Local, is_leaderless: bool) -> bool {
    loop {
        if !roles.changed().await {
            return false;
        }
        if !is_leaderless || local.voter.role().leader.is_some() || local.voter.has_failed() {
            return true;
        }
    }
}
