//! Permissions of a request, for endpoints whose content decides which permission they need.

use std::sync::Arc;

use axum::http::StatusCode;

use super::response::ApiError;
use crate::{
    model::token::{KeyAccess, Permissions, Requirement, Scope},
    store::key::KeyRange,
};

/// Permissions of the token of a request; `None`: no token was needed, and everything is permitted.
#[derive(Clone, Debug)]
pub(crate) struct Granted(Option<Arc<Permissions>>);

impl Granted {
    /// All permissions.
    pub(super) const EVERYTHING: Self = Self(None);

    /// Returns the permissions of a token.
    pub(super) fn to(permissions: Arc<Permissions>) -> Self {
        Self(Some(permissions))
    }

    /// Returns the scope; the least one for a token without a scope, which cannot use endpoints that require one.
    pub(crate) fn scope(&self) -> Scope {
        self.0.as_ref().map_or(Scope::Operate, |permissions| permissions.scope.unwrap_or(Scope::Read))
    }

    /// Requires a scope that depends on the content of the request.
    ///
    /// # Errors
    /// 403 if the token has less.
    pub(crate) fn require(&self, scope: Scope, what: &str) -> Result<(), ApiError> {
        if self.scope() >= scope {
            return Ok(());
        }
        let (required, has) = (scope.as_str(), self.scope().as_str());
        Err(denied(&format!("scope {required} is required for {what}; the token has scope {has}.")))
    }

    /// Requires access to all keys of a range.
    ///
    /// # Errors
    /// 403 if the token does not have it.
    pub(crate) fn require_keys(&self, access: KeyAccess, range: &KeyRange) -> Result<(), ApiError> {
        if self.0.as_ref().is_none_or(|permissions| permit(permissions, access, range)) {
            return Ok(());
        }
        let keys = match (range, range.as_prefix()) {
            (KeyRange::Key(key), _) => format!("key {key}"),
            (_, Some(prefix)) if prefix.is_empty() => "all keys".to_owned(),
            (_, Some(prefix)) => format!("all keys that begin with {}", prefix.escape_ascii()),
            (_, None) => "all keys of the range".to_owned(),
        };
        let access = access.as_str();
        Err(denied(&format!("{access} access to {keys} is required: see the keys of the token.")))
    }

    /// Requires the permission to create and end sessions.
    ///
    /// # Errors
    /// 403 if the token does not have it.
    pub(crate) fn require_sessions(&self) -> Result<(), ApiError> {
        if self.0.as_ref().is_none_or(|permissions| permissions.meet(Requirement::Sessions)) {
            return Ok(());
        }
        Err(denied(&format!("{} is required.", Requirement::Sessions)))
    }
}

/// Returns a 403 with this text.
pub(in crate::http) fn denied(text: &str) -> ApiError {
    ApiError(StatusCode::FORBIDDEN, format!("Permission denied: {text}"))
}

/// Reports whether permissions include keys. One prefix must include the whole range.
fn permit(permissions: &Permissions, access: KeyAccess, range: &KeyRange) -> bool {
    permissions.prefixes(access).any(|prefix| KeyRange::prefix(prefix.to_owned()).includes(range))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::token::{KeyGrant, Scope},
        store::key::Key,
    };

    #[test]
    fn keys_are_granted_by_prefix_and_access() {
        let app = Permissions {
            scope: None,
            keys: vec![KeyGrant::new("app/", KeyAccess::Write), KeyGrant::new("shared/", KeyAccess::Read)],
        };
        let key = |text: &'static str| KeyRange::Key(Key::new(text).unwrap());
        let cases = [
            (KeyAccess::Write, key("app/a"), true),
            (KeyAccess::Read, key("app/a"), true),
            (KeyAccess::Read, key("app"), false),
            (KeyAccess::Read, KeyRange::prefix("app/sub"), true),
            (KeyAccess::Read, KeyRange::prefix("app"), false),
            (KeyAccess::Read, key("shared/a"), true),
            (KeyAccess::Write, key("shared/a"), false),
            (KeyAccess::Read, KeyRange::ALL, false),
        ];
        for (access, range, expected) in cases {
            assert_eq!(permit(&app, access, &range), expected, "{access:?} {range:?}");
        }
        for scope in [Scope::Read, Scope::Register] {
            assert!(!permit(&Permissions::from(scope), KeyAccess::Read, &key("a")), "{scope:?}");
        }
        assert!(permit(&Permissions::from(Scope::Operate), KeyAccess::Write, &KeyRange::ALL));
    }
}
