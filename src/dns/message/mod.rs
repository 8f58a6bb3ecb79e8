//! Received DNS messages: protocol numbers, the query, cookies.
//!
//! Core; all other modules of [`dns`](super) build on it.

pub mod codes;
pub mod cookie;
pub mod presentation;
pub mod query;
pub(crate) mod rdata;
pub(crate) mod reader;
pub mod record_types;
pub(crate) mod record_walk;
