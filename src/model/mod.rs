//! The core's vocabulary: values without I/O, without a clock, without logs.
//!
//! [`name`] holds labels and owner names, [`service`] what a service file says, [`bounds`] what an instance may be,
//! [`health`] how probe results become a standing, [`announcement`] what a node tells the others, [`catalog`] what all
//! nodes told, by service, [`event`] what happens, [`journal`] what happened last, [`user_event`] what somebody wants all nodes to know, [`member`] who they are and how each stands, [`maintenance`] what operators hold back, [`pacing`] how
//! fast an instance may come back, [`reason`] why it is answered or not in words, [`ttl_ledger`] for how long caches may have it,
//! [`digest`] whether two nodes know the same, [`date`] times as text, [`token`] who may use the HTTP API.

pub mod access;
pub mod announcement;
pub mod bounds;
pub mod catalog;
pub mod date;
pub mod digest;
pub mod event;
pub mod health;
pub mod journal;
pub mod keyring;
pub mod maintenance;
pub mod member;
pub mod name;
pub mod pacing;
pub mod reason;
pub mod service;
pub mod token;
pub mod ttl_ledger;
pub mod upstream_address;
pub mod user_event;
