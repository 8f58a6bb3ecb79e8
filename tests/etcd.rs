//! etcd's v3 API, over gRPC as etcdctl speaks it and over JSON, on a store in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(unreachable_pub, reason = "modules of a test")]

mod support;

#[path = "etcd/etcdctl.rs"]
mod etcdctl;
#[path = "etcd/gateway.rs"]
mod gateway;
#[path = "etcd/permissions.rs"]
mod permissions;
#[path = "etcd/store.rs"]
mod store;
