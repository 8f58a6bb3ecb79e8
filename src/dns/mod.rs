//! The DNS side: from a packet to a packet.
//!
//! ```text
//! packet ─► question ─► lookup (in table) ─► answer ─► assemble ─► packet
//! ```
//!
//! Everything up to `engine` is core: no socket, no clock, no log; the order of records comes from a generator that the
//! caller owns. [`crate::model::upstream_address::udp`] and [`crate::model::upstream_address::tcp`] bring packets to the engine; both say the same, because there is one engine.
//!
//! Reading order: [`message::codes`], [`message::query`], [`zone`], [`answer::lookup`], [`answer`], [`answer::assemble`], [`engine`].

pub mod answer;
pub mod engine;
pub mod message;
pub mod publish;
pub mod recursion;
pub mod resolver;
pub mod server;
mod socket;
pub mod zone;
