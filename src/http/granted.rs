//! Scope of a request, for endpoints whose content decides which scope they need.

use axum::http::StatusCode;

use super::response::ApiError;
use crate::model::token::Scope;

/// Scope of the token of a request; without tokens, everything is permitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Granted(pub(super) Scope);

impl Granted {
    /// Returns the scope.
    pub(crate) fn scope(self) -> Scope {
        self.0
    }

    /// Requires a scope that depends on the content of the request.
    ///
    /// # Errors
    /// 403 if the token has less.
    pub(crate) fn require(self, scope: Scope, what: &str) -> Result<(), ApiError> {
        if self.0 >= scope {
            return Ok(());
        }
        let (required, has) = (scope.as_str(), self.0.as_str());
        let text = format!("Permission denied: scope {required} is required for {what}; the token has scope {has}.");
        Err(ApiError(StatusCode::FORBIDDEN, text))
    }
}
