//! Errors of registrations, holds and reports.

use crate::model::bounds;

/// An error in a registration that a client sent. `field` is the path of the field, such as `Checks[1].Interval`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// A required field is missing.
    #[error("{field} is missing: it is {what}")]
    Missing {
        /// The field.
        field: &'static str,
        /// Content of the field.
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

/// Reason why a change was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// No such service, instance or check.
    #[error("{0}")]
    Unknown(String),
    /// The change conflicts with the state.
    #[error("{0}")]
    Refused(String),
    /// The token of the client has too low a scope for the content of the change.
    #[error("Permission denied: {0}")]
    Forbidden(String),
    /// The change could not be stored on disk and would be lost at a restart.
    #[error("{0}")]
    NotStored(String),
}
