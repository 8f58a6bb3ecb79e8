//! Received DNS messages: protocol numbers, the query, cookies.
//!
//! Core; all other modules of [`dns`](super) build on it.

pub mod codes;
pub mod cookie;
pub mod query;
pub(crate) mod reader;
