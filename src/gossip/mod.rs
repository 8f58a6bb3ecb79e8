//! Gossip: membership, failure detection and replication of announcements between nodes.
//!
//! ```text
//! own announcements ─► record ─► node ─┬─► anti_entropy (chitchat) ─┐
//!                                      └─► push ────────────────────┴─► channel ─► transport (crypto, UDP, TCP) ─► peers
//! peers ─► transport ─► channel ─► node ─┬─► replica ──┐
//!                                        └─► liveness ─┴─► view, membership
//! ```
//!
//! Core, without I/O: [`crate::record`], [`crate::model::keyring`], [`peer_replica`], [`known_peer`], [`claim`], [`liveness`], [`crypto`] and
//! [`message`].
//! [`node`] is the task that drives them, [`anti_entropy`] the only module that uses chitchat, and [`transport`] the only
//! one with sockets.

pub mod anti_entropy;
pub mod claim;
pub mod command;
pub mod crypto;
pub mod key_rotation;
pub mod known_peer;
pub mod link;
pub mod liveness;
pub mod message;
pub mod node;
pub mod peer_replica;
pub mod rejected;
pub mod seeds;
pub mod transport;

/// Octets that begin a connection of the store to the TCP port of gossip. As the length prefix of a frame, they exceed the
/// longest frame.
pub const STORE_PREFIX: [u8; 4] = *b"MKV1";
