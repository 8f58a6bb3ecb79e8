//! Keyring: the keys that encrypt the gossip of a cluster.
//!
//! A ring has several keys so that one can be rotated without an outage: install the new key on all nodes, make it primary
//! on all nodes, then remove the old key from all nodes. At each step every node can decrypt what the others send. A ring
//! counts the rotations of its cluster, so that a node that was away during one follows those that were not. Keys are
//! secret: only [`Key::to_base64`] and [`Keyring::to_text`] return them; `Debug` and errors never show one.

use std::fmt;

use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use ring::hmac::{self, HMAC_SHA256};
use thiserror::Error;

/// Length of a key in octets: 256 bits, as AES-256 takes.
pub const KEY_LEN: usize = 32;
/// Maximum number of keys in a ring. A rotation needs two; eight leave room for unfinished rotations.
pub const MAX_KEYS: usize = 8;

/// HKDF info that separates key ids from encryption keys.
const ID_INFO: &[u8] = b"muster gossip key id";

/// Keys that decrypt gossip: 1 to [`MAX_KEYS`], all different. The first one, the primary key, encrypts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyring {
    keys: Vec<Key>,
    /// Number of the last rotation (a command that made a key primary) that this ring took part in; 0: none.
    rotation: u64,
}

/// Effect of a change on a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The ring has changed.
    Changed,
    /// The ring was in the requested state already.
    Already,
}

/// Change of a ring that is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum KeyringError {
    /// The ring has [`MAX_KEYS`] keys.
    #[error("the ring has {MAX_KEYS} keys, the maximum: remove one that is not used")]
    Full,
    /// No key has this id.
    #[error("no key {0} in the ring: install it first, or see `muster keyring list`")]
    Absent(KeyId),
    /// The primary key cannot be removed.
    #[error("key {0} is the primary key: make another key primary before you remove it")]
    Primary(KeyId),
    /// The ring took part in another rotation of this or a higher number.
    #[error("another key became primary meanwhile: see `muster keyring list`, then repeat the command")]
    Superseded,
    /// Another key has this id: one pair of keys in 2^32.
    #[error("another key has the id {0}: make a new one with `muster keygen`")]
    Clash(KeyId),
}

impl Keyring {
    /// Returns a ring of one key.
    pub fn new(primary: Key) -> Self {
        Self { keys: vec![primary], rotation: 0 }
    }

    /// Returns the ring as of a rotation.
    #[must_use]
    pub fn as_of(self, rotation: u64) -> Self {
        Self { rotation, ..self }
    }

    /// Number of the last rotation that this ring took part in; 0: none.
    pub fn rotation(&self) -> u64 {
        self.rotation
    }

