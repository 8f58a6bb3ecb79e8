//! Labels and owner names.
//!
//! Everything that muster puts into the DNS passes through one of the two types here, so that what is too long, empty
//! or made of the wrong letters is refused where it is written and never met again. Both are kept in lower case
//! (RFC 4343: names compare without case); the letter case of a query is kept by echoing the query.

use std::{
    borrow::Borrow,
    fmt,
    hash::{Hash, Hasher},
};

use smol_str::SmolStr;

/// The longest label, in octets (RFC 1035 §2.3.4).
pub const MAX_LABEL: usize = 63;
/// The longest name in wire form, root octet included (RFC 1035 §2.3.4).
pub const MAX_NAME: usize = 255;

/// A label that a host name may have (RFC 1123 §2.1): 1 to 63 lower-case letters, digits and inner hyphens.
///
/// Cloning is cheap: up to 23 octets stand in the value itself, so that a table of labels is searched without a look
/// elsewhere; clones of longer ones share the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label(SmolStr);

/// Why a text is not a [`Label`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelError {
    /// There are no characters.
    Empty,
    /// More than [`MAX_LABEL`] octets; holds how many.
    TooLong(usize),
    /// A character that is neither letter, digit nor hyphen.
    Character(char),
    /// A hyphen begins or ends the label.
    EdgeHyphen,
}

impl Label {
    /// Reads a label; upper case is folded.
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
        // Most are in lower case already, and a cluster's records hold some hundred thousand of them.
        let folded = text.bytes().any(|b| b.is_ascii_uppercase()).then(|| text.to_ascii_lowercase());
        Ok(Self(folded.as_deref().unwrap_or(text).into()))
    }

    /// The label's text, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The label's octets, in lower case, without a length octet.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Hash for Label {
    // As `[u8]` hashes, so that a table of labels can be asked with a part of a packet: see `Borrow`.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl Borrow<[u8]> for Label {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for LabelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a DNS label has at least one character"),
            Self::TooLong(len) => write!(f, "a DNS label has at most {MAX_LABEL} octets, this one has {len}"),
            Self::Character(c) => write!(f, "{c:?} cannot stand in a DNS label: letters, digits and hyphens can"),
            Self::EdgeHyphen => f.write_str("a DNS label neither begins nor ends with a hyphen"),
        }
    }
}

impl std::error::Error for LabelError {}

/// Label of a test.
#[cfg(test)]
pub(crate) fn label(text: &str) -> Label {
    Label::parse(text).unwrap()
}

/// An absolute domain name in wire form and lower case: length-prefixed labels, then the root's zero octet.
///
/// Any octet may stand in a label (RFC 2181 §11). At most [`MAX_NAME`] octets.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

/// Why a text or a run of octets is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Two dots in a row, or a dot at the beginning.
    EmptyLabel,
    /// A label of more than [`MAX_LABEL`] octets; holds how many.
    LabelTooLong(usize),
    /// More than [`MAX_NAME`] octets in all.
    TooLong,
    /// A backslash without the character or the three digits that it announces.
    Escape,
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl Name {
    /// The root.
    pub fn root() -> Self {
        Self([0].into())
    }

    /// Reads presentation form (RFC 1035 §5.1): dots between labels, the last one optional, `\.` and `\046` escaped.
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

    /// A name of these labels, the leftmost first.
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

    /// This name with `labels` in front.
    pub fn prepend<'a>(&'a self, labels: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, NameError> {
        Self::from_labels(labels.into_iter().chain(self.labels()))
    }

    /// The wire form, root octet included.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// The labels, the leftmost first; none for the root.
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

    /// The wire form less `zone`'s, where this name is `zone` or below it.
    ///
    /// `www.example.org.` within `example.org.` is `\x03www`.
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

/// What follows a backslash: three digits for an octet, or the character itself.
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

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyLabel => f.write_str("a domain name has no empty labels"),
            Self::LabelTooLong(len) => write!(f, "a DNS label has at most {MAX_LABEL} octets, one here has {len}"),
            Self::TooLong => write!(f, "a domain name has at most {MAX_NAME} octets in wire form"),
            Self::Escape => f.write_str("after a backslash stands a character or three digits up to 255"),
        }
    }
}

impl std::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_fold_case_and_refuse_what_a_host_name_may_not_have() {
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
    fn names_refuse_what_cannot_be_sent() {
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
    fn within_cuts_only_at_label_boundaries() {
        let zone = Name::parse("local").unwrap();
        let cases: &[(&str, Option<&[u8]>)] =
            &[("local", Some(b"")), ("a.local", Some(b"\x01a")), ("alocal", None), ("local.a", None), (".", None)];
        for (text, expected) in cases {
            assert_eq!(Name::parse(text).unwrap().within(&zone), *expected, "{text:?}");
        }
        assert_eq!(zone.within(&Name::root()), Some(&b"\x05local"[..]));
    }
}
