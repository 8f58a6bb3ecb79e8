//! Clusters in one process: real nodes, real DNS answers, a simulated network with partitions, and virtual time.
//!
//! Each scenario acts on a cluster (start, leave, kill, cut, heal, flip) and asserts each node's answer to SRV of
//! `web.service.local` and the time until it is given. chitchat draws random numbers of its own, so runs differ: the
//! assertions hold in all of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

#[path = "cluster/bulk.rs"]
mod bulk;
#[path = "cluster/fault.rs"]
mod fault;
#[path = "cluster/keys.rs"]
mod keys;
#[path = "cluster/members.rs"]
mod members;
#[path = "cluster/names.rs"]
mod names;
#[path = "cluster/network.rs"]
mod network;
#[path = "cluster/node_checks.rs"]
mod node_checks;
#[path = "cluster/rest.rs"]
mod rest;
#[path = "cluster/restarts.rs"]
mod restarts;
#[path = "cluster/rogue.rs"]
mod rogue;
#[path = "cluster/script.rs"]
mod script;
#[path = "cluster/serials.rs"]
mod serials;
#[path = "cluster/splits.rs"]
mod splits;
#[path = "cluster/starvation.rs"]
mod starvation;
#[path = "cluster/trouble.rs"]
mod trouble;
#[path = "cluster/user_events.rs"]
mod user_events;
#[path = "cluster/views.rs"]
mod views;
