//! Transaction signatures (RFC 8945): which key signed a message, and signatures of replies.
//!
//! A message of a peer is read once, without allocations that depend on its counts, and never asserted on. The decoder of
//! hickory-proto asserts that a message has one TSIG record, knows no chain of replies from the server's side, and compares
//! names of algorithms with their letter case; so this module has its own.

pub mod chain;
mod record;

use std::{collections::BTreeMap, fmt, sync::Arc};

use ring::hmac;
use thiserror::Error;

use self::record::{Fields, RDATA_FIELDS, RECORD_FIELDS, Tsig};
use crate::{dns::message::query::HEADER, model::name::Name};

/// Largest difference in seconds between the clocks of both sides (RFC 8945 §10).
const FUDGE: u16 = 300;
/// Octets of the server's time in the reply to a message of another time (RFC 8945 §5.2.3).
const OTHER_TIME: usize = 6;
/// Longest MAC in octets, that of HMAC-SHA512.
const MAX_MAC: usize = 64;

/// A key that the configuration names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedKey {
    /// Name of the key.
    pub name: Name,
    /// Part of the configuration that names it.
    pub by: &'static str,
}

/// Algorithm of a key (RFC 8945 §6). MD5, GSS and truncated forms are not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// `hmac-sha1`, which old peers may need.
    Sha1,
    /// `hmac-sha256`
    Sha256,
    /// `hmac-sha384`
    Sha384,
    /// `hmac-sha512`
    Sha512,
}

impl Algorithm {
    const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// Returns the algorithm with this name, in any letter case and with or without a final dot.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.trim_end_matches('.');
        Self::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "hmac-sha1",
            Self::Sha256 => "hmac-sha256",
            Self::Sha384 => "hmac-sha384",
            Self::Sha512 => "hmac-sha512",
        }
    }

    fn from_wire(wire: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.wire().eq_ignore_ascii_case(wire))
    }

    /// Returns the name in wire form.
    fn wire(self) -> Vec<u8> {
        let name = self.name().as_bytes();
        [&[name.len() as u8], name, &[0]].concat()
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

/// A key that two sides share.
pub struct Key {
    name: Name,
    algorithm: Algorithm,
    secret: hmac::Key,
}

impl Key {
    /// Returns a key with this name and secret.
    pub fn new(name: Name, algorithm: Algorithm, secret: &[u8]) -> Self {
        Self { name, algorithm, secret: hmac::Key::new(algorithm.hmac(), secret) }
    }

    /// Returns the name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    fn mac(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.secret);
        parts.iter().for_each(|part| context.update(part));
        context.sign().as_ref().to_vec()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} {})", self.name, self.algorithm.name())
    }
}

/// Keys by name.
#[derive(Clone, Debug, Default)]
pub struct Keys(BTreeMap<Name, Arc<Key>>);

