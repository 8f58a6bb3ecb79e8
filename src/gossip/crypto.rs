//! Sealed frames: what a stranger on the network sends has no effect beyond a counter.
//!
//! The stranger may capture, hold back, replay and reorder what nodes send, forge what he likes, and send all of it to
//! any node from any address. He has no key of the [`Keyring`]. He can keep nodes from hearing each other, which nobody
//! on a network can prevent; he cannot make one believe anything. Whoever holds a key, on the other hand, can speak for every node.
//!
//! **No clock is compared.** What is fresh follows from sessions: each process draws a random [`Session`] when it starts.
//! A *bound* frame names the session that it is for, and a sender knows that session only from a frame of the
//! receiver's. So a bound frame was made for this run of the receiver, and within the run a window of counters lets each
//! one through once. An *unbound* frame is for anybody: it is how two nodes learn each other's sessions.
//!
//! What a caller has to know:
//!
//! - **An unbound frame is unproven.** It was made by a holder of a key, but maybe long ago, by a process that is gone.
//!   The one thing to do about it is to answer, not too often, with a frame bound to [`Opened::from`].
//! - **[`OpenError::Elsewhere`] is unproven as well**: made with a key, for another session. A peer may still know an
//!   earlier run of ours, or somebody replays. Again, answer and no more.
//! - **The address that a frame comes from is no evidence**: a genuine frame may have been caught and sent on from
//!   anywhere. Where a peer is to be reached has to stand in the plaintext.
//! - **The first frame of a session to arrive may not be the first one sent**, and frames may be missing.
//!
//! Layout, numbers big-endian; all before the body is authenticated with it:
//!
//! | octets | |
//! | --- | --- |
//! | 1 | [`MAGIC`]: what this is, and its version |
//! | 1 | bit 0: sealed, bit 1: bound |
//! | 4 | the id of the key; zeros when not sealed |
//! | 16 | the sender's session |
//! | 8 | the counter: from 1, never twice in a session |
//! | 8 | bound only: the first octets of the receiver's session |
//! | | the body: the plaintext encrypted, then a tag of 16 octets; the plaintext itself when not sealed |
//!
//! Eight octets of the receiver's session are enough: sessions are random and nobody chooses them, so that two nodes of
//! one cluster share these octets by chance alone, one time in 2^64 for each pair. They are not for secrecy.
//!
//! The cipher is AES-256-GCM under a key of the sender's session, derived from the shared key, with the counter as nonce:
//! no two nodes and no two runs ever use the same key, so no nonce is ever used twice.

mod sessions;
#[cfg(test)]
mod tests;

use std::fmt;

use data_encoding::HEXLOWER;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use self::sessions::Sessions;
pub use self::sessions::{MAX_SESSIONS, WINDOW};
use crate::model::keyring::{Key, KeyId, Keyring};

/// The first octet of every frame. The low half is the version: a frame of another layout has another number there.
pub const MAGIC: u8 = 0xa1;
/// Octets that a frame has more than its plaintext, at most: of a sealed and bound frame.
pub const OVERHEAD: usize = HEADER + BINDING + TAG;
/// Octets of a plaintext: the largest datagram of chitchat, 65,507 octets, and room for what says that it is one. A
/// frame in one datagram is smaller: [`OVERHEAD`] less than the datagram.
pub const MAX_PLAINTEXT: usize = 65_536;

const HEADER: usize = 1 + 1 + 4 + SESSION + 8;
const SESSION: usize = 16;
const BINDING: usize = 8;
const TAG: usize = 16;

const SEALED: u8 = 1;
const BOUND: u8 = 2;

/// Keeps the keys of sessions apart from whatever else is derived from a shared key.
const SESSION_INFO: &[u8] = b"muster gossip session aes-256-gcm";

/// Makes frames and opens them, for one process.
#[derive(Debug)]
pub struct Seal {
    protection: Protection,
    own: Session,
    /// Of the last frame made.
    counter: u64,
    /// Our own session's key, once it is derived from the primary key.
    sealing: Option<LessSafeKey>,
    sessions: Sessions,
}

