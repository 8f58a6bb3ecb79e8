//! TLS shared by several servers and clients: certificates that are reloaded when their files change, and the trusted
//! authorities.

pub mod authorities;
pub mod certificate;
pub mod pem_error;
