//! `/v1/status`: the leader and the voters of the store. Without a store, every node answers for itself: this agent is the leader,
//! and the live nodes are the peers.

use std::time::Duration;

use axum::{extract::State, http::Uri, response::Response};
use tokio::time::timeout;

use crate::{
    http::{Api, response::json},
    store::request::Status,
};

/// Longest wait for the state of the store, which this node knows without asking others.
const STATUS_WAIT: Duration = Duration::from_secs(2);

/// Returns the address of the leader; empty if there is none, as in Consul.
pub(crate) async fn leader(State(api): State<Api>, uri: Uri) -> Response {
    let leader = match status(&api).await {
        None => api.agent.leader_address(),
        Some(status) => status.leader.and_then(|node| address(&api, &node)).unwrap_or_default(),
    };
    json(&uri, &leader)
}

/// Returns the addresses of the voters.
pub(crate) async fn peers(State(api): State<Api>, uri: Uri) -> Response {
    let peers: Vec<String> = match status(&api).await {
        None => {
            let known = api.queries.snapshot();
            let alive = known.members.members.iter().filter(|member| member.reach.is_live());
            alive.map(|member| member.address.to_string()).collect()
        }
        Some(status) => {
            let voters = status.members.iter().filter(|member| member.is_voter).map(|member| &member.node);
            // While no voter replies, as in Consul, where every server knows the others.
            let known = status.known_voters.iter().filter(|_| status.members.is_empty());
            voters.chain(known).filter_map(|node| address(&api, node)).collect()
        }
    };
    json(&uri, &peers)
}

/// Returns the state of the store; `None`: the cluster has no store.
async fn status(api: &Api) -> Option<Status> {
    let store = api.commands.store.as_ref()?;
    Some(timeout(STATUS_WAIT, store.status()).await.ok().and_then(Result::ok).unwrap_or_default())
}

/// Returns the gossip address of a node, by which all endpoints show nodes; `None`: the node is not a known member.
fn address(api: &Api, node: &str) -> Option<String> {
    if api.agent.node.as_str() == node {
        return Some(api.agent.gossip.to_string());
    }
    let known = api.queries.snapshot();
    let member = known.members.members.iter().find(|member| member.id.name.as_str() == node);
    member.map(|member| member.address.to_string())
}
