//! What clients of the HTTP API changed on this node, kept over restarts.
//!
//! ```text
//! service files ──► definitions ─┐
//! changes (HTTP) ──► state ──────┴─► all definitions, what is held back, reports ──► checks
//!                      └─► data_dir
//! ```
//!
//! Core: [`registration`] reads what is sent, [`state`] decides. Adapter: [`task`] owns the state, and makes a change only
//! once it is on the disk, so that what a client was told stays so.

pub mod error;
pub mod registration;
pub mod state;
pub mod task;
