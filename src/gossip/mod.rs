//! What nodes tell each other, and who of them is there.

pub mod liveness;
