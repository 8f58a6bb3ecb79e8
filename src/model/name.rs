//! Labels and domain names.
//!
//! Every name that muster puts into the DNS has one of the two types here, so an invalid name is rejected where it enters
//! and needs no check later. Both types fold to lower case (RFC 4343: names compare without case); replies keep the letter
//! case of a query because they echo it.

use std::{borrow::Borrow, fmt};

use smol_str::SmolStr;
use thiserror::Error;

use super::folded_text::folded_text;

/// Maximum length of a label in octets (RFC 1035 §2.3.4).
pub const MAX_LABEL: usize = 63;
/// Maximum length of a name in wire form, root octet included (RFC 1035 §2.3.4).
pub const MAX_NAME: usize = 255;

/// A label of a host name (RFC 1123 §2.1): 1 to 63 lower-case letters, digits and inner hyphens.
///
/// Cloning is cheap: up to 23 octets are stored inline, so a table of labels is searched without indirection; clones of
/// longer labels share the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label(SmolStr);

folded_text!(Label);

/// Invalid [`Label`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LabelError {
    /// No characters.
    #[error("a DNS label has at least one character")]
    Empty,
    /// More than [`MAX_LABEL`] octets, with the length.
    #[error("a DNS label has at most {MAX_LABEL} octets, this one has {0}")]
    TooLong(usize),
    /// Character that is neither letter, digit nor hyphen.
    #[error("{0:?} is not allowed in a DNS label: use letters, digits and hyphens")]
    Character(char),
    /// Leading or trailing hyphen.
    #[error("a DNS label neither begins nor ends with a hyphen")]
    EdgeHyphen,
}

impl Label {
    /// Parses a label and folds it to lower case.
    pub fn parse(text: &str) -> Result<Self, LabelError> {
        if text.is_empty() {
            return Err(LabelError::Empty);
        }
        if let Some(wrong) = text.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-') {
            return Err(LabelError::Character(wrong));
        }
        if text.len() > MAX_LABEL {
            return Err(LabelError::TooLong(text.len()));
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(LabelError::EdgeHyphen);
        }
        Ok(Self::folded(text))
    }
}

impl From<Label> for SmolStr {
    fn from(label: Label) -> Self {
        label.0
    }
}

/// Label of a test.
#[cfg(test)]
pub(crate) fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

/// An absolute domain name in wire form and lower case: length-prefixed labels, then the root's zero octet.
///
/// A label may contain any octet (RFC 2181 §11). At most [`MAX_NAME`] octets.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

/// Invalid [`Name`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// Two consecutive dots, or a leading dot.
    #[error("a domain name has no empty labels")]
    EmptyLabel,
    /// Label of more than [`MAX_LABEL`] octets, with its length.
    #[error("a DNS label has at most {MAX_LABEL} octets, one here has {0}")]
    LabelTooLong(usize),
    /// More than [`MAX_NAME`] octets in wire form.
    #[error("a domain name has at most {MAX_NAME} octets in wire form")]
    TooLong,
    /// Backslash that neither a character nor three digits up to 255 follow.
    #[error("a backslash must be followed by a character or by three digits up to 255")]
    Escape,
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl Name {
    /// Returns the root.
    pub fn root() -> Self {
        Self([0].into())
    }

    /// Parses presentation form (RFC 1035 §5.1): labels separated by dots, final dot optional, `\.` and `\046` escaped.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text == "." {
            return if text.is_empty() { Err(NameError::EmptyLabel) } else { Ok(Self::root()) };
        }
        let mut labels: Vec<Vec<u8>> = vec![Vec::new()];
        let mut bytes = text.bytes();
        let mut dotted = false;
        while let Some(byte) = bytes.next() {
            let (octet, separator) = match byte {
                b'.' => (byte, true),
                b'\\' => (unescape(&mut bytes)?, false),
                _ => (byte, false),
            };
            if dotted {
                labels.push(Vec::new());
                dotted = false;
            }
            let label = labels.last_mut().ok_or(NameError::EmptyLabel)?;
            if separator {
                if label.is_empty() {
                    return Err(NameError::EmptyLabel);
                }
                dotted = true;
            } else {
                label.push(octet);
            }
        }
        Self::from_labels(labels.iter().map(Vec::as_slice))
    }

    /// Returns a name of these labels, the leftmost first.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, NameError> {
        let mut wire = Vec::with_capacity(32);
        for label in labels {
            match label.len() {
                0 => return Err(NameError::EmptyLabel),
                len @ 1..=MAX_LABEL => wire.push(len as u8),
                len => return Err(NameError::LabelTooLong(len)),
            }
            wire.extend(label.iter().map(u8::to_ascii_lowercase));
        }
        wire.push(0);
        if wire.len() > MAX_NAME {
            return Err(NameError::TooLong);
        }
        Ok(Self(wire.into()))
    }

    /// Returns this name with `labels` prepended.
    pub fn prepend<'a>(&'a self, labels: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, NameError> {
        Self::from_labels(labels.into_iter().chain(self.labels()))
    }

    /// Returns the wire form, root octet included.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// Iterates over the labels, the leftmost first; none for the root.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let mut rest = self.wire();
        std::iter::from_fn(move || {
            let (&len, tail) = rest.split_first()?;
            if len == 0 {
                return None;
            }
            let (label, tail) = tail.split_at(usize::from(len));
            rest = tail;
            Some(label)
        })
    }

    /// Returns the wire form without that of `zone`, if this name is `zone` or below it.
    ///
    /// For `www.example.org.` and the zone `example.org.` this is `\x03www`.
    pub fn within(&self, zone: &Name) -> Option<&[u8]> {
        let mut at = 0;
        loop {
            if self.0[at..] == *zone.0 {
                return Some(&self.0[..at]);
            }
            match usize::from(self.0[at]) {
                0 => return None,
                len => at += 1 + len,
            }
        }
    }
}

