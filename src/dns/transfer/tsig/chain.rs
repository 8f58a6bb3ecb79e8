//! Verification of the replies to a signed request (RFC 8945 §5.3).
//!
//! Each signature covers the one before it and all messages since. A reply of several messages may have up to 99 unsigned ones
//! between two signed ones; the first and the last are signed.

use std::sync::Arc;

use ring::hmac;
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::{
    Algorithm, Key,
    record::{Fields, Tsig},
    sign_request,
};
use crate::dns::message::query::HEADER;

/// Largest number of unsigned messages in a row (RFC 8945 §5.3.1).
const MAX_UNSIGNED: u32 = 99;

/// Reasons why a reply is not accepted.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ChainError {
    /// The first message of a reply, or its last one, has no signature.
    #[error("the reply is not signed: does the primary have the key?")]
    Unsigned,
    /// More than [`MAX_UNSIGNED`] messages without a signature.
    #[error("more than {MAX_UNSIGNED} messages in a row are not signed")]
    TooManyUnsigned,
    /// Another key or algorithm than that of the request.
    #[error("the reply is signed with another key or algorithm")]
    OtherKey,
    /// The MAC is not that of the key.
    #[error("the signature of message {0} is wrong: compare the secrets of both sides")]
    BadSignature(u32),
    /// The clocks differ by more than the fudge.
    #[error("the reply was signed {0} s away from the clock of this host; synchronize both clocks")]
    BadTime(u64),
    /// The server refused the signature of the request.
    #[error("the primary refuses the signature of the request: {0}")]
    Refused(&'static str),
}

/// Verifies the messages of one reply, in their order.
pub struct Verifier {
    key: Arc<Key>,
    /// MAC of the last signature and the unsigned messages since.
    context: hmac::Context,
    id: u16,
    messages: u32,
    unsigned: u32,
}

/// Appends a signature to a request with this id, and returns a verifier of its reply. `now` is Unix time in seconds.
pub fn sign(key: &Arc<Key>, request: &mut Vec<u8>, id: u16, now: u64) -> Verifier {
    let mac = sign_request(key, request, id, now);
    Verifier { key: key.clone(), context: begin(key, &mac), id, messages: 0, unsigned: 0 }
}

/// Returns a context that covers a former MAC.
fn begin(key: &Key, mac: &[u8]) -> hmac::Context {
    let mut context = hmac::Context::with_key(&key.secret);
    context.update(&(mac.len() as u16).to_be_bytes());
    context.update(mac);
    context
}

impl Verifier {
    /// Verifies the next message, and removes its TSIG record. `now` is Unix time in seconds.
    ///
    /// # Errors
    /// The reply is not that of the holder of the key.
    pub fn take(&mut self, message: &mut Vec<u8>, now: u64) -> Result<(), ChainError> {
        self.messages += 1;
        let Some(tsig) = Tsig::parse(message) else {
            self.unsigned += 1;
            if self.messages == 1 {
                return Err(ChainError::Unsigned);
            }
            if self.unsigned > MAX_UNSIGNED {
                return Err(ChainError::TooManyUnsigned);
            }
            self.context.update(message);
            return Ok(());
        };
        let fields = tsig.fields();
        let error = match fields.error {
            0 => None,
            16 => Some("BADSIG, the secrets differ"),
            17 => Some("BADKEY, it has no such key or another algorithm"),
            18 => Some("BADTIME, the clocks differ"),
            _ => Some("unknown error"),
        };
        if let Some(error) = error {
            return Err(ChainError::Refused(error));
        }
        if tsig.key != self.key.name || Algorithm::from_wire(fields.algorithm) != Some(self.key.algorithm) {
            return Err(ChainError::OtherKey);
        }
        let mut plain = message[..tsig.start].to_vec();
        plain[..2].copy_from_slice(&self.id.to_be_bytes());
        let additional = u16::from_be_bytes([plain[10], plain[11]]).saturating_sub(1);
        plain[10..HEADER].copy_from_slice(&additional.to_be_bytes());
        let mut context = std::mem::replace(&mut self.context, begin(&self.key, tsig.mac));
        context.update(&plain);
        if self.messages == 1 {
            // A MAC covers the name of the algorithm in lower case.
            let algorithm = self.key.algorithm.wire();
            context.update(&Fields { algorithm: &algorithm, ..fields }.variables());
        } else {
            context.update(&fields.timers());
        }
        if !bool::from(context.sign().as_ref().ct_eq(tsig.mac)) {
            return Err(ChainError::BadSignature(self.messages));
        }
        let skew = fields.time.abs_diff(now);
        if skew > u64::from(fields.fudge) {
            return Err(ChainError::BadTime(skew));
        }
        // The id of the message is checked with the message itself.
        plain[..2].copy_from_slice(&message[..2]);
        self.unsigned = 0;
        *message = plain;
        Ok(())
    }

    /// Checks that the last message was signed.
    ///
    /// # Errors
    /// It was not.
    pub fn finish(&self) -> Result<(), ChainError> {
        if self.messages > 0 && self.unsigned == 0 { Ok(()) } else { Err(ChainError::Unsigned) }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{FUDGE, Keys, Signer, verify},
        *,
    };
    use crate::model::name::Name;

