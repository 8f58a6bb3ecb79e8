//! Who may do what with the HTTP API: tokens and their scopes.
//!
//! A token is kept as its SHA-256 alone, and all are compared in constant time: neither a memory dump nor a stopwatch tells
//! one.

use std::fmt;

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

/// Characters of a token at least: less can be guessed.
pub const MIN_TOKEN: usize = 16;
/// Characters of a token at most: what fits a header with room to spare.
pub const MAX_TOKEN: usize = 1024;

/// What a token lets its owner do; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// See everything, keys excepted.
    Read,
    /// Register services on the node, report on them, take them out of answers.
    Register,
    /// Everything: the cluster, the keys, the agent itself.
    Operate,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::Register, Self::Operate];

    /// The word for it in files and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Register => "register",
            Self::Operate => "operate",
        }
    }
}

/// A token, without the token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// For the log; unique among the tokens.
    pub name: String,
    /// What it allows.
    pub scope: Scope,
    digest: [u8; 32],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, {})", self.name, self.scope.as_str())
    }
}

impl Token {
    /// A token of that name for that scope.
    pub fn new(name: &str, scope: Scope, token: &str) -> Self {
        Self { name: name.to_owned(), scope, digest: hash(token.as_bytes()) }
    }
}

/// All tokens that are good now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(Vec<Token>);

impl Tokens {
    /// These tokens.
    pub fn new(tokens: Vec<Token>) -> Self {
        Self(tokens)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none, so that nobody may do anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether that one is among them, unchanged.
    pub fn has(&self, token: &Token) -> bool {
        self.0.contains(token)
    }

    /// The token that was shown, if it is one of these. Looks at all of them, whichever it is.
    pub fn find(&self, shown: &[u8]) -> Option<&Token> {
        let shown = hash(shown);
        let mut found = None;
        for token in &self.0 {
            if bool::from(token.digest.ct_eq(&shown)) {
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
    fn a_token_is_found_by_what_it_is_and_not_shown() {
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
        for (shown, expected) in cases {
            assert_eq!(tokens.find(shown.as_bytes()).map(|token| token.name.as_str()), expected, "{shown:?}");
        }
        assert!(!format!("{tokens:?}").contains("horse"));
        assert!(Scope::Operate > Scope::Register && Scope::Register > Scope::Read);
    }
}
