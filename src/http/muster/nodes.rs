//! `/v1/muster/nodes`: the members of the cluster and the external nodes.

use axum::{extract::State, http::Uri, response::Response};

use crate::{
    api,
    http::{
        Api,
        blocking::Topic,
        blocking_response::show,
        consul::{convert::shown_address, member::member},
        query::Query,
        response::ApiError,
    },
    model::catalog::{Catalog, Claim},
};

pub(crate) async fn nodes(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    show(&api, &uri, &query, Topic::AllNodes, |snapshot| {
        let members = snapshot.members.members.iter().map(|known| member(&api.agent, known));
        let external = snapshot.catalog.external_nodes().map(|claim| external(&snapshot.catalog, claim));
        Ok(api::Nodes { members: members.collect(), external: external.collect() })
    })
    .await
}

fn external(catalog: &Catalog, claim: &Claim) -> api::ExternalNode {
    let node = &claim.node;
    api::ExternalNode {
        name: node.shown_name().to_owned(),
        address: shown_address(node.host.as_deref(), &node.addresses),
        datacenter: catalog.place_of(&node.name).map(|place| place.datacenter.to_string()).unwrap_or_default(),
        owner: claim.owner.to_string(),
        status: claim.status().to_owned(),
        instances: catalog.instances_on(&node.name).filter(|(_, owner)| **owner == claim.owner).count(),
    }
}
