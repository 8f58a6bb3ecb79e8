//! DNS: authoritative answers for our zones, recursion through upstreams for all other names.
//!
//! ```text
//! packet ─► message::query ─► answer::lookup (over zone) ─► answer ─► answer::assemble ─► packet
//!                                      └─ other names ─► recursion ─► resolver
//! ```
//!
//! [`message`], [`zone`], [`answer`], [`recursion`] and [`engine`] are core: no sockets, no clock, no logs. The caller owns the
//! random generator that rotates records. [`server`], [`resolver`], [`refresh`] and [`collector`] do the I/O; [`publish`]
//! updates the tables.
//!
//! Reading order: [`message::query`], [`zone`], [`answer::provenance`], [`answer::lookup`], [`answer::assemble`], [`engine`].

pub mod answer;
mod bounded_cache;
pub mod collector;
pub mod dnssec;
pub mod dynamic;
pub mod engine;
pub mod message;
pub mod publish;
pub mod recursion;
pub mod refresh;
pub mod resolver;
pub mod secondaries;
pub mod secondary;
pub mod server;
mod socket;
pub mod tap;
pub mod tls_client;
pub mod transfer;
pub mod update;
pub mod zone;
