//! Service discovery that is just DNS.

pub mod checks;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod data_dir;
pub mod diagnostic;
pub mod dns;
pub mod files;
pub mod model;
pub mod yaml;
