//! Questions that come encrypted: over TLS (RFC 7858), HTTPS (RFC 8484) and QUIC (RFC 9250), to the same engine.
//!
//! What lies below the messages is others' work: rustls, hyper, and hickory-server for QUIC. hickory-server could do all
//! three; but it takes any number of connections, answers those of one connection one after the other, and writes every
//! reply anew from records. So TLS and HTTPS share the limits and the loop of plain TCP.

mod https;
mod quic;
mod tls;

use std::time::Duration;

pub use self::{https::serve as serve_https, quic::serve as serve_quic, tls::serve as serve_tls};

/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(5);
