//! `/v1/muster/status`: the agent with its problems and holds, and its view of the cluster.

use std::{collections::BTreeMap, time::Duration};

use axum::{extract::State, http::Uri, response::Response};

use crate::{
    api,
    diagnostic::FolderReport,
    dns::zone::zone_problems::ZoneProblem,
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
    store::request::Status,
};

/// Most problems shown per folder; the response contains the number of the others.
const MAX_PROBLEMS: usize = 100;

pub(crate) async fn status(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    let store_problem = store_problem(&api).await;
    show(&api, &uri, &query, Topic::Agent, |snapshot| {
        let muster = api::Status { store_problem: store_problem.clone(), ..state(&api, snapshot) };
        Ok(api::AgentStatus { agent: describe(&api.agent, snapshot), muster })
    })
    .await
}

/// Returns why writes to the store fail, or will fail with the next voter that is lost. Waits for an election that is under way.
async fn store_problem(api: &Api) -> Option<String> {
    problem_of(&api.commands.store.as_ref()?.status().await.ok()?)
}

fn problem_of(status: &Status) -> Option<String> {
    let failed =
        status.failure.as_ref().map(|failure| format!("the voter of the store on this node has failed: {failure}"));
    let without_leader = status.leader.is_none().then(|| without_leader(status));
    let problems: Vec<String> = failed.into_iter().chain(without_leader).collect();
    (!problems.is_empty()).then(|| problems.join("; "))
}

fn without_leader(status: &Status) -> String {
    let voters = status.members.iter().filter(|member| member.is_voter).map(|member| member.node.as_str());
    let voters = voters.collect::<Vec<_>>().join(", ");
    let (known, nodes) = match voters.as_str() {
        "" => (", and no voter can be reached", "most nodes in `store.voters`".to_owned()),
        _ => ("", format!("a majority of its voters {voters}")),
    };
    format!(
        "the store has no leader{known}: writes, consistent reads and updates of dynamic zones fail (start the agents of {nodes} and \
         let them reach each other; if they are lost for good, see `muster store recover --help`)"
    )
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
        store_problem: None,
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
        zone_problems: snapshot.zone_problems.iter().map(zone_problem).collect(),
        files: snapshot.files.iter().map(|(path, report)| folder(path, report)).collect(),
        held: snapshot.maintenance.0.iter().map(|((scope, kind), hold)| held(scope, *kind, hold)).collect(),
    }
}

fn zone_problem(problem: &ZoneProblem) -> api::zones::ZoneProblem {
    api::zones::ZoneProblem {
        zone: problem.zone().to_string(),
        severity: if problem.is_error() { "error" } else { "warning" }.to_owned(),
        message: problem.to_string(),
        hint: problem.hint(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::request::MemberStatus;

    #[test]
    fn store_without_leader_names_its_voters() {
        let member =
            |node: &str, is_voter| MemberStatus { id: 1, node: node.to_owned(), is_voter, lag: None, unreached: None };
        let members = vec![member("a", true), member("b", true), member("c", false)];
        let text = without_leader(&Status { members, ..Status::default() });
        assert!(text.starts_with("the store has no leader: ") && text.contains("its voters a, b and let"), "{text}");
        let text = without_leader(&Status::default());
        assert!(text.contains("no voter can be reached: ") && text.contains("`store.voters`"), "{text}");
    }

    #[test]
    fn failed_voter_is_a_problem_while_others_lead() {
        let whole = Status { leader: Some("b".to_owned()), ..Status::default() };
        assert_eq!(problem_of(&whole), None);
        let failed = Status { failure: Some("no space left".to_owned()), ..whole };
        let text = problem_of(&failed).unwrap();
        assert!(text.ends_with("on this node has failed: no space left"), "{text}");
        let text = problem_of(&Status { leader: None, ..failed }).unwrap();
        assert!(text.contains("no space left; the store has no leader"), "{text}");
    }
}
