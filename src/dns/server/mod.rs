//! The DNS servers: sockets to the engine and back.
//!
//! [`udp`] runs threads of its own, [`tcp`] and [`encrypted`] are tasks of the runtime. All of them answer by one
//! [`Engine`](super::engine::Engine).

pub(super) mod accept;
pub mod connection_quota;
pub mod encrypted;
pub mod tcp;
pub mod udp;
