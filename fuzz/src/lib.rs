//! The fuzz targets: one function each, which takes any octets and panics where a promise is broken.
//!
//! They are compiled twice: into the programs of `fuzz_targets/`, for cargo-fuzz, and into `tests/fuzz.rs`, which runs
//! them on stable Rust for a bounded number of inputs. `seeds/` has the inputs that both begin with, one folder a
//! target; a file's name says what is in it.

pub mod gossip;
pub mod packet;
mod problems;
pub mod reply;
pub mod service_file;
pub mod zone_file;
