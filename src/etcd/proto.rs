//! Messages and services of etcd's v3 API: generated code, and the descriptors that it was generated from.
//!
//! `proto/README.md` says how to generate the code after a change of the `.proto` files.

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

/// Descriptors of all messages and services, encoded.
const DESCRIPTORS: &[u8] = include_bytes!("proto/generated/descriptors.bin");

/// Returns the descriptors of all messages and services.
pub(super) fn descriptors() -> DescriptorPool {
    // The octets are part of the program; a test decodes them.
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).unwrap_or_default());
    POOL.clone()
}

/// Keys and events.
#[allow(clippy::all, clippy::pedantic, missing_docs, unused_qualifications, unreachable_pub)]
pub mod mvccpb {
    include!("proto/generated/mvccpb.rs");
}

/// Keys, watches, leases, members and maintenance.
#[allow(clippy::all, clippy::pedantic, missing_docs, unused_qualifications, unreachable_pub)]
pub mod etcdserverpb {
    include!("proto/generated/etcdserverpb.rs");
}

/// Locks.
#[allow(clippy::all, clippy::pedantic, missing_docs, unused_qualifications, unreachable_pub)]
pub mod v3lockpb {
    include!("proto/generated/v3lockpb.rs");
}

/// Elections.
#[allow(clippy::all, clippy::pedantic, missing_docs, unused_qualifications, unreachable_pub)]
pub mod v3electionpb {
    include!("proto/generated/v3electionpb.rs");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_have_the_generated_services() {
        let pool = descriptors();
        let services: Vec<_> = pool.services().map(|service| service.full_name().to_owned()).collect();
        let generated = [
            etcdserverpb::kv_server::SERVICE_NAME,
            etcdserverpb::watch_server::SERVICE_NAME,
            etcdserverpb::lease_server::SERVICE_NAME,
            etcdserverpb::cluster_server::SERVICE_NAME,
            etcdserverpb::maintenance_server::SERVICE_NAME,
            etcdserverpb::auth_server::SERVICE_NAME,
            v3lockpb::lock_server::SERVICE_NAME,
            v3electionpb::election_server::SERVICE_NAME,
        ];
        assert_eq!(services, generated);
    }
}
