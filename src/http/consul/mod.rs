//! Consul's HTTP API: paths, methods and shapes that existing clients use.
//!
//! [`catalog`] answers what all nodes announce, [`agent`] and [`agent_services`] what this node is and runs, [`register`]
//! changes this node. [`convert`] maps the catalog to Consul's shapes. [`unsupported`] refuses the rest with a reason.

pub(super) mod agent;
pub(super) mod agent_services;
pub(super) mod catalog;
pub(super) mod convert;
pub(super) mod event;
pub(super) mod filter;
pub(super) mod keyring;
pub(super) mod metrics;
pub(super) mod register;
pub(super) mod unsupported;
