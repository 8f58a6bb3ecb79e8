//! muster's own HTTP API: explanations, events and streams.

pub(super) mod events;
pub mod explain;
pub(super) mod sse;
pub(super) mod watch;
