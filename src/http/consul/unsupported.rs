//! Endpoints of Consul that muster lacks.

/// Endpoints of Consul that muster lacks, with the reason.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("/v1/kv/", "muster has no key/value store"),
    ("/v1/session/", "muster has no sessions and no locks, which need consensus"),
    ("/v1/txn", "muster has no transactions, which need consensus"),
    ("/v1/acl/", "muster has no ACLs"),
    ("/v1/agent/token/", "muster has no ACLs: tokens are in files, which are reloaded after changes"),
    ("/v1/agent/monitor", "the agent's log is not streamed: read it from the service manager"),
    ("/v1/agent/host", "muster does not report the host's hardware"),
    ("/v1/agent/version", "the version is in /v1/agent/self"),
    ("/v1/connect/", "muster has no service mesh"),
    ("/v1/discovery-chain/", "muster has no service mesh"),
    ("/v1/exported-services", "muster has no partitions and no peerings"),
    ("/v1/imported-services", "muster has no partitions and no peerings"),
    ("/v1/catalog/gateway-services/", "muster has no gateways"),
    ("/v1/internal/", "only internal/ui/services is supported; the rest serves the web UI of Consul"),
    ("/v1/agent/connect/", "muster has no service mesh"),
    ("/v1/health/connect/", "muster has no service mesh: use /v1/health/service/{service}"),
    ("/v1/health/ingress/", "muster has no gateways: use /v1/health/service/{service}"),
    ("/v1/catalog/connect/", "muster has no service mesh: use /v1/catalog/service/{service}"),
    ("/v1/config", "muster has no configuration entries: services are configured by their files"),
    ("/v1/query", "muster has no prepared queries: query the service or one of its tags"),
    ("/v1/snapshot", "muster has no snapshots: the state is in files and in data_dir"),
    ("/v1/operator/raft/", "muster has no Raft and no servers"),
    ("/v1/operator/usage", "muster has no servers: use /v1/catalog"),
    ("/v1/operator/utilization", "muster sends no usage reports"),
    ("/v1/operator/autopilot/", "muster has no servers"),
    ("/v1/coordinate/", "muster has no network coordinates: near= sorts by node, zone and datacenter"),
    ("/v1/peering", "muster has no peerings: one cluster spans all datacenters"),
];

/// Returns the reason why muster lacks an endpoint of Consul; `None` if Consul has none at this path.
pub(crate) fn reason(path: &str) -> Option<&'static str> {
    UNSUPPORTED.iter().find(|(prefix, _)| path.starts_with(prefix)).map(|(_, reason)| *reason)
}
