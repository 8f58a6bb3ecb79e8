//! DNS messages as they arrive: the numbers of the protocol, the query, cookies.
//!
//! Core. Everything else in [`dns`](super) is written in these terms.

pub mod codes;
pub mod cookie;
pub mod query;
