//! Zone transfers to secondaries: AXFR (RFC 5936), IXFR (RFC 1995) and NOTIFY (RFC 1996), signed with TSIG (RFC 8945).
//!
//! ```text
//! publish ─► journal ─► reply: AXFR or differences ─► messages ─► tsig ─► connection
//!                └────► NOTIFY ─► secondaries
//! ```
//!
//! All modules are core: the server of connections and the sender of NOTIFY are adapters ([`server`](super::server),
//! [`secondaries`](super::secondaries)).

pub mod access;
pub mod journal;
pub mod messages;
pub mod primary;
pub mod request;
pub mod static_changes;
pub mod tsig;
