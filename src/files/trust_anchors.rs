//! The file of trust anchors of validation (`resolver.trust_anchors`).

use std::path::Path;

use thiserror::Error;

use super::contents::{FileText, ReadError};
use crate::{
    diagnostic::Diagnostic,
    dns::dnssec::trust_anchor::{self, TrustAnchor, TrustAnchorError},
};

/// Maximum length of the file in octets. The root's two keys have 1 KB.
pub const MAX_FILE: u64 = 64 << 10;

/// Unusable file of trust anchors.
#[derive(Debug, Error)]
pub enum TrustAnchorFileError {
    /// The file cannot be read.
    #[error("{0}")]
    Read(#[from] ReadError),
    /// A line is no trust anchor.
    #[error("{0}")]
    Content(#[from] TrustAnchorError),
}

impl TrustAnchorFileError {
    /// Returns the error as a diagnostic of the file.
    pub fn at(&self, path: &Path) -> Diagnostic {
        match self {
            Self::Read(error) => Diagnostic::whole(path, error.to_string()),
            Self::Content(error) => Diagnostic::at(path, error.line.max(1), 1, error.fault.to_string()),
        }
    }
}

/// Returns the trust anchors in a file, which was read up to [`MAX_FILE`].
///
/// # Errors
/// The file could not be read, or the first line that is no trust anchor.
pub fn parse(text: FileText) -> Result<Vec<TrustAnchor>, TrustAnchorFileError> {
    Ok(trust_anchor::parse(&text?)?)
}
