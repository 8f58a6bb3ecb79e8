//! DNS servers: sockets, framing and limits.
//!
//! [`udp`] runs worker threads; [`tcp`] and [`encrypted`] run tasks of the async runtime. All of them answer with an
//! [`Engine`](super::engine::Engine).

pub(super) mod accept;
pub mod backends;
pub mod connection_quota;
pub mod encrypted;
mod error_reply;
mod notify_message;
pub mod tcp;
pub mod transfers;
pub mod udp;
pub mod updates;
