//! Members of the cluster in Consul's JSON. Core: values in, values out.

use std::collections::BTreeMap;

use super::convert::node_id;
use crate::{
    api::{self, ALIVE, FAILED, LEFT},
    http::Agent,
    model::{
        date::rfc3339,
        member::{Cause, Member, Reach},
    },
};

/// Versions of Serf's protocol (min, max, current) that current Consul agents report; muster does not speak it.
const PROTOCOL: (u8, u8, u8) = (1, 5, 2);
/// Versions of Serf's delegate protocol.
const DELEGATE: (u8, u8, u8) = (2, 5, 4);

/// Converts a member as in Consul's LAN pool.
pub(crate) fn member(agent: &Agent, member: &Member) -> api::Member {
    let (datacenter, version) = (member.datacenter.as_ref().map(ToString::to_string), member.version.clone());
    let mut tags =
        BTreeMap::from([("role".to_owned(), "node".to_owned()), ("id".to_owned(), node_id(&member.id.name))]);
    tags.extend(datacenter.clone().map(|datacenter| ("dc".to_owned(), datacenter)));
    // Programs that require a version of Consul require it of all members.
    let build = agent.consul_version.as_ref().map(|version| version.as_str().to_owned()).or_else(|| version.clone());
    tags.extend(build.map(|build| ("build".to_owned(), build)));
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

/// Converts a member as in Consul's WAN pool, whose names end in the datacenter. Consul's pool has the servers of all
/// datacenters; here every node serves its datacenter.
pub(super) fn wan_member(agent: &Agent, known: &Member) -> api::Member {
    let shown = member(agent, known);
    let datacenter = known.datacenter.as_ref().unwrap_or(&agent.datacenter);
    api::Member { name: format!("{}.{datacenter}", shown.name), ..shown }
}

/// Consul's status of a member. Consul calls an unreachable member failed at once. A planned restart is no failure.
pub(super) fn status(reach: Reach) -> u8 {
    match reach {
        Reach::Alive | Reach::Suspect | Reach::Restarting => ALIVE,
        Reach::Held => FAILED,
        Reach::Gone(Cause::Left | Cause::Forgotten) => LEFT,
        Reach::Gone(_) => FAILED,
    }
}
