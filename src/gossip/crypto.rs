//! AEAD sessions for gossip frames: encryption, authentication and replay protection.
//!
//! The attacker can capture, delay, replay, reorder and forge frames, and send them to any node from any address, but has
//! no key of the [`Keyring`]. The attacker can suppress frames but cannot make a node accept a forged one. Every holder of
//! a key can impersonate every node.
//!
//! **No clocks are compared.** Freshness follows from sessions: each process draws a random [`Session`] when it starts. A
//! *bound* frame names its receiver's session, which the sender knows only from a frame of that receiver. So a bound frame
//! was made for this run of the receiver; within the run, a replay window accepts each counter once. An *unbound* frame
//! has no receiver: two nodes learn each other's sessions from unbound frames.
//!
//! Rules for callers:
//!
//! - **An unbound frame proves nothing about the present.** A key holder made it, perhaps long ago, in a process that has
//!   ended. The only permitted reaction is a rate-limited answer that is bound to [`Opened::from`].
//! - **[`OpenError::OtherSession`] proves nothing about the present either.** The peer may know an earlier run of this node,
//!   or the frame is a replay. The same reaction is permitted, nothing else.
//! - **The source address of a frame is no evidence**: an attacker may relay a genuine frame from anywhere. The plaintext
//!   has to carry the peer's address.
//! - **Frames may be reordered or missing**, the first frame of a session included.
//!
//! Layout; numbers are big-endian, and everything before the body is authenticated with the body:
//!
//! | octets | |
//! | --- | --- |
//! | 1 | [`MAGIC`]: frame type and version |
//! | 1 | bit 0: sealed, bit 1: bound |
//! | 4 | key id; zeros if not sealed |
//! | 16 | the sender's session |
//! | 8 | counter: starts at 1, never repeats within a session |
//! | 8 | bound frames only: the first octets of the receiver's session |
//! | | body: the ciphertext and a tag of 16 octets; the plaintext if not sealed |
//!
//! Eight octets of the receiver's session suffice: sessions are random and cannot be chosen, so two nodes of a cluster
//! share these octets with a probability of 2^-64. The octets are not secret.
//!
//! The cipher is AES-256-GCM. Its key is derived from the shared key and the sender's session; the counter is the nonce.
//! No two nodes and no two runs share a key, so no nonce is used twice.

mod sessions;
#[cfg(test)]
mod tests;

use std::fmt;

use data_encoding::HEXLOWER;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use thiserror::Error;

use self::sessions::Sessions;
pub use self::sessions::{MAX_SESSIONS, WINDOW};
use crate::model::keyring::{Key, KeyId, Keyring};

/// First octet of every frame. The low half is the layout version.
pub const MAGIC: u8 = 0xa1;
/// Largest difference in octets between a frame and its plaintext: that of a sealed and bound frame.
pub const OVERHEAD: usize = HEADER + BINDING + TAG;
/// Longest plaintext in octets: chitchat's largest datagram, 65,507 octets, and room for the message kind. A frame that
/// has to fit a datagram carries [`OVERHEAD`] octets less than the datagram.
pub const MAX_PLAINTEXT: usize = 65_536;

const HEADER: usize = 1 + 1 + 4 + SESSION + 8;
const SESSION: usize = 16;
const BINDING: usize = 8;
const TAG: usize = 16;

const SEALED: u8 = 1;
const BOUND: u8 = 2;

/// Key derivation label: separates session keys from other keys derived from a shared key.
const SESSION_INFO: &[u8] = b"muster gossip session aes-256-gcm";

/// Seals and opens the frames of one process.
#[derive(Debug)]
pub struct Seal {
    protection: Protection,
    own: Session,
    /// Counter of the last sealed frame.
    counter: u64,
    /// Cached key of the own session, derived from the primary key.
    sealing: Option<LessSafeKey>,
    sessions: Sessions,
}

/// Protection of frames.
#[derive(Clone, Debug)]
pub enum Protection {
    /// Frames are neither encrypted nor authenticated. The layout and the replay window are the same, so duplicates are
    /// dropped, but any host can forge frames. For loopback and for trusted networks.
    Open,
    /// Frames are sealed with keys of this ring.
    Sealed(Keyring),
}