/// Whether frames are sealed.
#[derive(Clone, Debug)]
pub enum Protection {
    /// They are not. Frames look alike and are opened by the same rules, so that a lost or doubled datagram has the same
    /// effects, but anybody can make them: this protects nothing and is for loopback, or for a network without strangers.
    Open,
    /// With these keys.
    Sealed(Keyring),
}

/// One run of one process: 16 octets from a generator fit for secrets, drawn once. Not a secret itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Session(pub [u8; SESSION]);

/// Whom a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Whoever has a key: for what opens a conversation, see the module.
    Anyone,
    /// This run of this process.
    Session(Session),
}

/// What was in a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'f> {
    /// Whose it is.
    pub from: Session,
    /// Whether it was made for this session of ours. One that was not is unproven, see the module.
    pub bound: bool,
    /// What it says.
    pub plaintext: &'f [u8],
}

impl Seal {
    /// A seal for one process. Two with the same session would use nonces twice and give away what they seal: `own` is
    /// drawn for this one.
    pub fn new(protection: Protection, own: Session) -> Self {
        Self { protection, own, counter: 0, sealing: None, sessions: Sessions::default() }
    }

    /// This process's session.
    pub fn own(&self) -> Session {
        self.own
    }

    /// Whether frames are sealed, and with which keys.
    pub fn protection(&self) -> &Protection {
        &self.protection
    }

    /// Seals with the primary key of this ring and opens with all of its keys from now on, also if frames were not
    /// sealed before. What was let through once is not let through again, whichever key it was sealed with.
    pub fn set_keyring(&mut self, keyring: Keyring) {
        match self.protection {
            // What was noted of unsealed frames, anybody may have made up.
            Protection::Open => self.sessions = Sessions::default(),
            Protection::Sealed(_) => self.sessions.forget_keys(),
        }
        self.protection = Protection::Sealed(keyring);
        self.sealing = None;
    }

    /// Whether so many sessions were met that the least recent ones may be forgotten soon, and with them which of their
    /// frames were let through: time to [`renew`](Seal::renew). Strangers cannot bring this about, restarts of peers do,
    /// by the thousand. Without keys it is never said, since anybody could.
    pub fn is_crowded(&self) -> bool {
        matches!(self.protection, Protection::Sealed(_)) && self.sessions.are_crowded()
    }

    /// Goes on under a new session, as if the process had started again: all frames made for the old one are for
    /// somewhere else from now on. Peers have to be greeted again. Also the thing to do once a key that leaked is removed:
    /// its finder may have used up the counters of others' sessions.
    pub fn renew(&mut self, own: Session) {
        *self = Self::new(self.protection.clone(), own);
    }

