//! Key files in BIND's form: `Kzone.+013+TAG.key` has the DNSKEY record, `Kzone.+013+TAG.private` the private key and the times.
//!
//! Errors name a line and a field. They never show a value of a private key file.

use data_encoding::{BASE64, HEXUPPER};
use thiserror::Error;

use super::key::{ALGORITHM, Key, PRIVATE, PUBLIC, Timing, dnskey, ds, tag};
use crate::model::{
    date::rfc3339,
    name::{Name, NameError},
    service::MAX_TTL,
};

/// Extension of a file with a public key.
pub const PUBLIC_EXTENSION: &str = "key";
/// Extension of a file with a private key.
pub const PRIVATE_EXTENSION: &str = "private";

/// Zone and key tag, which the name of a key file states.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId {
    /// The zone.
    pub zone: Name,
    /// The key tag.
    pub tag: u16,
}

/// Content of a file with a public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// Flags of the DNSKEY record.
    pub flags: u16,
    /// TTL in seconds, if the file has one.
    pub ttl: Option<u32>,
    /// The two coordinates.
    pub key: [u8; PUBLIC],
}

/// Content of a file with a private key.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey {
    /// The scalar.
    pub key: [u8; PRIVATE],
    /// When the key is used.
    pub timing: Timing,
}

/// Unusable key file.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KeyFileError {
    /// The name of the file is not that of a key.
    #[error("the name is not of the form Kzone.+013+TAG")]
    Name,
    /// A key of an algorithm that is not supported, by its number.
    #[error("algorithm {0} is not supported")]
    Algorithm(u8),
    /// No DNSKEY record.
    #[error("the file has no DNSKEY record such as `example.org. IN DNSKEY 257 3 13 KEY`")]
    NoRecord,
    /// The record does not belong to the zone of the file's name.
    #[error("the record belongs to {0}, the name of the file to another zone")]
    OtherZone(Name),
    /// The record's owner is not a name.
    #[error("the owner of the record: {0}")]
    Owner(#[from] NameError),
    /// The key is no key that signs zones, by its flags.
    #[error("flags {0} are not those of a zone's key: use 256 or 257")]
    Flags(String),
    /// The public key is not base64 of the right length.
    #[error("the public key is not base64 of 64 octets")]
    PublicKey,
    /// The key has another tag than the name of the file.
    #[error("the key has the tag {0}, the name of the file another one")]
    OtherTag(u16),
    /// A field of a private key is missing.
    #[error("the field `{0}` is missing")]
    Missing(&'static str),
    /// The private key is not base64 of the right length.
    #[error("the field `PrivateKey` is not base64 of 32 octets")]
    PrivateKey,
    /// A time is malformed.
    #[error("the field `{0}` is not a time of the form YYYYMMDDHHMMSS")]
    Time(&'static str),
    /// The file is not text.
    #[error("the file is not text")]
    NotText,
}

/// Names of the fields with times.
const TIMES: [&str; 6] = ["Publish", "Activate", "Inactive", "Delete", "SyncPublish", "SyncDelete"];

impl KeyId {
    /// Parses the name of a file without its extension.
    ///
    /// # Errors
    /// The name is not of that form, or the algorithm is not supported.
    pub fn parse(stem: &str) -> Result<Self, KeyFileError> {
        let rest = stem.strip_prefix('K').ok_or(KeyFileError::Name)?;
        let mut parts = rest.rsplitn(3, '+');
        let mut part = || parts.next().ok_or(KeyFileError::Name);
        let (tag, algorithm, zone) = (part()?, part()?, part()?);
        let number = |text: &str, digits| (text.len() == digits).then(|| text.parse::<u16>().ok()).flatten();
        let algorithm = number(algorithm, 3).and_then(|number| u8::try_from(number).ok()).ok_or(KeyFileError::Name)?;
        let tag = number(tag, 5).ok_or(KeyFileError::Name)?;
        let zone = Name::parse(zone).map_err(|_| KeyFileError::Name)?;
        if algorithm == ALGORITHM { Ok(Self { zone, tag }) } else { Err(KeyFileError::Algorithm(algorithm)) }
    }

    /// Returns the name of the file without its extension.
    pub fn stem(&self) -> String {
        format!("K{}+{ALGORITHM:03}+{:05}", self.zone, self.tag)
    }
}

impl From<&Key> for KeyId {
    fn from(key: &Key) -> Self {
        Self { zone: key.zone.clone(), tag: key.tag() }
    }
}

impl PublicKey {
    /// Parses a file of this id.
    ///
    /// # Errors
    /// The reason why the key cannot be used.
    pub fn parse(id: &KeyId, octets: &[u8]) -> Result<Self, KeyFileError> {
        let text = std::str::from_utf8(octets).map_err(|_| KeyFileError::NotText)?;
        let mut words = text
            .lines()
            .map(|line| line.split_once(';').map_or(line, |(record, _)| record))
            .flat_map(str::split_ascii_whitespace)
            .filter(|word| !matches!(*word, "(" | ")"));
        let owner = Name::parse(words.next().ok_or(KeyFileError::NoRecord)?)?;
        let mut ttl = None;
        loop {
            match words.next() {
                Some(word) if word.eq_ignore_ascii_case("IN") => {}
                Some(word) if word.eq_ignore_ascii_case("DNSKEY") => break,
                Some(word) => ttl = Some(word.parse().map_err(|_| KeyFileError::NoRecord)?),
                None => return Err(KeyFileError::NoRecord),
            }
        }
        if owner != id.zone {
            return Err(KeyFileError::OtherZone(owner));
        }
        let mut field = || words.next().ok_or(KeyFileError::NoRecord);
        let (flags, protocol, algorithm) = (field()?, field()?, field()?);
        let flags = match flags.parse() {
            // Others, such as that of a revoked key (RFC 5011), have no meaning here.
            Ok(known @ (256 | 257)) if protocol == "3" => known,
            _ => return Err(KeyFileError::Flags(flags.chars().take(8).collect())),
        };
        let algorithm: u8 = algorithm.parse().map_err(|_| KeyFileError::NoRecord)?;
        if algorithm != ALGORITHM {
            return Err(KeyFileError::Algorithm(algorithm));
        }
        let base64: String = words.collect();
        let key = BASE64.decode(base64.as_bytes()).ok().and_then(|octets| octets.try_into().ok());
        let key = key.ok_or(KeyFileError::PublicKey)?;
        match tag(&dnskey(flags, &key)) {
            tag if tag == id.tag => Ok(Self { flags, ttl: ttl.map(|ttl: u32| ttl.min(MAX_TTL)), key }),
            tag => Err(KeyFileError::OtherTag(tag)),
        }
    }
}

impl PrivateKey {
    /// Parses a file.
    ///
    /// # Errors
    /// The reason why the key cannot be used.
    pub fn parse(octets: &[u8]) -> Result<Self, KeyFileError> {
        let text = std::str::from_utf8(octets).map_err(|_| KeyFileError::NotText)?;
        let field = |name: &'static str| {
            let fields = text.lines().filter_map(|line| line.split_once(':'));
            fields.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.trim())
        };
        let algorithm = field("Algorithm").ok_or(KeyFileError::Missing("Algorithm"))?;
        let number = algorithm.split_ascii_whitespace().next().and_then(|number| number.parse().ok());
        match number {
            Some(ALGORITHM) => {}
            Some(other) => return Err(KeyFileError::Algorithm(other)),
            None => return Err(KeyFileError::Missing("Algorithm")),
        }
        let key = field("PrivateKey").ok_or(KeyFileError::Missing("PrivateKey"))?;
        let key = BASE64.decode(key.as_bytes()).ok().and_then(|octets| octets.try_into().ok());
        let key = key.ok_or(KeyFileError::PrivateKey)?;
        let mut times = [None; TIMES.len()];
        for (time, name) in times.iter_mut().zip(TIMES) {
            *time = match field(name) {
                Some(text) => Some(parse_time(text).ok_or(KeyFileError::Time(name))?),
                None => None,
            };
        }
        let [publish, activate, inactive, delete, sync_publish, sync_delete] = times;
        Ok(Self { key, timing: Timing { publish, activate, inactive, delete, sync_publish, sync_delete } })
    }
}

