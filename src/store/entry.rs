//! What is stored under a key.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    key::{Key, Revision},
    lease::LeaseId,
    session::SessionId,
};

/// What is stored under a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// `None`: the default, as for most keys, which need no memory for it.
    attributes: Option<Box<Attributes>>,
    /// Revision at which the key was created.
    pub created: Revision,
    /// Revision of the last change of the key.
    pub modified: Revision,
    /// Number of changes since the key was created, from 1; etcd's `version`.
    pub version: u64,
}

/// What clients attach to a key besides its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Number that the client keeps with the value; Consul's `Flags`.
    pub flags: u64,
    /// Session that holds the key as a lock; Consul's `Session`.
    pub session: Option<SessionId>,
    /// Number of times that the key was locked; Consul's `LockIndex`.
    pub lock_index: u64,
    /// Lease with which the key ends; etcd's `lease`.
    pub lease: Option<LeaseId>,
}

impl Entry {
    /// Returns an entry that is not stored yet: its revisions and its version are 0.
    pub fn new(value: Bytes, attributes: Attributes) -> Self {
        let attributes = (attributes != Attributes::default()).then(|| Box::new(attributes));
        Self { value, attributes, ..Self::default() }
    }

    /// What clients attached to the key.
    pub fn attributes(&self) -> Attributes {
        self.attributes.as_deref().copied().unwrap_or_default()
    }

    /// Returns the entry with an empty value.
    #[must_use]
    pub fn without_value(&self) -> Self {
        Self { value: Bytes::new(), attributes: self.attributes.clone(), ..*self }
    }
}

/// An entry as it is encoded in snapshots and messages. `V` is its value.
#[derive(Serialize, Deserialize)]
struct Encoded<V> {
    value: V,
    flags: u64,
    session: Option<SessionId>,
    lock_index: u64,
    lease: Option<LeaseId>,
    created: Revision,
    modified: Revision,
    version: u64,
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Attributes { flags, session, lock_index, lease } = self.attributes();
        let Self { value, created, modified, version, .. } = self;
        let (created, modified, version) = (*created, *modified, *version);
        Encoded { value, flags, session, lock_index, lease, created, modified, version }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let encoded = Encoded::<Bytes>::deserialize(deserializer)?;
        let Encoded { value, flags, session, lock_index, lease, created, modified, version } = encoded;
        let new = Self::new(value, Attributes { flags, session, lock_index, lease });
        Ok(Self { created, modified, version, ..new })
    }
}

/// A key with its entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEntry {
    /// The key.
    pub key: Key,
    /// What is stored under it.
    pub entry: Arc<Entry>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_is_that_of_all_versions() {
        let plain = Attributes::default();
        let attached = Attributes { flags: 5, session: None, lock_index: 6, lease: Some(LeaseId(7)) };
        let cases: [(Attributes, &[u8]); 2] = [
            (plain, b"\x01k\x02vv\x00\x00\x00\x00\x02\x03\x04"),
            (attached, b"\x01k\x02vv\x05\x00\x06\x01\x0e\x02\x03\x04"),
        ];
        for (attributes, octets) in cases {
            let mut entry = Entry::new("vv".into(), attributes);
            (entry.created, entry.modified, entry.version) = (Revision(2), Revision(3), 4);
            let entry = KeyEntry { key: Key::new("k").unwrap(), entry: Arc::new(entry) };
            assert_eq!(postcard::to_stdvec(&entry).unwrap(), octets);
            assert_eq!(postcard::from_bytes::<KeyEntry>(octets).unwrap(), entry);
            assert_eq!(entry.entry.attributes(), attributes);
        }
        assert!(postcard::from_bytes::<Key>(b"\x00").is_err(), "an empty key");
    }
}
