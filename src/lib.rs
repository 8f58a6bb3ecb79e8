//! Service discovery by DNS: an agent on each host checks the health of local services, gossips their state, and answers
//! DNS queries with the healthy instances of the whole cluster.
//!
//! ```text
//! services_dir ─► files ─► checks ─► announcements ─► gossip ─► view ─► catalog ─┐
//! zones_dir ────► files ─────────────────────────────────────────────────────────┴─► zone tables ─► engine ─► servers
//! ```
//!
//! Data flows from left to right only. Core modules have no I/O and no clock, adapters do the I/O, and [`daemon`] connects
//! them. ARCHITECTURE.md lists the invariants; `tests/architecture.rs` enforces them.
//!
//! Reading order:
//!
//! 1. [`model::service`] and [`model::announcement`]: service definitions, and what a node announces of an instance.
//! 2. [`model::catalog`]: all instances by service, updated by differences.
//! 3. [`dns::zone`], [`dns::answer`] and [`dns::engine`]: from the catalog to packets.
//! 4. [`dns::server`] and [`dns::resolver`]: transports, and recursion through upstreams with a cache.
//! 5. [`files`], [`checks`] and [`registry`]: service files, health checks and API registrations.
//! 6. [`gossip`]: membership, failure detection and dissemination.
//! 7. [`http`]: Consul's API, muster's own API and the page.
//! 8. [`daemon`]: startup, wiring and shutdown.

pub mod accept;
pub mod address_follower;
pub mod api;
pub mod checks;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod data_dir;
pub mod diagnostic;
pub mod dns;
pub mod etcd;
pub mod files;
pub mod gossip;
pub mod host_addresses;
pub mod http;
pub mod import;
mod inherited_fd;
pub mod log_limit;
pub mod metrics;
pub mod model;
mod parallel;
pub mod printable;
pub mod record;
pub mod registry;
pub mod saved_state;
pub mod service_manager;
pub mod store;
pub mod tls;
pub mod yaml;