/// Identifier of one run of a process: 16 octets from a cryptographic random generator. Not secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Session(pub [u8; SESSION]);

/// The receiver of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// Any key holder; for the first frame of a handshake, see the module's description.
    Anyone,
    /// One run of a process.
    Session(Session),
}

/// An opened frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'f> {
    /// Session of the sender.
    pub from: Session,
    /// True if the frame is bound to the receiver's session. An unbound frame may be a replay, see the module's description.
    pub bound: bool,
    /// Id of the key that the frame was sealed with; `None` if it was not sealed.
    pub key: Option<KeyId>,
    /// Decrypted content.
    pub plaintext: &'f [u8],
}

impl Seal {
    /// Creates the state for one process. `own` must be freshly drawn: two instances with the same session would reuse
    /// nonces, which breaks the encryption.
    pub fn new(protection: Protection, own: Session) -> Self {
        Self { protection, own, counter: 0, sealing: None, sessions: Sessions::default() }
    }

    /// This process's session.
    pub fn own(&self) -> Session {
        self.own
    }

    /// Protection of frames, with the keys in use.
    pub fn protection(&self) -> &Protection {
        &self.protection
    }

    /// Replaces the keyring: seals with its primary key and opens with all its keys, also if frames were not sealed
    /// before. The replay windows are kept, whichever key a frame was sealed with.
    pub fn set_keyring(&mut self, keyring: Keyring) {
        match self.protection {
            // Any host may have forged unsealed frames, so their sessions are discarded.
            Protection::Open => self.sessions = Sessions::default(),
            Protection::Sealed(_) => self.sessions.forget_keys(),
        }
        self.protection = Protection::Sealed(keyring);
        self.sealing = None;
    }

    /// Reports whether the session table is nearly full, so that replay windows may be evicted soon: time to
    /// [`renew`](Seal::renew). Only thousands of peer restarts lead to this, an attacker without a key cannot. Always false
    /// without keys, since any host could fill the table then.
    pub fn is_crowded(&self) -> bool {
        matches!(self.protection, Protection::Sealed(_)) && self.sessions.are_crowded()
    }

    /// Starts a new session, as if the process had restarted: frames bound to the old session are rejected from now on,
    /// and peers have to be greeted again. Also required after a leaked key is removed: its finder may have used up the
    /// counters of other nodes' sessions.
    pub fn renew(&mut self, own: Session) {
        *self = Self::new(self.protection.clone(), own);
    }

    /// Appends a frame with `plaintext` to `out`. Leaves `out` unchanged on an error.
    pub fn seal(&mut self, to: Recipient, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        self.seal_with(None, to, plaintext, out)
    }

