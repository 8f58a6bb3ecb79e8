//! Paths of the gateway, and the methods that they call.

/// Beginnings of all paths: the current one, and that of clients of etcd 3.3.
const PREFIXES: [&str; 2] = ["/v3/", "/v3beta/"];

/// Paths behind the prefix, with their methods.
const ROUTES: &[(&str, &str)] = &[
    ("auth/authenticate", "/etcdserverpb.Auth/Authenticate"),
    ("auth/status", "/etcdserverpb.Auth/AuthStatus"),
    ("cluster/member/list", "/etcdserverpb.Cluster/MemberList"),
    ("election/campaign", "/v3electionpb.Election/Campaign"),
    ("election/leader", "/v3electionpb.Election/Leader"),
    ("election/observe", "/v3electionpb.Election/Observe"),
    ("election/proclaim", "/v3electionpb.Election/Proclaim"),
    ("election/resign", "/v3electionpb.Election/Resign"),
    ("kv/compaction", "/etcdserverpb.KV/Compact"),
    ("kv/deleterange", "/etcdserverpb.KV/DeleteRange"),
    ("kv/lease/leases", "/etcdserverpb.Lease/LeaseLeases"),
    ("kv/lease/revoke", "/etcdserverpb.Lease/LeaseRevoke"),
    ("kv/lease/timetolive", "/etcdserverpb.Lease/LeaseTimeToLive"),
    ("kv/put", "/etcdserverpb.KV/Put"),
    ("kv/range", "/etcdserverpb.KV/Range"),
    ("kv/txn", "/etcdserverpb.KV/Txn"),
    ("lease/grant", "/etcdserverpb.Lease/LeaseGrant"),
    ("lease/keepalive", "/etcdserverpb.Lease/LeaseKeepAlive"),
    ("lease/leases", "/etcdserverpb.Lease/LeaseLeases"),
    ("lease/revoke", "/etcdserverpb.Lease/LeaseRevoke"),
    ("lease/timetolive", "/etcdserverpb.Lease/LeaseTimeToLive"),
    ("lock/lock", "/v3lockpb.Lock/Lock"),
    ("lock/unlock", "/v3lockpb.Lock/Unlock"),
    ("maintenance/alarm", "/etcdserverpb.Maintenance/Alarm"),
    ("maintenance/defragment", "/etcdserverpb.Maintenance/Defragment"),
    ("maintenance/hash", "/etcdserverpb.Maintenance/Hash"),
    ("maintenance/hashkv", "/etcdserverpb.Maintenance/HashKV"),
    ("maintenance/snapshot", "/etcdserverpb.Maintenance/Snapshot"),
    ("maintenance/status", "/etcdserverpb.Maintenance/Status"),
    ("watch", "/etcdserverpb.Watch/Watch"),
];

/// Returns the path of the gRPC method that a path of the gateway calls.
pub(in crate::etcd) fn method(path: &str) -> Option<&'static str> {
    let rest = PREFIXES.iter().find_map(|prefix| path.strip_prefix(prefix))?;
    ROUTES.iter().find(|(route, _)| *route == rest).map(|(_, method)| *method)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::proto::descriptors;

    #[test]
    fn every_method_has_a_path() {
        let pool = descriptors();
        for service in pool.services() {
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                assert!(ROUTES.iter().any(|(_, known)| *known == path), "{path}");
            }
        }
        let methods: usize = pool.services().map(|service| service.methods().len()).sum();
        // Leases have three more paths, of etcd 3.2.
        assert_eq!(ROUTES.len(), methods + 3);
        assert_eq!(method("/v3beta/kv/range"), Some("/etcdserverpb.KV/Range"));
        assert_eq!(method("/v2/keys"), None);
    }
}
