//! DNS servers: sockets, framing and limits.
//!
//! [`udp`] runs worker threads; [`tcp`] and [`encrypted`] run tasks of the async runtime. All of them answer with an
//! [`Engine`](super::engine::Engine).

pub(super) mod accept;
pub mod connection_quota;
pub mod encrypted;
pub mod tcp;
pub mod transfers;
pub mod udp;
