//! `/v1/agent`: this node and the members that it knows.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::{StatusCode, Uri},
    response::Response,
};

use super::{
    catalog::{label, show},
    convert::node_id,
    register::{SHOWN, denial},
};
use crate::{
    api::{self, ALIVE, FAILED, LEFT},
    config::GOSSIP_PORT,
    diagnostic::{Diagnostic, FolderReport},
    http::{
        Agent, Api,
        blocking::{Snapshot, Topic},
        command::{Command, JOIN, LEAVE, TELL, give},
        query::{Query, bad},
        response::{ApiError, json},
    },
    model::{
        announcement::HoldReason,
        date::rfc3339,
        maintenance::{Hold, Scope},
        member::{Cause, Member, Membership, Reach},
    },
    yaml::scalar::parse_endpoint,
};

/// Problems of a folder that are shown; of more it is said how many they are.
const MAX_PROBLEMS: usize = 100;
/// The versions of Serf's protocol that Consul's agents of today report; muster does not speak it.
const PROTOCOL: (u8, u8, u8) = (1, 5, 2);
/// The same of Serf's own part of it.
const DELEGATE: (u8, u8, u8) = (2, 5, 4);

pub(crate) async fn myself(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    show(&api, &uri, &query, Topic::Agent, |known| Ok(describe(&api.agent, known))).await
}

pub(crate) async fn members(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    one_pool(&query)?;
    show(&api, &uri, &query, Topic::Members, |known| {
        Ok(known.members.members.iter().map(member).collect::<Vec<api::Member>>())
    })
    .await
}

