//! The store: keys with values, leases, sessions and locks, replicated on the nodes that `store.voters` names.
//!
//! ```text
//! HTTP, etcd ─► request ─► node ─┬─► raft (voters) ─► log on disk ─► state ─► watchers
//!                                └─► peers ─► a voter
//! ```
//!
//! One multi-version state serves Consul's API and etcd's. Every node takes requests; voters apply them, all others forward
//! them. Discovery never reads the store: nothing outside this module waits for it, except a client that asked for it.
//!
//! Core, without I/O: [`key`], [`lease`], [`session`], [`command`], [`query`], [`watch`], [`state`] and [`expiry`].
//! [`request`] is the interface for APIs: messages to the store's task; [`follow`] is a watch for them that survives the loss of a voter. [`raft`] is the only module that uses openraft,
//! [`sealed_stream`] and [`peers`] connect nodes, and [`node`] is the task.

pub mod command;
pub mod entry;
pub mod error;
pub mod expiry;
pub mod follow;
pub mod key;
pub mod lease;
pub mod message;
pub mod node;
pub mod pages;
pub mod peers;
pub mod query;
mod raft;
pub mod request;
pub mod sealed_stream;
pub mod session;
pub mod session_health;
pub mod state;
pub mod status;
pub mod watch;
mod writes;
