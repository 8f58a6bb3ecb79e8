//! The core's vocabulary: values without I/O, without a clock, without logs.
//!
//! [`name`] holds labels and owner names, [`service`] what a service file says, [`bounds`] what an instance may be,
//! [`health`] how probe results become a standing, [`announcement`] what a node tells the others, [`catalog`] what all
//! nodes told, by service, [`member`] who they are and how each stands, [`upkeep`] what operators hold back, [`pacing`] how
//! fast an instance may come back, [`token`] who may use the HTTP API, [`event`] what happens, [`journal`] what happened last.

pub mod announcement;
pub mod bounds;
pub mod catalog;
pub mod event;
pub mod health;
pub mod journal;
pub mod member;
pub mod name;
pub mod pacing;
pub mod service;
pub mod token;
pub mod upkeep;
