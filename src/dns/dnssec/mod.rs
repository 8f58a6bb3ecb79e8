//! Online signing of zones (RFC 4033 to 4035): keys, canonical form, signatures with their cache, proofs of absence.
//!
//! Answers are signed when a client asks with the DO bit. A signature is made once per RRset and change, and kept in
//! [`signer::Signer`]. Proofs are NSEC records that cover one name each (RFC 4470), so that a zone cannot be listed.

pub mod canonical;
pub mod key;
pub mod key_file;
pub mod nsec;
pub mod signer;
pub mod trust_anchor;
pub mod zone_keys;
