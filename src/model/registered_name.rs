//! Names as people and programs register them, and which of them are labels in the DNS.
//!
//! Service names come from service files and from clients of the HTTP API, which allow more than DNS labels. A
//! [`RegisteredName`] is any of them. [`RegisteredName::dns_label`] returns the label of its DNS name, or the reason why it
//! has none.

use smol_str::SmolStr;
use thiserror::Error;

use super::{
    folded_text::folded_text,
    name::{Label, MAX_LABEL},
};

/// Label of node names (`NODE.node.Z`), reserved: a service of this name has no DNS name.
pub const RESERVED_SERVICE: &str = "node";

/// Maximum length of a registered name in octets: four times that of a DNS label, and longer than names in use.
pub const MAX_REGISTERED_NAME: usize = 255;

/// A name as registered: 1 to [`MAX_REGISTERED_NAME`] octets without control characters, folded to ASCII lower case.
///
/// Names compare without ASCII case. An instance keeps the letter case for display. Cloning is
/// cheap, as for [`Label`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegisteredName(SmolStr);

folded_text!(RegisteredName);

/// Invalid [`RegisteredName`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RegisteredNameError {
    /// No characters.
    #[error("a name has at least one character")]
    Empty,
    /// More than [`MAX_REGISTERED_NAME`] octets, with the length.
    #[error("a name has at most {MAX_REGISTERED_NAME} octets, this one has {0}")]
    TooLong(usize),
    /// Control character.
    #[error("the control character {0:?} is not allowed in a name")]
    Control(char),
}

/// Reason why a registered name has no name in the DNS.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Hash)]
pub enum NoDnsName {
    /// Character other than a letter, digit, hyphen or underscore.
    #[error("{0:?} is not a letter, digit, hyphen or underscore")]
    Character(char),
    /// More than [`MAX_LABEL`] octets, with the length.
    #[error("a DNS label has at most {MAX_LABEL} octets, this name has {0}")]
    TooLong(usize),
    /// Leading underscore.
    #[error("names that begin with `_` are those of RFC 2782")]
    Underscore,
    /// [`RESERVED_SERVICE`].
    #[error("`{RESERVED_SERVICE}` is reserved for the names of nodes")]
    Reserved,
}

impl RegisteredName {
    /// Parses a name and folds it to ASCII lower case.
    ///
    /// # Errors
    /// An empty or too long name, or one with control characters.
    pub fn parse(text: &str) -> Result<Self, RegisteredNameError> {
        if text.is_empty() {
            return Err(RegisteredNameError::Empty);
        }
        if text.len() > MAX_REGISTERED_NAME {
            return Err(RegisteredNameError::TooLong(text.len()));
        }
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            return Err(RegisteredNameError::Control(control));
        }
        Ok(Self::folded(text))
    }

    /// Returns the label of the DNS name of a service of this name.
    ///
    /// # Errors
    /// The reason why such a service has no DNS name.
    pub fn dns_label(&self) -> Result<&[u8], NoDnsName> {
        if self.as_str() == RESERVED_SERVICE { Err(NoDnsName::Reserved) } else { self.tag_label() }
    }

    /// Returns the label of the DNS names of a tag of this name. A tag may be [`RESERVED_SERVICE`].
    ///
    /// # Errors
    /// The reason why such a tag has no DNS names.
    pub fn tag_label(&self) -> Result<&[u8], NoDnsName> {
        let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if let Some(wrong) = self.as_str().chars().find(|c| !fits(c)) {
            return Err(NoDnsName::Character(wrong));
        }
        if self.as_bytes().len() > MAX_LABEL {
            return Err(NoDnsName::TooLong(self.as_bytes().len()));
        }
        if self.as_str().starts_with('_') { Err(NoDnsName::Underscore) } else { Ok(self.as_bytes()) }
    }
}

impl From<Label> for RegisteredName {
    fn from(label: Label) -> Self {
        Self(label.into())
    }
}

/// Name of a test.
#[cfg(test)]
pub(crate) fn name(text: &str) -> RegisteredName {
    RegisteredName::parse(text).unwrap()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_fold_ascii_case_and_may_have_any_printable_character() {
        let (long, longest) = ("a".repeat(256), "A".repeat(255));
        let cases: &[(&str, Result<&str, RegisteredNameError>)] = &[
            ("ConsulTest", Ok("consultest")),
            ("my_svc", Ok("my_svc")),
            ("a/b#c:d e.f%2F", Ok("a/b#c:d e.f%2f")),
            ("GRÖSSE", Ok("grÖsse")),
            (" ", Ok(" ")),
            (&longest, Ok(&long[1..])),
            (&long, Err(RegisteredNameError::TooLong(256))),
            ("", Err(RegisteredNameError::Empty)),
            ("a\nb", Err(RegisteredNameError::Control('\n'))),
            ("a\u{85}b", Err(RegisteredNameError::Control('\u{85}'))),
        ];
        for (text, expected) in cases {
            let got = RegisteredName::parse(text);
            assert_eq!(got.as_ref().map(RegisteredName::as_str), expected.as_ref().copied(), "{text:?}");
        }
    }

    #[test]
    fn names_that_fit_a_dns_label_have_a_dns_name() {
        let (long, longest) = ("a".repeat(64), "a".repeat(63));
        let cases: &[(&str, Result<&str, NoDnsName>)] = &[
            ("web", Ok("web")),
            ("My_Svc-2", Ok("my_svc-2")),
            ("web-", Ok("web-")),
            (&longest, Ok(&longest)),
            (&long, Err(NoDnsName::TooLong(64))),
            ("my.svc", Err(NoDnsName::Character('.'))),
            ("größe", Err(NoDnsName::Character('ö'))),
            ("_tcp", Err(NoDnsName::Underscore)),
            ("Node", Err(NoDnsName::Reserved)),
        ];
        for (text, expected) in cases {
            let name = name(text);
            let label = name.dns_label().map(|label| str::from_utf8(label).unwrap());
            assert_eq!(label, *expected, "{text:?}");
        }
        assert_eq!(name("node").tag_label(), Ok(&b"node"[..]));
    }

    #[test]
    fn set_of_names_is_searched_with_octets_of_a_packet() {
        let set: HashSet<RegisteredName> = [name("My_Svc")].into();
        assert!(set.contains(&b"my_svc"[..]) && !set.contains(&b"My_Svc"[..]));
    }
}
