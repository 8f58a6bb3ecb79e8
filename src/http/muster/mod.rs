//! muster's own HTTP API: status, explanations, events and streams.

pub(super) mod events;
pub mod explain;
pub(super) mod nodes;
pub(super) mod sse;
pub(super) mod status;
pub(super) mod store;
pub(super) mod store_entries;
pub(super) mod store_export;
pub(super) mod watch;
pub mod zones;
