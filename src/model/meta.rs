//! Metadata of an instance: `key=value` pairs in one list, which equal instances share.
//!
//! A cluster has one of these per instance. A map of strings takes some 600 octets for one pair, since its nodes have room
//! for eleven; a sorted slice of short texts takes 48.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use smol_str::SmolStr;

use super::list::List;

/// `key=value` pairs, sorted by key, with unique keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Meta(List<(SmolStr, SmolStr)>);

impl Meta {
    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(known, _)| known.as_str().cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// Iterates over keys and values, by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Returns the number of pairs.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Reports whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the list of pairs, to be replaced by an equal one.
    pub(super) fn pairs_mut(&mut self) -> &mut List<(SmolStr, SmolStr)> {
        &mut self.0
    }

    /// Returns a map of the pairs.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// Sorts the pairs. The last value of a key counts.
    fn of(mut pairs: Vec<(SmolStr, SmolStr)>) -> Self {
        // The sort is stable; of equal neighbours, `dedup_by` removes the first argument, which is the later one.
        pairs.reverse();
        pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        pairs.dedup_by(|(a, _), (b, _)| a == b);
        Self(pairs.into())
    }
}

impl<K: Into<SmolStr>, V: Into<SmolStr>> FromIterator<(K, V)> for Meta {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self::of(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl<K: Into<SmolStr>, V: Into<SmolStr>, const N: usize> From<[(K, V); N]> for Meta {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl From<BTreeMap<String, String>> for Meta {
    fn from(pairs: BTreeMap<String, String>) -> Self {
        pairs.into_iter().collect()
    }
}

impl Serialize for Meta {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Meta {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Meta;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Meta, A::Error> {
                let mut pairs = Vec::new();
                while let Some((Text(key), Text(value))) = map.next_entry()? {
                    pairs.push((key, value));
                }
                Ok(Meta::of(pairs))
            }
        }
        from.deserialize_map(Pairs)
    }
}

/// A key or a value, parsed without an intermediate string.
struct Text(SmolStr);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Octets;
        impl Visitor<'_> for Octets {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.into()))
            }
        }
        from.deserialize_str(Octets)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn last_value_of_a_key_counts() {
        let meta = Meta::from([("b", "1"), ("a", "2"), ("b", "3")]);
        assert_eq!(meta.iter().collect::<Vec<_>>(), [("a", "2"), ("b", "3")]);
        let read: Meta = serde_json::from_str(r#"{"b":"1","a":"2","b":"3"}"#).unwrap();
        assert_eq!(read, meta);
    }

    #[test]
    fn values_that_are_no_texts_are_refused() {
        for json in [r#"{"a":1}"#, r#"{"a":null}"#, r#"["a"]"#, "1"] {
            assert!(serde_json::from_str::<Meta>(json).is_err(), "{json}");
        }
    }

    proptest! {
        #[test]
        fn meta_equals_a_map(pairs in prop::collection::btree_map(any::<String>(), any::<String>(), 0..8), key: String) {
            let meta = Meta::from(pairs.clone());
            prop_assert_eq!(meta.to_map(), pairs.clone());
            prop_assert_eq!(meta.get(&key), pairs.get(&key).map(String::as_str));
            for (key, value) in &pairs {
                prop_assert_eq!(meta.get(key), Some(value.as_str()));
            }
            let json = serde_json::to_string(&meta).unwrap();
            prop_assert_eq!(&json, &serde_json::to_string(&pairs).unwrap());
            prop_assert_eq!(serde_json::from_str::<Meta>(&json).unwrap(), meta);
        }
    }
}
