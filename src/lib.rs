//! Service discovery that is just DNS.

pub mod data_dir;
pub mod diagnostic;
pub mod dns;
pub mod files;
pub mod model;
