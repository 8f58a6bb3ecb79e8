//! Third-party programs that discover services with muster, each with its configuration from docs/integrations.md while the
//! health of instances changes; and clients of Consul and etcd on a store of three voters.
//!
//! Programs of Debian must be installed; `tests/real_clients/install` fetches those of PyPI and npm.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

#[path = "real_clients/api.rs"]
mod api;
#[path = "real_clients/etcdctl.rs"]
mod etcdctl;
#[path = "real_clients/haproxy.rs"]
mod haproxy;
#[path = "real_clients/metrics.rs"]
mod metrics;
#[path = "real_clients/proxies.rs"]
mod proxies;
#[path = "real_clients/scene.rs"]
mod scene;
#[path = "real_clients/store.rs"]
mod store;

/// The comment above each block names the program whose test uses the block.
#[test]
fn every_documented_configuration_is_tested() {
    let tested =
        ["haproxy", "nginx", "prometheus dns", "prometheus consul", "caddy", "envoy", "grpc", "python", "node"];
    let documented: Vec<String> =
        support::document::blocks(scene::DOCUMENT).into_iter().map(|block| block.kind).collect();
    assert_eq!(documented, tested);
}
