//! Endpoints of Consul that muster lacks.

use axum::http::StatusCode;

use crate::http::response::ApiError;

/// Paths of Consul's ACLs. A Consul without ACLs answers 401 with this text, by which programs find out.
const ACL: &[&str] = &["/v1/acl/", "/v1/agent/token/"];
const NO_ACL: &str =
    "ACL support disabled: muster has no ACLs, and its tokens are in files, which are reloaded after changes.";

/// Endpoints of Consul that muster lacks, with the reason.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("/v1/agent/monitor", "the agent's log is not streamed: read it from the service manager"),
    ("/v1/agent/host", "muster does not report the host's hardware"),
    ("/v1/connect/", "muster has no service mesh"),
    ("/v1/discovery-chain/", "muster has no service mesh"),
    ("/v1/exported-services", "muster has no partitions and no peerings"),
    ("/v1/imported-services", "muster has no partitions and no peerings"),
    ("/v1/internal/", "only internal/ui/services is supported; the rest serves the web UI of Consul"),
    ("/v1/agent/connect/", "muster has no service mesh"),
    ("/v1/config", "muster has no configuration entries: services are configured by their files"),
    ("/v1/query", "muster has no prepared queries: query the service or one of its tags"),
    (
        "/v1/snapshot",
        "backups of the store are in another format: `muster store snapshot` and `restore`, or /v1/muster/store/export/",
    ),
    (
        "/v1/operator/raft/",
        "`muster store status` and /v1/muster/store show the voters of the store, `muster store add` and `remove` change them",
    ),
    ("/v1/operator/usage", "muster does not report usage: count the services of /v1/catalog"),
    ("/v1/operator/utilization", "muster sends no usage reports"),
    (
        "/v1/operator/autopilot/",
        "only operators change the voters of the store: `muster store status` and /v1/muster/store show them",
    ),
    ("/v1/coordinate/update", "muster has no network coordinates: near= sorts by node, zone and datacenter"),
    ("/v1/peering", "muster has no peerings: one cluster spans all datacenters"),
];

/// Returns the refusal of an endpoint of Consul that muster lacks; `None` if Consul has none at this path.
pub(crate) fn refusal(path: &str) -> Option<ApiError> {
    if ACL.iter().any(|prefix| path.starts_with(prefix)) {
        return Some(ApiError(StatusCode::UNAUTHORIZED, NO_ACL.to_owned()));
    }
    let (_, reason) = UNSUPPORTED.iter().find(|(prefix, _)| path.starts_with(prefix))?;
    // 400: clients of a key/value store interpret 404 as a missing key.
    Some(ApiError(StatusCode::BAD_REQUEST, format!("{reason}.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_servers_point_to_those_of_the_store() {
        let cases = [
            ("/v1/snapshot", "muster store snapshot"),
            ("/v1/operator/raft/configuration", "/v1/muster/store"),
            ("/v1/operator/raft/peer", "muster store add"),
            ("/v1/operator/autopilot/health", "muster store status"),
        ];
        for (path, expected) in cases {
            let Some(ApiError(status, text)) = refusal(path) else { panic!("{path}") };
            assert!(status == StatusCode::BAD_REQUEST && text.contains(expected), "{path}: {text}");
        }
    }
}
