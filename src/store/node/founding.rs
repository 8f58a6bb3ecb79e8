//! Foundation of the cluster: once, by the first of the configured voters, when all of them are reachable and empty.
//!
//! A voter that has a log proves that the cluster exists. One that cannot be reached may have a log, so nothing is founded
//! without it. A store of other voters is not joined by a second one: two nodes would otherwise read and write different keys.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::{describe::describe, local::Local, member::Node};
use crate::store::{command::Command, message::PeerRequest, raft::Member};

/// Time between two attempts.
const RETRY: Duration = Duration::from_millis(300);
/// Time between two looks at the store that keeps a node from founding one.
const LOOK: Duration = Duration::from_secs(5);
/// Time for other nodes to become known to a node that joins none at its start: they may join it.
const ALONE: Duration = Duration::from_secs(1);
/// The same for a node that joins others: an exchange of gossip takes less, but the first one may be lost. A node that is the first of
/// its cluster waits so long, once.
const JOINING: Duration = Duration::from_secs(10);
/// Time in which the other nodes are asked for a store. One that does not reply within it may be gone, or has no store.
const ASKING: Duration = Duration::from_secs(5);

/// What other nodes know of a store.
enum Elsewhere {
    /// A store of these voters.
    Store(Vec<String>),
    /// None, as far as they reply: some do not.
    Unknown,
    /// None.
    Nothing,
}

/// Founds the cluster, unless it exists. Ends when this node's member belongs to a cluster.
pub(super) async fn found(node: &Node, local: &Local, voters: &[String]) {
    let (mut is_reported, mut reported_store) = (false, None::<Vec<String>>);
    if local.voter.role().members.is_empty() {
        let limit = if node.joins { JOINING } else { ALONE };
        let _ = timeout(limit, node.peers.any_known()).await;
    }
    let asking = Instant::now() + ASKING;
    while local.voter.role().members.is_empty() {
        if let Some(members) = all_empty(node, local, voters).await {
            match elsewhere(node, voters).await {
                Elsewhere::Store(existing) => {
                    if reported_store.as_ref() != Some(&existing) {
                        let existing_voters = existing.join(", ");
                        warn!(
                            voters = voters.join(", "),
                            existing_voters,
                            "store: not founding a second store: set store.voters to the voters of the existing one, or remove it \
                             from this node; `muster store add` makes a node a voter"
                        );
                        reported_store = Some(existing);
                    }
                    sleep(LOOK).await;
                    continue;
                }
                Elsewhere::Unknown if Instant::now() < asking => {
                    sleep(RETRY).await;
                    continue;
                }
                Elsewhere::Unknown | Elsewhere::Nothing => {}
            }
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

/// Asks the nodes other than these voters for a store.
async fn elsewhere(node: &Node, voters: &[String]) -> Elsewhere {
    let others = node.peers.known().into_iter().filter(|name| !voters.contains(name));
    let asked = others.map(|name| async move { describe(&node.peers, &name, &PeerRequest::Describe).await });
    let described = join_all(asked).await;
    let members = described.iter().flatten().map(|description| &description.members);
    match members.into_iter().find(|members| !members.is_empty()) {
        Some(members) => {
            let voters = members.iter().filter(|member| member.is_voter);
            Elsewhere::Store(voters.map(|member| member.node.clone()).collect())
        }
        None if described.iter().any(Option::is_none) => Elsewhere::Unknown,
        None => Elsewhere::Nothing,
    }
}
