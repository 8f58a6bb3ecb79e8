//! Fuzz targets. Each is a function that takes any octets and panics if an invariant is violated.
//!
//! They are compiled twice: into the programs of `fuzz_targets/`, for cargo-fuzz, and into `tests/fuzz.rs`, which runs
//! them on stable Rust with a bounded number of inputs. `seeds/` has the initial inputs of both, one folder per target;
//! a file's name describes its content.

pub mod anti_entropy;
pub mod consul;
pub mod dnstap;
pub mod etcd;
pub mod gossip;
pub mod import;
pub mod packet;
mod problems;
pub mod reply;
pub mod saved_state;
pub mod service_file;
pub mod store;
pub mod transfer;
pub mod update;
pub mod zone_file;
