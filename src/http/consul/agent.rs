//! `/v1/agent`: this node, its members, and cluster commands.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::{StatusCode, Uri},
    response::Response,
};

use super::{
    convert::{node_id, problem},
    mutations::CATALOG_WAIT,
};
use crate::{
    api::{self, ALIVE, FAILED, LEFT},
    config::AddressProblem,
    diagnostic::FolderReport,
    gossip::command::{Command, ForgetError},
    http::{
        Agent, Api,
        blocking::{Snapshot, Topic},
        blocking_response::show,
        command::{JOIN, LEAVE, NOTIFY, refused, send},
        query::{Query, bad, label},
        response::{ApiError, json},
    },
    model::{
        announcement::HoldReason,
        date::rfc3339,
        maintenance::{Hold, Scope},
        member::{Cause, GOSSIP_PORT, Member, Membership, PeerId, Reach},
        name::Label,
    },
    printable,
    yaml::scalar::parse_endpoint,
};

/// Most problems shown per folder; the response contains the number of the others.
const MAX_PROBLEMS: usize = 100;
/// Versions of Serf's protocol (min, max, current) that current Consul agents report; muster does not speak it.
const PROTOCOL: (u8, u8, u8) = (1, 5, 2);
/// Versions of Serf's delegate protocol.
const DELEGATE: (u8, u8, u8) = (2, 5, 4);

pub(crate) async fn myself(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    show(&api, &uri, &query, Topic::Agent, |snapshot| Ok(describe(&api.agent, snapshot))).await
}

pub(crate) async fn members(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    refuse_other_pools(&query)?;
    show(&api, &uri, &query, Topic::Members, |snapshot| {
        Ok(snapshot.members.members.iter().map(member).collect::<Vec<api::Member>>())
    })
    .await
}

