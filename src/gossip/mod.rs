//! How nodes tell each other what they have: [`record`] is what is said.

pub mod record;
