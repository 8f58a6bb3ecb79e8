//! The planned end of a leader: another voter takes over first, so that clients do not wait until a timeout starts an election.
//!
//! Followers grant no vote as long as they have heard from a leader within 0.9 s. The leader itself grants its vote at once: with
//! that of the candidate, that is a majority of three voters. Among five, the request is repeated until a third one votes.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::local::Local;
use crate::store::{
    command::Command,
    message::{PeerRequest, TakeOverReply, decode},
    peers::Peers,
};

/// Time limit for another voter to take over: longer than followers wait before they vote for another one.
const LIMIT: Duration = Duration::from_millis(2500);
/// Pause before the request is repeated: longer than an election with slow disks.
const RETRY: Duration = Duration::from_millis(300);
/// Time limit of a request.
const REQUEST: Duration = Duration::from_millis(300);

/// Lets another voter take over, if this node's member is the leader.
pub(super) async fn resign(local: &Local, peers: &Peers) {
    if !local.is_leader() || voters_by_lag(local).is_empty() {
        return;
    }
    // From now on, writes are refused: clients send them again, to the next leader.
    local.refuse().await;
    match timeout(LIMIT, hand_over(local, peers)).await {
        Ok(Some(leader)) => info!(leader, "store: another voter has taken over"),
        Ok(None) | Err(_) => warn!("store: no other voter has taken over; the others elect a leader"),
    }
}

/// Returns the name of the next leader; `None` if no other voter is ready to be one.
async fn hand_over(local: &Local, peers: &Peers) -> Option<String> {
    let term = local.voter.role().term;
    // An empty command behind all that were accepted: they have their outcomes once it is applied.
    local.voter.propose(Command::Operate(Vec::new())).await.ok()?;
    let candidates = voters_by_lag(local);
    let request = PeerRequest::TakeOver { term };
    let mut roles = local.voter.role_changes();
    loop {
        let mut is_accepted = false;
        for node in &candidates {
            let reply = peers.call(node, request.encode(), REQUEST).await;
            is_accepted = reply.is_ok_and(|reply| matches!(decode::<TakeOverReply>(&reply), Some(Ok(()))));
            if is_accepted {
                break;
            }
        }
        if !is_accepted {
            return None;
        }
        let elected = async {
            loop {
                let role = local.voter.role();
                if let Some(leader) = role.leader.filter(|_| !role.is_leader) {
                    return Some(leader);
                }
                if !roles.changed().await {
                    return None;
                }
            }
        };
        tokio::select! {
            leader = elected => return leader,
            () = sleep(RETRY) => {}
        }
    }
}

/// Names of the other voters, those with the most of the log first.
fn voters_by_lag(local: &Local) -> Vec<String> {
    let role = local.voter.role();
    let mut voters: Vec<_> =
        role.members.iter().filter(|member| member.is_voter && member.id != local.voter.id()).collect();
    voters.sort_by_key(|member| role.lag(member.id));
    voters.into_iter().map(|member| member.node.clone()).collect()
}
