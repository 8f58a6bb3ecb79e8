//! Folders of files, watched and parsed into the values that they define.
//!
//! Core: [`contents`] is the content of a folder; [`service_file`] and [`zone_file`] parse one file; [`definitions`] merges
//! service files; [`live_names`] finds static records that services and nodes hide; [`last_good`] keeps the last valid content of a
//! file that breaks; [`services`], [`zones`], [`tokens`] and [`tsig_keys`] are the folders, [`trust_anchors`] is a single file.
//! Adapters: [`watch`] follows a folder on disk and reads it with [`read`] if [`access`] admits it; `link_walk` resolves paths for
//! both. [`reload`] parses changed contents and publishes the values.

pub mod access;
pub(crate) mod check;
pub mod contents;
pub mod definitions;
pub mod dnssec_keys;
pub mod last_good;
mod link_walk;
pub mod live_names;
mod ports;
pub mod read;
pub mod reload;
pub mod service_file;
pub mod services;
pub(crate) mod tagged_addresses;
pub mod tokens;
pub mod trust_anchors;
pub mod tsig_keys;
pub mod watch;
pub mod zone_file;
pub mod zones;
