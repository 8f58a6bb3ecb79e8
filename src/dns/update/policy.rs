//! Policy of a dynamic zone: which names and types a key may change.

use std::{collections::BTreeSet, fmt};

use thiserror::Error;

use crate::{
    dns::message::codes::rtype,
    model::name::{Name, NameError},
};

/// Types that a key may change only if its `types` lists them: they decide who serves the zone and names below it, as in BIND's
/// `update-policy`.
const LISTED_ONLY: [u16; 2] = [rtype::NS, rtype::SOA];
/// Types that no key may change: a signer makes them.
const SIGNED: [u16; 3] = [rtype::RRSIG, rtype::NSEC, rtype::NSEC3];

/// Permission of a key for a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Name of the TSIG key.
    pub key: Name,
    /// Names that it may change; empty: all names of the zone.
    pub names: Vec<Pattern>,
    /// Types that it may change; empty: all but NS and SOA.
    pub types: BTreeSet<u16>,
}

impl Grant {
    /// Reports whether the holder of the key may change records of this type at a name, given by its labels in wire form relative
    /// to the zone.
    pub fn allows(&self, owner: &[u8], rtype: u16) -> bool {
        let by_type = match self.types.is_empty() {
            true => !LISTED_ONLY.contains(&rtype),
            false => self.types.contains(&rtype),
        };
        let by_name = self.names.is_empty() || self.names.iter().any(|pattern| pattern.matches(owner));
        by_type && by_name && !SIGNED.contains(&rtype)
    }
}

/// A pattern of names relative to a zone: labels, `*` for any one label, and at most one `**` for any number of labels, or none.
/// `@` is the apex.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    before: Vec<Piece>,
    /// Pieces behind `**`, if there is one.
    after: Option<Vec<Piece>>,
}

#[derive(Clone, PartialEq, Eq)]
enum Piece {
    Label(Box<[u8]>),
    AnyLabel,
}

/// Reasons for refusing a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatternError {
    /// The text is no domain name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// More than one `**`.
    #[error("a pattern has at most one `**`")]
    Repeated,
    /// The name ends in a dot.
    #[error("names are relative to the zone: remove the final dot and the zone")]
    Absolute,
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Fails if the text is no name relative to the zone.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text == "@" {
            return Ok(Self { before: Vec::new(), after: None });
        }
        if text.ends_with('.') {
            return Err(PatternError::Absolute);
        }
        let (mut before, mut after) = (Vec::new(), None::<Vec<Piece>>);
        for label in Name::parse(text)?.labels() {
            let piece = match label {
                b"**" if after.is_some() => return Err(PatternError::Repeated),
                b"**" => {
                    after = Some(Vec::new());
                    continue;
                }
                b"*" => Piece::AnyLabel,
                label => Piece::Label(label.into()),
            };
            after.as_mut().unwrap_or(&mut before).push(piece);
        }
        Ok(Self { before, after })
    }

    /// Reports whether a name, given by its labels in wire form and lower case, matches.
    pub fn matches(&self, owner: &[u8]) -> bool {
        let labels: Vec<&[u8]> = labels(owner).collect();
        let agree = |pieces: &[Piece], labels: &[&[u8]]| {
            pieces.iter().zip(labels).all(|(piece, label)| match piece {
                Piece::Label(expected) => **expected == **label,
                Piece::AnyLabel => true,
            })
        };
        match &self.after {
            None => labels.len() == self.before.len() && agree(&self.before, &labels),
            Some(after) => {
                labels.len() >= self.before.len() + after.len()
                    && agree(&self.before, &labels)
                    && agree(after, &labels[labels.len() - after.len()..])
            }
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |pieces: &[Piece]| -> Vec<String> {
            let piece = |piece: &Piece| match piece {
                Piece::Label(label) => label.escape_ascii().to_string(),
                Piece::AnyLabel => "*".to_owned(),
            };
            pieces.iter().map(piece).collect()
        };
        let mut pieces = shown(&self.before);
        if let Some(after) = &self.after {
            pieces.push("**".to_owned());
            pieces.extend(shown(after));
        }
        f.write_str(&if pieces.is_empty() { "@".to_owned() } else { pieces.join(".") })
    }
}

/// Returns the labels of a name in wire form without the root.
fn labels(mut owner: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = owner.split_first()?;
        let (label, rest) = rest.split_at_checked(usize::from(*len))?;
        owner = rest;
        Some(label)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names_relative_to_the_zone() {
        let cases: [(&str, &[u8], bool); 16] = [
            ("@", b"", true),
            ("@", b"\x01a", false),
            ("www", b"\x03www", true),
            ("WWW", b"\x03www", true),
            ("www", b"\x01a\x03www", false),
            ("*", b"\x01a", true),
            ("*", b"\x01*", true),
            ("*", b"", false),
            ("*", b"\x01a\x01b", false),
            ("*.hosts", b"\x01a\x05hosts", true),
            ("**", b"", true),
            ("**", b"\x01a\x01b", true),
            ("_acme-challenge.**", b"\x0f_acme-challenge", true),
            ("_acme-challenge.**", b"\x0f_acme-challenge\x03www\x01a", true),
            ("_acme-challenge.**", b"\x03www", false),
            ("*.**.b", b"\x01b", false),
        ];
        for (pattern, owner, expected) in cases {
            let parsed = Pattern::parse(pattern).unwrap();
            assert_eq!(parsed.matches(owner), expected, "{pattern} {}", owner.escape_ascii());
            assert_eq!(format!("{parsed:?}"), pattern.to_ascii_lowercase());
        }
        for (text, expected) in [("a.**.b.**", PatternError::Repeated), ("a.example.org.", PatternError::Absolute)] {
            assert_eq!(Pattern::parse(text), Err(expected));
        }
        assert!(Pattern::parse("a..b").is_err());
    }

    #[test]
    fn keys_change_the_types_that_they_are_granted() {
        let grant = |types: &[u16]| Grant {
            key: Name::root(),
            names: vec![Pattern::parse("www").unwrap()],
            types: types.iter().copied().collect(),
        };
        let cases = [
            (grant(&[]), "www", rtype::A, true),
            (grant(&[]), "www", rtype::NS, false),
            (grant(&[]), "www", rtype::RRSIG, false),
            (grant(&[rtype::NS]), "www", rtype::NS, true),
            (grant(&[rtype::TXT]), "www", rtype::TXT, true),
            (grant(&[rtype::TXT]), "www", rtype::A, false),
            (grant(&[rtype::TXT]), "ftp", rtype::TXT, false),
        ];
        for (grant, name, rtype, expected) in cases {
            let owner = [&[name.len() as u8], name.as_bytes()].concat();
            assert_eq!(grant.allows(&owner, rtype), expected, "{grant:?} {name} {rtype}");
        }
    }
}
