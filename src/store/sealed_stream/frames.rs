//! Frames of an established connection: messages in, messages out, each sealed with the key of its direction.

use std::{fmt, future::pending, mem};

use bytes::{Buf, Bytes, BytesMut};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    sync::watch,
    time::timeout,
};

use super::{MAX_MESSAGE, SILENCE, StreamError};
use crate::model::keyring::{KEY_LEN, KeyId, Keyring};

/// Octets of the length before each frame.
const LENGTH: usize = 4;
/// Octets of the authentication tag behind each sealed message.
const TAG: usize = 16;
/// Octets that the read buffer has room for at least. It grows as data arrives, whatever length is announced.
const CHUNK: usize = 16 << 10;
/// Capacity of the write buffer that is kept after a large message.
const KEPT_BUFFER: usize = 256 << 10;

/// Key of one direction of a connection. Its nonce is the number of the frame.
pub(super) struct Cipher {
    key: LessSafeKey,
    frames: u64,
}

impl Cipher {
    /// Returns the cipher of a new connection; `None` only if the library refuses 32 octets for AES-256.
    pub(super) fn new(secret: &[u8; KEY_LEN]) -> Option<Self> {
        UnboundKey::new(&AES_256_GCM, secret).ok().map(|key| Self { key: LessSafeKey::new(key), frames: 0 })
    }

    /// Returns the nonce of the next frame.
    fn nonce(&mut self) -> Result<Nonce, StreamError> {
        self.frames = self.frames.checked_add(1).ok_or(StreamError::Exhausted)?;
        let mut octets = [0; NONCE_LEN];
        octets[NONCE_LEN - 8..].copy_from_slice(&self.frames.to_be_bytes());
        Ok(Nonce::assume_unique_for_key(octets))
    }

    /// Encrypts a message in place and returns its tag.
    fn seal(&mut self, message: &mut [u8]) -> Result<impl AsRef<[u8]> + use<>, StreamError> {
        let nonce = self.nonce()?;
        self.key.seal_in_place_separate_tag(nonce, Aad::empty(), message).map_err(|_| StreamError::Exhausted)
    }

    /// Decrypts a frame in place and returns the length of its message.
    fn open(&mut self, frame: &mut [u8]) -> Result<usize, StreamError> {
        let nonce = self.nonce()?;
        self.key.open_in_place(nonce, Aad::empty(), frame).map(|message| message.len()).map_err(|_| StreamError::Forged)
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("queued", &self.buffer.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("key", &self.key).finish_non_exhaustive()
    }
}

// --- Sending ---------------------------------------------------------------------------------------------------------

/// Half of a connection that sends. Messages collect in a buffer until they are flushed, so that many small ones share a
/// system call.
pub struct Writer {
    stream: OwnedWriteHalf,
    cipher: Option<Cipher>,
    buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn new(stream: OwnedWriteHalf, cipher: Option<Cipher>) -> Self {
        Self { stream, cipher, buffer: Vec::new() }
    }

    /// Appends one message, made of these parts, to the buffer.
    ///
    /// # Errors
    /// The message exceeds [`MAX_MESSAGE`], in which case nothing changes, or the connection has used all its nonces.
    pub fn queue(&mut self, parts: &[&[u8]]) -> Result<(), StreamError> {
        let len = parts.iter().map(|part| part.len()).sum();
        let whole = if self.cipher.is_some() { len + TAG } else { len };
        let announced = u32::try_from(whole).map_err(|_| StreamError::TooLong(len))?;
        if len > MAX_MESSAGE {
            return Err(StreamError::TooLong(len));
        }
        self.buffer.reserve(LENGTH + whole);
        self.buffer.extend(announced.to_be_bytes());
        let start = self.buffer.len();
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
        if let Some(cipher) = &mut self.cipher {
            let tag = cipher.seal(&mut self.buffer[start..])?;
            self.buffer.extend_from_slice(tag.as_ref());
        }
        Ok(())
    }

