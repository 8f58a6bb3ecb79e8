//! Tokens of the HTTP API, their scopes and their access to keys of the store.
//!
//! Only the SHA-256 of a token is stored, and comparison takes constant time: neither a memory dump nor timing reveals a
//! token.

use std::{fmt, sync::Arc};

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

/// Minimum length of a token in characters: shorter ones can be guessed.
pub const MIN_TOKEN: usize = 16;
/// Maximum length of a token in characters: it fits a header.
pub const MAX_TOKEN: usize = 1024;

/// Permissions of a token; each scope includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Read everything except gossip keys and the keys of the store.
    Read,
    /// Register services on the node, send TTL reports, drain and maintain services.
    Register,
    /// Everything, including cluster, gossip keys, all keys of the store and the agent itself.
    Operate,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 3] = [Self::Read, Self::Register, Self::Operate];

    /// Returns the scope in one word, for files and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Register => "register",
            Self::Operate => "operate",
        }
    }
}

/// Access to keys of the store; writing includes reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyAccess {
    /// Read keys.
    Read,
    /// Also set, delete and lock keys.
    Write,
}

impl KeyAccess {
    /// All kinds of access.
    pub const ALL: [Self; 2] = [Self::Read, Self::Write];

    /// Returns the access in one word, for files and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// Access to the keys that begin with a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyGrant {
    /// Beginning of the keys; empty: all keys.
    pub prefix: String,
    /// Access to them.
    pub access: KeyAccess,
}

impl KeyGrant {
    /// Returns the access to the keys that begin with this prefix; all keys if it is empty.
    pub fn new(prefix: &str, access: KeyAccess) -> Self {
        Self { prefix: prefix.to_owned(), access }
    }
}

/// Permissions of a token: a scope, access to keys, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// The scope, if there is one.
    pub scope: Option<Scope>,
    /// Access to keys, in addition to what the scope permits.
    pub keys: Vec<KeyGrant>,
}

impl From<Scope> for Permissions {
    fn from(scope: Scope) -> Self {
        Self { scope: Some(scope), keys: Vec::new() }
    }
}

impl Permissions {
    /// Reports whether a requirement is met.
    pub fn meet(&self, required: Requirement) -> bool {
        match required {
            Requirement::Scope(scope) => self.scope >= Some(scope),
            Requirement::Keys => self.scope >= Some(Scope::Operate) || !self.keys.is_empty(),
            Requirement::Sessions => {
                self.scope >= Some(Scope::Register) || self.keys.iter().any(|grant| grant.access == KeyAccess::Write)
            }
            Requirement::Token => true,
        }
    }

    /// Prefixes of the keys that may be accessed in this way.
    pub fn prefixes(&self, access: KeyAccess) -> impl Iterator<Item = &str> {
        let all = (self.scope >= Some(Scope::Operate)).then_some("");
        let granted = self.keys.iter().filter(move |grant| grant.access >= access);
        all.into_iter().chain(granted.map(|grant| grant.prefix.as_str()))
    }
}

/// Permission that an endpoint requires of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// A scope, or one that includes it.
    Scope(Scope),
    /// Access to some keys. The endpoint requires access to those of the request.
    Keys,
    /// Scope `register`, or write access to some keys, since locks need sessions.
    Sessions,
    /// Any valid token.
    Token,
}

impl From<Scope> for Option<Requirement> {
    fn from(scope: Scope) -> Self {
        Some(Requirement::Scope(scope))
    }
}

impl Requirement {
    /// Returns the requirement in one word, for the description of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scope(scope) => scope.as_str(),
            Self::Keys => "keys",
            Self::Sessions => "sessions",
            Self::Token => "token",
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scope(scope) => write!(f, "scope {}", scope.as_str()),
            Self::Keys => f.write_str("access to keys, or scope operate,"),
            Self::Sessions => f.write_str("write access to keys, or scope register,"),
            Self::Token => f.write_str("a token"),
        }
    }
}

/// Name, permissions and hash of a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Name for logs, unique among the tokens.
    pub name: String,
    /// Permissions of the token.
    pub permissions: Arc<Permissions>,
    digest: [u8; 32],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, {:?})", self.name, self.permissions)
    }
}

impl Token {
    /// Returns a token with a name and permissions; `token` is the secret.
    pub fn new(name: &str, permissions: impl Into<Permissions>, token: &str) -> Self {
        Self { name: name.to_owned(), permissions: Arc::new(permissions.into()), digest: hash(token.as_bytes()) }
    }
}

/// All valid tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(Vec<Token>);

impl Tokens {
    /// Returns a set of tokens.
    pub fn new(tokens: Vec<Token>) -> Self {
        Self(tokens)
    }

    /// Returns the number of tokens.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Reports whether there is no token, so that every request is denied.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reports whether the set has this token, unchanged.
    pub fn has(&self, token: &Token) -> bool {
        self.0.contains(token)
    }

    /// Returns the token for the presented secret. Always compares with all tokens, so timing does not reveal the match.
    pub fn find(&self, presented: &[u8]) -> Option<&Token> {
        let presented = hash(presented);
        let mut found = None;
        for token in &self.0 {
            if bool::from(token.digest.ct_eq(&presented)) {
                found = Some(token);
            }
        }
        found
    }
}

fn hash(token: &[u8]) -> [u8; 32] {
    let mut octets = [0; 32];
    octets.copy_from_slice(digest(&SHA256, token).as_ref());
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_found_by_its_secret_and_never_shown() {
        let tokens = Tokens::new(vec![
            Token::new("prometheus", Scope::Read, "correct horse battery"),
            Token::new("deploy", Scope::Operate, "staple correct horse"),
        ]);
        let cases = [
            ("correct horse battery", Some("prometheus")),
            ("staple correct horse", Some("deploy")),
            ("correct horse batter", None),
            ("correct horse battery ", None),
            ("", None),
        ];
        for (presented, expected) in cases {
            assert_eq!(tokens.find(presented.as_bytes()).map(|token| token.name.as_str()), expected, "{presented:?}");
        }
        assert!(!format!("{tokens:?}").contains("horse"));
        assert!(Scope::Operate > Scope::Register && Scope::Register > Scope::Read);
    }

    #[test]
    fn requirements_are_met_by_scopes_or_keys() {
        let keys = |access| Permissions { scope: None, keys: vec![KeyGrant::new("a/", access)] };
        let cases: [(Permissions, [bool; 4]); 5] = [
            // Scope read, keys, sessions, any token.
            (Scope::Read.into(), [true, false, false, true]),
            (Scope::Register.into(), [true, false, true, true]),
            (Scope::Operate.into(), [true, true, true, true]),
            (keys(KeyAccess::Read), [false, true, false, true]),
            (keys(KeyAccess::Write), [false, true, true, true]),
        ];
        let required = [Requirement::Scope(Scope::Read), Requirement::Keys, Requirement::Sessions, Requirement::Token];
        for (permissions, expected) in cases {
            assert_eq!(required.map(|required| permissions.meet(required)), expected, "{permissions:?}");
        }
    }
}
