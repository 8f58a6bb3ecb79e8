//! Foundation of the cluster: once, by the first of the configured voters, when all of them are reachable and empty.
//!
//! A voter that has a log proves that the cluster exists. One that cannot be reached may have a log, so nothing is founded
//! without it.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::sleep;
use tracing::info;

use super::{describe::describe, local::Local, member::Node};
use crate::store::{command::Command, message::PeerRequest, raft::Member};

/// Time between two attempts.
const RETRY: Duration = Duration::from_millis(300);

/// Founds the cluster, unless it exists. Ends when this node's member belongs to a cluster.
pub(super) async fn found(node: &Node, local: &Local, voters: &[String]) {
    let mut is_reported = false;
    while local.voter.role().members.is_empty() {
        if let Some(members) = all_empty(node, local, voters).await {
            info!(voters = voters.join(", "), "store: founding the cluster");
            if let Err(error) = local.voter.found(members).await {
                info!(%error, "store: the cluster was not founded; trying again");
            }
        } else if !is_reported {
            is_reported = true;
            info!(voters = voters.join(", "), "store: waiting for all voters, to found the cluster or to join it");
        }
        sleep(RETRY).await;
    }
    // Each founder proposes an id: the first one counts.
    while local.voter.state().cluster_id() == 0 {
        if local.is_leader() {
            let _ = local.voter.propose(Command::Found { cluster: local.voter.id() }).await;
        }
        sleep(RETRY).await;
    }
}

/// The members of the cluster to found: `None` if another node founds it, or if one is not known to be empty.
async fn all_empty(node: &Node, local: &Local, voters: &[String]) -> Option<BTreeMap<u64, Member>> {
    if local.voter.had_log() || voters.iter().min().is_none_or(|first| **first != *node.own) {
        return None;
    }
    let mut members = BTreeMap::new();
    for voter in voters {
        let id = if **voter == *node.own {
            local.voter.id()
        } else {
            let description = describe(&node.peers, voter, &PeerRequest::Prepare).await?;
            if description.has_log || !description.members.is_empty() {
                return None;
            }
            description.id?
        };
        members.insert(id, Member { node: voter.clone() });
    }
    Some(members)
}