    /// Like [`seal`](Self::seal), with another key of the ring than the primary one, for a receiver that may not have the
    /// primary one. A key that is not in the ring is ignored.
    pub fn seal_with(
        &mut self,
        key: Option<KeyId>,
        to: Recipient,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        if plaintext.len() > MAX_PLAINTEXT {
            return Err(SealError::TooLong(plaintext.len()));
        }
        // Increment before use: whatever fails below, this counter is never used again.
        self.counter = self.counter.checked_add(1).ok_or(SealError::Exhausted)?;
        let key = match &self.protection {
            Protection::Open => None,
            Protection::Sealed(ring) => Some(key.and_then(|id| ring.get(id)).unwrap_or(ring.primary())),
        };
        let flag = if key.is_some() { SEALED } else { 0 };
        let to = match to {
            Recipient::Anyone => None,
            Recipient::Session(session) => Some(session.binding()),
        };
        let start = out.len();
        out.reserve(plaintext.len() + OVERHEAD);
        out.extend([MAGIC, flag | if to.is_some() { BOUND } else { 0 }]);
        out.extend(key.map_or([0; 4], |key| key.id().0));
        out.extend(self.own.0);
        out.extend(self.counter.to_be_bytes());
        out.extend(to.into_iter().flatten());
        let body = out.len();
        out.extend(plaintext);
        if let (Some(key), Protection::Sealed(ring)) = (key, &self.protection) {
            let (head, body) = out[start..].split_at_mut(body - start);
            // Other keys are rarely used, so theirs is derived each time. The counter is that of all keys.
            let mut derived = None;
            let cached = if key == ring.primary() { &mut self.sealing } else { &mut derived };
            match encrypt(cached, key, self.own, self.counter, head, body) {
                Ok(tag) => out.extend(tag),
                Err(error) => {
                    out.truncate(start);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Opens a frame in place. Its octets are undefined afterwards, whatever the result.
    pub fn open<'f>(&mut self, frame: &'f mut [u8]) -> Result<Opened<'f>, OpenError> {
        let header = Header::read(frame)?;
        let from = header.from;
        if from == self.own {
            return Err(OpenError::Own);
        }
        let (head, body) = frame.split_at_mut(header.len());
        let mut derived = None;
        let plaintext: &[u8] = match &self.protection {
            Protection::Open if header.sealed => return Err(OpenError::Sealed),
            Protection::Open => body,
            Protection::Sealed(_) if !header.sealed => return Err(OpenError::Plain),
            Protection::Sealed(ring) => {
                let key = ring.get(header.key).ok_or(OpenError::UnknownKey(header.key))?;
                let cipher = match self.sessions.key(from, header.key) {
                    Some(known) => known,
                    None => derived.insert(session_key(key, from).ok_or(OpenError::Forged)?),
                };
                let opened = cipher.open_in_place(nonce(header.counter), Aad::from(&*head), body);
                opened.map_err(|_| OpenError::Forged)?
            }
        };
        // The frame is authenticated from here on. Only a bound frame is recorded: an attacker may have captured many
        // frames of ended sessions and could evict live sessions with them.
        match header.to {
            None => {}
            Some(to) if to != self.own.binding() => {
                return Err(OpenError::OtherSession { from, key: header.sealed.then_some(header.key) });
            }
            Some(_) => {
                let key = derived.map(|cipher| (header.key, cipher));
                if !self.sessions.admit(from, key, header.counter) {
                    return Err(OpenError::Replayed);
                }
            }
        }
        let key = header.sealed.then_some(header.key);
        Ok(Opened { from, bound: header.to.is_some(), key, plaintext })
    }
}

impl Session {
    /// Octets of the session that a bound frame carries.
    fn binding(self) -> [u8; BINDING] {
        std::array::from_fn(|at| self.0[at])
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// --- The cipher ------------------------------------------------------------------------------------------------------

/// Derives the key of one session; `None` only if the library refuses 32 octets for AES-256.
fn session_key(key: &Key, session: Session) -> Option<LessSafeKey> {
    let secret = key.derive(&session.0, SESSION_INFO);
    UnboundKey::new(&AES_256_GCM, &secret).ok().map(LessSafeKey::new)
}

/// Encrypts `body` in place under the own session's key, which is derived on first use. Returns the tag.
fn encrypt(
    cached: &mut Option<LessSafeKey>,
    key: &Key,
    own: Session,
    counter: u64,
    head: &[u8],
    body: &mut [u8],
) -> Result<[u8; TAG], SealError> {
    let cipher = match cached {
        Some(cipher) => cipher,
        None => cached.insert(session_key(key, own).ok_or(SealError::Cipher)?),
    };
    let tag = cipher.seal_in_place_separate_tag(nonce(counter), Aad::from(head), body);
    tag.ok().and_then(|tag| tag.as_ref().try_into().ok()).ok_or(SealError::Cipher)
}

fn nonce(counter: u64) -> Nonce {
    let mut octets = [0; NONCE_LEN];
    octets[NONCE_LEN - 8..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(octets)
}

// --- The header ------------------------------------------------------------------------------------------------------

/// The parsed header of a frame.
struct Header {
    sealed: bool,
    key: KeyId,
    from: Session,
    counter: u64,
    to: Option<[u8; BINDING]>,
}

impl Header {
    /// Parses a header and checks that a sealed frame has room for its tag.
    fn read(frame: &[u8]) -> Result<Self, OpenError> {
        // The magic octet comes first, so that foreign packets are classified as such, however short they are.
        let (&magic, rest) = frame.split_first().ok_or(OpenError::TooShort)?;
        if magic != MAGIC {
            return Err(OpenError::NotOurs);
        }
        let (&flags, rest) = rest.split_first().ok_or(OpenError::TooShort)?;
        if flags & !(SEALED | BOUND) != 0 {
            return Err(OpenError::NotOurs);
        }
        if frame.len() > MAX_PLAINTEXT + OVERHEAD {
            return Err(OpenError::TooLong);
        }
        let (key, rest) = take(rest)?;
        let (from, rest) = take(rest)?;
        let (counter, rest) = take(rest)?;
        let (to, body) = match flags & BOUND {
            0 => (None, rest),
            _ => take(rest).map(|(to, body)| (Some(to), body))?,
        };
        let sealed = flags & SEALED != 0;
        if sealed && body.len() < TAG {
            return Err(OpenError::TooShort);
        }
        Ok(Self { sealed, key: KeyId(key), from: Session(from), counter: u64::from_be_bytes(counter), to })
    }

    /// Octets of the header.
    fn len(&self) -> usize {
        HEADER + if self.to.is_some() { BINDING } else { 0 }
    }
}

fn take<const N: usize>(octets: &[u8]) -> Result<([u8; N], &[u8]), OpenError> {
    octets.split_first_chunk().map(|(first, rest)| (*first, rest)).ok_or(OpenError::TooShort)
}

// --- Errors ----------------------------------------------------------------------------------------------------------

/// Reasons why a frame cannot be opened. Only [`OpenError::OtherSession`] and [`OpenError::Replayed`] require a key to
/// provoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum OpenError {
    /// The frame ends within its header or its tag.
    #[error("frame is truncated: a device on the path may drop long packets")]
    TooShort,
    /// The frame exceeds [`MAX_PLAINTEXT`] octets and a header.
    #[error("frame is longer than any that muster sends")]
    TooLong,
    /// The packet is another program's, or of another version.
    #[error("not a gossip frame of this version: another program or another version of muster sends to this port")]
    NotOurs,
    /// The frame is not sealed; this node has keys.
    #[error("not sealed: the sender has no key file, this node has one")]
    Plain,
    /// The frame is sealed; this node has no keys.
    #[error("sealed: the sender has a key file, this node has none")]
    Sealed,
    /// The frame is sealed with a key that is not in the ring.
    #[error("sealed with key {0}, which this node does not have: compare `muster keyring list` on both nodes")]
    UnknownKey(KeyId),
    /// Authentication failed: the key differs, or the frame was modified.
    #[error("authentication failed: the frame was modified or made with another key")]
    Forged,
    /// The frame is authentic but bound to another session.
    #[error("session {from} sent it to another session: an earlier run of this agent, or another node")]
    OtherSession {
        /// Session of the sender; see the module's description for the permitted reaction.
        from: Session,
        /// Id of the key that the frame was sealed with; `None` if it was not sealed.
        key: Option<KeyId>,
    },
    /// The counter was seen before or is behind the replay window.
    #[error("replayed: the frame was received before, or is behind the replay window")]
    Replayed,
    /// The frame was sent by this node.
    #[error("sent by this node itself: remove its own address from gossip.join")]
    Own,
}

impl OpenError {
    /// Short name for counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooShort => "short",
            Self::TooLong => "long",
            Self::NotOurs => "foreign",
            Self::Plain => "plain",
            Self::Sealed => "sealed",
            Self::UnknownKey(_) => "key",
            Self::Forged => "forged",
            Self::OtherSession { .. } => "elsewhere",
            Self::Replayed => "replayed",
            Self::Own => "own",
        }
    }
}

/// Reasons why a message cannot be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// The plaintext has more than [`MAX_PLAINTEXT`] octets; holds its length.
    #[error("gossip message of {0} octets exceeds the limit of {MAX_PLAINTEXT}")]
    TooLong(usize),
    /// All counters of the session are used; see [`Seal::renew`].
    #[error("the session has used all its counters: restart the agent")]
    Exhausted,
    /// The cryptographic library refused to encrypt, which indicates a defect.
    #[error("encryption failed: please report this defect of muster")]
    Cipher,
}
