//! The keys that the nodes of a cluster share, so that only they can make and read gossip.
//!
//! A ring has several keys so that one can be exchanged under way: it is installed everywhere, then made primary
//! everywhere, then the old one is removed everywhere. At each step whatever a node seals, all others can open. No octet
//! of a key is ever printed, except by [`Key::to_base64`] and [`Keyring::to_text`], which are asked for it.

use std::fmt;

use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use ring::hmac::{self, HMAC_SHA256};

/// Octets of a key: what AES-256 takes, and as much as a secret ever needs.
pub const KEY_LEN: usize = 32;
/// Keys of a ring. Two do for a rotation; eight leave room for one that was never finished.
pub const MAX_KEYS: usize = 8;

/// Keeps what ids are derived from apart from what seals.
const ID_INFO: &[u8] = b"muster gossip key id";

/// The keys that a node opens gossip with: 1 to [`MAX_KEYS`], all different. It seals with the first, the primary one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyring {
    keys: Vec<Key>,
}

/// What a change of a ring came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The ring is another one now.
    Changed,
    /// It was so already.
    Already,
}

/// Why a ring stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyringError {
    /// There are [`MAX_KEYS`] keys.
    Full,
    /// No key with this id.
    Absent(KeyId),
    /// The primary key cannot be removed.
    Primary(KeyId),
    /// Another key has this id: one pair of keys in four thousand million.
    Clash(KeyId),
}

impl Keyring {
    /// A ring of one key.
    pub fn new(primary: Key) -> Self {
        Self { keys: vec![primary] }
    }

    /// Reads a key file: a key in base64 on each line, the first one primary; blank lines and lines that begin with `#`
    /// do not count.
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
        Ok(Self { keys: keys.into_iter().map(|(_, key)| key).collect() })
    }

    /// A key file with these keys, which [`Keyring::parse`] reads.
    pub fn to_text(&self) -> String {
        let mut text = "# The keys of muster's gossip: the first one seals, each of them opens.\n".to_owned();
        for key in &self.keys {
            text.push_str(&key.to_base64());
            text.push('\n');
        }
        text
    }

    /// The key that seals.
    pub fn primary(&self) -> &Key {
        // There is always one: no way to make a ring leaves it out, and `remove` refuses it.
        &self.keys[0]
    }

    /// The key with this id.
    pub fn get(&self, id: KeyId) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// The keys, the primary one first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.keys.iter()
    }

    /// Adds a key that opens and does not seal yet.
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

    /// Seals with this key from now on. The others keep their order.
    pub fn make_primary(&mut self, id: KeyId) -> Result<Effect, KeyringError> {
        match self.position(id)? {
            0 => Ok(Effect::Already),
            at => {
                self.keys[..=at].rotate_right(1);
                Ok(Effect::Changed)
            }
        }
    }

    /// Takes a key out: what is sealed with it is refused from now on.
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

impl fmt::Display for KeyringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(f, "the ring has {MAX_KEYS} keys, the most there can be: remove one that is not used"),
            Self::Absent(id) => write!(f, "no key {id} in the ring: install it first, or see `muster keyring list`"),
            Self::Primary(id) => write!(f, "the key {id} is the primary one: use another one before you remove it"),
            Self::Clash(id) => write!(f, "another key has the id {id}: make a new one with `muster keygen`"),
        }
    }
}

impl std::error::Error for KeyringError {}

// --- Key files -------------------------------------------------------------------------------------------------------

/// Why a text is no key file. Never holds what stood there: it may be most of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFileError {
    /// No line has a key.
    Empty,
    /// This line, counted from 1, is wrong.
    Line {
        /// Which.
        line: usize,
        /// How.
        what: LineError,
    },
}

/// What is wrong with one line of a key file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineError {
    /// It is no key.
    Key(KeyError),
    /// The key stands there already.
    Again {
        /// In this line.
        first: usize,
    },
    /// The file has more than [`MAX_KEYS`].
    TooMany,
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Line { line, what } = self else {
            return f.write_str("there is no key: put one in, `muster keygen` prints one");
        };
        write!(f, "line {line}: ")?;
        match what {
            LineError::Key(error) => error.fmt(f),
            LineError::Again { first } => write!(f, "the key of line {first} again: delete one of the two lines"),
            LineError::TooMany => write!(f, "more than {MAX_KEYS} keys: delete those that no node seals with any more"),
        }
    }
}

impl std::error::Error for KeyFileError {}

// --- One key ---------------------------------------------------------------------------------------------------------

/// A secret of [`KEY_LEN`] octets. `Debug` shows its id alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    octets: [u8; KEY_LEN],
    id: KeyId,
}

