//! Programs of others that find services by muster: each is started with the configuration that docs/integrations.md shows, and
//! follows what becomes of instances.
//!
//! Those of Debian have to be installed; `tests/real_clients/install` fetches those of PyPI and npm.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

#[path = "real_clients/api.rs"]
mod api;
#[path = "real_clients/haproxy.rs"]
mod haproxy;
#[path = "real_clients/metrics.rs"]
mod metrics;
#[path = "real_clients/proxies.rs"]
mod proxies;
#[path = "real_clients/scene.rs"]
mod scene;

/// Each is read by the test that its comment names the program of.
#[test]
fn the_document_shows_nothing_that_is_not_tried() {
    let tried = ["haproxy", "nginx", "prometheus dns", "prometheus consul", "caddy", "envoy", "grpc", "python", "node"];
    let shown: Vec<String> = support::document::blocks(scene::DOCUMENT).into_iter().map(|block| block.kind).collect();
    assert_eq!(shown, tried);
}
