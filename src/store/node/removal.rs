//! The end of a member that an operator has removed.
//!
//! The leader stops to send entries to a removed member, which often does not receive the one that removes it. So the member asks,
//! as long as it does not vote or knows no leader. Only the answer of a confirmed leader counts: others may know an older set of
//! members, to which this one had not been added yet.

use std::{fs, io, path::PathBuf, time::Duration};

use tracing::warn;

use super::{local::Local, member::Node};
use crate::store::{
    message::{PeerRefusal, PeerRequest, RemovedReply, decode},
    peers::Peers,
};

/// Time limit of a question.
const ASK: Duration = Duration::from_secs(1);

/// Reports whether the member may have been removed: it does not vote, or knows no leader, and has heard of a cluster.
pub(super) fn may_be_removed(local: &Local) -> bool {
    let role = local.voter.role();
    let knows_cluster = !role.members.is_empty() && local.voter.state().cluster_id() != 0;
    knows_cluster && (role.leader.is_none() || !local.voter.is_voter())
}

/// Asks the leader whether the member was removed; false if no leader answers.
pub(super) async fn is_removed(node: &Node, local: &Local, voters: &[String]) -> bool {
    let request = PeerRequest::IsRemoved { cluster: local.voter.state().cluster_id(), id: local.voter.id() };
    let members = local.voter.role().members.into_iter().map(|member| member.node);
    let mut candidates: Vec<String> = members.chain(voters.iter().cloned()).collect();
    let mut at = 0;
    // The leader may be none of the nodes that this one knows: others name it.
    while let Some(candidate) = candidates.get(at).cloned() {
        let is_new = *candidate != *node.own && candidates.iter().position(|name| *name == candidate) == Some(at);
        at += 1;
        match if is_new { ask(&node.peers, &candidate, &request).await } else { None } {
            Some(Ok(is_removed)) => return is_removed,
            Some(Err(PeerRefusal::NotLeader(Some(leader)))) => candidates.insert(at, leader),
            _ => {}
        }
    }
    false
}

async fn ask(peers: &Peers, node: &str, request: &PeerRequest) -> Option<RemovedReply> {
    decode(&peers.call(node, request.encode(), ASK).await.ok()?)
}

/// Ends the member and sets its folder aside: the node is no voter from now on, and may be added under a new id.
pub(super) async fn end_removed(node: &Node) {
    // A request to become a member waits, so that it does not find the former id.
    let _starting = node.starting.lock().await;
    node.end().await;
    match set_aside(node) {
        Ok(folder) => warn!(
            folder = %folder.display(),
            "store: this node was removed from the store: it forwards requests to the voters. Its former log is in this folder, \
             which may be deleted. Remove the node from store.voters on all nodes; `muster store add` makes it a voter again"
        ),
        Err(error) => warn!(
            folder = %node.folder.display(), %error,
            "store: this node was removed from the store, and its former log cannot be set aside: stop the agent, delete this \
             folder, and start it again"
        ),
    }
}

/// Renames the folder, in place of one that was set aside before.
fn set_aside(node: &Node) -> io::Result<PathBuf> {
    let mut name = node.folder.file_name().unwrap_or_default().to_owned();
    name.push(".removed");
    let aside = node.folder.with_file_name(name);
    match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(&node.folder, &aside)?;
    if let Some(parent) = aside.parent() {
        fs::File::open(parent)?.sync_all()?;
    }
    Ok(aside)
}
