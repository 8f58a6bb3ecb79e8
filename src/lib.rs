//! Service discovery that is just DNS.

pub mod checks;
pub mod diagnostic;
pub mod model;
