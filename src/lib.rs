//! Service discovery that is just DNS.

pub mod diagnostic;
pub mod model;