    /// Parses a key file: one key in base64 per line, the first one primary. Blank lines and lines that begin with `#` are
    /// skipped.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let mut keys: Vec<(usize, Key)> = vec![];
        for (at, line) in text.lines().enumerate() {
            let (number, line) = (at + 1, line.trim());
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what| KeyFileError::Line { line: number, what };
            let key = Key::from_base64(line).map_err(|error| wrong(LineError::Key(error)))?;
            if let Some((first, _)) = keys.iter().find(|(_, other)| other.id == key.id) {
                return Err(wrong(LineError::Again { first: *first }));
            }
            if keys.len() == MAX_KEYS {
                return Err(wrong(LineError::TooMany));
            }
            keys.push((number, key));
        }
        if keys.is_empty() {
            return Err(KeyFileError::Empty);
        }
        Ok(Self { keys: keys.into_iter().map(|(_, key)| key).collect(), rotation: 0 })
    }

    /// Returns a key file with these keys, for [`Keyring::parse`].
    pub fn to_text(&self) -> String {
        let mut text = "# Gossip keys of muster: the first one encrypts, all of them decrypt.\n".to_owned();
        for key in &self.keys {
            text.push_str(&key.to_base64());
            text.push('\n');
        }
        text
    }

    /// Returns the key that encrypts.
    pub fn primary(&self) -> &Key {
        // Invariant: constructors require a key, and `remove` refuses the primary one.
        &self.keys[0]
    }

    /// Returns the key with this id.
    pub fn get(&self, id: KeyId) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// Iterates over the keys, the primary key first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.keys.iter()
    }

    /// Adds a key that decrypts and does not encrypt yet.
    pub fn install(&mut self, key: Key) -> Result<Effect, KeyringError> {
        match self.get(key.id) {
            Some(own) if *own == key => Ok(Effect::Already),
            Some(_) => Err(KeyringError::Clash(key.id)),
            None if self.keys.len() >= MAX_KEYS => Err(KeyringError::Full),
            None => {
                self.keys.push(key);
                Ok(Effect::Changed)
            }
        }
    }

    /// Makes this the key that encrypts, in the rotation of this number. The others keep their order.
    ///
    /// # Errors
    /// The key is absent, or the ring took part in another rotation of this or a higher number.
    pub fn make_primary(&mut self, id: KeyId, rotation: u64) -> Result<Effect, KeyringError> {
        let at = self.position(id)?;
        if rotation <= self.rotation {
            let is_same = rotation == self.rotation && at == 0;
            return if is_same { Ok(Effect::Already) } else { Err(KeyringError::Superseded) };
        }
        self.keys[..=at].rotate_right(1);
        self.rotation = rotation;
        Ok(Effect::Changed)
    }

    /// Takes over what this ring missed of `other`, the ring of a peer whose primary key is not this ring's.
    ///
    /// A ring of a later rotation wins: its keys are installed and its primary key is used. Between rings of the same
    /// rotation neither wins: each keeps its primary key and installs that of the other, so that both decrypt both. A ring of
    /// an earlier rotation changes nothing. The peer applies the same rule, so that two nodes never exchange their keys in
    /// turns.
    pub fn take_over(&mut self, other: &Self) -> Effect {
        let mut keys = if other.rotation > self.rotation {
            other.keys.clone()
        } else if other.rotation == self.rotation
            && self.get(other.primary().id).is_none()
            && self.keys.len() < MAX_KEYS
        {
            self.keys.push(other.primary().clone());
            return Effect::Changed;
        } else {
            return Effect::Already;
        };
        let own = self.keys.iter().filter(|key| other.get(key.id).is_none()).cloned();
        keys.extend(own);
        // The last keys are those that this ring alone has.
        keys.truncate(MAX_KEYS);
        *self = Self { keys, rotation: other.rotation };
        Effect::Changed
    }

    /// Removes a key: messages encrypted with it are rejected from now on.
    pub fn remove(&mut self, id: KeyId) -> Result<(), KeyringError> {
        match self.position(id)? {
            0 => Err(KeyringError::Primary(id)),
            at => {
                self.keys.remove(at);
                Ok(())
            }
        }
    }

    fn position(&self, id: KeyId) -> Result<usize, KeyringError> {
        self.keys.iter().position(|key| key.id == id).ok_or(KeyringError::Absent(id))
    }
}

// --- Key files -------------------------------------------------------------------------------------------------------

/// Invalid key file. Never holds the offending text, which may be most of a key.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KeyFileError {
    /// No line has a key.
    #[error("the file has no key: add one, `muster keygen` prints one")]
    Empty,
    /// Invalid line.
    #[error("line {line}: {what}")]
    Line {
        /// Number of the line, counted from 1.
        line: usize,
        /// Problem of the line.
        what: LineError,
    },
}

/// Problem of one line of a key file.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LineError {
    /// The line is not a key.
    #[error(transparent)]
    Key(KeyError),
    /// The key is a duplicate.
    #[error("duplicate of the key in line {first}: delete one of the two lines")]
    Again {
        /// Line of the first occurrence.
        first: usize,
    },
    /// The file has more than [`MAX_KEYS`] keys.
    #[error("more than {MAX_KEYS} keys: delete those that no node encrypts with")]
    TooMany,
}

// --- One key ---------------------------------------------------------------------------------------------------------

/// Secret key of [`KEY_LEN`] octets. `Debug` shows only its id.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    octets: [u8; KEY_LEN],
    id: KeyId,
}

/// Public id of a key on the wire, in tables and in logs. Derived by a one-way function, so it does not reveal the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 4]);

/// Invalid key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// Not base64 in the standard alphabet (RFC 4648 §4).
    #[error("a key is one word of base64; `muster keygen` prints one")]
    NotBase64,
    /// Base64 of another length, in octets.
    #[error("a key is {KEY_LEN} octets in base64, this one has {0}; `muster keygen` prints one")]
    Length(usize),
}

impl Key {
    /// Returns a key of octets from a cryptographically secure generator.
    pub fn from_random(octets: [u8; KEY_LEN]) -> Self {
        let id = KeyId(derive(&octets, &[], ID_INFO));
        Self { octets, id }
    }

    /// Parses base64 in the standard alphabet (RFC 4648 §4), with or without padding.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let encoding = if text.ends_with('=') { &BASE64 } else { &BASE64_NOPAD };
        let octets = encoding.decode(text.as_bytes()).map_err(|_| KeyError::NotBase64)?;
        octets.try_into().map(Self::from_random).map_err(|octets: Vec<u8>| KeyError::Length(octets.len()))
    }

    /// Returns the secret in base64, for a key file or for the user who generated it.
    pub fn to_base64(&self) -> String {
        BASE64.encode(&self.octets)
    }

    /// Returns the public id.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Returns the secret, to be encrypted and sent.
    pub(crate) fn octets(&self) -> &[u8; KEY_LEN] {
        &self.octets
    }

    /// Derives a secret for one use. Different `salt` or `info` give independent secrets that do not reveal the key.
    pub(crate) fn derive(&self, salt: &[u8], info: &[u8]) -> [u8; KEY_LEN] {
        derive(&self.octets, salt, info)
    }
}