    /// Puts `plaintext` into a frame behind what is in `out`. On an error `out` is as it was.
    pub fn seal(&mut self, to: To, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        if plaintext.len() > MAX_PLAINTEXT {
            return Err(SealError::TooLong(plaintext.len()));
        }
        // Counted before it is used: whatever happens next, this one is not used again.
        self.counter = self.counter.checked_add(1).ok_or(SealError::Exhausted)?;
        let (flag, key) = match &self.protection {
            Protection::Open => (0, KeyId([0; 4])),
            Protection::Sealed(ring) => (SEALED, ring.primary().id()),
        };
        let to = match to {
            To::Anyone => None,
            To::Session(session) => Some(session.binding()),
        };
        let start = out.len();
        out.reserve(plaintext.len() + OVERHEAD);
        out.extend([MAGIC, flag | if to.is_some() { BOUND } else { 0 }]);
        out.extend(key.0);
        out.extend(self.own.0);
        out.extend(self.counter.to_be_bytes());
        out.extend(to.into_iter().flatten());
        let body = out.len();
        out.extend(plaintext);
        if let Protection::Sealed(ring) = &self.protection {
            let (head, body) = out[start..].split_at_mut(body - start);
            match encrypt(&mut self.sealing, ring.primary(), self.own, self.counter, head, body) {
                Ok(tag) => out.extend(tag),
                Err(error) => {
                    out.truncate(start);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Opens a frame, in place: its octets are of no use afterwards, whatever the result.
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
        // From here on the frame is a key holder's. It is remembered only if it was made for us: a stranger has frames of
        // sessions long gone, as many as he was patient, and could push out the living ones with them.
        match header.to {
            None => {}
            Some(to) if to != self.own.binding() => return Err(OpenError::Elsewhere { from }),
            Some(_) => {
                let key = derived.map(|cipher| (header.key, cipher));
                if !self.sessions.admit(from, key, header.counter) {
                    return Err(OpenError::Replayed);
                }
            }
        }
        Ok(Opened { from, bound: header.to.is_some(), plaintext })
    }
}

impl Session {
    /// What a bound frame has of its receiver's session.
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

/// The key of one session; `None` only if the library refuses 32 octets for AES-256.
fn session_key(key: &Key, session: Session) -> Option<LessSafeKey> {
    let secret = key.derive(&session.0, SESSION_INFO);
    UnboundKey::new(&AES_256_GCM, &secret).ok().map(LessSafeKey::new)
}

/// Encrypts `body` in place under our own session's key, which is derived if need be; returns the tag.
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

/// What stands in front of a body.
struct Header {
    sealed: bool,
    key: KeyId,
    from: Session,
    counter: u64,
    to: Option<[u8; BINDING]>,
}

impl Header {
    /// Reads a header. Behind it there is room for the tag, if there has to be one.
    fn read(frame: &[u8]) -> Result<Self, OpenError> {
        // In this order, so that what another program sends is called that, however short it is.
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

/// Why a frame was not opened. Only [`OpenError::Elsewhere`] and [`OpenError::Replayed`] are said of frames that a key holder
/// made; the others anybody can bring about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpenError {
    /// It ends within its header or its tag.
    TooShort,
    /// More than [`MAX_PLAINTEXT`] octets and a header.
    TooLong,
    /// Another program's, or of another version.
    NotOurs,
    /// It is not sealed, and we are.
    Plain,
    /// It is sealed, and we have no keys.
    Sealed,
    /// Sealed with a key that is not in the ring.
    UnknownKey(KeyId),
    /// Not made with the key that it names, or changed under way.
    Forged,
    /// Made with a key of ours for another session than this one.
    Elsewhere {
        /// By whom; see the module for what may be done about it.
        from: Session,
    },
    /// It was let through before, or is too far behind to know.
    Replayed,
    /// One of our own, sent back.
    Own,
}

impl OpenError {
    /// One word, for counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooShort => "short",
            Self::TooLong => "long",
            Self::NotOurs => "foreign",
            Self::Plain => "plain",
            Self::Sealed => "sealed",
            Self::UnknownKey(_) => "key",
            Self::Forged => "forged",
            Self::Elsewhere { .. } => "elsewhere",
            Self::Replayed => "replayed",
            Self::Own => "own",
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => "the frame is cut short: something on the way may drop what is long",
            Self::TooLong => "the frame is longer than any that muster sends",
            Self::NotOurs => {
                "not a gossip frame of this version: another program, or another version of muster, sends here"
            }
            Self::Plain => "not sealed: the sender has no key file, and this node has one",
            Self::Sealed => "sealed: the sender has a key file, and this node has none",
            Self::UnknownKey(id) => {
                return write!(
                    f,
                    "sealed with the key {id}, which this node does not have: compare `muster keyring list` on both"
                );
            }
            Self::Forged => "not made with the key that it names, or changed under way",
            Self::Elsewhere { from } => {
                return write!(
                    f,
                    "session {from} made it for another session: an earlier run of this agent, or another node"
                );
            }
            Self::Replayed => "it came before, or so late that this cannot be told",
            Self::Own => "one of this node's own, sent back: is its own address among those to join?",
        })
    }
}

impl std::error::Error for OpenError {}

/// Why no frame was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// More than [`MAX_PLAINTEXT`] octets; holds how many.
    TooLong(usize),
    /// All counters of the session were used: [`Seal::renew`].
    Exhausted,
    /// The cryptographic library refused, which it has no reason to.
    Cipher,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(len) => write!(f, "a gossip message has at most {MAX_PLAINTEXT} octets, this one has {len}"),
            Self::Exhausted => f.write_str("the session has used all its counters: restart the agent"),
            Self::Cipher => f.write_str("the message could not be sealed: this is a fault of muster, please report it"),
        }
    }
}

impl std::error::Error for SealError {}
