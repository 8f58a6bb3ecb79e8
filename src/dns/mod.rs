//! The DNS side: from a packet to a packet.
//!
//! ```text
//! packet ─► question ─► lookup (in table) ─► answer ─► assemble ─► packet
//! ```
//!
//! Everything up to `engine` is core: no socket, no clock, no log; the order of records comes from a generator that the
//! caller owns. [`udp`] and [`tcp`] bring packets to the engine; both say the same, because there is one engine.
//!
//! Reading order: [`code`], [`question`], [`table`], [`lookup`], [`answer`], [`assemble`], [`engine`].

mod accept;
pub mod access;
pub mod answer;
pub mod assemble;
pub mod cache;
pub mod clients;
pub mod code;
pub mod cookie;
pub mod echo;
pub mod encrypted;
pub mod engine;
pub mod forward;
pub mod limit;
pub mod local;
pub mod lookup;
pub mod order;
pub mod publish;
pub mod question;
pub mod recursion;
pub mod reply;
pub mod resolver;
pub mod reverse;
pub mod serial;
pub mod server;
mod socket;
pub mod table;
pub mod tcp;
pub mod udp;