impl Keys {
    /// Returns the key with this name.
    pub fn get(&self, name: &Name) -> Option<&Arc<Key>> {
        self.0.get(name)
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Reports whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Key> for Keys {
    fn from_iter<T: IntoIterator<Item = Key>>(keys: T) -> Self {
        Self(keys.into_iter().map(|key| (key.name.clone(), Arc::new(key))).collect())
    }
}

/// Reasons why the signature of a message is refused.
#[derive(Debug, Error)]
pub enum TsigError {
    /// The message or its TSIG record is malformed (FORMERR).
    #[error("malformed TSIG record")]
    Malformed,
    /// The key is not known with this algorithm (BADKEY).
    #[error("unknown TSIG key {}, or another algorithm than that of the key", .0.key)]
    UnknownKey(Unsigned),
    /// The MAC is not that of the key (BADSIG).
    #[error("the signature is not that of TSIG key {}", .0.key)]
    BadSignature(Unsigned),
    /// The clocks differ by more than the fudge (BADTIME).
    #[error("the message was signed {skew} s away from the clock of this host; synchronize both clocks")]
    BadTime {
        /// Difference of the clocks in seconds.
        skew: u64,
        /// Signs the reply, which has the time of this host.
        signer: Signer,
    },
    /// The MAC is shorter than that of the algorithm (BADTRUNC).
    #[error("truncated signature of TSIG key {}", .0.key)]
    Truncated(Unsigned),
}

impl TsigError {
    /// Returns the number of the error in a TSIG record (RFC 8945 §3).
    pub fn code(&self) -> u16 {
        match self {
            Self::Malformed => 0,
            Self::BadSignature(_) => 16,
            Self::UnknownKey(_) => 17,
            Self::BadTime { .. } => 18,
            Self::Truncated(_) => 22,
        }
    }

    /// Appends the TSIG record of the error to a reply, if it has one (RFC 8945 §5.2).
    pub fn append_to(&mut self, reply: &mut Vec<u8>, now: u64) {
        let code = self.code();
        match self {
            Self::Malformed => {}
            Self::UnknownKey(fields) | Self::BadSignature(fields) | Self::Truncated(fields) => {
                fields.append_to(reply, code);
            }
            Self::BadTime { signer, .. } => signer.sign_with_error(reply, code, now),
        }
    }
}

/// Fields of a request that an unsigned TSIG record repeats.
#[derive(Debug)]
pub struct Unsigned {
    key: Name,
    algorithm: Box<[u8]>,
    time: u64,
    fudge: u16,
    id: u16,
}

impl Unsigned {
    fn append_to(&self, reply: &mut Vec<u8>, error: u16) {
        let Self { algorithm, time, fudge, id, .. } = self;
        let (key, (time, fudge, id)) = (self.key.wire(), (*time, *fudge, *id));
        Fields { key, algorithm, time, fudge, id, error, other: &[] }.append_to(&[], reply);
    }
}

/// Signs the replies to a signed message, each with the MAC before it (RFC 8945 §5.3).
#[derive(Debug)]
pub struct Signer {
    key: Arc<Key>,
    /// MAC of the request or of the last reply.
    previous: Vec<u8>,
    /// Id of the request.
    id: u16,
    /// Time in the request, which a reply of BADTIME repeats.
    time: u64,
    is_first: bool,
}

impl Signer {
    /// Returns the key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Octets that a signature adds to a message, at most.
    pub fn max_len(&self) -> usize {
        self.key.name.wire().len()
            + RECORD_FIELDS
            + self.key.algorithm.wire().len()
            + RDATA_FIELDS
            + MAX_MAC
            + OTHER_TIME
    }

    /// Appends the signature to the next reply. `now` is Unix time in seconds.
    pub fn sign(&mut self, reply: &mut Vec<u8>, now: u64) {
        self.append(reply, now, 0, &[]);
    }

    /// Appends the signature with an error, the time of the request and that of this host (RFC 8945 §5.2.3).
    fn sign_with_error(&mut self, reply: &mut Vec<u8>, error: u16, now: u64) {
        self.append(reply, self.time, error, &now.to_be_bytes()[2..]);
    }

    fn append(&mut self, reply: &mut Vec<u8>, time: u64, error: u16, other: &[u8]) {
        let algorithm = self.key.algorithm.wire();
        let key = self.key.name.wire();
        let fields = Fields { key, algorithm: &algorithm, time, fudge: FUDGE, id: self.id, error, other };
        let rest = if self.is_first { fields.variables() } else { fields.timers().to_vec() };
        let mac = self.key.mac(&[&(self.previous.len() as u16).to_be_bytes(), &self.previous, reply, &rest]);
        fields.append_to(&mac, reply);
        (self.previous, self.is_first) = (mac, false);
    }
}

/// Appends a signature to a request with this id, and returns its MAC. `now` is Unix time in seconds.
pub fn sign_request(key: &Key, request: &mut Vec<u8>, id: u16, now: u64) -> Vec<u8> {
    let algorithm = key.algorithm.wire();
    let fields =
        Fields { key: key.name.wire(), algorithm: &algorithm, time: now, fudge: FUDGE, id, error: 0, other: &[] };
    let mac = key.mac(&[request, &fields.variables()]);
    fields.append_to(&mac, request);
    mac
}

/// A message whose signature was verified.
#[derive(Debug)]
pub struct Verified {
    /// The message without its TSIG record, with the id that it was received with.
    pub message: Vec<u8>,
    /// Signs the replies.
    pub signer: Signer,
}

/// Verifies a message that ends in a TSIG record (RFC 8945 §5.2). `now` is Unix time in seconds.
///
/// # Errors
/// The reason of the refusal, which the reply repeats.
pub fn verify(packet: &[u8], keys: &Keys, now: u64) -> Result<Verified, TsigError> {
    let tsig = Tsig::parse(packet).ok_or(TsigError::Malformed)?;
    let fields = tsig.fields();
    let Fields { algorithm, time, fudge, .. } = fields;
    // Of the message as it was received: a forwarder, and Kea's sender of updates, have replaced the id that was signed.
    let id = u16::from_be_bytes([packet[0], packet[1]]);
    let unsigned = || Unsigned { key: tsig.key.clone(), algorithm: algorithm.into(), time, fudge, id };
    let known = keys.get(&tsig.key).filter(|key| Algorithm::from_wire(algorithm) == Some(key.algorithm));
    let Some(key) = known else { return Err(TsigError::UnknownKey(unsigned())) };
    let mut message = packet[..tsig.start].to_vec();
    let additional = u16::from_be_bytes([message[10], message[11]]).saturating_sub(1);
    message[10..HEADER].copy_from_slice(&additional.to_be_bytes());
    let full = key.algorithm.hmac().digest_algorithm().output_len();
    if tsig.mac.len() > full {
        return Err(TsigError::Malformed);
    }
    if tsig.mac.len() < full {
        return Err(TsigError::Truncated(unsigned()));
    }
    // A MAC covers the name of the algorithm in lower case.
    let algorithm = key.algorithm.wire();
    let signed =
        [&fields.id.to_be_bytes()[..], &message[2..], &Fields { algorithm: &algorithm, ..fields }.variables()].concat();
    if hmac::verify(&key.secret, &signed, tsig.mac).is_err() {
        return Err(TsigError::BadSignature(unsigned()));
    }
    let signer = Signer { key: key.clone(), previous: tsig.mac.to_vec(), id, time, is_first: true };
    let skew = time.abs_diff(now);
    if skew > u64::from(fudge) {
        return Err(TsigError::BadTime { skew, signer });
    }
    Ok(Verified { message, signer })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn key(name: &str, algorithm: Algorithm, secret: &[u8]) -> Key {
        Key::new(Name::parse(name).unwrap(), algorithm, secret)
    }

    /// An SOA query with this id.
    fn query(id: u16) -> Vec<u8> {
        let mut query = id.to_be_bytes().to_vec();
        query.extend_from_slice(b"\x01\0\0\x01\0\0\0\0\0\0\x03web\0\0\x06\0\x01");
        query
    }

    fn signed(by: &Key, at: u64) -> Vec<u8> {
        let mut query = query(7);
        sign_request(by, &mut query, 7, at);
        query
    }

    #[test]
    fn signatures_are_verified() {
        let keys: Keys = [key("xfr", Algorithm::Sha256, b"secret")].into_iter().collect();
        let good = key("xfr", Algorithm::Sha256, b"secret");
        let changed = |at: usize| {
            let mut message = signed(&good, NOW);
            message[at] ^= 1;
            message
        };
        let relayed = {
            let mut message = signed(&good, NOW);
            message[..2].copy_from_slice(&99_u16.to_be_bytes());
            message
        };
        let twice = {
            let mut message = signed(&good, NOW);
            sign_request(&good, &mut message, 7, NOW);
            message
        };
        let last = signed(&good, NOW).len() - 1;
        let cases = [
            ("valid", signed(&good, NOW), "valid"),
            ("within the fudge", signed(&good, NOW - 300), "valid"),
            ("a forwarder changed the id", relayed, "valid"),
            ("a clock behind", signed(&good, NOW - 301), "18"),
            ("a clock ahead", signed(&good, NOW + 301), "18"),
            ("another secret", signed(&key("xfr", Algorithm::Sha256, b"other"), NOW), "16"),
            ("another algorithm", signed(&key("xfr", Algorithm::Sha512, b"secret"), NOW), "17"),
            ("another key", signed(&key("other", Algorithm::Sha256, b"secret"), NOW), "17"),
            ("another question", changed(HEADER + 1), "16"),
            ("another flag", changed(2), "16"),
            ("a cut record", signed(&good, NOW)[..last].to_vec(), "0"),
            ("two signatures", twice, "0"),
            ("no signature", query(7), "0"),
            ("no message", Vec::new(), "0"),
        ];
        for (case, message, expected) in cases {
            let found = match verify(&message, &keys, NOW) {
                Ok(Verified { message: verified, signer }) => {
                    // The client finds the reply by this id.
                    let id = u16::from_be_bytes([message[0], message[1]]);
                    assert_eq!((verified, signer.id), (query(id), id), "{case}");
                    "valid".to_owned()
                }
                Err(error) => error.code().to_string(),
            };
            assert_eq!(found, expected, "{case}");
        }
    }

    /// Each reply is signed with the MAC before it: one that is lost, repeated or moved breaks the chain.
    #[test]
    fn replies_are_a_chain() {
        let keys: Keys = [key("xfr", Algorithm::Sha384, b"secret")].into_iter().collect();
        let Verified { mut signer, .. } =
            verify(&signed(&key("xfr", Algorithm::Sha384, b"secret"), NOW), &keys, NOW).unwrap();
        let first_previous = signer.previous.clone();
        let replies: Vec<Vec<u8>> = (0..3)
            .map(|number| {
                let mut reply = query(number);
                let len = reply.len();
                signer.sign(&mut reply, NOW);
                assert!(reply.len() - len <= signer.max_len());
                reply
            })
            .collect();
        let mut previous = first_previous;
        for (number, reply) in replies.iter().enumerate() {
            let tsig = Tsig::parse(reply).unwrap();
            let plain = query(number as u16);
            let key = keys.get(&tsig.key).unwrap();
            let len = (previous.len() as u16).to_be_bytes();
            let (name, algorithm) = (key.name.wire(), key.algorithm.wire());
            let fields =
                Fields { key: name, algorithm: &algorithm, time: NOW, fudge: FUDGE, id: 7, error: 0, other: &[] };
            let rest = if number == 0 { fields.variables() } else { fields.timers().to_vec() };
            assert_eq!(key.mac(&[&len, &previous, &plain, &rest]), tsig.mac, "{number}");
            previous = tsig.mac.to_vec();
        }
    }

    #[test]
    fn hostile_messages_are_read_without_panic() {
        let keys: Keys = [key("xfr", Algorithm::Sha256, b"secret")].into_iter().collect();
        let good = signed(&key("xfr", Algorithm::Sha256, b"secret"), NOW);
        let mut random = fastrand::Rng::with_seed(8945);
        for _ in 0..20_000 {
            let mut message = good.clone();
            message.truncate(random.usize(0..=good.len()));
            for _ in 0..random.usize(0..4) {
                if let Some(last) = message.len().checked_sub(1) {
                    message[random.usize(0..=last)] = random.u8(..);
                }
            }
            // A forwarder may change the id; everything else is signed.
            let is_changed = message.get(2..) != good.get(2..);
            assert!(!is_changed || verify(&message, &keys, NOW).is_err(), "{message:?}");
        }
    }
}
