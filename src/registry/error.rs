//! Why a registration, a hold or a report is refused.

use std::fmt;

use crate::model::bounds;

/// What is wrong with a registration that a client sent. `field` is the path of the field, such as `Checks[1].Interval`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// A required field is missing.
    #[error("{field} is missing: it is {what}")]
    Missing {
        /// The field.
        field: &'static str,
        /// What the field says.
        what: &'static str,
    },
    /// A value of another type, form or range.
    #[error("{field} must be {expected}, got {found}")]
    Mismatch {
        /// The field.
        field: String,
        /// The type, form or range.
        expected: String,
        /// The value.
        found: String,
    },
    /// A field for a feature that muster does not have.
    #[error("{field} is not supported: {reason}")]
    Unsupported {
        /// The field.
        field: String,
        /// The feature, and what to use instead.
        reason: &'static str,
    },
    /// A value that does not fit the other values.
    #[error("{field}: {reason}")]
    Conflict {
        /// The field.
        field: String,
        /// The other values.
        reason: String,
    },
    /// An instance that is out of the bounds for all instances.
    #[error("{0}")]
    Bounds(bounds::BoundsError),
}

/// Why a change was not made, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryError {
    /// There is nothing of that name here.
    Unknown(String),
    /// It is here, and may not be changed so.
    Refused(String),
    /// It could not be kept on the disk: it would be gone after a restart.
    NotKept(String),
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unknown(text) | Self::Refused(text) | Self::NotKept(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for RegistryError {}
