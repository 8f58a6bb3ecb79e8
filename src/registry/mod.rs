//! Services, checks and holds that clients register over the HTTP API; they survive restarts.
//!
//! ```text
//! service files ──► definitions ─┐
//! changes (HTTP) ──► state ──────┴─► all definitions, holds, TTL reports ──► checks
//!                      └─► data_dir
//! ```
//!
//! Core: [`registration`] parses requests, [`state`] applies changes, [`external`] those of
//! external nodes. Adapter: [`task`] owns the state and applies a
//! change only once it is on disk, so that no acknowledged change is lost.

pub mod error;
pub mod external;
pub mod registration;
pub mod request;
pub mod state;
pub mod task;
