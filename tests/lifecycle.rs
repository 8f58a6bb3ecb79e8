//! Life of an agent in a cluster: restart, upgrade, reload, stop, crash, start, and wrong clocks. Clients on all nodes query
//! without a pause meanwhile, and every answer must be right.
//!
//! Each scenario prints its counts (`--nocapture`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

#[path = "lifecycle/checks.rs"]
mod checks;
#[path = "lifecycle/clock_shim.rs"]
mod clock_shim;
#[path = "lifecycle/clocks.rs"]
mod clocks;
#[path = "lifecycle/reload.rs"]
mod reload;
#[path = "lifecycle/restart.rs"]
mod restart;
#[path = "lifecycle/rolling.rs"]
mod rolling;
#[path = "lifecycle/start.rs"]
mod start;
#[path = "lifecycle/stop.rs"]
mod stop;
#[path = "lifecycle/upgrade.rs"]
mod upgrade;

use support::scene;