/// There is one cluster, and it has no parts.
fn one_pool(query: &Query) -> Result<(), ApiError> {
    if query.flag("wan")? {
        return Err(bad("wan: there is one cluster, whose nodes may have different datacenters: leave it out"));
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
    one_pool(&query)?;
    let target = address.ok().and_then(|Path(address)| parse_endpoint(&address, Some(GOSSIP_PORT)));
    let expected = "After /v1/agent/join/ stands an address: ip, ip:port, [v6]:port, host or host:port.";
    let target = target.ok_or_else(|| ApiError(StatusCode::BAD_REQUEST, expected.to_owned()))?;
    let what_now = format!("Is {target} where a node gossips, and do firewalls let UDP through both ways?");
    let outcome = give(&api.orders, |done| Command::Join { target, done }, JOIN, &what_now).await?;
    let texts = |addresses: &[std::net::SocketAddr]| addresses.iter().map(ToString::to_string).collect();
    Ok(json(&uri, &api::Joined { asked: texts(&outcome.asked), answered: texts(&outcome.answered) }))
}

pub(crate) async fn leave(State(api): State<Api>) -> Result<(), ApiError> {
    give(&api.orders, |done| Command::Leave { done }, LEAVE, "Look at the agent's log, or end it by SIGTERM.").await
}

/// Has all nodes forget one that is gone, so that its services are no longer declared.
pub(crate) async fn force_leave(
    State(api): State<Api>,
    Path(name): Path<String>,
    query: Query,
) -> Result<(), ApiError> {
    one_pool(&query)?;
    let node = label(&name)?;
    let what_now = "Give the order again: nothing is lost by that.";
    let told = give(&api.orders, |done| Command::Dismiss { node: node.clone(), done }, TELL, what_now).await?;
    told.map_err(|denied| denial(&denied))?;
    // Whoever asks next sees it.
    api.hub.shows(|catalog| !catalog.view().contains_key(&node), SHOWN).await;
    Ok(())
}

fn describe(agent: &Agent, all: &Snapshot) -> api::Agent {
    let known = &*all.members;
    let (node, datacenter, version) = (agent.node.to_string(), agent.datacenter.to_string(), agent.version.to_owned());
    let own = known.members.iter().find(|member| member.id.name == agent.node);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for member in &known.members {
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
        member: own.map_or_else(|| member(&unknown(agent)), member),
        stats: stats(known),
        meta: agent.meta.clone(),
        muster: api::Status {
            domain: agent.domain.to_string(),
            advertise: agent.advertise.iter().map(ToString::to_string).collect(),
            listen: api::Listen {
                dns: agent.dns.iter().map(ToString::to_string).collect(),
                http: agent.http.iter().map(ToString::to_string).collect(),
                gossip: agent.gossip.to_string(),
            },
            generation: own.map_or(0, |own| own.id.generation),
            sealed: known.sealed,
            partitioned: known.partitioned.map(rfc3339),
            members: counts,
            diverging: known
                .members
                .iter()
                .filter_map(|member| Some((member.id.name.to_string(), rfc3339(member.differs?))))
                .collect(),
            rejected: known.rejected.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
            files: all.files.iter().map(|(path, report)| folder(path, report)).collect(),
            held: all.maintenance.0.iter().map(|((scope, gate), hold)| held(scope, *gate, hold)).collect(),
        },
    }
}

fn folder(path: &std::path::Path, report: &FolderReport) -> api::Folder {
    let problem = |problem: &Diagnostic| api::Problem {
        file: problem.path.display().to_string(),
        line: problem.line,
        column: problem.column,
        severity: if problem.is_error() { "error" } else { "warning" }.to_owned(),
        message: problem.message.clone(),
        hint: problem.hint.clone(),
    };
    api::Folder {
        path: path.display().to_string(),
        in_service: report.in_service.clone(),
        problems: report.problems.iter().take(MAX_PROBLEMS).map(problem).collect(),
        more_problems: report.problems.len().saturating_sub(MAX_PROBLEMS),
    }
}

fn held(scope: &Scope, gate: HoldReason, hold: &Hold) -> api::Held {
    let time = |seconds: u64| rfc3339(Duration::from_secs(seconds));
    api::Held {
        instance: match scope {
            Scope::Node => None,
            Scope::Instance(key) => Some(key.to_string()),
        },
        gate: gate.as_str().to_owned(),
        reason: hold.reason.clone(),
        since: time(hold.since),
        until: hold.until.map(time),
    }
}

/// This node, where the membership does not have it yet.
fn unknown(agent: &Agent) -> Member {
    Member {
        id: crate::model::member::PeerId { name: agent.node.clone(), generation: 0 },
        address: agent.gossip,
        datacenter: Some(agent.datacenter.clone()),
        version: Some(agent.version.to_owned()),
        reach: Reach::Alive,
        since: Duration::ZERO,
        instances: 0,
        ttl: None,
        view: None,
        differs: None,
    }
}

/// The few numbers of Consul's that mean something here.
fn stats(known: &Membership) -> BTreeMap<String, BTreeMap<String, String>> {
    let count = |status: u8| known.members.iter().filter(|member| self::status(member.reach) == status).count();
    let part = |pairs: &[(&str, String)]| pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let members = [
        ("members", known.members.len().to_string()),
        ("failed", count(FAILED).to_string()),
        ("left", count(LEFT).to_string()),
        ("encrypted", known.sealed.to_string()),
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
        Reach::Alive | Reach::Suspect | Reach::Held => None,
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
        muster: api::Standing {
            reach: member.reach.as_str().to_owned(),
            cause,
            since: rfc3339(member.since),
            instances: member.instances,
            version,
            generation: member.id.generation,
            datacenter,
            view: member.view.map(|view| format!("{view:016x}")),
            view_differs_since: member.differs.map(rfc3339),
        },
    }
}

/// What Consul would say: it calls a member failed as soon as nobody reaches it any more.
fn status(reach: Reach) -> u8 {
    match reach {
        Reach::Alive | Reach::Suspect => ALIVE,
        Reach::Held => FAILED,
        Reach::Gone(Cause::Left | Cause::Dismissed) => LEFT,
        Reach::Gone(_) => FAILED,
    }
}
