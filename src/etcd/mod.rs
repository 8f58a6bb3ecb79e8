//! etcd's v3 API on one port: gRPC, and JSON over HTTP for clients without gRPC.
//!
//! ```text
//! gRPC ─────────► access ─► services (kv, watch, lease, lock, …) ─► store::request
//! JSON ─► gateway ──┘
//! ```
//!
//! The gateway translates JSON into gRPC requests and responses back, so that both have the same services behind them.
//! [`convert`] has the data model of both sides; [`error`] has the codes and texts that clients match.

mod access;
mod auth;
mod authority;
mod backend;
mod calls;
mod cluster;
mod convert;
mod election;
mod error;
mod gateway;
mod kv;
mod lease;
mod lock;
mod maintenance;
pub mod proto;
mod queue;
mod scan;
mod server;
mod services;
pub mod untrusted;
mod version;
mod watch;

use std::collections::BTreeMap;

use tokio::sync::watch::Receiver;
use tokio_rustls::TlsAcceptor;

pub use self::server::Server;
use crate::{model::token::Tokens, store::request::Store};

/// URLs at which clients reach etcd's API, by name of the node.
pub type ClientUrls = BTreeMap<String, Vec<String>>;

/// Settings of the API.
pub struct Settings {
    /// The store.
    pub store: Store,
    /// Tokens that requests must present; `None`: no token is needed.
    pub tokens: Option<Receiver<Tokens>>,
    /// TLS; `None`: connections are plain.
    pub tls: Option<TlsAcceptor>,
    /// URLs of the nodes, for the list of members.
    pub client_urls: Receiver<ClientUrls>,
}
