//! The packaged unit under systemd, in a cluster of two hosts with systemd and one plain agent: start, restart, reload,
//! upgrade, crash, stop, a full disk. Clients on all hosts query without a pause meanwhile.
//!
//! Each scenario prints its counts (`--nocapture`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

#[path = "systemd/full_disk.rs"]
mod full_disk;
#[path = "systemd/life.rs"]
mod life;
#[path = "systemd/package.rs"]
mod package;
#[path = "systemd/packaged.rs"]
mod packaged;

use support::scene;
