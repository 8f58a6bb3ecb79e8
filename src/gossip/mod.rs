//! The cluster: how nodes find each other, tell each other what they announce, and notice who is gone.
//!
//! ```text
//! own announcements ─► record ─► node ─┬─► cluster (chitchat) ─┐
//!                                      └─► push ───────────────┴─► link ─► wire: seal, UDP, TCP ─► peers
//! peers ─► wire ─► link ─► node ─┬─► replica ──┐
//!                                └─► liveness ─┴─► view, membership
//! ```
//!
//! [`record`], [`replica`], [`liveness`], [`keyring`], [`seal`] and [`message`] are core: values in, values out. [`node`]
//! is the task that feeds them, [`cluster`] the one that knows chitchat, [`wire`] the one with sockets.

pub mod cluster;
pub mod join;
pub mod keyring;
pub mod link;
pub mod liveness;
pub mod message;
pub mod node;
pub mod record;
pub mod rejected;
pub mod replica;
pub mod rotation;
pub mod seal;
pub mod wire;