/// Reports whether a name in wire form ends in the octets of another, which is in lower case. Length octets are below those of letters.
pub fn ends_with(name: &[u8], suffix: &[u8]) -> bool {
    name.len() >= suffix.len() && name[name.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
}

/// Parses an escape after its backslash: three digits for an octet, or the character itself.
fn unescape(bytes: &mut std::str::Bytes<'_>) -> Result<u8, NameError> {
    let first = bytes.next().ok_or(NameError::Escape)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut value = u16::from(first - b'0');
    for _ in 0..2 {
        let digit = bytes.next().filter(u8::is_ascii_digit).ok_or(NameError::Escape)?;
        value = value * 10 + u16::from(digit - b'0');
    }
    u8::try_from(value).map_err(|_| NameError::Escape)
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() == 1 {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &octet in label {
                match octet {
                    b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => write!(f, "\\{}", char::from(octet))?,
                    0x21..=0x7e => write!(f, "{}", char::from(octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_fold_case_and_follow_host_name_rules() {
        let long = "a".repeat(64);
        let cases: &[(&str, Result<&str, LabelError>)] = &[
            ("web", Ok("web")),
            ("Web-2", Ok("web-2")),
            ("7", Ok("7")),
            ("", Err(LabelError::Empty)),
            ("-web", Err(LabelError::EdgeHyphen)),
            ("web-", Err(LabelError::EdgeHyphen)),
            ("my_web", Err(LabelError::Character('_'))),
            ("a.b", Err(LabelError::Character('.'))),
            ("wéb", Err(LabelError::Character('é'))),
            (&long, Err(LabelError::TooLong(64))),
        ];
        for (text, expected) in cases {
            let got = Label::parse(text);
            assert_eq!(got.as_ref().map(Label::as_str), expected.as_ref().copied(), "{text:?}");
        }
        assert!(Label::parse(&long[1..]).is_ok());
    }

    #[test]
    fn names_round_trip_between_text_and_wire() {
        let cases: &[(&str, &[u8], &str)] = &[
            (".", b"\0", "."),
            ("Service.Local", b"\x07service\x05local\0", "service.local."),
            ("service.local.", b"\x07service\x05local\0", "service.local."),
            (r"a\.b.c", b"\x03a.b\x01c\0", r"a\.b.c."),
            (r"a\032b.", b"\x03a b\0", r"a\032b."),
        ];
        for (text, wire, shown) in cases {
            let name = Name::parse(text).unwrap();
            assert_eq!(name.wire(), *wire, "{text:?}");
            assert_eq!(name.to_string(), *shown, "{text:?}");
            assert_eq!(Name::parse(&name.to_string()).unwrap(), name);
        }
    }

    #[test]
    fn invalid_names_are_rejected() {
        let long_label = format!("{}.org", "a".repeat(64));
        let long_name = vec!["a".repeat(50); 6].join(".");
        let cases: &[(&str, NameError)] = &[
            ("", NameError::EmptyLabel),
            (".org", NameError::EmptyLabel),
            ("a..b", NameError::EmptyLabel),
            ("a..", NameError::EmptyLabel),
            (r"a\", NameError::Escape),
            (r"a\25", NameError::Escape),
            (r"a\256", NameError::Escape),
            (&long_label, NameError::LabelTooLong(64)),
            (&long_name, NameError::TooLong),
        ];
        for (text, expected) in cases {
            assert_eq!(Name::parse(text).as_ref(), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn within_matches_only_at_label_boundaries() {
        let zone = Name::parse("local").unwrap();
        let cases: &[(&str, Option<&[u8]>)] =
            &[("local", Some(b"")), ("a.local", Some(b"\x01a")), ("alocal", None), ("local.a", None), (".", None)];
        for (text, expected) in cases {
            assert_eq!(Name::parse(text).unwrap().within(&zone), *expected, "{text:?}");
        }
        assert_eq!(zone.within(&Name::root()), Some(&b"\x05local"[..]));
    }
}
