//! `/v1/muster/store`: the state of the store, and changes of its voters.

use axum::{
    extract::{Path, State},
    http::Uri,
    response::Response,
};

use crate::{
    api::store::{Member, Status},
    http::{
        Api,
        consul::store::{store, store_error},
        query::{Query, label},
        response::{ApiError, json},
    },
    store::request::{self, MembershipChange},
};

/// Shows the state of the store, also while it has no leader.
pub(crate) async fn status(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    query.check()?;
    let status = store(&api)?.status().await.map_err(|error| store_error(&error))?;
    Ok(json(&uri, &shown(status)))
}

/// Adds a voter. Answers when the node has the log and votes, which takes as long as sending it the store.
pub(crate) async fn add(State(api): State<Api>, Path(node): Path<String>, query: Query) -> Result<(), ApiError> {
    change(&api, &query, &node, MembershipChange::Add).await
}

/// Removes a voter or a learner.
pub(crate) async fn remove(State(api): State<Api>, Path(node): Path<String>, query: Query) -> Result<(), ApiError> {
    change(&api, &query, &node, MembershipChange::Remove).await
}

async fn change(
    api: &Api,
    query: &Query,
    node: &str,
    change: impl FnOnce(String) -> MembershipChange,
) -> Result<(), ApiError> {
    query.check()?;
    let store = store(api)?;
    let node = label(node)?;
    store.change_membership(change(node.to_string())).await.map_err(|error| store_error(&error))
}

fn shown(status: request::Status) -> Status {
    let members = status.members.into_iter().map(|member| Member {
        id: hexadecimal(member.id),
        node: member.node,
        voter: member.is_voter,
        lag: member.lag,
        unreached: member.unreached.map(|unreached| u64::try_from(unreached.as_millis()).unwrap_or(u64::MAX)),
    });
    Status {
        cluster_id: if status.cluster_id == 0 { String::new() } else { hexadecimal(status.cluster_id) },
        node: status.node,
        leader: status.leader,
        term: status.term,
        revision: status.revision.0,
        last_log: status.last_log,
        applied: status.applied,
        keys: status.keys,
        octets: status.octets,
        max_octets: status.max_octets,
        members: members.collect(),
        failure: status.failure,
    }
}

fn hexadecimal(id: u64) -> String {
    format!("{id:016x}")
}