/// What a key is called where it may be seen: on the wire, in tables, in logs. Derived from the key by a one-way
/// function, so it gives nothing of it away.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 4]);

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Not base64 in the standard alphabet (RFC 4648 §4).
    NotBase64,
    /// Base64 of another length; holds how many octets.
    Length(usize),
}

impl Key {
    /// A key of octets from a generator fit for secrets.
    pub fn from_random(octets: [u8; KEY_LEN]) -> Self {
        let id = KeyId(derive(&octets, &[], ID_INFO));
        Self { octets, id }
    }

    /// Reads base64 in the standard alphabet (RFC 4648 §4), with or without its padding.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let encoding = if text.ends_with('=') { &BASE64 } else { &BASE64_NOPAD };
        let octets = encoding.decode(text.as_bytes()).map_err(|_| KeyError::NotBase64)?;
        octets.try_into().map(Self::from_random).map_err(|octets: Vec<u8>| KeyError::Length(octets.len()))
    }

    /// The key itself, for a key file or for whoever generated it.
    pub fn to_base64(&self) -> String {
        BASE64.encode(&self.octets)
    }

    /// What to call it.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The octets themselves, to be sealed and sent.
    pub(crate) fn octets(&self) -> &[u8; KEY_LEN] {
        &self.octets
    }

    /// A secret for one use. Two differ as soon as `salt` or `info` do, and none tells anything of the key.
    pub(crate) fn derive(&self, salt: &[u8], info: &[u8]) -> [u8; KEY_LEN] {
        derive(&self.octets, salt, info)
    }
}

/// HKDF-SHA256 (RFC 5869) for one block of output or less. `ring::hkdf` takes any length and may therefore fail; this
/// cannot.
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
    /// Reads what `Display` writes.
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

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBase64 => f.write_str("a key is one word of base64; `muster keygen` prints one"),
            Self::Length(len) => {
                write!(f, "a key is {KEY_LEN} octets in base64, this one has {len}; `muster keygen` prints one")
            }
        }
    }
}

impl std::error::Error for KeyError {}

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
    fn a_key_is_derived_as_hkdf_does() {
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
            // 0xc8 in base64 begins with `y`; `-` and `_` are of the alphabet for URLs.
            (&padded.replace('y', "-"), Err(KeyError::NotBase64)),
            // The last character's spare bits are set: another text of the same key.
            (&format!("{}B=", "A".repeat(42)), Err(KeyError::NotBase64)),
        ];
        for (text, expected) in cases {
            assert_eq!(Key::from_base64(text), expected, "{text}");
        }
    }

    #[test]
    fn nothing_but_the_id_of_a_key_is_shown() {
        let ring = Keyring::new(key(0xab));
        assert_eq!(format!("{ring:?}"), format!("Keyring {{ keys: [Key({})] }}", key(0xab).id()));
        assert_eq!(key(0xab).id().to_string().len(), 8);
        assert_ne!(key(1).id(), key(2).id());
        // What was read is not in the error either.
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
    fn what_is_wrong_with_a_key_file_is_said_with_its_line() {
        let cases = [
            (String::new(), "there is no key: put one in, `muster keygen` prints one"),
            ("# none\n\n".into(), "there is no key: put one in, `muster keygen` prints one"),
            (text([1]) + "\nno key\n", "line 3: a key is one word of base64; `muster keygen` prints one"),
            ("c2hvcnQ=\n".into(), "line 1: a key is 32 octets in base64, this one has 5; `muster keygen` prints one"),
            (format!("#\n{}", text([1, 2, 1])), "line 4: the key of line 2 again: delete one of the two lines"),
            (text(0..9), "line 9: more than 8 keys: delete those that no node seals with any more"),
        ];
        for (file, expected) in cases {
            assert_eq!(Keyring::parse(&file).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_ring_changes_step_by_step() {
        use Effect::{Already, Changed};
        let id = |number| key(number).id();
        let mut ring = Keyring::new(key(1));
        assert_eq!(ring.install(key(2)), Ok(Changed));
        assert_eq!(ring.install(key(2)), Ok(Already));
        assert_eq!(ring.install(key(1)), Ok(Already));
        assert_eq!(ring.install(key(3)), Ok(Changed));
        assert_eq!(ids(&ring), [id(1), id(2), id(3)]);

        assert_eq!(ring.make_primary(id(3)), Ok(Changed));
        assert_eq!(ring.make_primary(id(3)), Ok(Already));
        assert_eq!(ring.make_primary(id(9)), Err(KeyringError::Absent(id(9))));
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
    fn two_keys_of_one_id_do_not_share_a_ring() {
        let other = Key { octets: [2; KEY_LEN], id: key(1).id() };
        assert_eq!(Keyring::new(key(1)).install(other), Err(KeyringError::Clash(key(1).id())));
    }
}
