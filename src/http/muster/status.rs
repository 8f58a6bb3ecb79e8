//! `/v1/muster/status`: the agent with its problems and holds, and its view of the cluster.

use std::{collections::BTreeMap, time::Duration};

use axum::{extract::State, http::Uri, response::Response};

use crate::{
    api,
    diagnostic::FolderReport,
    http::{
        Api,
        blocking::{Snapshot, Topic},
        blocking_response::show,
        consul::{agent_self::describe, convert::problem},
        query::Query,
        response::ApiError,
    },
    model::{
        announcement::HoldReason,
        catalog::Catalog,
        date::rfc3339,
        maintenance::{Hold, Scope},
        registered_name::RegisteredName,
    },
    printable,
};

/// Most problems shown per folder; the response contains the number of the others.
const MAX_PROBLEMS: usize = 100;

pub(crate) async fn status(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    show(&api, &uri, &query, Topic::Agent, |snapshot| {
        Ok(api::AgentStatus { agent: describe(&api.agent, snapshot), muster: state(&api, snapshot) })
    })
    .await
}

fn state(api: &Api, snapshot: &Snapshot) -> api::Status {
    let agent = &api.agent;
    let membership = &*snapshot.members;
    let own = membership.members.iter().find(|member| member.id.name == agent.node);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for member in &membership.members {
        *counts.entry(member.reach.as_str().to_owned()).or_default() += 1;
    }
    api::Status {
        version: agent.version.to_owned(),
        domain: agent.domain.to_string(),
        zone: agent.zone.as_ref().map(ToString::to_string),
        advertise: agent.advertise.published().iter().map(ToString::to_string).collect(),
        listen: api::Listen {
            dns: agent.dns.iter().map(ToString::to_string).collect(),
            http: agent.http.iter().map(ToString::to_string).collect(),
            gossip: agent.gossip.to_string(),
        },
        address_problem: snapshot.address_problem.map(|problem| format!("{problem} ({})", problem.hint())),
        store: api.commands.store.is_some(),
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
        external_nodes: snapshot.catalog.external_count(),
        conflicts: snapshot.catalog.conflicts().iter().map(|name| conflict(&snapshot.catalog, name)).collect(),
        rejected: membership.rejected.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
        files: snapshot.files.iter().map(|(path, report)| folder(path, report)).collect(),
        held: snapshot.maintenance.0.iter().map(|((scope, kind), hold)| held(scope, *kind, hold)).collect(),
    }
}

fn conflict(catalog: &Catalog, name: &RegisteredName) -> api::Conflict {
    api::Conflict {
        node: name.to_string(),
        owners: catalog.claims(name).iter().map(|claim| claim.owner.to_string()).collect(),
        counts: catalog.external(name).map(|claim| claim.owner.to_string()),
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
