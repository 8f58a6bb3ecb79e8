//! Service discovery that is just DNS: one program on each host, which checks the health of the services there and
//! answers DNS questions with those that are healthy.
//!
//! ```text
//! services_dir ─► files ─► checks ─► announcements ─► gossip ─► view ─► catalog ─┐
//! zones_dir ────► files ────────────────────────────────────────────────────────┴─► tables ─► engine ─► UDP, TCP
//! ```
//!
//! Data flows from left to right and nothing flows back. Core modules hold the rules and do no I/O, adapters touch the
//! world, [`daemon`] connects them; ARCHITECTURE.md has the invariants and `tests/architecture.rs` enforces them.
//!
//! To find your way, read in this order:
//!
//! 1. [`model::service`] and [`model::announcement`]: what a service is, and what is known of an instance.
//! 2. [`model::catalog`]: all instances by service, and what an update touches.
//! 3. [`dns::table`], [`dns::lookup`], [`dns::assemble`]: from the catalog to packets.
//! 4. [`files`] and [`checks`]: where services and their health come from.
//! 5. [`gossip`]: how nodes hear of each other.
//! 6. [`daemon`]: how it all hangs together.

pub mod api;
pub mod checks;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod data_dir;
pub mod diagnostic;
pub mod dns;
pub mod files;
pub mod gossip;
pub mod http;
pub mod metrics;
pub mod model;
pub mod record;
pub mod registry;
pub mod tls;
pub mod yaml;
