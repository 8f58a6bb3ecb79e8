//! `/v1/agent/self` and `/v1/agent/version`: this agent as Consul describes its own.

use std::{collections::BTreeMap, time::Duration};

use axum::{extract::State, http::Uri, response::Response};

use super::{
    convert::node_id,
    member::{member, status},
};
use crate::{
    api::{self, FAILED, LEFT, NO_PORT},
    http::{
        Agent, Api,
        blocking::{Snapshot, Topic},
        blocking_response::show,
        query::Query,
        response::{ApiError, json},
    },
    model::member::{Member, Membership, PeerId, Reach},
};

pub(crate) async fn myself(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    show(&api, &uri, &query, Topic::Agent, |snapshot| Ok(describe(&api.agent, snapshot))).await
}

pub(crate) async fn version(State(api): State<Api>, uri: Uri) -> Response {
    json(&uri, &api::Version { human_version: api.agent.reported_version().to_owned(), ..api::Version::default() })
}

/// Describes the agent in Consul's terms.
pub(crate) fn describe(agent: &Agent, snapshot: &Snapshot) -> api::Agent {
    let membership = &*snapshot.members;
    let (node, datacenter) = (agent.node.to_string(), agent.datacenter.to_string());
    let own = membership.members.iter().find(|member| member.id.name == agent.node);
    let dns = agent.dns.iter().flat_map(|address| [format!("udp://{address}"), format!("tcp://{address}")]);
    api::Agent {
        config: api::Config {
            datacenter: datacenter.clone(),
            primary_datacenter: datacenter.clone(),
            node_name: node.clone(),
            node_id: node_id(&agent.node),
            revision: String::new(),
            server: false,
            version: agent.reported_version().to_owned(),
        },
        coord: api::Coordinate::default(),
        debug_config: api::DebugConfig {
            datacenter,
            node_name: node,
            dns_domain: agent.domain.to_string(),
            dns_addrs: dns.collect(),
            dns_port: agent.dns.first().map_or(NO_PORT, |address| address.port().into()),
            connect_enabled: false,
            grpc_port: NO_PORT,
            grpc_tls_port: NO_PORT,
        },
        member: own.map_or_else(|| member(agent, &starting_member(agent)), |own| member(agent, own)),
        stats: stats(agent, membership),
        meta: agent.meta.clone(),
        xds: api::Xds::default(),
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
fn stats(agent: &Agent, membership: &Membership) -> BTreeMap<String, BTreeMap<String, String>> {
    let count = |wanted: u8| membership.members.iter().filter(|member| status(member.reach) == wanted).count();
    let part = |pairs: &[(&str, String)]| pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let members = [
        ("members", membership.members.len().to_string()),
        ("failed", count(FAILED).to_string()),
        ("left", count(LEFT).to_string()),
        ("encrypted", membership.sealed.to_string()),
    ];
    let runtime = [("os", std::env::consts::OS.to_owned()), ("arch", std::env::consts::ARCH.to_owned())];
    let live = membership.members.iter().filter(|member| member.reach.is_live()).count();
    // Every node answers for the cluster, as a server of Consul does for a client.
    let consul =
        [("server", "false".to_owned()), ("known_servers", live.to_string()), ("leader_addr", agent.leader_address())];
    let build =
        [("version", agent.reported_version().to_owned()), ("prerelease", String::new()), ("revision", String::new())];
    BTreeMap::from([
        ("build".to_owned(), part(&build)),
        ("consul".to_owned(), part(&consul)),
        ("runtime".to_owned(), part(&runtime)),
        ("serf_lan".to_owned(), part(&members)),
    ])
}
