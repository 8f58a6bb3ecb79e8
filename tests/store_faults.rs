//! The store on agents whose processes, networks, clocks and disks fail.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "store_faults/clients.rs"]
mod clients;
#[path = "store_faults/connection.rs"]
mod connection;
#[path = "store_faults/discovery.rs"]
mod discovery;
#[path = "store_faults/disks.rs"]
mod disks;
// The search for an order is that of the store's own tests.
#[path = "../src/store/node/tests/history.rs"]
mod history;
#[path = "store_faults/injection.rs"]
mod injection;
#[path = "store_faults/order.rs"]
mod order;
#[path = "store_faults/scene.rs"]
mod scene;
#[path = "store_faults/schedule.rs"]
mod schedule;
#[path = "store_faults/sessions.rs"]
mod sessions;
mod support;
#[path = "store_faults/watchers.rs"]
mod watchers;
