//! TLS that several servers and clients share: certificates that are read again when their files change, and the
//! authorities that this host trusts.

pub mod certificate;
