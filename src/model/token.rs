//! Tokens of the HTTP API and their scopes.
//!
//! Only the SHA-256 of a token is stored, and comparison takes constant time: neither a memory dump nor timing reveals a
//! token.

use std::fmt;

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

/// Minimum length of a token in characters: shorter ones can be guessed.
pub const MIN_TOKEN: usize = 16;
/// Maximum length of a token in characters: it fits a header.
pub const MAX_TOKEN: usize = 1024;

/// Permissions of a token; each scope includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Read everything except keys.
    Read,
    /// Register services on the node, send TTL reports, drain and maintain services.
    Register,
    /// Everything, including cluster, keys and the agent itself.
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

/// Name, scope and hash of a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Name for logs, unique among the tokens.
    pub name: String,
    /// Permissions of the token.
    pub scope: Scope,
    digest: [u8; 32],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, {})", self.name, self.scope.as_str())
    }
}

impl Token {
    /// Returns a token with a name and a scope; `token` is the secret.
    pub fn new(name: &str, scope: Scope, token: &str) -> Self {
        Self { name: name.to_owned(), scope, digest: hash(token.as_bytes()) }
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
}