    /// Number of octets in the buffer.
    pub fn queued(&self) -> usize {
        self.buffer.len()
    }

    /// Sends the messages in the buffer. A connection whose flush was dropped halfway is unusable.
    ///
    /// # Errors
    /// The connection was lost.
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        let mut buffer = mem::take(&mut self.buffer);
        self.stream.write_all(&buffer).await?;
        buffer.clear();
        buffer.shrink_to(KEPT_BUFFER);
        self.buffer = buffer;
        Ok(())
    }
}

// --- Receiving -------------------------------------------------------------------------------------------------------

/// Half of a connection that receives.
pub struct Reader {
    stream: OwnedReadHalf,
    cipher: Option<Cipher>,
    buffer: BytesMut,
    /// Longest message in octets.
    limit: usize,
    /// Key of the connection; `None` without keys.
    key: Option<KeyId>,
    keyring: watch::Receiver<Option<Keyring>>,
}

impl Reader {
    /// Returns a reader that refuses messages of more than `limit` octets.
    pub(super) fn new(
        stream: OwnedReadHalf,
        cipher: Option<Cipher>,
        limit: usize,
        key: Option<KeyId>,
        keyring: watch::Receiver<Option<Keyring>>,
    ) -> Self {
        Self { stream, cipher, buffer: BytesMut::new(), limit, key, keyring }
    }

    /// Accepts messages of up to [`MAX_MESSAGE`] octets from now on.
    pub(super) fn lift_limit(&mut self) {
        self.limit = MAX_MESSAGE;
    }

    /// Receives one message. It shares memory with messages that arrived at the same time: copy what is kept for long. A
    /// dropped call loses nothing.
    ///
    /// # Errors
    /// The reason why the connection has ended; there are no more messages.
    pub async fn read(&mut self) -> Result<Bytes, StreamError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            if self.buffer.capacity() - self.buffer.len() < CHUNK / 4 {
                self.buffer.reserve(CHUNK);
            }
            let received = tokio::select! {
                received = timeout(SILENCE, self.stream.read_buf(&mut self.buffer)) => received,
                () = removal(self.key, &mut self.keyring) => return Err(StreamError::KeyRemoved),
            };
            match received {
                Ok(Ok(0)) => return Err(StreamError::Closed),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(StreamError::Silent),
            }
        }
    }

    /// Takes one message out of the buffer; `None` if it has not arrived as a whole.
    fn take(&mut self) -> Result<Option<Bytes>, StreamError> {
        let Some(len) = self.buffer.first_chunk::<LENGTH>() else { return Ok(None) };
        let len = u32::from_be_bytes(*len) as usize;
        let overhead = if self.cipher.is_some() { TAG } else { 0 };
        if len > self.limit + overhead {
            return Err(StreamError::TooLong(len));
        }
        if self.buffer.len() - LENGTH < len {
            return Ok(None);
        }
        self.buffer.advance(LENGTH);
        let mut frame = self.buffer.split_to(len);
        if let Some(cipher) = &mut self.cipher {
            let len = cipher.open(&mut frame)?;
            frame.truncate(len);
        }
        Ok(Some(frame.freeze()))
    }
}

/// Waits until the key is no longer in the ring, or until the cluster has keys and the connection has none.
async fn removal(key: Option<KeyId>, keyring: &mut watch::Receiver<Option<Keyring>>) {
    loop {
        if !is_current(key, keyring.borrow_and_update().as_ref()) {
            return;
        }
        if keyring.changed().await.is_err() {
            // The agent is stopping.
            return pending().await;
        }
    }
}

fn is_current(key: Option<KeyId>, keyring: Option<&Keyring>) -> bool {
    match (key, keyring) {
        (None, None) => true,
        (Some(key), Some(ring)) => ring.get(key).is_some(),
        _ => false,
    }
}
