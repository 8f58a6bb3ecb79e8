//! What is not there: parts of Consul's API that muster has not, with the reason, and everything else.

use axum::http::{Method, StatusCode, Uri};

use crate::http::{
    endpoints::{self, ENDPOINTS},
    response::ApiError,
};

/// Parts of Consul's API that muster has not, and why.
const NOT_OFFERED: &[(&str, &str)] = &[
    ("/v1/kv/", "muster has no key-value store: nodes agree on nothing but who is there"),
    ("/v1/session/", "muster has no sessions and no locks: they need servers that agree"),
    ("/v1/txn", "muster has no transactions: they need servers that agree"),
    ("/v1/acl/", "muster has no ACLs"),
    ("/v1/agent/token/", "muster has no ACLs: tokens stand in files, and are read again when these change"),
    ("/v1/agent/monitor", "the agent's log is not streamed: it is where its service manager keeps it"),
    ("/v1/agent/host", "muster says nothing of the host's hardware"),
    ("/v1/agent/version", "the version stands in /v1/agent/self"),
    ("/v1/connect/", "muster has no service mesh"),
    ("/v1/discovery-chain/", "muster has no service mesh"),
    ("/v1/exported-services", "muster has no partitions and no peerings"),
    ("/v1/imported-services", "muster has no partitions and no peerings"),
    ("/v1/catalog/gateway-services/", "muster has no gateways"),
    ("/v1/internal/", "only internal/ui/services is there: the rest is for the page of Consul"),
    ("/v1/agent/connect/", "muster has no service mesh"),
    ("/v1/health/connect/", "muster has no service mesh: ask /v1/health/service/{service}"),
    ("/v1/health/ingress/", "muster has no gateways: ask /v1/health/service/{service}"),
    ("/v1/catalog/connect/", "muster has no service mesh: ask /v1/catalog/service/{service}"),
    ("/v1/config", "muster has no configuration entries: services are configured by their files"),
    ("/v1/query", "muster has no prepared queries: ask for the service, or for a tag of it"),
    ("/v1/snapshot", "muster has no state of its own to be saved: files and data_dir are all there is"),
    ("/v1/operator/raft/", "muster has no Raft and no servers"),
    ("/v1/operator/usage", "muster has no servers: count what /v1/catalog shows"),
    ("/v1/operator/utilization", "muster reports to nobody"),
    ("/v1/operator/autopilot/", "muster has no servers"),
    ("/v1/coordinate/", "muster has no network coordinates: near= puts the node itself and its datacenter first"),
    ("/v1/peering", "muster has no peerings: nodes of one cluster may have different datacenters"),
];

pub(crate) async fn no_such_endpoint(uri: Uri) -> ApiError {
    if let Some((_, why)) = NOT_OFFERED.iter().find(|(prefix, _)| uri.path().starts_with(prefix)) {
        // Not 404, which clients of a key-value store take for a key that is not there: no fault, and they would go on.
        return ApiError(StatusCode::BAD_REQUEST, format!("{why}."));
    }
    // Streams are told of by those that they show.
    let there = ENDPOINTS.iter().filter(|known| !known.path.starts_with("/v1/watch/"));
    let there: String = there.map(|known| format!("\n  {} {}: {}", known.method, known.path, known.summary)).collect();
    let there =
        format!("{there}\n  GET /v1/watch/PATH: What GET /v1/PATH shows of the catalog and the cluster, as a stream");
    ApiError(StatusCode::NOT_FOUND, format!("There is nothing here. This version of muster has:{there}"))
}

/// The router adds the header `Allow`.
pub(crate) async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    let allowed = endpoints::methods_of(uri.path()).unwrap_or_else(|| "another method".to_owned());
    ApiError(StatusCode::METHOD_NOT_ALLOWED, format!("This endpoint does not take {method}; it takes {allowed}."))
}
