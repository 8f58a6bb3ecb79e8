//! Consul's HTTP API: the paths, methods and JSON that existing clients use.
//!
//! [`catalog`] and [`health`] show all nodes, [`agent`], [`agent_self`] and [`agent_services`] show this node, [`mutations`] changes
//! this node. [`kv`], [`session`] and [`txn`] show and change the store. [`mesh`] has the lists that are always empty. [`convert`] maps the catalog to Consul's JSON. [`unsupported`] refuses
//! other requests with a reason.

pub(super) mod agent;
pub(super) mod agent_self;
pub(super) mod agent_services;
pub(super) mod catalog;
pub(super) mod catalog_mutations;
pub(super) mod convert;
pub(super) mod coordinate;
pub(super) mod event;
pub(super) mod health;
pub(super) mod keyring;
pub(super) mod kv;
pub(super) mod leader;
pub(super) mod member;
pub(super) mod mesh;
pub(super) mod metrics;
pub(super) mod mutations;
mod newest_texts;
pub(super) mod session;
pub(super) mod store;
pub(super) mod txn;
pub(super) mod unsupported;