/// Refuses Consul's WAN pool and segments: there is one cluster.
fn refuse_other_pools(query: &Query) -> Result<(), ApiError> {
    if query.flag("wan")? {
        return Err(bad("wan: there is one cluster for all datacenters; omit wan"));
    }
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

fn describe(agent: &Agent, snapshot: &Snapshot) -> api::Agent {
    let membership = &*snapshot.members;
    let (node, datacenter, version) = (agent.node.to_string(), agent.datacenter.to_string(), agent.version.to_owned());
    let own = membership.members.iter().find(|member| member.id.name == agent.node);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for member in &membership.members {
        *counts.entry(member.reach.as_str().to_owned()).or_default() += 1;
    }
    api::Agent {
        config: api::Config {
            datacenter: datacenter.clone(),
            primary_datacenter: datacenter.clone(),
            node_name: node.clone(),
            node_id: node_id(&agent.node),
            revision: String::new(),
            server: false,
            version,
        },
        debug_config: api::DebugConfig { datacenter, node_name: node, dns_domain: agent.domain.to_string() },
        member: own.map_or_else(|| member(&starting_member(agent)), member),
        stats: stats(membership),
        meta: agent.meta.clone(),
        muster: api::Status {
            domain: agent.domain.to_string(),
            zone: agent.zone.as_ref().map(ToString::to_string),
            advertise: agent.advertise.published().iter().map(ToString::to_string).collect(),
            listen: api::Listen {
                dns: agent.dns.iter().map(ToString::to_string).collect(),
                http: agent.http.iter().map(ToString::to_string).collect(),
                gossip: agent.gossip.to_string(),
            },
            address_problem: snapshot.address_problem.map(|problem| format!("{problem} ({})", problem.hint())),
            generation: own.map_or(0, |own| own.id.generation),
            sealed: membership.sealed,
            partitioned: membership.partitioned.map(rfc3339),
            doubted: membership.doubted.map(rfc3339),
            members: counts,
            diverging: membership
                .members
                .iter()
                .filter_map(|member| Some((member.id.name.to_string(), rfc3339(member.differs?))))
                .collect(),
            rejected: membership.rejected.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
            files: snapshot.files.iter().map(|(path, report)| folder(path, report)).collect(),
            held: snapshot.maintenance.0.iter().map(|((scope, kind), hold)| held(scope, *kind, hold)).collect(),
        },
    }
}

fn folder(path: &std::path::Path, report: &FolderReport) -> api::Folder {
    api::Folder {
        path: printable::path(path).to_string(),
        in_service: report.in_service.clone(),
        problems: report.problems.iter().take(MAX_PROBLEMS).map(problem).collect(),
        more_problems: report.problems.len().saturating_sub(MAX_PROBLEMS),
    }
}

fn held(scope: &Scope, kind: HoldReason, hold: &Hold) -> api::Held {
    let time = |seconds: u64| rfc3339(Duration::from_secs(seconds));
    api::Held {
        instance: match scope {
            Scope::Node => None,
            Scope::Instance(key) => Some(key.to_string()),
        },
        gate: kind.as_str().to_owned(),
        reason: hold.reason.clone(),
        since: time(hold.since),
        until: hold.until.map(time),
    }
}

/// This node, for the time before the membership contains it.
fn starting_member(agent: &Agent) -> Member {
    Member {
        id: PeerId { name: agent.node.clone(), generation: 0 },
        address: agent.gossip,
        datacenter: Some(agent.datacenter.clone()),
        zone: agent.zone.clone(),
        version: Some(agent.version.to_owned()),
        reach: Reach::Alive,
        since: Duration::ZERO,
        instances: 0,
        ttl: None,
        view: None,
        differs: None,
    }
}

/// Statistics of Consul that apply to muster.
fn stats(membership: &Membership) -> BTreeMap<String, BTreeMap<String, String>> {
    let count = |status: u8| membership.members.iter().filter(|member| self::status(member.reach) == status).count();
    let part = |pairs: &[(&str, String)]| pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let members = [
        ("members", membership.members.len().to_string()),
        ("failed", count(FAILED).to_string()),
        ("left", count(LEFT).to_string()),
        ("encrypted", membership.sealed.to_string()),
    ];
    let runtime = [("os", std::env::consts::OS.to_owned()), ("arch", std::env::consts::ARCH.to_owned())];
    BTreeMap::from([("serf_lan".to_owned(), part(&members)), ("runtime".to_owned(), part(&runtime))])
}

fn member(member: &Member) -> api::Member {
    let (datacenter, version) = (member.datacenter.as_ref().map(ToString::to_string), member.version.clone());
    let mut tags =
        BTreeMap::from([("role".to_owned(), "node".to_owned()), ("id".to_owned(), node_id(&member.id.name))]);
    tags.extend(datacenter.clone().map(|datacenter| ("dc".to_owned(), datacenter)));
    tags.extend(version.clone().map(|version| ("build".to_owned(), version)));
    let cause = match member.reach {
        Reach::Gone(cause) => Some(cause.as_str().to_owned()),
        Reach::Alive | Reach::Suspect | Reach::Held | Reach::Restarting => None,
    };
    api::Member {
        name: member.id.name.to_string(),
        addr: member.address.ip().to_string(),
        port: member.address.port(),
        tags,
        status: status(member.reach),
        protocol_min: PROTOCOL.0,
        protocol_max: PROTOCOL.1,
        protocol_cur: PROTOCOL.2,
        delegate_min: DELEGATE.0,
        delegate_max: DELEGATE.1,
        delegate_cur: DELEGATE.2,
        muster: api::MemberState {
            reach: member.reach.as_str().to_owned(),
            cause,
            since: rfc3339(member.since),
            instances: member.instances,
            version,
            generation: member.id.generation,
            datacenter,
            zone: member.zone.as_ref().map(ToString::to_string),
            view: member.view.map(|view| format!("{view:016x}")),
            view_differs_since: member.differs.map(rfc3339),
        },
    }
}

/// Consul's status of a member. Consul calls an unreachable member failed at once. A planned restart is no failure.
fn status(reach: Reach) -> u8 {
    match reach {
        Reach::Alive | Reach::Suspect | Reach::Restarting => ALIVE,
        Reach::Held => FAILED,
        Reach::Gone(Cause::Left | Cause::Forgotten) => LEFT,
        Reach::Gone(_) => FAILED,
    }
}
