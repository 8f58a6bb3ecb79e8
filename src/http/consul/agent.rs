//! `/v1/agent`: members and cluster commands.

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::{StatusCode, Uri},
    response::Response,
};

use super::{
    member::{member, wan_member},
    mutations::CATALOG_WAIT,
};
use crate::{
    api,
    config::AddressProblem,
    gossip::command::{Command, ForgetError},
    http::{
        Api,
        blocking::Topic,
        blocking_response::show,
        command::{JOIN, LEAVE, NOTIFY, refused, send},
        query::{Query, bad, label},
        response::{ApiError, json},
    },
    model::{member::GOSSIP_PORT, name::Label},
    yaml::scalar::parse_endpoint,
};

pub(crate) async fn members(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    refuse_segments(&query)?;
    let wan = query.flag("wan")?;
    show(&api, &uri, &query, Topic::Members, |snapshot| {
        let members = snapshot.members.members.iter();
        Ok(members
            .map(|known| if wan { wan_member(&api.agent, known) } else { member(&api.agent, known) })
            .collect::<Vec<_>>())
    })
    .await
}

/// Refuses a change of Consul's WAN pool: there is one cluster for all datacenters.
fn refuse_other_pools(query: &Query) -> Result<(), ApiError> {
    if query.flag("wan")? {
        return Err(bad("wan: there is one cluster for all datacenters; omit wan"));
    }
    refuse_segments(query)
}

fn refuse_segments(query: &Query) -> Result<(), ApiError> {
    match query.text("segment") {
        Some(segment) if segment != "_all" => Err(bad(&format!("segment={segment}: muster has no segments"))),
        _ => Ok(()),
    }
}

pub(crate) async fn join(
    State(api): State<Api>,
    uri: Uri,
    address: Result<Path<String>, PathRejection>,
    query: Query,
) -> Result<Response, ApiError> {
    refuse_other_pools(&query)?;
    let target = address.ok().and_then(|Path(address)| parse_endpoint(&address, Some(GOSSIP_PORT)));
    let expected = "Invalid address: /v1/agent/join/ requires ip, ip:port, [v6]:port, host or host:port.";
    let target = target.ok_or_else(|| ApiError(StatusCode::BAD_REQUEST, expected.to_owned()))?;
    if let Some(problem @ AddressProblem::None(_)) = api.queries.snapshot().address_problem {
        let text = format!("This node does not gossip: {problem} ({}).", problem.hint());
        return Err(ApiError(StatusCode::SERVICE_UNAVAILABLE, text));
    }
    let advice = format!("Check that {target} is a gossip address and that firewalls permit UDP in both directions.");
    let outcome =
        send(&api.commands.cluster, |done| Command::Join { target, done }, JOIN, &advice).await?.map_err(refused)?;
    let texts = |addresses: &[std::net::SocketAddr]| addresses.iter().map(ToString::to_string).collect();
    Ok(json(&uri, &api::Joined { asked: texts(&outcome.asked), answered: texts(&[outcome.by.address]) }))
}

pub(crate) async fn leave(State(api): State<Api>) -> Result<(), ApiError> {
    send(
        &api.commands.cluster,
        |done| Command::Leave { done },
        LEAVE,
        "See the agent's log, or stop the agent with SIGTERM.",
    )
    .await
}

/// Removes a gone or unreachable node, with its services, from the view of all nodes.
pub(crate) async fn force_leave(
    State(api): State<Api>,
    Path(name): Path<String>,
    query: Query,
) -> Result<(), ApiError> {
    refuse_other_pools(&query)?;
    let node = label(&name)?;
    let advice = "Repeat the request; it is idempotent.";
    let command = |done| Command::Forget { name: node.clone(), done };
    send(&api.commands.cluster, command, NOTIFY, advice).await?.map_err(|error| forget_error(&node, error))?;
    // The next query must see the removal.
    api.queries.wait_for_catalog(|catalog| !catalog.view().contains_key(&node), CATALOG_WAIT).await;
    Ok(())
}

fn forget_error(node: &Label, error: ForgetError) -> ApiError {
    match error {
        ForgetError::Unknown => {
            let text = format!("Node {node} is unknown to this agent. `muster members` lists the known nodes.");
            ApiError(StatusCode::NOT_FOUND, text)
        }
        ForgetError::Itself => {
            bad(&format!("Node {node} is this agent itself. PUT /v1/agent/leave makes it leave the cluster."))
        }
        ForgetError::Lives(reach) => bad(&format!(
            "Node {node} is {}. Only a node that is gone or unreachable can be forgotten: make it leave, or stop its agent.",
            reach.as_str()
        )),
    }
}