    const NOW: u64 = 1_800_000_000;

    fn key(secret: &[u8]) -> Arc<Key> {
        Arc::new(Key::new(Name::parse("xfr").unwrap(), Algorithm::Sha256, secret))
    }

    fn message(number: u16) -> Vec<u8> {
        let mut message = 7_u16.to_be_bytes().to_vec();
        message.extend_from_slice(b"\x84\0\0\x01\0\0\0\0\0\0\x03web\0\0\x06\0\x01");
        message[8..10].copy_from_slice(&0_u16.to_be_bytes());
        // The TTL of no record: each message differs.
        message[17] = b'a' + (number % 26) as u8;
        message
    }

    /// A verifier, and a signer of the server that received the request.
    fn pair() -> (Verifier, Signer) {
        let mut request = message(0);
        request[2] = 0;
        let verifier = sign(&key(b"secret"), &mut request, 7, NOW);
        let keys: Keys = [Key::new(Name::parse("xfr").unwrap(), Algorithm::Sha256, b"secret")].into_iter().collect();
        (verifier, verify(&request, &keys, NOW).unwrap().signer)
    }

    /// Result of a reply whose messages are signed or not, as BIND signs some of them: each signature covers all before it.
    fn outcome(signed: impl IntoIterator<Item = bool>, change: impl Fn(usize, &mut Vec<u8>)) -> Result<(), ChainError> {
        let (mut verifier, signer) = pair();
        let mut previous = signer.previous.clone();
        let mut since: Vec<u8> = Vec::new();
        for (number, is_signed) in signed.into_iter().enumerate() {
            let mut reply = message(number as u16);
            since.extend_from_slice(&reply);
            if is_signed {
                let key = key(b"secret");
                let algorithm = key.algorithm.wire();
                let fields = Fields {
                    key: key.name.wire(),
                    algorithm: &algorithm,
                    time: NOW,
                    fudge: FUDGE,
                    id: 7,
                    error: 0,
                    other: &[],
                };
                let rest = if number == 0 { fields.variables() } else { fields.timers().to_vec() };
                let mac = key.mac(&[&(previous.len() as u16).to_be_bytes(), &previous, &since, &rest]);
                fields.append_to(&mac, &mut reply);
                (previous, since) = (mac, Vec::new());
            }
            change(number, &mut reply);
            verifier.take(&mut reply, NOW)?;
            assert_eq!(reply.len(), message(0).len(), "the TSIG record is removed");
        }
        verifier.finish()
    }

    #[test]
    fn replies_with_signed_and_unsigned_messages_are_verified() {
        let keep = |_: usize, _: &mut Vec<u8>| {};
        let some = |signed: &[bool]| signed.to_vec();
        let long = |unsigned: usize| {
            let mut signed = vec![false; unsigned + 2];
            (signed[0], signed[unsigned + 1]) = (true, true);
            signed
        };
        let cases = [
            ("all signed", some(&[true, true, true]), Ok(())),
            ("the first and the last", some(&[true, false, false, true]), Ok(())),
            ("99 unsigned ones", long(99), Ok(())),
            ("100 unsigned ones", long(100), Err(ChainError::TooManyUnsigned)),
            ("the first is not signed", some(&[false, true]), Err(ChainError::Unsigned)),
            ("the last is not signed", some(&[true, false]), Err(ChainError::Unsigned)),
            ("no message", some(&[]), Err(ChainError::Unsigned)),
        ];
        for (case, signed, expected) in cases {
            assert_eq!(outcome(signed, keep), expected, "{case}");
        }
    }

    #[test]
    fn changed_messages_break_the_chain() {
        // An unsigned message is covered by the next signature.
        for (changed, noticed) in [(0, 1), (1, 3), (2, 3), (3, 4)] {
            let change = |number: usize, reply: &mut Vec<u8>| {
                if number == changed {
                    reply[14] ^= 1;
                }
            };
            assert_eq!(outcome([true, false, true, true], change), Err(ChainError::BadSignature(noticed)), "{changed}");
        }
    }

    #[test]
    fn errors_of_the_primary_and_other_keys_are_told() {
        let (mut verifier, mut signer) = pair();
        let mut reply = message(0);
        signer.sign_with_error(&mut reply, 18, NOW);
        assert_eq!(verifier.take(&mut reply, NOW), Err(ChainError::Refused("BADTIME, the clocks differ")));
        let (mut verifier, mut signer) = pair();
        let mut reply = message(0);
        signer.sign(&mut reply, NOW);
        assert_eq!(verifier.take(&mut reply, NOW + 301), Err(ChainError::BadTime(301)));
        let (mut verifier, _) = pair();
        let mut reply = message(0);
        sign(&key(b"other"), &mut reply, 7, NOW);
        assert_eq!(verifier.take(&mut reply, NOW), Err(ChainError::BadSignature(1)));
        let (mut verifier, _) = pair();
        let mut reply = message(0);
        let other = Arc::new(Key::new(Name::parse("other").unwrap(), Algorithm::Sha256, b"secret"));
        sign(&other, &mut reply, 7, NOW);
        assert_eq!(verifier.take(&mut reply, NOW), Err(ChainError::OtherKey));
    }
}
