//! Version of etcd that muster states.

/// Version of etcd's API that muster implements. Clients choose features by it: patroni uses `/v3` from 3.4 on, and Kubernetes
/// asks watches for their progress from 3.5.8 on. 3.6 would promise calls that muster does not have (downgrades).
pub(super) const SERVER: &str = "3.5.21";
/// Version of the cluster: the minor version that all members have.
pub(super) const CLUSTER: &str = "3.5.0";
