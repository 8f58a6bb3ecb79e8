//! The cluster: how nodes find each other, tell each other what they announce, and notice who is gone.
//!
//! ```text
//! own announcements ─► record ─► node ─┬─► cluster (chitchat) ─┐
//!                                      └─► push ───────────────┴─► link ─► wire: seal, UDP, TCP ─► peers
//! peers ─► wire ─► link ─► node ─┬─► replica ──┐
//!                                └─► liveness ─┴─► view, membership
//! ```
//!
//! [`crate::record`], [`replica`], [`liveness`], [`crate::model::keyring`], [`crypto`] and [`message`] are core: values in, values out. [`node`]
//! is the task that feeds them, [`anti_entropy`] the one that knows chitchat, [`transport`] the one with sockets.

pub mod anti_entropy;
pub mod channel;
pub mod crypto;
pub mod key_rotation;
pub mod liveness;
pub mod message;
pub mod node;
pub mod rejected;
pub mod replica;
pub mod seeds;
pub mod transport;
