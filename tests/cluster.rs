//! A cluster in one process, under a script: real nodes, real DNS answers, a network that can be cut, and virtual time.
//!
//! Each scenario does something to a cluster (start, leave, kill, cut, heal, flip) and says what every node then answers
//! to SRV of `web.service.local`, and within what time. chitchat draws random numbers of its own, so no two runs are the
//! same: what is asserted holds in all of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

#[path = "cluster/members.rs"]
mod members;
#[path = "cluster/network.rs"]
mod network;
#[path = "cluster/rogue.rs"]
mod rogue;
#[path = "cluster/script.rs"]
mod script;
#[path = "cluster/splits.rs"]
mod splits;
#[path = "cluster/trouble.rs"]
mod trouble;
#[path = "cluster/user_events.rs"]
mod user_events;
#[path = "cluster/views.rs"]
mod views;