/// HKDF-SHA256 (RFC 5869) for at most one block of output. Unlike `ring::hkdf`, which takes any length, this cannot fail.
fn derive<const N: usize>(secret: &[u8; KEY_LEN], salt: &[u8], info: &[u8]) -> [u8; N] {
    const { assert!(N <= 32, "one block of SHA-256") };
    let extracted = hmac::sign(&hmac::Key::new(HMAC_SHA256, salt), secret);
    let mut expand = hmac::Context::with_key(&hmac::Key::new(HMAC_SHA256, extracted.as_ref()));
    expand.update(info);
    expand.update(&[1]);
    let block = expand.sign();
    std::array::from_fn(|at| block.as_ref()[at])
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

impl KeyId {
    /// Parses the output of `Display`.
    pub fn from_hex(text: &str) -> Option<Self> {
        let octets = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
        octets.try_into().ok().map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use ring::hkdf;

    use super::*;

    fn key(number: u8) -> Key {
        Key::from_random([number; KEY_LEN])
    }

    fn text(keys: impl IntoIterator<Item = u8>) -> String {
        keys.into_iter().map(|number| key(number).to_base64() + "\n").collect()
    }

    fn ids(ring: &Keyring) -> Vec<KeyId> {
        ring.iter().map(Key::id).collect()
    }

    #[test]
    fn derived_keys_equal_those_of_hkdf() {
        struct Length(usize);
        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                self.0
            }
        }
        for salt in [&[][..], &[7; 16], &[7; 100]] {
            let mut expected = [0; KEY_LEN];
            let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&[5; KEY_LEN]);
            prk.expand(&[b"some", b"thing"], Length(KEY_LEN)).unwrap().fill(&mut expected).unwrap();
            assert_eq!(key(5).derive(salt, b"something"), expected);
            assert_eq!(derive::<4>(&[5; KEY_LEN], salt, b"something"), expected[..4]);
        }
    }

    #[test]
    fn keys_are_read_from_base64() {
        let padded = key(200).to_base64();
        let cases = [
            (padded.as_str(), Ok(key(200))),
            (padded.trim_end_matches('='), Ok(key(200))),
            ("", Err(KeyError::Length(0))),
            ("AAAA", Err(KeyError::Length(3))),
            (&BASE64.encode(&[1; 16]), Err(KeyError::Length(16))),
            (&BASE64.encode(&[1; 33]), Err(KeyError::Length(33))),
            (&padded[1..], Err(KeyError::NotBase64)),
            (&format!("{padded}="), Err(KeyError::NotBase64)),
            // 0xc8 in base64 begins with `y`; `-` and `_` belong to the URL-safe alphabet.
            (&padded.replace('y', "-"), Err(KeyError::NotBase64)),
            // The unused bits of the last character are set: a second text for the same key.
            (&format!("{}B=", "A".repeat(42)), Err(KeyError::NotBase64)),
        ];
        for (text, expected) in cases {
            assert_eq!(Key::from_base64(text), expected, "{text}");
        }
    }

    #[test]
    fn debug_and_errors_never_show_a_key() {
        let ring = Keyring::new(key(0xab));
        assert_eq!(format!("{ring:?}"), format!("Keyring {{ keys: [Key({})], rotation: 0 }}", key(0xab).id()));
        assert_eq!(key(0xab).id().to_string().len(), 8);
        assert_ne!(key(1).id(), key(2).id());
        // Errors do not quote the text.
        let secret = key(9).to_base64();
        for text in [&secret[2..], &secret[4..], &secret.replace('C', "-")] {
            let error = Keyring::parse(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(&text[..4]), "{error}");
        }
    }

    #[test]
    fn key_files_are_read_and_written() {
        let file = format!("# ours\r\n\r\n  {}\t\r\n#{}\n{}", text([3]).trim(), text([4]).trim(), text([1]).trim());
        let ring = Keyring::parse(&file).unwrap();
        assert_eq!(ids(&ring), [key(3).id(), key(1).id()]);
        assert_eq!(*ring.primary(), key(3));
        assert_eq!(Keyring::parse(&ring.to_text()).unwrap(), ring);
        let full = Keyring::parse(&text(0..8)).unwrap();
        assert_eq!(full.iter().len(), MAX_KEYS);
    }

    #[test]
    fn key_file_errors_name_the_line() {
        let cases = [
            (String::new(), "the file has no key: add one, `muster keygen` prints one"),
            ("# none\n\n".into(), "the file has no key: add one, `muster keygen` prints one"),
            (text([1]) + "\nno key\n", "line 3: a key is one word of base64; `muster keygen` prints one"),
            ("c2hvcnQ=\n".into(), "line 1: a key is 32 octets in base64, this one has 5; `muster keygen` prints one"),
            (format!("#\n{}", text([1, 2, 1])), "line 4: duplicate of the key in line 2: delete one of the two lines"),
            (text(0..9), "line 9: more than 8 keys: delete those that no node encrypts with"),
        ];
        for (file, expected) in cases {
            assert_eq!(Keyring::parse(&file).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn keys_are_installed_made_primary_and_removed() {
        use Effect::{Already, Changed};
        let id = |number| key(number).id();
        let mut ring = Keyring::new(key(1));
        assert_eq!(ring.install(key(2)), Ok(Changed));
        assert_eq!(ring.install(key(2)), Ok(Already));
        assert_eq!(ring.install(key(1)), Ok(Already));
        assert_eq!(ring.install(key(3)), Ok(Changed));
        assert_eq!(ids(&ring), [id(1), id(2), id(3)]);

        assert_eq!(ring.make_primary(id(3), 1), Ok(Changed));
        assert_eq!(ring.make_primary(id(3), 1), Ok(Already));
        assert_eq!(ring.make_primary(id(9), 2), Err(KeyringError::Absent(id(9))));
        // A message of another rotation that arrives late.
        assert_eq!(ring.make_primary(id(2), 1), Err(KeyringError::Superseded));
        assert_eq!(ring.make_primary(id(3), 0), Err(KeyringError::Superseded));
        assert_eq!(ring.rotation(), 1);
        assert_eq!(ids(&ring), [id(3), id(1), id(2)]);

        assert_eq!(ring.remove(id(3)), Err(KeyringError::Primary(id(3))));
        assert_eq!(ring.remove(id(9)), Err(KeyringError::Absent(id(9))));
        assert_eq!(ring.remove(id(1)), Ok(()));
        assert_eq!(ring.remove(id(1)), Err(KeyringError::Absent(id(1))));
        assert_eq!(ids(&ring), [id(3), id(2)]);
        assert_eq!((ring.get(id(2)), ring.get(id(1))), (Some(&key(2)), None));

        for number in 10..16 {
            assert_eq!(ring.install(key(number)), Ok(Changed));
        }
        assert_eq!(ring.install(key(99)), Err(KeyringError::Full));
        assert_eq!(ring.install(key(15)), Ok(Already));
    }

    #[test]
    fn ring_of_a_later_rotation_wins() {
        use Effect::{Already, Changed};
        let ring = |keys: &[u8], rotation| Keyring::parse(&text(keys.iter().copied())).unwrap().as_of(rotation);
        let all: Vec<u8> = (10..18).collect();
        type Keys<'a> = (&'a [u8], u64);
        let cases: &[(Keys<'_>, Keys<'_>, Effect, &[u8])] = &[
            // A node that was away during install and use.
            ((&[1], 0), (&[2, 1], 1), Changed, &[2, 1]),
            ((&[2, 1], 1), (&[1], 0), Already, &[2, 1]),
            // It has a key that the others lack.
            ((&[1, 7], 3), (&[3, 1, 2], 5), Changed, &[3, 1, 2, 7]),
            ((&all, 0), (&[1, 2], 1), Changed, &[1, 2, 10, 11, 12, 13, 14, 15]),
            // Two sides of a split with a rotation each: neither wins.
            ((&[2, 1], 1), (&[3, 1], 1), Changed, &[2, 1, 3]),
            ((&[3, 1], 1), (&[2, 1], 1), Changed, &[3, 1, 2]),
            ((&[2, 1, 3], 1), (&[3, 1, 2], 1), Already, &[2, 1, 3]),
            ((&all, 1), (&[2], 1), Already, &all),
        ];
        for ((own, rotation), (other, of_other), effect, expected) in cases {
            let (mut taken, other) = (ring(own, *rotation), ring(other, *of_other));
            assert_eq!(taken.take_over(&other), *effect, "{own:?} {other:?}");
            assert_eq!(taken, ring(expected, *rotation.max(of_other)), "{own:?} {other:?}");
            // The second time, nothing is left to take over.
            assert_eq!(taken.take_over(&other), Already, "{own:?} {other:?}");
        }
    }

    #[test]
    fn keys_with_equal_ids_clash() {
        let other = Key { octets: [2; KEY_LEN], id: key(1).id() };
        assert_eq!(Keyring::new(key(1)).install(other), Err(KeyringError::Clash(key(1).id())));
    }
}
