//! Keys, ranges of keys, and revisions.

use std::{
    fmt,
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest key in octets: no path of an application is longer, and an index of keys stays small.
pub const MAX_KEY: usize = 4096;
/// Longest value in octets: etcd's limit of a request, three times that of Consul.
pub const MAX_VALUE: usize = 1536 * 1024;

/// Number of a change of the store, without gaps. An empty store is at revision 1, so that the first change has revision 2.
/// Consul's index and etcd's revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision(pub u64);

impl Revision {
    /// Returns the revision of the next change.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key: 1 to [`MAX_KEY`] octets of any kind. The state and its history share them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<[u8]>);

/// Reasons for refusing a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The key has no octets.
    #[error("the key is empty")]
    Empty,
    /// The key is too long; holds its length in octets.
    #[error("the key has {0} octets: the limit is {MAX_KEY}")]
    TooLong(usize),
}

impl Key {
    /// Returns a key of these octets.
    ///
    /// # Errors
    /// Fails if the key is empty or longer than [`MAX_KEY`].
    pub fn new(octets: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        let octets = octets.as_ref();
        match octets.len() {
            0 => Err(KeyError::Empty),
            1..=MAX_KEY => Ok(Self(octets.into())),
            len => Err(KeyError::TooLong(len)),
        }
    }

    /// Octets of the key.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    /// Copy of the octets for a message.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    /// The key as text; `None` if it is not UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Postcard lends octets of its input.
        Self::new(<&[u8]>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A range of keys, in the order of their octets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyRange {
    /// One key.
    Key(Key),
    /// Keys from `start` on, and before `end` if there is one.
    Span {
        /// First key; empty: from the first key of the store.
        start: Bytes,
        /// First key behind the range; `None`: up to the last key of the store.
        end: Option<Bytes>,
    },
}

impl KeyRange {
    /// All keys.
    pub const ALL: Self = Self::Span { start: Bytes::new(), end: None };

    /// Returns the range of keys that begin with these octets.
    pub fn prefix(octets: impl Into<Bytes>) -> Self {
        let start = octets.into();
        let end = successor(&start);
        Self::Span { start, end }
    }

    /// Reports whether a key is within the range.
    pub fn contains(&self, key: &Key) -> bool {
        match self {
            Self::Key(only) => only == key,
            Self::Span { start, end } => key.0[..] >= start[..] && end.as_ref().is_none_or(|end| key.0[..] < end[..]),
        }
    }

    /// Reports whether the range has all keys of another range.
    pub fn includes(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Key(key)) => self.contains(key),
            (Self::Key(_), Self::Span { .. }) => false,
            (Self::Span { start, end }, Self::Span { start: other_start, end: other_end }) => {
                start <= other_start
                    && match (end, other_end) {
                        (None, _) => true,
                        (Some(_), None) => false,
                        (Some(end), Some(other)) => other <= end,
                    }
            }
        }
    }

    /// The common beginning of the keys, if the range consists of the keys with that beginning.
    pub fn as_prefix(&self) -> Option<&Bytes> {
        match self {
            Self::Span { start, end } if *end == successor(start) => Some(start),
            Self::Span { .. } | Self::Key(_) => None,
        }
    }

    /// Bounds for looking up octets of keys in an ordered map.
    pub fn bounds(&self) -> impl RangeBounds<[u8]> + '_ {
        match self {
            Self::Key(key) => (Bound::Included(&*key.0), Bound::Included(&*key.0)),
            Self::Span { start, end } => {
                (Bound::Included(&**start), end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(&**end)))
            }
        }
    }
}

/// Returns the first octets, in order, that are behind all that begin with a prefix; `None` if there are none.
fn successor(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|octet| *octet < u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

impl std::borrow::Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &'static str) -> Key {
        Key::new(text).unwrap()
    }

    #[test]
    fn keys_are_bounded() {
        assert_eq!(Key::new(""), Err(KeyError::Empty));
        assert_eq!(Key::new(vec![b'x'; MAX_KEY + 1]), Err(KeyError::TooLong(MAX_KEY + 1)));
        assert_eq!(key("a\u{1}").to_string(), "a\\x01");
    }

    #[test]
    fn ranges_contain_keys_and_ranges() {
        let span =
            |start: &'static str, end: &'static str| KeyRange::Span { start: start.into(), end: Some(end.into()) };
        let top = KeyRange::prefix(&b"\xff\xff"[..]);
        let cases = [
            (KeyRange::prefix("a/"), "a/b", true),
            (KeyRange::prefix("a/"), "a0", false),
            (KeyRange::prefix("a/"), "a", false),
            (KeyRange::prefix(""), "anything", true),
            (KeyRange::ALL, "anything", true),
            (KeyRange::Key(key("a")), "a", true),
            (KeyRange::Key(key("a")), "ab", false),
            (span("a", "c"), "b", true),
            (span("a", "c"), "c", false),
            (top.clone(), "z", false),
        ];
        for (range, text, expected) in cases {
            assert_eq!(range.contains(&key(text)), expected, "{range:?} {text}");
            assert_eq!(range.includes(&KeyRange::Key(key(text))), expected, "{range:?} {text}");
        }
        assert!(top.contains(&Key::new(&b"\xff\xff\x01"[..]).unwrap()));
        assert!(KeyRange::prefix("a/").includes(&KeyRange::prefix("a/b")));
        assert!(!KeyRange::prefix("a/b").includes(&KeyRange::prefix("a/")));
        assert!(KeyRange::prefix("").includes(&KeyRange::ALL));
        assert_eq!(KeyRange::prefix("a/").as_prefix().map(|prefix| &prefix[..]), Some(&b"a/"[..]));
        assert_eq!(span("a/", "b").as_prefix(), None);
    }
}
