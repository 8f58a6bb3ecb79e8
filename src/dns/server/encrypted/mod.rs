//! Encrypted DNS servers: over TLS (RFC 7858), HTTPS (RFC 8484) and QUIC (RFC 9250).
//!
//! The transports are rustls, hyper, and hickory-server for QUIC. hickory-server supports all three, but accepts any number
//! of connections, answers the queries of one connection in sequence, and encodes every reply again from records. TLS and
//! HTTPS therefore use the limits and the accept loop of plain TCP.

mod https;
mod quic;
mod tls;

use std::time::Duration;

pub use self::{https::serve as serve_https, quic::serve as serve_quic, tls::serve as serve_tls};

/// Timeout of a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