/// Returns the time of `Delete` in the comments of a file with a public key, in seconds since 1970.
pub fn noted_delete(octets: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(octets).ok()?;
    let mut comments = text.lines().filter_map(|line| line.strip_prefix(';')?.trim().strip_prefix("Delete:"));
    parse_time(comments.next()?.trim())
}

/// Parses seconds since 1970 from `YYYYMMDDHHMMSS` in UTC, which other text may follow.
fn parse_time(text: &str) -> Option<u64> {
    let digits = text.get(..14).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (date, time) = digits.split_at(8);
    let text = format!("{}-{}-{}T{}:{}:{}Z", &date[..4], &date[4..6], &date[6..], &time[..2], &time[2..4], &time[4..]);
    let time = humantime::parse_rfc3339(&text).ok()?;
    time.duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// Formats seconds since 1970 as `YYYYMMDDHHMMSS` in UTC. A year after 9999 is shown as the end of that year.
pub fn format_time(time: u64) -> String {
    rfc3339(std::time::Duration::from_secs(time)).chars().filter(char::is_ascii_digit).collect()
}

/// Formats the public key of a key that was made at `created`.
pub fn public_text(key: &Key, created: u64) -> String {
    let kind = if key.is_entry_point() { "key-signing" } else { "zone-signing" };
    let mut text = format!("; This is a {kind} key, keyid {}, for {}\n", key.tag(), key.zone);
    text.extend(times(key, created).map(|(name, time)| format!("; {name}: {}\n", format_time(time))));
    let ttl = key.ttl.map_or(String::new(), |ttl| format!("{ttl} "));
    let flags = key.flags;
    text + &format!("{} {ttl}IN DNSKEY {flags} 3 {ALGORITHM} {}\n", key.zone, BASE64.encode(key.public()))
}

/// Formats the private key of a key that was made at `created`.
pub fn private_text(key: &Key, private: &[u8; PRIVATE], created: u64) -> String {
    let mut text = format!(
        "Private-key-format: v1.3\nAlgorithm: {ALGORITHM} (ECDSAP256SHA256)\nPrivateKey: {}\n",
        BASE64.encode(private)
    );
    text.extend(times(key, created).map(|(name, time)| format!("{name}: {}\n", format_time(time))));
    text
}

fn times(key: &Key, created: u64) -> impl Iterator<Item = (&'static str, u64)> {
    let Timing { publish, activate, inactive, delete, sync_publish, sync_delete } = key.timing;
    let times = TIMES.into_iter().zip([publish, activate, inactive, delete, sync_publish, sync_delete]);
    std::iter::once(("Created", created)).chain(times.filter_map(|(name, time)| Some((name, time?))))
}

/// Formats the DS record of a key as a line.
pub fn ds_text(zone: &Name, flags: u16, public: &[u8; PUBLIC]) -> String {
    let ds = ds(zone, &dnskey(flags, public));
    let (fields, digest) = ds.split_at(4);
    let tag = u16::from_be_bytes([fields[0], fields[1]]);
    format!("{zone} IN DS {tag} {} {} {}\n", fields[2], fields[3], HEXUPPER.encode(digest))
}
