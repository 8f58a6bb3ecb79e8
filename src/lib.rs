//! Service discovery that is just DNS.

pub mod cli;
pub mod config;
pub mod diagnostic;
pub mod files;
pub mod model;
pub mod yaml;
