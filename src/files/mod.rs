//! From folders of files to the values that they define.
//!
//! Core: [`contents`] is what a folder holds, [`service_file`] and [`zone_file`] read one file's octets,
//! [`definitions`] puts service files together, [`last_good`] turns contents into values such that a file that breaks
//! keeps what it last said well, [`services`], [`zones`] and [`tokens`] do so for the three folders. Adapters: [`watch`] keeps the
//! contents up to date from the disk, by [`read`]; [`reload`] follows them and publishes the values.

mod check;
pub mod contents;
pub mod definitions;
pub mod last_good;
pub mod read;
pub mod reload;
pub mod service_file;
pub mod services;
pub mod tokens;
pub mod watch;
pub mod zone_file;
pub mod zones;
