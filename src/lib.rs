//! Service discovery that is just DNS.

pub mod diagnostic;
pub mod files;
pub mod model;
pub mod yaml;
