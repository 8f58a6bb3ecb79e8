//! Dynamic zones: records that clients change by UPDATE messages (RFC 2136).
//!
//! ```text
//! message ─► evaluate (policy, prerequisites, changes) over content ─► content of the next serial ─► keys of the store
//! keys of the store ─► content ─► zone, as a zone file would define it
//! ```
//!
//! All modules are core. The store decides on the order of updates: an update is one transaction, on the condition that nothing
//! was written since the content that it was evaluated on. [`dynamic`](super::dynamic) is the adapter.

pub mod content;
pub mod evaluate;
pub mod initial;
pub mod message;
pub mod policy;
mod rdata;
pub mod saved;
pub mod stored;
mod wire_name;
