//! Why something is not registered, held or reported.

use std::fmt;

/// A field of what a client sent, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    field: String,
    why: String,
}

impl Fault {
    pub(super) fn new(field: &str, why: String) -> Self {
        Self { field: field.to_owned(), why }
    }

    pub(super) fn missing(field: &str, what: &str) -> Self {
        Self::new(field, format!("it is missing: {what}"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, why } = self;
        if field.is_empty() { f.write_str(why) } else { write!(f, "{field}: {why}") }
    }
}

impl std::error::Error for Fault {}

/// Why a change was not made, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// There is nothing of that name here.
    Unknown(String),
    /// It is here, and may not be changed so.
    Refused(String),
    /// It could not be kept on the disk: it would be gone after a restart.
    NotKept(String),
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unknown(text) | Self::Refused(text) | Self::NotKept(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Denied {}
