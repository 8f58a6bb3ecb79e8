//! `/v1/coordinate`: muster measures no round-trip times, so no node has a network coordinate.

use axum::{
    extract::{Path, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};

use crate::{
    api::{DatacenterCoordinates, NodeCoordinate},
    http::{
        Api,
        blocking::Topic,
        blocking_response::{INDEX, known_datacenters, show},
        query::Query,
        response::ApiError,
    },
};

/// Area of the datacenters in Consul without network areas.
const AREA: &str = "wan";

pub(crate) async fn datacenters(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    show(&api, &uri, &query, Topic::Nodes, |snapshot| {
        let datacenters = known_datacenters(&snapshot.catalog).into_iter();
        let without = |name: &str| DatacenterCoordinates {
            datacenter: name.to_owned(),
            area_id: AREA.to_owned(),
            coordinates: Vec::new(),
        };
        Ok(datacenters.map(without).collect::<Vec<_>>())
    })
    .await
}

pub(crate) async fn nodes(State(api): State<Api>, uri: Uri, query: Query) -> Result<Response, ApiError> {
    show(&api, &uri, &query, Topic::Nodes, |_| Ok(Vec::<NodeCoordinate>::new())).await
}

/// As in Consul, a node without a coordinate is not found.
pub(crate) async fn node(State(api): State<Api>, Path(name): Path<String>) -> Response {
    let text =
        format!("Node {name:?} has no network coordinate: muster measures none. near= sorts by node and datacenter.");
    // Clients read the index before the status.
    let index = [(INDEX, Topic::Nodes.index(&api.queries.snapshot()))];
    (index, ApiError(StatusCode::NOT_FOUND, text)).into_response()
}
